"""Frames of an event stream: header and payload, read strictly and built. Pure.

Owns the fields, types and limits of every message of `com.atproto.sync.subscribeRepos`, and where the sequence number
stands in one. Does not look into `blocks`, and checks no signature, host or order.
Source: protocol.md 1.2, 2.1-2.7. This is the general road; `canonical.py` is the fast one.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeVar

from relay.atproto.cbor import CborValue, Link, decode_sequence, encode, item_head, uint
from relay.atproto.cid import is_dag_cbor
from relay.atproto.errors import InvalidEvent, InvalidFrame
from relay.atproto.events import (
    AccountEvent,
    CommitEvent,
    ErrorFrame,
    IdentityEvent,
    InfoMessage,
    Message,
    RepoEvent,
    RepoOp,
    SyncEvent,
    UnknownMessage,
)
from relay.atproto.syntax import is_datetime, is_did, is_path, is_tid

MESSAGE_BYTES_MAX = 5_000_000
SEQ_MAX = 2**53 - 1
COMMIT_BLOCKS_BYTES_MAX = 2_000_000
SYNC_BLOCKS_BYTES_MAX = 10_000
OPS_MAX = 200
STATUS_BYTES_MAX = 64  # the lexicon's words have at most 14; the relay stores what it is given
ACTIONS = frozenset(("create", "update", "delete"))

Payload = dict[str, CborValue]

_T = TypeVar("_T")
_MAP = 5


class _Malformed(Exception):
    """A field is absent, of the wrong type, or breaks a limit."""


def parse(message: bytes) -> Message:
    """The message in one whole binary WebSocket message.

    Raises InvalidFrame or InvalidCbor where header and payload can't be told apart, InvalidEvent (with the sequence
    number where there is one) where a field is wrong. An unknown `op` or `t` is an UnknownMessage, unknown fields
    stay in `head` and `tail`.
    """
    header, payload = _decode(message)
    op, kind = header.get("op"), header.get("t")
    if type(op) is not int:
        raise InvalidFrame("header has no integer op")
    if op == 1 and not isinstance(kind, str):
        raise InvalidFrame("header of a message has no t")
    kind = kind if isinstance(kind, str) else ""
    seq = _readable_seq(payload)
    try:
        if op == -1:
            return ErrorFrame(_take(payload, "error", str), _take_optional(payload, "message", str))
        if op != 1:
            return UnknownMessage(kind, seq)
        if kind == "#info":
            return InfoMessage(_take(payload, "name", str), _take_optional(payload, "message", str))
        build = _BUILDERS.get(kind)
        if build is None:
            return UnknownMessage(kind, seq)
        if seq is None:
            raise _Malformed("seq is not an integer from 1 to 2^53 - 1")
        return build(seq, payload, *_split(message, header, payload, seq))
    except _Malformed as exc:
        raise InvalidEvent(str(exc), seq=seq, kind=kind) from exc


def split_at_seq(message: bytes) -> tuple[bytes, bytes]:
    """What stands before and behind the integer of the payload's own `seq`: `head + uint(seq) + tail == message`.

    Raises InvalidFrame, InvalidCbor, or InvalidEvent where the payload has no valid `seq`.
    """
    header, payload = _decode(message)
    seq = _readable_seq(payload)
    if seq is None:
        raise InvalidEvent("seq is not an integer from 1 to 2^53 - 1")
    return _split(message, header, payload, seq)


def message(event_type: str, payload: Payload) -> bytes:
    """A message frame; `event_type` is the short type, such as "#commit"."""
    return encode({"op": 1, "t": event_type}) + encode(payload)


def error_frame(error: str, message: str | None) -> bytes:
    """The frame after which a stream is closed."""
    payload: Payload = {"error": error} if message is None else {"error": error, "message": message}
    return encode({"op": -1}) + encode(payload)


def info_frame(name: str, message: str | None) -> bytes:
    """An `#info`, which has no sequence number."""
    payload: Payload = {"name": name} if message is None else {"name": name, "message": message}
    return encode({"op": 1, "t": "#info"}) + encode(payload)


def account_message(did: str, time: str, active: bool, status: str | None) -> tuple[bytes, bytes]:
    """An `#account` of the relay's own, as (head, tail) around the integer of `seq`."""
    payload: Payload = {"seq": 1, "did": did, "time": time, "active": active}
    if status is not None:
        payload["status"] = status
    return split_at_seq(message("#account", payload))


def identity_message(did: str, time: str, handle: str | None) -> tuple[bytes, bytes]:
    """An `#identity` of the relay's own, as (head, tail) around the integer of `seq`."""
    payload: Payload = {"seq": 1, "did": did, "time": time}
    if handle is not None:
        payload["handle"] = handle
    return split_at_seq(message("#identity", payload))


def replace_fields(event_frame: bytes, changes: Mapping[str, CborValue]) -> tuple[bytes, bytes]:
    """(head, tail) of a whole event with some payload fields set, or taken out where the new value is None; every
    other field, known or not, survives. Raises as `split_at_seq` does."""
    header, payload = _decode(event_frame)
    changed = {
        name: value for name, value in {**payload, **changes}.items() if name not in changes or value is not None
    }
    return split_at_seq(encode(header) + encode(changed))


