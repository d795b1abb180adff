"""The HTTP port's server: hypercorn's trio worker on a socket of ours. Trio shell.

Owns the server's limits. Does not know what is served, nor when to stop: the service says so.
"""

import logging
import socket
from contextlib import suppress
from typing import cast

import trio
from hypercorn.config import Config
from hypercorn.trio import serve as hypercorn_serve
from hypercorn.typing import ASGIFramework
from starlette.types import ASGIApp, Receive, Scope, Send

from relay.eventlog.errors import StoreError

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
    Raises StoreError, in a group, when a request met one.
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
    guarded = _Guarded(app)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(guarded.raise_failure)
        await hypercorn_serve(
            cast("ASGIFramework", guarded),
            config,
            shutdown_trigger=shutdown.wait,
            task_status=task_status,
            mode="asgi",
        )
        nursery.cancel_scope.cancel()


class _Guarded:
    """The application towards hypercorn, which would log whatever it raises and go on.

    Also answers the server's lifespan messages: an application of ours has nothing to start or stop.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._failures_out, self._failures_in = trio.open_memory_channel[StoreError](1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{phase}.complete"})
            return
        try:
            await self._app(scope, receive, send)
        except StoreError as failure:
            with suppress(trio.WouldBlock):
                self._failures_out.send_nowait(failure)

    async def raise_failure(self) -> None:
        """Wait for the first StoreError of a request, and raise it."""
        raise await self._failures_in.receive()
