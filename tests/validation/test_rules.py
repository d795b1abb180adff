"""The policy table of DESIGN 6, row by row: what strict and lenient validation do with one event."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from relay.atproto import frames as wire
from relay.atproto.events import AccountEvent, CommitEvent, IdentityEvent, SyncEvent
from relay.atproto.keys import parse_did_key
from relay.eventlog.progress import HostProgress
from relay.eventlog.records import AccountRecord
from relay.eventlog.verdict import Accept, DropReason, Irregularity, Origin
from relay.validation import rules
from relay.validation.rules import Judgement, Need, Refusal, Validation
from tests.world import frames
from tests.world.clock import Clock
from tests.world.ipld import cid_of, encode, link
from tests.world.keys import SigningKey
from tests.world.repo import MadeCommit, Repo, Write, sign_commit, unsigned_commit

DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
HOST = "pds.example.com"
TIME = "2026-01-01T00:00:00.000Z"
REV_MAX = "3zzzzzzzzzzzz"
STRICT, LENIENT = Validation.STRICT, Validation.LENIENT


def create(n: int) -> Write:
    return Write("create", f"app.bsky.feed.post/{n:013d}", encode({"$type": "app.bsky.feed.post", "n": n}))


@dataclass
class Author:
    """An account with a grown repository, and what a relay has stored of it."""

    repo: Repo = field(
        default_factory=lambda: Repo(
            did=DID,
            key=SigningKey.generate(random.Random(5)),
            clock=Clock(now_microseconds=1_767_225_600_000_000),
        )
    )
    record: AccountRecord | None = None
    number: int = 0

    def made(self) -> MadeCommit:
        """The next commit of two new records."""
        self.number += 2
        return self.repo.commit([create(self.number), create(self.number + 1)])

    def stored(self) -> None:
        """Take the repository's present state for what the relay has stored."""
        head = self.repo.head
        assert head is not None
        self.record = AccountRecord(HOST, rev=head.rev, commit=head.commit, data=head.data, ordinal=7)

    def judge(
        self, made: MadeCommit, mode: Validation, *, change: Callable[[frames.Payload], None] | None = None
    ) -> Judgement:
        payload = frames.commit_payload(made, seq=9, time=TIME)
        if change is not None:
            change(payload)
        event = wire.parse(frames.frame("#commit", payload))
        assert isinstance(event, CommitEvent)
        return rules.judge_commit(
            event,
            key=parse_did_key(self.repo.key.did_key),
            record=self.record,
            origin=origin(),
            rev_max=REV_MAX,
            mode=mode,
        )


def origin() -> Origin:
    return Origin(HOST, 9, HostProgress(), 0)


@pytest.fixture
def author() -> Author:
    author = Author()
    author.repo.commit([create(n) for n in range(1000, 1040)])
    author.stored()
    return author


def reason(judgement: Judgement) -> DropReason:
    assert isinstance(judgement, Refusal)
    return judgement.reason


@pytest.mark.parametrize("mode", Validation)
def test_a_valid_commit_moves_the_account(author: Author, mode: Validation) -> None:
    made = author.made()
    accept = author.judge(made, mode)
    assert isinstance(accept, Accept)
    assert accept.account == AccountRecord(HOST, rev=made.rev, commit=made.commit, data=made.data, ordinal=7)
    assert accept.irregularities == ()
    assert accept.ops == 2


def test_a_first_commit_needs_no_prev_data_if_its_operations_are_the_whole_tree() -> None:
    author = Author()
    assert isinstance(author.judge(author.made(), STRICT), Accept)


def test_a_first_commit_that_hides_records_is_dropped() -> None:
    author = Author()

    def forget_one(payload: frames.Payload) -> None:
        payload["ops"] = payload["ops"][1:]

    made = author.made()
    assert reason(author.judge(made, STRICT, change=forget_one)) is DropReason.INVERSION_CONTRADICTION
    assert isinstance(author.judge(made, LENIENT, change=forget_one), Accept)


def test_prev_data_is_missing(author: Author) -> None:
    made = author.made()

    def drop_prev_data(payload: frames.Payload) -> None:
        del payload["prevData"]

    assert reason(author.judge(made, STRICT, change=drop_prev_data)) is DropReason.PREV_DATA_MISSING
    assert isinstance(author.judge(made, LENIENT, change=drop_prev_data), Accept)
    author.record = None  # never seen, but not a first commit either
    assert reason(author.judge(made, STRICT, change=drop_prev_data)) is DropReason.PREV_DATA_MISSING


