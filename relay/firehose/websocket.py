"""One WebSocket after its handshake, server side, on the raw non-blocking socket. Trio shell.

Outgoing data are bytes that are framed already, given in whole frames; control frames go out between such pieces,
never inside one. Incoming frames are parsed by wsproto: pings are answered, data are read and thrown away. Does
not know what is sent, nor why a stream ends.
"""

import socket
from dataclasses import dataclass

import trio
from wsproto.connection import SERVER, Connection, ConnectionState
from wsproto.events import CloseConnection, Message, Ping

from relay.eventlog.keys import socket_frame_head

# How much unsent data lets a socket count as writable: two segments keep the wire busy, and bound both the kernel's
# memory for a slow reader and what a pong has to wait for.
_NOTSENT_LOWAT_BYTES = 256 * 1024
_RECEIVE_BYTES_MAX = 2 * 1024
# A consumer has nothing to say beyond control frames: more than this in a second waits in the kernel.
_RECEIVE_BYTES_PER_SECOND_MAX = 16 * 1024


class Disconnected(Exception):
    """The connection has failed: nothing can be sent any more."""


class Stalled(Exception):
    """The peer has taken no byte for too long while some were waiting."""


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """After `ping_seconds` in which nothing was sent a ping goes out; when nothing at all comes back within
    `answer_seconds`, and nothing else was taken meanwhile, the peer is gone."""

    ping_seconds: float
    answer_seconds: float


@dataclass(frozen=True, slots=True)
class Ending:
    """A close code and its reason (RFC 6455 section 7.4; protocol.md D7)."""

    code: int
    reason: str


def binary_frame(message: bytes) -> bytes:
    """A message as one unmasked binary frame."""
    return socket_frame_head(len(message)) + message


class WebSocket:
    """Owns the socket. One task receives, one sends; `offer` may be called by whoever holds the sending side."""

    __slots__ = (
        "_answer_by",
        "_connection",
        "_control",
        "_failed",
        "_keep_alive",
        "_peer_ending",
        "_send",
        "_sent_at",
        "_socket",
        "_unsent",
    )

    def __init__(self, connected: socket.socket, *, received: bytes, keep_alive: KeepAlive) -> None:
        """Take over a connected non-blocking socket; `received` is what came after the request's head."""
        self._socket = connected
        self._send = connected.send
        self._connection = Connection(SERVER, trailing_data=received)
        self._keep_alive = keep_alive
        self._unsent = memoryview(b"")
        self._control = b""
        self._failed = False
        self._peer_ending: CloseConnection | None = None
        self._sent_at = trio.current_time()
        self._answer_by: float | None = None
        if connected.family in (socket.AF_INET, socket.AF_INET6):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _NOTSENT_LOWAT_BYTES)

    def offer(self, data: bytes, now: float) -> bool:
        """Send whole frames without waiting; what the socket does not take is kept.

        Returns whether all of it was taken: if not, `flush` must come before the next offer. A failed connection
        takes nothing. `now` is trio's time.
        """
        self._sent_at = now
        self._answer_by = None
        if self._unsent or self._control or self._failed:
            self._push()
            if self._unsent or self._failed:
                self._unsent = memoryview(bytes(self._unsent) + data)
                return False
        try:
            taken = self._send(data)
        except BlockingIOError:
            taken = 0
        except OSError:
            self._failed = True
            return False
        if taken == len(data):
            return True
        self._unsent = memoryview(data)[taken:]
        return False

    async def flush(self, stall_seconds: float) -> None:
        """Wait until everything that was offered is taken.

        Raises:
            Stalled: no byte was taken for `stall_seconds`.
            Disconnected: the connection failed.
        """
        while not self._push():
            with trio.move_on_after(stall_seconds) as patience:
                await trio.lowlevel.wait_writable(self._socket)
            if patience.cancelled_caught:
                raise Stalled
        if self._failed:
            raise Disconnected

    async def receive(self) -> None:
        """Read until the peer closes, fails, or answers no ping any more. Sends pings and pongs meanwhile."""
        self._handle_events()
        second, received = trio.current_time(), 0
        while not self._ended:
            with trio.move_on_at(self._next_check()) as timer:
                await trio.lowlevel.wait_readable(self._socket)
            now = trio.current_time()
            if timer.cancelled_caught:
                self._check_silence(now)
                continue
            if now - second >= 1:
                second, received = now, 0
            received += self._receive_some()
            if received >= _RECEIVE_BYTES_PER_SECOND_MAX:
                await trio.sleep_until(second + 1)

    async def close(self, ending: Ending) -> None:
        """Send what is left and a close frame (in answer to the peer's, if that came first), wait for the peer's.

        Waits as long as the peer likes: to be given a deadline.
        """
        answer = self._peer_ending.response() if self._peer_ending else CloseConnection(ending.code, ending.reason)
        self._control += self._connection.send(answer)
        while not self._push():
            await trio.lowlevel.wait_writable(self._socket)
        while not self._ended:
            await trio.lowlevel.wait_readable(self._socket)
            self._receive_some()

    def release(self) -> None:
        """Give the socket back to the kernel."""
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()

    @property
    def _ended(self) -> bool:
        return self._failed or self._peer_ending is not None

    def _push(self) -> bool:
        """Send what is waiting, the begun piece first; whether nothing is left that could be sent."""
        while not self._failed and (self._unsent or self._control):
            if not self._unsent:
                self._unsent, self._control = memoryview(self._control), b""
            try:
                self._unsent = self._unsent[self._send(self._unsent) :]
            except BlockingIOError:
                return False
            except OSError:
                self._failed = True
        return True

    def _receive_some(self) -> int:
        """Read what is there, at most one buffer; its size."""
        try:
            data = self._socket.recv(_RECEIVE_BYTES_MAX)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        if not data:
            self._failed = True
            return 0
        self._answer_by = None
        self._connection.receive_data(data)
        self._handle_events()
        return len(data)

    def _handle_events(self) -> None:
        pong = None
        for event in self._connection.events():
            match event:
                case Ping() if self._connection.state is ConnectionState.OPEN:
                    pong = event.response()
                case CloseConnection():
                    self._peer_ending = event
                case Message():
                    pass
        if pong is not None and self._connection.state is ConnectionState.OPEN:
            # Only the latest of several: a peer that pings without pause or without reading must cost nothing.
            self._control = self._connection.send(pong)
            self._push()

    def _next_check(self) -> float:
        ping_at = self._sent_at + self._keep_alive.ping_seconds
        return ping_at if self._answer_by is None else min(ping_at, self._answer_by)

    def _check_silence(self, now: float) -> None:
        if self._unsent:
            self._sent_at = now  # data are waiting: whoever flushes them keeps the time
        elif self._answer_by is not None and now >= self._answer_by:
            self._failed = True
        elif now >= self._sent_at + self._keep_alive.ping_seconds:
            self._sent_at = now
            if self._answer_by is None:
                self._answer_by = now + self._keep_alive.answer_seconds
            self._control = self._connection.send(Ping())
            self._push()
