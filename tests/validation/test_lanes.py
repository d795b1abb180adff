"""The bounds of waiting events, on their own: what counts, who has to stop, and that nothing stays behind."""

import random
from collections import Counter

import pytest

from relay.atproto.events import AccountEvent
from relay.eventlog.progress import HostProgress
from relay.eventlog.verdict import Origin
from relay.validation.envelope import Envelope
from relay.validation.lanes import EVENT_COST_BYTES, Lane, LaneLimits, Lanes


def envelope(host: str, did: str, size: int = 0) -> Envelope:
    event = AccountEvent(1, did, active=True, status=None, time="", head=b"", tail=b"")
    return Envelope(event, Origin(host, 1, HostProgress(), 0), size)


def wait(lanes: Lanes, host: str, did: str, size: int = 0) -> Lane:
    """One more event in the lane of (host, did)."""
    lane = lanes.get(host, did)
    if lane is None:
        return lanes.open(envelope(host, did, size))
    lanes.enqueue(lane, envelope(host, did, size))
    return lane


def test_a_full_lane_stops_its_host_and_says_so_until_it_is_not_full() -> None:
    lanes = Lanes(LaneLimits(lane_events_max=2))
    lane = wait(lanes, "a", "one")
    wait(lanes, "a", "two")
    assert lanes.has_room("a")
    assert not lane.overflow.is_set()
    wait(lanes, "a", "one")
    wait(lanes, "a", "one")
    assert (lanes.is_full(lane), lane.overflow.is_set(), lanes.has_room("a")) == (True, True, False)
    assert lanes.has_room("b")
    lanes.dequeue(lane)
    assert (lanes.is_full(lane), lane.overflow.is_set(), lanes.has_room("a")) == (True, True, False)
    lanes.dequeue(lane)
    assert (lanes.is_full(lane), lane.overflow.is_set(), lanes.has_room("a")) == (False, False, True)


def test_when_all_is_used_up_only_hosts_over_their_share_stop() -> None:
    lanes = Lanes(LaneLimits(total_bytes_max=10 * EVENT_COST_BYTES))
    for number in range(9):
        wait(lanes, "greedy", f"{number}")
    assert lanes.has_room("greedy")
    wait(lanes, "modest", "one")
    assert not lanes.has_room("greedy")
    assert lanes.has_room("modest")
    assert lanes.has_room("newcomer")
    lane = lanes.get("greedy", "0")
    assert lane is not None
    lanes.dequeue(lane)
    assert lanes.has_room("greedy")


@pytest.mark.parametrize("seed", range(5))
def test_whatever_comes_and_goes_the_counts_are_those_of_what_waits(seed: int) -> None:
    rng = random.Random(seed)
    limits = LaneLimits(
        lane_events_max=4,
        lane_bytes_max=3000,
        host_events_max=9,
        host_bytes_max=9 * EVENT_COST_BYTES,
        total_bytes_max=20 * EVENT_COST_BYTES,
    )
    lanes, waiting = Lanes(limits), dict[tuple[str, str], list[int]]()
    for step in range(3000):
        host, did = rng.choice("abc"), rng.choice("123")
        if rng.random() < (0.6 if step % 600 < 300 else 0.3):
            size = rng.choice((0, 10, 900))
            wait(lanes, host, did, size)
            waiting.setdefault((host, did), []).append(size)
        elif waiting:
            host, did = rng.choice(list(waiting))
            lane = lanes.get(host, did)
            assert lane is not None
            lanes.dequeue(lane)
            waiting[host, did].pop(0)
            if not waiting[host, did]:
                del waiting[host, did]
                lanes.close(lane)
        check(lanes, limits, waiting)
    for (host, did), sizes in list(waiting.items()):
        lane = lanes.get(host, did)
        assert lane is not None
        for _ in sizes:
            lanes.dequeue(lane)
        lanes.close(lane)
    assert (bool(lanes), lanes.events) == (False, 0)
    assert all(lanes.has_room(host) for host in "abc")


def check(lanes: Lanes, limits: LaneLimits, waiting: dict[tuple[str, str], list[int]]) -> None:
    """Hold what the lanes say against what waits."""
    events, costs = Counter[str](), Counter[str]()
    for (host, _), sizes in waiting.items():
        events[host] += len(sizes)
        costs[host] += sum(sizes) + EVENT_COST_BYTES * len(sizes)
    full = {
        host
        for (host, _), sizes in waiting.items()
        if len(sizes) >= limits.lane_events_max or sum(sizes) >= limits.lane_bytes_max
    }
    assert lanes.events == events.total()
    share = limits.total_bytes_max // max(1, len(costs))
    for host in "abc":
        expected = host not in costs or (
            host not in full
            and events[host] < limits.host_events_max
            and costs[host] < limits.host_bytes_max
            and (costs.total() < limits.total_bytes_max or costs[host] < share)
        )
        assert lanes.has_room(host) is expected
