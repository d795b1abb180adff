"""Merkle search trees of which only a part is at hand: load, get, insert, replace, delete, root CID. Pure.

Owns the shape that a set of keys demands, and proves that every node it loads has it. Does not hash blocks against
their CIDs (`car.py` did). Source: protocol.md 4.4 and the partial-tree mechanics of 4.7. This is the general algorithm,
made to be checked by reading; `splice.py` is the fast one.

Trees are values: an edit gives a new root and shares what it did not touch.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import pairwise

from relay.atproto.errors import InvalidTree, MissingBlock, MissingNeighbour
from relay.atproto.mst_node import EMPTY_TREE, Node, Slot, Stub, cid_of, depth, parse_node


def load(blocks: Mapping[bytes, bytes], root: bytes) -> Node | None:
    """The visible part of the tree under the binary CID `root`; None for the empty tree.

    Always verifies, for every node that `blocks` holds: canonical form, maximal prefix compression, order over the
    whole visible tree, the depth of every key, the layer of every child, no node without keys but on the way to one.
    Raises InvalidTree, or MissingBlock where the root itself is absent.
    """
    if root == EMPTY_TREE:
        return None
    if root not in blocks:
        raise MissingBlock("the tree's root node is absent")
    return _Loader(blocks).load(root, layer=None, lower=None, upper=None)


class _Loader:
    """One walk over the blocks of one tree."""

    def __init__(self, blocks: Mapping[bytes, bytes]) -> None:
        self._blocks = blocks
        self._loaded: set[bytes] = set()

    def load(self, cid: bytes, *, layer: int | None, lower: bytes | None, upper: bytes | None) -> Node:
        """The node under a CID that has a block, with all below it. `layer` is None for the root; its keys must lie
        strictly between `lower` and `upper` (None: no bound)."""
        # Each subtree holds keys of its own, so no node occurs twice. Without this a small CAR could have one chain of
        # key-less nodes read thousands of times.
        if cid in self._loaded:
            raise InvalidTree("a node occurs twice")
        self._loaded.add(cid)
        keys, values, links = parse_node(self._blocks[cid])
        if not keys and (layer is None or links == (None,)):
            raise InvalidTree("a node without keys is the root, or leads to none")
        if layer is None:
            layer = depth(keys[0])
        if any(depth(key) != layer for key in keys):
            raise InvalidTree(f"a key at layer {layer} belongs to another")
        bounds = (lower, *keys, upper)
        if any(a is not None and b is not None and a >= b for a, b in pairwise(bounds)):
            raise InvalidTree("keys out of order")
        children = [self._load_slot(link, layer - 1, *gap) for link, gap in zip(links, pairwise(bounds), strict=True)]
        return Node(layer, keys, values, tuple(children), cid)

    def _load_slot(self, cid: bytes | None, layer: int, lower: bytes | None, upper: bytes | None) -> Slot:
        if cid is None:
            return None
        if layer < 0:
            raise InvalidTree("a subtree below layer 0")
        if cid not in self._blocks:
            return Stub(cid)
        return self.load(cid, layer=layer, lower=lower, upper=upper)


def get(tree: Slot, key: bytes) -> bytes | None:
    """The value under `key`, None where the tree has no such key. Raises MissingBlock where a node on the way from
    the root to the key's place is absent."""
    level = depth(key)
    node = tree
    while isinstance(node, Node) and node.layer >= level:
        slot = bisect_left(node.keys, key)
        if key in node.keys[slot : slot + 1]:
            return node.values[slot]
        if node.layer == level:
            return None
        node = node.children[slot]
    if isinstance(node, Stub):
        raise MissingBlock(f"a node on the way to {key[:80]!r} is absent")
    return None


def visible(tree: Slot) -> Iterator[bytes | None]:
    """Keys in order, and None for each gap (a subtree whose block is absent)."""
    if isinstance(tree, Stub):
        yield None
    elif tree is not None:
        for child, key in zip(tree.children, tree.keys, strict=False):
            yield from visible(child)
            yield key
        yield from visible(tree.children[-1])


# Edits. Each raises MissingNeighbour where it would have to look into a stub.


def insert(tree: Slot, key: bytes, value: bytes) -> Node:
    """The tree with a key that it does not have yet."""
    level = depth(key)
    if tree is None:
        return _leaf(level, key, value)
    return _insert(_wrap(_look_into(tree), level), level, key, value)


