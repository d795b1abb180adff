"""SIGTERM in the middle of a flood: an orderly stop, and the next start goes on where it ended."""

import time
from pathlib import Path

import trio

from relay.eventlog.log import LogSettings, open_log
from tests.fault.life import Life, begun_life
from tests.world.consumer import open_consumer

_BURST_STEPS = 10


def head_of(path: Path) -> int:
    """The last seq of a log that nobody has open."""
    log = open_log(
        path, retention_hours=72, retention_bytes=None, settings=LogSettings(), now_us=lambda: time.time_ns() // 1000
    )
    head = log.reader.head
    log.store.close()
    return head


async def flood(life: Life) -> None:
    """Let things happen as fast as they can be made, until cancelled."""
    while True:
        life.burst(_BURST_STEPS)
        await trio.lowlevel.checkpoint()


async def test_sigterm_in_a_flood_loses_nothing_and_tells_consumers(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with begun_life(seed=31, hosts=3, accounts=60, directory=tmp_path / "relay") as life:
            relay, watch = life.relay, life.watch
            await life.until(300)
            async with open_consumer(relay.firehose_port, cursor=0) as consumer, trio.open_nursery() as nursery:
                nursery.start_soon(flood, life)
                seen = len(watch.events)
                await watch.changed.wait_until(lambda: len(watch.events) > seen + 50)
                await relay.terminate()
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await consumer.finished()
            assert consumer.closed == (1012, "restarting")
            head, emitted = head_of(tmp_path / "relay" / "data" / "log"), len(life.world.emitted)
            print(f"stopped at {head} of {emitted} events")
            assert seen < consumer.last_seq <= head < emitted, "not stopped in the middle"
            await relay.start()
            await life.until(emitted + 100)
            await life.check()
