"""Tree nodes by themselves: depth of keys, prefixes, and every malformation."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.atproto import mst_node
from relay.atproto.cbor import CborValue, Link, encode
from relay.atproto.cid import RAW_PREFIX, dag_cbor_cid
from relay.atproto.errors import InvalidTree
from tests.atproto.naive_tree import naive_depth
from tests.atproto.strategies import mutated
from tests.atproto.vectors import read_json, read_lines

CHILD, VALUE = dag_cbor_cid(b"child"), dag_cbor_cid(b"value")


@pytest.mark.parametrize("case", read_json("mst/key_heights.json"), ids=lambda case: case["key"])
def test_depth_vectors(case: dict[str, Any]) -> None:
    """Also as counted bit by bit."""
    assert mst_node.depth(case["key"].encode()) == case["height"] == naive_depth(case["key"].encode())


def test_example_keys() -> None:
    """156 keys whose second character is their depth."""
    keys = read_lines("mst/example_keys.txt")
    assert len(keys) == 156
    assert [mst_node.depth(key.encode()) for key in keys] == [int(key[1]) for key in keys]


@pytest.mark.parametrize(
    "case", read_json("mst/common_prefix.json"), ids=lambda case: f"{case['left']}-{case['right']}"
)
def test_prefix_vectors(case: dict[str, Any]) -> None:
    """Counted in bytes."""
    assert mst_node.common_prefix_length(case["left"].encode(), case["right"].encode()) == case["len"]


@given(st.binary(max_size=6), st.binary(max_size=4), st.binary(max_size=4))
def test_prefix_is_the_longest(shared: bytes, left: bytes, right: bytes) -> None:
    """As found by trying."""
    left, right = shared + left, shared + right
    longest = max(n for n in range(min(len(left), len(right)) + 1) if left[:n] == right[:n])
    assert mst_node.common_prefix_length(left, right) == longest


def _entry(suffix: CborValue, shared: CborValue = 0, right: CborValue = None, **more: CborValue) -> CborValue:
    return {"k": suffix, "p": shared, "t": right, "v": Link(VALUE), **more}


def _node(*entries: CborValue, left: CborValue = None, **more: CborValue) -> bytes:
    return encode({"e": list(entries), "l": left, **more})


def _numbered(count: int) -> Iterator[CborValue]:
    """Entries of that many keys, properly compressed."""
    previous = b""
    for number in range(count):
        key = b"%05d" % number
        shared = max(n for n in range(len(previous) + 1) if key[:n] == previous[:n])
        yield _entry(key[shared:], shared)
        previous = key


def test_most_entries() -> None:
    """1,500 of them: honest nodes have some tens, and mining keys for more costs their maker."""
    assert len(mst_node.parse_node(_node(*_numbered(1_500))).keys) == 1_500


def test_a_node() -> None:
    """Keys put together again, children left of, between and right of them."""
    block = _node(_entry(b"a/1"), _entry(b"2", 2, Link(CHILD)), _entry(b"b/1", 0), left=Link(CHILD))
    assert mst_node.parse_node(block) == ((b"a/1", b"a/2", b"b/1"), (VALUE,) * 3, (CHILD, None, CHILD, None))
    assert mst_node.parse_node(_node()) == ((), (), (None,))
    assert dag_cbor_cid(_node()) == mst_node.EMPTY_TREE


MALFORMED = {
    "not CBOR": b"\xff",
    "not canonical": bytes.fromhex("a2616cf6616580"),
    "bytes behind": _node() + b"\x00",
    "no map": encode([]),
    "no entries": encode({"l": None}),
    "no left child": encode({"e": []}),
    "entries no list": encode({"e": {}, "l": None}),
    "field too many": _node(x=0),
    "left child no link": _node(left=CHILD),
    "left child false": _node(left=False),
    "left child of another codec": _node(left=Link(RAW_PREFIX + CHILD[4:])),
    "entry no map": _node([b"a", 0, None, Link(VALUE)]),
    "entry without k": _node({"p": 0, "t": None, "v": Link(VALUE)}),
    "entry without p": _node({"k": b"a", "t": None, "v": Link(VALUE)}),
    "entry without t": _node({"k": b"a", "p": 0, "v": Link(VALUE)}),
    "entry without v": _node({"k": b"a", "p": 0, "t": None}),
    "entry with a field too many": _node(_entry(b"a", x=0)),
    "key as text": _node(_entry("a")),
    "prefix true": _node(_entry(b"a"), _entry(b"b", True)),
    "prefix false": _node(_entry(b"a", False)),
    "prefix negative": _node(_entry(b"a"), _entry(b"b", -1)),
    "prefix text": _node(_entry(b"a", "0")),
    "prefix of the first key": _node(_entry(b"a", 1)),
    "prefix over the previous key": _node(_entry(b"a"), _entry(b"b", 2)),
    "prefix too short": _node(_entry(b"a/1"), _entry(b"/2", 1)),
    "prefix none": _node(_entry(b"a/1"), _entry(b"a/2", 0)),
    "right child no link": _node(_entry(b"a", 0, CHILD)),
    "right child of another codec": _node(_entry(b"a", 0, Link(RAW_PREFIX + CHILD[4:]))),
    "value null": _node({"k": b"a", "p": 0, "t": None, "v": None}),
    "value bytes": _node({"k": b"a", "p": 0, "t": None, "v": VALUE}),
    "empty key": _node(_entry(b"")),
    "same key twice": _node(_entry(b"a"), _entry(b"", 1)),
    "key too long": _node(_entry(b"a" * 1_025)),
    "key too long by its prefix": _node(_entry(b"a" * 1_000), _entry(b"b" * 26, 999)),
    "too many entries": _node(*_numbered(10_001)),
}


@pytest.mark.parametrize("block", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed(block: bytes) -> None:
    """Each way of not being a node."""
    with pytest.raises(InvalidTree):
        mst_node.parse_node(block)


@given(mutated(_node(_entry(b"a/1"), _entry(b"2", 2, Link(CHILD)), left=Link(CHILD))) | st.binary(max_size=60))
def test_any_bytes_are_a_node_or_refused(block: bytes) -> None:
    """Nothing but InvalidTree is raised, and what is accepted has no second spelling."""
    try:
        keys, values, links = mst_node.parse_node(block)
    except InvalidTree:
        return
    children = tuple(None if link is None else mst_node.Stub(link) for link in links)
    # A suffix that is empty is accepted here and refused by the order of the whole tree.
    if list(keys) == sorted(set(keys)):
        assert mst_node.encode_node(mst_node.Node(0, keys, values, children)) == block


def test_a_node_of_many_long_keys_is_cheap() -> None:
    """Prefixes must not unfold to more than the limit on keys allows."""
    entries = [_entry(b"a" * 1_000_000)] + [_entry(b"b", 999_999)] * 1_400
    with pytest.raises(InvalidTree, match="key of"):
        mst_node.parse_node(_node(*entries))
