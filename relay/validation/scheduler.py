"""Every account's events in order, through the rules, to the sequencer (trio).

An event whose host is the account's cached home is judged at once, on the spot. Any other, and any that needs a
newer fact, waits in a lane of its own (host, account) for one look-up; later events of that host and account wait
behind it (DESIGN 1.4, 5.2). Lanes are bounded; a host with a full one is not read. Owns lanes and look-up budgets;
the checks themselves are `rules.py`.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import trio
from cachetools import LRUCache

from relay.atproto import frames
from relay.atproto.events import AccountEvent, CommitEvent, IdentityEvent, SyncEvent
from relay.atproto.syntax import tid_from_microseconds
from relay.eventlog.accounts import Accounts
from relay.eventlog.keys import EventKind
from relay.eventlog.records import AccountRecord
from relay.eventlog.sequencer import Sequencer
from relay.eventlog.verdict import Accept, Drop, DropReason
from relay.identity.document import Identity
from relay.identity.failure import DirectoryUnavailable, IdentityFailure
from relay.identity.resolver import Resolver
from relay.validation import rules
from relay.validation.budget import TokenBucket
from relay.validation.envelope import Envelope
from relay.validation.rules import Judgement, Need, Refusal, Validation
from relay.validation.status import StatusChecker

_logger = logging.getLogger(__name__)

_REV_AHEAD_US = 5 * 60 * 1_000_000  # protocol.md 2.7


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """Bounds of waiting events (DESIGN 5.2) and of the look-ups that one party may cause.

    An unfinished event is in a lane or in the sequencer's inbox, so `host_events_max` and `inbox_events_max` together
    keep a host below 4,096 unfinished numbers, give or take what one read of its socket brings.
    """

    lane_events_max: int = 64
    lane_bytes_max: int = 4 << 20
    host_events_max: int = 2048
    total_bytes_max: int = 256 << 20
    unresolved_seconds: float = 600.0
    retry_min_seconds: float = 1.0
    retry_max_seconds: float = 60.0
    host_lookups_per_second: float = 100.0
    host_lookups_burst: float = 1000.0
    account_refreshes_per_second: float = 0.1
    account_refreshes_burst: float = 10.0
    account_budgets_max: int = 50_000


class _Lane:
    """Events of one account from one host, waiting in order.

    `failed`: a look-up of this account failed. `covered`: how many of its first events were there when the last
    successful look-up began, and so need none of their own.
    """

    __slots__ = ("covered", "did", "failed", "host", "overflow", "queue", "size")

    def __init__(self, host: str, did: str) -> None:
        self.host = host
        self.did = did
        self.queue: deque[Envelope] = deque()
        self.size = 0
        self.covered = 0
        self.failed = False
        self.overflow = trio.Event()


class _Unresolved(Exception):
    """An account's identity could not be found out within its deadline or room."""


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
        limits: LaneLimits,
        now_us: Callable[[], int],
    ) -> None:
        self._resolver = resolver
        self._accounts = accounts
        self._sequencer = sequencer
        self._status_checker = status_checker
        self._mode = mode
        self._limits = limits
        self._now_us = now_us
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._waiting_events: dict[str, int] = {}
        self._full_lanes: dict[str, int] = {}
        self._waiting_bytes = 0
        self._room = trio.Event()
        self._opened = deque[_Lane]()
        self._open_signal = trio.Event()
        self._host_budgets: dict[str, TokenBucket] = {}
        self._account_budgets: LRUCache[tuple[str, str], TokenBucket] = LRUCache(limits.account_budgets_max)
        self._rev_max = ""
        self._rev_max_until_us = 0

    # what hosts call

    def submit(self, envelope: Envelope) -> None:
        """Judge an event, or let it wait for what its judgement needs."""
        event, host = envelope.event, envelope.origin.host
        if self._lanes:
            lane = self._lanes.get((host, event.did))
            if lane is not None:
                self._enqueue(lane, envelope)
                return
        identity = self._resolver.cached(event.did)
        if identity is None or identity.host != host or type(event) is IdentityEvent:
            self._open_lane(envelope)
            return
        judgement = self._judge(envelope, identity)
        if type(judgement) is Accept:
            self._sequencer.submit(judgement)
        elif judgement.need is None:  # type: ignore[union-attr]
            self._drop(envelope, judgement)  # type: ignore[arg-type]
        else:
            self._open_lane(envelope)

    def has_room(self, host: str) -> bool:
        """Whether more of this host's events may be read."""
        if not self._sequencer.has_room():
            return False
        waiting = self._waiting_events.get(host)
        if waiting is None:
            return True
        return (
            waiting < self._limits.host_events_max
            and not self._full_lanes.get(host)
            and self._waiting_bytes < self._limits.total_bytes_max
        )

    async def wait_room(self, host: str) -> None:
        """Return when `has_room`."""
        await self._sequencer.wait_room()
        while not self.has_room(host):
            if self._sequencer.has_room():
                await self._room.wait()
            await self._sequencer.wait_room()

    @property
    def waiting_events(self) -> int:
        """Events in lanes."""
        return sum(self._waiting_events.values())

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
        """The TID that no rev may exceed, made anew every second."""
        now_us = self._now_us()
        if now_us >= self._rev_max_until_us:
            self._rev_max = tid_from_microseconds(now_us + _REV_AHEAD_US)
            self._rev_max_until_us = now_us + 1_000_000
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
        host, did = envelope.origin.host, envelope.event.did
        lane = self._lanes[host, did] = _Lane(host, did)
        self._enqueue(lane, envelope)
        self._opened.append(lane)
        self._open_signal.set()

    def _is_full(self, lane: _Lane) -> bool:
        return len(lane.queue) >= self._limits.lane_events_max or lane.size >= self._limits.lane_bytes_max

    def _enqueue(self, lane: _Lane, envelope: Envelope) -> None:
        was_full = self._is_full(lane)
        lane.queue.append(envelope)
        lane.size += envelope.size
        self._waiting_bytes += envelope.size
        self._waiting_events[lane.host] = self._waiting_events.get(lane.host, 0) + 1
        if not was_full and self._is_full(lane):
            self._full_lanes[lane.host] = self._full_lanes.get(lane.host, 0) + 1
            lane.overflow.set()

    def _dequeue(self, lane: _Lane) -> None:
        was_full = self._is_full(lane)
        envelope = lane.queue.popleft()
        lane.covered = max(0, lane.covered - 1)
        lane.size -= envelope.size
        self._waiting_bytes -= envelope.size
        self._waiting_events[lane.host] -= 1
        if not self._waiting_events[lane.host]:
            del self._waiting_events[lane.host]
        if was_full and not self._is_full(lane):
            self._full_lanes[lane.host] -= 1
            lane.overflow = trio.Event()
        room, self._room = self._room, trio.Event()
        room.set()

    async def _run_lane(self, lane: _Lane) -> None:
        """Settle the lane's events in order; the lane ends with the last of them."""
        while lane.queue:
            envelope = lane.queue[0]
            try:
                await self._settle(lane, envelope)
                self._dequeue(lane)
            except _Unresolved as error:
                refusal = Refusal(DropReason.IDENTITY_UNRESOLVED, str(error))
                while lane.queue:
                    self._drop(lane.queue[0], refusal)
                    self._dequeue(lane)
            await self._sequencer.wait_room()
        del self._lanes[lane.host, lane.did]

    async def _settle(self, lane: _Lane, envelope: Envelope) -> None:
        """Bring one event to its verdict, looking up what that needs, each thing once."""
        known = self._resolver.cached(lane.did)
        identity, fresh = await self._find_identity(lane, envelope, known)
        if identity.host != lane.host and not self._is_foreign_news(envelope, known, identity):
            reason = DropReason.WRONG_HOST
            if isinstance(envelope.event, IdentityEvent):
                reason = DropReason.IDENTITY_UNCHANGED
            self._drop(envelope, Refusal(reason, f"the account's host is {identity.host}"))
            return
        judgement = self._judge(envelope, identity)
        if isinstance(judgement, Refusal) and judgement.need is Need.HOSTING_STATUS and await self._is_active(lane):
            judgement = self._judge(envelope, identity)
        if (
            isinstance(judgement, Refusal)
            and judgement.need is Need.FRESH_KEY
            and not fresh
            and self._may_refresh(lane)
        ):
            identity = await self._look_up(lane, self._resolver.refresh)
            if identity.host == lane.host:
                judgement = self._judge(envelope, identity)
        if isinstance(judgement, Accept):
            self._sequencer.submit(judgement)
        else:
            self._drop(envelope, judgement)

    async def _find_identity(self, lane: _Lane, envelope: Envelope, known: Identity | None) -> tuple[Identity, bool]:
        """The account's identity, and whether it was asked for after this event came."""
        if known is None:
            return await self._look_up(lane, self._resolver.resolve), True
        if lane.covered:
            return known, True
        if known.host != lane.host:
            if not self._may_refresh(lane):
                return known, False
            return await self._look_up(lane, self._resolver.refresh), True
        if isinstance(envelope.event, IdentityEvent):
            # From the account's own host: wait for the budget rather than miss a rotated key.
            await trio.sleep(self._account_budget(lane).reserve(trio.current_time()))
            return await self._look_up(lane, self._resolver.refresh), True
        return known, False

    def _is_foreign_news(self, envelope: Envelope, known: Identity | None, identity: Identity) -> bool:
        """An `#identity` that is not from the account's host counts only if the document did change."""
        if not isinstance(envelope.event, IdentityEvent) or known is None:
            return False
        return (known.key.compressed, known.host, known.handle) != (
            identity.key.compressed, identity.host, identity.handle,
        )  # fmt: skip

    async def _is_active(self, lane: _Lane) -> bool:
        """Ask the host whether the account is active after all; if so, say so to the consumers first."""
        answer = await self._status_checker.check(lane.host, lane.did)
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

    # look-ups

    def _account_budget(self, lane: _Lane) -> TokenBucket:
        budget = self._account_budgets.get((lane.host, lane.did))
        if budget is None:
            budget = self._account_budgets[lane.host, lane.did] = TokenBucket(
                per_second=self._limits.account_refreshes_per_second,
                burst=self._limits.account_refreshes_burst,
                now=trio.current_time(),
            )
        return budget

    def _may_refresh(self, lane: _Lane) -> bool:
        return self._account_budget(lane).take(trio.current_time())

    def _host_budget(self, host: str) -> TokenBucket:
        budget = self._host_budgets.get(host)
        if budget is None:
            budget = self._host_budgets[host] = TokenBucket(
                per_second=self._limits.host_lookups_per_second,
                burst=self._limits.host_lookups_burst,
                now=trio.current_time(),
            )
        return budget

    async def _look_up(self, lane: _Lane, fetch: Callable[[str], Awaitable[Identity]]) -> Identity:
        """Fetch until it works. Only a failure of this account alone has a deadline (DESIGN 5.2).

        Raises:
            _Unresolved: it failed again, and the deadline passed or the lane is full.
        """
        failing_since: float | None = None
        delay = self._limits.retry_min_seconds
        while True:
            await trio.sleep(self._host_budget(lane.host).reserve(trio.current_time()))
            waiting = len(lane.queue)
            try:
                identity = await fetch(lane.did)
            except DirectoryUnavailable:
                lane.failed, failing_since = False, None
            except IdentityFailure as error:
                now = trio.current_time()
                lane.failed = True
                if failing_since is None:
                    failing_since = now  # a first failure may be the last of an outage: not even a full lane ends yet
                elif self._is_full(lane) or now - failing_since >= self._limits.unresolved_seconds:
                    raise _Unresolved(str(error)) from error
            else:
                lane.failed, lane.covered = False, waiting
                return identity
            # A full lane ends the wait only where it ends the lane.
            ended = lane.overflow if lane.failed else trio.Event()
            with trio.move_on_after(delay):
                await ended.wait()
            delay = min(delay * 2, self._limits.retry_max_seconds)
