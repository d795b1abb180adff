"""CARv1, read and written whole. Pure.

Owns the container and the proof that every block is what its CID says. Does not interpret blocks.
Source: protocol.md 3.3.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from relay.atproto.cbor import Link, decode, encode
from relay.atproto.cid import BLESSED_BYTES, SHA256_CODE, read_cid, read_varint, write_varint
from relay.atproto.errors import InvalidCar, InvalidCbor, InvalidCid


@dataclass(frozen=True, slots=True)
class Car:
    """`roots` has at least one binary CID; `blocks` maps a binary CID to the block proven to hash to it."""

    roots: tuple[bytes, ...]
    blocks: dict[bytes, bytes]


SECTIONS_MAX = 10_000  # 200 operations prove themselves with some 4,000; 2 MB hold 400,000 empty ones


def read(data: bytes) -> Car:
    """The roots and blocks of a CAR.

    Always verifies the SHA-256 of every block. A block under another hash function can't be verified and is
    left out, as if it were absent; order and duplicates don't matter. Raises InvalidCar on anything malformed,
    on a wrong hash, and on a header without roots.
    """
    try:
        header_size, at = read_varint(data, 0)
        roots = _read_header(data[at : at + header_size])
        at += header_size
        blocks: dict[bytes, bytes] = {}
        sections = 0
        while at < len(data):
            sections += 1
            if sections > SECTIONS_MAX:
                raise InvalidCar(f"more than {SECTIONS_MAX} blocks")
            size, start = read_varint(data, at)
            at = start + size
            if at > len(data):
                raise InvalidCar("section is cut short")
            cid, start = read_cid(data, start)
            if start > at:
                raise InvalidCar("section is shorter than its CID")
            block = data[start:at]
            if len(cid) != BLESSED_BYTES or cid[2] != SHA256_CODE:
                continue
            if sha256(block).digest() != cid[4:]:
                raise InvalidCar(f"block does not hash to its CID {cid.hex()}")
            blocks[cid] = block
    except (InvalidCid, InvalidCbor) as exc:
        raise InvalidCar(str(exc)) from exc
    return Car(roots, blocks)


def _read_header(header: bytes) -> tuple[bytes, ...]:
    value = decode(header)
    if not isinstance(value, dict) or value.keys() != {"roots", "version"}:
        raise InvalidCar("header is not a map of roots and version")
    links = value["roots"]
    if value["version"] != 1 or value["version"] is True:
        raise InvalidCar("version is not 1")
    if not isinstance(links, list) or not links:
        raise InvalidCar("roots are not a list of at least one CID")
    roots = tuple(link.cid for link in links if isinstance(link, Link))
    if len(roots) != len(links):
        raise InvalidCar("a root is not a CID")
    return roots


def write(root: bytes, blocks: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A CAR with one root and the given (binary CID, block) pairs in their order."""
    header = encode({"roots": [Link(root)], "version": 1})
    parts = [write_varint(len(header)), header]
    for cid, block in blocks:
        parts += (write_varint(len(cid) + len(block)), cid, block)
    return b"".join(parts)
