"""Frames: every field's type and limit, where the sequence number stands, and what a relay writes itself."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.atproto import frames
from relay.atproto.cbor import CborValue, Link, encode, uint
from relay.atproto.cid import RAW_PREFIX, dag_cbor_cid
from relay.atproto.errors import InvalidCbor, InvalidEvent, InvalidFrame
from relay.atproto.events import (
    AccountEvent,
    CommitEvent,
    ErrorFrame,
    IdentityEvent,
    InfoMessage,
    RepoOp,
    SyncEvent,
    UnknownMessage,
)
from tests.atproto.strategies import mutated, values

DID = "did:plc:7iza6de2dwap2sbkpav7c6c6"
TIME = "2026-11-21T12:00:00.123Z"
COMMIT, PREV_DATA, RECORD, OLD = (dag_cbor_cid(name) for name in (b"commit", b"prev", b"record", b"old"))
RAW = Link(RAW_PREFIX + COMMIT[4:])

OP: Mapping[str, CborValue] = {"action": "update", "path": "a.b.c/self", "cid": Link(RECORD), "prev": Link(OLD)}
PAYLOADS: Mapping[str, Mapping[str, CborValue]] = {
    "#commit": {
        "seq": 7,
        "rebase": False,
        "tooBig": False,
        "repo": DID,
        "commit": Link(COMMIT),
        "rev": "3jzfcijpj2z2a",
        "since": "3jzfcijpj2y2a",
        "blocks": b"a CAR",
        "ops": [dict(OP)],
        "blobs": [],
        "prevData": Link(PREV_DATA),
        "time": TIME,
    },
    "#sync": {"seq": 7, "did": DID, "blocks": b"a CAR", "rev": "3jzfcijpj2z2a", "time": TIME},
    "#identity": {"seq": 7, "did": DID, "time": TIME, "handle": "alice.test"},
    "#account": {"seq": 7, "did": DID, "time": TIME, "active": False, "status": "deactivated"},
}
OPTIONAL = {"#commit": {"prevData"}, "#sync": set[str](), "#identity": {"handle"}, "#account": {"status"}}


def _message(kind: str, **changes: CborValue) -> bytes:
    return frames.message(kind, {**PAYLOADS[kind], **changes})


def _pieces(message: bytes) -> dict[str, bytes]:
    head, tail = frames.split_at_seq(message)
    return {"head": head, "tail": tail}


def test_commit() -> None:
    """Every field of a #commit."""
    message = _message("#commit")
    assert message.startswith(bytes.fromhex("a2617467") + b"#commit" + bytes.fromhex("626f7001"))
    assert frames.parse(message) == CommitEvent(
        seq=7,
        did=DID,
        rev="3jzfcijpj2z2a",
        since="3jzfcijpj2y2a",
        commit=COMMIT,
        prev_data=PREV_DATA,
        ops=(RepoOp("update", "a.b.c/self", RECORD, OLD),),
        blocks=b"a CAR",
        time=TIME,
        too_big=False,
        rebase=False,
        **_pieces(message),
    )


def test_other_events() -> None:
    """Every field of #sync, #identity and #account, with and without the optional ones."""
    sync = _message("#sync")
    assert frames.parse(sync) == SyncEvent(7, DID, "3jzfcijpj2z2a", b"a CAR", TIME, **_pieces(sync))
    identity = _message("#identity")
    assert frames.parse(identity) == IdentityEvent(7, DID, "alice.test", TIME, **_pieces(identity))
    identity = frames.message("#identity", {"seq": 8, "did": DID, "time": TIME})
    assert frames.parse(identity) == IdentityEvent(8, DID, None, TIME, **_pieces(identity))
    account = _message("#account")
    assert frames.parse(account) == AccountEvent(7, DID, False, "deactivated", TIME, **_pieces(account))
    account = frames.message("#account", {"seq": 9, "did": DID, "time": TIME, "active": True})
    assert frames.parse(account) == AccountEvent(9, DID, True, None, TIME, **_pieces(account))


def test_null_and_absent() -> None:
    """A first commit: `since` null, `prevData` absent, no operations; a create and a delete."""
    payload = {name: value for name, value in PAYLOADS["#commit"].items() if name != "prevData"}
    create: CborValue = {"action": "create", "path": "a.b.c/1", "cid": Link(RECORD)}
    delete: CborValue = {"action": "delete", "path": "a.b.c/2", "cid": None, "prev": Link(OLD)}
    event = frames.parse(frames.message("#commit", {**payload, "since": None, "ops": [create, delete]}))
    assert isinstance(event, CommitEvent)
    assert (event.since, event.prev_data) == (None, None)
    assert event.ops == (RepoOp("create", "a.b.c/1", RECORD, None), RepoOp("delete", "a.b.c/2", None, OLD))


