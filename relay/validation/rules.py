"""The checks of one event against its account and its signing key, in order (DESIGN 6). Pure.

Always verifies, in both modes: hosting status, rev order and age, CAR and block hashes, commit object, equality of
message and commit, signature, node shape. Strict mode also enforces `prevData`, the operations' inversion and
completeness of their proof, `tooBig` and `rebase`. Does not check who may speak for the account: the scheduler
has settled that before. Two roads: `canonical` and `splice` accept what they have proven, everything else goes to
the general road, whose verdict is final.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from relay.atproto import canonical, car, commit, frames, inversion, splice
from relay.atproto.cbor import uint
from relay.atproto.commit import SignedCommit
from relay.atproto.errors import Contradiction, InvalidCar, InvalidCommit, InvalidTree, MissingBlock, MissingNeighbour
from relay.atproto.events import AccountEvent, CommitEvent, IdentityEvent, SyncEvent
from relay.atproto.keys import VerifyingKey
from relay.eventlog.keys import EventKind
from relay.eventlog.records import AccountRecord
from relay.eventlog.verdict import Accept, DropReason, Irregularity, Origin

_DAG_CBOR_SHA256 = b"\x01\x71\x12\x20"
_NO_ACCOUNT = AccountRecord(host="")


class Validation(StrEnum):
    """`RELAY_VALIDATION`."""

    STRICT = "strict"
    LENIENT = "lenient"


class Need(StrEnum):
    """What has to be found out before the same event can be judged again."""

    FRESH_KEY = "fresh_key"
    HOSTING_STATUS = "hosting_status"


# Which failures of the tree an event is passed on in spite of (DESIGN 6).
_PASSED: Mapping[Validation, Mapping[DropReason, Irregularity]] = {
    Validation.STRICT: {DropReason.NEIGHBOUR_MISSING: Irregularity.NEIGHBOUR_MISSING},
    Validation.LENIENT: {
        DropReason.NEIGHBOUR_MISSING: Irregularity.NEIGHBOUR_MISSING,
        DropReason.BLOCK_MISSING: Irregularity.BLOCK_MISSING,
        DropReason.INVERSION_CONTRADICTION: Irregularity.INVERSION_CONTRADICTION,
    },
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An event that breaks a rule. `need`: worth asking once more with newer facts."""

    reason: DropReason
    detail: str
    need: Need | None = None


Judgement = Accept | Refusal


def judge_commit(
    event: CommitEvent,
    *,
    key: VerifyingKey,
    record: AccountRecord | None,
    origin: Origin,
    rev_max: str,
    mode: Validation,
) -> Judgement:
    """Judge a `#commit` of an account whose home is `origin.host`.

    `record` is the account before it (None: never seen); `rev_max` the TID five minutes ahead of now.
    """
    before = record or _NO_ACCOUNT
    strict = mode is Validation.STRICT
    refusal = _check_turn(event, before, rev_max)
    if refusal is not None:
        return refusal
    if strict and (event.too_big or event.rebase):
        return Refusal(DropReason.TOO_BIG if event.too_big else DropReason.REBASE, "deprecated flag is set")
    if strict and event.prev_data is None and (before.rev or event.since is not None):
        return Refusal(DropReason.PREV_DATA_MISSING, f"no prevData after rev {before.rev or event.since}")

    opened = _open(event.blocks)
    if isinstance(opened, Refusal):
        return opened
    if opened.root != event.commit:
        return Refusal(DropReason.FIELD_MISMATCH, "the CAR's root is not the message's commit")
    signed = opened.commit
    refusal = _check_signed(signed, event, key)
    if refusal is not None:
        return refusal

    irregularities = _discontinuity(event, before)
    proven = opened.by_digest is not None and splice.proves(opened.by_digest, signed.data, event.prev_data, event.ops)
    if not proven:
        failure = _check_tree(event, signed)
        if failure is not None:
            irregularity = _PASSED[mode].get(failure.reason)
            if irregularity is None:
                return failure
            irregularities += (irregularity,)
    return Accept(
        kind=EventKind.COMMIT,
        did=event.did,
        head=event.head,
        tail=event.tail,
        account=_moved(before, origin.host, signed, event.commit),
        origin=origin,
        ops=len(event.ops),
        irregularities=irregularities,
    )


def judge_sync(
    event: SyncEvent, *, key: VerifyingKey, record: AccountRecord | None, origin: Origin, rev_max: str
) -> Judgement:
    """Judge a `#sync`; it may repeat the stored state, never go back (DESIGN 6)."""
    before = record or _NO_ACCOUNT
    refusal = _check_active(before)
    if refusal is not None:
        return refusal
    if event.rev > rev_max:
        return Refusal(DropReason.REV_IN_FUTURE, event.rev)
    if event.rev < before.rev:
        return Refusal(DropReason.SYNC_STALE, f"{event.rev} is older than {before.rev}")
    opened = _open(event.blocks)
    if isinstance(opened, Refusal):
        return opened
    refusal = _check_signed(opened.commit, event, key)
    if refusal is not None:
        return refusal
    if event.rev == before.rev and opened.root != before.commit:
        return Refusal(DropReason.SYNC_STALE, f"another commit under the stored rev {event.rev}")
    return Accept(
        kind=EventKind.SYNC,
        did=event.did,
        head=event.head,
        tail=event.tail,
        account=_moved(before, origin.host, opened.commit, opened.root),
        origin=origin,
    )


