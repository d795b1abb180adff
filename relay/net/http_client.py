"""Requests to hosts and directories: bounded in time, bytes and connections, dialled through the guard. Trio.

Owns the connection pool and the one place where failures of the transport become `HttpError`s. No redirects, no
cookies, no proxies, nothing from the environment, no compressed bodies: httpcore, the engine under httpx, offers
what is left, at 240 µs a request instead of 345. Does not judge status codes.
"""

import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpcore
import orjson
import trio

from relay.net.dial import AddressRefused, Dialer, DialError, DialTimeout, NameNotFound

KEEPALIVE_SECONDS = 4.0  # Node closes idle connections after 5: a request must not meet that close


class HttpError(Exception):
    """No complete, acceptable response came."""


class HttpUnreachable(HttpError):
    """No connection, no TLS, or the connection broke."""


class HttpTimeout(HttpError):
    """The time for the whole exchange passed."""


class HttpNameNotFound(HttpError):
    """The host's name does not exist."""


class HttpAddressRefused(HttpError):
    """The host's addresses or port are not allowed."""


class BodyTooBig(HttpError):
    """The body is larger than the caller takes."""


class MalformedResponse(HttpError):
    """What came is not HTTP/1.1 as we asked for it."""


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response. Header names are lower case; of a repeated header the last one counts."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """GET and POST of small bodies over a bounded pool of connections."""

    def __init__(
        self,
        *,
        dialer: Dialer,
        user_agent: str,
        total_seconds: float,
        connections_max: int,
    ) -> None:
        self._total_seconds = total_seconds
        self._headers = [("User-Agent", user_agent), ("Accept", "*/*"), ("Accept-Encoding", "identity")]
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=dialer.ssl_context,
            max_connections=connections_max,
            max_keepalive_connections=connections_max,
            keepalive_expiry=KEEPALIVE_SECONDS,
            network_backend=_GuardedBackend(dialer),
        )

    async def get(self, url: str, *, body_bytes_max: int) -> Response:
        """The response to a GET, whatever its status. Raises an HttpError."""
        return await self._request("GET", url, [], None, body_bytes_max)

    async def post_json(self, url: str, value: object, *, body_bytes_max: int) -> Response:
        """The response to a POST of a JSON value, whatever its status. Raises an HttpError."""
        headers = [("Content-Type", "application/json")]
        return await self._request("POST", url, headers, orjson.dumps(value), body_bytes_max)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()

    async def _request(
        self,
        method: str,
        url: str,
        headers: list[tuple[str, str]],
        content: bytes | None,
        body_bytes_max: int,
    ) -> Response:
        # httpcore would write the host of an IPv6 URL without its brackets
        headers = [("Host", urlsplit(url).netloc), *self._headers, *headers]
        try:
            with trio.fail_after(self._total_seconds):
                async with self._pool.stream(method, url, headers=headers, content=content) as response:
                    return await _read(response, url, body_bytes_max)
        except trio.TooSlowError as error:
            raise HttpTimeout(f"{url} did not answer within {self._total_seconds} s") from error
        except DialTimeout as error:
            raise HttpTimeout(str(error)) from error
        except NameNotFound as error:
            raise HttpNameNotFound(str(error)) from error
        except AddressRefused as error:
            raise HttpAddressRefused(str(error)) from error
        except (DialError, httpcore.NetworkError) as error:
            raise HttpUnreachable(f"{url}: {error}") from error
        except httpcore.ProtocolError as error:
            raise MalformedResponse(f"{url}: {error}") from error


async def _read(response: httpcore.Response, url: str, body_bytes_max: int) -> Response:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
    if headers.get("content-encoding", "identity") != "identity":
        raise MalformedResponse(f"{url} sent an encoded body unasked")
    body = bytearray()
    try:
        async for part in response.aiter_stream():
            body += part
            if len(body) > body_bytes_max:
                # closed beneath httpcore, whose nested generators thus end by an error, not by the collector
                await response.extensions["network_stream"].aclose()
    except httpcore.ReadError:
        if len(body) <= body_bytes_max:
            raise
    if len(body) > body_bytes_max:
        raise BodyTooBig(f"{url} sent more than {body_bytes_max} bytes")
    return Response(response.status, headers, bytes(body))


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Gives httpcore connections from a Dialer; a DialError passes through httpcore as it is."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002  (httpcore's signature; the client's deadline holds)
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(trio.SocketStream(await self._dialer.open_socket(host.strip("[]"), port)))


class _Stream(httpcore.AsyncNetworkStream):
    """A trio stream with httpcore's method names and errors."""

    def __init__(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        try:
            return bytes(await self._stream.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.ReadError(_cause(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        try:
            await self._stream.send_all(buffer)
        except trio.BrokenResourceError as error:
            raise httpcore.WriteError(_cause(error)) from error

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        assert isinstance(self._stream, trio.SocketStream)
        name = server_hostname.strip("[]") if server_hostname else None
        stream = trio.SSLStream(self._stream, ssl_context, server_hostname=name, https_compatible=True)
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as error:
            await trio.aclose_forcefully(stream)
            raise httpcore.ConnectError(_cause(error)) from error
        except trio.Cancelled:
            await trio.aclose_forcefully(stream)
            raise
        return _Stream(stream)

    def get_extra_info(self, info: str) -> Any:
        if info != "is_readable":
            return None
        plain = self._stream.transport_stream if isinstance(self._stream, trio.SSLStream) else self._stream
        return plain.socket.fileno() < 0 or plain.socket.is_readable()  # readable: not to be used again


def _cause(error: BaseException) -> str:
    return str(error.__cause__ or error)