@pytest.mark.parametrize("mode", Validation)
def test_an_old_rev_is_dropped(author: Author, mode: Validation) -> None:
    made = author.made()
    author.stored()
    assert reason(author.judge(made, mode)) is DropReason.REV_NOT_NEWER


@pytest.mark.parametrize("mode", Validation)
def test_a_rev_in_the_future_is_dropped(author: Author, mode: Validation) -> None:
    author.repo.clock.advance(100 * 366 * 86400)
    assert reason(author.judge(author.made(), mode)) is DropReason.REV_IN_FUTURE


@pytest.mark.parametrize(("name", "expected"), [("tooBig", DropReason.TOO_BIG), ("rebase", DropReason.REBASE)])
def test_deprecated_flags(author: Author, name: str, expected: DropReason) -> None:
    made = author.made()
    set_flag = {name: True}
    assert reason(author.judge(made, STRICT, change=lambda payload: payload.update(set_flag))) is expected
    assert isinstance(author.judge(made, LENIENT, change=lambda payload: payload.update(set_flag)), Accept)


@pytest.mark.parametrize("mode", Validation)
def test_a_gap_before_a_valid_commit_is_passed_and_counted(author: Author, mode: Validation) -> None:
    author.made()  # never arrived
    accept = author.judge(author.made(), mode)
    assert isinstance(accept, Accept)
    assert accept.irregularities == (Irregularity.DISCONTINUOUS,)


@pytest.mark.parametrize("mode", Validation)
def test_a_bad_signature_asks_for_a_fresh_key(author: Author, mode: Validation) -> None:
    made = author.made()
    author.repo.key = SigningKey.generate(random.Random(6))
    judgement = author.judge(made, mode)
    assert isinstance(judgement, Refusal)
    assert (judgement.reason, judgement.need) == (DropReason.SIGNATURE_INVALID, Need.FRESH_KEY)


@pytest.mark.parametrize("mode", Validation)
def test_message_and_commit_must_agree(author: Author, mode: Validation) -> None:
    made = author.made()
    for change in (
        {"repo": "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"},
        {"rev": made.rev[:-1] + "3"},
        {"commit": link(cid_of(b"other"))},
    ):
        assert reason(author.judge(made, mode, change=lambda payload, c=change: payload.update(c))) is (  # type: ignore[misc]
            DropReason.FIELD_MISMATCH
        )


def test_a_contradicting_tree(author: Author) -> None:
    made = author.made()

    def other_prev(payload: frames.Payload) -> None:
        payload["prevData"] = link(cid_of(b"other"))

    assert reason(author.judge(made, STRICT, change=other_prev)) is DropReason.INVERSION_CONTRADICTION
    accept = author.judge(made, LENIENT, change=other_prev)
    assert isinstance(accept, Accept)
    assert Irregularity.INVERSION_CONTRADICTION in accept.irregularities


def test_an_absent_record_block(author: Author) -> None:
    made = author.made()
    record = made.ops[0].cid
    cut = replace(made, blocks=tuple(pair for pair in made.blocks if pair[0] != record))
    assert reason(author.judge(cut, STRICT)) is DropReason.BLOCK_MISSING
    assert isinstance(author.judge(cut, LENIENT), Accept)


@pytest.mark.parametrize("mode", Validation)
def test_only_a_neighbour_absent_is_passed_and_counted(author: Author, mode: Validation) -> None:
    """Deleting a key may need its right neighbour's node; some commit's proof can be cut to exactly that."""
    for n in range(1000, 1040):
        made = author.repo.commit([Write("delete", f"app.bsky.feed.post/{n:013d}")])
        for cid, _ in made.blocks:
            cut = replace(made, blocks=tuple(pair for pair in made.blocks if pair[0] != cid))
            judgement = author.judge(cut, mode)
            if isinstance(judgement, Accept) and Irregularity.NEIGHBOUR_MISSING in judgement.irregularities:
                return
    raise AssertionError("no commit needed a neighbour")


