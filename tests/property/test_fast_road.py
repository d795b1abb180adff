"""The fast road against the general one, for ever: it accepts nearly every honest commit, and nothing that the general
road would not."""

from collections import Counter
from collections.abc import Callable, Iterator
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.atproto import canonical, car, commit, frames, inversion, splice
from relay.atproto.cid import DAG_CBOR_PREFIX
from relay.atproto.errors import InvalidData
from relay.atproto.events import CommitEvent
from relay.atproto.keys import parse_did_key
from tests.atproto.strategies import TreeCommit, commits, mutated
from tests.property.tampering import CHANGES, Claim, changed, claim_of, tampered
from tests.world import records
from tests.world.clock import Clock
from tests.world.frames import commit_frame
from tests.world.keys import SigningKey
from tests.world.repo import MadeCommit, Repo

KEY = SigningKey.generate(Random(1))
TIME = "2025-06-15T12:00:00.000Z"


def made_commits(rng: Random, *, size: int, count: int, ops_max: int) -> Iterator[MadeCommit]:
    """Honest commits, each on the tree of the one before, of a repository that has `size` records at first."""
    clock = Clock(now_microseconds=1_750_000_000_000_000)
    repo = Repo(did=records.plc_did(rng), key=KEY, clock=clock)
    repo.preload(records.stock(rng, clock, size))
    for _ in range(count):
        ops = 1 if rng.random() < 0.6 else rng.randint(1, ops_max)
        yield repo.commit(records.writes(rng, repo, count=ops), proof=rng.choice(("covering", "covering", "minimal")))


def _seq(rng: Random) -> int:
    """Of every width."""
    return rng.randint(1, 2 ** rng.randint(1, 53) - 1)


def general_event(message: bytes) -> CommitEvent | None:
    try:
        event = frames.parse(message)
    except InvalidData:
        return None
    return event if isinstance(event, CommitEvent) else None


def general_accepts(claim: Claim) -> bool:
    try:
        inversion.check(claim.blocks, claim.data, claim.prev_data, claim.ops)
    except InvalidData:
        return False
    return True


def fast_accepts(claim: Claim) -> bool:
    """As after `canonical.car_blocks`, which gives no block under another codec than DAG-CBOR."""
    if not all(cid.startswith(DAG_CBOR_PREFIX) for cid in claim.blocks):
        return False
    return splice.proves(
        {cid[4:]: block for cid, block in claim.blocks.items()}, claim.data, claim.prev_data, claim.ops
    )


def fast_event(message: bytes) -> CommitEvent | None:
    """The event where the fast road alone proves all that a frame can prove: fields, hashes, signature, inversion."""
    event = canonical.commit_event(message)
    found = None if event is None else canonical.car_blocks(event.blocks)
    if event is None or found is None or DAG_CBOR_PREFIX + found[0] != event.commit or found[0] not in found[1]:
        return None
    signed = canonical.commit_object(found[1][found[0]])
    if signed is None or (signed.did, signed.rev) != (event.did, event.rev):
        return None
    if not parse_did_key(KEY.did_key).verify(signed.unsigned, signed.sig):
        return None
    return event if splice.proves(found[1], signed.data, event.prev_data, event.ops) else None


def assert_same_values(message: bytes) -> None:
    """Each step of the fast road gives what the general one gives, or nothing."""
    event = canonical.commit_event(message)
    if event is None:
        return
    assert event == general_event(message)
    found = canonical.car_blocks(event.blocks)
    if found is None:
        return
    root, blocks = found
    general = car.read(event.blocks)
    assert general.roots == (DAG_CBOR_PREFIX + root,)
    assert general.blocks == {DAG_CBOR_PREFIX + digest: block for digest, block in blocks.items()}
    signed = canonical.commit_object(blocks.get(root, b""))
    assert signed is None or signed == commit.parse(blocks[root])


def check_honest(seed: int, *, sizes: tuple[int, ...], count: int) -> Counter[bool]:
    """How many commits the fast road accepts; the general one has to accept all."""
    rng = Random(seed)
    verdicts: Counter[bool] = Counter()
    for size in sizes:
        for number, made in enumerate(made_commits(rng, size=size, count=count, ops_max=30)):
            message = commit_frame(made, seq=_seq(rng), time=TIME)
            assert_same_values(message)
            assert general_accepts(claim_of(made)), (seed, size, number)
            verdicts[fast_event(message) is not None] += 1
    return verdicts


def check_tampered(seed: int, *, sizes: tuple[int, ...], count: int, each: int) -> Counter[tuple[bool, bool]]:
    """How often (fast, general) accept claims that were tampered with."""
    rng = Random(seed)
    verdicts: Counter[tuple[bool, bool]] = Counter()
    for size in sizes:
        for number, made in enumerate(made_commits(rng, size=size, count=count, ops_max=6)):
            for _ in range(each):
                names, claim = tampered(rng, claim_of(made))
                fast, general = fast_accepts(claim), general_accepts(claim)
                assert general or not fast, (seed, size, number, names)
                verdicts[fast, general] += 1
    return verdicts


def check_flips(seed: int, *, count: int, each: int) -> set[str]:
    """The fields in which a flipped bit is accepted by the fast road."""
    rng = Random(seed)
    accepted = set()
    for made in made_commits(rng, size=rng.choice((0, 20, 400)), count=count, ops_max=4):
        message = commit_frame(made, seq=_seq(rng), time=TIME)
        event = canonical.commit_event(message)
        assert event is not None
        for _ in range(each):
            flipped = bytearray(message)
            # One in four about the sequence number, whose width only a flip there can make longer than it needs.
            at = len(event.head) + rng.randrange(9) if rng.random() < 0.25 else rng.randrange(len(message))
            flipped[at] ^= 1 << rng.randrange(8)
            assert_same_values(bytes(flipped))
            other = fast_event(bytes(flipped))
            if other is not None:
                accepted |= {name for name in event.__slots__ if getattr(event, name) != getattr(other, name)} - {
                    "head",
                    "tail",
                }
    return accepted


