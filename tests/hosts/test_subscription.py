"""The subscription as scripts: messages in, outcomes out."""

import random

import pytest

from relay.atproto import frames
from relay.atproto.events import CommitEvent, InfoMessage
from relay.eventlog.progress import HostProgress
from relay.eventlog.verdict import Drop, DropReason
from relay.hosts.ended import Cause, Ended
from relay.hosts.subscription import CursorMoved, Outcome, Subscription
from relay.validation.envelope import Envelope
from tests.hosts.fake_host import DID, identity
from tests.world.clock import Clock
from tests.world.frames import commit_payload, frame
from tests.world.keys import SigningKey
from tests.world.repo import Repo

HOST = "pds.example.com"


def script(subscription: Subscription, messages: list[bytes]) -> list[Outcome]:
    return [subscription.receive(message) for message in messages]


def seqs(outcomes: list[Outcome]) -> list[int | None]:
    return [outcome.origin.seq if isinstance(outcome, Envelope) else None for outcome in outcomes]


def begun(last: int = 0) -> tuple[Subscription, HostProgress]:
    progress = HostProgress(last)
    subscription = Subscription(host=HOST, progress=progress)
    assert subscription.begin() == last
    return subscription, progress


def broken(seq: int) -> bytes:
    return frames.message("#identity", {"seq": seq, "did": "nobody", "time": "2025-01-01T00:00:00.000Z"})


def test_new_events_become_envelopes() -> None:
    """With their host, number, size and the epoch they came in."""
    subscription, progress = begun(5)
    (outcome,) = script(subscription, [identity(6)])
    assert isinstance(outcome, Envelope)
    assert outcome.event.seq == outcome.origin.seq == 6
    assert outcome.origin.host == HOST
    assert outcome.origin.progress is progress
    assert outcome.size == len(identity(6))
    assert progress.in_flight == 1
    outcome.origin.finish()
    assert (progress.last, progress.unfinished) == (6, [])


def test_a_canonical_commit_takes_the_fast_road() -> None:
    """And comes out as what the general road would have given."""
    clock = Clock(now_microseconds=1_700_000_000_000_000)
    repo = Repo(did=DID, key=SigningKey.generate(random.Random(1)), clock=clock)
    message = frame("#commit", commit_payload(repo.commit(), seq=1, time=clock.datetime()))
    (outcome,) = script(begun()[0], [message])
    assert isinstance(outcome, Envelope)
    assert isinstance(outcome.event, CommitEvent)
    assert outcome.event == frames.parse(message)


def test_numbers_must_increase_within_a_connection() -> None:
    """Gaps are normal; a repeated or smaller number is a drop of its own and moves nothing."""
    subscription, progress = begun()
    outcomes = script(subscription, [identity(3), identity(3), identity(2), identity(9)])
    assert outcomes[1:3] == [DropReason.SEQ_NOT_INCREASING] * 2
    assert seqs(outcomes) == [3, None, None, 9]
    assert progress.last == 9


def test_a_replayed_event_is_skipped_without_a_word() -> None:
    """After a reconnection the unfinished one comes in again, the finished ones behind it do not."""
    subscription, progress = begun()
    outcomes = script(subscription, [identity(1), identity(2), identity(3)])
    for outcome in (outcomes[0], outcomes[2]):
        assert isinstance(outcome, Envelope)
        outcome.origin.finish()
    restarted = HostProgress(progress.last, progress.unfinished)
    subscription = Subscription(host=HOST, progress=restarted)
    assert subscription.begin() == 1
    assert seqs(script(subscription, [identity(2), identity(3), identity(4)])) == [2, None, 4]


def test_a_host_with_inclusive_cursors_is_no_fault() -> None:
    """Its first event is the one that we had last."""
    subscription, _ = begun(7)
    assert script(subscription, [identity(7)]) == [None]


