"""Partial trees against whole ones rebuilt from nothing."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.atproto import mst
from relay.atproto.cbor import CborValue, Link, encode
from relay.atproto.cid import dag_cbor_cid
from relay.atproto.errors import InvalidTree, MissingBlock, MissingNeighbour
from relay.atproto.mst_node import EMPTY_TREE, Slot
from tests.atproto.naive_tree import NaiveTree, build
from tests.atproto.strategies import cid_of_number, keys, trees
from tests.atproto.vectors import read_lines

VALUE = cid_of_number(0)
OTHER_VALUE = cid_of_number(1)


@given(trees)
def test_a_whole_tree(tree: NaiveTree) -> None:
    """Loads, has its root CID, its keys in order without gaps, and every value."""
    loaded = mst.load(tree.blocks, tree.root)
    assert mst.root_cid(loaded) == tree.root
    assert list(mst.visible(loaded)) == sorted(tree.items)
    assert {key: mst.get(loaded, key) for key in tree.items} == tree.items


@given(trees, keys, st.data())
def test_reading_a_part(tree: NaiveTree, absent: bytes, data: st.DataObject) -> None:
    """Whatever is hidden: a key is found, or known to be absent, or a block on its path is missing."""
    hidden = data.draw(st.sets(st.sampled_from(sorted(tree.blocks)))) - {tree.root}
    blocks = {cid: block for cid, block in tree.blocks.items() if cid not in hidden}
    loaded = mst.load(blocks, tree.root)
    assert mst.root_cid(loaded) == tree.root
    for key in (*tree.items, absent):
        if tree.path(key) <= blocks.keys():
            assert mst.get(loaded, key) == tree.items.get(key)
        else:
            with pytest.raises(MissingBlock):
                mst.get(loaded, key)
    seen = list(mst.visible(loaded))
    assert [key for key in seen if key is not None] == sorted(
        key for key in tree.items if tree.path(key) <= blocks.keys()
    )
    assert all(a is not None or b is not None for a, b in pairwise(seen))


@given(trees, keys)
def test_edits_of_a_whole_tree(tree: NaiveTree, key: bytes) -> None:
    """Each gives the tree that the new set of keys demands; the old one stays as it was."""
    loaded = mst.load(tree.blocks, tree.root)
    without = {other: value for other, value in tree.items.items() if other != key}
    if key in tree.items:
        edited = mst.replace(loaded, key, OTHER_VALUE)
        assert mst.root_cid(edited) == build({**tree.items, key: OTHER_VALUE}).root
        assert mst.root_cid(mst.delete(loaded, key)) == build(without).root
    else:
        assert mst.root_cid(mst.insert(loaded, key, VALUE)) == build({**tree.items, key: VALUE}).root
    assert mst.root_cid(loaded) == tree.root


@given(trees, keys, st.data())
def test_edits_of_a_part(tree: NaiveTree, key: bytes, data: st.DataObject) -> None:
    """Whatever is hidden: the right tree comes out, or a block of the covering proof is missing; never a wrong one."""
    hidden = data.draw(st.sets(st.sampled_from(sorted(tree.blocks)))) - {tree.root}
    loaded = mst.load({cid: block for cid, block in tree.blocks.items() if cid not in hidden}, tree.root)
    rest = {other: value for other, value in tree.items.items() if other != key}
    try:
        if key in tree.items:
            assert mst.root_cid(mst.delete(loaded, key)) == build(rest).root
        else:
            assert mst.root_cid(mst.insert(loaded, key, VALUE)) == build({**rest, key: VALUE}).root
    except MissingNeighbour:
        assert not tree.covering([key]) <= tree.blocks.keys() - hidden


def test_inserting_and_deleting_every_example_key() -> None:
    """156 keys of all depths from nothing to a tree and back to nothing."""
    wanted = [key.encode() for key in read_lines("mst/example_keys.txt")]
    tree: Slot = None
    for count, key in enumerate(wanted, 1):
        tree = mst.insert(tree, key, VALUE)
        if count % 13 == 0:
            assert mst.root_cid(tree) == build(dict.fromkeys(wanted[:count], VALUE)).root
    for key in sorted(wanted, key=lambda key: key[::-1]):
        tree = mst.delete(tree, key)
    assert mst.root_cid(tree) == EMPTY_TREE


def test_the_empty_tree_needs_no_block() -> None:
    """Its CID says all."""
    assert mst.load({}, EMPTY_TREE) is None
    with pytest.raises(MissingBlock):
        mst.load({}, VALUE)


# Keys of the depth that their digit says (tests/vectors/mst).
A0, A1, A2, B0, C0, C1, D0 = (
    key.encode() for key in ("A0/374913", "A1/076595", "A2/827942", "B0/601692", "C0/451630", "C1/438573", "D0/952776")
)


class Forge:
    """Nodes put together by hand, in any shape."""

    def __init__(self) -> None:
        self.blocks: dict[bytes, bytes] = {}

    def node(self, left: bytes | None, *entries: tuple[bytes, bytes | None]) -> bytes:
        """A node with whole keys, properly compressed; gives its CID."""
        written: list[CborValue] = []
        previous = b""
        for key, right in entries:
            shared = max(n for n in range(len(previous) + 1) if key[:n] == previous[:n])
            child = None if right is None else Link(right)
            written.append({"k": key[shared:], "p": shared, "t": child, "v": Link(VALUE)})
            previous = key
        block = encode({"e": written, "l": None if left is None else Link(left)})
        self.blocks[dag_cbor_cid(block)] = block
        return dag_cbor_cid(block)

    def is_accepted(self, root: bytes) -> bool:
        """Whether the tree loads; only InvalidTree may say that it doesn't."""
        try:
            mst.load(self.blocks, root)
        except InvalidTree:
            return False
        return True


