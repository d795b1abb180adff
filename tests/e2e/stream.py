"""A firehose consumer of ours over a plain WebSocket, against a PDS or a relay. Trio."""

import logging

import trio
import trio_websocket

from tests.e2e.arrivals import Arrivals
from tests.e2e.observed import Observed, decode
from tests.e2e.verify import Verifier

_MESSAGE_BYTES_MAX = 5_000_000
_RECONNECT_SECONDS = 0.1


class Stream:
    """Follows one `subscribeRepos` from cursor 0 and comes back with the last seq it saw whenever it is cut off.

    Every message must be a verifiable event with a higher seq than the one before, over all connections: an error
    frame, a repeated event or a forged one raises out of `run`.
    """

    def __init__(self, name: str, *, service: str, verifier: Verifier) -> None:
        self.events: Arrivals[Observed] = Arrivals(name)
        self.connections = 0
        self._service = service
        self._verifier = verifier
        self._last_seq = 0

    async def run(self) -> None:
        while True:
            url = f"{self._service}/xrpc/com.atproto.sync.subscribeRepos?cursor={self._last_seq}"
            try:
                async with trio_websocket.open_websocket_url(url, max_message_size=_MESSAGE_BYTES_MAX) as socket:
                    self.connections += 1
                    await self._follow(socket)
            except (trio_websocket.ConnectionClosed, trio_websocket.HandshakeError, OSError) as error:
                logging.info("%s: %r", self.events.name, error)
            await trio.sleep(_RECONNECT_SECONDS)

    async def _follow(self, socket: trio_websocket.WebSocketConnection) -> None:
        while True:
            message = await socket.get_message()
            assert isinstance(message, bytes)
            event = decode(message)
            assert event.seq > self._last_seq, f"{self.events.name}: {event.seq} after {self._last_seq}"
            self._last_seq = event.seq
            await self._verifier.check(event)
            self.events.add(event)
