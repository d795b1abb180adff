"""Dialling: names by a real name server on loopback, the guard at the moment of connecting, deadlines."""

import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio

from relay.net.dial import (
    AddressRefused,
    ConnectFailed,
    Dialer,
    DialError,
    DialTimeout,
    NameLookupFailed,
    NameNotFound,
    create_tls_context,
)
from tests.net.loopback import serve_dns

ZONE = {
    "private.example.com": ["127.0.0.1"],
    "mapped.example.com": ["::ffff:127.0.0.1", "64:ff9b::7f00:1"],
    "second.example.com": ["127.0.0.9", "127.0.0.1"],
    "v6.example.com": ["::1"],
    "empty.example.com": [],
    "broken.example.com": ["servfail"],
    "silent.example.com": ["silent"],
}


@asynccontextmanager
async def dialer_to(
    *, allow_private: bool, attempt_seconds: float = 5.0, total_seconds: float = 5.0
) -> AsyncIterator[Dialer]:
    async with serve_dns(ZONE) as resolver:
        yield Dialer(
            allow_private=allow_private,
            ssl_context=ssl.create_default_context(),
            dns_resolver=resolver,
            attempt_seconds=attempt_seconds,
            total_seconds=total_seconds,
        )


@contextmanager
def listening(host: str = "127.0.0.1") -> Iterator[int]:
    """A listener on loopback; gives its port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize("host", ["private.example.com", "second.example.com", "127.0.0.1", "localhost"])
async def test_connects(host: str) -> None:
    """By name, past an address that refuses, by address, and to localhost without DNS; without Nagle's delay."""
    with listening() as port:
        async with dialer_to(allow_private=True) as dialer:
            with await dialer.open_socket(host, port) as connection:
                assert ("127.0.0.1", port) == connection.getpeername()
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


@pytest.mark.parametrize("host", ["v6.example.com", "localhost", "a.localhost", "::1"])
async def test_connects_over_ipv6(host: str) -> None:
    """A host that is on IPv6 alone is reached."""
    with listening("::1") as port:
        async with dialer_to(allow_private=True) as dialer:
            with await dialer.open_socket(host, port) as connection:
                assert connection.getpeername()[0] == "::1"


@pytest.mark.parametrize(
    "host",
    ["private.example.com", "mapped.example.com", "v6.example.com", "localhost", "127.0.0.1", "::1", "10.0.0.1"],
)
async def test_guard_refuses_what_a_name_resolves_to(host: str) -> None:
    """On an allowed port, the resolved address decides, whatever the name looked like."""
    async with dialer_to(allow_private=False) as dialer:
        with pytest.raises(AddressRefused):
            await dialer.open_socket(host, 443)


async def test_guard_never_touches_the_refused_listener() -> None:
    """The same dial succeeds with permission and makes no connection without."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with dialer_to(allow_private=False) as dialer:
        with pytest.raises(AddressRefused):
            await dialer.open_socket("private.example.com", port)
    async with dialer_to(allow_private=True) as dialer:
        with await dialer.open_socket("private.example.com", port) as connection:
            accepted = await listeners[0].accept()
            assert connection.getsockname() == accepted.socket.getpeername()
            await accepted.aclose()
    await listeners[0].aclose()


async def test_guard_refuses_other_ports_of_public_addresses() -> None:
    """A public address is dialled on the web ports only; nothing is sent here."""
    async with dialer_to(allow_private=False) as dialer:
        with pytest.raises(AddressRefused):
            await dialer.open_socket("8.8.8.8", 25)


@pytest.mark.parametrize(
    ("host", "error"),
    [
        ("absent.example.com", NameNotFound),
        ("empty.example.com", NameNotFound),
        ("broken.example.com", NameLookupFailed),
        ("127.0.0.9", ConnectFailed),
    ],
)
async def test_failures_have_names(host: str, error: type[DialError]) -> None:
    """A name that does not exist, a name server that fails and a host that refuses are told apart."""
    with listening() as port:
        async with dialer_to(allow_private=True) as dialer:
            with pytest.raises(error):
                await dialer.open_socket(host, port)


async def test_silent_name_server_meets_the_deadline() -> None:
    """No answer of DNS does not hold the dial."""
    async with dialer_to(allow_private=True, total_seconds=0.1) as dialer:
        with trio.fail_after(5), pytest.raises((DialTimeout, NameLookupFailed)):
            await dialer.open_socket("silent.example.com", 80)


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port whose backlog is full: Linux leaves further connections without any answer."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


async def test_silent_host_meets_the_overall_deadline() -> None:
    """No answer to a connection attempt ends in DialTimeout."""
    with deaf_port() as port:
        async with dialer_to(allow_private=True, total_seconds=0.1) as dialer:
            with trio.fail_after(5), pytest.raises(DialTimeout):
                await dialer.open_socket("127.0.0.1", port)


async def test_silent_address_gives_way_to_the_next() -> None:
    """One address that does not answer costs `attempt_seconds`, not the dial."""
    with deaf_port() as port, socket.socket(socket.AF_INET6) as listener:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(("::1", port))
        listener.listen()
        async with dialer_to(allow_private=True, attempt_seconds=0.1) as dialer:
            with await dialer.open_socket("localhost", port) as connection:
                assert connection.getpeername()[0] == "::1"


def test_tls_context_tells_of_a_missing_certificate_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SSL_CERT_FILE is taken seriously: a typing error in it shows at the start, not at each handshake."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent.pem"))
    with pytest.raises(OSError, match=r"No such file"):
        create_tls_context()
