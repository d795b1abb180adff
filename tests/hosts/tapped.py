"""A tap under trio-websocket with a list behind it, and the host's end of its connection. A trio shell."""

import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio_websocket

from relay.hosts.tap import Tap
from relay.hosts.tls import start_tls
from tests.hosts.wire import DEADLINE_SECONDS, HostEnd, stream_of, tcp_pair

TEXT, TOO_BIG = "a text message", "a message over the limit"
Item = bytes | str


@dataclass
class Received:
    """A receiver that keeps everything, in order."""

    items: list[Item] = field(default_factory=list)
    room: bool = True
    stop_after: bytes | None = None
    on_message: Callable[[], None] = lambda: None
    tap: Tap | None = None

    def message(self, message: bytes) -> None:
        assert type(message) is bytes
        self.items.append(message)
        self.on_message()
        if message == self.stop_after:
            assert self.tap is not None
            self.tap.stop()

    def text(self) -> None:
        self.items.append(TEXT)

    def too_big(self) -> None:
        self.items.append(TOO_BIG)

    def has_room(self) -> bool:
        return self.room

    async def wait_room(self) -> None:
        while not self.room:
            await trio.sleep(0.001)


@dataclass
class Tapped:
    """A connection that is up."""

    host: HostEnd
    tap: Tap
    received: Received
    websocket: trio_websocket.WebSocketConnection

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when the condition holds; fail when it never does."""
        with trio.fail_after(DEADLINE_SECONDS):
            while not condition():
                await trio.sleep(0.001)

    async def items(self, count: int) -> list[Item]:
        """Everything received, once there are so many."""
        await self.until(lambda: len(self.received.items) >= count)
        return self.received.items

    async def closed(self) -> trio_websocket.CloseReason:
        """How the connection closed, as trio-websocket says."""
        with trio.fail_after(DEADLINE_SECONDS), pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await self.websocket.get_message()
        reason = caught.value.reason
        assert reason is not None
        return reason


@asynccontextmanager
async def tapped(
    *,
    message_bytes_max: int = 5_000_000,
    discard_bytes_max: int = 64_000_000,
    buffer_bytes: int = 65536,
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
    after_upgrade: bytes = b"",
) -> AsyncIterator[Tapped]:
    """A tap after the upgrade; `tls` are the contexts of client and server, `after_upgrade` comes with the 101."""
    client, server = tcp_pair()
    received = Received()
    secured: socket.socket = client
    host = HostEnd(stream_of(server))
    if tls is not None:
        async with trio.open_nursery() as handshakes:

            async def serve() -> None:
                nonlocal host
                host = await HostEnd.start_tls(server, tls[1])

            handshakes.start_soon(serve)
            secured = await start_tls(client, tls[0], "localhost")
    tap = Tap(
        secured,
        received,
        buffer=bytearray(buffer_bytes),
        message_bytes_max=message_bytes_max,
        discard_bytes_max=discard_bytes_max,
    )
    received.tap = tap
    async with trio.open_nursery() as nursery:

        async def answer() -> None:
            request = await host.read_request()
            await host.send(request.accept + after_upgrade)

        nursery.start_soon(answer)
        with trio.fail_after(DEADLINE_SECONDS):
            websocket = await trio_websocket.wrap_client_stream(nursery, tap, "localhost", "/")  # type: ignore[arg-type]
        tap.open()
        try:
            yield Tapped(host, tap, received, websocket)
        finally:
            tap.close(1000)
            await host.aclose()
            nursery.cancel_scope.cancel()
