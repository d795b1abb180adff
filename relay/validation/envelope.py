"""What a host's subscription hands to validation. Pure values."""

from dataclasses import dataclass

from relay.atproto.events import RepoEvent
from relay.eventlog.verdict import Origin


@dataclass(frozen=True, slots=True)
class Envelope:
    """One decoded event of one host's stream; `size` is the message's length in bytes."""

    event: RepoEvent
    origin: Origin
    size: int
