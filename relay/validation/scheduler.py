"""Every account's events in order, through the rules, to the sequencer (trio).

An event whose host is the account's cached home is judged at once, on the spot. Any other, and any that needs a
newer fact, waits in a lane of its own (host, account) for one look-up; later events of that host and account wait
behind it. Owns that order and what an answer means for an event; the bounds are `lanes.py`, the asking is
`lookups.py`, the checks are `rules.py`.
"""

import logging
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

import trio

from relay.atproto import frames
from relay.atproto.events import AccountEvent, CommitEvent, IdentityEvent, RepoEvent, SyncEvent
from relay.atproto.syntax import tid_from_microseconds
from relay.eventlog.accounts import Accounts
from relay.eventlog.errors import StoreError
from relay.eventlog.keys import EventKind
from relay.eventlog.records import AccountRecord
from relay.eventlog.sequencer import Sequencer
from relay.eventlog.verdict import Accept, Drop, DropReason
from relay.identity.document import Identity
from relay.identity.resolver import Resolver
from relay.validation import rules
from relay.validation.envelope import Envelope
from relay.validation.lanes import Lane, LaneLimits, Lanes
from relay.validation.lookups import LookUpLimits, LookUps, Unresolved
from relay.validation.rules import Judgement, Need, Refusal, Validation
from relay.validation.status import StatusChecker

_logger = logging.getLogger(__name__)

_REV_AHEAD_US = 5 * 60 * 1_000_000  # protocol.md 2.7
_REV_MAX_VALID_US = 1_000_000