def test_malformed_trees() -> None:
    """Nodes that are well-formed by themselves in a shape that no set of keys demands."""
    forge = Forge()
    node = forge.node
    empty = node(None)
    good = [
        node(node(None, (A0, None)), (A1, node(None, (B0, None)))),
        node(node(node(None, (A0, None))), (A2, None)),
        node(cid_of_number(5), (A2, cid_of_number(6))),
    ]
    bad = {
        "key-less root": node(node(None, (A0, None))),
        "empty root in other clothes": node(empty),
        "empty node below": node(empty, (A1, None)),
        "empty node at the end of a chain": node(node(empty), (A2, None)),
        "keys out of order": node(None, (B0, None), (A0, None)),
        "same key twice": node(None, (A0, None), (A0, None)),
        "keys of two depths": node(None, (A0, None), (C1, None)),
        "deeper key below": node(node(None, (A1, None)), (C1, None)),
        "layer left out": node(node(None, (A0, None)), (A2, None)),
        "layer too many": node(node(node(None, (A0, None))), (C1, None)),
        "subtree below layer 0": node(node(None, (A0, None)), (B0, None)),
        "absent subtree below layer 0": node(cid_of_number(5), (B0, None)),
        "left subtree too far right": node(node(None, (D0, None)), (C1, None)),
        "right subtree too far left": node(None, (C1, node(None, (B0, None)))),
        "subtree reaches over its parent's key": node(node(None, (A0, None), (D0, None)), (C1, None)),
        "order broken through a key-less node": node(node(node(None, (D0, None))), (A2, None)),
        "node twice": node(node(None, (A0, None)), (A1, node(None, (A0, None)))),
        "key-less chain twice": node(node(cid_of_number(5)), (A2, node(cid_of_number(5)))),
        "a record as subtree": node(dag_cbor_cid(encode({"text": "x"})), (A1, None)),
        "itself as a record": node(None, (A1, dag_cbor_cid(encode({})))),
    }
    for block in (encode({"text": "x"}), encode({})):
        forge.blocks[dag_cbor_cid(block)] = block
    assert all(map(forge.is_accepted, good))
    assert [name for name, root in bad.items() if forge.is_accepted(root)] == []


def test_what_hangs_on_an_absent_node_is_not_guessed() -> None:
    """Undoing the only key of the top layer over an absent subtree: its layer can't be told."""
    forge = Forge()
    loaded = mst.load(forge.blocks, forge.node(cid_of_number(5), (A2, None)))
    with pytest.raises(MissingNeighbour):
        mst.root_cid(mst.delete(loaded, A2))
