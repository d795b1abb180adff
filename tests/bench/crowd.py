"""Thousands of fake hosts in one process, each a host of its own for a relay. Trio.

Much leaner than `tests.world.pds.FakeHost`, and with TLS: the hosts are names (`h17.pds.localhost:PORT`) behind two
listeners, the even and the odd ones, so that half of them can go away and come back on the same port. They store what
they emit, replay it by cursor, answer pings and describeServer, and can do nothing else.
"""

import random
import re
import socket
import ssl
from collections import Counter
from dataclasses import dataclass, field

import trio

from relay.atproto.cbor import uint
from tests.world import websocket as ws
from tests.world.event_log import Entry, EventLog

DOMAIN = "pds.localhost"
SUBSCRIBE = "/xrpc/com.atproto.sync.subscribeRepos"
_HOST = re.compile(rb"\r\nhost: *h([0-9]+)\.", re.IGNORECASE)
_KEY = re.compile(rb"\r\nsec-websocket-key: *([^\r]+)\r\n", re.IGNORECASE)
_CURSOR = re.compile(rb"[?&]cursor=([0-9]+)")
_DESCRIPTION = b'{"did":"did:web:h.pds.localhost","availableUserDomains":[]}'
_BATCH_ENTRIES = 64


@dataclass(slots=True)
class _Host:
    log: EventLog = field(default_factory=EventLog)
    appended: trio.Event = field(default_factory=trio.Event)
    subscribers: int = 0


class Crowd:
    """`count` hosts. Run `serve()` in a nursery; `kill()` and `revive()` take the odd ones down and up."""

    def __init__(self, count: int, *, tls: ssl.SSLContext | None) -> None:
        self._hosts = [_Host() for _ in range(count)]
        self._tls = tls
        self._listeners = [_listen() for _ in range(2)]
        self._ports = [listener.socket.getsockname()[1] for listener in self._listeners]
        self._odd = trio.CancelScope()
        self._revived = trio.Event()
        self.dials: list[float] = []
        """When each subscription's TCP connection was accepted, in trio's time."""
        self.pings: Counter[int] = Counter()
        """Pings answered, by host."""
        self.connected = 0
        """How many hosts have a subscriber."""

    def name(self, index: int) -> str:
        """The host as a relay names it."""
        return f"{'https://' if self._tls else ''}h{index}.{DOMAIN}:{self._ports[index % 2]}"

    def endpoint(self, index: int) -> str:
        """The host as DID documents give it."""
        return f"{'https' if self._tls else 'http'}://h{index}.{DOMAIN}:{self._ports[index % 2]}"

    def emit(self, index: int, head: bytes, tail: bytes) -> None:
        """Store the event `head + seq + tail` under the host's next number, for whoever is connected."""
        host = self._hosts[index]
        seq = host.log.last_seq + 1
        host.log.append([Entry(seq, ws.binary(head + uint(seq) + tail))])
        host.appended.set()
        host.appended = trio.Event()

    def kill(self) -> None:
        """The odd hosts are gone, connections and listener."""
        self._odd.cancel()

    def revive(self) -> None:
        """They are back."""
        self._revived.set()

    async def wait_connected(self, count: int) -> None:
        """Return once exactly so many hosts have a subscriber."""
        while self.connected != count:
            await trio.sleep(0.005)

    def dial_peak(self, since: float, seconds: float) -> int:
        """The most dials within any span of so many seconds."""
        dials = sorted(moment for moment in self.dials if moment >= since)
        peak = first = 0
        for last, moment in enumerate(dials):
            while dials[first] <= moment - seconds:
                first += 1
            peak = max(peak, last - first + 1)
        return peak

    async def serve(self) -> None:
        """Answer until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self._connection, [self._listeners[0]])
            while True:
                with self._odd:
                    await trio.serve_listeners(self._connection, [self._listeners[1]])
                await self._revived.wait()
                self._revived, self._odd = trio.Event(), trio.CancelScope()
                self._listeners[1] = _listen(self._ports[1])

    async def _connection(self, plain: trio.SocketStream) -> None:
        accepted = trio.current_time()
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream: trio.abc.Stream = plain
        if self._tls is not None:
            stream = trio.SSLStream(plain, self._tls, server_side=True, https_compatible=True)
        try:
            async with stream:
                await self._converse(stream, accepted)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _converse(self, stream: trio.abc.Stream, accepted: float) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            received = await stream.receive_some()
            if not received:
                return
            head += received
        target = head.split(b" ", 2)[1]
        found = _HOST.search(head)
        assert found is not None, head
        if not target.startswith(SUBSCRIBE.encode()):
            length = len(_DESCRIPTION)
            answer = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
            await stream.send_all(answer.encode() + _DESCRIPTION)
            return
        self.dials.append(accepted)
        key, cursor = _KEY.search(head), _CURSOR.search(target)
        assert key is not None, head
        await stream.send_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + ws.accept_key(key[1]) + b"\r\n\r\n"
        )
        await self._subscribed(stream, int(found[1]), None if cursor is None else int(cursor[1]))

    async def _subscribed(self, stream: trio.abc.Stream, index: int, cursor: int | None) -> None:
        host, turn = self._hosts[index], trio.Lock()
        self.connected += not host.subscribers
        host.subscribers += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._heed, stream, turn, index, nursery.cancel_scope)
                place = host.log.place_after(cursor)
                while True:
                    appended = host.appended
                    batch, place = host.log.take(place, _BATCH_ENTRIES)
                    if batch:
                        async with turn:
                            await stream.send_all(b"".join(entry.wire for entry in batch))
                    else:
                        await appended.wait()
        finally:
            host.subscribers -= 1
            self.connected -= not host.subscribers

    async def _heed(self, stream: trio.abc.Stream, turn: trio.Lock, index: int, scope: trio.CancelScope) -> None:
        """Pongs for pings; a close frame or the end of the stream ends the connection."""
        reader = ws.FrameReader()
        while received := await stream.receive_some():
            for frame in reader.feed(bytes(received)):
                if frame.opcode == ws.CLOSE:
                    scope.cancel()
                elif frame.opcode == ws.PING:
                    self.pings[index] += 1
                    async with turn:
                        await stream.send_all(ws.frame(ws.PONG, frame.payload))
        scope.cancel()


def _listen(port: int | None = None) -> trio.SocketListener:
    """A listener on a port below those that outgoing connections take, so that nobody has it when it is revived."""
    for _ in range(1000):
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port or random.randrange(15_000, 32_000)))
        except OSError:
            listening.close()
            if port is None:
                continue
            raise
        listening.listen(4096)
        return trio.SocketListener(trio.socket.from_stdlib_socket(listening))
    raise OSError("no port is free")
