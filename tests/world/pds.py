"""Fake PDS hosts that speak the wire on loopback. A trio shell.

Owns one host's subscribers and the faults that a test scripts for them. What the events say comes from outside: a
host stores and sends any bytes (`event_log.py`), and answers queries about its accounts (`queries.py`).
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import trio

from tests.world import websocket as ws
from tests.world.event_log import Ending, Entry, EventLog
from tests.world.exchange import NoAnswer, Request, Response
from tests.world.frames import error_frame, info_frame
from tests.world.http_server import Answer, Condition, Upgrade, listen, port_of, reset, serve
from tests.world.queries import Hosted, answer

SUBSCRIBE = "/xrpc/com.atproto.sync.subscribeRepos"
BATCH_ENTRIES = 64


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer the subscription with this instead of the upgrade."""

    response: Response


@dataclass(frozen=True, slots=True)
class NeverAnswer:
    """Accept the connection, read the request, say nothing."""


@dataclass(frozen=True, slots=True)
class Silent:
    """Upgrade, then send nothing and answer nothing, not even pings."""


@dataclass(frozen=True, slots=True)
class CutAfter:
    """End the connection after so many entries: with a close frame of this code, or a TCP reset where None."""

    entries: int
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Slow:
    """Send pieces of `piece_bytes` with `pause_seconds` between them."""

    piece_bytes: int
    pause_seconds: float


Fault = Refuse | NeverAnswer | Silent | CutAfter | Slow


