"""WebSocket frames of a server: messages out, control frames left over. Pure.

Owns the framing of data messages (RFC 6455 5.2-5.4): lengths, fragments, and the limits, which are kept before a body
is looked at. Text is discarded and told, a message over its limit as well, as it streams in. Judges of a control frame
only its head: wsproto does the rest. Does not read, and does not know what a message means.
"""

from typing import Final, Protocol

_FINAL_BINARY: Final = 0x82
_FINAL, _RESERVED, _CONTROL, _OPCODE = 0x80, 0x70, 0x08, 0x0F
_TEXT, _BINARY, _CLOSE, _PONG = 1, 2, 8, 10


# A full buffer of ordinary commits has about 60; one of empty messages 131,072, which took 0.4 s in one piece.
FRAMES_PER_SLICE = 64
FRAGMENTS_MAX = 10_000  # servers fragment at 4 to 10 kB; an endless row of empty ones is none


class Messages(Protocol):
    """Where messages go, in their order."""

    def message(self, message: bytes) -> None:
        """A whole binary message within the limit."""

    def text(self) -> None:
        """A text message went by."""

    def too_big(self) -> None:
        """A binary message over the limit went by."""


class Framer:
    """One connection's frames after the upgrade.

    `begin` is the beginning of a frame whose head (of a control frame: all of it) is not there yet: the caller puts it
    in front of what it reads next, and empties it. `rest` is what was read, but stands behind a control frame:
    `take_rest` before reading on. Once `stopped` nothing is delivered any more: after a close frame of the host
    (`closed_by_host`), after a `violation`, or when the owner sets it.
    """

    __slots__ = (
        "_body",
        "_discard_bytes_max",
        "_fragment_left",
        "_fragments",
        "_is_last_fragment",
        "_message_bytes",
        "_message_bytes_max",
        "_messages",
        "_opcode",
        "begin",
        "closed_by_host",
        "rest",
        "stopped",
        "violation",
    )

    def __init__(self, messages: Messages, *, message_bytes_max: int, discard_bytes_max: int) -> None:
        self.begin = b""
        self.rest = memoryview(b"")
        self.stopped = False
        self.closed_by_host = False
        self.violation: str | None = None
        self._messages = messages
        self._message_bytes_max = message_bytes_max
        self._discard_bytes_max = discard_bytes_max
        self._opcode = 0  # of the message whose fragments are coming in
        self._is_last_fragment = False
        self._fragment_left = 0
        self._message_bytes = 0
        self._fragments = 0
        self._body: bytearray | None = None  # None: the message is being discarded

    def take_rest(self) -> bytes:
        """`take` what stands behind the last control frame."""
        view, self.rest = self.rest, memoryview(b"")
        return self.take(view, len(view))

    def take(self, view: memoryview, end: int) -> bytes:
        """Deliver the messages in view[:end]; returns the first control frame in it, or b"" when all is used up, or
        after `FRAMES_PER_SLICE` with what is left in `rest`.

        Nothing of the view is needed after.
        """
        at = 0
        frames = 0
        while True:
            if self._fragment_left:
                at = self._take_fragment(view, at, end)
            if end - at < 2 or self.stopped:
                break
            frames += 1
            if frames > FRAMES_PER_SLICE:
                self._keep(view, at, end)
                return b""
            first = view[at]
            length = view[at + 1]
            body = at + 2
            if length >= 126:
                if length > 127:
                    return self._violate("masked frame from a server")
                body = at + (4 if length == 126 else 10)
                if body > end:
                    break
                shortest = 126 if length == 126 else 65536
                length = int.from_bytes(view[at + 2 : body], "big")
                if length < shortest:
                    return self._violate("frame length not in its shortest form")
            stop = body + length
            if first == _FINAL_BINARY and stop <= end and length <= self._message_bytes_max and not self._opcode:
                self._messages.message(bytes(view[body:stop]))
                at = stop
                continue
            if first & _CONTROL:
                if not first & _FINAL or first & _RESERVED or first & _OPCODE > _PONG or length > 125:
                    return self._violate(f"broken control frame {first:#04x} of {length} bytes")
                if stop > end:
                    break
                if first & _OPCODE == _CLOSE:
                    self.stopped = self.closed_by_host = True
                else:
                    self._keep(view, stop, end)
                return bytes(view[at:stop])
            if not self._begin_fragment(first, length):
                return b""
            at = body
        self.begin = b"" if self.stopped else bytes(view[at:end])
        return b""

    def _keep(self, view: memoryview, at: int, end: int) -> None:
        """Copy what may be overwritten, once: a row of pings must not copy what is behind it again and again."""
        self.rest = view[at:end] if view.readonly else memoryview(bytes(view[at:end]))

    def _begin_fragment(self, first: int, length: int) -> bool:
        """A data frame that is not a whole message in the buffer. Its body is not looked at yet."""
        opcode = first & _OPCODE
        if first & _RESERVED or opcode > _BINARY:
            self._violate(f"frame with reserved bits or opcode {first:#04x}")
        elif opcode and self._opcode:
            self._violate("a message inside a fragmented message")
        elif not opcode and not self._opcode:
            self._violate("a continuation of nothing")
        elif self._fragments >= FRAGMENTS_MAX:
            self._violate(f"message of over {FRAGMENTS_MAX} fragments")
        elif self._message_bytes + length > self._discard_bytes_max:
            self._violate(f"message over {self._discard_bytes_max} bytes")
        else:
            self._fragments += 1
            if opcode:
                self._opcode = opcode
                self._body = bytearray() if opcode == _BINARY else None
            self._message_bytes += length
            if self._message_bytes > self._message_bytes_max:
                self._body = None
            self._is_last_fragment = bool(first & _FINAL)
            self._fragment_left = length
            if not length:
                self._end_fragment()
            return True
        return False

    def _take_fragment(self, view: memoryview, at: int, end: int) -> int:
        stop = min(end, at + self._fragment_left)
        if self._body is not None:
            self._body += view[at:stop]
        self._fragment_left -= stop - at
        if not self._fragment_left:
            self._end_fragment()
        return stop

    def _end_fragment(self) -> None:
        if not self._is_last_fragment:
            return
        opcode, body = self._opcode, self._body
        self._opcode = self._message_bytes = self._fragments = 0
        self._body = None
        if opcode == _TEXT:
            self._messages.text()
        elif body is None:
            self._messages.too_big()
        else:
            self._messages.message(bytes(body))

    def _violate(self, what: str) -> bytes:
        """The host breaks the WebSocket protocol."""
        self.violation = what
        self.stopped = True
        return b""
