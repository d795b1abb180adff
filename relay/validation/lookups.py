"""Look-ups of identities on behalf of waiting events (trio): budgets, repetition, deadlines.

Budgets are per host and per (host, account), so that a foreign host can neither stop nor spend what belongs to the
real one (DESIGN 1.4). Only a failure of one account alone has a deadline (DESIGN 5.2). What the answer means for the
event is the scheduler's.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio
from cachetools import LRUCache

from relay.identity.document import Identity
from relay.identity.failure import DirectoryUnavailable, IdentityFailure
from relay.identity.resolver import Resolver
from relay.net.token_bucket import TokenBucket
from relay.validation.lanes import Lane, Lanes
from relay.validation.status import HostingStatus, StatusChecker


@dataclass(frozen=True, slots=True)
class LookUpLimits:
    """What one host, or one account at one host, may make the relay ask, and how long it asks in vain."""

    unresolved_seconds: float = 600.0
    retry_min_seconds: float = 1.0
    retry_max_seconds: float = 60.0
    host_per_second: float = 50.0
    host_burst: float = 100.0
    host_concurrency: int = 8
    account_refreshes_per_second: float = 0.1
    account_refreshes_burst: float = 10.0
    account_budgets_max: int = 50_000


class Unresolved(Exception):
    """An account's identity could not be found out within its deadline or room."""


class LookUps:
    """Asks the resolver and the hosts, within budgets."""

    def __init__(
        self, *, resolver: Resolver, status_checker: StatusChecker, lanes: Lanes, limits: LookUpLimits
    ) -> None:
        self._resolver = resolver
        self._status_checker = status_checker
        self._lanes = lanes
        self._limits = limits
        self._hosts: dict[str, tuple[TokenBucket, trio.CapacityLimiter]] = {}
        self._accounts: LRUCache[tuple[str, str], TokenBucket] = LRUCache(limits.account_budgets_max)

    def may_refresh(self, lane: Lane) -> bool:
        """Take a refresh from the account's budget, if there is one."""
        return self._account_budget(lane).take(trio.current_time())

    async def wait_may_refresh(self, lane: Lane) -> None:
        """Take a refresh from the account's budget; return when it may be used."""
        await trio.sleep(self._account_budget(lane).reserve(trio.current_time()))

    async def resolve(self, lane: Lane) -> Identity:
        """The lane's account, from the cache or by whatever look-up is under way. Raises Unresolved."""
        return await self._until_found(lane, self._resolver.resolve)

    async def refresh(self, lane: Lane) -> Identity:
        """The lane's account, asked for after this call. Raises Unresolved."""
        waiting = len(lane.queue)
        identity = await self._until_found(lane, self._resolver.refresh)
        lane.covered = waiting
        return identity

    async def refresh_or(self, lane: Lane, known: Identity | None) -> Identity | None:
        """As `refresh`, but tried once: what is known does where there is no answer, or no budget."""
        if known is not None and lane.covered:
            return known
        if not self.may_refresh(lane):
            return known
        waiting = len(lane.queue)
        try:
            identity = await self._ask(lane.host, lane.did, self._resolver.refresh)
        except (IdentityFailure, DirectoryUnavailable):
            return known
        lane.covered = waiting
        return identity

    async def hosting_status(self, lane: Lane) -> HostingStatus | None:
        """What the lane's host says of its account now; None where it says nothing usable."""
        _, slots = self._of_host(lane.host)
        async with slots:
            return await self._status_checker.check(lane.host, lane.did)

    async def _ask(self, host: str, did: str, fetch: Callable[[str], Awaitable[Identity]]) -> Identity:
        budget, slots = self._of_host(host)
        await trio.sleep(budget.reserve(trio.current_time()))
        async with slots:  # what one host's accounts make slow must not use up everybody's look-ups
            return await fetch(did)

    async def _until_found(self, lane: Lane, fetch: Callable[[str], Awaitable[Identity]]) -> Identity:
        limits = self._limits
        failing_since: float | None = None
        delay = limits.retry_min_seconds
        while True:
            try:
                identity = await self._ask(lane.host, lane.did, fetch)
            except DirectoryUnavailable:
                lane.failed, failing_since = False, None
            except IdentityFailure as error:
                now = trio.current_time()
                lane.failed = True
                if failing_since is None:
                    failing_since = now  # a first failure may be the last of an outage: not even a full lane ends yet
                elif self._lanes.is_full(lane) or now - failing_since >= limits.unresolved_seconds:
                    raise Unresolved(str(error)) from error
            else:
                lane.failed = False
                return identity
            # A full lane ends the wait only where it ends the lane.
            ended = lane.overflow if lane.failed else trio.Event()
            with trio.move_on_after(delay):
                await ended.wait()
            delay = min(delay * 2, limits.retry_max_seconds)

    def _account_budget(self, lane: Lane) -> TokenBucket:
        budget = self._accounts.get((lane.host, lane.did))
        if budget is None:
            budget = self._accounts[lane.host, lane.did] = TokenBucket(
                per_second=self._limits.account_refreshes_per_second, burst=self._limits.account_refreshes_burst
            )
        return budget

    def _of_host(self, host: str) -> tuple[TokenBucket, trio.CapacityLimiter]:
        found = self._hosts.get(host)
        if found is None:
            limits = self._limits
            found = self._hosts[host] = (
                TokenBucket(per_second=limits.host_per_second, burst=limits.host_burst),
                trio.CapacityLimiter(limits.host_concurrency),
            )
        return found
