"""A request for a stream that has not been answered yet. Trio shell.

Owns the step from HTTP to WebSocket. A handler looks at the request, raises Refusal or accepts; Jetstream's options
travel in `query`, which may be a megabyte.
"""

import socket
from collections.abc import Awaitable, Callable

import h11
import trio

from relay.firehose.handshake import Header, Opening, answer_headers
from relay.firehose.websocket import KeepAlive, WebSocket


class Upgrade:
    """A valid opening handshake of one client."""

    def __init__(
        self,
        *,
        stream: trio.SocketStream,
        http: h11.Connection,
        opening: Opening,
        query: str,
        address: str,
        user_agent: str,
        headers: list[Header],
        keep_alive: KeepAlive,
    ) -> None:
        """`headers` are added to the answer."""
        self.query = query
        self.address = address
        self.user_agent = user_agent
        self.subprotocols = opening.subprotocols
        self._stream = stream
        self._http = http
        self._opening = opening
        self._headers = headers
        self._keep_alive = keep_alive
        self._websocket: WebSocket | None = None

    async def accept(self, subprotocol: str | None) -> WebSocket:
        """Answer 101; the socket belongs to the WebSocket from here on. Raises trio.BrokenResourceError."""
        headers = answer_headers(self._opening, subprotocol) + self._headers
        answer = h11.InformationalResponse(status_code=101, headers=headers, reason=b"Switching Protocols")
        await self._stream.send_all(self._http.send(answer))
        connected = socket.socket(fileno=self._stream.socket.detach())
        connected.setblocking(False)
        received = self._http.trailing_data[0]
        self._websocket = WebSocket(connected, received=received, keep_alive=self._keep_alive)
        return self._websocket

    def release(self) -> None:
        """Close the socket if it was taken over."""
        if self._websocket is not None:
            self._websocket.release()


StreamHandler = Callable[[Upgrade], Awaitable[None]]
