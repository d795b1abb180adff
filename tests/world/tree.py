"""Merkle search trees, persistent and naive: full ones to write with, partial ones to invert. Pure.

Owns the tree of protocol.md 4.4, as immutable nodes whose bytes and CIDs are computed once, so that a commit costs only
the nodes on its way; `build` makes the same tree from sorted keys without any of that, and is the oracle in the tests.
A `Stub` stands for a subtree of which only the CID is known: opening one raises `Missing`.

Functions that open nodes append them to `opened`, from which a producer learns what an inversion needs.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

from tests.world.ipld import Malformed, cid_of, decode, encode, link, unlink

EMPTY_BLOCK = encode({"e": [], "l": None})
EMPTY_CID = cid_of(EMPTY_BLOCK)


class Missing(LookupError):
    """A node had to be opened of which only the CID is known."""


class Stub:
    """A subtree known by its CID alone."""

    def __init__(self, cid: bytes) -> None:
        self.cid = cid


class Node:
    """`keys[i]` has `values[i]`; `children[i]` is left of `keys[i]`, the last one right of all. Immutable.

    A key-less node has one child, which is not None.
    """

    def __init__(
        self, layer: int, keys: Sequence[bytes], values: Sequence[bytes], children: Sequence["Subtree"]
    ) -> None:
        self.layer = layer
        self.keys = tuple(keys)
        self.values = tuple(values)
        self.children = tuple(children)

    @cached_property
    def block(self) -> bytes:
        """The node's DAG-CBOR."""
        entries, previous = [], b""
        for key, value, right in zip(self.keys, self.values, self.children[1:], strict=True):
            shared = common_prefix(previous, key)
            entries.append({"p": shared, "k": key[shared:], "v": link(value), "t": _link_or_none(right)})
            previous = key
        return encode({"l": _link_or_none(self.children[0]), "e": entries})

    @cached_property
    def cid(self) -> bytes:
        return cid_of(self.block)

    @property
    def written(self) -> bool:
        """Whether the bytes were computed: true of every node of a committed tree."""
        return "block" in self.__dict__


Subtree = Node | Stub | None


def _link_or_none(child: Subtree) -> Any:
    return None if child is None else link(child.cid)


def common_prefix(left: bytes, right: bytes) -> int:
    """How many leading bytes are the same."""
    for count, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return count
    return min(len(left), len(right))


def depth(key: bytes) -> int:
    """Leading zero bits of SHA-256, halved."""
    number = int.from_bytes(hashlib.sha256(key).digest(), "big")
    return (256 - number.bit_length()) // 2


def root_cid(tree: Subtree) -> bytes:
    """The CID of a whole tree; the empty one has its own node."""
    return EMPTY_CID if tree is None else tree.cid


def build(items: Sequence[tuple[bytes, bytes]]) -> Node | None:
    """The tree of these (key, value) pairs, sorted by key: the definition, written down."""
    if not items:
        return None
    depths = [depth(key) for key, _ in items]
    return _build(items, depths, max(depths))


def _build(items: Sequence[tuple[bytes, bytes]], depths: Sequence[int], layer: int) -> Node | None:
    if not items:
        return None
    here = [index for index, found in enumerate(depths) if found == layer]
    starts, ends = [0, *(index + 1 for index in here)], [*here, len(items)]
    children = [_build(items[start:end], depths[start:end], layer - 1) for start, end in zip(starts, ends, strict=True)]
    return Node(layer, [items[index][0] for index in here], [items[index][1] for index in here], children)


def _open(node: Node | Stub, opened: list[Node]) -> Node:
    if isinstance(node, Stub):
        raise Missing(f"node {node.cid.hex()} is not here")
    opened.append(node)
    return node


def _node(layer: int, keys: Sequence[bytes], values: Sequence[bytes], children: Sequence[Subtree]) -> Node | None:
    if not keys and children[0] is None:
        return None
    return Node(layer, keys, values, children)


