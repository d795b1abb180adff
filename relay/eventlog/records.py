"""The values that the log keeps beside its events: accounts and hosts. Pure.

Owns their fields; `eventlog/keys.py` owns their bytes. Nothing here checks protocol rules.
"""

from dataclasses import dataclass
from enum import StrEnum


class HostStatus(StrEnum):
    """`com.atproto.sync.defs#hostStatus`."""

    ACTIVE = "active"
    IDLE = "idle"
    OFFLINE = "offline"
    THROTTLED = "throttled"
    BANNED = "banned"


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """What the relay knows of an account.

    `local_status` is the relay's own ("" or "takendown", "throttled"); `upstream_active` and `upstream_status` are
    what the account's host last said (the lexicon's words; "" where it gave none). `rev`, `commit` and `data`
    (binary CIDs) are of the last accepted commit or sync: "" and b"" before one. `ordinal` is the account's place
    in first-seen order, 0 until the sequencer gave it one.
    """

    host: str
    local_status: str = ""
    upstream_active: bool = True
    upstream_status: str = ""
    rev: str = ""
    commit: bytes = b""
    data: bytes = b""
    ordinal: int = 0

    @property
    def active(self) -> bool:
        """Whether the account's content may go out (protocol.md 8.1)."""
        return self.upstream_active and not self.local_status

    @property
    def status(self) -> str | None:
        """The word to show: the relay's own if it has one, else the host's."""
        return self.local_status or self.upstream_status or None


@dataclass(frozen=True, slots=True)
class HostRecord:
    """What the relay knows of a host, by its canonical name (`relay.net.hostname`).

    `last` and `unfinished` are the stored form of its progress (`eventlog/progress.py`); `accounts` counts the
    living accounts whose home it is.
    """

    status: HostStatus = HostStatus.ACTIVE
    last: int = 0
    unfinished: tuple[int, ...] = ()
    accounts: int = 0
