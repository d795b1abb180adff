"""Plain HTTP requests on the streaming port, answered by an ASGI application in process. Trio shell.

One request at a time over h11, so that the connection is ours again after each: reverse proxies reuse idle
connections for upgrades. Owns HTTP/1.1 towards the client; the application owns everything that is said.
"""

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote

import h11
import trio

from relay.eventlog.errors import StoreError

_log = logging.getLogger(__name__)

_RECEIVE_BYTES_MAX = 64 * 1024

AsgiMessage = MutableMapping[str, Any]
AsgiApp = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[AsgiMessage]], Callable[[AsgiMessage], Awaitable[None]]],
    Awaitable[None],
]


async def next_event(http: h11.Connection, stream: trio.SocketStream) -> h11.Event | type[h11.PAUSED]:
    """The next event from the client; reads as needed.

    Raises:
        h11.RemoteProtocolError: not HTTP/1.1, or a head over the limit.
        trio.BrokenResourceError: the connection failed.
    """
    while True:
        event = http.next_event()
        if event is h11.PAUSED:
            return h11.PAUSED
        if not isinstance(event, type):
            return event
        http.receive_data(await stream.receive_some(_RECEIVE_BYTES_MAX))


class Exchange:
    """One request and its response, as ASGI's `receive` and `send`."""

    def __init__(
        self,
        *,
        http: h11.Connection,
        stream: trio.SocketStream,
        request: h11.Request,
        client: tuple[str, int],
        server: str,
    ) -> None:
        """`client` is shown to the application; `server` is the Server header where it sets none."""
        self._http = http
        self._stream = stream
        self._request = request
        self._client = client
        self._server = server
        self._head = b""
        self._started = False
        self._request_read = False
        self._finished = trio.Event()

    async def run(self, app: AsgiApp) -> None:
        """Let the application answer. Its failures are logged and become a 500.

        Raises trio.BrokenResourceError when the client is gone.
        """
        try:
            await app(self._scope(), self._receive, self._send)
        except (trio.BrokenResourceError, StoreError, AssertionError):
            raise
        except Exception:  # noqa: BLE001  the task boundary of one HTTP request
            _log.exception("request failed", extra={"target": self._request.target[:200].decode("latin-1")})
        if not self._started:
            await self._send({"type": "http.response.start", "status": 500, "headers": [(b"content-length", b"0")]})
            await self._send({"type": "http.response.body", "body": b""})

    def _scope(self) -> dict[str, Any]:
        request = self._request
        path, _, query = request.target.partition(b"?")
        host, port = self._stream.socket.getsockname()[:2]
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": request.http_version.decode(),
            "method": request.method.decode(),
            "scheme": "http",
            "path": unquote(path.decode("latin-1")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": list(request.headers),
            "client": self._client,
            "server": (host, port),
        }

    async def _receive(self) -> AsgiMessage:
        if self._request_read:
            await self._finished.wait()
            return {"type": "http.disconnect"}
        if self._http.they_are_waiting_for_100_continue:
            await self._stream.send_all(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
        try:
            event = await next_event(self._http, self._stream)
        except h11.RemoteProtocolError:
            return {"type": "http.disconnect"}
        if isinstance(event, h11.Data):
            return {"type": "http.request", "body": bytes(event.data), "more_body": True}
        self._request_read = True
        if isinstance(event, h11.EndOfMessage):
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.disconnect"}

    async def _send(self, message: AsgiMessage) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            headers = list(message.get("headers", ()))
            if not any(name.lower() == b"server" for name, _ in headers):
                headers.append((b"Server", self._server.encode()))
            headers.append((b"Date", formatdate(usegmt=True).encode()))
            self._head = self._http.send(h11.Response(status_code=message["status"], headers=headers))
            return
        data = self._head
        self._head = b""
        if (body := message.get("body")) and self._request.method != b"HEAD":
            data += self._http.send(h11.Data(body))
        if not message.get("more_body"):
            data += self._http.send(h11.EndOfMessage())
            self._finished.set()
        await self._stream.send_all(data)
