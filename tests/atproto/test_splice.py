"""The fast inversion on known commits. It is held against the general one in tests/property/test_fast_road.py."""

from itertools import permutations
from typing import Any

import pytest

from relay.atproto import inversion, splice
from relay.atproto.cid import RAW_PREFIX, dag_cbor_cid
from relay.atproto.errors import InvalidData
from relay.atproto.events import RepoOp
from relay.atproto.mst_node import EMPTY_TREE
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
UNPROVEN = {
    "other cid": [CREATE._replace(cid=OLD)],
    "cid of another codec": [CREATE._replace(cid=RAW_PREFIX + CID[4:])],
    "cid cut short": [CREATE._replace(cid=CID[:-1])],
    "no cid": [CREATE._replace(cid=None)],
    "create with prev": [CREATE._replace(prev=OLD)],
    "update without prev": [CREATE._replace(action="update")],
    "update of nothing": [RepoOp("update", "a.b.c/1", CID, CID)],
    "delete with cid": [RepoOp("delete", "a.b.c/1", CID, OLD)],
    "delete without prev": [RepoOp("delete", "a.b.c/1", None, None)],
    "delete of what is there": [RepoOp("delete", "a.b.c/1", None, OLD)],
    "other action": [CREATE._replace(action="upsert")],
    "other path": [CREATE._replace(path="a.b.c/2")],
    "path beyond ASCII": [CREATE._replace(path="a.b.c/é")],
    "path that is not UTF-8": [CREATE._replace(path="a.b.c/\udc80")],
    "long path": [CREATE._replace(path="a.b.c/" + "1" * 250)],
    "twice": [CREATE, CREATE],
    "one too many": [CREATE, RepoOp("delete", "a.b.c/2", None, OLD)],
}


@pytest.mark.parametrize("ops", UNPROVEN.values(), ids=UNPROVEN.keys())
def test_other_operations(ops: list[RepoOp]) -> None:
    """One thing wrong with the operations that lead from the empty tree to one record."""
    assert not splice.proves(BLOCKS | {OLD[4:]: OTHER}, ONE.root, EMPTY_TREE, ops)


def test_update() -> None:
    """The value goes back; a `prev` that was not there does not."""
    update = RepoOp("update", "a.b.c/1", CID, OLD)
    assert splice.proves(BLOCKS, ONE.root, UPDATED.root, [update])
    assert not splice.proves(BLOCKS, ONE.root, UPDATED.root, [update._replace(prev=dag_cbor_cid(b"else"))])
    assert not splice.proves(BLOCKS, ONE.root, UPDATED.root, [update._replace(prev=RAW_PREFIX + OLD[4:])])


def test_records() -> None:
    """A written record has to be at hand and at most 1,000,000 bytes long."""
    for size, proven in ((1_000_000, True), (1_000_001, False)):
        record = bytes(size)
        tree = build({b"a.b.c/1": dag_cbor_cid(record)})
        ops = [CREATE._replace(cid=dag_cbor_cid(record))]
        blocks = _digests(tree.blocks)
        assert splice.proves(blocks | _digests({dag_cbor_cid(record): record}), tree.root, EMPTY_TREE, ops) is proven
        assert not splice.proves(blocks, tree.root, EMPTY_TREE, ops)