@pytest.mark.parametrize("kind", PAYLOADS)
@pytest.mark.parametrize("seq", [1, 23, 24, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**53 - 1])
def test_pieces_around_seq(kind: str, seq: int) -> None:
    """The two pieces take any other number, and nothing else changes."""
    event = frames.parse(_message(kind, seq=seq))
    assert isinstance(event, CommitEvent | SyncEvent | IdentityEvent | AccountEvent)
    assert event.seq == seq
    for other in (1, 24, 2**53 - 1):
        assert event.head + uint(other) + event.tail == _message(kind, seq=other)


@pytest.mark.parametrize("kind", PAYLOADS)
@given(extra=st.dictionaries(st.text(min_size=1, max_size=6), values, max_size=4))
def test_unknown_fields_survive(kind: str, extra: dict[str, CborValue]) -> None:
    """Whatever their names sort like, and whatever they hold."""
    message = frames.message(kind, {**extra, **PAYLOADS[kind]})
    event = frames.parse(message)
    assert isinstance(event, CommitEvent | SyncEvent | IdentityEvent | AccountEvent)
    assert event.head + uint(7) + event.tail == message
    assert frames.parse(event.head + uint(2**40) + event.tail).seq == 2**40  # type: ignore[union-attr]


def test_the_payloads_own_seq_is_found() -> None:
    """Not one in a nested map, in a string, or in the blocks."""
    decoy = frames.message("#sync", dict(PAYLOADS["#sync"]))
    message = _message("#sync", a={"seq": 7}, b=decoy, blocks=decoy, zzz=[{"seq": 7}])
    head, tail = frames.split_at_seq(message)
    assert frames.parse(head + uint(8) + tail) == frames.parse(
        _message("#sync", a={"seq": 7}, b=decoy, blocks=decoy, zzz=[{"seq": 7}], seq=8)
    )


REQUIRED = [(kind, name) for kind in PAYLOADS for name in PAYLOADS[kind] if name not in OPTIONAL[kind]]


@pytest.mark.parametrize(("kind", "name"), REQUIRED)
def test_required_fields(kind: str, name: str) -> None:
    """An absent one is refused, with the sequence number wherever there is one."""
    payload = {key: value for key, value in PAYLOADS[kind].items() if key != name}
    with pytest.raises(InvalidEvent) as caught:
        frames.parse(frames.message(kind, payload))
    assert caught.value.kind == kind
    assert caught.value.seq == (None if name == "seq" else 7)


NOT_TEXT: list[CborValue] = [None, 1, True, b"3jzfcijpj2z2a", [], {}, Link(COMMIT)]
NOT_TID: list[CborValue] = [*NOT_TEXT[1:], "", "3jzfcijpj2z2", "zzzzzzzzzzzzz"]
NOT_DID: list[CborValue] = [*NOT_TEXT, "", "did", "did:plc:", "DID:plc:a", "did:plc:" + "a" * 2_041]
NOT_TIME: list[CborValue] = [*NOT_TEXT, "", "yesterday", "2026-11-21", "2026-13-21T12:00:00Z"]
NOT_BOOL: list[CborValue] = [None, 0, 1, "true"]
NOT_LINK: list[CborValue] = [None, COMMIT, "bafy", 1, RAW]
NOT_SEQ: list[CborValue] = [None, 0, -1, 2**53, 2**63 - 1, True, "7", b"7", [7], {}]
WRONG: dict[str, dict[str, list[CborValue]]] = {
    "#commit": {
        "seq": NOT_SEQ,
        "rebase": NOT_BOOL,
        "tooBig": NOT_BOOL,
        "repo": NOT_DID,
        "commit": NOT_LINK,
        "rev": [None, *NOT_TID],
        "since": NOT_TID,
        "blocks": [None, "text", [], Link(COMMIT), bytes(2_000_001)],
        "ops": [None, {}, "x", [None], [1], [[]], [dict(OP)] * 201],
        "blobs": [None, {}, b"", 0],
        "prevData": NOT_LINK,
        "time": NOT_TIME,
    },
    "#sync": {
        "seq": NOT_SEQ,
        "did": NOT_DID,
        "blocks": [None, "text", [], bytes(10_001)],
        "rev": [None, *NOT_TID],
        "time": NOT_TIME,
    },
    "#identity": {"seq": NOT_SEQ, "did": NOT_DID, "time": NOT_TIME, "handle": NOT_TEXT},
    "#account": {"seq": NOT_SEQ, "did": NOT_DID, "time": NOT_TIME, "active": NOT_BOOL, "status": NOT_TEXT},
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in WRONG for name in WRONG[kind]])
def test_wrong_fields(kind: str, name: str) -> None:
    """Every field of another type, form or size is refused, with the sequence number wherever there is one."""
    assert WRONG[kind].keys() == PAYLOADS[kind].keys()
    for value in WRONG[kind][name]:
        with pytest.raises(InvalidEvent) as caught:
            frames.parse(_message(kind, **{name: value}))
        assert caught.value.seq == (None if name == "seq" else 7)


