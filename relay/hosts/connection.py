"""One connection to one host, from the dial to its end. Trio.

Owns the deadline around dial and upgrade, the upgrade's request and what is refused in its answer, and turns every
way in which a connection ends into a value. What the messages mean is the subscription's, when to dial again the
supervisor's.
"""

import logging
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11
import trio
import trio_websocket
import wsproto.utilities

from relay.atproto.events import InfoMessage
from relay.eventlog.verdict import Drop, DropReason
from relay.hosts.pings import PingSweep
from relay.hosts.settings import HostSettings
from relay.hosts.sink import EventSink
from relay.hosts.subscription import Cause, CursorMoved, Ended, Outcome, Subscription
from relay.hosts.tap import Tap, UpgradeRefused
from relay.hosts.tls import start_tls
from relay.net.dial import Dialer, DialError
from relay.net.hostname import HostName
from relay.validation.envelope import Envelope

_RELAY_SERVER = b"atproto-relay"  # protocol.md 1.1: two relays that follow each other are a loop
_CLOSE_CODES = {Cause.WEBSOCKET_VIOLATION: 1002, Cause.IS_A_RELAY: 1008}
_GOING_AWAY, _NORMAL = 1001, 1000

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
    """One attempt: `run` once. `is_up` turns true when the host has accepted the upgrade."""

    def __init__(
        self, *, parts: ConnectionParts, host: HostName, subscription: Subscription, traffic: Traffic
    ) -> None:
        self.is_up = False
        self._parts = parts
        self._sink = parts.sink
        self._host = host
        self._name = host.name
        self._subscription = subscription
        self._traffic = traffic
        self._tap: Tap | None = None
        self._ended: Ended | None = None

    async def run(self) -> Ended:
        """Connect, then receive until the end. Returns how it ended; raises only what is not the peer's doing."""
        deadline = trio.current_time() + self._parts.settings.dial_timeout_seconds
        with trio.CancelScope(deadline=deadline):
            try:
                connection = await self._dial()
            except (DialError, OSError) as error:
                return Ended(Cause.DIAL_FAILED, str(error) or type(error).__name__)
            return await self._receive(connection, deadline)
        return self._timed_out()

    async def _dial(self) -> socket.socket:
        dialer = self._parts.dialer
        dialled = await dialer.open_socket(self._host.host, self._host.port)
        connection = socket.socket(fileno=dialled.detach())
        connection.setblocking(False)
        return await start_tls(connection, dialer.ssl_context, self._host.host) if self._host.tls else connection
