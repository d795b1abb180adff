"""The sweep: one task that sends one shared segment per tick to every live consumer. Trio shell.

Owns who is live and the seq that the live ones have reached. A consumer that cannot take a segment at once leaves;
what it does then is its own business (`firehose/subscribe_repos.py`), and it may join again at or ahead of the
sweep's position. Measured in measurements.md 4: a task per consumer costs twice to ten times as much.
"""

import trio

from relay.eventlog.reader import CursorGone
from relay.firehose.consumers import Consumer
from relay.firehose.log_reader import SEGMENT_BYTES_MAX, LogReader
from relay.firehose.websocket import WebSocket

_YIELD_EVERY = 50  # sockets; about 100 µs of writes

# (consumers, seconds): waiting gathers more events into one write. More than this buys nothing.
_WINDOWS = ((20, 0.0), (100, 0.005), (500, 0.010))


def window_seconds(consumers: int) -> float:
    """How long to gather events before a sweep: nothing for few consumers, 5 ms near 100, 10 ms from 500 on."""
    fewer, shorter = _WINDOWS[0]
    for more, longer in _WINDOWS:
        if consumers <= more:
            return shorter + (longer - shorter) * max(0, consumers - fewer) / max(1, more - fewer)
        fewer, shorter = more, longer
    return shorter


class Subscriber:
    """A consumer and its socket, on either side of the sweep. `left` is set when the sweep puts it out."""

    __slots__ = ("consumer", "left", "websocket")

    def __init__(self, consumer: Consumer, websocket: WebSocket) -> None:
        self.consumer = consumer
        self.websocket = websocket
        self.left = trio.Event()


class LiveSweep:
    """Everyone who is at the head."""

    def __init__(self, reader: LogReader) -> None:
        self.position = reader.head
        self._reader = reader
        self._live: dict[Subscriber, None] = {}

    def __len__(self) -> int:
        return len(self._live)

    def join(self, subscriber: Subscriber) -> bool:
        """Let a consumer be swept from here on; False if the sweep is already past its position.

        One that is ahead is passed over until the sweep has reached it.
        """
        if subscriber.consumer.position < self.position:
            return False
        subscriber.left = trio.Event()
        subscriber.consumer.live = True
        self._live[subscriber] = None
        return True

    def remove(self, subscriber: Subscriber) -> None:
        """Sweep it no more, if it is live."""
        subscriber.consumer.live = False
        self._live.pop(subscriber, None)

    async def run(self) -> None:
        """Sweep whatever becomes readable, until cancelled."""
        while True:
            await self._reader.wait_beyond(self.position)
            if window := window_seconds(len(self._live)):
                await trio.sleep(window)
            while self.position < self._reader.head:
                await self._sweep()

    async def _sweep(self) -> None:
        before = self.position
        subscribers = list(self._live)
        if not subscribers:
            self.position = self._reader.head
            return
        try:
            segment = self._reader.read(before, SEGMENT_BYTES_MAX)
        except CursorGone:  # slower than the window itself: each consumer will find that out and be told
            self.position = self._reader.head
            for subscriber in subscribers:
                self._put_out(subscriber)
            return
        self.position = segment.last_seq
        data, count, size = segment.data, segment.count, len(segment.data)
        for start in range(0, len(subscribers), _YIELD_EVERY):
            now = trio.current_time()
            for subscriber in subscribers[start : start + _YIELD_EVERY]:
                consumer = subscriber.consumer
                # It may have left, and even come back, while others were written to.
                if not consumer.live or consumer.position >= segment.last_seq:
                    continue
                if consumer.position != before:
                    self._put_out(subscriber)
                    continue
                consumer.position = segment.last_seq
                consumer.events += count
                consumer.bytes += size
                if data and not subscriber.websocket.offer(data, now):
                    self._put_out(subscriber)
            await trio.lowlevel.checkpoint()

    def _put_out(self, subscriber: Subscriber) -> None:
        self.remove(subscriber)
        subscriber.left.set()
