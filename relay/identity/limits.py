"""What the resolver may cost, others and us. Pure values."""

from dataclasses import dataclass

DOCUMENT_BYTES_MAX = 65_536  # documents are about 1 kB


@dataclass(frozen=True, slots=True)
class ResolverLimits:
    """`*_seconds_max` of an identity is its hard age; it is looked up ahead, on use, at an age between the two
    `ahead` bounds that differs from DID to DID (DESIGN 5.2)."""

    directory_concurrency: int = 32
    directory_per_second: float = 500.0
    directory_burst: int = 100
    pause_seconds: float = 5.0  # after a 429 without Retry-After
    pause_seconds_max: float = 300.0
    web_concurrency: int = 128
    look_up_spacing_seconds: float = 1.0  # between two look-ups of one DID
    absent_seconds: float = 120.0
    absent_entries_max: int = 100_000
    identity_seconds_max: float = 24 * 3600.0
    ahead_seconds_min: float = 12 * 3600.0
    ahead_seconds_max: float = 20 * 3600.0
    ahead_entries_max: int = 10_000
    ahead_concurrency: int = 8
    ahead_retry_seconds: float = 900.0
