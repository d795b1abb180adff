"""A small HTTP/1.1 server on loopback for the fakes. A trio shell.

Owns listening, request heads and bodies (h11), keep-alive, and handing a connection over after an upgrade. Knows
nothing of what is served.
"""

import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

import h11
import trio

from tests.world.exchange import NoAnswer, Request, Response


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Send `head` as it is and give the connection to `run(stream, bytes already read)`."""

    head: bytes
    run: Callable[[trio.SocketStream, bytes], Awaitable[None]]


Answer = Response | Upgrade | NoAnswer
Handler = Callable[[Request], Awaitable[Answer]]


class Condition:
    """Tells waiting tasks that something changed."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def notify(self) -> None:
        """Wake all who wait."""
        self._event.set()
        self._event = trio.Event()

    async def wait(self) -> None:
        """Return at the next `notify`."""
        await self._event.wait()

    async def wait_until(self, true: Callable[[], bool]) -> None:
        """Return once `true()`; looks again at each `notify`. The caller sets the time limit."""
        while not true():
            await self._event.wait()
        await trio.lowlevel.checkpoint()


async def listen(port: int = 0) -> trio.SocketListener:
    """A listening socket on 127.0.0.1; port 0 is a free one."""
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    return listeners[0]


def port_of(listener: trio.SocketListener) -> int:
    """The port it listens on."""
    return int(listener.socket.getsockname()[1])


def reset(stream: trio.SocketStream) -> None:
    """Close at once with a TCP reset."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def serve(listener: trio.SocketListener, handler: Handler, *, server: str) -> None:
    """Answer requests until cancelled. `server` is the `Server` header; the listener is closed afterwards."""

    async def connection(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await _converse(stream, handler, server)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            pass

    await trio.serve_listeners(connection, [listener])


async def _converse(stream: trio.SocketStream, handler: Handler, server: str) -> None:
    http = h11.Connection(h11.SERVER)
    while True:
        request = await _read_request(stream, http)
        if request is None:
            return
        answer = await handler(request)
        if isinstance(answer, NoAnswer):
            while await stream.receive_some(1 << 16):
                pass
            return
        if isinstance(answer, Upgrade):
            await stream.send_all(answer.head)
            await answer.run(stream, http.trailing_data[0])
            return
        await _send_response(stream, http, answer, server)
        if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
            return
        http.start_next_cycle()


async def _read_request(stream: trio.SocketStream, http: h11.Connection) -> Request | None:
    head, body = None, b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive_some(1 << 16))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            target = urlsplit(head.target.decode())
            query = dict(parse_qsl(target.query, keep_blank_values=True))
            headers = {name.decode().lower(): value.decode("latin-1") for name, value in head.headers}
            return Request(head.method.decode(), unquote(target.path), query, headers, body)
        elif event is h11.PAUSED:
            if head is None:
                return None
        else:
            return None


async def _send_response(stream: trio.SocketStream, http: h11.Connection, response: Response, server: str) -> None:
    headers = [
        ("Server", server),
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(response.body))),
        *response.headers,
    ]
    head = h11.Response(status_code=response.status, headers=headers)
    parts = [http.send(head), http.send(h11.Data(data=response.body)), http.send(h11.EndOfMessage())]
    await stream.send_all(b"".join(part or b"" for part in parts))
