"""Liveness and the greeting. Trio shell by its signatures only: it reads and waits for nothing.

A quiet network or an unreachable directory is not ill health (DESIGN 1 (10)); that is what metrics are for.
"""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from relay.http.xrpc import Route, json_response

STREAM_PATH = "/xrpc/com.atproto.sync.subscribeRepos"


def routes(*, version: str, stream_place: str) -> Mapping[str, Route]:
    """`/`, `/_health`, `/xrpc/_health`. `stream_place` says to a reader on which port the stream is."""
    banner = (
        f"This is an AT Protocol relay (atproto-relay {version}).\n\n"
        f"The stream of all its hosts is a WebSocket at {STREAM_PATH}, {stream_place}.\n"
        "Queries are under /xrpc/com.atproto.sync.*\n"
    )

    async def greet(_request: Request) -> Response:
        return PlainTextResponse(banner)

    async def health(_request: Request) -> Response:
        return json_response({"status": "ok", "version": version})

    return {
        "/": Route("GET", greet),
        "/_health": Route("GET", health),
        "/xrpc/_health": Route("GET", health),
    }
