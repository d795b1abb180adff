"""The inductive check of a commit: its operations, undone on its own tree, give the previous tree. Pure.

Always verifies that the operations agree with each other, with the tree under `data`, and with `prev_data`. Does not
check signatures, nor compare `prev_data` with anything stored. Source: protocol.md 4.7; DESIGN 6.
"""

from collections.abc import Mapping, Sequence

from relay.atproto import mst
from relay.atproto.errors import Contradiction, InvalidTree, MissingBlock
from relay.atproto.events import RepoOp
from relay.atproto.mst_node import EMPTY_TREE, Slot

RECORD_BYTES_MAX = 1_000_000


def check(blocks: Mapping[bytes, bytes], data: bytes, prev_data: bytes | None, ops: Sequence[RepoOp]) -> None:
    """Prove that `ops` lead from the tree `prev_data` (None: the empty tree) to the tree `data`.

    `blocks` maps binary CIDs to blocks that hash to them. Without operations the trees must be the same and no block is
    needed. Raises Contradiction where tree, operations and `prev_data` disagree; MissingBlock where a record, or a node
    between the root and an operation's key, is absent; MissingNeighbour where only some other node is; InvalidTree
    where a visible node is malformed or a record is over its limit.
    """
    previous = EMPTY_TREE if prev_data is None else prev_data
    if not ops:
        if data != previous:
            raise Contradiction("the tree changed without an operation")
        return
    _check_shapes(ops)
    tree: Slot = mst.load(blocks, data)
    for op in ops:
        _check_outcome(blocks, tree, op)
    for op in sorted(ops, key=lambda op: (op.action != "delete", op.path)):
        tree = _undo(tree, op)
    if mst.root_cid(tree) != previous:
        raise Contradiction("the operations, undone, do not give prevData")


def _check_shapes(ops: Sequence[RepoOp]) -> None:
    """Which CIDs an action has, and each path once: the order of operations then means nothing."""
    if len({op.path for op in ops}) != len(ops):
        raise Contradiction("two operations on one path")
    for op in ops:
        match op.action:
            case "create":
                valid = op.cid is not None and op.prev is None
            case "update":
                valid = op.cid is not None and op.prev is not None and op.cid != op.prev
            case "delete":
                valid = op.cid is None and op.prev is not None
            case _:
                valid = False
        if not valid:
            raise Contradiction(f"cid and prev do not fit the action {op.action[:20]!r}")


def _check_outcome(blocks: Mapping[bytes, bytes], tree: Slot, op: RepoOp) -> None:
    """What the operation says of its path is what the new tree says."""
    if mst.get(tree, op.path.encode()) != op.cid:
        raise Contradiction(f"the tree does not hold the outcome of {op.action} {op.path[:80]}")
    if op.cid is None:
        return
    record = blocks.get(op.cid)
    if record is None:
        raise MissingBlock(f"the record of {op.path[:80]} is absent")
    if len(record) > RECORD_BYTES_MAX:
        raise InvalidTree(f"the record of {op.path[:80]} has {len(record)} bytes")


def _undo(tree: Slot, op: RepoOp) -> Slot:
    # That the path holds what the operation left there is known: paths are distinct and all outcomes were checked.
    key = op.path.encode()
    if op.prev is None:
        return mst.delete(tree, key)
    if op.cid is None:
        return mst.insert(tree, key, op.prev)
    return mst.replace(tree, key, op.prev)