WRONG_OPS: dict[str, list[CborValue]] = {
    "action": [None, 1, "", "Create", "upsert", b"create"],
    "path": [None, 1, "", "a.b.c", "a.b.c/", "a.b/self", "a.b.c/d/e", "/self", "a.b.c/..", b"a.b.c/self"],
    "cid": [RECORD, "bafy", 1, False],
    "prev": [None, OLD, "bafy", 1],
}


@pytest.mark.parametrize("name", WRONG_OPS)
def test_wrong_operations(name: str) -> None:
    """Every field of an operation of another type or form; one absent, but `prev`."""
    for value in WRONG_OPS[name]:
        with pytest.raises(InvalidEvent):
            frames.parse(_message("#commit", ops=[dict(OP), {**OP, name: value}]))
    if name != "prev":
        with pytest.raises(InvalidEvent):
            frames.parse(_message("#commit", ops=[{key: value for key, value in OP.items() if key != name}]))


def test_limits_include_their_last_value() -> None:
    """200 operations, 2,000,000 and 10,000 bytes of blocks, a DID of 2,048 characters, a message of 5,000,000 bytes."""
    ops: list[CborValue] = [{**OP, "path": f"a.b.c/{number}"} for number in range(200)]
    did = "did:plc:" + "a" * 2_040
    event = frames.parse(_message("#commit", ops=ops, blocks=bytes(2_000_000), repo=did))
    assert isinstance(event, CommitEvent)
    assert (len(event.ops), len(event.blocks), event.did) == (200, 2_000_000, did)
    assert isinstance(frames.parse(_message("#sync", blocks=bytes(10_000))), SyncEvent)
    padding = frames.MESSAGE_BYTES_MAX - len(_message("#account", x=bytes(100_000))) + 100_000
    assert isinstance(frames.parse(_message("#account", x=bytes(padding))), AccountEvent)
    with pytest.raises(InvalidFrame):
        frames.parse(_message("#account", x=bytes(padding + 1)))


def test_unknown_messages() -> None:
    """Another `op`, another `t`: ignored, with the sequence number where there is one."""
    payload = encode({"seq": 5})
    assert frames.parse(encode({"op": 1, "t": "#tombstone"}) + payload) == UnknownMessage("#tombstone", 5)
    assert frames.parse(encode({"op": 1, "t": "#x"}) + encode({"seq": "5"})) == UnknownMessage("#x", None)
    assert frames.parse(encode({"op": 2, "t": "#commit"}) + payload) == UnknownMessage("#commit", 5)
    assert frames.parse(encode({"op": 0}) + encode({})) == UnknownMessage("", None)
    assert frames.parse(encode({"op": 1, "t": ""}) + encode({})) == UnknownMessage("", None)


def test_unknown_header_fields_survive() -> None:
    """A header may grow."""
    header = encode({"op": 1, "t": "#identity", "x": 1})
    event = frames.parse(header + encode(dict(PAYLOADS["#identity"])))
    assert isinstance(event, IdentityEvent)
    assert event.head.startswith(header)


def test_info_and_error_frames() -> None:
    """Built and read; their bytes as other relays send them."""
    for text in (None, "Possibly missing events"):
        assert frames.parse(frames.info_frame("OutdatedCursor", text)) == InfoMessage("OutdatedCursor", text)
        assert frames.parse(frames.error_frame("FutureCursor", text)) == ErrorFrame("FutureCursor", text)
    assert frames.error_frame("X", None) == bytes.fromhex("a1626f7020") + bytes.fromhex("a1656572726f726158")
    for wrong in ({}, {"name": 1}, {"name": "x", "message": None}):
        with pytest.raises(InvalidEvent):
            frames.parse(frames.message("#info", dict[str, Any](wrong)))
    for payload in ({}, {"error": 1}, {"error": "x", "message": 1}):
        with pytest.raises(InvalidEvent):
            frames.parse(encode({"op": -1}) + encode(dict[str, Any](payload)))


