"""The composition root (trio): opens the log, wires the stages, runs them, and stops them in the data's direction.

The one place that knows everybody. Owns the order of start and stop, and the values that no setting has; has no
logic of its own beyond handing one stage's results to the next.
"""

import gc
import logging
import random
import resource
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable
from functools import partial

import trio

from relay.config import Bind, Settings
from relay.eventlog import keys
from relay.eventlog.log import EventLog, LogSettings, open_log
from relay.eventlog.records import HostStatus
from relay.eventlog.verdict import DropReason
from relay.firehose import subscribe_repos
from relay.firehose.consumers import Consumers
from relay.firehose.live import LiveSweep
from relay.firehose.server import Server, ServerLimits
from relay.firehose.subscribe_repos import ConsumerLimits, SubscribeRepos
from relay.firehose.websocket import KeepAlive
from relay.hosts.settings import HostSettings
from relay.hosts.supervisor import CrawlRefused, Supervisor
from relay.http.admin import AdminEndpoints, HostReport
from relay.http.app import operator_app, public_app
from relay.http.serve import serve as serve_http
from relay.http.sync import SyncEndpoints
from relay.http.xrpc import XrpcError
from relay.identity.cache import IdentityCache
from relay.identity.limits import ResolverLimits
from relay.identity.plc import PlcDirectory
from relay.identity.resolver import Resolver
from relay.identity.web import WebHosts
from relay.net.dial import Dialer, create_dns_resolver, create_tls_context
from relay.net.http_client import HttpClient
from relay.observability import logs
from relay.observability.metrics import Metrics, Snapshot
from relay.validation.lanes import LaneLimits
from relay.validation.lookups import LookUpLimits
from relay.validation.rules import Validation
from relay.validation.scheduler import Scheduler
from relay.validation.status import StatusChecker
from relay.version import USER_AGENT, VERSION

_logger = logging.getLogger(__name__)

_IDENTITY_CACHE_ENTRIES_MAX = 200_000
_OPEN_FILES_MIN = 16_384  # 2,800 hosts, 1,000 consumers, as many requests, RocksDB's files, and some to spare
_HTTP_GRACEFUL_SECONDS = 5.0
_DRAIN_SECONDS = 5.0


_GC_THRESHOLDS = (100_000, 20, 50)


def _collect_garbage_rarely() -> None:
    """Events make no cycles, but caches make full collections long: 5 % of a flood's CPU (`just bench ingest`)."""
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


async def serve(settings: Settings, unknown_variables: Iterable[str]) -> None:
    """Run the relay until SIGTERM or SIGINT; returns after an orderly stop.

    Raises:
        StoreError: the log can't be opened or written.
        OSError: a port can't be bound.
    """
    logs.configure(level=settings.log_level, stream=sys.stderr)
    _raise_open_files_limit()
    for name in unknown_variables:
        _logger.warning("%s is set, but this version has no such setting", name)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        firehose_listener = _listen(settings.firehose_bind)
        http_listener = _listen(settings.http_bind)
        relay = Relay(settings)
        _collect_garbage_rarely()
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(relay.run, firehose_listener, http_listener)
                async for signal_number in signals:
                    _logger.info("stopping on %s", signal.Signals(signal_number).name)
                    relay.stop()
                    break
        finally:
            relay.close()


