"""The streaming port: reads HTTP heads and hands each request to its stream or to the application. Trio shell.

Owns connections until they are upgraded. One base URL answers everything: streaming paths are upgraded, all else
goes to an ASGI application on the same connection. Does not know what streams there are.
"""

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from urllib.parse import unquote

import h11
import trio

from relay.eventlog.errors import StoreError
from relay.firehose.asgi import AsgiApp, Exchange, next_event
from relay.firehose.client_address import IpNetwork, address_group, client_address, is_trusted
from relay.firehose.handshake import (
    Header,
    Refusal,
    header_values,
    parse_opening,
    reason_phrase,
    refusal_headers,
)
from relay.firehose.upgrade import StreamHandler, Upgrade
from relay.firehose.websocket import KeepAlive

_log = logging.getLogger(__name__)

_USER_AGENT_LENGTH_MAX = 200
_LINGER_SECONDS = 2.0
_LINGER_BYTES_MAX = 4 << 20


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bounds of a connection before it is a stream.

    A head (request line and headers) has `head_seconds` from its connection's start, later ones on a kept connection
    `idle_seconds` from the last response's end; a request and its response together `request_seconds`.
    """

    head_bytes_max: int
    head_seconds: float
    idle_seconds: float
    request_seconds: float
    connections_max: int
    connections_per_peer_max: int


class Server:
    """The streaming port's connections."""

    def __init__(
        self,
        *,
        streams: Mapping[str, StreamHandler],
        app: AsgiApp,
        server_name: str,
        trusted_proxies: Collection[IpNetwork],
        limits: ServerLimits,
        keep_alive: KeepAlive,
    ) -> None:
        """`streams` maps paths to handlers; `server_name` goes into every response's Server header."""
        self._streams = dict(streams)
        self._app = app
        self._server_name = server_name
        self._trusted_proxies = tuple(trusted_proxies)
        self._limits = limits
        self._keep_alive = keep_alive
        self._connections = 0
        self._by_peer: Counter[str] = Counter()

    async def serve(
        self,
        listeners: Sequence[trio.SocketListener],
        *,
        task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve the listeners (taken over and closed) until cancelled.

        Cancelled, it returns once every stream has been closed in its own way, within the streams' deadlines.
        """
        await trio.serve_listeners(self._serve_connection, list(listeners), task_status=task_status)

    async def _serve_connection(self, stream: trio.SocketStream) -> None:
        """The task boundary of one connection: what its client does ends here, what our storage does goes on."""
        try:
            peer = stream.socket.getpeername()[0]
        except OSError:  # gone before it was looked at
            return
        group = address_group(peer)
        if not self._has_room_for(peer, group):
            return
        self._connections += 1
        self._by_peer[group] += 1
        try:
            await self._serve_requests(stream)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass
        except* (StoreError, AssertionError):
            raise
        except* Exception:  # noqa: BLE001  the task boundary of one consumer
            _log.exception("connection failed")
        finally:
            self._connections -= 1
            self._by_peer[group] -= 1
            if not self._by_peer[group]:
                del self._by_peer[group]

    def _has_room_for(self, peer: str, group: str) -> bool:
        """A bound for all, and one for each address that is not a proxy's: idle sockets must not shut others out."""
        if self._connections >= self._limits.connections_max:
            return False
        return self._by_peer[group] < self._limits.connections_per_peer_max or is_trusted(peer, self._trusted_proxies)

    async def _serve_requests(self, stream: trio.SocketStream) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head_bytes_max)
        seconds = self._limits.head_seconds
        try:
            while True:
                with trio.move_on_after(seconds) as patience:
                    request = await next_event(http, stream)
                if patience.cancelled_caught or not isinstance(request, h11.Request):
                    return
                handler = self._streams.get(unquote(request.target.partition(b"?")[0].decode("latin-1")))
                if handler is not None:
                    await self._upgrade(http, stream, request, handler)
                    return
                if not await self._answer(http, stream, request):
                    return
                seconds = self._limits.idle_seconds
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            refusal = Refusal(status if 400 <= status < 600 else 400, "InvalidRequest", str(error))
            await self._refuse(http, stream, refusal)
        except Refusal as refusal:
            await self._refuse(http, stream, refusal)

    async def _answer(self, http: h11.Connection, stream: trio.SocketStream, request: h11.Request) -> bool:
        """Let the application answer; whether the connection can take another request."""
        exchange = Exchange(
            http=http,
            stream=stream,
            request=request,
            client=(self._address(stream, request), stream.socket.getpeername()[1]),
            server=self._server_name,
        )
        with trio.move_on_after(self._limits.request_seconds):
            await exchange.run(self._app)
        if http.their_state is h11.SEND_BODY:
            http.next_event()  # the end of an empty body that the application did not ask for
        if http.our_state is h11.DONE and http.their_state is h11.DONE:
            http.start_next_cycle()
            return True
        if http.our_state in (h11.DONE, h11.MUST_CLOSE):
            await _linger(stream)
        return False

    async def _upgrade(
        self, http: h11.Connection, stream: trio.SocketStream, request: h11.Request, handler: StreamHandler
    ) -> None:
        opening = parse_opening(request)
        if not isinstance(await next_event(http, stream), h11.EndOfMessage):
            raise Refusal(400, "InvalidRequest", "a request for a stream has no body")
        upgrade = Upgrade(
            stream=stream,
            http=http,
            opening=opening,
            query=request.target.partition(b"?")[2].decode("latin-1"),
            address=self._address(stream, request),
            user_agent=", ".join(header_values(request, b"user-agent"))[:_USER_AGENT_LENGTH_MAX],
            headers=self._own_headers(),
            keep_alive=self._keep_alive,
        )
        try:
            await handler(upgrade)
        finally:
            upgrade.release()

    async def _refuse(self, http: h11.Connection, stream: trio.SocketStream, refusal: Refusal) -> None:
        if http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        body = refusal.body()
        response = h11.Response(
            status_code=refusal.status,
            headers=refusal_headers(refusal, body) + self._own_headers(),
            reason=reason_phrase(refusal.status),
        )
        with trio.move_on_after(self._limits.request_seconds):
            head = http.send(response)
            await stream.send_all(head + http.send(h11.Data(body)) + http.send(h11.EndOfMessage()))
            await _linger(stream)

    def _own_headers(self) -> list[Header]:
        return [(b"Server", self._server_name.encode()), (b"Date", formatdate(usegmt=True).encode())]

    def _address(self, stream: trio.SocketStream, request: h11.Request) -> str:
        peer = stream.socket.getpeername()[0]
        return client_address(peer, header_values(request, b"x-forwarded-for"), self._trusted_proxies)


async def _linger(stream: trio.SocketStream) -> None:
    """Read what the client still sends before closing: a reset would take the response away from it."""
    received = 0
    with trio.move_on_after(_LINGER_SECONDS):
        await stream.send_eof()
        while received < _LINGER_BYTES_MAX:
            data = await stream.receive_some(64 * 1024)
            if not data:
                return
            received += len(data)
