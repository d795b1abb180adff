"""Pings to hosts that have gone quiet, from one task for all of them. Trio.

One sweep costs a quarter of a task per connection (measurements.md 3). Anything that a host sends counts as life; one
that we are not reading is not judged. Answering the hosts' own pings is trio-websocket's business.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from relay.hosts.ended import Cause, Ended
from relay.hosts.tap import Tap

_TAPS_PER_SLICE = 64  # a TLS write costs 20 us: thousands in one piece would hold up everything else


class _Watch:
    __slots__ = ("pinged_at", "quiet_since", "reads")

    def __init__(self, reads: int, now: float) -> None:
        self.reads = reads
        self.quiet_since = now
        self.pinged_at: float | None = None


class PingSweep:
    """Pings the taps it watches after `interval_seconds` of silence, fails them `deadline_seconds` after that."""

    def __init__(self, *, interval_seconds: float, deadline_seconds: float) -> None:
        self._interval_seconds = interval_seconds
        self._deadline_seconds = deadline_seconds
        self._watches: dict[Tap, _Watch] = {}

    @contextmanager
    def watching(self, tap: Tap) -> Iterator[None]:
        """Watch a tap while the block runs."""
        self._watches[tap] = _Watch(tap.reads, trio.current_time())
        try:
            yield
        finally:
            del self._watches[tap]

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await trio.sleep(min(self._interval_seconds, self._deadline_seconds) / 4)
            for position, (tap, watch) in enumerate(list(self._watches.items()), start=1):
                self._look(tap, watch, trio.current_time())
                if position % _TAPS_PER_SLICE == 0:
                    await trio.lowlevel.checkpoint()

    def _look(self, tap: Tap, watch: _Watch, now: float) -> None:
        if tap.paused or tap.reads != watch.reads:
            watch.reads = tap.reads
            watch.quiet_since = now
            watch.pinged_at = None
        elif watch.pinged_at is None:
            if now - watch.quiet_since >= self._interval_seconds:
                watch.pinged_at = now
                tap.ping()
        elif now - watch.pinged_at >= self._deadline_seconds:
            tap.fail(Ended(Cause.NO_PONG, f"silent for {now - watch.quiet_since:.0f} s"))
