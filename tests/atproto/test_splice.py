"""The fast inversion on known commits. It is held against the general one in tests/property/test_fast_road.py."""

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import pytest

from relay.atproto import inversion, splice
from relay.atproto.cid import RAW_PREFIX, dag_cbor_cid
from relay.atproto.errors import InvalidData
from relay.atproto.events import RepoOp
from relay.atproto.mst_node import EMPTY_TREE, Node, Stub, depth, encode_node, parse_node
from tests.atproto.naive_tree import build
from tests.atproto.test_inversion import PROOFS, ProofVector


def _digests(blocks: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return {cid[4:]: block for cid, block in blocks.items()}


@pytest.mark.parametrize("case", PROOFS, ids=lambda case: case["comment"])
def test_proof_vectors(case: dict[str, Any]) -> None:
    """Proven in every permutation of the operations."""
    vector = ProofVector(case)
    for ops in permutations(vector.ops):
        assert splice.proves(_digests(vector.blocks), vector.after.root, vector.before.root, ops)


@pytest.mark.parametrize("case", PROOFS, ids=lambda case: case["comment"])
def test_proof_vectors_with_a_block_withheld(case: dict[str, Any]) -> None:
    """Proven if and only if the general road accepts."""
    vector = ProofVector(case)
    for gone in vector.proof:
        blocks = {cid: block for cid, block in vector.blocks.items() if cid != gone}
        try:
            inversion.check(blocks, vector.after.root, vector.before.root, vector.ops)
            accepted = True
        except InvalidData:
            accepted = False
        assert splice.proves(_digests(blocks), vector.after.root, vector.before.root, vector.ops) == accepted


RECORD, OTHER = b"\xa1ax\x01", b"\xa1ax\x02"
CID, OLD = dag_cbor_cid(RECORD), dag_cbor_cid(OTHER)
ONE = build({b"a.b.c/1": CID})
BLOCKS = _digests(ONE.blocks | {CID: RECORD})
CREATE = RepoOp("create", "a.b.c/1", CID, None)


def test_first_and_last_record() -> None:
    """To the empty tree and back; its node needs no block."""
    assert splice.proves(BLOCKS, ONE.root, EMPTY_TREE, [CREATE])
    assert splice.proves({}, EMPTY_TREE, ONE.root, [RepoOp("delete", "a.b.c/1", None, CID)])


def test_no_operations() -> None:
    """The same root, and no block is needed."""
    assert splice.proves({}, ONE.root, ONE.root, [])
    assert not splice.proves(BLOCKS, ONE.root, EMPTY_TREE, [])


def test_no_previous_tree() -> None:
    """Left to the general road."""
    assert not splice.proves(BLOCKS, ONE.root, None, [CREATE])


UPDATED = build({b"a.b.c/1": OLD})
WRONG = {
    "other cid": [CREATE._replace(cid=OLD)],
    "cid of another codec": [CREATE._replace(cid=RAW_PREFIX + CID[4:])],
    "cid cut short": [CREATE._replace(cid=CID[:-1])],
    "no cid": [CREATE._replace(cid=None)],
    "create with prev": [CREATE._replace(prev=OLD)],
    "update without prev": [CREATE._replace(action="update")],
    "delete of what is there": [RepoOp("delete", "a.b.c/1", None, OLD)],
    "other action": [CREATE._replace(action="upsert")],
    "other path": [CREATE._replace(path="a.b.c/2")],
    "path beyond ASCII": [CREATE._replace(path="a.b.c/é")],
    "path that is not UTF-8": [CREATE._replace(path="a.b.c/\udc80")],
    "long path": [CREATE._replace(path="a.b.c/" + "1" * 250)],
    "twice": [CREATE, CREATE],
    "one too many": [CREATE, RepoOp("delete", "a.b.c/2", None, OLD)],
}


@pytest.mark.parametrize("ops", WRONG.values(), ids=WRONG.keys())
def test_wrong_operations(ops: list[RepoOp]) -> None:
    """One thing wrong with the operations that lead from the empty tree to one record."""
    assert not splice.proves(BLOCKS | {OLD[4:]: OTHER}, ONE.root, EMPTY_TREE, ops)


UPDATE = RepoOp("update", "a.b.c/1", CID, OLD)
THIRD = dag_cbor_cid(b"third")


def test_update() -> None:
    """The value goes back; a `prev` that was not there does not."""
    assert splice.proves(BLOCKS, ONE.root, UPDATED.root, [UPDATE])
    assert not splice.proves(BLOCKS, ONE.root, UPDATED.root, [UPDATE._replace(prev=THIRD)])
    assert not splice.proves(BLOCKS, ONE.root, UPDATED.root, [UPDATE._replace(prev=RAW_PREFIX + OLD[4:])])


# What the bytes would bear out, but the rules for operations forbid: operations, and the tree they would lead back to.
FORBIDDEN = {
    "update of nothing": ([UPDATE._replace(prev=CID)], ONE.root),
    "two updates": ([UPDATE, UPDATE._replace(cid=OLD, prev=THIRD)], build({b"a.b.c/1": THIRD}).root),
    "delete called update": ([RepoOp("update", "a.b.c/2", None, OLD)], build({b"a.b.c/1": CID, b"a.b.c/2": OLD}).root),
    "create called delete": ([CREATE._replace(action="delete")], EMPTY_TREE),
    "update called create": ([UPDATE._replace(action="create")], UPDATED.root),
    "delete of what is there": (
        [RepoOp("delete", "a.b.c/1", None, OLD)],
        dag_cbor_cid(encode_node(Node(0, (b"a.b.c/1",) * 2, (OLD, CID), (None, None, None)))),
    ),
}


@pytest.mark.parametrize(("ops", "prev_data"), FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_forbidden_operations(ops: list[RepoOp], prev_data: bytes) -> None:
    """Refused by the general road, not proven by this one."""
    blocks = ONE.blocks | {CID: RECORD, OLD: OTHER}
    with pytest.raises(InvalidData):
        inversion.check(blocks, ONE.root, prev_data, ops)
    assert not splice.proves(_digests(blocks), ONE.root, prev_data, ops)


KEYS = {layer: [key for key in (b"a.b.c/%d" % n for n in range(100, 999)) if depth(key) == layer] for layer in range(4)}


class Grown:
    """Nodes as they are told to be, malformed or not."""

    def __init__(self) -> None:
        self.blocks = {CID: RECORD}

    def node(self, keys: Sequence[bytes], *children: Stub | None) -> Stub:
        """A node with these keys and children, one more than keys."""
        block = encode_node(Node(0, tuple(keys), (CID,) * len(keys), children))
        self.blocks[dag_cbor_cid(block)] = block
        return Stub(dag_cbor_cid(block))

    def accepted(self, root: Stub) -> tuple[bool, bool]:
        """Whether the fast and the general road accept an update of the root's first key: with the path complete, only
        the shape of the visible tree can speak against it."""
        key = parse_node(self.blocks[root.cid]).keys[0]
        before = dag_cbor_cid(self.blocks[root.cid].replace(CID, OLD, 1))
        ops = [RepoOp("update", key.decode(), CID, OLD)]
        try:
            inversion.check(self.blocks, root.cid, before, ops)
            general = True
        except InvalidData:
            general = False
        return splice.proves(_digests(self.blocks), root.cid, before, ops), general


ABSENT = Stub(dag_cbor_cid(b"absent"))
LOW, HIGH = KEYS[0][0], KEYS[0][-1]
ROOT_1, ROOT_2 = KEYS[1][len(KEYS[1]) // 2], KEYS[2][len(KEYS[2]) // 2]
SHAPES: dict[str, tuple[bool, Callable[[Grown], Stub]]] = {
    "one key": (True, lambda grown: grown.node([ROOT_1], None, None)),
    "two leaves": (
        True,
        lambda grown: grown.node([ROOT_1], grown.node([LOW], None, None), grown.node([HIGH], None, None)),
    ),
    "leaves on the wrong sides": (
        False,
        lambda grown: grown.node([ROOT_1], grown.node([HIGH], None, None), grown.node([LOW], None, None)),
    ),
    "leaf over the upper bound": (False, lambda grown: grown.node([ROOT_1], grown.node([HIGH], None, None), None)),
    "leaf under the lower bound": (False, lambda grown: grown.node([ROOT_1], None, grown.node([LOW], None, None))),
    "leaf that reaches over the bound": (
        False,
        lambda grown: grown.node([ROOT_1], grown.node([LOW, HIGH], None, None, None), None),
    ),
    "leaf under a bound further up": (
        False,
        lambda grown: grown.node([ROOT_2], None, grown.node([], grown.node([LOW], None, None))),
    ),
    "absent leaf": (True, lambda grown: grown.node([ROOT_1], ABSENT, None)),
    "absent leaf below layer 0": (
        False,
        lambda grown: grown.node([ROOT_1], grown.node([LOW], ABSENT, None), None),
    ),
    "key-less node above an absent one": (
        True,
        lambda grown: grown.node([ROOT_2], grown.node([], ABSENT), None),
    ),
    "key-less node twice": (
        False,
        lambda grown: grown.node([ROOT_2], grown.node([], ABSENT), grown.node([], ABSENT)),
    ),
    "leaf two layers down": (False, lambda grown: grown.node([ROOT_2], grown.node([LOW], None, None), None)),
    "node of the same layer": (False, lambda grown: grown.node([ROOT_1], grown.node(KEYS[1][:1], None, None), None)),
    "key-less node at layer 0": (False, lambda grown: grown.node([ROOT_1], grown.node([], ABSENT), None)),
    "empty node": (False, lambda grown: grown.node([ROOT_2], grown.node([], None), None)),
}


@pytest.mark.parametrize(("proven", "grow"), SHAPES.values(), ids=SHAPES.keys())
def test_shapes(proven: bool, grow: Callable[[Grown], Stub]) -> None:
    """A tree's shape, away from the operation's path: both roads agree."""
    grown = Grown()
    fast, general = grown.accepted(grow(grown))
    assert fast is proven
    assert general is proven


def test_records() -> None:
    """A written record has to be at hand and at most 1,000,000 bytes long."""
    for size, proven in ((1_000_000, True), (1_000_001, False)):
        record = bytes(size)
        tree = build({b"a.b.c/1": dag_cbor_cid(record)})
        ops = [CREATE._replace(cid=dag_cbor_cid(record))]
        blocks = _digests(tree.blocks)
        assert splice.proves(blocks | _digests({dag_cbor_cid(record): record}), tree.root, EMPTY_TREE, ops) is proven
        assert not splice.proves(blocks, tree.root, EMPTY_TREE, ops)