def _decode(message: bytes) -> tuple[Payload, Payload]:
    if len(message) > MESSAGE_BYTES_MAX:
        raise InvalidFrame(f"message of {len(message)} bytes")
    header, payload = decode_sequence(message, 2)
    if not isinstance(header, dict) or not isinstance(payload, dict):
        raise InvalidFrame("header or payload is not a map")
    return header, payload


def _readable_seq(payload: Payload) -> int | None:
    seq = payload.get("seq")
    return seq if type(seq) is int and 1 <= seq <= SEQ_MAX else None


def _split(message: bytes, header: Payload, payload: Payload, seq: int) -> tuple[bytes, bytes]:
    # The message is known to be canonical, so its bytes are those of its parts, encoded in the order they came in.
    before = [encode(header), item_head(_MAP, len(payload))]
    for name, value in payload.items():
        before.append(encode(name))
        if name == "seq":
            break
        before.append(encode(value))
    front = b"".join(before)
    number = uint(seq)
    assert message.startswith(front + number)
    return front, message[len(front) + len(number) :]


def _take(payload: Payload, name: str, kind: type[_T]) -> _T:
    value = payload.get(name)
    if type(value) is not kind:
        raise _Malformed(f"{name} is not {kind.__name__}")
    return value


def _take_optional(payload: Payload, name: str, kind: type[_T]) -> _T | None:
    return _take(payload, name, kind) if name in payload else None


def _take_text(payload: Payload, name: str, accepts: Callable[[str], bool]) -> str:
    text = _take(payload, name, str)
    if not accepts(text):
        raise _Malformed(f"{name} is malformed: {text[:80]!r}")
    return text


def _take_bytes(payload: Payload, name: str, bytes_max: int) -> bytes:
    data = _take(payload, name, bytes)
    if len(data) > bytes_max:
        raise _Malformed(f"{name} has {len(data)} bytes")
    return data


def _take_repo_cid(payload: Payload, name: str) -> bytes:
    cid = _take(payload, name, Link).cid
    if not is_dag_cbor(cid):
        raise _Malformed(f"{name} is not a DAG-CBOR CID")
    return cid


def _commit(seq: int, payload: Payload, head: bytes, tail: bytes) -> CommitEvent:
    ops = _take(payload, "ops", list)
    if len(ops) > OPS_MAX:
        raise _Malformed(f"{len(ops)} ops")
    if "since" not in payload:
        raise _Malformed("since is absent")
    _take(payload, "blobs", list)
    return CommitEvent(
        seq=seq,
        did=_take_text(payload, "repo", is_did),
        rev=_take_text(payload, "rev", is_tid),
        since=None if payload["since"] is None else _take_text(payload, "since", is_tid),
        commit=_take_repo_cid(payload, "commit"),
        prev_data=_take_repo_cid(payload, "prevData") if "prevData" in payload else None,
        ops=tuple(_op(op) for op in ops),
        blocks=_take_bytes(payload, "blocks", COMMIT_BLOCKS_BYTES_MAX),
        time=_take_text(payload, "time", is_datetime),
        too_big=_take(payload, "tooBig", bool),
        rebase=_take(payload, "rebase", bool),
        head=head,
        tail=tail,
    )


def _op(op: CborValue) -> RepoOp:
    """Only types: whether action, `cid` and `prev` fit together is for the inversion."""
    if not isinstance(op, dict):
        raise _Malformed("an op is not a map")
    if "cid" not in op:
        raise _Malformed("cid of an op is absent")
    cid = None if op["cid"] is None else _take(op, "cid", Link).cid
    prev = _take_optional(op, "prev", Link)
    return RepoOp(
        _take_text(op, "action", ACTIONS.__contains__),
        _take_text(op, "path", is_path),
        cid,
        None if prev is None else prev.cid,
    )


def _sync(seq: int, payload: Payload, head: bytes, tail: bytes) -> SyncEvent:
    return SyncEvent(
        seq=seq,
        did=_take_text(payload, "did", is_did),
        rev=_take_text(payload, "rev", is_tid),
        blocks=_take_bytes(payload, "blocks", SYNC_BLOCKS_BYTES_MAX),
        time=_take_text(payload, "time", is_datetime),
        head=head,
        tail=tail,
    )


def _identity(seq: int, payload: Payload, head: bytes, tail: bytes) -> IdentityEvent:
    return IdentityEvent(
        seq=seq,
        did=_take_text(payload, "did", is_did),
        handle=_take_optional(payload, "handle", str),
        time=_take_text(payload, "time", is_datetime),
        head=head,
        tail=tail,
    )


def _account(seq: int, payload: Payload, head: bytes, tail: bytes) -> AccountEvent:
    return AccountEvent(
        seq=seq,
        did=_take_text(payload, "did", is_did),
        active=_take(payload, "active", bool),
        status=_status(payload),
        time=_take_text(payload, "time", is_datetime),
        head=head,
        tail=tail,
    )


def _status(payload: Payload) -> str | None:
    status = _take_optional(payload, "status", str)
    if status is not None and len(status.encode()) > STATUS_BYTES_MAX:
        raise _Malformed(f"status of over {STATUS_BYTES_MAX} bytes")
    return status


_BUILDERS: Final[Mapping[str, Callable[[int, Payload, bytes, bytes], RepoEvent]]] = MappingProxyType(
    {"#commit": _commit, "#sync": _sync, "#identity": _identity, "#account": _account}
)
