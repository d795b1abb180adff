"""The HTTP port's server: hypercorn's trio worker on a socket of ours. Trio shell.

Owns the server's limits. Does not know what is served, nor when to stop: the service says so.
"""

import logging
import socket
from typing import cast

import trio
from hypercorn.config import Config
from hypercorn.trio import serve as hypercorn_serve
from hypercorn.typing import ASGIFramework
from starlette.types import ASGIApp, Receive, Scope, Send

HEAD_BYTES_MAX = 16_384


async def serve(
    app: ASGIApp,
    listener: socket.socket,
    *,
    shutdown: trio.Event,
    graceful_seconds: float,
    idle_seconds: float,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer on the bound `listener` (taken over and closed) until `shutdown`, or until cancelled.

    After `shutdown` nothing new is accepted, and running requests have `graceful_seconds`. A client that sends
    no whole request head, or takes none of its response, for `idle_seconds` is disconnected.
    """
    # hypercorn shields its writes from cancellation: a client that does not read must be ended by the kernel.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(idle_seconds * 1000))
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False  # the application sends its own
    config.h11_max_incomplete_size = HEAD_BYTES_MAX
    config.keep_alive_timeout = idle_seconds
    config.graceful_timeout = graceful_seconds
    framework = cast("ASGIFramework", _WithLifespan(app))
    await hypercorn_serve(framework, config, shutdown_trigger=shutdown.wait, task_status=task_status, mode="asgi")


class _WithLifespan:
    """Answers the server's lifespan messages; an application of ours has nothing to start or stop."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
