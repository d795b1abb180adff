"""Strict DAG-CBOR. Pure.

Owns the canonical form (shortest heads, definite lengths, sorted unique text keys, no floats, tag 42 alone)
and the limits on what is decoded. Does not know any schema.
Source: protocol.md 3.1 and 11. cbor2 is lenient by default; the guards given to it keep hostile input cheap
(tags that share or build values, endless nesting), re-encoding and comparing proves the canonical form, and a
walk refuses what would round-trip unnoticed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NoReturn, TypeAlias

import cbor2

from relay.atproto.cid import check_cid
from relay.atproto.errors import InvalidCbor, InvalidCid

DEPTH_MAX = 32
VALUES_MAX = 16_384
KEY_BYTES_MAX = 8_192
INTEGER_MIN = -(2**63)
INTEGER_MAX = 2**63 - 1

_LINK_TAG = 42
# Every tag that cbor2 6.2 would interpret by itself; all others reach the tag hook.
_CBOR2_TAGS = (
    *(0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000),
    55799,
)


@dataclass(frozen=True, slots=True)
class Link:
    """A CID inside a value: binary CIDv1 of any codec and hash, without the leading zero byte of tag 42."""

    cid: bytes


CborValue: TypeAlias = "bool | int | str | bytes | Link | list[CborValue] | dict[str, CborValue] | None"


def _refuse_tag(_value: object, _immutable: bool) -> NoReturn:
    raise InvalidCbor("tag other than 42")


def _decode_link(tag: cbor2.CBORTag, _immutable: bool) -> Link:
    content = tag.value
    if tag.tag != _LINK_TAG or type(content) is not bytes or not content.startswith(b"\x00"):
        raise InvalidCbor("tag other than 42, or a malformed link")
    check_cid(content[1:])
    return Link(content[1:])


def _encode_link(encoder: cbor2.CBOREncoder, value: object) -> None:
    if not isinstance(value, Link):
        raise TypeError(f"not a DAG-CBOR value: {type(value).__name__}")
    encoder.encode(cbor2.CBORTag(_LINK_TAG, b"\x00" + value.cid))


def _load(stream: BytesIO) -> Any:
    return cbor2.load(
        stream,
        tag_hook=_decode_link,
        semantic_decoders=dict.fromkeys(_CBOR2_TAGS, _refuse_tag),
        max_depth=DEPTH_MAX,
        allow_indefinite=False,
        allow_duplicate_keys=False,
        strict_hashable_types=True,
    )


def decode(data: bytes) -> CborValue:
    """The one value that `data` holds. Raises InvalidCbor unless it is strict DAG-CBOR within the limits."""
    return decode_sequence(data, 1)[0]


def decode_sequence(data: bytes, count: int) -> Sequence[CborValue]:
    """The `count` values that `data` holds one behind the other, with nothing behind the last.

    Raises InvalidCbor unless every one is strict DAG-CBOR within the limits.
    """
    _check_number_of_items(data)
    stream = BytesIO(data)
    try:
        values = _check_model([_load(stream) for _ in range(count)])
    except (cbor2.CBORError, InvalidCbor, InvalidCid) as exc:
        raise InvalidCbor(f"{exc}: {exc.__cause__}" if exc.__cause__ else str(exc)) from exc
    if b"".join(map(encode, values)) != data:
        raise InvalidCbor("not canonical: minimal heads, sorted keys, or bytes behind the last value")
    return values


def _check_number_of_items(data: bytes) -> None:
    """Refuse what has too many items before any of them becomes an object: 5 MB of empty lists would take a second
    and 300 MB. Counts heads, keys and tags too; what is no CBOR is left to the decoder."""
    at, end = 0, len(data)
    for _ in range(2 * VALUES_MAX):
        if at >= end:
            return
        major, argument = data[at] >> 5, data[at] & 31
        at += 1
        if argument >= 24:
            if argument > 27:
                return
            size = 1 << (argument - 24)
            argument = int.from_bytes(data[at : at + size], "big")
            at += size
        if major in (2, 3):
            at += argument
    raise InvalidCbor(f"more than {2 * VALUES_MAX} items")


def encode(value: CborValue) -> bytes:
    """Canonical DAG-CBOR of a value of the model."""
    return cbor2.dumps(value, canonical=True, default=_encode_link)


def uint(number: int) -> bytes:
    """The minimal CBOR form of 0 <= `number` < 2^64."""
    return item_head(0, number)


def item_head(major: int, argument: int) -> bytes:
    """The minimal head of an item: `major` 0..7, `argument` (value, length or count) 0 <= n < 2^64."""
    first = major << 5
    if argument < 24:
        return bytes((first | argument,))
    if argument < 0x100:
        return bytes((first | 24, argument))
    if argument < 0x1_0000:
        return bytes((first | 25,)) + argument.to_bytes(2, "big")
    if argument < 0x1_0000_0000:
        return bytes((first | 26,)) + argument.to_bytes(4, "big")
    return bytes((first | 27,)) + argument.to_bytes(8, "big")


def _check_model(values: list[Any]) -> list[CborValue]:
    """Give the values back; raises InvalidCbor on what the model lacks though it would survive re-encoding."""
    pending = list(values)
    seen = 0
    while pending:
        value = pending.pop()
        kind = type(value)
        if kind is dict:
            for key in value:
                _check_key(key)
            pending.extend(value.values())
        elif kind is list:
            pending.extend(value)
        elif kind is int:
            if not INTEGER_MIN <= value <= INTEGER_MAX:
                raise InvalidCbor("integer beyond 64 bits with a sign")
        elif value is not None and kind not in (bool, str, bytes, Link):
            raise InvalidCbor(f"{kind.__name__} is not part of the data model")
        seen += 1
        if seen + len(pending) > VALUES_MAX:
            raise InvalidCbor(f"more than {VALUES_MAX} values")
    return values


def _check_key(key: object) -> None:
    if type(key) is not str or not key:
        raise InvalidCbor("map key is not a text string of at least one character")
    if len(key.encode()) > KEY_BYTES_MAX:
        raise InvalidCbor(f"map key over {KEY_BYTES_MAX} bytes")