def replace(tree: Slot, key: bytes, value: bytes) -> Node:
    """The tree with another value under a key that it has."""
    node = _look_into(tree)
    slot = bisect_left(node.keys, key)
    if key in node.keys[slot : slot + 1]:
        values = (*node.values[:slot], value, *node.values[slot + 1 :])
        return Node(node.layer, node.keys, values, node.children)
    return _with_child(node, slot, replace(node.children[slot], key, value))


def delete(tree: Slot, key: bytes) -> Slot:
    """The tree without a key that it has; its root may be left without keys (see `root_cid`)."""
    node = _look_into(tree)
    slot = bisect_left(node.keys, key)
    if key in node.keys[slot : slot + 1]:
        merged = _merge(node.children[slot], node.children[slot + 1])
        return _node_unless_empty(
            node.layer,
            (*node.keys[:slot], *node.keys[slot + 1 :]),
            (*node.values[:slot], *node.values[slot + 1 :]),
            (*node.children[:slot], merged, *node.children[slot + 2 :]),
        )
    child = delete(node.children[slot], key)
    children = (*node.children[:slot], child, *node.children[slot + 1 :])
    return _node_unless_empty(node.layer, node.keys, node.values, children)


def root_cid(tree: Slot) -> bytes:
    """The binary CID of the whole tree, after taking off roots without keys.

    Raises MissingNeighbour where that ends at a stub: whether a stub has keys of its own can't be told.
    """
    while isinstance(tree, Node) and not tree.keys:
        tree = tree.children[0]
    if isinstance(tree, Stub):
        raise MissingNeighbour("the node that would be the root is absent")
    return EMPTY_TREE if tree is None else cid_of(tree)


def _look_into(tree: Slot) -> Node:
    if isinstance(tree, Stub):
        raise MissingNeighbour("a neighbouring node that the edit needs is absent")
    assert tree is not None
    return tree


def _leaf(layer: int, key: bytes, value: bytes) -> Node:
    return Node(layer, (key,), (value,), (None, None))


def _wrap(node: Node, layer: int) -> Node:
    """The node under as many key-less ones as bring it up to `layer`."""
    while node.layer < layer:
        node = Node(node.layer + 1, (), (), (node,))
    return node


def _with_child(node: Node, slot: int, child: Node) -> Node:
    return Node(node.layer, node.keys, node.values, (*node.children[:slot], child, *node.children[slot + 1 :]))


def _node_unless_empty(
    layer: int, keys: tuple[bytes, ...], values: tuple[bytes, ...], children: tuple[Slot, ...]
) -> Node | None:
    return Node(layer, keys, values, children) if keys or children[0] is not None else None


def _insert(node: Node, level: int, key: bytes, value: bytes) -> Node:
    slot = bisect_left(node.keys, key)
    child = node.children[slot]
    if node.layer == level:
        left, right = _split(child, key)
        return Node(
            level,
            (*node.keys[:slot], key, *node.keys[slot:]),
            (*node.values[:slot], value, *node.values[slot:]),
            (*node.children[:slot], left, right, *node.children[slot + 1 :]),
        )
    if child is None:
        return _with_child(node, slot, _wrap(_leaf(level, key, value), node.layer - 1))
    return _with_child(node, slot, _insert(_look_into(child), level, key, value))


def _split(tree: Slot, key: bytes) -> tuple[Node | None, Node | None]:
    """What of a subtree stands left and right of a key that it does not hold."""
    if tree is None:
        return None, None
    node = _look_into(tree)
    slot = bisect_left(node.keys, key)
    left, right = _split(node.children[slot], key)
    return (
        _node_unless_empty(node.layer, node.keys[:slot], node.values[:slot], (*node.children[:slot], left)),
        _node_unless_empty(node.layer, node.keys[slot:], node.values[slot:], (right, *node.children[slot + 1 :])),
    )


def _merge(left: Slot, right: Slot) -> Slot:
    """Two neighbouring subtrees of one layer, with nothing between them, as one."""
    if left is None or right is None:
        return right if left is None else left
    left, right = _look_into(left), _look_into(right)
    seam = _merge(left.children[-1], right.children[0])
    return Node(
        left.layer,
        left.keys + right.keys,
        left.values + right.values,
        (*left.children[:-1], seam, *right.children[1:]),
    )
