"""Which hosts are followed, and when each is dialled again. Trio.

Owns one task per host, their backoff and their statuses, and `requestCrawl`. No host is given up for good, and no
host's misbehaviour reaches another. Does not speak to hosts itself: `connection.py` does.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import trio

from relay.eventlog.errors import StoreError
from relay.eventlog.records import HostStatus
from relay.hosts.backoff import Backoff
from relay.hosts.connection import Connection, ConnectionParts, Traffic
from relay.hosts.discovery import find_fault
from relay.hosts.ended import Cause, Ended, describe
from relay.hosts.pings import PingSweep
from relay.hosts.settings import HostSettings
from relay.hosts.sink import EventSink, HostWriter, KnownHosts
from relay.hosts.subscription import Subscription
from relay.net.dial import Dialer
from relay.net.hostname import HostName, InvalidHostname, parse
from relay.net.http_client import HttpClient

_logger = logging.getLogger(__name__)


class CrawlRefused(Exception):
    """A requestCrawl that is not followed: the HTTP status, the error's name and why."""

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message


@dataclass(frozen=True, slots=True)
class HostStatistics:
    """One host since the start of the process. Seconds are ages as of now; None where they don't apply."""

    name: str
    connected_seconds: float | None
    retry_in_seconds: float | None
    connections: int
    messages: int
    events: int
    bytes: int
    last_end: Ended | None


@dataclass(frozen=True, slots=True)
class SupervisorStatistics:
    """All hosts, by name, and their sums."""

    hosts: tuple[HostStatistics, ...]
    connected: int
    messages: int
    events: int
    bytes: int


class _Host:
    """One host's task, between its connections too."""

    __slots__ = (
        "backoff",
        "connection",
        "down_since",
        "last_end",
        "name",
        "retry_at",
        "subscription",
        "traffic",
        "wake",
    )

    def __init__(self, name: HostName, subscription: Subscription, backoff: Backoff, now: float) -> None:
        self.name = name
        self.subscription = subscription
        self.backoff = backoff
        self.traffic = Traffic()
        self.connection: Connection | None = None
        self.down_since = now
        self.last_end: Ended | None = None
        self.retry_at: float | None = None
        self.wake = trio.Event()

    @property
    def is_up(self) -> bool:
        return self.connection is not None and self.connection.up_at is not None


