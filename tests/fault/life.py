"""A fake network that lives, a relay process that follows it, and a consumer that watches. A trio shell.

Owns the pace: life goes on in bursts that the relay is given time to follow, so that keys and hosts change too
(`Workload`). What was wrong at the end is for `check` to say; faults are the tests' business.
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import httpx
import trio

from tests.fault.victim import COMMAND, Victim
from tests.world.consumer import open_consumer
from tests.world.frames import Parsed, parse
from tests.world.network import CONTENT, World
from tests.world.oracle import differences
from tests.world.watch import Watch
from tests.world.workload import EVERYTHING, Workload

# A share of everything but plain commits that a few hundred steps suffice for all kinds.
LIVELY = {**EVERYTHING, "delete": 5, "silent_commit_and_sync": 5, "take_down": 6}
_HOUR_US = 3600 * 1_000_000
_BURST_STEPS = 25
_LAG_EVENTS_MAX = 60


class Life:
    """World, relay and watch. `begun_life` makes it."""

    def __init__(self, *, world: World, relay: Victim, watch: Watch, workload: Workload) -> None:
        self.world = world
        self.relay = relay
        self.watch = watch
        self.workload = workload

    @property
    def lag(self) -> int:
        """How many events the watch still has to see."""
        return (self.world.expected - self.watch.counts).total()

    def burst(self, steps: int) -> None:
        """Let things happen, all at once."""
        for _ in range(steps):
            self.workload.step()

    async def until(self, events: int) -> None:
        """Live until so many events were emitted, no faster than the watch can follow."""
        while len(self.world.emitted) < events:
            self.burst(_BURST_STEPS)
            await self.watch.changed.wait_until(lambda: self.lag <= _LAG_EVENTS_MAX)

    async def replay(self) -> list[Parsed]:
        """The whole log, as a new consumer gets it from cursor 0."""
        last = self.watch.verifier.last_seq
        async with open_consumer(self.relay.firehose_port, cursor=0) as consumer:
            done = 0
            while not consumer.messages or parse(consumer.messages[-1]).seq < last:
                assert not consumer.ended, consumer.closed
                await consumer.received_beyond(done)
                done = consumer.count
            return consumer.events

    async def check(self) -> None:
        """Everything has come, once, in order, and stays: now, and for whoever asks for the whole log."""
        await self.watch.complete()
        world, watch = self.world, self.watch
        assert watch.rejected == []
        assert differences(world.emitted, watch.events, hidden=world.deleted) == []
        replayed = await self.replay()
        assert differences(world.emitted, replayed, hidden=world.deleted) == []
        seqs = [event.seq for event in replayed]
        assert all(before < after for before, after in pairwise(seqs))
        visible = [event for event in watch.events if event.did not in world.deleted or event.kind not in CONTENT]
        assert [event for event in replayed if event.did not in world.deleted or event.kind not in CONTENT] == visible
        deletions = {event.did: event.seq for event in replayed if event.payload.get("status") == "deleted"}
        assert deletions.keys() == world.deleted
        assert not [event for event in replayed if event.kind in CONTENT and event.seq < deletions.get(event.did, 0)]


@asynccontextmanager
async def begun_life(
    *, seed: int, hosts: int, accounts: int, directory: Path, flags: Sequence[str] = ()
) -> AsyncIterator[Life]:
    """A life that has begun: all hosts are followed, the accounts exist, nothing else has happened yet.

    The world's clock is an hour behind, because it may run ahead of time: revs must not lie in the future.
    """
    world = await World.open(seed=seed, hosts=hosts, now_microseconds=time.time_ns() // 1000 - _HOUR_US)
    async with trio.open_nursery() as nursery, httpx.AsyncClient() as http:
        await nursery.start(world.serve)
        relay = Victim(command=(*COMMAND, *flags), directory=directory, plc=world.directory.url, http=http)
        try:
            await relay.start()
            for host in world.hosts:
                await relay.request_crawl(host.name)
            for index in range(accounts):
                world.create_account(
                    world.hosts[index % hosts], curve="p256" if index % 4 == 0 else "k256", preload=index % 3 * 20
                )
            watch = Watch(world=world, port=relay.firehose_port, retry_seconds=0.02)
            workload = Workload(world, weights=LIVELY, caught_up=watch.caught_up, living_min=accounts // 2)
            nursery.start_soon(watch.run)
            yield Life(world=world, relay=relay, watch=watch, workload=workload)
        finally:
            await relay.kill()
        nursery.cancel_scope.cancel()
