"""CAR files: every block is proven, everything malformed is InvalidCar."""

from hashlib import sha256, sha512

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.atproto import car
from relay.atproto.cbor import CborValue, Link, encode
from relay.atproto.cid import RAW_PREFIX, dag_cbor_cid, write_varint
from relay.atproto.errors import InvalidCar
from tests.atproto.strategies import mutated

BLOCKS = [(dag_cbor_cid(block), block) for block in (b"\xa0", b"\x80", b"\x61a" * 100)]
ROOT = BLOCKS[0][0]
CAR = car.write(ROOT, BLOCKS)


def _section(cid: bytes, block: bytes) -> bytes:
    return write_varint(len(cid) + len(block)) + cid + block


def _header(value: CborValue) -> bytes:
    header = encode(value)
    return write_varint(len(header)) + header


def test_header_of_one_root() -> None:
    """58 bytes long (protocol.md 3.3)."""
    assert CAR[0] == 58
    assert CAR[1:].startswith(bytes.fromhex("a265726f6f747381d82a582500"))


@given(st.lists(st.binary(max_size=200), max_size=8), st.booleans())
def test_blocks_survive(contents: list[bytes], raw: bool) -> None:
    """Written, then read, in any order and with duplicates."""
    blocks = [(RAW_PREFIX + sha256(c).digest() if raw else dag_cbor_cid(c), c) for c in contents]
    read = car.read(car.write(ROOT, [*blocks, *blocks[:2]]))
    assert read.roots == (ROOT,)
    assert read.blocks == dict(blocks)


def test_unverifiable_blocks_are_left_out() -> None:
    """Under another hash function a block is as good as absent."""
    odd = bytes.fromhex("01711340") + sha512(b"x").digest()
    read = car.read(CAR + _section(odd, b"x") + _section(bytes.fromhex("01550000"), b""))
    assert read.blocks == dict(BLOCKS)


def test_other_codecs_are_proven_too() -> None:
    """The hash is checked whatever the codec is."""
    dag_pb = bytes.fromhex("01701220")
    assert dag_pb + sha256(b"x").digest() in car.read(CAR + _section(dag_pb + sha256(b"x").digest(), b"x")).blocks
    with pytest.raises(InvalidCar):
        car.read(CAR + _section(dag_pb + sha256(b"x").digest(), b"y"))


MALFORMED = {
    "nothing": b"",
    "no header": b"\x00",
    "header cut short": CAR[:40],
    "header is no map": _header([]),
    "no roots": _header({"version": 1}),
    "empty roots": _header({"roots": [], "version": 1}),
    "roots are no list": _header({"roots": Link(ROOT), "version": 1}),
    "root is no link": _header({"roots": [ROOT], "version": 1}),
    "version 2": _header({"roots": [Link(ROOT)], "version": 2}),
    "version true": _header({"roots": [Link(ROOT)], "version": True}),
    "no version": _header({"roots": [Link(ROOT)]}),
    "field too many": _header({"roots": [Link(ROOT)], "version": 1, "x": 0}),
    "header not canonical": b"\x3b" + CAR[1:11] + b"\x98\x01" + CAR[12:],
    "header over the end": write_varint(2**40) + CAR[1:],
    "long varint": b"\xba\x00" + CAR[1:],
    "empty section": CAR + b"\x00",
    "section cut short": CAR[:-1],
    "section head alone": CAR + b"\x25",
    "section head over the end": CAR + write_varint(2**60),
    "section varint not minimal": CAR + b"\xa5\x00" + ROOT + b"\xa0",
    "section shorter than its CID": CAR + b"\x23" + ROOT,
    "CID that reaches into the next section": CAR + bytes.fromhex("0401550001 0401550000"),
    "CID of version 0": CAR + _section(b"\x12\x20" + sha256(b"x").digest(), b"x"),
    "wrong hash": CAR + _section(ROOT, b"\xa1"),
    "block of another CID": car.write(ROOT, [(BLOCKS[0][0], BLOCKS[1][1])]),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed(data: bytes) -> None:
    """Each way of not being a CAR whose blocks are what they say."""
    with pytest.raises(InvalidCar):
        car.read(data)


@pytest.mark.parametrize(
    "cid",
    [ROOT, RAW_PREFIX + sha256(b"\xa0").digest(), bytes.fromhex("01550000")],
    ids=["of a known block", "of another", "of no known hash"],
)
def test_sections_are_limited(cid: bytes) -> None:
    """The last one allowed, and one more; those that repeat or can't be verified count too."""
    section = _section(cid, b"\xa0")
    most = CAR + section * (car.SECTIONS_MAX - len(BLOCKS))
    assert car.read(most).blocks.items() >= dict(BLOCKS).items()
    with pytest.raises(InvalidCar, match="blocks"):
        car.read(most + section)


@given(mutated(CAR) | st.binary(max_size=200))
def test_any_bytes_are_a_car_or_refused(data: bytes) -> None:
    """Nothing but InvalidCar is raised, and what is accepted hashes to its CIDs."""
    try:
        read = car.read(data)
    except InvalidCar:
        return
    assert all(sha256(block).digest() == cid[4:] for cid, block in read.blocks.items())


def test_every_single_bit_matters() -> None:
    """Any flipped bit is refused, but one in the root's CID, which gives another root, and in a block's codec."""
    for bit in range(len(CAR) * 8):
        flipped = bytearray(CAR)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            read = car.read(bytes(flipped))
        except InvalidCar:
            continue
        assert read.roots != (ROOT,) or read.blocks.keys() != dict(BLOCKS).keys()
