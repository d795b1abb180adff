"""A scheduler over a real resolver, a real log and the fake network's directory and hosts. A trio shell.

Owns the wiring, with short times, and the hosts' streams up to the scheduler: messages go through real subscriptions,
but over no socket.
"""

import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import dns.asyncresolver
import trio

from relay.eventlog import keys
from relay.eventlog.log import EventLog, LogSettings, open_log
from relay.eventlog.sequencer import SequencerLimits
from relay.eventlog.verdict import Drop, DropReason
from relay.hosts.subscription import Subscription
from relay.identity.cache import IdentityCache
from relay.identity.limits import ResolverLimits
from relay.identity.plc import PlcDirectory
from relay.identity.resolver import Resolver
from relay.identity.web import WebHosts
from relay.net.dial import Dialer
from relay.net.http_client import HttpClient
from relay.validation.envelope import Envelope
from relay.validation.lanes import LaneLimits
from relay.validation.lookups import LookUpLimits
from relay.validation.rules import Validation
from relay.validation.scheduler import Scheduler
from relay.validation.status import StatusChecker
from tests.world import websocket as ws
from tests.world.frames import Parsed, parse
from tests.world.network import Account, Emitted, World
from tests.world.pds import FakeHost

LANES = LaneLimits()
LIMITS = LookUpLimits(unresolved_seconds=60.0, retry_min_seconds=0.01, retry_max_seconds=0.02)
RESOLVING = ResolverLimits(look_up_spacing_seconds=0.005, pause_seconds=0.02, absent_seconds=0.02)
STATUS = "/xrpc/com.atproto.sync.getRepoStatus"
_SECONDS = 10
_LOG = LogSettings(limits=SequencerLimits(sync_interval_seconds=0.0005, cursor_interval_seconds=0.01))


def now_us() -> int:
    return time.time_ns() // 1000


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(_SECONDS):
        while not condition():
            await trio.sleep(0.002)


class Rig:
    """What a test sees and does."""

    def __init__(self, *, world: World, log: EventLog, scheduler: Scheduler, resolver: Resolver) -> None:
        self.world = world
        self.log = log
        self.scheduler = scheduler
        self.resolver = resolver
        self.running = trio.CancelScope()
        """Cancelling it stops the scheduler."""
        self._subscriptions = {
            host.name: Subscription(host=host.name, progress=log.hosts.progress(host.name)) for host in world.hosts
        }
        for subscription in self._subscriptions.values():
            subscription.begin()
        self._delivered = len(world.emitted)

    def deliver(self) -> None:
        """Hand over, in order, what the hosts emitted since the last time."""
        emitted, self._delivered = self.world.emitted[self._delivered :], len(self.world.emitted)
        self.receive(emitted)

    @property
    def all_delivered(self) -> bool:
        """Whether the hosts emitted nothing since."""
        return self._delivered == len(self.world.emitted)

    def receive(self, emitted: Iterable[Emitted]) -> None:
        """Hand over these events, each as its host's connection would."""
        for event in emitted:
            outcome = self._subscriptions[event.host].receive(event.message)
            if isinstance(outcome, Envelope):
                self.scheduler.submit(outcome)
            elif isinstance(outcome, Drop):
                self.log.sequencer.submit(outcome)

    @property
    def events(self) -> list[Parsed]:
        """Everything that came out so far."""
        data, after = b"", 0
        while (segment := self.log.reader.read(after, 1 << 20)).last_seq > after:
            data += segment.data
            after = segment.last_seq
        return [parse(frame.payload) for frame in ws.FrameReader().feed(data)]

    def unfinished(self, host: FakeHost) -> list[int]:
        """The numbers of a host's stream that hold its cursor back."""
        return self.log.hosts.progress(host.name).unfinished

    def drops(self) -> dict[DropReason, int]:
        """Counts by reason, zeros left out."""
        return {reason: count for reason, count in self.log.sequencer.drops.items() if count}

    def look_ups(self, account: Account) -> int:
        """How often the directory was asked."""
        return self.world.directory.requests[account.did]

    def rev(self, account: Account) -> str:
        """The last rev that was accepted of an account; that of an event judged inline is there at once."""
        record = self.log.accounts.get(account.did)
        return "" if record is None else record.rev

    async def idle(self) -> None:
        """Return once no event waits and what was accepted (of less than a batch) is out."""
        await until(lambda: self.scheduler.waiting_events == 0)
        await self.log.sequencer.add_host(self.world.hosts[0].name)

    async def known(self, account: Account) -> None:
        """Let an account's first events through, so that its identity is cached."""
        self.deliver()
        await self.idle()
        assert self.resolver.cached(account.did) is not None


def _client(total_seconds: float) -> HttpClient:
    dialer = Dialer(
        allow_private=True,
        ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        dns_resolver=dns.asyncresolver.Resolver(configure=False),
        attempt_seconds=5.0,
        total_seconds=5.0,
    )
    return HttpClient(dialer=dialer, user_agent="atproto-relay/test", total_seconds=total_seconds, connections_max=50)


@asynccontextmanager
async def open_rig(
    world: World,
    path: Path,
    *,
    lanes: LaneLimits = LANES,
    limits: LookUpLimits = LIMITS,
    mode: Validation = Validation.STRICT,
    http_seconds: float = 5.0,
    clock_us: Callable[[], int] = now_us,
) -> AsyncIterator[Rig]:
    """A running scheduler over the log at `path`, which may exist; the world must be served by the caller.

    `clock_us` is the clock that revs and the log's times are held against.
    """
    http = _client(http_seconds)
    log = open_log(path, retention_hours=72, retention_bytes=1 << 30, settings=_LOG, now_us=clock_us)
    resolver = Resolver(
        plc=PlcDirectory(url=world.directory.url, http=http, limits=RESOLVING),
        web=WebHosts(http=http, allow_private=True, limits=RESOLVING),
        cache=IdentityCache(family=log.store.family(keys.IDENTITIES), entries_max=1000),
        limits=RESOLVING,
        clock=time.time,
        allow_private=True,
    )
    scheduler = Scheduler(
        resolver=resolver,
        accounts=log.accounts,
        sequencer=log.sequencer,
        status_checker=StatusChecker(http=http, allow_private=True, memory_seconds=300.0, entries_max=100),
        mode=mode,
        lane_limits=lanes,
        look_up_limits=limits,
        now_us=clock_us,
    )
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.sequencer.run)
            for host in world.hosts:
                await log.sequencer.add_host(host.name)
            rig = Rig(world=world, log=log, scheduler=scheduler, resolver=resolver)

            async def run() -> None:
                with rig.running:
                    await scheduler.run()

            nursery.start_soon(run)
            yield rig
            nursery.cancel_scope.cancel()
        await log.sequencer.flush()
    finally:
        log.store.close()
        with trio.CancelScope(shield=True):
            await http.aclose()
