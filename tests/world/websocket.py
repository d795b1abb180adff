"""WebSocket frames by hand (RFC 6455), for the fake host and the consumer. Pure.

Owns framing in both directions without any extension; what a frame means is its user's business. Written by hand so
that a host can send what a library would refuse to, and whole logs in one write.
"""

import base64
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_key(key: bytes) -> bytes:
    """The `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`."""
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


def frame(opcode: int, payload: bytes, *, final: bool = True, mask: bytes | None = None) -> bytes:
    """One frame. `mask` is None (server to client) or 4 bytes."""
    length, masked = len(payload), 0 if mask is None else 0x80
    head = bytes([opcode | (0x80 if final else 0)])
    if length < 126:
        head += bytes([masked | length])
    elif length < 1 << 16:
        head += bytes([masked | 126]) + length.to_bytes(2, "big")
    else:
        head += bytes([masked | 127]) + length.to_bytes(8, "big")
    return head + payload if mask is None else head + mask + apply_mask(mask, payload)


def apply_mask(mask: bytes, payload: bytes) -> bytes:
    """Mask or unmask."""
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")


def binary(message: bytes) -> bytes:
    """A whole binary message, as a server sends it."""
    return frame(BINARY, message)


def fragments(message: bytes, sizes: Sequence[int]) -> bytes:
    """A binary message in pieces of these sizes; what is left over makes the last one."""
    pieces, position = [], 0
    for size in sizes:
        pieces.append(message[position : position + size])
        position += size
    pieces.append(message[position:])
    last = len(pieces) - 1
    return b"".join(
        frame(CONTINUATION if index else BINARY, piece, final=index == last) for index, piece in enumerate(pieces)
    )


def close(code: int, reason: str = "") -> bytes:
    """A close frame, as a server sends it."""
    return frame(CLOSE, code.to_bytes(2, "big") + reason.encode())


def random_mask() -> bytes:
    """4 bytes for a client's frame."""
    return os.urandom(4)


class Frame(NamedTuple):
    """A received frame, unmasked."""

    final: bool
    opcode: int
    payload: bytes


class FrameReader:
    """Bytes in, frames out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take what came from the socket; yields every frame that is now complete (exhaust it before feeding on)."""
        buffer, position = self._buffer, 0
        buffer += data
        while len(buffer) - position >= 2:
            length, start = buffer[position + 1] & 0x7F, position + 2
            if length >= 126:
                width = 2 if length == 126 else 8
                length = int.from_bytes(buffer[start : start + width], "big")
                start += width
            masked = buffer[position + 1] & 0x80
            end = start + (4 if masked else 0) + length
            if len(buffer) < end:
                break
            payload = bytes(buffer[end - length : end])
            if masked:
                payload = apply_mask(bytes(buffer[start : start + 4]), payload)
            yield Frame(bool(buffer[position] & 0x80), buffer[position] & 0x0F, payload)
            position = end
        del buffer[:position]