class Scheduler:
    """`submit` never waits; ask `has_room` before reading more from a host."""

    def __init__(
        self,
        *,
        resolver: Resolver,
        accounts: Accounts,
        sequencer: Sequencer,
        status_checker: StatusChecker,
        mode: Validation,
        lane_limits: LaneLimits,
        look_up_limits: LookUpLimits,
        now_us: Callable[[], int],
    ) -> None:
        self._resolver = resolver
        self._accounts = accounts
        self._sequencer = sequencer
        self._mode = mode
        self._now_us = now_us
        self._lanes = Lanes(lane_limits)
        self._look_ups = LookUps(
            resolver=resolver, status_checker=status_checker, lanes=self._lanes, limits=look_up_limits
        )
        self._opened = deque[Lane]()
        self._open_signal = trio.Event()
        self._rev_max = ""
        self._rev_max_made_us = 0

    # what hosts call

    def submit(self, envelope: Envelope) -> None:
        """Judge an event, or let it wait for what its judgement needs."""
        event, host = envelope.event, envelope.origin.host
        if self._lanes:
            lane = self._lanes.get(host, event.did)
            if lane is not None:
                self._lanes.enqueue(lane, envelope)
                return
        identity = self._resolver.cached(event.did)
        if identity is None or identity.host != host or _wants_fresh_identity(event):
            self._open_lane(envelope)
            return
        judgement = self._judge(envelope, identity)
        if isinstance(judgement, Accept):
            self._sequencer.submit(judgement)
        elif judgement.need is None:
            self._drop(envelope, judgement)
        else:
            self._open_lane(envelope)

    def has_room(self, host: str) -> bool:
        """Whether more of this host's events may be read."""
        return self._sequencer.has_room() and self._lanes.has_room(host)

    async def wait_room(self, host: str) -> None:
        """Return when `has_room`."""
        await self._sequencer.wait_room()
        while not self.has_room(host):
            if self._sequencer.has_room():
                await self._lanes.wait_change()
            await self._sequencer.wait_room()

    @property
    def waiting_events(self) -> int:
        """Events in lanes."""
        return self._lanes.events

    async def run(self) -> None:
        """Run the lanes until cancelled. What waits then is unfinished and comes again from its host."""
        async with trio.open_nursery() as nursery:
            while True:
                while self._opened:
                    nursery.start_soon(self._run_lane, self._opened.popleft())
                await self._open_signal.wait()
                self._open_signal = trio.Event()

    # judging

    def _judge(self, envelope: Envelope, identity: Identity) -> Judgement:
        """The rules' judgement. A bug that an event uncovers costs that event, not the process."""
        try:
            return self._apply_rules(envelope, identity)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001  peer data never crashes us (DESIGN 1.11)
            return self._internal_error(envelope, error)

    def _internal_error(self, envelope: Envelope, error: Exception) -> Refusal:
        _logger.exception("event %d of %s met a bug", envelope.origin.seq, envelope.origin.host)
        return Refusal(DropReason.INTERNAL_ERROR, repr(error))

    def _apply_rules(self, envelope: Envelope, identity: Identity) -> Judgement:
        event, origin = envelope.event, envelope.origin
        record = self._accounts.get(event.did)
        match event:
            case CommitEvent():
                return rules.judge_commit(
                    event,
                    key=identity.key,
                    record=record,
                    origin=origin,
                    rev_max=self._newest_rev(),
                    mode=self._mode,
                )
            case SyncEvent():
                return rules.judge_sync(
                    event, key=identity.key, record=record, origin=origin, rev_max=self._newest_rev()
                )
            case AccountEvent():
                return rules.judge_account(event, record=record, origin=origin)
            case IdentityEvent():
                return rules.judge_identity(
                    event, handle=identity.handle, record=record, home=identity.host, origin=origin
                )

    def _newest_rev(self) -> str:
        """The TID that no rev may exceed, made anew every second, and when the clock was set back."""
        now_us = self._now_us()
        if not 0 <= now_us - self._rev_max_made_us < _REV_MAX_VALID_US:
            self._rev_max = tid_from_microseconds(now_us + _REV_AHEAD_US)
            self._rev_max_made_us = now_us
        return self._rev_max

    def _drop(self, envelope: Envelope, refusal: Refusal) -> None:
        origin = envelope.origin
        _logger.debug(
            "drop %s: %s (%s, seq %d of %s)",
            refusal.reason, refusal.detail[:200], envelope.event.did, origin.seq, origin.host,
        )  # fmt: skip
        self._sequencer.submit(Drop(refusal.reason, refusal.detail, origin))

    # lanes

    def _open_lane(self, envelope: Envelope) -> None:
        self._opened.append(self._lanes.open(envelope))
        self._open_signal.set()

    async def _run_lane(self, lane: Lane) -> None:
        """Settle the lane's events in order; the lane ends with the last of them."""
        while lane.queue:
            envelope = lane.queue[0]
            try:
                await self._settle(lane, envelope)
                self._lanes.dequeue(lane)
            except Unresolved as error:
                self._give_up(lane, Refusal(DropReason.IDENTITY_UNRESOLVED, str(error)))
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001  the task boundary of one host's account
                self._drop(envelope, self._internal_error(envelope, error))
                self._lanes.dequeue(lane)
            await self._sequencer.wait_room()
        self._lanes.close(lane)

    def _give_up(self, lane: Lane, refusal: Refusal) -> None:
        """End what can't be judged: one event where only its refresh failed, all where nothing is known."""
        known = self._resolver.cached(lane.did)
        count = 1 if known is not None and known.host == lane.host else len(lane.queue)
        for _ in range(count):
            if _is_ending(lane.queue[0].event) and self._is_on_record(lane):
                self._accept_ending(lane.queue[0])
            else:
                self._drop(lane.queue[0], refusal)
            self._lanes.dequeue(lane)

    async def _settle(self, lane: Lane, envelope: Envelope) -> None:
        """Bring one event to its verdict, looking up what that needs."""
        known = self._resolver.cached(lane.did)
        if _is_ending(envelope.event):
            if await self._is_at_home(lane, known):
                self._accept_ending(envelope)
                return
            known = self._resolver.cached(lane.did)
        identity, fresh = await self._find_identity(lane, envelope.event, known)
        if identity.host != lane.host and not _is_news(envelope.event, known, identity):
            is_identity = isinstance(envelope.event, IdentityEvent)
            reason = DropReason.IDENTITY_UNCHANGED if is_identity else DropReason.WRONG_HOST
            self._drop(envelope, Refusal(reason, f"the account's host is {identity.host}"))
            return
        judgement = self._judge(envelope, identity)
        if isinstance(judgement, Accept):
            self._sequencer.submit(judgement)
        elif judgement.need is Need.HOSTING_STATUS and await self._is_active(lane):
            await self._settle(lane, envelope)  # the account is active now, and its identity may have moved meanwhile
        elif judgement.need is Need.FRESH_KEY and not fresh and self._look_ups.may_refresh(lane):
            await self._look_ups.refresh(lane)
            await self._settle(lane, envelope)  # its look-up is covered now
        else:
            self._drop(envelope, judgement)

    async def _find_identity(self, lane: Lane, event: RepoEvent, known: Identity | None) -> tuple[Identity, bool]:
        """The account's identity, and whether it was asked for after this event came."""
        if known is not None and lane.covered:
            return known, True
        is_new = known is None
        if known is None:
            known = await self._look_ups.resolve(lane)
        if known.host != lane.host:
            if not self._look_ups.may_refresh(lane):
                return known, False
            return await self._look_ups.refresh(lane), True
        if is_new:  # a look-up that others had begun may be older than the event: a bad signature asks again
            return known, False
        if isinstance(event, IdentityEvent):
            # From the account's own host: wait for the budget rather than miss a rotated key.
            await self._look_ups.wait_may_refresh(lane)
            return await self._look_ups.refresh(lane), True
        return known, False

    async def _is_at_home(self, lane: Lane, known: Identity | None) -> bool:
        """Whether the lane's host may end the account: by its document, or by our own record where that is gone."""
        identity = await self._look_ups.refresh_or(lane, known)
        if identity is not None:
            return identity.host == lane.host
        return self._is_on_record(lane)

    def _is_on_record(self, lane: Lane) -> bool:
        record = self._accounts.get(lane.did)
        return record is not None and record.host == lane.host

    def _accept_ending(self, envelope: Envelope) -> None:
        event = envelope.event
        assert isinstance(event, AccountEvent)
        record = self._accounts.get(event.did)
        self._sequencer.submit(rules.judge_account(event, record=record, origin=envelope.origin))

    async def _is_active(self, lane: Lane) -> bool:
        """Ask the host whether the account is active after all; if so, say so to the consumers first."""
        answer = await self._look_ups.hosting_status(lane)
        record = self._accounts.get(lane.did)
        if answer is None or not answer.active or record is None:
            return False
        now = datetime.fromtimestamp(self._now_us() / 1e6, UTC).isoformat(timespec="milliseconds")
        head, tail = frames.account_message(lane.did, now.replace("+00:00", "Z"), True, answer.status or None)
        account = AccountRecord(
            record.host, record.local_status, True, answer.status, record.rev, record.commit, record.data,
            record.ordinal,
        )  # fmt: skip
        self._sequencer.submit(Accept(EventKind.ACCOUNT, lane.did, head, tail, account, origin=None))
        return True


def _wants_fresh_identity(event: RepoEvent) -> bool:
    """Events that are about the document itself, or with which a former home could end an account that has moved."""
    return type(event) is IdentityEvent or _is_ending(event)


def _is_ending(event: RepoEvent) -> bool:
    """`#account` that ends or pauses an account."""
    return type(event) is AccountEvent and not event.active


def _is_news(event: RepoEvent, known: Identity | None, identity: Identity) -> bool:
    """An `#identity` that is not from the account's host counts only if the document did change."""
    if not isinstance(event, IdentityEvent) or known is None:
        return False
    return (known.key.compressed, known.host, known.handle) != (
        identity.key.compressed, identity.host, identity.handle,
    )  # fmt: skip
