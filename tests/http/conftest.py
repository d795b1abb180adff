"""The HTTP port over real sockets, on records in memory."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest
import trio

from relay.eventlog.records import HostStatus
from relay.eventlog.verdict import DropReason
from relay.firehose.consumers import ConsumerStatistics
from relay.http.admin import AdminEndpoints, HostReport
from relay.http.app import App, operator_app, public_app
from relay.http.serve import serve
from relay.http.sync import SyncEndpoints
from relay.observability.metrics import Metrics, Snapshot
from tests.http.records import MemoryAccounts, MemoryCrawler, MemoryHosts

PASSWORD = "correct horse"
SNAPSHOT = Snapshot(
    events_received=5,
    events_sequenced={"commit": 3, "identity": 1},
    events_dropped={"wrong_host": 1},
    irregularities={"neighbour_missing": 2},
    head_seq=4,
    oldest_seq=1,
    consumers=2,
    consumer_events_sent=8,
    hosts={"active": 3},
    hosts_connected=2,
    identity_lookups={"found": 6},
    identity_cache_entries=6,
    parked_events=0,
    log_bytes=1234,
)


class Port:
    """The parts behind the two applications."""

    def __init__(self) -> None:
        self.accounts = MemoryAccounts()
        self.hosts = MemoryHosts()
        self.crawler = MemoryCrawler()
        self.host_reports: list[HostReport] = []
        self.consumers: list[ConsumerStatistics] = []
        self.sync = SyncEndpoints(accounts=self.accounts, hosts=self.hosts, crawler=self.crawler)

    def public(self) -> App:
        return public_app(sync=self.sync, version="1.2.3")

    def operator(self, password: str | None = PASSWORD) -> App:
        admin = AdminEndpoints(
            password=password,
            crawler=self.crawler,
            hosts=lambda: self.host_reports,
            consumers=lambda: self.consumers,
        )
        metrics = Metrics(snapshot=lambda: SNAPSHOT, drop_reasons=DropReason, host_statuses=HostStatus, version="1.2.3")
        return operator_app(sync=self.sync, admin=admin, metrics=metrics, version="1.2.3")


@asynccontextmanager
async def serving(app: App, *, idle_seconds: float = 5.0, graceful_seconds: float = 1.0) -> AsyncIterator[str]:
    """Serves on loopback; gives the base URL; ends as the service would, by the shutdown event."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    shutdown = trio.Event()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            start = partial(serve, shutdown=shutdown, idle_seconds=idle_seconds, graceful_seconds=graceful_seconds)
            await nursery.start(start, app, listener)
            yield f"http://127.0.0.1:{port}"
            shutdown.set()


@asynccontextmanager
async def client_of(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        yield client


@pytest.fixture
def port() -> Port:
    return Port()


@pytest.fixture
async def public(port: Port) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(port.public()) as client:
        yield client


@pytest.fixture
async def operator(port: Port) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(port.operator()) as client:
        yield client
