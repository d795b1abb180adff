"""The signed commit object."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.atproto import commit
from relay.atproto.cbor import CborValue, Link, encode
from relay.atproto.cid import RAW_PREFIX, dag_cbor_cid
from relay.atproto.errors import InvalidCommit
from tests.atproto.strategies import mutated

DATA = dag_cbor_cid(b"data")
PREV = dag_cbor_cid(b"prev")
FIELDS: Mapping[str, CborValue] = {
    "did": "did:plc:7iza6de2dwap2sbkpav7c6c6",
    "rev": "3jzfcijpj2z2a",
    "sig": bytes(range(64)),
    "data": Link(DATA),
    "prev": None,
    "version": 3,
}
BLOCK = encode(dict(FIELDS))


def test_fields() -> None:
    """Each field, and the bytes to sign: the same map without the signature, in canonical order."""
    assert commit.parse(BLOCK) == commit.SignedCommit(
        did="did:plc:7iza6de2dwap2sbkpav7c6c6",
        rev="3jzfcijpj2z2a",
        data=DATA,
        prev=None,
        sig=bytes(range(64)),
        unsigned=b"\xa5"
        + (b"\x63did" + b"\x78\x20did:plc:7iza6de2dwap2sbkpav7c6c6")
        + (b"\x63rev" + b"\x6d3jzfcijpj2z2a")
        + (b"\x64data" + b"\xd8\x2a\x58\x25\x00" + DATA)
        + (b"\x64prev" + b"\xf6")
        + (b"\x67version" + b"\x03"),
    )


def test_prev() -> None:
    """May be a link."""
    assert commit.parse(encode({**FIELDS, "prev": Link(PREV)})).prev == PREV


def test_additional_fields_are_signed() -> None:
    """The signature covers all fields as received but itself."""
    block = encode({**FIELDS, "note": "x", "z": [1]})
    without = {name: value for name, value in FIELDS.items() if name != "sig"}
    assert commit.parse(block).unsigned == encode({**without, "note": "x", "z": [1]})


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_required(name: str) -> None:
    """`prev` too, which may be null but not absent."""
    with pytest.raises(InvalidCommit):
        commit.parse(encode({key: value for key, value in FIELDS.items() if key != name}))


WRONG: dict[str, list[CborValue]] = {
    "did": [None, 1, b"did:plc:a", "", "did:plc:", "DID:plc:a", "did:plc:" + "a" * 2_100],
    "rev": [None, 1, b"3jzfcijpj2z2a", "", "3jzfcijpj2z2", "zzzzzzzzzzzzz", "3jzfcijpj2z2a\n"],
    "sig": [None, "", [], Link(DATA)],
    "data": [None, DATA, "bafy", Link(RAW_PREFIX + DATA[4:])],
    "prev": [False, PREV, "", Link(RAW_PREFIX + PREV[4:])],
    "version": [None, "3", 2, 4, -3, True, [3]],
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_fields(name: str) -> None:
    """Every field of another type or form."""
    for value in WRONG[name]:
        with pytest.raises(InvalidCommit):
            commit.parse(encode({**FIELDS, name: value}))


@pytest.mark.parametrize("value", [None, [], "commit", 3, {}, [dict(FIELDS)]], ids=repr)
def test_other_values(value: CborValue) -> None:
    """Not a map of the fields."""
    with pytest.raises(InvalidCommit):
        commit.parse(encode(value))


@given(mutated(BLOCK) | st.binary(max_size=100))
def test_any_bytes_are_a_commit_or_refused(data: bytes) -> None:
    """Nothing but InvalidCommit is raised, and the signature is found whole."""
    try:
        parsed = commit.parse(data)
    except InvalidCommit:
        return
    assert len(parsed.unsigned) < len(data)
    assert parsed.sig in data
