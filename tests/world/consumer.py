"""A firehose consumer on a raw socket. A trio shell.

Owns one subscription: the upgrade, reading whole messages, answering pings and a close, how it ended. Keeps what it
received and judges nothing: `verify.py` and `oracle.py` do.
"""

import base64
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import h11
import trio

from tests.world import websocket as ws
from tests.world.frames import Parsed, parse
from tests.world.http_server import Condition

SUBSCRIBE = "/xrpc/com.atproto.sync.subscribeRepos"


class Refused(Exception):
    """The server answered without an upgrade."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        super().__init__(f"{status} {body[:200]!r}")
        self.status = status
        self.headers = headers
        self.body = body


class Consumer:
    """One open subscription; `open_consumer` makes it."""

    def __init__(self, stream: trio.SocketStream, *, keep: bool) -> None:
        self._stream = stream
        self._keep = keep
        self._reader = ws.FrameReader()
        self._partial = b""
        self._gate = trio.Event()
        self._gate.set()
        self._parsed: list[Parsed] = []
        self._sent_close = False
        self.messages: list[bytes] = []
        """Every message, in order (none of them with `keep=False`)."""
        self.texts: list[bytes] = []
        """Text messages: a firehose sends none, Jetstream nothing else."""
        self.count = 0
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        """(code, reason) of the server's close frame."""
        self.ended = False
        """Whether the connection is over, in whatever way."""
        self.changed = Condition()

    @property
    def events(self) -> list[Parsed]:
        """Every message, parsed; raises Malformed at one that is not canonical."""
        self._parsed += [parse(message) for message in self.messages[len(self._parsed) :]]
        return self._parsed

    @property
    def last_seq(self) -> int:
        """The last number received, 0 before the first."""
        return next((event.seq for event in reversed(self.events) if "seq" in event.payload), 0)

    async def received(self, count: int) -> None:
        """Return once so many messages have come."""
        await self.changed.wait_until(lambda: self.count >= count)

    async def received_beyond(self, count: int) -> None:
        """Return once there are more messages than these, or the connection is over."""
        await self.changed.wait_until(lambda: self.count > count or self.ended)

    async def finished(self) -> None:
        """Return once the connection is over."""
        await self.changed.wait_until(lambda: self.ended)

    async def find(self, matches: Callable[[Parsed], bool], *, start: int = 0) -> Parsed:
        """The first event from index `start` on that matches; waits for it."""
        checked = start
        while True:
            for event in self.events[checked:]:
                checked += 1
                if matches(event):
                    return event
            await self.changed.wait()

    def pause(self) -> None:
        """Stop reading from the socket."""
        self._gate = trio.Event()

    def resume(self) -> None:
        """Read again."""
        self._gate.set()

    async def ping(self, payload: bytes) -> None:
        """Send a ping; the answer comes in `pongs`."""
        await self.send_wire(ws.frame(ws.PING, payload, mask=ws.random_mask()))

    async def send_wire(self, data: bytes) -> None:
        """Send raw bytes."""
        await self._stream.send_all(data)

    async def close(self, code: int = 1000) -> None:
        """Send a close frame."""
        self._sent_close = True
        await self.send_wire(ws.frame(ws.CLOSE, code.to_bytes(2, "big"), mask=ws.random_mask()))

    async def run(self, data: bytes) -> None:
        """Read to the end; `data` is what came behind the answer's head."""
        try:
            while True:
                for frame in self._reader.feed(data):
                    await self._take(frame)
                self.changed.notify()
                await self._gate.wait()
                data = await self._stream.receive_some(1 << 18)
                if not data:
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        finally:
            self.ended = True
            self.changed.notify()

    async def _take(self, frame: ws.Frame) -> None:
        if frame.opcode in (ws.BINARY, ws.CONTINUATION, ws.TEXT):
            if not frame.final or self._partial:
                self._partial += frame.payload
                if not frame.final:
                    return
                frame, self._partial = frame._replace(payload=self._partial), b""
            self.count += 1
            if self._keep:
                (self.texts if frame.opcode == ws.TEXT else self.messages).append(frame.payload)
        elif frame.opcode == ws.PING:
            self.pings.append(frame.payload)
            await self.send_wire(ws.frame(ws.PONG, frame.payload, mask=ws.random_mask()))
        elif frame.opcode == ws.PONG:
            self.pongs.append(frame.payload)
        elif frame.opcode == ws.CLOSE:
            self.closed = (int.from_bytes(frame.payload[:2], "big"), frame.payload[2:].decode())
            if not self._sent_close:
                await self.close(self.closed[0])


@asynccontextmanager
async def open_consumer(
    port: int,
    *,
    cursor: int | str | None = None,
    path: str = SUBSCRIBE,
    keep: bool = True,
    receive_buffer_bytes: int | None = None,
) -> AsyncIterator[Consumer]:
    """A running subscription to 127.0.0.1:`port`; raises OSError without a connection, Refused without an upgrade
    (status 0: the connection ended instead).

    `receive_buffer_bytes` makes the socket's buffer small, for a consumer that shall be slow.
    """
    stream = await _dial(port, receive_buffer_bytes)
    async with stream:
        try:
            rest = await _upgrade(stream, port, path if cursor is None else f"{path}?cursor={cursor}")
        except (trio.BrokenResourceError, h11.RemoteProtocolError) as error:
            raise Refused(0, {}, str(error).encode()) from error
        consumer = Consumer(stream, keep=keep)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(consumer.run, rest)
            yield consumer
            nursery.cancel_scope.cancel()


async def _dial(port: int, receive_buffer_bytes: int | None) -> trio.SocketStream:
    sock = trio.socket.socket()
    if receive_buffer_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    try:
        await sock.connect(("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


async def _upgrade(stream: trio.SocketStream, port: int, target: str) -> bytes:
    """Ask for the upgrade; returns the bytes behind the head."""
    key = base64.b64encode(os.urandom(16))
    headers = [
        ("Host", f"localhost:{port}"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", key.decode()),
        ("Sec-WebSocket-Version", "13"),
    ]
    http = h11.Connection(h11.CLIENT)
    request = http.send(h11.Request(method="GET", target=target, headers=headers))
    await stream.send_all((request or b"") + (http.send(h11.EndOfMessage()) or b""))
    answer: h11.InformationalResponse | h11.Response | None = None
    body = b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive_some(1 << 16))
        elif isinstance(event, h11.InformationalResponse) and event.status_code == 101:
            given = dict(event.headers).get(b"sec-websocket-accept")
            if given != ws.accept_key(key):
                raise Refused(101, {}, b"wrong accept key")
            return bytes(http.trailing_data[0])
        elif isinstance(event, h11.Response):
            answer = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif answer is not None:
            named = {name.decode(): value.decode("latin-1") for name, value in answer.headers}
            raise Refused(answer.status_code, named, body)
        else:
            raise Refused(0, {}, b"the server closed the connection")
