"""Reading the log from any seq, without a seam: cold from RocksDB, hot from the tail.

The read side's one door to the log. Reads run on the loop in bounded pieces; nothing here goes beyond the synced
head or below the oldest segment.
"""

from relay.eventlog import keys
from relay.eventlog.errors import StoreError
from relay.eventlog.hiding import Hidden
from relay.eventlog.segments import Segments
from relay.eventlog.store import Store
from relay.eventlog.tail import Segment, Tail

_ROWS_MAX = 4096  # a run of hidden events must not hold the loop


class CursorGone(Exception):
    """The events after this cursor have left the replay window."""


class Reader:
    """Segments of frames from any cursor in the window."""

    def __init__(self, store: Store, segments: Segments, tail: Tail, hidden: Hidden) -> None:
        self._store = store
        self._segments = segments
        self._tail = tail
        self._hidden = hidden

    @property
    def head(self) -> int:
        """The last synced seq, 0 when there is none."""
        return self._tail.head

    @property
    def oldest(self) -> int:
        """The lowest seq still held; head + 1 when the log is empty."""
        return self._segments.oldest

    async def wait_beyond(self, seq: int) -> None:
        """Return when `head` is above `seq`; everybody who waits is woken once per batch."""
        await self._tail.wait_beyond(seq)

    def read(self, after: int, bytes_max: int) -> Segment:
        """Events with seqs above `after`: at least one, then as many as `bytes_max` allows.

        Hidden events are passed over: `data` may be empty although `last_seq` moved. `last_seq == after` means
        that there is nothing newer.

        Raises:
            CursorGone: events between `after` and the oldest held one have left the window.
        """
        if after >= self._tail.head:
            return Segment(b"", after, 0)
        if after + 1 >= self._tail.first_seq:
            return self._tail.read(after, bytes_max)
        if after + 1 < self._segments.oldest:
            raise CursorGone(f"events after {after} are gone; the oldest is {self._segments.oldest}")
        return self._read_cold(after, bytes_max)

    def _read_cold(self, after: int, bytes_max: int) -> Segment:
        first_seqs = self._segments.first_seqs
        for first_seq in first_seqs[self._segments.holding(after + 1) :]:
            segment = self._read_family(first_seq, after, bytes_max)
            if segment.last_seq > after:
                return segment
        raise StoreError(f"nothing after seq {after}, although the head is {self._tail.head}")

    def _read_family(self, first_seq: int, after: int, bytes_max: int) -> Segment:
        head = self._tail.head
        hidden = self._hidden
        frames: list[bytes] = []
        size = 0
        last = after
        for key, value in self._store.segment(first_seq).items(keys.u64(after + 1)):
            seq = keys.from_u64(key)
            if seq > head or seq > after + _ROWS_MAX:
                break
            row = keys.decode_event(value)
            if not (hidden and hidden.covers(seq, row.kind, row.did)):
                size += len(row.frame)
                if size > bytes_max and frames:
                    break
                frames.append(row.frame)
            last = seq
        return Segment(b"".join(frames), last, len(frames))