def _lift(tree: Subtree, layer: int, target: int) -> Subtree:
    """Key-less nodes above a subtree of `layer` until one stands at `target`."""
    for level in range(layer + 1, target + 1):
        tree = _node(level, (), (), (tree,))
    return tree


def _split(tree: Subtree, key: bytes, opened: list[Node]) -> tuple[Subtree, Subtree]:
    """What is left and what is right of a key that the subtree does not hold."""
    if tree is None:
        return None, None
    node = _open(tree, opened)
    index = bisect_left(node.keys, key)
    left, right = _split(node.children[index], key, opened)
    return (
        _node(node.layer, node.keys[:index], node.values[:index], (*node.children[:index], left)),
        _node(node.layer, node.keys[index:], node.values[index:], (right, *node.children[index + 1 :])),
    )


def _merge(left: Subtree, right: Subtree, opened: list[Node]) -> Subtree:
    """One subtree of two neighbours at the same layer."""
    if left is None or right is None:
        return left if right is None else right
    a, b = _open(left, opened), _open(right, opened)
    seam = _merge(a.children[-1], b.children[0], opened)
    return Node(a.layer, a.keys + b.keys, a.values + b.values, (*a.children[:-1], seam, *b.children[1:]))


def find(tree: Subtree, key: bytes, opened: list[Node]) -> bytes | None:
    """The key's value, or None where the tree does not hold it."""
    while tree is not None:
        node = _open(tree, opened)
        index = bisect_left(node.keys, key)
        if index < len(node.keys) and node.keys[index] == key:
            return node.values[index]
        tree = node.children[index]
    return None


def insert(tree: Subtree, key: bytes, value: bytes, opened: list[Node]) -> Node:
    """The tree with a key that it did not hold; raises KeyError if it did."""
    level = depth(key)
    if tree is None:
        return Node(level, (key,), (value,), (None, None))
    root = _open(tree, opened)
    if level <= root.layer:
        return _insert(root, key, value, level, opened)
    left, right = _split(root, key, opened)
    halves = _lift(left, root.layer, level - 1), _lift(right, root.layer, level - 1)
    return Node(level, (key,), (value,), halves)


def _insert(node: Node, key: bytes, value: bytes, level: int, opened: list[Node]) -> Node:
    index = bisect_left(node.keys, key)
    if index < len(node.keys) and node.keys[index] == key:
        raise KeyError(key)
    child = node.children[index]
    if level == node.layer:
        left, right = _split(child, key, opened)
        return Node(
            node.layer,
            (*node.keys[:index], key, *node.keys[index:]),
            (*node.values[:index], value, *node.values[index:]),
            (*node.children[:index], left, right, *node.children[index + 1 :]),
        )
    if child is None:
        below = _lift(Node(level, (key,), (value,), (None, None)), level, node.layer - 1)
    else:
        below = _insert(_open(child, opened), key, value, level, opened)
    return Node(node.layer, node.keys, node.values, (*node.children[:index], below, *node.children[index + 1 :]))


def replace(tree: Subtree, key: bytes, value: bytes, opened: list[Node]) -> Node:
    """The tree with another value at a key that it holds; raises KeyError if it does not."""
    if tree is None:
        raise KeyError(key)
    node = _open(tree, opened)
    index = bisect_left(node.keys, key)
    if index < len(node.keys) and node.keys[index] == key:
        values = (*node.values[:index], value, *node.values[index + 1 :])
        return Node(node.layer, node.keys, values, node.children)
    below = replace(node.children[index], key, value, opened)
    return Node(node.layer, node.keys, node.values, (*node.children[:index], below, *node.children[index + 1 :]))


