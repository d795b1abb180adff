"""Strict DAG-CBOR: what is accepted is canonical, everything else is InvalidCbor and nothing else."""

from io import BytesIO
from typing import Any

import cbor2
import libipld
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.atproto import cbor
from relay.atproto.cid import DAG_CBOR_PREFIX, RAW_PREFIX
from relay.atproto.errors import InvalidCbor
from tests.atproto.strategies import mutated, values

LINK = "d82a582500" + DAG_CBOR_PREFIX.hex() + "ab" * 32


@given(values)
def test_values_survive(value: cbor.CborValue) -> None:
    """Decoding gives back what was encoded."""
    assert cbor.decode(cbor.encode(value)) == value


@given(values)
def test_encoding_agrees_with_another_library(value: cbor.CborValue) -> None:
    """libipld reads the same value from our bytes."""
    assert libipld.decode_dag_cbor(cbor.encode(value)) == _with_bare_cids(value)


def _with_bare_cids(value: cbor.CborValue) -> Any:
    match value:
        case cbor.Link(cid):
            return cid
        case list():
            return [_with_bare_cids(item) for item in value]
        case dict():
            return {key: _with_bare_cids(item) for key, item in value.items()}
    return value


@given(st.binary(max_size=64) | values.flatmap(lambda value: mutated(cbor.encode(value))))
def test_any_bytes_are_canonical_or_refused(data: bytes) -> None:
    """Nothing but InvalidCbor is raised, and what is accepted encodes to the very same bytes."""
    try:
        value = cbor.decode(data)
    except InvalidCbor:
        return
    assert cbor.encode(value) == data
    libipld.decode_dag_cbor(data)