def judge_account(event: AccountEvent, *, record: AccountRecord | None, origin: Origin) -> Accept:
    """Take over what the account's home says of it; a status of the relay's own is put over it."""
    before = record or _NO_ACCOUNT
    after = AccountRecord(
        host=origin.host,
        local_status=before.local_status,
        upstream_active=event.active,
        upstream_status=event.status or "",
        rev=before.rev,
        commit=before.commit,
        data=before.data,
        ordinal=before.ordinal,
    )
    head, tail = event.head, event.tail
    if after.local_status:
        changes = {"active": after.active, "status": after.status}
        head, tail = frames.replace_fields(head + uint(event.seq) + tail, changes)
    return Accept(
        kind=EventKind.ACCOUNT,
        did=event.did,
        head=head,
        tail=tail,
        account=after,
        origin=origin,
        hides=not event.active and event.status == "deleted",
    )


def judge_identity(
    event: IdentityEvent, *, handle: str | None, record: AccountRecord | None, home: str, origin: Origin
) -> Accept:
    """Pass `#identity` on; its handle stays only if it is the document's first `at://` alias (DESIGN 6).

    `home` is the account's PDS host by its document.
    """
    head, tail = event.head, event.tail
    if event.handle is not None and event.handle != handle:
        head, tail = frames.replace_fields(head + uint(event.seq) + tail, {"handle": None})
    return Accept(
        kind=EventKind.IDENTITY,
        did=event.did,
        head=head,
        tail=tail,
        account=record or AccountRecord(host=origin.host if home == origin.host else ""),
        origin=origin,
    )


def _check_turn(event: CommitEvent, before: AccountRecord, rev_max: str) -> Refusal | None:
    """Is it this account's turn to speak, and is this newer than what it last said?"""
    if event.rev <= before.rev:
        return Refusal(DropReason.REV_NOT_NEWER, f"{event.rev} is not newer than {before.rev}")
    if event.rev > rev_max:
        return Refusal(DropReason.REV_IN_FUTURE, event.rev)
    return _check_active(before)


def _check_active(before: AccountRecord) -> Refusal | None:
    if before.local_status:
        return Refusal(DropReason.ACCOUNT_INACTIVE, before.local_status)
    if not before.upstream_active:
        return Refusal(DropReason.ACCOUNT_INACTIVE, before.upstream_status, Need.HOSTING_STATUS)
    return None


class _Opened(NamedTuple):
    """A message's CAR: its root's CID, the commit object there, and the blocks by digest if the CAR is canonical."""

    root: bytes
    commit: SignedCommit
    by_digest: dict[bytes, bytes] | None


def _open(blocks: bytes) -> _Opened | Refusal:
    """Hash-check a CAR slice and parse the commit at its root."""
    by_digest = None
    slices = canonical.car_blocks(blocks)
    try:
        if slices is not None:
            digest, by_digest = slices
            root = _DAG_CBOR_SHA256 + digest
            block = by_digest.get(digest)
        else:
            opened = car.read(blocks)
            root = opened.roots[0]
            block = opened.blocks.get(root)
        if block is None:
            return Refusal(DropReason.CAR_INVALID, "the root's block is not in the CAR")
        return _Opened(root, canonical.commit_object(block) or commit.parse(block), by_digest)
    except InvalidCar as error:
        return Refusal(DropReason.CAR_INVALID, str(error))
    except InvalidCommit as error:
        return Refusal(DropReason.COMMIT_INVALID, str(error))


def _check_signed(signed: SignedCommit, event: CommitEvent | SyncEvent, key: VerifyingKey) -> Refusal | None:
    """Message equals commit, and the account's key signed it."""
    if signed.did != event.did:
        return Refusal(DropReason.FIELD_MISMATCH, f"the commit is of {signed.did}")
    if signed.rev != event.rev:
        return Refusal(DropReason.FIELD_MISMATCH, f"the commit has rev {signed.rev}")
    if not key.verify(signed.unsigned, signed.sig):
        return Refusal(DropReason.SIGNATURE_INVALID, "not signed by the account's key", Need.FRESH_KEY)
    return None


def _check_tree(event: CommitEvent, signed: SignedCommit) -> Refusal | None:
    """The general road of the inversion; the CAR is read again because the fast one keeps no CIDs."""
    try:
        blocks: Mapping[bytes, bytes] = car.read(event.blocks).blocks
        if any(len(block) > inversion.RECORD_BYTES_MAX for block in blocks.values()):
            return Refusal(DropReason.TREE_INVALID, f"a block of over {inversion.RECORD_BYTES_MAX} bytes")
        inversion.check(blocks, signed.data, event.prev_data, event.ops)
    except InvalidCar as error:
        return Refusal(DropReason.CAR_INVALID, str(error))
    except InvalidTree as error:
        return Refusal(DropReason.TREE_INVALID, str(error))
    except Contradiction as error:
        return Refusal(DropReason.INVERSION_CONTRADICTION, str(error))
    except MissingBlock as error:
        return Refusal(DropReason.BLOCK_MISSING, str(error))
    except MissingNeighbour as error:
        return Refusal(DropReason.NEIGHBOUR_MISSING, str(error))
    return None


def _discontinuity(event: CommitEvent, before: AccountRecord) -> tuple[Irregularity, ...]:
    """Valid in itself, but not the successor of what we have: passed on, the state moves (protocol.md 8.4)."""
    if before.rev and (event.since != before.rev or event.prev_data != before.data):
        return (Irregularity.DISCONTINUOUS,)
    return ()


def _moved(before: AccountRecord, host: str, signed: SignedCommit, commit_cid: bytes) -> AccountRecord:
    """The account after this commit, at home on `host`."""
    return AccountRecord(
        host, before.local_status, before.upstream_active, before.upstream_status,
        signed.rev, commit_cid, signed.data, before.ordinal,
    )  # fmt: skip
