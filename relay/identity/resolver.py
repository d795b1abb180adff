"""DID to identity: cached, one look-up per DID at a time, renewed ahead of its age. Trio.

Owns the flights, the memory of absent DIDs, and when an identity is too old. Does not limit who may ask for how
many look-ups: the budgets per host and account are validation's. Source: DESIGN 5.2, protocol.md 6.

Look-ups of one DID begin at least `look_up_spacing_seconds` apart. A `refresh` waits that out rather than take the
previous answer: its promise is a document asked for after the call, so that a key rotated a moment ago is seen.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from copy import copy
from typing import Protocol
from zlib import crc32

import trio
from cachetools import TTLCache

from relay.identity.cache import IdentityCache
from relay.identity.document import Identity, InvalidDocument, parse
from relay.identity.failure import DirectoryUnavailable, IdentityFailure, IdentityNotFound, InvalidIdentity
from relay.identity.limits import ResolverLimits
from relay.identity.plc import PlcDirectory
from relay.identity.web import WebHosts

CLOCK_SKEW_SECONDS = 300.0  # how far an identity may lie in the future before the clock is taken to have been wrong
_RECENT_ENTRIES_MAX = 10_000


class _Source(Protocol):
    def turn(self, did: str) -> AbstractAsyncContextManager[None]: ...
    async def fetch(self, did: str) -> bytes: ...


class _Flight:
    """One look-up: `begun` once the request may be on its way."""

    __slots__ = ("begun", "failure", "identity", "landed", "overtaken")

    def __init__(self) -> None:
        self.begun = False
        self.overtaken = False
        self.landed = trio.Event()
        self.identity: Identity | None = None
        self.failure: IdentityFailure | DirectoryUnavailable | None = None

    async def join(self) -> Identity | None:
        """Waits for what its leader gets, or raises what its leader raises; None if its leader was cancelled."""
        await self.landed.wait()
        if self.failure is not None:
            raise copy(self.failure)
        return self.identity


class Resolver:
    """Resolves DIDs. Times of identities are Unix times by `clock`."""

    def __init__(
        self,
        *,
        plc: PlcDirectory,
        web: WebHosts,
        cache: IdentityCache,
        limits: ResolverLimits,
        clock: Callable[[], float],
        allow_private: bool,
    ) -> None:
        self._plc = plc
        self._web = web
        self._cache = cache
        self._limits = limits
        self._clock = clock
        self._allow_private = allow_private
        self._flights: dict[str, _Flight] = {}
        timer = trio.current_time
        self._absent: TTLCache[str, None] = TTLCache(limits.absent_entries_max, limits.absent_seconds, timer)
        self._recent: TTLCache[str, float] = TTLCache(_RECENT_ENTRIES_MAX, limits.look_up_spacing_seconds, timer)
        self._renewed: TTLCache[str, None] = TTLCache(limits.ahead_entries_max, limits.ahead_retry_seconds, timer)
        self._to_renew, self._renewals = trio.open_memory_channel[str](limits.ahead_entries_max)
        self._outcomes: Counter[str] = Counter()

    def cached(self, did: str) -> Identity | None:
        """The identity if it is known and younger than its hard age. No waiting; for every event."""
        identity = self._cache.get(did)
        if identity is None:
            return None
        age = self._clock() - identity.fetched_at
        if -CLOCK_SKEW_SECONDS < age < self._limits.ahead_seconds_min:
            return identity
        return self._aged(identity, age)

    async def resolve(self, did: str) -> Identity:
        """The cached identity, or else the looked-up one. Raises an IdentityFailure or DirectoryUnavailable.

        A DID that was not found is not looked up again for `absent_seconds`.
        """
        await trio.lowlevel.checkpoint()
        while True:
            identity = self.cached(did)
            if identity is not None:
                return identity
            if did in self._absent:
                raise IdentityNotFound(f"{did} was not found a moment ago")
            flight = self._flights.get(did)
            if flight is None:
                return await self._fly(did)
            identity = await flight.join()
            if identity is not None:
                return identity

    async def refresh(self, did: str) -> Identity:
        """The identity by a look-up that begins after this call, shared by all who wait for it. Raises as
        `resolve` does; a cached identity survives failures that may pass, not the others."""
        while True:
            flight = self._flights.get(did)
            if flight is None:
                return await self._fly(did)
            if flight.begun:
                await flight.landed.wait()
                continue
            identity = await flight.join()
            if identity is not None:
                return identity

    def purge(self, did: str) -> None:
        """Forget the DID, also what a look-up under way will say."""
        self._cache.delete(did)
        self._absent.pop(did, None)
        flight = self._flights.get(did)
        if flight is not None and flight.begun:
            flight.overtaken = True

    async def run(self) -> None:
        """Renews ageing identities, until cancelled. Everything else works without."""
        async with trio.open_nursery() as nursery:
            for _ in range(self._limits.ahead_concurrency):
                nursery.start_soon(self._renew)

    @property
    def in_flight(self) -> int:
        """How many DIDs are being looked up or wait for it."""
        return len(self._flights)

    @property
    def outcomes(self) -> Mapping[str, int]:
        """How many look-ups ended how: `found`, or the name of the failure's class."""
        return self._outcomes

    def _aged(self, identity: Identity, age: float) -> Identity | None:
        limits = self._limits
        if not -CLOCK_SKEW_SECONDS < age < limits.identity_seconds_max:
            return None
        share = crc32(identity.did.encode()) / 2**32
        if age > limits.ahead_seconds_min + share * (limits.ahead_seconds_max - limits.ahead_seconds_min):
            self._renew_soon(identity.did)
        return identity

    def _renew_soon(self, did: str) -> None:
        if did not in self._renewed:
            try:
                self._to_renew.send_nowait(did)
            except trio.WouldBlock:
                return  # its next event asks again
            self._renewed[did] = None

    async def _renew(self) -> None:
        async for did in self._renewals:
            await self._plc.wait_idle()
            try:
                await self.refresh(did)
            except DirectoryUnavailable as failure:
                await trio.sleep(max(failure.retry_seconds, self._limits.pause_seconds))
            except IdentityFailure:
                pass  # counted; while the identity serves, nobody waits for this

    async def _fly(self, did: str) -> Identity:
        """Looks a DID up as the leader of a new flight."""
        flight = self._flights[did] = _Flight()
        try:
            flight.identity = await self._look_up(did, flight)
        except (IdentityFailure, DirectoryUnavailable) as failure:
            flight.failure = failure
            self._outcomes[type(failure).__name__] += 1
            raise
        else:
            self._outcomes["found"] += 1
            return flight.identity
        finally:
            del self._flights[did]
            flight.landed.set()

    async def _look_up(self, did: str, flight: _Flight) -> Identity:
        source = self._source(did)
        await trio.sleep(max(0.0, self._recent.get(did, 0.0) - trio.current_time()))
        async with source.turn(did):
            flight.begun = True
            self._recent[did] = trio.current_time() + self._limits.look_up_spacing_seconds
            fetched_at = self._clock()
            try:
                document = await source.fetch(did)
                identity = parse(did, document, fetched_at=fetched_at, allow_private=self._allow_private)
            except IdentityNotFound:
                self._cache.delete(did)
                self._absent[did] = None
                raise
            except (InvalidIdentity, InvalidDocument) as error:
                self._cache.delete(did)
                raise InvalidIdentity(str(error)) from error
        if not flight.overtaken:
            self._cache.put(identity)
        return identity

    def _source(self, did: str) -> _Source:
        if did.startswith("did:plc:"):
            return self._plc
        if did.startswith("did:web:"):
            return self._web
        raise InvalidIdentity(f"not a DID of a supported method: {did[:80]!r}")
