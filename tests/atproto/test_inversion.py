"""The inductive check: accepts every honest commit, refuses every other, and tells what is missing apart."""

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.atproto import inversion, mst
from relay.atproto.cid import cid_text, dag_cbor_cid, parse_cid_text
from relay.atproto.errors import Contradiction, InvalidData, InvalidTree, MissingBlock, MissingNeighbour
from relay.atproto.events import RepoOp
from relay.atproto.mst_node import EMPTY_TREE
from tests.atproto.naive_tree import NaiveTree, build
from tests.atproto.strategies import TreeCommit, cid_of_number, commits, mutated, paths, record_of_number, trees
from tests.atproto.vectors import read_json


class ProofVector:
    """One commit of the vectors."""

    def __init__(self, case: dict[str, Any]) -> None:
        leaf = parse_cid_text(case["leafValue"])
        before = dict.fromkeys((key.encode() for key in case["keys"]), leaf)
        after = {key: leaf for key in before if key.decode() not in case["dels"]}
        after |= dict.fromkeys((key.encode() for key in case["adds"]), leaf)
        self.before, self.after = build(before), build(after)
        self.proof = {parse_cid_text(text) for text in case["blocksInProof"]}
        # The values are all one CID whose block is not given; the check asks only that it is there.
        self.blocks = {cid: self.after.blocks[cid] for cid in self.proof} | {leaf: b"\xa0"}
        self.leaf = leaf
        self.ops = [RepoOp("create", path, leaf, None) for path in case["adds"]]
        self.ops += [RepoOp("delete", path, None, leaf) for path in case["dels"]]


PROOFS = read_json("firehose/commit-proof-fixtures.json")


@pytest.mark.parametrize("case", PROOFS, ids=lambda case: case["comment"])
def test_proof_vectors(case: dict[str, Any]) -> None:
    """Both roots; and the given blocks prove the commit, in every permutation of its operations."""
    vector = ProofVector(case)
    assert cid_text(vector.before.root) == case["rootBeforeCommit"]
    assert cid_text(vector.after.root) == case["rootAfterCommit"]
    for ops in permutations(vector.ops):
        inversion.check(vector.blocks, vector.after.root, vector.before.root, ops)
        tree = mst.load(vector.blocks, vector.after.root)
        for op in ops:
            key = op.path.encode()
            tree = mst.delete(tree, key) if op.action == "create" else mst.insert(tree, key, vector.leaf)  # type: ignore[assignment]
        assert mst.root_cid(tree) == vector.before.root


@pytest.mark.parametrize("case", PROOFS, ids=lambda case: case["comment"])
def test_proof_vectors_with_a_block_withheld(case: dict[str, Any]) -> None:
    """One on the way to an operation's key is a missing block; any other at most a missing neighbour."""
    vector = ProofVector(case)
    on_the_way = {vector.after.root}.union(*(vector.after.path(op.path.encode()) for op in vector.ops))
    neighbours = vector.proof - on_the_way
    outcomes: dict[bytes, type[InvalidData] | None] = {}
    for gone in vector.proof:
        blocks = {cid: block for cid, block in vector.blocks.items() if cid != gone}
        try:
            inversion.check(blocks, vector.after.root, vector.before.root, vector.ops)
            outcomes[gone] = None
        except InvalidData as exc:
            outcomes[gone] = type(exc)
    assert {outcomes[cid] for cid in on_the_way} == {MissingBlock}
    if "split" in case["comment"]:
        assert MissingNeighbour in {outcomes[cid] for cid in neighbours}
    assert {outcomes[cid] for cid in neighbours} <= {MissingNeighbour, None}


@given(commits(), st.randoms())
def test_honest_commits(commit: TreeCommit, random: Any) -> None:
    """Accepted with the blocks that the reference host ships, or more, in any order of operations."""
    ops = list(commit.ops)
    random.shuffle(ops)
    inversion.check(commit.proof, commit.after.root, commit.before.root, ops)
    inversion.check(commit.everything, commit.after.root, commit.before.root, ops)


@given(commits(), st.data())
def test_hidden_blocks(commit: TreeCommit, data: st.DataObject) -> None:
    """Whatever is withheld, an honest commit is accepted, or what is missing is named rightly."""
    hidden = data.draw(st.sets(st.sampled_from(sorted(commit.everything)), max_size=6))
    blocks = {cid: block for cid, block in commit.everything.items() if cid not in hidden}
    on_the_way = {commit.after.root} | commit.records.keys()
    on_the_way = on_the_way.union(*(commit.after.path(key) for key in commit.keys)) - {EMPTY_TREE}
    try:
        inversion.check(blocks, commit.after.root, commit.before.root, commit.ops)
    except MissingBlock:
        assert not on_the_way <= blocks.keys()
    except MissingNeighbour:
        assert on_the_way <= blocks.keys()
        assert not commit.proof.keys() <= blocks.keys()
    else:
        assert on_the_way <= blocks.keys()


@given(commits())
def test_first_commits(commit: TreeCommit) -> None:
    """Without `prevData` the operations must name the whole tree."""
    whole = [RepoOp("create", key.decode(), cid, None) for key, cid in commit.after.items.items()]
    records = {cid_of_number(n): record_of_number(n) for n in range(20)}
    inversion.check(commit.after.blocks | records, commit.after.root, None, whole)
    if commit.before.items:
        with pytest.raises(Contradiction):
            inversion.check(commit.everything, commit.after.root, None, commit.ops)
    if len(whole) > 1:
        with pytest.raises(InvalidData):
            inversion.check(commit.after.blocks | records, commit.after.root, None, whole[1:])