GOOD = _message("#identity")
HEADER, PAYLOAD = encode({"op": 1, "t": "#identity"}), encode(dict(PAYLOADS["#identity"]))
BROKEN = {
    "nothing": b"",
    "header alone": HEADER,
    "third item": GOOD + b"\xa0",
    "bytes behind": GOOD + b"\x00",
    "cut short": GOOD[:-1],
    "header no map": encode([1]) + PAYLOAD,
    "payload no map": HEADER + encode([1]),
    "payload null": HEADER + b"\xf6",
    "payload of an unknown type no map": encode({"op": 1, "t": "#x"}) + b"\x80",
    "no op": encode({"t": "#identity"}) + PAYLOAD,
    "op true": encode({"op": True, "t": "#identity"}) + PAYLOAD,
    "op text": encode({"op": "1", "t": "#identity"}) + PAYLOAD,
    "op null": encode({"op": None, "t": "#identity"}) + PAYLOAD,
    "no t": encode({"op": 1}) + PAYLOAD,
    "t bytes": encode({"op": 1, "t": b"#identity"}) + PAYLOAD,
    "header out of order": bytes.fromhex("a2626f70016174692364656e74697479") + PAYLOAD,
    "seq not minimal": GOOD.replace(b"\x63seq\x07", b"\x63seq\x18\x07"),
    "seq a float": GOOD.replace(b"\x63seq\x07", b"\x63seq\xf9\x47\x00"),
    "seq twice": GOOD.replace(b"\x63seq\x07", b"\x63seq\x07\x63seq\x07").replace(b"\xa4\x63did", b"\xa5\x63did"),
    "payload first": PAYLOAD + HEADER,
    "JSON": b'{"op":1,"t":"#identity"}{"seq":7}',
}


@pytest.mark.parametrize("message", BROKEN.values(), ids=BROKEN.keys())
def test_broken_frames(message: bytes) -> None:
    """Header and payload can't be told apart, or aren't what they must be."""
    with pytest.raises((InvalidFrame, InvalidCbor)):
        frames.parse(message)


def test_splitting_needs_a_seq() -> None:
    """A payload without one has no two pieces."""
    for payload in ({}, {"seq": None}, {"seq": 0}, {"nested": {"seq": 7}}):
        with pytest.raises(InvalidEvent):
            frames.split_at_seq(frames.message("#identity", dict[str, Any](payload)))
    with pytest.raises(InvalidCbor):
        frames.split_at_seq(GOOD + b"\x00")
    with pytest.raises(InvalidFrame):
        frames.split_at_seq(HEADER + encode([7]))


@given(st.sampled_from(sorted(PAYLOADS)).flatmap(lambda kind: mutated(_message(kind))) | st.binary(max_size=100))
def test_any_bytes_are_a_message_or_refused(message: bytes) -> None:
    """Nothing but the three documented errors is raised, and an event's pieces make up its message."""
    try:
        event = frames.parse(message)
    except (InvalidFrame, InvalidCbor, InvalidEvent):
        return
    if isinstance(event, CommitEvent | SyncEvent | IdentityEvent | AccountEvent):
        assert event.head + uint(event.seq) + event.tail == message


def test_the_relays_own_messages() -> None:
    """#account and #identity that it originates."""
    head, tail = frames.account_message(DID, TIME, False, "takendown")
    assert frames.parse(head + uint(70) + tail) == AccountEvent(70, DID, False, "takendown", TIME, head, tail)
    head, tail = frames.account_message(DID, TIME, True, None)
    assert frames.parse(head + uint(70_000) + tail) == AccountEvent(70_000, DID, True, None, TIME, head, tail)
    head, tail = frames.identity_message(DID, TIME, "alice.test")
    assert frames.parse(head + uint(1) + tail) == IdentityEvent(1, DID, "alice.test", TIME, head, tail)
    head, tail = frames.identity_message(DID, TIME, None)
    assert frames.parse(head + uint(1) + tail) == IdentityEvent(1, DID, None, TIME, head, tail)


@given(extra=st.dictionaries(st.text(min_size=1, max_size=6), values, max_size=4))
def test_replaced_fields(extra: dict[str, CborValue]) -> None:
    """Set, added or taken out; all others, null ones too, stay."""
    message = frames.message("#account", {"kept": None, **extra, **PAYLOADS["#account"]})
    head, tail = frames.replace_fields(message, {"active": True, "status": None, "note": "x", "absent": None})
    expected = {"kept": None, **extra, **PAYLOADS["#account"], "active": True, "note": "x"}
    expected = {name: value for name, value in expected.items() if name not in ("status", "absent")}
    assert head + uint(7) + tail == frames.message("#account", expected)