def test_a_host_that_starts_its_numbering_again_is_followed() -> None:
    """The first number of a connection below the cursor: everything known of its numbers is void."""
    subscription, progress = begun(1000)
    assert subscription.receive(identity(51)) == Ended(
        Cause.RENUMBERED, "numbers below the cursor: from its oldest event then"
    )
    assert progress.epoch == 1
    assert subscription.begin() == 0  # what came before 51 is asked for too
    assert seqs(script(subscription, [identity(1), identity(51)])) == [1, 51]
    assert progress.last == 51


@pytest.mark.parametrize(
    "message",
    [b"", b"\xff", b"\xa0", identity(1)[:-1], identity(1) + b"\x00", b"\xa1bop\x01" * 2, b"x" * 5_000_001],
)
def test_what_cannot_be_decoded_is_counted(message: bytes) -> None:
    """And the connection goes on."""
    subscription, _ = begun()
    outcomes = script(subscription, [message, identity(1)])
    assert outcomes[0] is DropReason.UNDECODABLE
    assert seqs(outcomes) == [None, 1]


def test_a_broken_event_moves_the_cursor() -> None:
    """It is a drop with its number, so that it is not met again at every reconnection."""
    subscription, progress = begun()
    outcomes = script(subscription, [broken(4), broken(4), identity(5)])
    assert isinstance(outcomes[0], Drop)
    assert (outcomes[0].reason, outcomes[0].origin.seq) == (DropReason.INVALID_EVENT, 4)
    assert "nobody" in outcomes[0].detail
    assert outcomes[1] is DropReason.SEQ_NOT_INCREASING
    outcomes[0].origin.finish()
    assert progress.last == 5
    assert progress.unfinished == [5]


def test_a_broken_event_without_a_number_is_counted() -> None:
    """There is no cursor to move."""
    subscription, progress = begun()
    message = frames.message("#identity", {"did": "did:plc:x", "time": "2025-01-01T00:00:00.000Z"})
    assert script(subscription, [message]) == [DropReason.INVALID_EVENT]
    assert progress.last == 0


def test_a_broken_event_that_was_finished_before_is_not_dropped_twice() -> None:
    """The same as for any replayed event."""
    subscription, _ = begun(7)
    assert script(subscription, [broken(7)]) == [None]


def test_unknown_messages_move_the_cursor_and_nothing_else() -> None:
    """A new message type, a new op."""
    subscription, progress = begun()
    unknown_op = b"\xa1bop\x02" + b"\xa1cseq\x05"
    messages = [frames.message("#tombstone", {"seq": 4}), unknown_op, frames.message("#notice", {"text": "hi"})]
    assert script(subscription, messages) == [CursorMoved(), CursorMoved(), None]
    assert (progress.last, progress.unfinished) == (5, [])


def test_info_is_handed_on() -> None:
    """It has no number."""
    subscription, _ = begun()
    info = frames.info_frame("OutdatedCursor", "Possibly missing events")
    assert script(subscription, [info]) == [InfoMessage("OutdatedCursor", "Possibly missing events")]


def test_an_error_frame_ends_the_connection_and_keeps_the_cursor() -> None:
    """Except for one error."""
    subscription, progress = begun(7)
    outcomes = script(subscription, [frames.error_frame("ConsumerTooSlow", None)])
    assert outcomes == [Ended(Cause.ERROR_FRAME, "ConsumerTooSlow")]
    assert progress.last == 7


def test_a_future_cursor_is_forgotten() -> None:
    """The host lost its numbering: the next connection is as to a new host."""
    subscription, progress = begun(7)
    outcomes = script(subscription, [frames.error_frame("FutureCursor", "Cursor in the future.")])
    assert outcomes == [Ended(Cause.FUTURE_CURSOR, "FutureCursor: Cursor in the future.")]
    assert progress.last == 0
    assert subscription.begin() == 0
    assert seqs(script(subscription, [identity(1)])) == [1]
