"""A host on loopback that does exactly what a test says, connection by connection, and what it streams into.

Owns the listener and describeServer; what happens after a subscription's request is a `Behaviour`. The sink and the
host store are plain second implementations of the supervisor's protocols, in memory. A trio shell.
"""

import re
import ssl
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import trio

from relay.atproto import frames
from relay.eventlog.progress import HostProgress
from relay.eventlog.records import HostRecord, HostStatus
from relay.eventlog.verdict import Drop, DropReason
from relay.validation.envelope import Envelope
from tests.hosts.wire import DEADLINE_SECONDS, HostEnd, UpgradeRequest
from tests.world import websocket as ws

Behaviour = Callable[[HostEnd, UpgradeRequest], Awaitable[None]]

DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"


def identity(seq: int) -> bytes:
    """The smallest event."""
    return frames.message("#identity", {"seq": seq, "did": DID, "time": "2025-01-01T00:00:00.000Z"})


async def until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds; fail when it never does."""
    with trio.fail_after(DEADLINE_SECONDS):
        while not condition():
            await trio.sleep(0.002)


async def respond_to_pings(end: HostEnd) -> None:
    """Answer pings until the relay closes."""
    while (frame := await end.frame()) is not None and frame.opcode != ws.CLOSE:
        if frame.opcode == ws.PING:
            await end.send(ws.frame(ws.PONG, frame.payload))


def send(*parts: bytes) -> Behaviour:
    """Accept, send these bytes, stay."""

    async def behave(end: HostEnd, request: UpgradeRequest) -> None:
        await end.send(request.accept + b"".join(parts))
        await respond_to_pings(end)

    return behave


def send_and_leave(*parts: bytes) -> Behaviour:
    """Accept, send these bytes, close without a close frame."""

    async def behave(end: HostEnd, request: UpgradeRequest) -> None:
        await end.send(request.accept + b"".join(parts))

    return behave


def answer(response: bytes, *, stay: bool = False) -> Behaviour:
    """Answer the request with these bytes in place of the upgrade."""

    async def behave(end: HostEnd, _request: UpgradeRequest) -> None:
        await end.send(response)
        if stay:
            await end.frame()

    return behave


async def say_nothing(end: HostEnd, _request: UpgradeRequest) -> None:
    """Never answer the upgrade."""
    await end.frame()


async def upgrade_and_say_nothing(end: HostEnd, request: UpgradeRequest) -> None:
    """Accept, then ignore everything, pings included."""
    await end.send(request.accept)
    while await end.frame() is not None:
        pass


@dataclass
class FakeHost:
    """One host. Each subscription takes the next of `behaviours`, then `behaviour`."""

    listener: trio.SocketListener
    tls: ssl.SSLContext | None = None
    behaviour: Behaviour = say_nothing
    behaviours: deque[Behaviour] = field(default_factory=deque)
    describe: bytes | None = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    requests: list[UpgradeRequest] = field(default_factory=list)
    ended: int = 0
    events: list[int] = field(default_factory=list)

    @property
    def port(self) -> int:
        port: int = self.listener.socket.getsockname()[1]
        return port

    @property
    def name(self) -> str:
        return f"localhost:{self.port}" if self.tls is None else f"https://localhost:{self.port}"

    @property
    def cursors(self) -> list[int]:
        """What each subscription asked for."""
        return [int(request.target.partition("cursor=")[2]) for request in self.requests]

    async def serve(self) -> None:
        """Until cancelled."""
        await trio.serve_listeners(self._serve_one, [self.listener])

    def send_log_up_to(self, last: int) -> Behaviour:
        """Accept, send the identities beyond the cursor up to this one, close without a close frame."""

        async def behave(end: HostEnd, request: UpgradeRequest) -> None:
            cursor = int(request.target.partition("cursor=")[2])
            wanted = (ws.binary(identity(seq)) for seq in self.events if cursor < seq <= last)
            await send_and_leave(*wanted)(end, request)

        return behave

    async def send_log(self, end: HostEnd, request: UpgradeRequest) -> None:
        """A behaviour: accept, send the identities in `events` beyond the cursor, stay."""
        cursor = int(request.target.partition("cursor=")[2])
        await send(*(ws.binary(identity(seq)) for seq in self.events if seq > cursor))(end, request)

    async def _serve_one(self, stream: trio.SocketStream) -> None:
        try:
            if self.tls is None:
                await self._behave(HostEnd(stream))
            else:
                secured = trio.SSLStream(stream, self.tls, server_side=True, https_compatible=True)
                await self._behave(HostEnd(secured))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the relay went away
        finally:
            await trio.aclose_forcefully(stream)

    async def _behave(self, end: HostEnd) -> None:
        request = await end.read_request()
        if re.match("/xrpc/com.atproto.server.describeServer", request.target):
            if self.describe is None:
                await trio.sleep_forever()
            else:
                await end.send(self.describe)
            return
        self.requests.append(request)
        behaviour = self.behaviours.popleft() if self.behaviours else self.behaviour
        try:
            await behaviour(end, request)
        finally:
            self.ended += 1


async def open_host(*, port: int = 0, tls: ssl.SSLContext | None = None) -> FakeHost:
    """A host that listens, but does not serve yet."""
    (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
    return FakeHost(listener, tls)


@dataclass
class ListSink:
    """Keeps what comes and finishes it at once."""

    envelopes: list[Envelope] = field(default_factory=list)
    drops: list[Drop] = field(default_factory=list)
    counted: Counter[DropReason] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)
    room: bool = True
    fails_with: Exception | None = None

    @property
    def seqs(self) -> list[int]:
        return [envelope.event.seq for envelope in self.envelopes]

    def submit(self, envelope: Envelope) -> None:
        if self.fails_with is not None:
            raise self.fails_with
        self.envelopes.append(envelope)
        envelope.origin.finish()

    def drop(self, drop: Drop) -> None:
        self.drops.append(drop)
        drop.origin.finish()

    def count_drop(self, host: str, reason: DropReason) -> None:
        self.counted[reason] += 1

    def cursor_moved(self, host: str) -> None:
        self.moved[host] += 1

    def has_room(self, host: str) -> bool:
        return self.room

    async def wait_room(self, host: str) -> None:
        while not self.room:
            await trio.sleep(0.001)


class MemoryHosts:
    """The known hosts, read and written."""

    def __init__(self) -> None:
        self.records: dict[str, HostRecord] = {}
        self._progress: dict[str, HostProgress] = {}

    def get(self, name: str) -> HostRecord | None:
        return self.records.get(name)

    def names(self) -> list[str]:
        return sorted(self.records)

    def progress(self, name: str) -> HostProgress:
        record = self.records[name]
        return self._progress.setdefault(name, HostProgress(record.last, record.unfinished))

    async def add_host(self, name: str) -> None:
        await trio.lowlevel.checkpoint()
        self.records.setdefault(name, HostRecord())

    async def set_host_status(self, name: str, status: HostStatus) -> None:
        await trio.lowlevel.checkpoint()
        self.records[name] = replace(self.records[name], status=status)
