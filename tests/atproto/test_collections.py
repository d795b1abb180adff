"""What a partial tree proves about collections, against the whole one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.atproto import mst
from relay.atproto.collections import CollectionFacts, CollectionState
from tests.atproto.naive_tree import NaiveTree
from tests.atproto.strategies import TreeCommit, commits, trees

PRESENT, ABSENT, UNKNOWN = CollectionState
CANDIDATES = (
    "a.b.c",
    "a.b.c-d.e",
    "a.b.c.d",
    "a.b.cc",
    "x.y.z",
    "a.a.a",
    "a.b.1x",
    "z.z.z",
    "m.m.m",
    "a.b.c-d",
    "a.b.c0",
)


def _collections(tree: NaiveTree) -> set[str]:
    return {key.decode().split("/")[0] for key in tree.items}


@given(trees, st.data())
def test_never_wrong(tree: NaiveTree, data: st.DataObject) -> None:
    """Whatever is hidden; and with nothing hidden, never unsure."""
    hidden = data.draw(st.sets(st.sampled_from(sorted(tree.blocks)))) - {tree.root}
    blocks = {cid: block for cid, block in tree.blocks.items() if cid not in hidden}
    facts = CollectionFacts(mst.visible(mst.load(blocks, tree.root)))
    there = _collections(tree)
    assert facts.complete is (not hidden)
    assert facts.present <= there
    assert facts.present == {name for name in there if facts.state(name) is PRESENT}
    for name in {*CANDIDATES, *there}:
        expected = PRESENT if name in there else ABSENT
        assert facts.state(name) in ((expected,) if facts.complete else (expected, UNKNOWN))


@given(commits())
def test_covering_proofs_decide_every_touched_collection(commit: TreeCommit) -> None:
    """With the blocks that the reference host ships nothing stays unknown."""
    facts = CollectionFacts(mst.visible(mst.load(commit.proof, commit.after.root)))
    there = _collections(commit.after)
    for op in commit.ops:
        name = op.path.split("/")[0]
        assert facts.state(name) is (PRESENT if name in there else ABSENT)


@pytest.mark.parametrize(
    ("sequence", "present", "absent", "unknown"),
    [
        ([], set(), {"a.b.c"}, set()),
        ([b"a.b.c/1"], {"a.b.c"}, {"a.b.a", "a.b.d", "a.b.c.d", "a.b.cc", "a.b"}, set()),
        ([None, b"a.b.c/1"], {"a.b.c"}, {"a.b.d", "a.b.cc"}, {"a.b.a", "a.b.c-d.e", "a.b.c.d"}),
        ([b"a.b.c/1", None], {"a.b.c"}, {"a.b.a", "a.b.c-d.e", "a.b.c.d"}, {"a.b.cc", "z.z.z"}),
        ([b"a.b.a/1", None, b"a.b.e/1", b"a.b.g/1"], {"a.b.a", "a.b.e", "a.b.g"}, {"a.b.f", "a.b.h"}, {"a.b.c"}),
        ([b"a.b.c/1", None, b"a.b.c/3"], {"a.b.c"}, {"a.b.b", "a.b.d"}, set()),
        ([b"a.b.c/1/2", b"no slash", b"\xff/1"], {"a.b.c"}, {"a.b.d"}, set()),
    ],
)
def test_examples(sequence: list[bytes | None], present: set[str], absent: set[str], unknown: set[str]) -> None:
    """Names that are each other's prefixes, gaps at either end and within a collection, keys that are no paths."""
    facts = CollectionFacts(sequence)
    assert facts.present == present
    assert facts.complete is (None not in sequence)
    expected = {PRESENT: present, ABSENT: absent, UNKNOWN: unknown}
    for state, names in expected.items():
        assert {name for name in names if facts.state(name) is state} == names
