"""Events that wait, in lanes of (host, account), within bounds (DESIGN 1.4, 1.6, 5.2). Trio's events, no waiting.

Owns which lanes there are and what waits per host and in all. Does not know what they wait for: the scheduler does.
"""

from collections import deque
from dataclasses import dataclass

import trio

from relay.validation.envelope import Envelope

# What a waiting event takes beside its message: lane, task and look-up (measured: 6.8 kB for one in a lane of its own).
EVENT_COST_BYTES = 8 * 1024


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """Bounds of a lane, of one host's lanes, and of all.

    A lane's bytes are its messages; the others count `EVENT_COST_BYTES` more for each. An unfinished event is in a lane
    or in the sequencer's inbox, so `host_events_max` and `inbox_events_max` together keep a host below 4,096
    unfinished numbers, give or take what one read of its socket brings.
    """

    lane_events_max: int = 64
    lane_bytes_max: int = 4 << 20
    host_events_max: int = 2048
    host_bytes_max: int = 32 << 20
    total_bytes_max: int = 256 << 20


class Lane:
    """Events of one account from one host, waiting in order.

    `failed`: a look-up of this account failed. `covered`: how many of its first events were there when the last
    refresh began, and so need none of their own.
    """

    __slots__ = ("covered", "did", "failed", "host", "overflow", "queue", "size")

    def __init__(self, host: str, did: str) -> None:
        self.host = host
        self.did = did
        self.queue: deque[Envelope] = deque()
        self.size = 0
        self.covered = 0
        self.failed = False
        self.overflow = trio.Event()


class _Host:
    """What waits of one host."""

    __slots__ = ("cost", "events", "full_lanes")

    def __init__(self) -> None:
        self.events = 0
        self.cost = 0
        self.full_lanes = 0


class Lanes:
    """All lanes. False while there is none."""

    def __init__(self, limits: LaneLimits) -> None:
        self._limits = limits
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._hosts: dict[str, _Host] = {}
        self._cost = 0
        self._room = trio.Event()

    def __bool__(self) -> bool:
        return bool(self._lanes)

    @property
    def events(self) -> int:
        """How many wait in all."""
        return sum(host.events for host in self._hosts.values())

    def get(self, host: str, did: str) -> Lane | None:
        """The lane in which this account's events from this host wait, if they do."""
        return self._lanes.get((host, did))

    def open(self, envelope: Envelope) -> Lane:
        """A new lane with its first event."""
        key = (envelope.origin.host, envelope.event.did)
        lane = self._lanes[key] = Lane(*key)
        self.enqueue(lane, envelope)
        return lane

    def close(self, lane: Lane) -> None:
        """The lane is empty and done with."""
        del self._lanes[lane.host, lane.did]

    def is_full(self, lane: Lane) -> bool:
        """Whether the lane holds as much as it may."""
        return len(lane.queue) >= self._limits.lane_events_max or lane.size >= self._limits.lane_bytes_max

    def enqueue(self, lane: Lane, envelope: Envelope) -> None:
        """Let an event wait behind the lane's others."""
        was_full = self.is_full(lane)
        lane.queue.append(envelope)
        lane.size += envelope.size
        host = self._hosts.setdefault(lane.host, _Host())
        host.events += 1
        host.cost += envelope.size + EVENT_COST_BYTES
        self._cost += envelope.size + EVENT_COST_BYTES
        if not was_full and self.is_full(lane):
            host.full_lanes += 1
            lane.overflow.set()

    def dequeue(self, lane: Lane) -> None:
        """The lane's first event has its verdict."""
        was_full = self.is_full(lane)
        envelope = lane.queue.popleft()
        lane.covered = max(0, lane.covered - 1)
        lane.size -= envelope.size
        host = self._hosts[lane.host]
        host.events -= 1
        host.cost -= envelope.size + EVENT_COST_BYTES
        self._cost -= envelope.size + EVENT_COST_BYTES
        if was_full and not self.is_full(lane):
            host.full_lanes -= 1
            lane.overflow = trio.Event()
        if not host.events:
            del self._hosts[lane.host]
        room, self._room = self._room, trio.Event()
        room.set()

    def has_room(self, name: str) -> bool:
        """Whether more of this host's events may come. When all is used up, only hosts over their share must stop:
        one that floods can't stop another that has a single event waiting."""
        host = self._hosts.get(name)
        if host is None:
            return True
        limits = self._limits
        return (
            host.events < limits.host_events_max
            and host.cost < limits.host_bytes_max
            and not host.full_lanes
            and (self._cost < limits.total_bytes_max or host.cost < limits.total_bytes_max // len(self._hosts))
        )

    async def wait_change(self) -> None:
        """Return when an event has left a lane."""
        await self._room.wait()
