"""Tree nodes as bytes: what is proven of one, held against the general parser, and cutting."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.atproto import splice_node
from relay.atproto.cbor import CborValue, Link, encode
from relay.atproto.cid import RAW_PREFIX, dag_cbor_cid
from relay.atproto.mst_node import Node, Stub, depth, encode_node, parse_node
from relay.atproto.splice_node import NULL, UnprovenError
from tests.atproto.strategies import mutated

CHILD, VALUE = dag_cbor_cid(b"child"), dag_cbor_cid(b"value")
BY_LAYER = {
    layer: sorted(key for key in (f"a.b.c/{n}".encode() for n in range(2_000)) if depth(key) == layer)
    for layer in range(4)
}


def _block(keys: Sequence[bytes], children: Sequence[Stub | None]) -> bytes:
    return encode_node(Node(0, tuple(keys), (VALUE,) * len(keys), tuple(children)))


def _leaf(count: int) -> bytes:
    return _block(BY_LAYER[0][:count], [None] * (count + 1))


def _slot(cid: bytes | None) -> bytes:
    return NULL if cid is None else encode(Link(cid))


@st.composite
def _nodes(draw: st.DrawFn) -> tuple[int, bytes]:
    layer = draw(st.integers(0, 3))
    keys = sorted(draw(st.sets(st.sampled_from(BY_LAYER[layer]), max_size=8, min_size=layer == 0)))
    children = draw(st.lists(st.sampled_from([None, Stub(CHILD)]), min_size=len(keys) + 1, max_size=len(keys) + 1))
    if not keys:
        children = [Stub(CHILD)]
    return layer, _block(keys, [None] * len(children) if layer == 0 else children)


@given(_nodes())
def test_proven(made: tuple[int, bytes]) -> None:
    """Keys, values and slots are those that the general parser finds."""
    layer, block = made
    node, parsed = splice_node.proven(block, layer), parse_node(block)
    assert (node.layer, tuple(node.keys)) == (layer, parsed.keys)
    assert node.slots == tuple(map(_slot, parsed.links))
    assert tuple(splice_node.value_at(node, index) for index in range(len(node.keys))) == tuple(
        value[4:] for value in parsed.values
    )
    if node.keys:
        assert splice_node.proven(block, None)[1:] == node[1:]
    for other in {0, 1, 2, 3} - {layer if node.keys else 0, *(() if node.keys else (1, 2, 3))}:
        with pytest.raises(UnprovenError):
            splice_node.proven(block, other)


@given(
    _nodes().flatmap(lambda made: st.tuples(st.just(made[0]), mutated(made[1]))) | st.tuples(st.just(0), st.binary())
)
def test_any_bytes(made: tuple[int, bytes]) -> None:
    """Nothing else is raised, and what is proven is what the general parser finds, at its layer and in order."""
    layer, block = made
    try:
        node = splice_node.proven(block, layer)
    except UnprovenError:
        return
    parsed = parse_node(block)
    assert tuple(node.keys) == parsed.keys == tuple(sorted(set(parsed.keys)))
    assert all(depth(key) == layer for key in parsed.keys)
    assert node.slots == tuple(map(_slot, parsed.links))


def _entry(shared: int, suffix: bytes) -> CborValue:
    return {"k": suffix, "p": shared, "t": None, "v": Link(VALUE)}


UNPROVEN = {
    "41 entries": (_leaf(41), 0),
    "empty tree": (encode({"e": [], "l": None}), None),
    "root without keys": (_block([], [Stub(CHILD)]), None),
    "no keys and no subtree": (encode({"e": [], "l": None}), 1),
    "no keys at layer 0": (_block([], [Stub(CHILD)]), 0),
    "subtree at layer 0, left": (_block(BY_LAYER[0][:2], [Stub(CHILD), None, None]), 0),
    "subtree at layer 0, right": (_block(BY_LAYER[0][:2], [None, None, Stub(CHILD)]), 0),
    "one key of another layer": (_block(sorted([BY_LAYER[1][5], *BY_LAYER[0][:4]]), [None] * 6), 0),
    "out of order": (_block(BY_LAYER[0][1::-1], [None] * 3), 0),
    "twice the same key": (_block([BY_LAYER[0][0]] * 2, [None] * 3), 0),
    "first prefix not 0": (_leaf(1).replace(b"ap\x00", b"ap\x01"), 0),
    "prefix not the longest": (
        encode({"e": [_entry(0, BY_LAYER[0][0]), _entry(3, BY_LAYER[0][1][3:])], "l": None}),
        0,
    ),
    "prefix longer than the key before": (
        encode({"e": [_entry(0, BY_LAYER[0][0]), _entry(20, b"1")], "l": None}),
        0,
    ),
    "suffix longer than its head": (_leaf(1).replace(b"ak\x47", b"ak\x46"), 0),
    "suffix shorter than its head": (_leaf(1).replace(b"ak\x47", b"ak\x48"), 0),
    "wide prefix": (_leaf(1).replace(b"ap\x00", b"ap\x18\x00"), 0),
    "wide count": (_leaf(1).replace(b"ae\x81", b"ae\x98\x01"), 0),
    "subtree of another codec": (_block(BY_LAYER[1][:1], [Stub(RAW_PREFIX + CHILD[4:]), None]), 1),
    "characters that paths don't have": (_block([b"a.b.c/ "], [None, None]), depth(b"a.b.c/ ")),
}


@pytest.mark.parametrize(("block", "layer"), UNPROVEN.values(), ids=UNPROVEN.keys())
def test_unproven(block: bytes, layer: int | None) -> None:
    """Left to the general road, be it right or wrong."""
    with pytest.raises(UnprovenError):
        splice_node.proven(block, layer)


def test_unproven_blocks_differ() -> None:
    """Every example is one: none is the well-formed node that it was made from."""
    assert {_leaf(1), _leaf(2)}.isdisjoint(block for block, _layer in UNPROVEN.values())


def test_40_entries() -> None:
    """The longest node of the fast road."""
    assert splice_node.proven(_leaf(40), 0).keys == BY_LAYER[0][:40]


@given(st.data())
def test_cutting(data: st.DataObject) -> None:
    """Any run of entries, with another first prefix and last slot, is what the general encoder would write."""
    keys = sorted(data.draw(st.sets(st.sampled_from(BY_LAYER[1]), min_size=2, max_size=10)))
    start = data.draw(st.integers(0, len(keys) - 1))
    stop = data.draw(st.integers(start + 1, len(keys)))
    links = [Stub(CHILD)] * (len(keys) + 1)
    node = splice_node.proven(_block(keys, links), 1)
    entries = splice_node.run(node, start, stop, last=NULL, shared=0)
    expected = _block(keys[start:stop], [*links[start:stop], None])
    assert splice_node.block_of(stop - start, entries, node.slots[0]) == expected
    assert splice_node.with_slot(node, start, NULL) == _block(keys, [*links[:start], None, *links[start + 1 :]])
    whole = splice_node.run(node, 0, start) + splice_node.run(node, start, len(keys))
    assert splice_node.block_of(len(keys), whole, node.slots[0]) == _block(keys, links)


def test_new_entries() -> None:
    """Lengths beyond one byte are left to the general road."""
    value = VALUE[4:]
    made = splice_node.entry(b"a.b.c/1", b"a.b.c/2", NULL, value)
    assert made == encode({"k": b"2", "p": 6, "t": None, "v": Link(VALUE)})
    long = b"a" * 255
    assert splice_node.entry(b"", long, NULL, value) == encode({"k": long, "p": 0, "t": None, "v": Link(VALUE)})
    with pytest.raises(UnprovenError):
        splice_node.entry(b"", long + b"a", NULL, value)
    with pytest.raises(UnprovenError):
        splice_node.entry(long + b"a", long + b"ab", NULL, value)
