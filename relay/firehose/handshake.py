"""The opening handshake of a WebSocket, server side, and refusing it. Pure.

Owns which requests may be upgraded and the headers of the answer (RFC 6455 section 4.2). No extension is ever
accepted. Does not read or write; `firehose/server.py` does.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import h11

_ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

Header = tuple[bytes, bytes]


class Refusal(Exception):
    """A request that gets an HTTP error. `error` and `message` are XRPC's."""

    def __init__(self, status: int, error: str, message: str, headers: Sequence[Header] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.headers = headers

    def body(self) -> bytes:
        """The XRPC error envelope."""
        return json.dumps({"error": self.error, "message": str(self)}).encode()


@dataclass(frozen=True, slots=True)
class Opening:
    """A valid opening handshake: the answer to its key, and the subprotocols that were offered."""

    accept: bytes
    subprotocols: tuple[str, ...]


def header_values(request: h11.Request, name: bytes) -> list[str]:
    """The values of a header (name in lower case), in order."""
    return [value.decode("latin-1") for header, value in request.headers if header == name]


def parse_opening(request: h11.Request) -> Opening:
    """Check a request for a streaming path; raises Refusal with 405, 426 or 400."""
    if request.method != b"GET":
        method = request.method.decode("ascii", "replace")[:20]
        raise Refusal(405, "InvalidRequest", f"{method} is not possible here: GET is", [(b"Allow", b"GET")])
    if not _asks_for_websocket(request):
        headers = [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade")]
        raise Refusal(426, "UpgradeRequired", "this is a stream: open it as a WebSocket", headers)
    if header_values(request, b"sec-websocket-version") != ["13"]:
        headers = [(b"Sec-WebSocket-Version", b"13")]
        raise Refusal(400, "InvalidRequest", "Sec-WebSocket-Version must be 13", headers)
    keys = header_values(request, b"sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        raise Refusal(400, "InvalidRequest", "Sec-WebSocket-Key must be 16 bytes in base64")
    digest = hashlib.sha1(keys[0].encode() + _ACCEPT_GUID, usedforsecurity=False).digest()
    return Opening(base64.b64encode(digest), tuple(_tokens(request, b"sec-websocket-protocol")))


def answer_headers(opening: Opening, subprotocol: str | None) -> list[Header]:
    """The headers of the 101."""
    headers = [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"), (b"Sec-WebSocket-Accept", opening.accept)]
    if subprotocol is not None:
        headers.append((b"Sec-WebSocket-Protocol", subprotocol.encode("ascii")))
    return headers


def refusal_headers(refusal: Refusal, body: bytes) -> list[Header]:
    """The headers of an error that ends its connection."""
    return [
        (b"Content-Type", b"application/json"),
        (b"Content-Length", b"%d" % len(body)),
        (b"Connection", b"close"),
        *refusal.headers,
    ]


def reason_phrase(status: int) -> bytes:
    """The words after a status code."""
    return HTTPStatus(status).phrase.encode()


def _asks_for_websocket(request: h11.Request) -> bool:
    return (
        request.http_version == b"1.1"
        and "websocket" in (token.lower() for token in _tokens(request, b"upgrade"))
        and "upgrade" in (token.lower() for token in _tokens(request, b"connection"))
    )


def _tokens(request: h11.Request, name: bytes) -> Iterable[str]:
    for value in header_values(request, name):
        yield from (token.strip() for token in value.split(",") if token.strip())


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False
