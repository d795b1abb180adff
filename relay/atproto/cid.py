"""Content identifiers, binary and as text. Pure.

Owns the CIDv1 layout, its unsigned varints, and the one form that the repository's own objects use (DAG-CBOR,
SHA-256, 36 bytes). Does not hash blocks against CIDs that came from elsewhere: `car.py` does.
Source: protocol.md 3.2.
"""

from base64 import b32decode
from hashlib import sha256

import libipld

from relay.atproto.errors import InvalidCid

DAG_CBOR_PREFIX = bytes.fromhex("01711220")
RAW_PREFIX = bytes.fromhex("01551220")
SHA256_CODE = 0x12
CID_BYTES_MAX = 100
BLESSED_BYTES = 36

_VARINT_BYTES_MAX = 9
_TEXT_CHARS = 59


def read_varint(data: bytes, start: int) -> tuple[int, int]:
    """Read an unsigned LEB128 varint. Gives (value, offset behind it); raises InvalidCid if cut short, longer
    than 9 bytes or not minimal."""
    value = shift = 0
    for end in range(start, min(start + _VARINT_BYTES_MAX, len(data))):
        byte = data[end]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and end > start:
                raise InvalidCid("varint is not minimal")
            return value, end + 1
        shift += 7
    raise InvalidCid("varint is cut short or too long")


def write_varint(value: int) -> bytes:
    """The minimal unsigned LEB128 form of `value` >= 0."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def read_cid(data: bytes, start: int) -> tuple[bytes, int]:
    """Read one binary CIDv1 of any codec and hash. Gives (cid, offset behind it); raises InvalidCid on CIDv0,
    malformed or cut-short ones, and those over 100 bytes."""
    version, at = read_varint(data, start)
    if version != 1:
        raise InvalidCid(f"CID version {version}")
    _codec, at = read_varint(data, at)
    code, at = read_varint(data, at)
    size, at = read_varint(data, at)
    end = at + size
    if end - start > CID_BYTES_MAX or end > len(data):
        raise InvalidCid("CID is cut short or too long")
    if code == SHA256_CODE and size != 32:
        raise InvalidCid(f"SHA-256 digest of {size} bytes")
    return data[start:end], end


def check_cid(cid: bytes) -> None:
    """Raises InvalidCid unless `cid` is one whole binary CIDv1, of any codec and hash."""
    if read_cid(cid, 0)[1] != len(cid):
        raise InvalidCid("bytes behind the CID")


def is_dag_cbor(cid: bytes) -> bool:
    """Whether `cid` has the one form that commits and tree nodes have: CIDv1, DAG-CBOR, SHA-256."""
    return len(cid) == BLESSED_BYTES and cid.startswith(DAG_CBOR_PREFIX)


def dag_cbor_cid(block: bytes) -> bytes:
    """The binary CID (36 bytes) of a DAG-CBOR block."""
    return DAG_CBOR_PREFIX + sha256(block).digest()


def cid_text(cid: bytes) -> str:
    """The lower-case base32 form of a blessed binary CID, 59 characters. By libipld: a page of 1,000 needs as many
    (0.4 µs each; base64's takes 15)."""
    text: str = libipld.encode_cid(cid)
    return text


def parse_cid_text(text: str) -> bytes:
    """The binary form of a CID in the blessed text form (`bafyrei…` or `bafkrei…`, 59 characters).

    Raises InvalidCid on anything else, also on other bases, codecs and hashes.
    """
    if len(text) != _TEXT_CHARS or text[0] != "b" or not text.islower():
        raise InvalidCid(f"not a base32 CIDv1: {text[:80]!r}")
    try:
        cid = b32decode(text[1:].upper() + "=" * 6)
    except ValueError as exc:
        raise InvalidCid(f"not base32: {text!r}") from exc
    if not cid.startswith((DAG_CBOR_PREFIX, RAW_PREFIX)) or cid_text(cid) != text:
        raise InvalidCid(f"not a blessed CID: {text!r}")
    return cid
