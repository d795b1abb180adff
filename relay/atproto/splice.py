"""The fast inversion: a commit's operations undone on the bytes of its tree's nodes. Pure.

Owns the road of measurements.md 2.1, whose steps are numbered here as there. True only for what `inversion.check` would
accept, proven in the same order: the operations fit together, every visible node has the shape that its keys demand,
every operation's outcome is in the tree, and the tree with the operations undone is `prevData`. Refuses nothing: False
means "not proven: ask the general one", be it odd or wrong.
Source: measurements.md 2.1; protocol.md 4.4, 4.7.

Edits cut and join the bytes of entries (`splice_node.py`). Only an entry that gets another left neighbour in its node
is written anew, because its prefix may change.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final, TypeAlias

from relay.atproto.canonical import CID_PREFIX, LINK_PREFIX, STRING_BYTES_MAX
from relay.atproto.events import RepoOp
from relay.atproto.mst_node import common_prefix_length, depth
from relay.atproto.splice_node import (
    DIGEST_AT,
    NULL,
    Node,
    UnprovenError,
    block_of,
    entry,
    prefix_at,
    proven,
    run,
    value_at,
    with_slot,
    with_value,
)

RECORD_BYTES_MAX: Final = 1_000_000

_CID_BYTES = 36
_EMPTY_TREE = sha256(bytes.fromhex("a2616580616cf6")).digest()
# Keys are ASCII and not empty.
_BELOW_ALL = b""
_ABOVE_ALL = b"\xff"

_Path: TypeAlias = list[tuple[Node, int]]


def proves(blocks: Mapping[bytes, bytes], data: bytes, prev_data: bytes | None, ops: Sequence[RepoOp]) -> bool:
    """Whether `ops` are proven to lead from the tree `prev_data` to the tree `data` (binary CIDs).

    `blocks` maps digests (32 bytes) to blocks that hash to them (`canonical.car_blocks`).
    """
    if prev_data is None:
        return False
    if not ops:
        return data == prev_data
    if not _outcomes_fit(blocks, ops) or data[:4] != CID_PREFIX or prev_data[:4] != CID_PREFIX:
        return False
    try:
        tree = _Tree(blocks, data[4:])
        for op in ops if len(ops) == 1 else sorted(ops, key=_undo_order):
            tree.undo(op)
    except UnprovenError:
        return False
    return tree.digest() == prev_data[4:]


def _outcomes_fit(blocks: Mapping[bytes, bytes], ops: Sequence[RepoOp]) -> bool:
    """Distinct paths, CIDs that fit the actions, and every written record at hand and within its limit."""
    if len(ops) > 1 and len({op.path for op in ops}) != len(ops):
        return False
    for action, path, cid, prev in ops:
        if cid is None:
            fits = action == "delete" and prev is not None
        else:
            fits = action == "create" if prev is None else action == "update" and cid != prev
            record = blocks.get(cid[4:])
            if record is None or len(record) > RECORD_BYTES_MAX or cid[:4] != CID_PREFIX:
                return False
        if not fits or (prev is not None and (prev[:4] != CID_PREFIX or len(prev) != _CID_BYTES)):
            return False
        if not path.isascii() or len(path) > STRING_BYTES_MAX:
            return False
    return True


def _undo_order(op: RepoOp) -> tuple[bool, str]:
    """Step 9. That every path is checked against a tree in which others are undone already changes nothing: paths are
    distinct."""
    return op.action != "delete", op.path


class _Tree:
    """A tree being edited: `root` is a slot, `layer` that of the root node (0 for the empty tree)."""

    __slots__ = ("_made", "_nodes", "layer", "root")

    def __init__(self, blocks: Mapping[bytes, bytes], digest: bytes) -> None:
        self._nodes: dict[bytes, Node] = {}
        self._made: dict[bytes, bytes] = {}
        self.layer = 0
        self.root = NULL
        if digest != _EMPTY_TREE:
            self._load(blocks, digest)
            self.layer = self._nodes[digest].layer
            self.root = LINK_PREFIX + digest

    def digest(self) -> bytes:
        """The digest of the root node."""
        return _EMPTY_TREE if self.root == NULL else self.root[DIGEST_AT:]

    def undo(self, op: RepoOp) -> None:
        """Take the tree to where it was before the operation."""
        key = op.path.encode()
        if op.cid is None:
            assert op.prev is not None
            self._insert(key, op.prev[4:])
            return
        path, node, index = self._find(key)
        if value_at(node, index) != op.cid[4:]:
            raise UnprovenError
        if op.prev is None:
            self._remove(path, node, index)
        else:
            # Step 5.
            self._climb(path, self._keep(with_value(node, index, op.prev[4:])))

    def _load(self, blocks: Mapping[bytes, bytes], root: bytes) -> None:
        """Steps 1 and 2, for every visible node and not for those on the way alone: a malformed neighbour that the
        inversion doesn't need is refused by the general road too."""
        nodes = self._nodes
        if root not in blocks:
            raise UnprovenError
        pending: list[tuple[bytes, int | None, bytes, bytes]] = [(root, None, _BELOW_ALL, _ABOVE_ALL)]
        while pending:
            digest, expected, low, high = pending.pop()
            if digest in nodes:
                raise UnprovenError
            nodes[digest] = node = proven(blocks[digest], expected)
            _, layer, keys, slots = node
            if keys and (keys[0] <= low or keys[-1] >= high):
                raise UnprovenError
            if layer:
                bounds = (low, *keys, high)
                for index, slot in enumerate(slots):
                    if slot != NULL and slot[DIGEST_AT:] in blocks:
                        pending.append((slot[DIGEST_AT:], layer - 1, bounds[index], bounds[index + 1]))

    def _node(self, slot: bytes, layer: int) -> Node:
        """The node that a slot names, as loaded or as made by an earlier step."""
        digest = slot[DIGEST_AT:]
        node = self._nodes.get(digest)
        if node is None:
            block = self._made.get(digest)
            if block is None:
                raise UnprovenError
            node = self._nodes[digest] = proven(block, layer)
        return node

    def _keep(self, block: bytes) -> bytes:
        """The slot that names a node made here."""
        digest = sha256(block).digest()
        self._made[digest] = block
        return LINK_PREFIX + digest

    def _keep_node(self, count: int, entries: bytes, left: bytes) -> bytes:
        """The slot for a node of `count` entries and a leftmost slot: `NULL` if it would be empty."""
        if left == NULL and not count:
            return NULL
        return self._keep(block_of(count, entries, left))

    def _wrap(self, slot: bytes, layers: int) -> bytes:
        """The slot's subtree under so many key-less nodes."""
        for _ in range(layers):
            slot = self._keep_node(0, b"", slot)
        return slot

    def _find(self, key: bytes) -> tuple[_Path, Node, int]:
        """Step 3: the nodes above the key's own with the slots gone through, the key's node, and its index there."""
        path: _Path = []
        node = self._node(self.root, self.layer)
        while True:
            keys = node.keys
            index = bisect_left(keys, key)
            if index < len(keys) and keys[index] == key:
                return path, node, index
            path.append((node, index))
            node = self._node(node.slots[index], node.layer - 1)

    def _remove(self, path: _Path, node: Node, index: int) -> None:
        """Step 4: undo a create."""
        layer, count = node.layer, len(node.keys)
        merged = self._merge(node.slots[index], node.slots[index + 1], layer - 1)
        if count == 1 and not path:
            self._trim(merged, layer - 1)
            return
        left = node.slots[0] if index else merged
        entries = run(node, 0, index, last=merged)
        if index + 1 < count:
            # What the next key shares with the one before the removed key is the shorter of the two prefixes.
            shared = min(prefix_at(node, index), prefix_at(node, index + 1))
            entries += run(node, index + 1, count, shared=shared)
        self._climb(path, self._keep_node(count - 1, entries, left))

    def _merge(self, left: bytes, right: bytes, layer: int) -> bytes:
        """Step 4: two neighbouring subtrees as one; looks into them only where there are two."""
        if left == NULL:
            return right
        if right == NULL:
            return left
        a, b = self._node(left, layer), self._node(right, layer)
        seam = self._merge(a.slots[-1], b.slots[0], layer - 1)
        if not a.keys:
            return self._keep_node(len(b.keys), run(b, 0, len(b.keys)), seam)
        entries = run(a, 0, len(a.keys), last=seam)
        if b.keys:
            entries += run(b, 0, len(b.keys), shared=common_prefix_length(a.keys[-1], b.keys[0]))
        return self._keep_node(len(a.keys) + len(b.keys), entries, a.slots[0])

    def _insert(self, key: bytes, value: bytes) -> None:
        """Step 6: undo a delete."""
        level = depth(key)
        if self.root == NULL:
            self.root, self.layer = self._keep_node(1, entry(b"", key, NULL, value), NULL), level
            return
        if level > self.layer:
            self.root, self.layer = self._wrap(self.root, level - self.layer), level
        path: _Path = []
        node = self._node(self.root, self.layer)
        while node.layer > level:
            index = bisect_left(node.keys, key)
            slot = node.slots[index]
            path.append((node, index))
            if slot == NULL:
                leaf = self._keep_node(1, entry(b"", key, NULL, value), NULL)
                self._climb(path, self._wrap(leaf, node.layer - 1 - level))
                return
            node = self._node(slot, node.layer - 1)
        self._climb(path, self._insert_here(node, key, value))

    def _insert_here(self, node: Node, key: bytes, value: bytes) -> bytes:
        """The slot for the node with an entry more."""
        keys, count = node.keys, len(node.keys)
        index = bisect_left(keys, key)
        left, right = self._split(node.slots[index], key, node.layer - 1)
        entries = run(node, 0, index, last=left) + entry(keys[index - 1] if index else b"", key, right, value)
        if index < count:
            if keys[index] == key:
                raise UnprovenError
            entries += run(node, index, count, shared=common_prefix_length(key, keys[index]))
        return self._keep_node(count + 1, entries, node.slots[0] if index else left)

    def _split(self, slot: bytes, key: bytes, layer: int) -> tuple[bytes, bytes]:
        """Step 6: what of a subtree stands left and right of a key that is not in it."""
        if slot == NULL:
            return NULL, NULL
        node = self._node(slot, layer)
        count = len(node.keys)
        index = bisect_left(node.keys, key)
        left, right = self._split(node.slots[index], key, layer - 1)
        return (
            self._keep_node(index, run(node, 0, index, last=left), node.slots[0] if index else left),
            self._keep_node(count - index, run(node, index, count, shared=0), right),
        )

    def _climb(self, path: _Path, slot: bytes) -> None:
        """Step 7: put a slot into the node above, that into the one above it, up to the root."""
        for node, index in reversed(path):
            if slot != NULL or node.keys:
                slot = self._keep(with_slot(node, index, slot))
        self.root = slot

    def _trim(self, slot: bytes, layer: int) -> None:
        """Step 8: the root is the first node on the way down that has keys."""
        while slot != NULL:
            node = self._node(slot, layer)
            if node.keys:
                break
            slot, layer = node.slots[0], layer - 1
        self.root, self.layer = slot, layer
