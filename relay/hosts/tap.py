"""The stream under trio-websocket that takes the messages out before it sees them. Trio.

Owns the socket of one host: a whole message goes through `framing.py` straight to a receiver, without a task switch or
a channel, and copied once (measurements.md 3: 2 us a message in a flood where trio-websocket takes 34). trio-websocket
and its wsproto get the handshake and the control frames, so that their limit of a message's size never matters. Does
not know what a message means.

Order is kept because nothing but control frames goes round: reading stops at each one, and goes on when trio-websocket
asks for more.
"""

import re
import socket
import ssl
from typing import Final, NoReturn, Protocol

import trio

from relay.hosts.ended import Cause, Ended
from relay.hosts.framing import Framer, Messages

HEAD_BYTES_MAX: Final = 16 * 1024  # what h11 takes

_HEAD_END = re.compile(rb"\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3})")
_TLS_RECORD_BYTES = 16 * 1024
_PING_FRAME = b"\x89\x80\x00\x00\x00\x00"  # empty, so that its mask hides nothing

_SLOW_SLICE_SECONDS = 0.02
_SLOW_SLICE_REST = 3.0


class Receiver(Messages, Protocol):
    """Where a tap's messages go, and when they may. Only `wait_room` waits."""

    def has_room(self) -> bool:
        """Whether to read on."""

    async def wait_room(self) -> None:
        """Return when `has_room`."""


class UpgradeRefused(Exception):
    """The host answered the upgrade with something else than 101, or not in HTTP, or not at all."""


