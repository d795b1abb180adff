"""The two ASGI applications, and what all their responses have in common. Trio shell.

`public_app` also answers on the firehose port and so has no admin and no metrics; `operator_app` is the HTTP port.
Every path is exact, so routing is one dictionary look-up; the boundary of one request is here.
"""

import logging
from collections.abc import Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from relay.atproto.syntax import is_nsid
from relay.eventlog.errors import StoreError
from relay.http import health
from relay.http.admin import AdminEndpoints
from relay.http.sync import SyncEndpoints
from relay.http.xrpc import Route, XrpcError, invalid_request
from relay.observability.metrics import CONTENT_TYPE, Metrics

_log = logging.getLogger(__name__)


class App:
    """An ASGI application of exact paths. WebSocket requests are answered like a GET, never accepted.

    Raises StoreError, which must end the process; any other failure of a request is logged and answered with 500.
    """

    def __init__(self, routes: Mapping[str, Route], *, version: str) -> None:
        self._routes = dict(routes)
        self._server = f"atproto-relay/{version}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_scope = scope if scope["type"] == "http" else {**scope, "type": "http", "method": "GET"}
        request = Request(request_scope, receive)
        try:
            response = await self._respond(request)
        except ClientDisconnect:
            return
        response.raw_headers.append((b"server", self._server))
        if not _is_private(scope["path"]):
            response.raw_headers.append((b"access-control-allow-origin", b"*"))
        if request.method == "HEAD":
            response.body = b""
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        try:
            return await self._dispatch(request)
        except XrpcError as error:
            return error.response()
        except (ClientDisconnect, StoreError):
            raise
        except Exception:  # noqa: BLE001 -- the boundary of one request
            _log.exception("request failed", extra={"method": request.method, "path": request.scope["path"]})
            return XrpcError(500, "InternalServerError", "internal error").response()

    async def _dispatch(self, request: Request) -> Response:
        path = request.scope["path"]
        method = request.method
        if method == "OPTIONS" and not _is_private(path):
            return _preflight(request)
        route = self._routes.get(path)
        if route is None:
            raise _unknown_path(path)
        if route.verb != ("GET" if method == "HEAD" else method):
            raise invalid_request(f"Incorrect HTTP method ({method}) expected {route.verb}")
        return await route.handle(request)


def public_app(*, sync: SyncEndpoints, version: str) -> App:
    """Queries, health and greeting, for the firehose port, which answers on its stream's path itself."""
    routes = {
        **health.routes(version=version, stream_place="on this port"),
        **sync.routes(),
    }
    return App(routes, version=version)


def operator_app(*, sync: SyncEndpoints, admin: AdminEndpoints, metrics: Metrics, version: str) -> App:
    """The HTTP port: the same queries, admin and metrics."""

    async def scrape(_request: Request) -> Response:
        return Response(metrics.render(), headers={"content-type": CONTENT_TYPE})

    routes = {
        **health.routes(version=version, stream_place="on the firehose port"),
        **sync.routes(),
        **admin.routes(),
        "/metrics": Route("GET", scrape),
        health.STREAM_PATH: Route("GET", _stream_is_elsewhere),
    }
    return App(routes, version=version)


def _is_private(path: str) -> bool:
    return path == "/metrics" or path.startswith("/admin/")


def _preflight(request: Request) -> Response:
    headers = {
        "Access-Control-Allow-Methods": "GET, HEAD, POST, OPTIONS",
        "Access-Control-Max-Age": "86400",
        "Vary": "Access-Control-Request-Headers",
    }
    asked = request.headers.get("access-control-request-headers")
    if asked:
        headers["Access-Control-Allow-Headers"] = asked
    return Response(status_code=204, headers=headers)


def _unknown_path(path: str) -> XrpcError:
    prefix, _, nsid = path.removeprefix("/").partition("/")
    if prefix == "xrpc" and is_nsid(nsid):
        return XrpcError(501, "MethodNotImplemented", f"this relay does not serve {nsid}")
    return XrpcError(404, "NotFound", f"there is nothing at {path[:100]}")


async def _stream_is_elsewhere(_request: Request) -> Response:
    raise XrpcError(501, "MethodNotImplemented", "subscribeRepos is served on the firehose port, not on this one")
