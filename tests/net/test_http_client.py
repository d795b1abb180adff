"""Bounded HTTP against servers that misbehave on the wire."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import dns.asyncresolver
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from relay.net.dial import Dialer, create_tls_context
from relay.net.http_client import (
    BodyTooBig,
    HttpAddressRefused,
    HttpClient,
    HttpError,
    HttpNameNotFound,
    HttpTimeout,
    HttpUnreachable,
    MalformedResponse,
)
from tests.net.loopback import Request, Stream, reply, serve_dns, serve_http


@asynccontextmanager
async def client_to(
    zone: dict[str, list[str]] | None = None,
    *,
    allow_private: bool = True,
    total_seconds: float = 5.0,
    connections_max: int = 10,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[HttpClient]:
    async with serve_dns(zone or {}) as resolver:
        client = HttpClient(
            dialer=_dialer(resolver, allow_private, tls),
            user_agent="atproto-relay/test",
            total_seconds=total_seconds,
            connections_max=connections_max,
        )
        try:
            yield client
        finally:
            await client.aclose()


def _dialer(resolver: dns.asyncresolver.Resolver, allow_private: bool, tls: ssl.SSLContext | None) -> Dialer:
    return Dialer(
        allow_private=allow_private,
        ssl_context=tls or ssl.create_default_context(),
        dns_resolver=resolver,
        attempt_seconds=5.0,
        total_seconds=5.0,
    )


async def echo(request: Request, stream: Stream) -> None:
    await stream.send_all(reply(200, request.body or b"nothing", X_Method=request.method))


async def test_get_and_post_on_one_connection() -> None:
    """Both methods carry what they should, and a connection serves again."""
    async with serve_http(echo) as server, client_to() as client:
        got = await client.get(f"{server.url}/a?b=c", body_bytes_max=100)
        assert (got.status, got.body, got.headers["x-method"]) == (200, b"nothing", "GET")
        posted = await client.post_json(f"{server.url}/p", {"x": 1}, body_bytes_max=100)
        assert (posted.body, posted.headers["x-method"]) == (b'{"x":1}', "POST")
    first, second = server.requests
    assert first.target == "/a?b=c"
    assert f"127.0.0.1:{server.port}" == first.headers["host"]
    assert first.headers["user-agent"] == "atproto-relay/test"
    assert first.headers["accept-encoding"] == "identity"
    assert second.headers["content-type"] == "application/json"
    assert server.connections == 1


async def test_status_codes_are_not_judged_and_redirects_not_followed() -> None:
    """A redirect is a response like any other; its target is not asked; nor are cookies sent back."""

    async def redirect(request: Request, stream: Stream) -> None:
        await stream.send_all(reply(302, Location="/elsewhere", Set_Cookie="a=b"))

    async with serve_http(redirect) as server, client_to() as client:
        for _ in range(2):
            response = await client.get(f"{server.url}/here", body_bytes_max=100)
            assert (response.status, response.headers["location"]) == (302, "/elsewhere")
    assert server.targets == ["/here", "/here"]
    assert "cookie" not in server.requests[1].headers


async def test_environment_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment is not used."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with serve_http(echo) as server, client_to() as client:
        assert (await client.get(server.url, body_bytes_max=100)).status == 200


@pytest.mark.parametrize("declared", [True, False])
async def test_body_cap_cuts_the_stream(declared: bool) -> None:
    """An endless body ends at the cap, with a declared length and without one; the client stays usable."""

    async def flood(request: Request, stream: Stream) -> None:
        if request.target == "/fine":
            await stream.send_all(reply(200, b"x" * 1000))
            return
        length = b"content-length: 1000000000\r\n" if declared else b"connection: close\r\n"
        await stream.send_all(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n")
        while True:
            await stream.send_all(b"x" * 1000)

    async with serve_http(flood) as server, client_to(connections_max=1) as client:
        with trio.fail_after(10):
            with pytest.raises(BodyTooBig):
                await client.get(server.url, body_bytes_max=1000)
            assert len((await client.get(f"{server.url}/fine", body_bytes_max=1000)).body) == 1000


@pytest.mark.parametrize("where", ["head", "body"])
async def test_trickle_meets_the_total_time_out(where: str) -> None:
    """A server that always sends a little more is cut by the time for the whole."""

    async def trickle(request: Request, stream: Stream) -> None:
        head = b"HTTP/1.1 200 OK\r\n"
        await stream.send_all(head if where == "head" else head + b"content-length: 100000\r\n\r\n")
        while True:
            await stream.send_all(b"a: b\r\n" if where == "head" else b"x")
            await trio.sleep(0.01)

    async with serve_http(trickle) as server, client_to(total_seconds=0.2) as client:
        with trio.fail_after(5), pytest.raises(HttpTimeout):
            await client.get(server.url, body_bytes_max=100_000)


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: ten\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 50_000,
        b"",
    ],
)
async def test_malformed_responses(raw: bytes) -> None:
    """Whatever is not a whole plain HTTP/1.1 response is one kind of error."""

    async def garble(request: Request, stream: Stream) -> None:
        await stream.send_all(raw)
        await stream.aclose()
        raise trio.BrokenResourceError

    async with serve_http(garble) as server, client_to() as client:
        with trio.fail_after(5), pytest.raises((MalformedResponse, HttpUnreachable)):
            await client.get(server.url, body_bytes_max=1000)


async def test_guard_holds_for_requests() -> None:
    """A name that resolves to loopback is refused at the connection, though its syntax is public."""
    zone = {"evil.example.com": ["127.0.0.1"]}
    async with serve_http(echo) as server:
        async with client_to(zone, allow_private=False) as client:
            for url in ("https://evil.example.com", f"http://evil.example.com:{server.port}", server.url):
                with pytest.raises(HttpAddressRefused):
                    await client.get(url, body_bytes_max=100)
        assert server.connections == 0
        async with client_to(zone, allow_private=True) as client:
            assert (await client.get(f"http://evil.example.com:{server.port}", body_bytes_max=100)).status == 200


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://absent.example.com", HttpNameNotFound),
        ("http://127.0.0.9:9", HttpUnreachable),
        ("http://broken.example.com", HttpUnreachable),
    ],
)
async def test_failures_to_connect(url: str, error: type[HttpError]) -> None:
    """The dialer's failures keep their meaning."""
    async with client_to({"broken.example.com": ["servfail"]}) as client:
        with pytest.raises(error):
            await client.get(url, body_bytes_max=100)


