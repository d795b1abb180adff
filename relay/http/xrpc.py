"""XRPC over HTTP: error envelope, parameters, JSON bodies (protocol.md 7.1). Trio shell (it reads bodies).

Owns what every endpoint has in common. Does not know any endpoint, and no store.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass

import orjson
import trio
from starlette.requests import Request
from starlette.responses import Response

BODY_BYTES_MAX = 16_384  # the only bodies taken are {"hostname": …}
BODY_SECONDS_MAX = 10.0

_INTEGER = re.compile(r"[0-9]{1,16}", re.ASCII)

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """What answers at one path. `verb` is GET (HEAD too) or POST."""

    verb: str
    handle: Handler


class XrpcError(Exception):
    """Ends a request with the error envelope: an HTTP status, a name, and a text for people."""

    def __init__(self, status: int, error: str, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{status} {error}: {message}")
        self.status = status
        self.error = error
        self.message = message
        self.headers = headers

    def response(self) -> Response:
        """The envelope as a response."""
        return json_response({"error": self.error, "message": self.message}, status=self.status, headers=self.headers)


def invalid_request(message: str) -> XrpcError:
    """The error for parameters, bodies and verbs that are wrong."""
    return XrpcError(400, "InvalidRequest", message)


def json_response(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response of anything that orjson takes."""
    return Response(orjson.dumps(value), status, headers, "application/json")


def text_parameter(request: Request, name: str) -> str:
    """A required parameter. Raises XrpcError when absent or empty."""
    value = request.query_params.get(name, "")
    if not value:
        raise invalid_request(f"parameter {name} is required")
    return value


def integer_parameter(request: Request, name: str, *, default: int, minimum: int, maximum: int) -> int:
    """An optional integer; empty counts as absent. Raises XrpcError when malformed or out of range."""
    text = request.query_params.get(name, "")
    if not text:
        return default
    if not _INTEGER.fullmatch(text) or not minimum <= int(text) <= maximum:
        raise invalid_request(f"parameter {name} must be an integer from {minimum} to {maximum}")
    return int(text)


async def text_field(request: Request, name: str) -> str:
    """A required string field of the request's JSON object.

    Raises XrpcError: InvalidRequest when it is not there, PayloadTooLarge, or RequestTimeout.
    """
    try:
        body = orjson.loads(await _read_body(request))
    except orjson.JSONDecodeError:
        raise invalid_request("the body must be JSON") from None
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, str) or not value:
        raise invalid_request(f"the body must be a JSON object with a string {name}")
    return value


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    with trio.move_on_after(BODY_SECONDS_MAX):
        async with aclosing(request.stream()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > BODY_BYTES_MAX:
                    raise XrpcError(413, "PayloadTooLarge", f"the body is over {BODY_BYTES_MAX} bytes")
        return bytes(body)
    raise XrpcError(408, "RequestTimeout", f"the body took more than {BODY_SECONDS_MAX:g} s")
