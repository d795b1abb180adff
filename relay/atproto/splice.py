"""The fast inversion: a commit's operations undone on the bytes of its tree's nodes. Pure.

Owns the road of measurements.md 2.1, whose steps are numbered here as there. It answers True only for what
`inversion.check` would accept, and proves it in the same order: operations fit together, every visible node has the
shape its keys demand, every operation's outcome is in the tree, and the tree with the operations undone is `prevData`.
It refuses nothing: False means "not proven: ask the general one", be it odd or wrong.

A slot is what stands in a node for a subtree: `NULL`, or `LINK_PREFIX` and a digest. Edits cut and join the bytes of
entries; only an entry whose left neighbour changed is written anew, because its prefix may have.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from hashlib import sha256
from os.path import commonprefix
from re import Match
from typing import Final, NamedTuple

from relay.atproto.canonical import (
    ARRAY_HEAD,
    BYTES_HEAD,
    CID_PREFIX,
    LINK_PREFIX,
    NULL,
    STRING_BYTES_MAX,
    UINT,
    tree_node,
)
from relay.atproto.events import RepoOp

RECORD_BYTES_MAX: Final = 1_000_000

_CID_BYTES = 36
_DIGEST_AT = len(LINK_PREFIX)
_EMPTY_TREE = sha256(bytes.fromhex("a2616580616cf6")).digest()
# A key belongs to `layer` if its SHA-256 is within these, ends included: 2 * layer leading zero bits, and not 2 more.
_LEAST = tuple((1 << 256 >> 2 * layer + 2).to_bytes(32, "big") for layer in range(129))
_GREATEST = tuple(((1 << 256 >> 2 * layer) - 1).to_bytes(32, "big") for layer in range(129))
# Keys are ASCII and not empty.
_BELOW_ALL = b""
_ABOVE_ALL = b"\xff"


class _UnprovenError(Exception):
    """The fast road ends here."""


class _Node(NamedTuple):
    """`match` is the full match of `canonical.tree_node`; slot i stands left of `keys[i]`, the last right of all."""

    match: Match[bytes]
    keys: list[bytes]
    layer: int


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
    except _UnprovenError:
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
        self._nodes: dict[bytes, _Node] = {}
        self._made: dict[bytes, bytes] = {}
        self.layer = 0
        self.root = NULL
        if digest != _EMPTY_TREE:
            self._load(blocks, digest)
            self.layer = self._nodes[digest].layer
            self.root = LINK_PREFIX + digest

    def digest(self) -> bytes:
        """The digest of the root node."""
        return _EMPTY_TREE if self.root == NULL else self.root[_DIGEST_AT:]

    def undo(self, op: RepoOp) -> None:
        """Take the tree to where it was before the operation."""
        key = op.path.encode()
        if op.cid is None:
            assert op.prev is not None
            self._insert(key, op.prev[4:])
            return
        path, node, index = self._find(key)
        if node.match[5 * index + 5] != op.cid[4:]:
            raise _UnprovenError
        if op.prev is None:
            self._remove(path, node, index)
        else:
            start, end = node.match.span(5 * index + 5)
            block = node.match.string
            self._climb(path, self._keep(block[:start] + op.prev[4:] + block[end:]), node.layer)

    def _load(self, blocks: Mapping[bytes, bytes], root: bytes) -> None:
        """Steps 1 and 2, for every visible node and not for those on the way alone: a malformed neighbour that the
        inversion doesn't need is refused by the general road too."""
        nodes = self._nodes
        pending = [(root, -1, _BELOW_ALL, _ABOVE_ALL)]
        while pending:
            digest, layer, low, high = pending.pop()
            block = blocks.get(digest)
            match = None if block is None else tree_node(block)
            if match is None or digest in nodes:
                raise _UnprovenError
            fields = match.groups()
            if layer < 0:
                layer = _root_layer(fields)
            keys = _keys(fields, layer)
            if keys:
                if not low < keys[0] or not keys[-1] < high:
                    raise _UnprovenError
            elif fields[-1] == NULL:
                raise _UnprovenError
            nodes[digest] = _Node(match, keys, layer)
            if layer == 0:
                # No group but a slot can be equal to NULL.
                if fields.count(NULL) != len(keys) + 1:
                    raise _UnprovenError
                continue
            for slot, key in zip((fields[-1], *fields[3::5]), (*keys, high), strict=True):
                if slot != NULL and (child := slot[_DIGEST_AT:]) in blocks:
                    pending.append((child, layer - 1, low, key))
                low = key

    def _node(self, slot: bytes, layer: int) -> _Node:
        """The node that a slot names, as loaded or as made by an earlier step."""
        digest = slot[_DIGEST_AT:]
        node = self._nodes.get(digest)
        if node is None:
            block = self._made.get(digest)
            match = None if block is None else tree_node(block)
            if match is None:
                raise _UnprovenError
            node = self._nodes[digest] = _Node(match, _keys(match.groups(), layer), layer)
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
        return self._keep(b"\xa2ae" + ARRAY_HEAD[count] + entries + b"al" + left)

    def _wrap(self, slot: bytes, layers: int) -> bytes:
        """The slot's subtree under so many key-less nodes."""
        for _ in range(layers):
            slot = self._keep_node(0, b"", slot)
        return slot

    def _find(self, key: bytes) -> tuple[_Path, _Node, int]:
        """Step 3: the nodes above the key's own with the slots gone through, the key's node, and its index there."""
        path: _Path = []
        node = self._node(self.root, self.layer)
        while True:
            keys = node.keys
            index = bisect_left(keys, key)
            if index < len(keys) and keys[index] == key:
                return path, node, index
            path.append((node, index))
            node = self._node(_slot(node, index), node.layer - 1)

    def _remove(self, path: _Path, node: _Node, index: int) -> None:
        """Step 4: undo a create."""
        layer, count = node.layer, len(node.keys)
        merged = self._merge(_slot(node, index), _slot(node, index + 1), layer - 1)
        if count == 1 and not path:
            self._trim(merged, layer - 1)
            return
        left = _slot(node, 0) if index else merged
        # What the entry shared with the one before it is all that the next one can share with that.
        shared = min(_shared(node, index), _shared(node, index + 1)) if index + 1 < count else 0
        entries = _run(node, 0, index, last=merged) + _run(node, index + 1, count, shared=shared)
        self._climb(path, self._keep_node(count - 1, entries, left), layer)

    def _merge(self, left: bytes, right: bytes, layer: int) -> bytes:
        """Step 4: two neighbouring subtrees as one; looks into them only where there are two."""
        if left == NULL:
            return right
        if right == NULL:
            return left
        a, b = self._node(left, layer), self._node(right, layer)
        seam = self._merge(_slot(a, len(a.keys)), _slot(b, 0), layer - 1)
        if not a.keys:
            return self._keep_node(len(b.keys), _run(b, 0, len(b.keys)), seam)
        entries = _run(a, 0, len(a.keys), last=seam)
        if b.keys:
            entries += _run(b, 0, len(b.keys), shared=common_prefix_length(a.keys[-1], b.keys[0]))
        return self._keep_node(len(a.keys) + len(b.keys), entries, _slot(a, 0))

    def _insert(self, key: bytes, value: bytes) -> None:
        """Step 6: undo a delete."""
        level = depth(key)
        if self.root == NULL:
            self.root, self.layer = self._keep_node(1, _entry(b"", key, NULL, value), NULL), level
            return
        if level > self.layer:
            left, right = self._split(self.root, key, self.layer)
            left, right = self._wrap_half(left, level)
            ...
