"""The host's end of a connection, by hand. A trio shell.

Owns a loopback TCP pair, the server side of TLS and of the upgrade, and the reading of what the relay sends. What
is said after the upgrade is each test's own business.
"""

import socket
import ssl
from dataclasses import dataclass
from typing import Self

import trio

from tests.world import websocket as ws

DEADLINE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """What the relay asked for."""

    target: str
    headers: dict[str, str]

    @property
    def accept(self) -> bytes:
        """The 101 that this request deserves."""
        key = ws.accept_key(self.headers["sec-websocket-key"].encode())
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + key + b"\r\n\r\n"
        )


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a loopback connection: (client, server), both non-blocking."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.setblocking(False)
    server.setblocking(False)
    return client, server


def stream_of(connection: socket.socket) -> trio.SocketStream:
    """A trio stream over a plain socket."""
    return trio.SocketStream(trio.socket.from_stdlib_socket(connection))


class HostEnd:
    """The host's end: bytes out, whole frames in."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._frames = ws.FrameReader()
        self._received: list[ws.Frame] = []
        self._head = b""

    @classmethod
    async def start_tls(cls, connection: socket.socket, context: ssl.SSLContext) -> Self:
        """The server side of a TLS connection."""
        stream = trio.SSLStream(stream_of(connection), context, server_side=True, https_compatible=True)
        await stream.do_handshake()
        return cls(stream)

    async def read_request(self) -> UpgradeRequest:
        """The head of the relay's request."""
        while b"\r\n\r\n" not in self._head:
            data = await self.stream.receive_some()
            assert data, "closed in the middle of a request"
            self._head += data
        head, _, rest = self._head.partition(b"\r\n\r\n")
        assert not rest
        first, *lines = head.decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        return UpgradeRequest(first.split(" ")[1], {name.lower(): value for name, value in pairs})

    async def upgrade(self) -> UpgradeRequest:
        """Read the request and accept it."""
        request = await self.read_request()
        await self.send(request.accept)
        return request

    async def send(self, data: bytes) -> None:
        """Bytes as they are."""
        await self.stream.send_all(data)

    async def frame(self) -> ws.Frame | None:
        """The next frame from the relay, None at the end of the stream."""
        while not self._received:
            try:
                data = await self.stream.receive_some()
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self._received += self._frames.feed(bytes(data))
        return self._received.pop(0)

    async def aclose(self) -> None:
        """Close without a close frame."""
        await trio.aclose_forcefully(self.stream)
