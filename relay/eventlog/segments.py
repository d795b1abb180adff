"""The log's segments: which there are, how large, and which holds a seq. Owned by the sequencer; readers look up.

A segment is one column family; retention drops whole ones, oldest first (DESIGN 5).
"""

from bisect import bisect_right

from relay.eventlog import keys
from relay.eventlog.keys import SegmentSize
from relay.eventlog.store import Family, Row, Store


class Segments:
    """First seqs ascending, with sizes. There is always at least one once `begin` was called."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._meta = store.family(keys.META)
        self.first_seqs = store.segments()
        self._sizes = {first_seq: self._stored_size(first_seq) for first_seq in self.first_seqs}
        self.total_bytes = sum(size.value_bytes for size in self._sizes.values())

    def _stored_size(self, first_seq: int) -> SegmentSize:
        value = self._meta.get(keys.segment_meta_key(first_seq))
        return SegmentSize(0, 0, 0) if value is None else keys.decode_segment_size(value)

    @property
    def oldest(self) -> int:
        """The first seq of the oldest segment."""
        return self.first_seqs[0]

    def size(self, first_seq: int) -> SegmentSize:
        """How large a segment is."""
        return self._sizes[first_seq]

    def newest(self) -> Family:
        """The segment that is written."""
        return self._store.segment(self.first_seqs[-1])

    def begin(self, first_seq: int) -> None:
        """Make a new segment the newest one."""
        self._store.create_segment(first_seq)
        self.first_seqs.append(first_seq)
        self._sizes[first_seq] = SegmentSize(0, 0, 0)

    def drop_half_begun(self, next_seq: int) -> None:
        """For start-up: a segment whose beginning failed on a full disk is empty, and others took its events."""
        for first_seq in self.first_seqs[:]:
            if first_seq < next_seq and next(self._store.segment(first_seq).items(), None) is None:
                self.first_seqs.remove(first_seq)
                del self._sizes[first_seq]
                self._store.drop_segment(first_seq)

    def grow(self, value_bytes: int, first_time_us: int, last_time_us: int) -> Row:
        """Count a batch into the newest segment; returns the meta row that belongs into the same batch."""
        first_seq = self.first_seqs[-1]
        size = self._sizes[first_seq]
        self._sizes[first_seq] = size = SegmentSize(
            size.value_bytes + value_bytes, size.first_time_us or first_time_us, last_time_us
        )
        self.total_bytes += value_bytes
        return self._meta, keys.segment_meta_key(first_seq), keys.encode_segment_size(size)

    def drop_oldest(self) -> Row:
        """Drop the oldest segment; returns the row that removes its meta row."""
        first_seq = self.first_seqs.pop(0)
        self.total_bytes -= self._sizes.pop(first_seq).value_bytes
        self._store.drop_segment(first_seq)
        return self._meta, keys.segment_meta_key(first_seq), None

    def holding(self, seq: int) -> int:
        """The index into `first_seqs` of the segment that holds `seq`, or would."""
        return max(bisect_right(self.first_seqs, seq) - 1, 0)

    def last_row(self) -> tuple[int, keys.EventRow] | None:
        """The newest event of the log, None while it is empty. For start-up."""
        for first_seq in reversed(self.first_seqs):
            for key, value in self._store.segment(first_seq).items(None, backwards=True):
                return keys.from_u64(key), keys.decode_event(value)
        return None
