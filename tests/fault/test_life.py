"""All kinds of life through one relay process, undisturbed and killed again and again: nothing lost, nothing twice."""

import random
from pathlib import Path

import pytest
import trio

from tests.fault.life import Life, begun_life

_BURST_STEPS = 300
_UNSENT_STEPS = 10
_UNHEARD_STEPS = 40


async def live(life: Life, *, events: int) -> None:
    """Undisturbed to the end: nothing was dropped, every kind of life was there, and the consumer never fell out."""
    await life.until(events)
    await life.check()
    assert await life.relay.drops() == {}
    assert all(life.workload.steps.values()), life.workload.steps
    assert life.watch.connections == 1
    print(f"{len(life.world.emitted)} events, {life.workload.steps}")


async def live_through_kills(life: Life, *, events: int, kills: int, rng: random.Random) -> None:
    """Killed in the middle of its work, so often; while the relay is dead, life goes on."""
    moments = sorted(rng.sample(range(events // 10, events * 9 // 10), kills))
    for number, moment in enumerate(moments):
        await life.until(moment)
        await in_the_middle(life, rng, published=number % 2 == 0)
        life.burst(_UNSENT_STEPS)
        await life.relay.kill_hard()
        emitted, seen = len(life.world.emitted), len(life.watch.events)
        last_seqs = [host.last_seq for host in life.world.hosts]
        asked = [len(host.cursors) for host in life.world.hosts]
        life.burst(_UNHEARD_STEPS)
        await life.relay.start()
        for host, count in zip(life.world.hosts, asked, strict=True):
            await host.asked(count + 1)
        cursors = [host.cursors[-1] or 0 for host in life.world.hosts]
        print(f"kill {number + 1}: {seen} of {emitted} events were seen, and finished as far as {sum(cursors)}")
        assert sum(cursors) < sum(last_seqs) == emitted, "killed when all was done"
    await life.until(events)
    await life.check()
    assert life.watch.connections == kills + 1


async def in_the_middle(life: Life, rng: random.Random, *, published: bool) -> None:
    """Return with much on its way: when something of it has come out, or when it has begun to go in (hosts send)."""
    hosts, seen = life.world.hosts, len(life.watch.events)
    sent = sum(host.sent_entries for host in hosts)
    life.burst(_BURST_STEPS)
    wanted = rng.randrange(1, _BURST_STEPS // 4)
    if published:
        await life.watch.changed.wait_until(lambda: len(life.watch.events) >= seen + wanted)
    else:
        while sum(host.sent_entries for host in hosts) < sent + wanted:
            await trio.lowlevel.checkpoint()


async def test_a_lively_network_comes_out_whole(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with begun_life(seed=21, hosts=4, accounts=120, directory=tmp_path / "relay") as life:
            await live(life, events=1500)


async def test_kill_9_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    with trio.fail_after(90):
        async with begun_life(seed=22, hosts=4, accounts=100, directory=tmp_path / "relay") as life:
            await live_through_kills(life, events=1500, kills=3, rng=random.Random(22))


@pytest.mark.long
async def test_ten_thousand_events_come_out_whole(tmp_path: Path) -> None:
    with trio.fail_after(600):
        async with begun_life(seed=23, hosts=8, accounts=300, directory=tmp_path / "relay") as life:
            await live(life, events=10_000)


@pytest.mark.long
async def test_ten_thousand_events_survive_kill_9(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    with trio.fail_after(600):
        async with begun_life(seed=seed, hosts=8, accounts=300, directory=tmp_path / "relay") as life:
            await live_through_kills(life, events=10_000, kills=6, rng=random.Random(seed))
