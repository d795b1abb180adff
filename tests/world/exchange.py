"""HTTP requests and answers as values. Pure."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """`path` is unquoted; `query` keeps the last value of each name; header names are lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Keep the connection and say nothing until the peer goes."""


def json_response(status: int, value: Any) -> Response:
    """JSON."""
    return Response(status, json.dumps(value).encode())


def error_response(status: int, error: str, message: str = "") -> Response:
    """An XRPC error."""
    return json_response(status, {"error": error, "message": message})
