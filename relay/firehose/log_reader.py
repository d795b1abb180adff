"""What the streaming port needs of the event log. Pure: a protocol and one calculation over it.

`relay.eventlog.reader.Reader` is the implementation; tests have one over a list. Does not know RocksDB or the tail.
"""

from typing import Protocol

from relay.eventlog.tail import Segment

# Larger joins cost more to copy than they save, and collapse under load (measurements.md 4).
SEGMENT_BYTES_MAX = 128 * 1024 - 1


class LogReader(Protocol):
    """Frames by sequence number, as they go on a socket; see `relay.eventlog.reader.Reader`."""

    @property
    def head(self) -> int:
        """The last synced seq, 0 when there is none."""
        ...

    @property
    def oldest(self) -> int:
        """The lowest seq still held; head + 1 when nothing is."""
        ...

    async def wait_beyond(self, seq: int) -> None:
        """Return when `head` is above `seq`."""
        ...

    def read(self, after: int, bytes_max: int) -> Segment:
        """Events after `after`: at least one if there is one; raises CursorGone below the window."""
        ...


def read_towards(reader: LogReader, after: int, goal: int) -> Segment:
    """The next segment after `after`, cut at `goal` where it would go beyond it.

    It may still go beyond when more than one segment lies between `goal` and the head. Runs in one piece, so that
    the head stands still between its two reads: what both have in common is their end.
    """
    segment = reader.read(after, SEGMENT_BYTES_MAX)
    if not after < goal < segment.last_seq:
        return segment
    beyond = reader.read(goal, SEGMENT_BYTES_MAX)
    if beyond.last_seq != segment.last_seq:
        return segment
    kept = len(segment.data) - len(beyond.data)
    return Segment(segment.data[:kept], goal, segment.count - beyond.count)
