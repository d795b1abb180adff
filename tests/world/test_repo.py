"""Commits of the fake network: their proofs prove them, their fields are what the protocol says."""

import random

import pytest

from tests.world import frames, records
from tests.world import tree as mst
from tests.world.clock import Clock, tid
from tests.world.ipld import cid_of, decode, encode, read_car, unlink
from tests.world.keys import Curve, SigningKey, verify
from tests.world.repo import MadeCommit, Proof, Repo, Write, invert
from tests.world.verify import Rejected, check_operations

NOW = 1_790_000_000_000_000


def make_repo(*, seed: int = 1, stock: int = 0, curve: Curve = "k256") -> Repo:
    rng, clock = random.Random(seed), Clock(now_microseconds=NOW)
    repo = Repo(did=records.plc_did(rng), key=SigningKey.generate(rng, curve), clock=clock)
    if stock:
        repo.preload(records.stock(rng, clock, stock))
    return repo


def check(made: MadeCommit) -> None:
    payload = frames.parse(frames.commit_frame(made, seq=1, time="")).payload
    check_operations(payload, dict(made.blocks), made.data, made.prev_data)


def test_a_tid_of_a_known_moment() -> None:
    assert tid((1_688_137_381_887_007 << 10) | 0x18)[:11] == "3jzfcijpj2z"


@pytest.mark.parametrize("proof", ["covering", "minimal"])
def test_every_commit_inverts_from_its_own_blocks(proof: Proof) -> None:
    rng, repo = random.Random(3), make_repo(stock=60)
    for step in range(300):
        before, held = repo.data, set(repo.records)
        made = repo.commit(records.writes(rng, repo, count=rng.choice((1, 1, 1, 2, 5, 30))), proof=proof)
        assert made.prev_data == before
        assert {op.path for op in made.ops if op.action != "create"} <= held
        check(made)
        if step % 20 == 0:
            pairs = sorted((path.encode(), cid_of(block)) for path, block in repo.records.items())
            assert repo.data == mst.root_cid(mst.build(pairs))


def test_a_minimal_proof_lacks_nothing_and_ships_less() -> None:
    rng, shipped = random.Random(4), {"covering": 0, "minimal": 0}
    for proof in ("covering", "minimal"):
        repo = make_repo(stock=200)
        for _ in range(60):
            made = repo.commit(records.writes(rng, repo), proof="minimal" if proof == "minimal" else "covering")
            shipped[proof] += len(made.blocks)
    assert shipped["minimal"] < shipped["covering"]


def test_without_any_of_its_proof_a_commit_is_rejected() -> None:
    repo = make_repo(stock=200)
    made = repo.commit([Write("create", "a.b.c/first", encode({"a": 1}))])
    nodes = [node.cid for node in mst.nodes(mst.load(dict(made.blocks), made.data))]
    partial = {cid: block for cid, block in made.blocks if cid != nodes[-1]}
    with pytest.raises(mst.Missing):
        invert(mst.load(partial, made.data), made.ops, [])


def test_the_first_commit_is_of_an_empty_tree() -> None:
    made = make_repo().commit()
    assert (made.since, made.prev_data, made.ops) == (None, None, ())
    assert made.blocks == ((mst.EMPTY_CID, mst.EMPTY_BLOCK), (made.commit, made.commit_block))
    check(made)


def test_the_tree_can_become_empty_again() -> None:
    repo = make_repo()
    repo.commit([Write("create", "a.b.c/one", encode({"a": 1})), Write("create", "a.b.c/two", encode({"a": 2}))])
    made = repo.commit([Write("delete", "a.b.c/one"), Write("delete", "a.b.c/two")])
    assert made.data == mst.EMPTY_CID
    check(made)


@pytest.mark.parametrize("curve", ["k256", "p256"])
def test_a_commit_signed_again_ships_the_commit_alone(curve: Curve) -> None:
    repo = make_repo(stock=5)
    repo.key = SigningKey.generate(random.Random(9), curve)
    made = repo.commit()
    assert [cid for cid, _ in made.blocks] == [made.commit]
    assert made.data == made.prev_data
    commit = decode(made.commit_block)
    unsigned = encode({name: value for name, value in commit.items() if name != "sig"})
    assert verify(repo.key.did_key, unsigned, commit["sig"])


def test_two_hundred_operations() -> None:
    repo = make_repo(stock=500)
    made = repo.commit(records.writes(random.Random(1), repo, count=200))
    assert len(made.ops) == 200
    check(made)


def test_operations_that_the_tree_contradicts_are_rejected() -> None:
    repo = make_repo(stock=50)
    made = repo.commit(records.writes(random.Random(1), repo, count=3))
    payload = frames.parse(frames.commit_frame(made, seq=1, time="")).payload
    for wrong in (payload["ops"][1:], payload["ops"] + payload["ops"][:1]):
        with pytest.raises(Rejected):
            check_operations(payload | {"ops": wrong}, dict(made.blocks), made.data, made.prev_data)


def test_revisions_increase_and_frames_say_what_the_commit_says() -> None:
    rng, repo = random.Random(6), make_repo(stock=50)
    revs = []
    for _ in range(10):
        made = repo.commit(records.writes(rng, repo))
        revs.append(made.rev)
        payload = frames.parse(frames.commit_frame(made, seq=7, time="now")).payload
        roots, blocks = read_car(payload["blocks"])
        commit = decode(dict(blocks)[roots[0]])
        assert (commit["did"], commit["rev"]) == (payload["repo"], payload["rev"])
        assert roots == [unlink(payload["commit"])]
    assert revs == sorted(set(revs))


def test_a_large_repository_is_exported_whole() -> None:
    repo = make_repo(stock=5000)
    made = repo.commit(records.writes(random.Random(1), repo, count=2))
    roots, blocks = read_car(repo.export())
    assert roots == [made.commit]
    tree = mst.load(dict(blocks), made.data)
    assert {key.decode() for key, _ in mst.items(tree)} == set(repo.records)