class FakeHost:
    """One PDS host. Make it with `await FakeHost.open()`, run `serve()` in a nursery; change it at any time."""

    def __init__(self, *, listener: trio.SocketListener, server: str) -> None:
        self._listener: trio.SocketListener | None = listener
        self.port = port_of(listener)
        self._server = server
        self._appended = trio.Event()
        self.log = EventLog()
        self.hosted: dict[str, Hosted] = {}
        self.well_known: dict[str, Response] = {}
        """Path to answer, for did:web documents and the like."""
        self.answers: dict[str, Response | NoAnswer] = {}
        """Method name to a scripted answer in place of the true one."""
        self.faults: deque[Fault | None] = deque()
        """One for each coming subscription; then `fault` for all."""
        self.fault: Fault | None = None
        self.cursors: list[int | None] = []
        """What each subscription asked for, refused ones included; None where it gave no cursor."""
        self.request_headers: list[dict[str, str]] = []
        """The headers of each subscription's request."""
        self.requests: Counter[str] = Counter()
        """How often each path was asked for."""
        self.subscribers = 0
        self.sent_seq = 0
        """The place of the newest entry sent to anyone."""
        self.sent_entries = 0
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.closes: list[tuple[int, str]] = []
        """(code, reason) of each close frame received."""
        self.changed = Condition()
        """Notified at every subscription, its end, every send and every frame received."""

    @classmethod
    async def open(cls, *, server: str = "fake-pds") -> "FakeHost":
        """A host with a listening socket on 127.0.0.1; `server` is its `Server` header."""
        return cls(listener=await listen(), server=server)

    @property
    def name(self) -> str:
        """`localhost:PORT`, as a relay is told it."""
        return f"localhost:{self.port}"

    @property
    def endpoint(self) -> str:
        """`http://localhost:PORT`, as DID documents give it."""
        return f"http://{self.name}"

    @property
    def last_seq(self) -> int:
        """The number of the newest event, 0 before the first."""
        return self.log.last_seq

    def emit(self, build: Callable[[int], bytes]) -> int:
        """Store the message that `build` makes for the next number; returns the number."""
        return self.emit_wire(ws.binary(build(self.last_seq + 1)))

    def emit_wire(self, wire: bytes, *, ends: Ending = "", once: bool = False) -> int:
        """Store raw bytes of the stream (made with `tests.world.websocket`) under the next number.

        With `once` they take no number and are not replayed: a ping, a close frame, a cut.
        """
        seq = self.last_seq if once else self.last_seq + 1
        self.publish([Entry(seq, wire, ends, once)])
        return seq

    def publish(self, entries: Iterable[Entry]) -> None:
        """Store ready entries in one go."""
        self.log.append(entries)
        self._appended.set()
        self._appended = trio.Event()

    def cut(self) -> None:
        """Reset the connection, once it has been sent everything up to here."""
        self.emit_wire(b"", ends="reset", once=True)

    def skip(self, numbers: int) -> None:
        """Leave a gap in the numbering."""
        self.log.last_seq += numbers

    def renumber(self, *, last_seq: int = 0) -> None:
        """Lose everything stored and start the numbering again after `last_seq`."""
        self.log.forget(keep=0)
        self.log.last_seq = self.sent_seq = last_seq

    async def connected(self, count: int = 1) -> None:
        """Return once `count` subscriptions are open at the same time."""
        await self.changed.wait_until(lambda: self.subscribers >= count)

    async def disconnected(self) -> None:
        """Return once no subscription is open."""
        await self.changed.wait_until(lambda: self.subscribers == 0)

    async def asked(self, count: int) -> None:
        """Return once `count` subscriptions were asked for in all."""
        await self.changed.wait_until(lambda: len(self.cursors) >= count)

    async def sent(self, seq: int) -> None:
        """Return once a subscriber was sent everything up to a number."""
        await self.changed.wait_until(lambda: self.sent_seq >= seq)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled: then it is down, connections and all. Run it again to come back on the same port
        (with `await nursery.start(…)`, which returns once it listens)."""
        listener, self._listener = self._listener or await listen(self.port), None
        task_status.started()
        await serve(listener, self._answer, server=self._server)

    async def _answer(self, request: Request) -> Answer:
        self.requests[request.path] += 1
        self.changed.notify()
        if request.path == SUBSCRIBE and "websocket" in request.headers.get("upgrade", "").lower():
            return self._subscribe(request)
        method = request.path.removeprefix("/xrpc/")
        scripted = self.answers.get(method) or self.well_known.get(request.path)
        return scripted or answer(method, request.query, self.hosted)

    def _subscribe(self, request: Request) -> Answer:
        text = request.query.get("cursor")
        cursor = int(text) if text else None
        fault = self.faults.popleft() if self.faults else self.fault
        self.cursors.append(cursor)
        self.request_headers.append(request.headers)
        self.changed.notify()
        if isinstance(fault, Refuse):
            return fault.response
        if isinstance(fault, NeverAnswer):
            return NoAnswer()
        key = ws.accept_key(request.headers["sec-websocket-key"].encode()).decode()
        head = (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Server: {self._server}\r\nSec-WebSocket-Accept: {key}\r\n\r\n"
        )

        async def run(stream: trio.SocketStream, already: bytes) -> None:
            self.subscribers += 1
            self.changed.notify()
            try:
                async with trio.open_nursery() as nursery:
                    turn = trio.Lock()
                    nursery.start_soon(self._listen_to, stream, already, turn, fault, nursery.cancel_scope)
                    await self._send_log(stream, cursor, turn, fault)
                    nursery.cancel_scope.cancel()
            finally:
                self.subscribers -= 1
                self.changed.notify()

        return Upgrade(head.encode(), run)

    async def _listen_to(
        self, stream: trio.SocketStream, data: bytes, turn: trio.Lock, fault: Fault | None, scope: trio.CancelScope
    ) -> None:
        reader = ws.FrameReader()
        while True:
            for frame in reader.feed(data):
                await self._heed(stream, frame, turn, silent=isinstance(fault, Silent))
                if frame.opcode == ws.CLOSE:
                    scope.cancel()
            data = await stream.receive_some(1 << 16)
            if not data:
                scope.cancel()
                return

    async def _heed(self, stream: trio.SocketStream, frame: ws.Frame, turn: trio.Lock, *, silent: bool) -> None:
        if frame.opcode == ws.PONG:
            self.pongs.append(frame.payload)
        elif frame.opcode == ws.PING:
            self.pings.append(frame.payload)
        elif frame.opcode == ws.CLOSE:
            self.closes.append((int.from_bytes(frame.payload[:2], "big"), frame.payload[2:].decode()))
        self.changed.notify()
        if frame.opcode in (ws.PING, ws.CLOSE) and not silent:
            reply = ws.frame(ws.PONG if frame.opcode == ws.PING else ws.CLOSE, frame.payload)
            async with turn:
                await stream.send_all(reply)

    async def _send_log(
        self, stream: trio.SocketStream, cursor: int | None, turn: trio.Lock, fault: Fault | None
    ) -> None:
        if isinstance(fault, Silent):
            await trio.sleep_forever()
        if cursor is not None and cursor > self.last_seq:
            error = ws.binary(error_frame("FutureCursor", "Cursor in the future."))
            await stream.send_all(error + ws.close(1008, "FutureCursor"))
            return
        if cursor is not None and self.log.outdated(cursor):
            text = "Requested cursor exceeded limit. Possibly missing events"
            await stream.send_all(ws.binary(info_frame("OutdatedCursor", text)))
        place = self.log.place_after(cursor)
        left = fault.entries if isinstance(fault, CutAfter) else BATCH_ENTRIES
        while left:
            appended = self._appended
            batch, place = self.log.take(place, min(left, BATCH_ENTRIES))
            if not batch:
                await appended.wait()
                continue
            left -= len(batch) if isinstance(fault, CutAfter) else 0
            async with turn:
                await self._send(stream, b"".join(entry.wire for entry in batch), fault)
            self.sent_seq = max(self.sent_seq, batch[-1].seq)
            self.sent_entries += len(batch)
            self.changed.notify()
            if batch[-1].ends == "reset":
                reset(stream)
            if batch[-1].ends:
                return
        if isinstance(fault, CutAfter) and fault.code is not None:
            await stream.send_all(ws.close(fault.code))
        else:
            reset(stream)

    async def _send(self, stream: trio.SocketStream, data: bytes, fault: Fault | None) -> None:
        if not isinstance(fault, Slow):
            await stream.send_all(data)
            return
        for start in range(0, len(data), fault.piece_bytes):
            await stream.send_all(data[start : start + fault.piece_bytes])
            await trio.sleep(fault.pause_seconds)
