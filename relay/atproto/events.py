"""The messages of `com.atproto.sync.subscribeRepos` as values. Pure.

Owns the fields' types and limits (lexicon; protocol.md 2.1-2.7). Does not check signatures, CARs or trees, and
knows nothing of accounts or hosts.

Every event keeps its own frame in two pieces around the integer of `seq`: `head + cbor_uint(seq) + tail` is the
whole WebSocket message, so that an event is passed on with nothing but its number changed.
"""

from dataclasses import dataclass
from typing import NamedTuple


class RepoOp(NamedTuple):
    """One operation of a `#commit`. `action` is create, update or delete; CIDs are binary."""

    action: str
    path: str
    cid: bytes | None
    prev: bytes | None


@dataclass(frozen=True, slots=True)
class CommitEvent:
    """`#commit`: a repository went from `since`/`prev_data` to `rev`/`commit` by `ops`. CIDs are binary."""

    seq: int
    did: str
    rev: str
    since: str | None
    commit: bytes
    prev_data: bytes | None
    ops: tuple[RepoOp, ...]
    blocks: bytes
    time: str
    too_big: bool
    rebase: bool
    head: bytes
    tail: bytes


@dataclass(frozen=True, slots=True)
class SyncEvent:
    """`#sync`: this is now the repository's state; `blocks` is a CAR with the commit block alone."""

    seq: int
    did: str
    rev: str
    blocks: bytes
    time: str
    head: bytes
    tail: bytes


@dataclass(frozen=True, slots=True)
class IdentityEvent:
    """`#identity`: the DID document may have changed."""

    seq: int
    did: str
    handle: str | None
    time: str
    head: bytes
    tail: bytes


@dataclass(frozen=True, slots=True)
class AccountEvent:
    """`#account`: the hosting status at the emitting host."""

    seq: int
    did: str
    active: bool
    status: str | None
    time: str
    head: bytes
    tail: bytes


@dataclass(frozen=True, slots=True)
class InfoMessage:
    """`#info`: no sequence number, never stored."""

    name: str
    message: str | None


@dataclass(frozen=True, slots=True)
class ErrorFrame:
    """`op` -1: the host closes the stream after it."""

    error: str
    message: str | None


@dataclass(frozen=True, slots=True)
class UnknownMessage:
    """An `op` or `t` that this relay does not know: ignored, the connection stays. `seq` where it has one."""

    kind: str
    seq: int | None


RepoEvent = CommitEvent | SyncEvent | IdentityEvent | AccountEvent
Message = RepoEvent | InfoMessage | ErrorFrame | UnknownMessage