class Supervisor:
    """Follows hosts while `run` runs."""

    def __init__(
        self,
        *,
        settings: HostSettings,
        known: KnownHosts,
        writer: HostWriter,
        sink: EventSink,
        dialer: Dialer,
        http: HttpClient,
        allow_private: bool,
        random: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._known = known
        self._writer = writer
        self._http = http
        self._allow_private = allow_private
        self._random = random
        self._pings = PingSweep(
            interval_seconds=settings.ping_interval_seconds, deadline_seconds=settings.pong_deadline_seconds
        )
        self._parts = ConnectionParts(
            settings=settings,
            dialer=dialer,
            sink=sink,
            pings=self._pings,
            receive_buffer=bytearray(settings.receive_buffer_bytes),
        )
        self._hosts: dict[str, _Host] = {}
        self._probes = trio.CapacityLimiter(settings.probes_max)
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start every stored host that is not banned, at a bounded rate, and follow all until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._pings.run)
                task_status.started()
                await self._start_known()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            self._hosts.clear()

    def add(self, name: HostName) -> None:
        """Follow a host that is known to the log; nothing happens when it is followed already."""
        assert self._nursery is not None, "the supervisor does not run"
        if name.name in self._hosts:
            return
        subscription = Subscription(host=name.name, progress=self._known.progress(name.name))
        backoff = Backoff(
            minimum_seconds=self._settings.backoff_min_seconds, maximum_seconds=self._settings.backoff_max_seconds
        )
        host = self._hosts[name.name] = _Host(name, subscription, backoff, trio.current_time())
        self._nursery.start_soon(self._follow, host, name=f"host {name.name}")

    async def request_crawl(self, text: str, *, admin: bool) -> None:
        """Follow the host that `text` names, from now on and after restarts; one that waits is dialled at once.

        Returns when the host is stored. Raises CrawlRefused.
        """
        name = self._allowed_name(text)
        followed = self._hosts.get(name.name)
        if followed is not None and followed.is_up:
            return
        await self._probe(name, admin=admin)
        followed = self._hosts.get(name.name)
        if followed is None:
            await self._writer.add_host(name.name)
            if self._nursery is None:
                raise CrawlRefused(503, "ServiceUnavailable", "the relay is stopping")
            self.add(name)
        else:
            followed.backoff.reset()
            followed.wake.set()

    def statistics(self) -> SupervisorStatistics:
        """Every host and the sums, as of now."""
        hosts = tuple(self._statistics_of(host) for host in self._hosts.values())
        return SupervisorStatistics(
            hosts=hosts,
            connected=sum(host.connected_seconds is not None for host in hosts),
            messages=sum(host.messages for host in hosts),
            events=sum(host.events for host in hosts),
            bytes=sum(host.bytes for host in hosts),
        )

    def host_statistics(self, name: str) -> HostStatistics | None:
        """One host as of now; None when it is not followed."""
        host = self._hosts.get(name)
        return None if host is None else self._statistics_of(host)

    # requestCrawl

    def _allowed_name(self, text: str) -> HostName:
        if self._nursery is None:
            raise CrawlRefused(503, "ServiceUnavailable", "the relay is starting")
        try:
            name = parse(text, allow_private=self._allow_private)
        except InvalidHostname as error:
            raise CrawlRefused(400, "InvalidRequest", str(error)) from error
        record = self._known.get(name.name)
        if record is not None and record.status is HostStatus.BANNED:
            raise CrawlRefused(400, "HostBanned", f"{name.name} is banned")
        return name

    async def _probe(self, name: HostName, *, admin: bool) -> None:
        """Anybody may ask, so few are asked about at a time; an operator waits for their turn."""
        if not admin and not self._probes.available_tokens:
            raise CrawlRefused(429, "RateLimitExceeded", "too many hosts are being looked at")
        async with self._probes:
            fault = await find_fault(self._http, name)
        if fault is not None:
            raise CrawlRefused(400, "HostNotFound", fault[:200])

    # one host

    async def _start_known(self) -> None:
        for text in self._known.names():
            record = self._known.get(text)
            if record is None or record.status is HostStatus.BANNED or text in self._hosts:
                continue
            try:
                name = parse(text, allow_private=self._allow_private)
            except InvalidHostname as error:
                _logger.warning("stored host is not followed: %s", error)
                continue
            self.add(name)
            await trio.sleep((0.5 + self._random()) / self._settings.start_rate_per_second)

    async def _follow(self, host: _Host) -> None:
        while True:
            await self._attempt(host)
            await self._wait(host)

    async def _attempt(self, host: _Host) -> None:
        """One connection, to its end."""
        connection = host.connection = Connection(
            parts=self._parts, host=host.name, subscription=host.subscription, traffic=host.traffic
        )
        events = host.traffic.events
        if self._status(host) is HostStatus.OFFLINE and self._nursery is not None:
            self._nursery.start_soon(self._reactivate, host, connection)
        try:
            host.last_end = await connection.run()
        except Exception as error:  # the task boundary of one host: whatever it is ends here
            if _is_ours(error):
                raise
            _logger.exception("host %s: unexpected failure", host.name.name)
            host.last_end = Ended(Cause.INTERNAL_ERROR, describe(error))
        finally:
            host.connection = None
        _logger.info("host %s: %s", host.name.name, host.last_end)
        now = trio.current_time()
        if connection.up_at is not None:
            host.down_since = now
        lasted = connection.up_at is not None and now - connection.up_at >= self._settings.stable_seconds
        if lasted or host.traffic.events > events:
            host.backoff.reset()

    async def _wait(self, host: _Host) -> None:
        """Until the next dial. A requestCrawl shortens the wait, but not below the minimum."""
        now = trio.current_time()
        host.retry_at = now + host.backoff.next_delay(self._random())
        is_lost = now - host.down_since >= self._settings.offline_after_seconds
        if is_lost and self._status(host) is HostStatus.ACTIVE:
            await self._writer.set_host_status(host.name.name, HostStatus.OFFLINE)
        await trio.sleep_until(min(host.retry_at, now + self._settings.backoff_min_seconds))
        with trio.move_on_at(host.retry_at):
            await host.wake.wait()
        host.wake = trio.Event()
        host.retry_at = None

    async def _reactivate(self, host: _Host, connection: Connection) -> None:
        await connection.settled.wait()
        if connection.up_at is not None:
            await self._writer.set_host_status(host.name.name, HostStatus.ACTIVE)

    def _status(self, host: _Host) -> HostStatus | None:
        record = self._known.get(host.name.name)
        return None if record is None else record.status

    def _statistics_of(self, host: _Host) -> HostStatistics:
        now = trio.current_time()
        up_at = None if host.connection is None else host.connection.up_at
        return HostStatistics(
            name=host.name.name,
            connected_seconds=None if up_at is None else now - up_at,
            retry_in_seconds=None if host.retry_at is None else max(0.0, host.retry_at - now),
            connections=host.traffic.connections,
            messages=host.traffic.messages,
            events=host.traffic.events,
            bytes=host.traffic.bytes,
            last_end=host.last_end,
        )


def _is_ours(error: BaseException) -> bool:
    """Whether our own storage failed: then the process must end (DESIGN 1.11)."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(StoreError) is not None
    return isinstance(error, StoreError)