def test_honest_commits() -> None:
    """Repositories of 1 to 4,000 records, 1 to 30 operations: nearly all are accepted by the fast road."""
    verdicts = check_honest(1, sizes=(1, 3, 10, 60, 400, 4_000), count=50)
    assert verdicts[True] >= 0.99 * verdicts.total()


def test_tampered_claims() -> None:
    """Changed trees, operations and roots: what the fast road accepts, the general one accepts; both kinds occur."""
    verdicts = check_tampered(2, sizes=(1, 5, 40, 400, 2_000), count=20, each=12)
    assert verdicts[True, True] > 50
    assert verdicts[False, False] > 500


def test_flipped_bits() -> None:
    """One bit: the same values or none, and accepted only where no signature and no tree says otherwise."""
    assert check_flips(3, count=25, each=80) <= {"seq", "time", "since", "rebase", "too_big"}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_every_change_happens(change: Callable[[Random, Claim], Claim]) -> None:
    """The tampering is not idle: each change makes other claims, and the honest one is accepted."""
    rng = Random(5)
    claims = [claim_of(made) for made in made_commits(rng, size=60, count=8, ops_max=8)]
    assert all(fast_accepts(claim) for claim in claims)
    assert sum(changed(change, rng, claim) != claim for claim in claims * 3) > 4


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10, 18))
def test_many_honest_commits(seed: int) -> None:
    """To 50,000 records."""
    verdicts = check_honest(seed, sizes=(1, 10, 100, 1_000, 10_000, 50_000), count=500)
    assert verdicts[True] >= 0.99 * verdicts.total()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20, 28))
def test_many_tampered_claims(seed: int) -> None:
    verdicts = check_tampered(seed, sizes=(1, 4, 20, 100, 1_000, 20_000), count=100, each=15)
    assert verdicts[True, True] > 500
    assert verdicts[False, False] > 3_000


@pytest.mark.long
@pytest.mark.parametrize("seed", range(30, 38))
def test_many_flipped_bits(seed: int) -> None:
    assert check_flips(seed, count=40, each=150) <= {"seq", "time", "since", "rebase", "too_big"}


@given(commits(), st.randoms())
def test_small_dense_trees(made: TreeCommit, random: Random) -> None:
    """Trees whose keys meet often, with several operations next to each other: all honest ones are proven."""
    ops = list(made.ops)
    random.shuffle(ops)
    for blocks in (made.proof, made.everything):
        assert fast_accepts(Claim(blocks, made.after.root, made.before.root, tuple(ops)))


@given(commits(), st.data())
def test_hidden_blocks(made: TreeCommit, data: st.DataObject) -> None:
    """Whatever is withheld: proven if and only if the general road accepts."""
    hidden = data.draw(st.sets(st.sampled_from(sorted(made.everything)), max_size=6))
    blocks = {cid: block for cid, block in made.everything.items() if cid not in hidden}
    claim = Claim(blocks, made.after.root, made.before.root, made.ops)
    assert fast_accepts(claim) == general_accepts(claim)


@given(commits(), st.integers(0, 2**32))
def test_small_tampered_trees(made: TreeCommit, seed: int) -> None:
    """The same changes as above, on trees small enough for Hypothesis to search."""
    _names, claim = tampered(Random(seed), Claim(made.proof, made.after.root, made.before.root, made.ops))
    assert general_accepts(claim) or not fast_accepts(claim)


_MADE = list(made_commits(Random(4), size=30, count=6, ops_max=5))
_MESSAGES = [commit_frame(made, seq=1_000_000 + at, time=TIME) for at, made in enumerate(_MADE)]


@given(st.binary(max_size=300) | st.sampled_from(_MESSAGES).flatmap(mutated))
@example(_MESSAGES[0])
def test_any_message(message: bytes) -> None:
    """Nothing raises, and nothing is given that the general road would not give."""
    assert_same_values(message)
    if fast_event(message) is not None:
        assert general_event(message) is not None


@given(st.binary(max_size=300) | st.sampled_from(_MADE).flatmap(lambda made: mutated(made.car)))
def test_any_car(data: bytes) -> None:
    found = canonical.car_blocks(data)
    if found is not None:
        root, blocks = found
        assert car.read(data) == car.Car(
            (DAG_CBOR_PREFIX + root,), {DAG_CBOR_PREFIX + digest: block for digest, block in blocks.items()}
        )


@given(st.binary(max_size=300) | st.sampled_from(_MADE).flatmap(lambda made: mutated(made.commit_block)))
def test_any_commit_object(block: bytes) -> None:
    signed = canonical.commit_object(block)
    assert signed is None or signed == commit.parse(block)


@given(st.dictionaries(st.binary(min_size=32, max_size=32), st.binary(max_size=300), min_size=1, max_size=3), st.data())
def test_any_blocks(blocks: dict[bytes, bytes], data: st.DataObject) -> None:
    """Bytes that are no nodes prove nothing, and nothing raises."""
    digest = data.draw(st.sampled_from(sorted(blocks)))
    op = _MADE[0].ops[0]
    claim = Claim({}, DAG_CBOR_PREFIX + digest, DAG_CBOR_PREFIX + bytes(32), claim_of(_MADE[0]).ops)
    record = {} if op.cid is None else {op.cid[4:]: b"\xa0"}
    assert not splice.proves(blocks | record, claim.data, claim.prev_data, claim.ops)
