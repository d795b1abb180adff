"""What validation hands to the sequencer: an event to write, or a drop with its reason. Pure values."""

from dataclasses import dataclass
from enum import StrEnum

from relay.eventlog.keys import EventKind
from relay.eventlog.progress import HostProgress
from relay.eventlog.records import AccountRecord


class DropReason(StrEnum):
    """Why an event did not get a sequence number. The set is closed; the values are metric labels."""

    # the message itself
    TEXT_MESSAGE = "text_message"
    MESSAGE_TOO_BIG = "message_too_big"
    UNDECODABLE = "undecodable"
    INVALID_EVENT = "invalid_event"
    SEQ_NOT_INCREASING = "seq_not_increasing"
    # whose it is
    WRONG_HOST = "wrong_host"
    IDENTITY_UNRESOLVED = "identity_unresolved"
    IDENTITY_UNCHANGED = "identity_unchanged"
    ACCOUNT_INACTIVE = "account_inactive"
    # the commit
    TOO_BIG = "too_big"
    REBASE = "rebase"
    REV_NOT_NEWER = "rev_not_newer"
    REV_IN_FUTURE = "rev_in_future"
    CAR_INVALID = "car_invalid"
    COMMIT_INVALID = "commit_invalid"
    FIELD_MISMATCH = "field_mismatch"
    SIGNATURE_INVALID = "signature_invalid"
    # the tree
    PREV_DATA_MISSING = "prev_data_missing"
    TREE_INVALID = "tree_invalid"
    INVERSION_CONTRADICTION = "inversion_contradiction"
    BLOCK_MISSING = "block_missing"
    NEIGHBOUR_MISSING = "neighbour_missing"
    SYNC_STALE = "sync_stale"
    # ours
    INTERNAL_ERROR = "internal_error"


class Irregularity(StrEnum):
    """What an event was passed on in spite of. The set is closed; the values are metric labels."""

    DISCONTINUOUS = "discontinuous"
    NEIGHBOUR_MISSING = "neighbour_missing"
    # lenient validation only
    INVERSION_CONTRADICTION = "inversion_contradiction"
    BLOCK_MISSING = "block_missing"


@dataclass(frozen=True, slots=True)
class Origin:
    """Which host's stream an event came from, and under which number."""

    host: str
    seq: int
    progress: HostProgress
    epoch: int

    def finish(self) -> None:
        """Tell the host's progress that this event needs nothing more."""
        self.progress.finish(self.seq, self.epoch)


@dataclass(frozen=True, slots=True)
class Accept:
    """An event to write: `head + cbor_uint(seq) + tail` is its message; `account` the state it leads to.

    `ops` is the number of operations (it owns as many microseconds, DESIGN 5). `origin` is None for events that
    the relay itself originates. `hides`: the account's content before this event is not served any more.
    """

    kind: EventKind
    did: str
    head: bytes
    tail: bytes
    account: AccountRecord
    origin: Origin | None
    ops: int = 1
    hides: bool = False
    irregularities: tuple[Irregularity, ...] = ()


@dataclass(frozen=True, slots=True)
class Drop:
    """An event that ends here."""

    reason: DropReason
    detail: str
    origin: Origin
