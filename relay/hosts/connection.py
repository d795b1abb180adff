"""One connection to one host, from the dial to its end. Trio.

Owns the deadline around dial and upgrade, the upgrade's request and what is refused in its answer, and turns every
way in which a connection ends into a value. What the messages mean is the subscription's, when to dial again the
supervisor's.
"""

import logging
import math
import socket
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11
import trio
import trio_websocket
import wsproto.utilities

from relay.atproto.events import InfoMessage
from relay.eventlog.verdict import Drop, DropReason
from relay.hosts.ended import Cause, Ended, describe
from relay.hosts.pings import PingSweep
from relay.hosts.settings import HostSettings
from relay.hosts.sink import EventSink
from relay.hosts.subscription import CursorMoved, Subscription
from relay.hosts.tap import Tap, UpgradeRefused
from relay.hosts.tls import start_tls
from relay.net.dial import Dialer, DialError
from relay.net.hostname import HostName
from relay.validation.envelope import Envelope

_RELAY_SERVER = b"atproto-relay"  # protocol.md 1.1: two relays that follow each other are a loop
_SUBSCRIBE = "/xrpc/com.atproto.sync.subscribeRepos"
_NORMAL, _GOING_AWAY, _PROTOCOL_ERROR, _ABNORMAL = 1000, 1001, 1002, 1006

# What escapes from the handshake when the answer is no WebSocket upgrade.
_REFUSALS = (
    UpgradeRefused,
    trio_websocket.HandshakeError,
    wsproto.utilities.ProtocolError,
    h11.ProtocolError,
    UnicodeError,
)

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Traffic:
    """What has come from one host since the start."""

    connections: int = 0
    messages: int = 0
    events: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class ConnectionParts:
    """What all connections of a process share."""

    settings: HostSettings
    dialer: Dialer
    sink: EventSink
    pings: PingSweep
    receive_buffer: bytearray


