"""`com.atproto.sync.subscribeRepos`: one consumer from its cursor to its close. Trio shell.

Owns the cursor rules on the wire, catching up from the log, and when a consumer is too slow. The sweep
(`firehose/live.py`) serves it while it keeps up.
"""

from collections.abc import Callable
from dataclasses import dataclass

import trio

from relay.atproto.frames import error_frame, info_frame
from relay.eventlog.reader import CursorGone
from relay.firehose.consumers import Consumers, TooManyConsumers
from relay.firehose.cursor import FutureCursor, InvalidCursor, parse_cursor, start_of
from relay.firehose.handshake import Refusal
from relay.firehose.live import LiveSweep, Subscriber
from relay.firehose.log_reader import LogReader, read_towards
from relay.firehose.upgrade import Upgrade
from relay.firehose.websocket import Disconnected, Ending, Stalled, binary_frame

PATH = "/xrpc/com.atproto.sync.subscribeRepos"
_NSID = "com.atproto.sync.subscribeRepos"
_SUBPROTOCOL = "xrpc.v0.cbor"  # what this stream speaks anyway; other tokens must not be echoed (protocol.md 1.1)

_POLICY_VIOLATION = 1008
_RESTARTING = Ending(1012, "restarting")  # clients reconnect after it; after 1000 they would not (protocol.md D7)
_RETRY_AFTER_SECONDS = 60

# Word for word what deployed clients know (protocol.md 1.5).
_OUTDATED_CURSOR = binary_frame(
    info_frame("OutdatedCursor", "Requested cursor exceeded limit. Possibly missing events")
)
_FUTURE_CURSOR = binary_frame(error_frame("FutureCursor", "Cursor in the future."))


@dataclass(frozen=True, slots=True)
class ConsumerLimits:
    """A consumer that takes no byte for `stall_seconds` is too slow; a close may take `close_seconds`."""

    stall_seconds: float
    close_seconds: float


class SubscribeRepos:
    """The handler of the streaming path."""

    def __init__(
        self,
        *,
        reader: LogReader,
        sweep: LiveSweep,
        consumers: Consumers,
        limits: ConsumerLimits,
        now: Callable[[], float],
    ) -> None:
        """`now` gives Unix time in seconds."""
        self._reader = reader
        self._sweep = sweep
        self._consumers = consumers
        self._limits = limits
        self._now = now

    async def __call__(self, upgrade: Upgrade) -> None:
        """Serve one consumer until it ends or is cancelled; then it is told that we restart.

        Raises Refusal before the upgrade.
        """
        try:
            cursor = parse_cursor(upgrade.query)
            consumer = self._consumers.admit(
                stream=_NSID, address=upgrade.address, user_agent=upgrade.user_agent, now=self._now()
            )
        except InvalidCursor as error:
            raise Refusal(400, "InvalidRequest", str(error)) from error
        except TooManyConsumers as error:
            headers = [(b"Retry-After", b"%d" % _RETRY_AFTER_SECONDS)]
            raise Refusal(429, "RateLimitExceeded", str(error), headers) from error
        if cursor is None:
            cursor = self._reader.head  # before the answer: who has read it misses nothing that comes after
        try:
            websocket = await upgrade.accept(_SUBPROTOCOL if _SUBPROTOCOL in upgrade.subprotocols else None)
            await self._converse(Subscriber(consumer, websocket), cursor)
        finally:
            self._consumers.remove(consumer)

    async def _converse(self, subscriber: Subscriber, cursor: int) -> None:
        ending = _RESTARTING
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_receive, subscriber, nursery.cancel_scope)
                ending = await self._feed(subscriber, cursor)
                nursery.cancel_scope.cancel()
        finally:
            self._sweep.remove(subscriber)
            with trio.move_on_after(self._limits.close_seconds, shield=True):
                await subscriber.websocket.close(ending)

    async def _feed(self, subscriber: Subscriber, cursor: int) -> Ending:
        """Send events until that cannot go on; what to close with."""
        websocket = subscriber.websocket
        try:
            start = start_of(cursor, oldest=self._reader.oldest, head=self._reader.head)
        except FutureCursor:
            websocket.offer(_FUTURE_CURSOR, trio.current_time())
            return Ending(_POLICY_VIOLATION, "FutureCursor")
        if start.outdated:
            websocket.offer(_OUTDATED_CURSOR, trio.current_time())
        subscriber.consumer.position = start.position
        try:
            while True:
                await self._catch_up(subscriber)
                await subscriber.left.wait()
        except Disconnected:
            return _RESTARTING
        except Stalled:
            reason = f"no byte was taken for {self._limits.stall_seconds:g} seconds"
        except CursorGone as error:
            reason = str(error)
        websocket.offer(binary_frame(error_frame("ConsumerTooSlow", reason)), trio.current_time())
        return Ending(_POLICY_VIOLATION, "ConsumerTooSlow")

    async def _catch_up(self, subscriber: Subscriber) -> None:
        """Send from the log at the consumer's own pace until it is live."""
        consumer, websocket = subscriber.consumer, subscriber.websocket
        while True:
            await websocket.flush(self._limits.stall_seconds)
            if self._sweep.join(subscriber):
                return
            segment = read_towards(self._reader, consumer.position, self._sweep.position)
            consumer.position = segment.last_seq
            consumer.events += segment.count
            consumer.bytes += len(segment.data)
            if segment.data:
                websocket.offer(segment.data, trio.current_time())
            await trio.lowlevel.checkpoint()


async def _receive(subscriber: Subscriber, conversation: trio.CancelScope) -> None:
    await subscriber.websocket.receive()
    conversation.cancel()
