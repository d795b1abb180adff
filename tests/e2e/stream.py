"""A firehose consumer of ours over a plain WebSocket, against a PDS or a relay. Trio."""

import logging
from urllib.parse import urlsplit

import trio
import trio_websocket

from tests.e2e.arrivals import Arrivals
from tests.e2e.observed import Observed, decode
from tests.e2e.verify import Verifier

_MESSAGE_BYTES_MAX = 5_000_000
_RECONNECT_SECONDS = 0.1
_HANDSHAKE_SECONDS = 5


class Stream:
    """Follows one `subscribeRepos` from cursor 0 and comes back with the last seq it saw whenever it is cut off.

    Every message must be a canonical event with a higher seq than the one before, over all connections, and pass the
    `verifier` where there is one: an error frame, a repeated event or a forged one raises out of `run`.
    """

    def __init__(self, name: str, *, service: str, verifier: Verifier | None) -> None:
        self.events: Arrivals[Observed] = Arrivals(name)
        self.connections = 0
        address = urlsplit(service)
        assert address.hostname is not None
        assert address.port is not None
        self._host, self._port = address.hostname, address.port
        self._verifier = verifier
        self._last_seq = 0

    async def run(self) -> None:
        while True:
            try:
                async with await trio.open_tcp_stream(self._host, self._port) as tcp:
                    await self._subscribe(tcp)
            except OSError as error:
                logging.info("%s: %r", self.events.name, error)
            await trio.sleep(_RECONNECT_SECONDS)

    async def _subscribe(self, tcp: trio.SocketStream) -> None:
        # Not open_websocket: it leaves the socket open when the peer goes without a closing handshake.
        path = f"/xrpc/com.atproto.sync.subscribeRepos?cursor={self._last_seq}"
        async with trio.open_nursery() as nursery:
            try:
                # Without a deadline it waits for ever when the peer goes before it has answered.
                with trio.fail_after(_HANDSHAKE_SECONDS):
                    socket = await trio_websocket.wrap_client_stream(
                        nursery, tcp, self._host, path, max_message_size=_MESSAGE_BYTES_MAX
                    )
                self.connections += 1
                await self._follow(socket)
            except (trio_websocket.ConnectionClosed, trio_websocket.HandshakeError, trio.TooSlowError) as error:
                logging.info("%s: %r", self.events.name, error)
            nursery.cancel_scope.cancel()

    async def _follow(self, socket: trio_websocket.WebSocketConnection) -> None:
        while True:
            message = await socket.get_message()
            assert isinstance(message, bytes)
            event = decode(message)
            assert event.seq > self._last_seq, f"{self.events.name}: {event.seq} after {self._last_seq}"
            self._last_seq = event.seq
            if self._verifier is not None:
                await self._verifier.check(event)
            self.events.add(event)
