"""The newest synced events in memory, framed for the socket. Owns the published head and wakes who waits for it.

Bounded by bytes. Does not know who reads; nothing in here waits except `wait_beyond`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import trio

from relay.eventlog.hiding import Hidden

_ROWS_MAX = 4096  # a run of hidden events must not hold the loop


class TailRow(NamedTuple):
    """One event as readers need it."""

    kind: int
    did: bytes
    frame: bytes


@dataclass(frozen=True, slots=True)
class Segment:
    """Frames of consecutive events, joined as they go on a socket; `last_seq` is where to go on."""

    data: bytes
    last_seq: int
    count: int


class Tail:
    """Events `first_seq` .. `head`, dense. `head` is the last synced seq; no reader goes beyond it."""

    def __init__(self, *, head: int, bytes_max: int, hidden: Hidden) -> None:
        self.head = head
        self.first_seq = head + 1
        self._rows: list[TailRow] = []
        self._bytes = 0
        self._bytes_max = bytes_max
        self._hidden = hidden
        self._published = trio.Event()

    def publish(self, first_seq: int, rows: list[TailRow]) -> None:
        """Synced events, the first of them `first_seq`; every waiter is woken once."""
        if first_seq != self.head + 1:  # a jump of the numbering: older rows are read from the log
            self._rows.clear()
            self._bytes = 0
            self.first_seq = first_seq
        self._rows += rows
        self._bytes += sum(len(row.frame) for row in rows)
        self.head = first_seq + len(rows) - 1
        self._evict()
        published, self._published = self._published, trio.Event()
        published.set()

    def _evict(self) -> None:
        surplus = 0
        while self._bytes > self._bytes_max and surplus < len(self._rows) - 1:
            self._bytes -= len(self._rows[surplus].frame)
            surplus += 1
        if surplus:
            del self._rows[:surplus]
            self.first_seq += surplus

    async def wait_beyond(self, seq: int) -> None:
        """Return when the head is above `seq`."""
        await trio.lowlevel.checkpoint()
        while self.head <= seq:
            await self._published.wait()

    def read(self, after: int, bytes_max: int) -> Segment:
        """Events after `after`, which must be at least `first_seq` - 1: at least one, then up to `bytes_max`."""
        start = after + 1 - self.first_seq
        frames: list[bytes] = []
        size = 0
        at = start
        hidden = self._hidden
        for at, row in enumerate(self._rows[start : start + _ROWS_MAX], start):
            if hidden and hidden.covers(self.first_seq + at, row.kind, row.did):
                continue
            size += len(row.frame)
            if size > bytes_max and frames:
                at -= 1
                break
            frames.append(row.frame)
        return Segment(b"".join(frames), self.first_seq + at, len(frames))