async def test_pool_is_bounded() -> None:
    """More requests than connections wait for each other."""
    at_once = [0]
    most = [0]

    async def slow(request: Request, stream: Stream) -> None:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        await trio.sleep(0.01)
        at_once[0] -= 1
        await stream.send_all(reply(200))

    async def get(client: HttpClient, url: str) -> None:
        await client.get(url, body_bytes_max=10)

    async with (
        serve_http(slow) as server,
        client_to(connections_max=3) as client,
        trio.open_nursery() as nursery,
    ):
        for _ in range(12):
            nursery.start_soon(get, client, server.url)
    assert len(server.requests) == 12
    assert most[0] == 3


async def test_idle_connections_are_bounded_over_all_hosts() -> None:
    """Of connections kept to several hosts, the longest idle gives way to a new one."""
    async with (
        serve_http(echo) as a,
        serve_http(echo) as b,
        serve_http(echo) as c,
        client_to(connections_max=2) as client,
    ):
        for server in (a, b, c, b, c):
            assert (await client.get(server.url, body_bytes_max=100)).status == 200
        assert [server.connections for server in (a, b, c)] == [1, 1, 1]
        with trio.fail_after(5):
            while [server.open_connections for server in (a, b, c)] != [0, 1, 1]:
                await trio.lowlevel.checkpoint()


async def test_a_connection_closed_by_its_other_end_is_not_used_again() -> None:
    """Nor one that failed to open: the next request opens a new one, whatever else is idle."""
    closed = trio.Event()

    async def once(request: Request, stream: Stream) -> None:
        await stream.send_all(reply(200))
        await stream.aclose()
        closed.set()
        raise trio.BrokenResourceError

    async with serve_http(echo) as other, serve_http(once) as server, client_to() as client:
        assert (await client.get(other.url, body_bytes_max=100)).status == 200
        assert (await client.get(server.url, body_bytes_max=100)).status == 200
        await closed.wait()
        assert (await client.get(server.url, body_bytes_max=100)).status == 200
        assert server.connections == 2
        for _ in range(2):
            with pytest.raises(HttpUnreachable):
                await client.get("http://127.0.0.9:9", body_bytes_max=100)


def _certificate(folder: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 and pds.example.com, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    alternatives = [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("pds.example.com")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


async def test_tls_is_verified_against_ssl_cert_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The server's certificate passes when SSL_CERT_FILE names it, and only for its names."""
    path = _certificate(tmp_path)
    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_tls.load_cert_chain(path)
    zone = {"pds.example.com": ["127.0.0.1"], "other.example.com": ["127.0.0.1"]}
    async with serve_http(echo, tls=server_tls) as server:
        async with client_to(zone) as client:
            with pytest.raises(HttpUnreachable, match="CERTIFICATE_VERIFY_FAILED"):
                await client.get(f"https://pds.example.com:{server.port}", body_bytes_max=100)
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        async with client_to(zone, tls=create_tls_context()) as client:
            for host in ("pds.example.com", "127.0.0.1"):
                response = await client.get(f"https://{host}:{server.port}", body_bytes_max=100)
                assert response.body == b"nothing"
            with pytest.raises(HttpUnreachable, match=r"not valid for 'other\.example\.com'"):
                await client.get(f"https://other.example.com:{server.port}", body_bytes_max=100)