@given(commits(), paths, st.data())
def test_lies_about_operations(commit: TreeCommit, path: str, data: st.DataObject) -> None:
    """One operation dropped, added or changed, or another previous tree: always a contradiction."""
    records = {cid_of_number(n): record_of_number(n) for n in range(20)}
    ops = list(commit.ops)
    prev_data: bytes | None = commit.before.root
    at = data.draw(st.integers(0, len(ops) - 1))
    op, other = ops[at], cid_of_number(data.draw(st.integers(0, 19)))
    match data.draw(st.sampled_from(["drop", "add", "cid", "prev", "path", "action", "twice", "tree", "none"])):
        case "drop":
            del ops[at]
        case "add":
            key = path.encode()
            ops.append(
                data.draw(
                    st.sampled_from(
                        [
                            RepoOp("create", path, commit.after.items.get(key, other), None),
                            RepoOp("update", path, commit.after.items.get(key, other), other),
                            RepoOp("delete", path, None, other),
                        ]
                    )
                )
            )
        case "cid":
            ops[at] = op._replace(cid=other if op.cid != other else None)
        case "prev":
            ops[at] = op._replace(prev=other if op.prev != other else None)
        case "path":
            ops[at] = op._replace(path=path if op.path != path else op.path + "x")
        case "action":
            ops[at] = op._replace(
                action=data.draw(st.sampled_from(sorted({"create", "update", "delete", ""} - {op.action})))
            )
        case "twice":
            ops.append(op)
        case "tree":
            prev_data = build({**commit.before.items, b"a.b.c/more": other}).root
        case "none":
            prev_data = None
    if prev_data is None and not commit.before.items:
        return
    with pytest.raises(Contradiction):
        inversion.check(commit.everything | records, commit.after.root, prev_data, ops)


def _with_forged_node(tree: NaiveTree, cid: bytes, block: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """The tree with one node's block replaced, every link and hash above it made right again: its root and blocks."""
    renamed = {cid: dag_cbor_cid(block)}
    blocks = {renamed[cid]: block}
    for other in sorted(tree.blocks.keys() - {cid}, key=lambda other: tree.layers[other][0]):
        forged = tree.blocks[other]
        for old, new in renamed.items():
            forged = forged.replace(old, new)
        if forged != tree.blocks[other]:
            renamed[other] = dag_cbor_cid(forged)
        blocks[dag_cbor_cid(forged)] = forged
    return renamed.get(tree.root, tree.root), blocks


@given(commits(), st.data())
def test_forged_nodes(commit: TreeCommit, data: st.DataObject) -> None:
    """Any node of any bytes, in a tree whose hashes are all right, is refused, and with nothing but InvalidData."""
    if not commit.after.items:
        return
    cid = data.draw(st.sampled_from(sorted(commit.after.blocks)))
    block = data.draw(mutated(commit.after.blocks[cid]))
    if block == commit.after.blocks[cid]:
        return
    root, blocks = _with_forged_node(commit.after, cid, block)
    with pytest.raises(InvalidData):
        inversion.check(blocks | commit.records, root, commit.before.root, commit.ops)


def test_empty_commits() -> None:
    """The same tree, no block needed."""
    tree = build({b"a.b.c/1": cid_of_number(1)})
    inversion.check({}, tree.root, tree.root, [])
    inversion.check({}, EMPTY_TREE, None, [])
    inversion.check({}, EMPTY_TREE, EMPTY_TREE, [])
    for data, prev_data in ((tree.root, None), (tree.root, EMPTY_TREE), (EMPTY_TREE, tree.root)):
        with pytest.raises(Contradiction):
            inversion.check(tree.blocks, data, prev_data, [])


A, B = cid_of_number(1), cid_of_number(2)


@pytest.mark.parametrize(
    "op",
    [
        RepoOp("create", "a.b.c/1", None, None),
        RepoOp("create", "a.b.c/1", A, B),
        RepoOp("create", "a.b.c/1", None, B),
        RepoOp("update", "a.b.c/1", A, None),
        RepoOp("update", "a.b.c/1", None, B),
        RepoOp("update", "a.b.c/1", A, A),
        RepoOp("update", "a.b.c/1", None, None),
        RepoOp("delete", "a.b.c/1", A, None),
        RepoOp("delete", "a.b.c/1", A, B),
        RepoOp("delete", "a.b.c/1", None, None),
        RepoOp("", "a.b.c/1", A, B),
        RepoOp("upsert", "a.b.c/1", A, B),
    ],
)
def test_operations_that_contradict_themselves(op: RepoOp) -> None:
    """Action, cid and prev must fit together."""
    tree = build({b"a.b.c/1": A})
    for prev_data in (tree.root, build({b"a.b.c/1": B}).root, None):
        with pytest.raises(Contradiction):
            inversion.check(tree.blocks | {A: record_of_number(1)}, tree.root, prev_data, [op])


def test_size_of_records() -> None:
    """1,000,000 bytes and no more."""
    tree = build({b"a.b.c/1": A})
    ops = [RepoOp("create", "a.b.c/1", A, None)]
    inversion.check(tree.blocks | {A: bytes(1_000_000)}, tree.root, None, ops)
    with pytest.raises(InvalidTree):
        inversion.check(tree.blocks | {A: bytes(1_000_001)}, tree.root, None, ops)


@given(trees, paths, st.data())
def test_a_record_that_was_there_already(tree: NaiveTree, path: str, data: st.DataObject) -> None:
    """A delete of what never was, and a create of what was there, with the unchanged tree as previous one."""
    key = path.encode()
    there = tree.items.get(key)
    op = RepoOp("delete", path, None, A) if there is None else RepoOp("create", path, there, None)
    with pytest.raises(Contradiction):
        inversion.check(tree.blocks | {there or A: b"\xa0"}, tree.root, tree.root, [op])