REFUSED = {
    "nothing": "",
    "float16": "f93c00",
    "float32": "fa3f800000",
    "float64": "fb3ff0000000000000",
    "float in an array": "81fb3ff8000000000000",
    "not a number": "f97e00",
    "infinity": "f97c00",
    "undefined": "f7",
    "undefined in a map": "a16161f7",
    "simple value": "f8ff",
    "simple value, one byte": "e0",
    "false in two bytes": "f814",
    "break alone": "ff",
    "indefinite array": "9fff",
    "indefinite map": "bfff",
    "indefinite bytes": "5f4100ff",
    "indefinite text": "7f6161ff",
    "integer in two bytes": "1817",
    "integer in three bytes": "1900ff",
    "integer in five bytes": "1a0000ffff",
    "integer in nine bytes": "1b00000000ffffffff",
    "negative in two bytes": "3817",
    "length in two bytes": "5800",
    "array head in two bytes": "9800",
    "map head in two bytes": "b800",
    "text length in two bytes": "780161",
    "reserved head": "1c",
    "keys out of order": "a2616200616100",
    "longer key first": "a262616100616200",
    "key twice": "a2616100616101",
    "integer key": "a10000",
    "bytes key": "a1416100",
    "array key": "a18000",
    "null key": "a1f600",
    "float key": "a1f93c0000",
    "link key": "a1" + LINK + "00",
    "empty key": "a16000",
    "text that is not UTF-8": "61ff",
    "key that is not UTF-8": "a161ff00",
    "lone surrogate": "63eda080",
    "integer 2^63": "1b8000000000000000",
    "integer 2^64 - 1": "1bffffffffffffffff",
    "integer -2^63 - 1": "3b8000000000000000",
    "bignum": "c249010000000000000000",
    "small bignum": "c24101",
    "date": "c074323031332d30332d32315432303a30343a30305a",
    "shared value": "d81c80",
    "shared value used": "82d81c81d81d0000",
    "string reference": "d9010082636161 61d81900".replace(" ", ""),
    "self-described": "d9d9f7a0",
    "regular expression": "d82361 61".replace(" ", ""),
    "link of text": "d82a6100",
    "link without its zero": "d82a5824" + DAG_CBOR_PREFIX.hex() + "ab" * 32,
    "link of nothing": "d82a40",
    "link of the zero alone": "d82a4100",
    "link cut short": "d82a582400" + DAG_CBOR_PREFIX.hex() + "ab" * 31,
    "link with bytes behind the CID": "d82a582600" + DAG_CBOR_PREFIX.hex() + "ab" * 33,
    "link of version 0": "d82a582300" + "1220" + "ab" * 32,
    "link of version 2": "d82a582500" + "02711220" + "ab" * 32,
    "link with a long varint": "d82a582600" + "8100711220" + "ab" * 32,
    "link over 100 bytes": "d82a586700" + "01710061" + "ab" * 98,
    "link tag in three bytes": "d9002a582500" + DAG_CBOR_PREFIX.hex() + "ab" * 32,
    "tag in a link": "d82ad82a582500" + DAG_CBOR_PREFIX.hex() + "ab" * 32,
    "bytes behind": "a000",
    "two values": "a0a0",
    "array cut short": "8201",
    "map cut short": "a16161",
    "map without its last value": "a2616100",
    "bytes cut short": "4261",
    "array of 2^63": "9b7fffffffffffffff",
    "bytes of 2^63": "5b7fffffffffffffff",
    "map of 2^63": "bb7fffffffffffffff",
    "text of 2^31": "7a7fffffff",
    "33 levels": "81" * 33 + "00",
    "33 levels of maps": "a16161" * 33 + "00",
    "100,000 levels": "81" * 100_000 + "00",
    "100,000 tags": "d82a" * 100_000 + "00",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_refused(data: str) -> None:
    """Each way of not being strict DAG-CBOR."""
    with pytest.raises(InvalidCbor):
        cbor.decode(bytes.fromhex(data))


def test_every_tag_but_42_is_refused() -> None:
    """Those that cbor2 would interpret by itself included, over every kind of content."""
    for tag in (*range(42), *range(43, 1_200), 43_000, 55_799, 2**32 - 1, 2**64 - 1):
        for content in ("00", "6130", "4100", "8000", "820000", "a0", "8101", LINK):
            with pytest.raises(InvalidCbor):
                cbor.decode(cbor.item_head(6, tag) + bytes.fromhex(content))


ACCEPTED: dict[str, tuple[str, cbor.CborValue]] = {
    "integer 2^63 - 1": ("1b7fffffffffffffff", 2**63 - 1),
    "integer -2^63": ("3b7fffffffffffffff", -(2**63)),
    "keys by length, then bytes": ("a361620161630262616103", {"b": 1, "c": 2, "aa": 3}),
    "null, true, false": ("83f6f5f4", [None, True, False]),
    "link": (LINK, cbor.Link(DAG_CBOR_PREFIX + b"\xab" * 32)),
    "raw link": ("d82a582500" + RAW_PREFIX.hex() + "ab" * 32, cbor.Link(RAW_PREFIX + b"\xab" * 32)),
    "link of another hash": (
        "d82a582500" + "01711e20" + "ab" * 32,
        cbor.Link(bytes.fromhex("01711e20") + b"\xab" * 32),
    ),
}


@pytest.mark.parametrize(("data", "value"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepted(data: str, value: cbor.CborValue) -> None:
    """What stands just inside the limits."""
    assert cbor.decode(bytes.fromhex(data)) == value


MEGABYTES_OF = {"empty lists": b"\x80", "empty maps": b"\xa0", "small links": bytes.fromhex("d82a450001550000")}


@pytest.mark.parametrize("item", MEGABYTES_OF.values(), ids=MEGABYTES_OF.keys())
def test_too_many_items_are_refused_before_any_is_built(item: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """5 MB of items would be a second's work and hundreds of megabytes."""
    decoded: list[int] = []
    load = cbor2.load

    def counted(stream: BytesIO, **options: Any) -> Any:
        decoded.append(stream.tell())
        return load(stream, **options)

    monkeypatch.setattr(cbor2, "load", counted)
    assert cbor.decode(cbor.item_head(4, 3) + item * 3)
    assert decoded == [0]
    count = 5_000_000 // len(item)
    for message in (cbor.item_head(4, count) + item * count, b"\xa1bop\x01" + b"\xa1azC123" + item * count):
        with pytest.raises(InvalidCbor, match="items"):
            cbor.decode(message)
    assert decoded == [0]


def test_what_is_inside_a_string_is_no_item() -> None:
    """Blocks of megabytes are one item; an item behind one counts."""
    blocks = cbor.encode({"blocks": b"\x80" * 2_000_000, "x": "\x60" * 2_000_000})
    assert cbor.encode(cbor.decode(blocks)) == blocks
    with pytest.raises(InvalidCbor, match="items"):
        cbor.decode(cbor.encode([b"\x80" * 2_000_000, *[0] * 2 * cbor.VALUES_MAX]))


def heads(value: cbor.CborValue) -> int:
    """How many heads a value is encoded with."""
    match value:
        case cbor.Link():
            return 2
        case list():
            return 1 + sum(map(heads, value))
        case dict():
            return 1 + sum(1 + heads(inner) for inner in value.values())
    return 1


def test_items_are_counted_to_the_last() -> None:
    """Behind heads of every width: a walk that lost its place in one would count what is no item."""
    link = cbor.Link(RAW_PREFIX + b"\x80" * 32)
    widths = [0, 23, 24, 255, 256, 65_535, 65_536]
    every: list[cbor.CborValue] = [None, True, False, link, [[{}]], *widths, *(-1 - width for width in widths)]
    every += [2**32 - 1, 2**32, cbor.INTEGER_MAX, cbor.INTEGER_MIN]
    every += [b"\x80" * width for width in widths]
    every += ["\x60" * width for width in widths]
    pair: cbor.CborValue = {"a": link, "b": link}
    pairs, single = divmod(2 * cbor.VALUES_MAX - 1 - heads(every), heads(pair))
    most = [*every, *[pair] * pairs, *[0] * single]
    assert cbor.decode(cbor.encode(most)) == most
    with pytest.raises(InvalidCbor, match="items"):
        cbor.decode(cbor.encode([*most, 0]))


def test_limits() -> None:
    """Depth, key length and number of values: the last one allowed, and one more."""
    cbor.decode(b"\x81" * cbor.DEPTH_MAX + b"\x00")
    cbor.decode(cbor.encode({"k" * cbor.KEY_BYTES_MAX: 0}))
    cbor.decode(cbor.encode([0] * (cbor.VALUES_MAX - 1)))
    with pytest.raises(InvalidCbor, match="key"):
        cbor.decode(cbor.encode({"k" * (cbor.KEY_BYTES_MAX + 1): 0}))
    with pytest.raises(InvalidCbor, match="key"):
        cbor.decode(cbor.encode({"é" * (cbor.KEY_BYTES_MAX // 2 + 1): 0}))
    with pytest.raises(InvalidCbor, match="values"):
        cbor.decode(cbor.encode([0] * cbor.VALUES_MAX))


@given(st.integers(0, 2**64 - 1) | st.sampled_from([23, 24, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**64 - 1]))
def test_heads_are_minimal(number: int) -> None:
    """As the library encodes integers."""
    assert cbor.uint(number) == cbor2.dumps(number)
    assert cbor.item_head(1, number) == cbor2.dumps(-1 - number)


def test_sequence() -> None:
    """Exactly as many values as were asked for."""
    two = bytes.fromhex("a1616101") + bytes.fromhex("83010203")
    assert cbor.decode_sequence(two, 2) == [{"a": 1}, [1, 2, 3]]
    for count in (1, 3):
        with pytest.raises(InvalidCbor):
            cbor.decode_sequence(two, count)


def test_encoding_refuses_what_is_not_of_the_model() -> None:
    """Such a value is a bug of ours."""
    with pytest.raises((TypeError, cbor2.CBOREncodeError)):
        cbor.encode(object())  # type: ignore[arg-type]
