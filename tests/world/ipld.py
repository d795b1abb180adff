"""DAG-CBOR, CIDs and CARs, naively, for the fake network and as an oracle. Pure.

Owns its own encoder, decoder, CAR writer and reader, written from protocol.md section 3 and sharing nothing with the
relay. A CID is its 36 binary bytes; inside a CBOR value it is `link(cid)`. Not fast, not lenient.
"""

import base64
import hashlib
from collections.abc import Iterable
from io import BytesIO
from typing import Any

import cbor2
from cbor2 import CBORTag

DAG_CBOR_HEAD = bytes([0x01, 0x71, 0x12, 0x20])


class Malformed(ValueError):
    """Bytes that the specification forbids."""


def encode(value: Any) -> bytes:
    """Canonical DAG-CBOR of `value` (CIDs as `link(cid)`)."""
    return cbor2.dumps(value, canonical=True)


def decode_sequence(data: bytes) -> list[Any]:
    """Every CBOR item of `data`; raises Malformed unless each is canonical DAG-CBOR."""
    stream, items = BytesIO(data), []
    while stream.tell() < len(data):
        try:
            items.append(cbor2.load(stream))
        except Exception as error:
            raise Malformed(f"undecodable CBOR: {error}") from error
    for item in items:
        _check_model(item)
    if b"".join(encode(item) for item in items) != data:
        raise Malformed("CBOR is not canonical")
    return items


def decode(data: bytes) -> Any:
    """The one CBOR item of `data`; raises Malformed."""
    items = decode_sequence(data)
    if len(items) != 1:
        raise Malformed(f"{len(items)} CBOR items where one is expected")
    return items[0]


def _check_model(value: Any) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise Malformed(f"map key {key!r} is not text")
            _check_model(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_model(inner)
    elif isinstance(value, CBORTag):
        unlink(value)
    elif value is not None and not isinstance(value, bool | int | str | bytes):
        raise Malformed(f"{type(value).__name__} is not of the data model")


def link(cid: bytes) -> CBORTag:
    """A CID as a CBOR value."""
    return CBORTag(42, b"\0" + cid)


def unlink(value: Any) -> bytes:
    """The binary CID of a decoded link; raises Malformed on anything else."""
    if not isinstance(value, CBORTag) or value.tag != 42 or not isinstance(value.value, bytes):
        raise Malformed(f"{value!r} is not a link")
    if len(value.value) != 37 or value.value[0] != 0:
        raise Malformed(f"link of {len(value.value)} bytes")
    return value.value[1:]


def cid_of(block: bytes) -> bytes:
    """The dag-cbor sha-256 CID of a block, 36 bytes."""
    return DAG_CBOR_HEAD + hashlib.sha256(block).digest()


def cid_text(cid: bytes) -> str:
    """`bafyrei…`."""
    return "b" + base64.b32encode(cid).decode().lower().rstrip("=")


def parse_cid_text(text: str) -> bytes:
    """The binary CID of base32 text."""
    body = text[1:].upper()
    return base64.b32decode(body + "=" * (-len(body) % 8))


def varint(number: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def write_car(roots: Iterable[bytes], blocks: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A CARv1; takes binary CIDs and (CID, block) pairs, in the order they shall have."""
    header = encode({"roots": [link(root) for root in roots], "version": 1})
    parts = [varint(len(header)), header]
    for cid, block in blocks:
        parts += [varint(len(cid) + len(block)), cid, block]
    return b"".join(parts)


def read_car(data: bytes) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
    """(roots, blocks in order) of a CARv1 with 36-byte CIDs; raises Malformed unless every block has its hash."""
    sections, position = [], 0
    while position < len(data):
        length, position = _read_varint(data, position)
        if position + length > len(data):
            raise Malformed("CAR section is cut short")
        sections.append(data[position : position + length])
        position += length
    if not sections:
        raise Malformed("empty CAR")
    header = decode(sections[0])
    if not isinstance(header, dict) or header.get("version") != 1 or not header.get("roots"):
        raise Malformed("CAR header")
    blocks = [(section[:36], section[36:]) for section in sections[1:]]
    for cid, block in blocks:
        if cid[:2] not in (b"\x01\x71", b"\x01\x55") or cid[2:] != b"\x12\x20" + hashlib.sha256(block).digest():
            raise Malformed(f"block does not have its CID {cid.hex()}")
    return [unlink(root) for root in header["roots"]], blocks


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if position >= len(data):
            raise Malformed("varint is cut short")
        byte = data[position]
        number |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return number, position
