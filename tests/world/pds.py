"""Fake PDS hosts that speak the wire on loopback. A trio shell.

Owns one host's stored events with their numbers, its subscribers, its few HTTP answers, and the faults that a test
scripts. What the events say comes from outside: a host stores and sends any bytes.
"""

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import trio

from tests.world import websocket as ws
from tests.world.frames import error_frame, info_frame
from tests.world.http_server import (
    Answer,
    Condition,
    NoAnswer,
    Request,
    Response,
    Upgrade,
    error_response,
    json_response,
    listen,
    port_of,
    reset,
    serve,
)
from tests.world.ipld import cid_text
from tests.world.repo import Repo

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


@dataclass(slots=True)
class Hosted:
    """An account as the host's HTTP answers show it; `status` is the lexicon's word or None."""

    repo: Repo
    active: bool = True
    status: str | None = None


class Entry(NamedTuple):
    """Stored bytes of the stream. `seq` is their place in it for cursors, whatever the bytes say.

    `ends` cuts the connection after them: "close" in order, "reset" by TCP reset, "" not at all. `once`: forgotten
    when the first subscriber was sent them.
    """

    seq: int
    wire: bytes
    ends: str = ""
    once: bool = False


class FakeHost:
    """One PDS host. Make it with `await FakeHost.open(...)`, run `serve()` in a nursery."""

    def __init__(self, *, listener: trio.SocketListener, server: str) -> None:
        self._listener = listener
        self._server = server
        self._entries: list[Entry] = []
        self._seqs: list[int] = []
        self._forgotten = 0
        self._appended = trio.Event()
        self.last_seq = 0
        """The number of the newest event; set it to start the numbering elsewhere."""
        self.hosted: dict[str, Hosted] = {}
        self.well_known: dict[str, Response] = {}
        """Path to answer, for did:web documents and the like."""
        self.answers: dict[str, Answer] = {}
        """Method name to a scripted answer in place of the true one."""
        self.faults: deque[Fault | None] = deque()
        """One per coming subscription, then `fault`."""
        self.fault: Fault | None = None
        self.cursors: list[int | None] = []
        """What each subscription asked for, refused ones included; None where it gave no cursor."""
        self.requests: Counter[str] = Counter()
        """How often each path was asked for."""
        self.request_headers: list[dict[str, str]] = []
        """The headers of each subscription's request."""
        self.subscribers = 0
        self.sent_seq = 0
        """The place of the newest entry sent to anyone."""
        self.sent_entries = 0
        self.pongs: list[bytes] = []
        self.closes: list[tuple[int, str]] = []
        """(code, reason) of each close frame received."""
        self.changed = Condition()
        """Notified at every subscription, its end, every send, close and pong."""

    @classmethod
    async def open(cls, *, server: str = "fake-pds") -> "FakeHost":
        """A host with a listening socket; `server` is its `Server` header."""
        return cls(listener=await listen(), server=server)

    @property
    def port(self) -> int:
        return port_of(self._listener)

    @property
    def name(self) -> str:
        """`localhost:PORT`, as a relay is told it."""
        return f"localhost:{self.port}"

    @property
    def endpoint(self) -> str:
        """`http://localhost:PORT`, as DID documents give it."""
        return f"http://localhost:{self.port}"

    # the log

    def emit(self, build: Callable[[int], bytes]) -> int:
        """Store the message that `build` makes for the next number; returns the number."""
        self.last_seq += 1
        self._append(Entry(self.last_seq, ws.binary(build(self.last_seq))))
        return self.last_seq

    def emit_wire(self, wire: bytes, *, ends: str = "", once: bool = False) -> int:
        """Store raw bytes of the stream (`tests.world.websocket`) under the next number.

        With `once` they take no number and are not replayed: a ping, a close frame, a cut.
        """
        self.last_seq += 0 if once else 1
        self._append(Entry(self.last_seq, wire, ends, once))
        return self.last_seq

    def publish(self, entries: Iterable[Entry]) -> None:
        """Store ready entries in one go."""
        added = list(entries)
        self._entries += added
        self._seqs += [entry.seq for entry in added]
        self.last_seq = max(self.last_seq, self._seqs[-1]) if self._seqs else self.last_seq
        self._wake()

    def _append(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._seqs.append(entry.seq)
        self._wake()

    def _wake(self) -> None:
        self._appended.set()
        self._appended = trio.Event()

    def cut(self) -> None:
        """Reset every connection that has been sent all up to here."""
        self.emit_wire(b"", ends="reset", once=True)

    def skip(self, numbers: int) -> None:
        """Leave a gap in the numbering."""
        self.last_seq += numbers

    def forget(self, *, keep: int) -> None:
        """Drop stored entries but the newest `keep`: a cursor before them is outdated then."""
        dropped = max(0, len(self._entries) - keep)
        del self._entries[:dropped], self._seqs[:dropped]
        self._forgotten += dropped

    def renumber(self, *, last_seq: int = 0) -> None:
        """Lose everything stored and start the numbering again after `last_seq`."""
        self.forget(keep=0)
        self.last_seq = last_seq

    def purge(self, seqs: Iterable[int]) -> None:
        """Take these events out, as a PDS does when it deletes an account."""
        gone = set(seqs)
        self._entries = [
            entry._replace(wire=b"") if entry.seq in gone else entry for entry in self._entries
        ]

    # the wire

    async def serve(self) -> None:
        """Answer until cancelled."""
        await serve(self._listener, self._answer, server=self._server)

    async def connected(self, count: int = 1) -> None:
        """Return once `count` subscriptions are open."""
        await self.changed.wait_until(lambda: self.subscribers >= count)

    async def sent(self, seq: int) -> None:
        """Return once a subscriber was sent everything up to a number."""
        await self.changed.wait_until(lambda: self.sent_seq >= seq)

    async def asked(self, count: int) -> None:
        """Return once `count` subscriptions were asked for in all."""
        await self.changed.wait_until(lambda: len(self.cursors) >= count)

    async def _answer(self, request: Request) -> Answer:
        self.requests[request.path] += 1
        method = request.path.removeprefix("/xrpc/")
        if request.path == SUBSCRIBE and "websocket" in request.headers.get("upgrade", "").lower():
            return self._subscribe(request)
        if method in self.answers:
            return self.answers[method]
        if request.path in self.well_known:
            return self.well_known[request.path]
        return self._query(method, request.query)

    def _query(self, method: str, query: dict[str, str]) -> Response:
        if method == "com.atproto.server.describeServer":
            return json_response(200, {"did": "did:web:localhost", "availableUserDomains": [".test"]})
        if method == "com.atproto.sync.listRepos":
            return self._list_repos()
        hosted = self.hosted.get(query.get("did", ""))
        if method not in _ACCOUNT_METHODS:
            return error_response(501, "MethodNotImplemented")
        if hosted is None:
            return error_response(400, "RepoNotFound")
        head = hosted.repo.head
        if method == "com.atproto.sync.getRepoStatus":
            status = {"did": hosted.repo.did, "active": hosted.active}
            shown = {} if hosted.status is None else {"status": hosted.status}
            rev = {"rev": head.rev} if hosted.active and head else {}
            return json_response(200, status | shown | rev)
        if not hosted.active:
            return error_response(400, "Repo" + (hosted.status or "deactivated").capitalize())
        if head is None:
            return error_response(400, "RepoNotFound")
        if method == "com.atproto.sync.getLatestCommit":
            return json_response(200, {"cid": cid_text(head.commit), "rev": head.rev})
        return Response(200, hosted.repo.export(), content_type="application/vnd.ipld.car")

    def _list_repos(self) -> Response:
        repos = []
        for did, hosted in self.hosted.items():
            if (head := hosted.repo.head) is not None:
                shown = {} if hosted.status is None else {"status": hosted.status}
                fields = {"did": did, "head": cid_text(head.commit), "rev": head.rev}
                repos.append(fields | {"active": hosted.active} | shown)
        return json_response(200, {"repos": repos})

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
                    nursery.start_soon(self._listen_to, stream, already, fault, nursery.cancel_scope)
                    await self._send_log(stream, cursor, fault)
                    nursery.cancel_scope.cancel()
            finally:
                self.subscribers -= 1
                self.changed.notify()

        return Upgrade(head.encode(), run)

    async def _listen_to(
        self, stream: trio.SocketStream, data: bytes, fault: Fault | None, scope: trio.CancelScope
    ) -> None:
        reader = ws.FrameReader()
        while True:
            for frame in reader.feed(data):
                if frame.opcode == ws.PONG:
                    self.pongs.append(frame.payload)
                elif frame.opcode == ws.PING and not isinstance(fault, Silent):
                    self._append(Entry(self.last_seq, ws.frame(ws.PONG, frame.payload), once=True))
                elif frame.opcode == ws.CLOSE:
                    self.closes.append((int.from_bytes(frame.payload[:2], "big"), frame.payload[2:].decode()))
                    self._append(Entry(self.last_seq, ws.frame(ws.CLOSE, frame.payload), "close", once=True))
                self.changed.notify()
            data = await stream.receive_some(1 << 16)
            if not data:
                scope.cancel()
                return

    async def _send_log(self, stream: trio.SocketStream, cursor: int | None, fault: Fault | None) -> None:
        if isinstance(fault, Silent):
            await trio.sleep_forever()
        if cursor is not None and cursor > self.last_seq:
            await stream.send_all(ws.binary(error_frame("FutureCursor", "Cursor in the future.")))
            await stream.send_all(ws.close(1008, "FutureCursor"))
            return
        if cursor and self._forgotten and (not self._seqs or cursor + 1 < self._seqs[0]):
            text = "Requested cursor exceeded limit. Possibly missing events"
            await stream.send_all(ws.binary(info_frame("OutdatedCursor", text)))
        place = self._forgotten + (
            len(self._entries) if cursor is None else bisect_right(self._seqs, cursor)
        )
        left = fault.entries if isinstance(fault, CutAfter) else None
        while left != 0:
            appended = self._appended
            index = max(0, place - self._forgotten)
            batch = self._entries[index : index + BATCH_ENTRIES]
            batch = batch if left is None else batch[:left]
            stop = next((count for count, entry in enumerate(batch, 1) if entry.ends), len(batch))
            batch = batch[:stop]
            if not batch:
                await appended.wait()
                continue
            for offset, entry in enumerate(batch):
                if entry.once:
                    self._entries[index + offset] = entry._replace(wire=b"", ends="")
            place = self._forgotten + index + len(batch)
            left = None if left is None else left - len(batch)
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


_ACCOUNT_METHODS = frozenset(
    {
        "com.atproto.sync.getRepoStatus",
        "com.atproto.sync.getLatestCommit",
        "com.atproto.sync.getRepo",
    }
)
