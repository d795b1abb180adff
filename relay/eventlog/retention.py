"""When a segment ends and which ones have to go: by age and by bytes (DESIGN 5). Pure.

The sequencer asks and acts.
"""

from dataclasses import dataclass

from relay.eventlog.segments import Segments

_US_PER_HOUR = 3_600_000_000
SEGMENTS_PER_LIMIT = 40


@dataclass(frozen=True, slots=True)
class Retention:
    """The replay window: no older than `hours`, no more than `bytes_max` of events."""

    hours: float
    bytes_max: int

    def is_full(self, segments: Segments, now_us: int) -> bool:
        """Whether the newest segment is to be followed by another: an hour, or 1/40 of the byte limit."""
        size = segments.size(segments.first_seqs[-1])
        if size.value_bytes == 0:
            return False
        return size.value_bytes * SEGMENTS_PER_LIMIT >= self.bytes_max or now_us - size.first_time_us >= _US_PER_HOUR

    def has_expired(self, segments: Segments, now_us: int) -> bool:
        """Whether the oldest segment has to go. The newest one never does."""
        if len(segments.first_seqs) < 2:
            return False
        # One without a size was dropped before, on a disk too full to note it down.
        age_us = now_us - segments.size(segments.oldest).last_time_us
        return age_us >= self.hours * _US_PER_HOUR or segments.total_bytes > self.bytes_max