class Connection:
    """One attempt: `run` once. `up_at` is when the host had accepted the upgrade, in trio's time.

    `settled` is set when the attempt has succeeded or failed.
    """

    def __init__(self, *, parts: ConnectionParts, host: HostName, subscription: Subscription, traffic: Traffic) -> None:
        self.up_at: float | None = None
        self.settled = trio.Event()
        self._parts = parts
        self._sink = parts.sink
        self._host = host
        self._name = host.name
        self._subscription = subscription
        self._traffic = traffic
        self._tap: Tap | None = None
        self._ended: Ended | None = None
        self._was_informed = False

    async def run(self) -> Ended:
        """Connect, then receive until the end. Returns how it ended; raises only what is not the peer's doing."""
        seconds = self._parts.settings.dial_timeout_seconds
        try:
            with trio.move_on_after(seconds) as deadline:
                return await self._connect(deadline)
            return Ended(Cause.DIAL_TIMED_OUT, f"not connected within {seconds} s")
        finally:
            self.settled.set()

    async def _connect(self, deadline: trio.CancelScope) -> Ended:
        try:
            connection = await self._dial()
        except (DialError, OSError) as error:
            return Ended(Cause.DIAL_FAILED, str(error) or type(error).__name__)
        tap = self._tap = Tap(
            connection,
            self,
            buffer=self._parts.receive_buffer,
            message_bytes_max=self._parts.settings.message_bytes_max,
            discard_bytes_max=self._parts.settings.discard_bytes_max,
        )
        try:
            return await self._speak(tap, deadline)
        finally:
            tap.close(_GOING_AWAY)

    async def _dial(self) -> socket.socket:
        """A connected non-blocking socket, with TLS where the host has it."""
        dialer = self._parts.dialer
        dialled = await dialer.open_socket(self._host.host, self._host.port)
        connection = socket.socket(fileno=dialled.detach())
        connection.setblocking(False)
        return await start_tls(connection, dialer.ssl_context, self._host.host) if self._host.tls else connection

    async def _speak(self, tap: Tap, deadline: trio.CancelScope) -> Ended:
        """Upgrade and receive. The nursery is this connection's own: a refusal is raised in its reader."""
        ended = Ended(Cause.UPGRADE_REFUSED, "")
        try:
            async with trio.open_nursery() as nursery:
                websocket = await trio_websocket.wrap_client_stream(
                    nursery,
                    tap,  # type: ignore[arg-type]  # any trio.abc.Stream does
                    urlsplit(self._host.http_url).netloc,
                    f"{_SUBSCRIBE}?cursor={self._subscription.begin()}",
                    extra_headers=[(b"User-Agent", self._parts.settings.user_agent.encode())],
                )
                deadline.deadline = math.inf
                ended = await self._receive(websocket, tap)
                # The reader ends with its stream. If it were cancelled, a checkpoint in its clean-up would put
                # Cancelled in the place of what our own code raised in it.
                tap.close(_PROTOCOL_ERROR if ended.cause is Cause.WEBSOCKET_VIOLATION else _NORMAL)
        except* _REFUSALS as refusals:
            if self.up_at is not None:
                raise
            ended = Ended(Cause.UPGRADE_REFUSED, describe(refusals))
        return ended

    async def _receive(self, websocket: trio_websocket.WebSocketConnection, tap: Tap) -> Ended:
        """Let the messages come until the connection closes."""
        for name, value in websocket.handshake_headers:
            if name == b"server" and _RELAY_SERVER in value.lower():
                return Ended(Cause.IS_A_RELAY, value.decode("latin-1"))
        self.up_at = trio.current_time()
        self.settled.set()
        self._traffic.connections += 1
        tap.open()
        with self._parts.pings.watching(tap), suppress(trio_websocket.ConnectionClosed):
            await websocket.get_message()  # the tap takes every message out: this waits for the close
        ended = self._ended or tap.failure
        if ended is not None:
            return ended
        reason = websocket.closed
        if reason is None or reason.code == _ABNORMAL:
            return Ended(Cause.CONNECTION_LOST, "closed without a close frame")
        return Ended(Cause.HOST_CLOSED, f"{reason.code} {reason.reason or reason.name}")

    # the tap's receiver

    def message(self, message: bytes) -> None:
        """A whole message: to the subscription, and what it makes of it to the sink."""
        traffic = self._traffic
        traffic.messages += 1
        traffic.bytes += len(message)
        outcome = self._subscription.receive(message)
        if isinstance(outcome, Envelope):
            traffic.events += 1
            self._sink.submit(outcome)
        elif outcome is not None:
            self._act(outcome)

    def text(self) -> None:
        """Not defined for this stream."""
        self._traffic.messages += 1
        self._sink.count_drop(self._name, DropReason.TEXT_MESSAGE)

    def too_big(self) -> None:
        """Discarded as it came in."""
        self._traffic.messages += 1
        self._sink.count_drop(self._name, DropReason.MESSAGE_TOO_BIG)

    def has_room(self) -> bool:
        """Whether this host may be read on."""
        return self._sink.has_room(self._name)

    async def wait_room(self) -> None:
        """Return when it may."""
        await self._sink.wait_room(self._name)

    def _act(self, outcome: Drop | DropReason | Ended | InfoMessage | CursorMoved) -> None:
        match outcome:
            case Drop():
                self._traffic.events += 1
                self._sink.drop(outcome)
            case DropReason():
                self._sink.count_drop(self._name, outcome)
            case InfoMessage():
                self._inform(outcome)
            case CursorMoved():
                self._sink.cursor_moved(self._name)
            case Ended():
                self._ended = outcome
                self._sink.cursor_moved(self._name)
                assert self._tap is not None
                self._tap.stop()

    def _inform(self, info: InfoMessage) -> None:
        """Log what the host says of the stream, once a connection: it could say it for ever."""
        if not self._was_informed:
            self._was_informed = True
            text = f"{info.name}: {info.message or ''}"
            _logger.info("host %s says %.200r", self._name, text)