def _raise_open_files_limit() -> None:
    """As high as this process may: hosts, consumers, requests and the database's files share it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < _OPEN_FILES_MIN:
        _logger.warning("only %d open files are allowed (soft limit was %d): raise the hard limit", hard, soft)


def _listen(bind: Bind) -> socket.socket:
    """A bound, listening, non-blocking socket. Raises OSError that names the address."""
    family = socket.AF_INET6 if ":" in bind.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((bind.host, bind.port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {bind.host}:{bind.port}: {error.strerror}") from error
    listener.listen(1024)
    listener.setblocking(False)
    return listener


class Relay:
    """All stages, wired. `run` once; `stop` ends it in order."""

    def __init__(self, settings: Settings) -> None:
        allow_private = settings.allow_private_hosts
        self._settings = settings
        self._log = log = _open_log(settings)
        dial = partial(
            Dialer,
            ssl_context=create_tls_context(),
            dns_resolver=create_dns_resolver(),
            attempt_seconds=5.0,
            total_seconds=15.0,
        )
        dialer = dial(allow_private=allow_private)
        make_client = partial(HttpClient, user_agent=USER_AGENT, total_seconds=5.0, connections_max=256)
        self._http = make_client(dialer=dialer)
        # Apart from did:web and crawl requests, which a host that is slow to answer must not hold up.
        self._status_http = make_client(dialer=dialer)
        # The directory's address is the operator's own word, not a peer's.
        self._directory_http = make_client(dialer=dial(allow_private=True))
        limits = ResolverLimits()
        self._identities = IdentityCache(
            family=log.store.family(keys.IDENTITIES), entries_max=_IDENTITY_CACHE_ENTRIES_MAX
        )
        self._resolver = Resolver(
            plc=PlcDirectory(url=settings.plc_url, http=self._directory_http, limits=limits),
            web=WebHosts(http=self._http, allow_private=allow_private, limits=limits),
            cache=self._identities,
            limits=limits,
            clock=time.time,
            allow_private=allow_private,
        )
        self._scheduler = Scheduler(
            resolver=self._resolver,
            accounts=log.accounts,
            sequencer=log.sequencer,
            status_checker=StatusChecker(
                http=self._status_http, allow_private=allow_private, memory_seconds=300.0, entries_max=50_000
            ),
            mode=Validation(settings.validation),
            lane_limits=LaneLimits(),
            look_up_limits=LookUpLimits(unresolved_seconds=settings.identity_park_seconds),
            now_us=_now_us,
        )
        self._supervisor = Supervisor(
            settings=_host_settings(settings),
            known=log.hosts,
            writer=log.sequencer,
            sink=_Sink(self._scheduler, log),
            dialer=dialer,
            http=self._http,
            allow_private=allow_private,
            random=random.random,
        )
        self._consumers = Consumers(
            consumers_max=settings.consumers_max, consumers_per_address_max=settings.consumers_per_address_max
        )
        self._sweep = LiveSweep(log.reader)
        sync = SyncEndpoints(accounts=log.accounts, hosts=log.hosts, crawler=_Crawler(self._supervisor))
        self._firehose = self._make_firehose(sync)
        self._operator_app = operator_app(
            sync=sync,
            admin=AdminEndpoints(
                password=settings.admin_password,
                crawler=_Crawler(self._supervisor),
                hosts=self._host_reports,
                consumers=self._consumers.statistics,
            ),
            metrics=Metrics(
                snapshot=self._snapshot, drop_reasons=DropReason, host_statuses=HostStatus, version=VERSION
            ),
            version=VERSION,
        )
        self._intake = trio.CancelScope()
        self._streams = trio.CancelScope()
        self._http_shutdown = trio.Event()

    def _make_firehose(self, sync: SyncEndpoints) -> Server:
        settings = self._settings
        handler = SubscribeRepos(
            reader=self._log.reader,
            sweep=self._sweep,
            consumers=self._consumers,
            limits=ConsumerLimits(stall_seconds=settings.consumer_stall_seconds, close_seconds=2.0),
            now=time.time,
        )
        return Server(
            streams={subscribe_repos.PATH: handler},
            app=public_app(sync=sync, version=VERSION),
            server_name=USER_AGENT,
            trusted_proxies=settings.trusted_proxies,
            limits=ServerLimits(
                head_bytes_max=64 << 10,
                head_seconds=10.0,
                idle_seconds=60.0,
                request_seconds=60.0,
                connections_max=settings.consumers_max + 1000,
                connections_per_peer_max=settings.consumers_per_address_max + 100,
            ),
            keep_alive=KeepAlive(ping_seconds=30.0, answer_seconds=30.0),
        )

    async def run(
        self,
        firehose_listener: socket.socket,
        http_listener: socket.socket,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run all stages until `stop`, then end them in the direction of the data: hosts first, consumers last."""
        places = f"firehose on ws://{_place(firehose_listener)}, HTTP on http://{_place(http_listener)}"
        async with trio.open_nursery() as readers:
            await readers.start(self._serve_streams, firehose_listener)
            await readers.start(self._serve_http, http_listener)
            async with trio.open_nursery() as writer:
                writer.start_soon(self._log.sequencer.run)
                with self._intake:
                    async with trio.open_nursery() as intake:
                        intake.start_soon(self._resolver.run)
                        intake.start_soon(self._scheduler.run)
                        await intake.start(self._supervisor.run)
                        _logger.info("relay %s listens: %s", VERSION, places)
                        task_status.started()
                writer.cancel_scope.cancel()
            await self._log.sequencer.flush()
            with trio.move_on_after(_DRAIN_SECONDS):
                while self._sweep.position < self._log.reader.head:  # noqa: ASYNC110  once, for milliseconds
                    await trio.sleep(0.001)
            self._streams.cancel()
            self._http_shutdown.set()
        with trio.CancelScope(shield=True):
            for client in (self._http, self._status_http, self._directory_http):
                await client.aclose()

    async def _serve_streams(
        self, listening: socket.socket, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
        with self._streams:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sweep.run)
                await nursery.start(self._firehose.serve, [listener])
                task_status.started()

    async def _serve_http(
        self, listener: socket.socket, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        await serve_http(
            self._operator_app,
            listener,
            shutdown=self._http_shutdown,
            graceful_seconds=_HTTP_GRACEFUL_SECONDS,
            idle_seconds=15.0,
            task_status=task_status,
        )

    def stop(self) -> None:
        """Begin an orderly stop of `run`."""
        self._intake.cancel()

    def close(self) -> None:
        """Close the log, after `run`."""
        self._log.store.close()

    def _host_reports(self) -> list[HostReport]:
        reports = []
        for name in self._log.hosts.names():
            record = self._log.hosts.get(name)
            assert record is not None
            followed = self._supervisor.host_statistics(name)
            reports.append(
                HostReport(
                    name=name,
                    status=record.status,
                    last_seq=record.last,
                    accounts=record.accounts,
                    connected=followed is not None and followed.connected_seconds is not None,
                    drops=self._log.sequencer.drops_by_host(name),
                    last_error=str(followed.last_end) if followed is not None and followed.last_end else "",
                )
            )
        return reports

    def _snapshot(self) -> Snapshot:
        log, hosts = self._log, self._supervisor.statistics()
        statuses = Counter(record.status.value for record in log.hosts.records())
        return Snapshot(
            events_received=hosts.events,
            events_sequenced={kind.name.lower(): count for kind, count in log.sequencer.sequenced.items()},
            events_dropped={reason.value: count for reason, count in log.sequencer.drops.items()},
            irregularities={kind.value: count for kind, count in log.sequencer.irregularities.items()},
            head_seq=log.reader.head,
            oldest_seq=log.reader.oldest,
            consumers=len(self._consumers),
            consumer_events_sent=self._consumers.events_total,
            hosts=statuses,
            hosts_connected=hosts.connected,
            identity_lookups=self._resolver.outcomes,
            identity_cache_entries=len(self._identities),
            parked_events=self._scheduler.waiting_events,
            log_bytes=log.segments.total_bytes,
        )


class _Sink:
    """Validation and log as the hosts' connections see them."""

    def __init__(self, scheduler: Scheduler, log: EventLog) -> None:
        self.submit = scheduler.submit
        self.has_room = scheduler.has_room
        self.wait_room = scheduler.wait_room
        self.drop = log.sequencer.submit
        self.count_drop = log.sequencer.count_drop
        self.cursor_moved = log.sequencer.cursor_moved


class _Crawler:
    """The supervisor as the HTTP port sees it: refusals become XRPC errors."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def request_crawl(self, text: str, /, *, admin: bool) -> None:
        try:
            await self._supervisor.request_crawl(text, admin=admin)
        except CrawlRefused as refusal:
            raise XrpcError(refusal.status, refusal.error, refusal.message) from refusal


def _open_log(settings: Settings) -> EventLog:
    return open_log(
        settings.data_dir / "log",
        retention_hours=settings.retention_hours,
        retention_bytes=settings.retention_bytes,
        settings=LogSettings(),
        now_us=_now_us,
    )


def _host_settings(settings: Settings) -> HostSettings:
    return HostSettings(
        user_agent=USER_AGENT,
        dial_timeout_seconds=20.0,
        ping_interval_seconds=settings.host_ping_seconds,
        pong_deadline_seconds=settings.host_ping_seconds,
        backoff_min_seconds=settings.reconnect_min_seconds,
        backoff_max_seconds=settings.reconnect_max_seconds,
        stable_seconds=60.0,
        offline_after_seconds=600.0,
        start_rate_per_second=200.0,
        probes_max=20,
        receive_buffer_bytes=256 * 1024,
    )


def _now_us() -> int:
    return time.time_ns() // 1000


def _place(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