class Tap(trio.abc.Stream):
    """A connected non-blocking socket, plain or TLS, as the stream that trio-websocket reads and writes.

    `buffer` is shared by all taps of a process: nothing stays in it while a task waits. `reads` counts reads that
    brought something; `paused` is true while the receiver has no room; `failure` says how the connection ended where
    the tap knows better than trio-websocket, None until then.
    """

    def __init__(
        self,
        connection: socket.socket,
        receiver: Receiver,
        *,
        buffer: bytearray,
        message_bytes_max: int,
        discard_bytes_max: int,
    ) -> None:
        self.reads = 0
        self.paused = False
        self.failure: Ended | None = None
        self._socket = connection
        self._secured = connection if isinstance(connection, ssl.SSLSocket) else None
        self._receiver = receiver
        self._view = memoryview(buffer)
        self._framer = Framer(receiver, message_bytes_max=message_bytes_max, discard_bytes_max=discard_bytes_max)
        self._upgraded: trio.Event | None = None
        self._pause_scope: trio.CancelScope | None = None
        self._sending = False

    # for the connection

    def open(self) -> None:
        """The upgrade has been looked at and is accepted: messages may come."""
        assert self._upgraded is not None
        self._upgraded.set()

    def stop(self) -> None:
        """Deliver nothing more; trio-websocket sees the end of the stream."""
        self._framer.stopped = True

    def ping(self) -> None:
        """Send a ping without waiting. A host that does not even take six bytes has long stopped reading."""
        if not self._sending and not self._framer.stopped:
            self._send_now(_PING_FRAME)

    def fail(self, failure: Ended) -> None:
        """End the connection from outside; tasks that wait on the socket wake up."""
        self.failure = self.failure or failure
        self._close_socket()

    def close(self, code: int) -> None:
        """Close the socket at once, with a close frame where it can be sent without waiting."""
        if self._upgraded is not None and not self._framer.closed_by_host and not self._sending:
            self._send_now(b"\x88\x82\x00\x00\x00\x00" + code.to_bytes(2, "big"))
        self._close_socket()

    # trio.abc.Stream, for trio-websocket

    async def aclose(self) -> None:
        """Close the socket."""
        self._close_socket()
        await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        """Return when a write may go out at once."""
        await trio.lowlevel.wait_writable(self._socket)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write everything. trio-websocket serialises its calls; pings keep out of an unfinished one."""
        self._sending = True
        left = memoryview(data)
        try:
            while left:
                try:
                    left = left[self._socket.send(left) :]
                except (BlockingIOError, ssl.SSLWantWriteError):
                    await trio.lowlevel.wait_writable(self._socket)
                except ssl.SSLWantReadError:
                    await trio.lowlevel.wait_readable(self._socket)
                except OSError as error:
                    self._lose(error)
        finally:
            self._sending = False
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:  # noqa: ARG002
        """Deliver messages until there is something for wsproto: the head of the upgrade, then one control frame
        at a time; b"" at the end. Raises UpgradeRefused, or trio.BrokenResourceError when the connection is lost."""
        if self._upgraded is None:
            return await self._receive_upgrade()
        await self._upgraded.wait()
        framer = self._framer
        while not framer.stopped:
            if not self._receiver.has_room():
                await self._pause()
                continue
            end = 0
            if not framer.rest and (end := await self._read()) == 0:
                break
            began = trio.current_time()
            control = framer.take(self._view, end) if end else framer.take_rest()
            await self._give_way(trio.current_time() - began)
            if control:
                return control
        if framer.violation is not None:
            self.failure = self.failure or Ended(Cause.WEBSOCKET_VIOLATION, framer.violation)
        return b""

    # reading

    async def _give_way(self, spent_seconds: float) -> None:
        """Let others run: between slices of one buffer, and for a while after a slice that took far too long.

        Ordinary buffers take 10 ms. A message that is made to be slow can take a second; so a host gets no more
        than a quarter of the loop that way.
        """
        if spent_seconds > _SLOW_SLICE_SECONDS:
            await trio.sleep(_SLOW_SLICE_REST * spent_seconds)
        elif self._framer.rest:
            await trio.lowlevel.checkpoint()

    async def _pause(self) -> None:
        self.paused = True
        with trio.CancelScope() as self._pause_scope:
            await self._receiver.wait_room()
        self.paused = False

    async def _read(self) -> int:
        """Fill the shared buffer, behind what is left of a frame's beginning; returns its end, 0 at EOF."""
        if self._secured is not None and self._secured.pending():
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.wait_readable(self._socket)
        while True:
            start = len(self._framer.begin)
            try:
                count = self._socket.recv_into(self._view[start:])
            except (BlockingIOError, ssl.SSLWantReadError):
                await trio.lowlevel.wait_readable(self._socket)
                continue
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self._socket)
                continue
            except OSError as error:
                self._lose(error)
            if count == 0:
                return 0
            if start:
                self._view[:start] = self._framer.begin
                self._framer.begin = b""
            self.reads += 1
            if self._secured is not None and count == _TLS_RECORD_BYTES:
                return self._read_more(start + count)
            return start + count

    def _read_more(self, end: int) -> int:
        """TLS gives one record at a time: take those that follow a full one without going to sleep for each."""
        while len(self._view) - end >= _TLS_RECORD_BYTES:
            try:
                count = self._socket.recv_into(self._view[end:])
            except OSError:  # nothing there yet, or an error that the next read meets again
                return end
            end += count
            if count < _TLS_RECORD_BYTES:
                return end
        return end

    async def _receive_upgrade(self) -> bytes:
        """The response's head, whole. A refusal ends here: nobody needs its body, which may be endless."""
        head = b""
        while (match := _HEAD_END.search(head)) is None:
            if len(head) > HEAD_BYTES_MAX:
                raise UpgradeRefused(f"head of the answer is over {HEAD_BYTES_MAX} bytes")
            end = await self._read()
            if end == 0:
                raise UpgradeRefused("closed without an answer")
            head += self._view[:end]
        status = _STATUS_LINE.match(head)
        if status is None:
            raise UpgradeRefused(f"not HTTP: {head[:80]!r}")
        if status[1] != b"101":
            body = head[match.end() :][:200].decode("ascii", "replace")
            raise UpgradeRefused(f"HTTP status {status[1].decode()} {body}".rstrip())
        self._upgraded = trio.Event()
        self._framer.rest = memoryview(head)[match.end() :]
        return head[: match.end()]

    # ends

    def _send_now(self, frame: bytes) -> None:
        if self._socket.fileno() < 0:
            return
        try:
            sent = self._socket.send(frame)
        except OSError as error:
            self.fail(Ended(Cause.CONNECTION_LOST, f"not taking our frames: {error}"))
        else:
            if sent < len(frame):
                self.fail(Ended(Cause.CONNECTION_LOST, "not taking our frames"))

    def _lose(self, error: OSError) -> NoReturn:
        if self._upgraded is None:  # trio-websocket would wait for the 101 for ever
            raise UpgradeRefused(str(error)) from error
        self.failure = self.failure or Ended(Cause.CONNECTION_LOST, str(error))
        raise trio.BrokenResourceError(str(error)) from error

    def _close_socket(self) -> None:
        """Whoever waits in this stream wakes up and ends."""
        self._framer.stopped = True
        if self._upgraded is not None:
            self._upgraded.set()
        if self._pause_scope is not None:
            self._pause_scope.cancel()
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
