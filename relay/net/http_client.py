"""Requests to hosts and directories: bounded in time, bytes and connections, dialled through the guard. Trio.

Owns the connections and the one place where failures of the transport become `HttpError`s. No redirects, no
cookies, no proxies, nothing from the environment, no compressed bodies: what is left is httpcore, the engine under
httpx, and of that the connections alone, as the cost of its pool grows with the square of their number (CPU of a
request over 1 and over 32 connections: httpx 610 and 830 µs, this 270 and 360). Does not judge status codes.
"""

import ssl
from collections import deque
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
        self._ssl_context = dialer.ssl_context
        self._backend = _GuardedBackend(dialer)
        self._total_seconds = total_seconds
        self._headers = [("User-Agent", user_agent), ("Accept", "*/*"), ("Accept-Encoding", "identity")]
        self._slots = trio.CapacityLimiter(connections_max)
        self._idle: deque[httpcore.AsyncHTTPConnection] = deque()  # the longest idle first

    async def get(self, url: str, *, body_bytes_max: int) -> Response:
        """The response to a GET, whatever its status. Raises an HttpError."""
        return await self._request(url, "GET", [], None, body_bytes_max)

    async def post_json(self, url: str, value: object, *, body_bytes_max: int) -> Response:
        """The response to a POST of a JSON value, whatever its status. Raises an HttpError."""
        body = orjson.dumps(value)
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        return await self._request(url, "POST", headers, body, body_bytes_max)

    async def aclose(self) -> None:
        """Close every idle connection."""
        while self._idle:
            await self._idle.popleft().aclose()

    async def _request(
        self,
        url: str,
        method: str,
        headers: list[tuple[str, str]],
        content: bytes | None,
        body_bytes_max: int,
    ) -> Response:
        headers = [("Host", urlsplit(url).netloc), *self._headers, *headers]
        request = httpcore.Request(method, url, headers=headers, content=content)
        try:
            with trio.fail_after(self._total_seconds):
                async with self._slots:
                    return await self._exchange(request, url, body_bytes_max)
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

    async def _exchange(self, request: httpcore.Request, url: str, body_bytes_max: int) -> Response:
        connection = await self._connection(request.url.origin)
        try:
            response = await connection.handle_async_request(request)
            try:
                return await _read(response, url, body_bytes_max)
            finally:
                await response.aclose()
        finally:
            if connection.is_idle() and not connection.is_closed():  # one that never connected is both
                self._idle.append(connection)
            else:
                await connection.aclose()

    async def _connection(self, origin: httpcore.Origin) -> httpcore.AsyncHTTPConnection:
        """An idle connection to this origin that its other end has not closed, or a new one."""
        while self._idle and self._idle[0].has_expired():
            await self._idle.popleft().aclose()
        for connection in reversed(self._idle):
            if connection.can_handle_request(origin):
                self._idle.remove(connection)
                if not connection.has_expired():
                    return connection
                await connection.aclose()
                break
        if self._idle and len(self._idle) + self._slots.borrowed_tokens > self._slots.total_tokens:
            await self._idle.popleft().aclose()
        return httpcore.AsyncHTTPConnection(
            origin,
            ssl_context=self._ssl_context,
            keepalive_expiry=KEEPALIVE_SECONDS,
            network_backend=self._backend,
        )


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