@pytest.mark.parametrize("mode", Validation)
def test_malformed_contents_are_dropped_in_both_modes(author: Author, mode: Validation) -> None:
    made = author.made()
    tampered = replace(made, blocks=((made.blocks[0][0], b"\xa0"), *made.blocks[1:]))
    assert reason(author.judge(tampered, mode)) is DropReason.CAR_INVALID
    node = encode({"e": [], "l": None, "x": 1})
    signed = sign_commit(author.repo.key, unsigned_commit(did=DID, rev=made.rev, data=cid_of(node)))
    odd_tree = replace(
        made,
        commit=cid_of(signed),
        data=cid_of(node),
        blocks=((cid_of(node), node), *made.blocks[:-1], (cid_of(signed), signed)),
    )
    assert reason(author.judge(odd_tree, mode)) is DropReason.TREE_INVALID
    block = encode({"did": DID, "rev": made.rev, "sig": b"", "version": 3})
    no_commit = replace(made, commit=cid_of(block), blocks=((cid_of(block), block),))
    assert reason(author.judge(no_commit, mode)) is DropReason.COMMIT_INVALID


@pytest.mark.parametrize("mode", Validation)
def test_content_of_inactive_accounts_is_dropped(author: Author, mode: Validation) -> None:
    assert author.record is not None
    author.record = replace(author.record, upstream_active=False, upstream_status="deactivated")
    judgement = author.judge(author.made(), mode)
    assert isinstance(judgement, Refusal)
    assert (judgement.reason, judgement.need) == (DropReason.ACCOUNT_INACTIVE, Need.HOSTING_STATUS)
    author.record = replace(author.record, upstream_active=True, local_status="takendown")
    judgement = author.judge(author.made(), mode)
    assert isinstance(judgement, Refusal)
    assert (judgement.reason, judgement.need) == (DropReason.ACCOUNT_INACTIVE, None)


def judge_sync(author: Author, made: MadeCommit) -> Judgement:
    event = wire.parse(frames.sync_frame(made, seq=9, time=TIME))
    assert isinstance(event, SyncEvent)
    key = parse_did_key(author.repo.key.did_key)
    return rules.judge_sync(event, key=key, record=author.record, origin=origin(), rev_max=REV_MAX)


def test_sync_repeats_or_advances_the_state_but_never_goes_back(author: Author) -> None:
    first, second = author.made(), author.made()
    accept = judge_sync(author, second)
    assert isinstance(accept, Accept)
    assert accept.account.rev == second.rev
    author.stored()
    assert isinstance(judge_sync(author, second), Accept)
    assert reason(judge_sync(author, first)) is DropReason.SYNC_STALE
    signed = sign_commit(author.repo.key, unsigned_commit(did=DID, rev=second.rev, data=first.data))
    twin = replace(second, commit=cid_of(signed), commit_block=signed)
    assert reason(judge_sync(author, twin)) is DropReason.SYNC_STALE


def test_account_status_is_the_combined_view(author: Author) -> None:
    assert author.record is not None
    event = wire.parse(frames.account_frame(DID, seq=9, time=TIME, active=True))
    assert isinstance(event, AccountEvent)
    plain = rules.judge_account(event, record=author.record, origin=origin())
    assert (plain.head, plain.tail) == (event.head, event.tail)
    author.record = replace(author.record, local_status="takendown")
    altered = rules.judge_account(event, record=author.record, origin=origin())
    shown = wire.parse(altered.head + b"\x09" + altered.tail)
    assert isinstance(shown, AccountEvent)
    assert (shown.active, shown.status) == (False, "takendown")


def test_deletion_hides_what_was_before(author: Author) -> None:
    for status, hides in (("deleted", True), ("deactivated", False)):
        event = wire.parse(frames.account_frame(DID, seq=9, time=TIME, active=False, status=status))
        assert isinstance(event, AccountEvent)
        accept = rules.judge_account(event, record=author.record, origin=origin())
        assert (accept.hides, accept.account.active) == (hides, False)


@pytest.mark.parametrize(("documented", "kept"), [("a.test", True), ("b.test", False), (None, False)])
def test_a_handle_stays_only_if_the_document_has_it(documented: str | None, kept: bool) -> None:
    event = wire.parse(frames.identity_frame(DID, seq=9, time=TIME, handle="a.test"))
    assert isinstance(event, IdentityEvent)
    accept = rules.judge_identity(event, handle=documented, record=None, home=HOST, origin=origin())
    shown = wire.parse(accept.head + b"\x09" + accept.tail)
    assert isinstance(shown, IdentityEvent)
    assert shown.handle == ("a.test" if kept else None)
