"""A streaming port on loopback over a list, and a raw client that sees every byte."""

import base64
import os
import socket
from collections.abc import AsyncIterator, Collection, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any

import trio

from relay.firehose.client_address import IpNetwork
from relay.firehose.consumers import Consumers
from relay.firehose.live import LiveSweep
from relay.firehose.server import Server, ServerLimits
from relay.firehose.subscribe_repos import PATH, ConsumerLimits, SubscribeRepos
from relay.firehose.websocket import KeepAlive
from tests.firehose.list_log import ListLog
from tests.world.websocket import BINARY, CLOSE, PING, PONG, Frame, FrameReader, frame, random_mask

SERVER_NAME = "atproto-relay/test"
LOOPBACK: tuple[IpNetwork, ...] = (IPv4Network("127.0.0.0/8"),)
SOON = 10.0  # seconds; what is waited for comes within milliseconds


@dataclass(kw_only=True)
class Settings:
    """What a test changes of the port."""

    consumers_max: int = 1000
    consumers_per_address_max: int = 1000
    connections_max: int = 2000
    connections_per_peer_max: int = 1000
    stall_seconds: float = 20.0
    close_seconds: float = 2.0
    head_seconds: float = SOON
    idle_seconds: float = SOON
    request_seconds: float = SOON
    keep_alive: KeepAlive = field(default_factory=lambda: KeepAlive(ping_seconds=30, answer_seconds=60))
    trusted_proxies: Collection[IpNetwork] = ()


class Port:
    """The running parts."""

    def __init__(self, log: ListLog, settings: Settings) -> None:
        self.log = log
        self.sweep = LiveSweep(log)
        self.consumers = Consumers(
            consumers_max=settings.consumers_max, consumers_per_address_max=settings.consumers_per_address_max
        )
        handler = SubscribeRepos(
            reader=log,
            sweep=self.sweep,
            consumers=self.consumers,
            limits=ConsumerLimits(stall_seconds=settings.stall_seconds, close_seconds=settings.close_seconds),
            now=lambda: 1_700_000_000.0,
        )
        self.server = Server(
            streams={PATH: handler},
            app=tiny_app,
            server_name=SERVER_NAME,
            trusted_proxies=settings.trusted_proxies,
            limits=ServerLimits(
                head_bytes_max=1 << 20,
                head_seconds=settings.head_seconds,
                idle_seconds=settings.idle_seconds,
                request_seconds=settings.request_seconds,
                connections_max=settings.connections_max,
                connections_per_peer_max=settings.connections_per_peer_max,
            ),
            keep_alive=settings.keep_alive,
        )
        self.number = 0
        self.serving = trio.CancelScope()
        self.dialled: list[RawClient] = []

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.number}{PATH}"

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.number}"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.sweep.run)
            with self.serving:
                async with trio.open_nursery() as serving:
                    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
                    await serving.start(self._serve, listeners)
                    self.number = listeners[0].socket.getsockname()[1]
                    task_status.started()
            nursery.cancel_scope.cancel()

    async def _serve(
        self, listeners: list[trio.SocketListener], *, task_status: trio.TaskStatus[list[trio.SocketListener]]
    ) -> None:
        await self.server.serve(listeners, task_status=task_status)

    async def connect(
        self, query: str = "", *, headers: str = "", receive_buffer_bytes: int | None = None
    ) -> "RawClient":
        """A consumer whose handshake succeeded."""
        client = await self.dial(receive_buffer_bytes=receive_buffer_bytes)
        head = await client.request(f"GET {PATH}{query} HTTP/1.1", UPGRADE + headers)
        assert head.startswith("HTTP/1.1 101 "), head
        return client

    async def dial(self, *, receive_buffer_bytes: int | None = None) -> "RawClient":
        """A plain connection."""
        connection = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        await connection.connect(("127.0.0.1", self.number))
        self.dialled.append(RawClient(trio.SocketStream(connection)))
        return self.dialled[-1]


@asynccontextmanager
async def running(settings: Settings | None = None, *, log: ListLog | None = None) -> AsyncIterator[Port]:
    """A port that serves until the block ends; the block itself must end soon."""
    port = Port(log or ListLog(), settings or Settings())
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(port.run)
            try:
                yield port
            finally:
                for client in port.dialled:
                    await trio.aclose_forcefully(client.stream)
            nursery.cancel_scope.cancel()


UPGRADE = (
    "Host: relay\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n"
)


class RawClient:
    """Bytes and frames of one connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._frames = FrameReader()
        self._ready: list[Frame] = []
        self._buffer = b""

    async def request(self, line: str, headers: str = "Host: relay\r\n", body: str = "") -> str:
        """Send a request; the response's head."""
        await self.stream.send_all(f"{line}\r\n{headers}\r\n{body}".encode("latin-1"))
        return await self.head()

    async def head(self) -> str:
        """The next response's head; what follows stays for later."""
        while b"\r\n\r\n" not in self._buffer:
            data = await self.stream.receive_some(65536)
            assert data, f"closed after {self._buffer!r}"
            self._buffer += data
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        self._buffer = rest
        if head.startswith(b"HTTP/1.1 101 "):
            self._ready += self._frames.feed(rest)
            self._buffer = b""
        return head.decode("latin-1")

    async def body(self, head: str) -> bytes:
        """The body that follows a head with a Content-Length."""
        length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
        while len(self._buffer) < length:
            data = await self.stream.receive_some(65536)
            assert data, f"closed after {self._buffer!r}"
            self._buffer += data
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return body

    async def eof(self) -> bool:
        """Whether the server closes without a further byte."""
        try:
            return not self._buffer and not await self.stream.receive_some(1)
        except trio.BrokenResourceError:
            return True

    async def frame(self) -> Frame:
        """The next frame of any kind."""
        while not self._ready:
            data = await self.stream.receive_some(65536)
            assert data, "closed without a close frame"
            self._ready += self._frames.feed(data)
        return self._ready.pop(0)

    async def message(self) -> bytes:
        """The next frame, which must be a whole binary message; pings are answered on the way."""
        while True:
            received = await self.frame()
            if received.opcode == PING:
                await self.send(PONG, received.payload)
                continue
            assert received.opcode == BINARY, received
            assert received.final
            return received.payload

    async def closing(self) -> tuple[int, str]:
        """The next frame, which must be a close: its code and reason. It is answered, and EOF follows."""
        received = await self.frame()
        assert received.opcode == CLOSE, received
        await self.send(CLOSE, received.payload[:2])
        assert await self.eof()
        return int.from_bytes(received.payload[:2], "big"), received.payload[2:].decode()

    async def send(self, opcode: int, payload: bytes = b"") -> None:
        """Send one masked frame."""
        await self.stream.send_all(frame(opcode, payload, mask=random_mask()))


async def tiny_app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    """Says what it was asked; `/echo` gives the body back, `/fail` raises."""
    body = b""
    if scope["path"] == "/fail":
        raise RuntimeError("as asked")
    if scope["method"] == "POST" and scope["path"] == "/echo":
        more = True
        while more:
            part = await receive()
            body += part["body"]
            more = part["more_body"]
    else:
        body = f"{scope['method']} {scope['path']} {scope['query_string'].decode()} {scope['client'][0]}".encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
