"""SIGTERM in the middle of a flood: an orderly stop, and the next start goes on where it ended."""

import time
from pathlib import Path

import trio

from relay.eventlog.log import LogSettings, open_log
from tests.fault.life import begun_life
from tests.world.consumer import open_consumer

_BURST_STEPS = 300


def head_of(path: Path) -> int:
    """The last seq of a log that nobody has open."""
    log = open_log(
        path, retention_hours=72, retention_bytes=None, settings=LogSettings(), now_us=lambda: time.time_ns() // 1000
    )
    head = log.reader.head
    log.store.close()
    return head


async def test_sigterm_in_a_flood_loses_nothing_and_tells_consumers(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with begun_life(seed=31, hosts=3, accounts=60, directory=tmp_path / "relay") as life:
            relay, watch = life.relay, life.watch
            await life.until(300)
            async with open_consumer(relay.firehose_port, cursor=0) as consumer:
                life.burst(_BURST_STEPS)
                emitted, seen = len(life.world.emitted), len(watch.events)
                await watch.changed.wait_until(lambda: len(watch.events) > seen)
                await relay.terminate()
                await consumer.finished()
                assert consumer.closed == (1012, "restarting")
                last_seq = consumer.last_seq
            head = head_of(tmp_path / "relay" / "data" / "log")
            print(f"stopped at {head} of {emitted} events")
            assert seen < last_seq <= head < emitted, "not stopped in the middle"
            await relay.start()
            await life.until(emitted + 100)
            await life.check()