def remove(tree: Subtree, key: bytes, opened: list[Node]) -> Subtree:
    """The tree without a key that it holds; raises KeyError if it does not. The root may be left key-less:
    `trim` the tree when all removals are done."""
    if tree is None:
        raise KeyError(key)
    node = _open(tree, opened)
    index = bisect_left(node.keys, key)
    before, after = node.children[:index], node.children[index + 1 :]
    if index < len(node.keys) and node.keys[index] == key:
        joined = _merge(node.children[index], node.children[index + 1], opened)
        return _node(
            node.layer,
            node.keys[:index] + node.keys[index + 1 :],
            node.values[:index] + node.values[index + 1 :],
            (*before, joined, *after[1:]),
        )
    below = remove(node.children[index], key, opened)
    return _node(node.layer, node.keys, node.values, (*before, below, *after))


def trim(tree: Subtree, opened: list[Node]) -> Subtree:
    """The tree without key-less nodes at its top."""
    while tree is not None:
        node = _open(tree, opened)
        if node.keys:
            return node
        tree = node.children[0]
    return None


def predecessor(tree: Subtree, key: bytes) -> bytes | None:
    """The greatest key below `key`."""
    if tree is None:
        return None
    node = _open(tree, [])
    index = bisect_left(node.keys, key)
    return predecessor(node.children[index], key) or (node.keys[index - 1] if index else None)


def successor(tree: Subtree, key: bytes) -> bytes | None:
    """The least key above `key`."""
    if tree is None:
        return None
    node = _open(tree, [])
    index = bisect_right(node.keys, key)
    return successor(node.children[index], key) or (node.keys[index] if index < len(node.keys) else None)


def nodes(tree: Subtree, *, unwritten: bool = False) -> Iterator[Node]:
    """The nodes in pre-order, stubs left out; with `unwritten` only those made since the last commit."""
    if isinstance(tree, Node) and not (unwritten and tree.written):
        yield tree
        for child in tree.children:
            yield from nodes(child, unwritten=unwritten)


def items(tree: Subtree) -> Iterator[tuple[bytes, bytes]]:
    """The visible (key, value) pairs in order."""
    if isinstance(tree, Node):
        for index, key in enumerate(tree.keys):
            yield from items(tree.children[index])
            yield key, tree.values[index]
        yield from items(tree.children[-1])


def load(blocks: Mapping[bytes, bytes], root: bytes) -> Subtree:
    """The visible tree under a root CID; raises Malformed where a node breaks a rule of its shape.

    Nodes absent from `blocks` become stubs, the root too.
    """
    if root == EMPTY_CID:
        return None
    tree = _load(blocks, root, None, b"", None)
    if isinstance(tree, Node) and not tree.keys:
        raise Malformed("the root has no keys")
    return tree


def _load(blocks: Mapping[bytes, bytes], cid: bytes, layer: int | None, low: bytes, high: bytes | None) -> Node | Stub:
    if cid not in blocks:
        return Stub(cid)
    value = decode(blocks[cid])
    keys: list[bytes] = []
    for entry in value["e"]:
        keys.append((keys[-1] if keys else b"")[: entry["p"]] + entry["k"])
    links = [value["l"], *(entry["t"] for entry in value["e"])]
    if layer is None:
        layer = depth(keys[0]) if keys else None
    bounds: list[bytes | None] = [low, *keys, high]
    if layer is None or any(depth(key) != layer for key in keys):
        raise Malformed("a key stands at a wrong layer")
    if any(a is None or (b is not None and a >= b) for a, b in pairwise(bounds)):
        raise Malformed("keys are out of order")
    if layer == 0 and any(links):
        raise Malformed("a subtree under layer 0")
    if not keys and not links[0]:
        raise Malformed("a node without keys and child")
    children = [
        None if linked is None else _load(blocks, unlink(linked), layer - 1, start or b"", end)
        for linked, start, end in zip(links, bounds, bounds[1:], strict=False)
    ]
    node = Node(layer, keys, [unlink(entry["v"]) for entry in value["e"]], children)
    if node.block != blocks[cid]:
        raise Malformed("a node is not in its only form")
    return node
