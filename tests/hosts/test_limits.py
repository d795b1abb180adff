"""Limits of events and accounts, and who is trusted with higher ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.hosts.limits import EventLimiter, EventLimits, TrustedHosts, Window, release, takes_account
from relay.net.hostname import InvalidHostname, parse

DAY = 86_400


def test_indigos_numbers() -> None:
    """peers.md 1.8."""
    assert EventLimits.ordinary(100) == EventLimits(50.1, 2_600, 21_000)
    assert EventLimits.ordinary(10_000) == EventLimits(60, 12_500, 120_000)
    assert EventLimits.trusted() == EventLimits(5_000, 50_000_000, 500_000_000)


@pytest.mark.parametrize(
    ("limits", "window", "burst", "seconds"),
    [
        (EventLimits(10, 1e6, 1e7), Window.SECOND, 10, 1),
        (EventLimits(1e6, 360, 1e7), Window.HOUR, 360, 3_600),
        (EventLimits(1e6, 1e7, 864), Window.DAY, 864, DAY),
    ],
)
def test_each_window_limits_and_is_told(limits: EventLimits, window: Window, burst: int, seconds: int) -> None:
    """A burst is free; then each event costs its share of the window."""
    limiter = EventLimiter(limits)
    assert limiter.reserve(0, burst) == 0
    assert limiter.waited == dict.fromkeys(Window, 0)
    wait = limiter.reserve(0, 5)
    assert wait == pytest.approx(5 * seconds / burst)
    assert limiter.waited == pytest.approx(dict.fromkeys(Window, 0.0) | {window: wait})
    assert limiter.reserve(wait, 0) == pytest.approx(0)


def test_the_longest_wait_holds() -> None:
    """A second's limit is soon paid off, an hour's is not."""
    limiter = EventLimiter(EventLimits(per_second=10, per_hour=36, per_day=1e6))
    assert limiter.reserve(0, 38) == pytest.approx(200)
    assert limiter.waited == pytest.approx({Window.SECOND: 0, Window.HOUR: 200, Window.DAY: 0})


def test_a_wait_is_counted_once() -> None:
    """A connection that ends while it waits, and the next one that asks how long is left."""
    limiter = EventLimiter(EventLimits(per_second=10, per_hour=1e6, per_day=1e6))
    assert limiter.reserve(0, 40) == pytest.approx(3)
    assert limiter.reserve(1, 0) == pytest.approx(2)
    assert limiter.reserve(2, 10) == pytest.approx(2)
    assert limiter.waited[Window.SECOND] == pytest.approx(4)
    assert limiter.reserve(4, 0) == pytest.approx(0)


def test_a_raised_limit_shortens_the_wait() -> None:
    limiter = EventLimiter(EventLimits.ordinary(100))
    debt = 2_600 + 100
    assert limiter.reserve(0, debt) > 100
    limiter.change(0, EventLimits.trusted())
    assert limiter.reserve(0, 0) == 0
    limiter.change(0, EventLimits.ordinary(100))
    assert limiter.reserve(0, 0) > 100


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 300)), min_size=1, max_size=60))
def test_a_host_that_waits_keeps_every_limit(reads: list[tuple[float, int]]) -> None:
    """Whoever waits as told brings, in any window, no more than burst, rate and one read allow."""
    limits = EventLimits(per_second=20, per_hour=1_000, per_day=3_000)
    limiter, now, seen = EventLimiter(limits), 0.0, []
    for gap, events in reads:
        now += gap
        seen.append((now, events))
        now += limiter.reserve(now, events)
    for first in range(len(seen)):
        total = 0
        for last in range(first, len(seen)):
            span = seen[last][0] - seen[first][0]
            for burst, seconds in ((20, 1), (1_000, 3_600), (3_000, DAY)):
                assert total <= burst + span * burst / seconds + 1e-3
            total += seen[last][1]


@pytest.mark.parametrize(
    ("pattern", "text", "trusted"),
    [
        ("*.host.bsky.network", "morel.us-east.host.bsky.network", True),
        ("*.host.bsky.network", "MOREL.host.bsky.network", True),
        ("*.Host.bsky.network", "morel.host.bsky.network", True),
        ("*.host.bsky.network", "host.bsky.network", False),
        ("*.host.bsky.network", "ghost.bsky.network", False),
        ("*.host.bsky.network", "evilhost.bsky.network", False),
        ("*.host.bsky.network", "host.bsky.network.evil.com", False),
        ("pds.example.com", "pds.example.com", True),
        ("pds.example.com", "a.pds.example.com", False),
        ("pds.example.com", "http://pds.example.com:3000", True),
        ("http://pds.example.com", "pds.example.com", False),
        ("https://pds.example.com", "pds.example.com", True),
        ("localhost", "localhost:2583", True),
        ("localhost", "https://localhost:2583", True),
        ("localhost", "localhost.evil.com", False),
        ("localhost:2583", "localhost:2583", True),
        ("localhost:2583", "localhost:2584", False),
        ("*.localhost", "pds.localhost:2583", True),
        ("*.localhost", "localhost:2583", False),
        ("127.0.0.1", "127.0.0.1:4000", True),
        ("[::1]", "[::1]:4000", True),
        ("[::1]", "[::2]:4000", False),
    ],
)
def test_trusted_hosts(pattern: str, text: str, trusted: bool) -> None:
    hosts = TrustedHosts(["other.example.com", pattern])
    assert hosts.match(parse(text, allow_private=True)) is trusted


def test_nobody_is_trusted_without_a_pattern() -> None:
    assert not TrustedHosts([]).match(parse("pds.example.com", allow_private=False))


@pytest.mark.parametrize("pattern", ["", "*", "*.", "*.*.com", "pds.*.com", "a b", "*.example.com/path"])
def test_a_pattern_that_matches_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidHostname):
        TrustedHosts([pattern])


def test_room_for_an_account() -> None:
    assert takes_account(living=99, account_limit=100)
    assert not takes_account(living=100, account_limit=100)
    assert not takes_account(living=150, account_limit=100)  # the limit was lowered
    assert not takes_account(living=0, account_limit=0)


THROTTLED = [(7, "did:plc:c"), (3, "did:plc:a"), (5, "did:plc:b")]


@pytest.mark.parametrize(
    ("account_limit", "released"),
    [
        (99, []),
        (100, []),
        (101, ["did:plc:a"]),
        (102, ["did:plc:a", "did:plc:b"]),
        (103, ["did:plc:a", "did:plc:b", "did:plc:c"]),
        (1000, ["did:plc:a", "did:plc:b", "did:plc:c"]),
    ],
)
def test_the_oldest_throttled_accounts_are_released(account_limit: int, released: list[str]) -> None:
    """103 living accounts, 3 of them throttled."""
    assert release(THROTTLED, living=103, account_limit=account_limit) == released


@given(st.lists(st.sampled_from(["new", "delete", "raise", "lower"]), max_size=80), st.integers(0, 5))
def test_nobody_is_overtaken_and_the_limit_is_used(steps: list[str], account_limit: int) -> None:
    """Releasing after every step: served accounts never grow beyond the limit, and never stay below it with someone
    waiting, and the throttled ones are the newest."""
    served: list[int] = []
    throttled: list[int] = []
    for ordinal, step in enumerate(steps):
        served_before = len(served)
        if step == "new":
            fits = takes_account(living=len(served) + len(throttled), account_limit=account_limit)
            (served if fits else throttled).append(ordinal)
        elif step == "delete" and served:
            served.pop(0)
        elif step == "raise":
            account_limit += 1
        elif step == "lower" and account_limit:
            account_limit -= 1
        waiting = [(number, str(number)) for number in reversed(throttled)]
        released = release(waiting, living=len(served) + len(throttled), account_limit=account_limit)
        assert [str(number) for number in throttled[: len(released)]] == released
        served += throttled[: len(released)]
        del throttled[: len(released)]
        assert len(served) <= max(account_limit, served_before)
        assert not throttled or len(served) >= account_limit
