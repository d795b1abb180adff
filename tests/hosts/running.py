"""A supervisor over fake hosts, with short times. A trio shell."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import dns.asyncresolver
import trio

from relay.hosts.settings import HostSettings
from relay.hosts.supervisor import Supervisor
from relay.net.dial import Dialer
from relay.net.http_client import HttpClient
from tests.hosts.fake_host import FakeHost, ListSink, MemoryHosts, open_host

SETTINGS = HostSettings(
    user_agent="relay-test",
    dial_timeout_seconds=5,
    ping_interval_seconds=5,
    pong_deadline_seconds=5,
    backoff_min_seconds=0.01,
    backoff_max_seconds=0.05,
    stable_seconds=5,
    offline_after_seconds=60,
    start_rate_per_second=1000,
    probes_max=4,
    receive_buffer_bytes=65536,
)


@dataclass
class World:
    """What a test sees."""

    supervisor: Supervisor
    hosts: MemoryHosts
    sink: ListSink
    nursery: trio.Nursery
    run: trio.CancelScope
    """Cancelling it stops the relay's side."""

    async def host(self, *, tls: ssl.SSLContext | None = None) -> FakeHost:
        """One more host that serves."""
        host = await open_host(tls=tls)
        self.nursery.start_soon(host.serve)
        return host


def client_context() -> ssl.SSLContext:
    """Trusts nobody."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def make_supervisor(
    hosts: MemoryHosts, sink: ListSink, *, allow_private: bool, tls: ssl.SSLContext | None, settings: HostSettings
) -> tuple[Supervisor, HttpClient]:
    """A supervisor on real sockets."""
    dialer = Dialer(
        allow_private=allow_private,
        ssl_context=tls or client_context(),
        dns_resolver=dns.asyncresolver.Resolver(configure=False),
        attempt_seconds=2,
        total_seconds=4,
    )
    http = HttpClient(dialer=dialer, user_agent="relay-test", total_seconds=2, connections_max=4)
    supervisor = Supervisor(
        settings=settings,
        known=hosts,
        writer=hosts,
        sink=sink,
        dialer=dialer,
        http=http,
        allow_private=allow_private,
        random=lambda: 0.5,
    )
    return supervisor, http


@asynccontextmanager
async def running(
    *,
    known: MemoryHosts | None = None,
    sink: ListSink | None = None,
    allow_private: bool = True,
    tls: ssl.SSLContext | None = None,
    settings: HostSettings = SETTINGS,
) -> AsyncIterator[World]:
    """A running supervisor."""
    hosts, sink = known or MemoryHosts(), sink or ListSink()
    supervisor, http = make_supervisor(hosts, sink, allow_private=allow_private, tls=tls, settings=settings)
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def run(task_status: trio.TaskStatus[None]) -> None:
            with scope:
                await supervisor.run(task_status=task_status)

        await nursery.start(run)
        try:
            yield World(supervisor, hosts, sink, nursery, scope)
        finally:
            with trio.CancelScope(shield=True):
                await http.aclose()
            nursery.cancel_scope.cancel()
