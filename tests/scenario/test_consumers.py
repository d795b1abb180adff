"""Where a cursor leads in the real log, and what a consumer sees of a restart."""

from pathlib import Path

import pytest
import trio

from tests.scenario.network import SECONDS, Network, open_network, until_caught_up
from tests.world.consumer import Consumer, Refused, open_consumer
from tests.world.frames import Parsed
from tests.world.network import Account
from tests.world.oracle import differences
from tests.world.watch import Watch

OUTDATED = Parsed(
    "#info", {"name": "OutdatedCursor", "message": "Requested cursor exceeded limit. Possibly missing events"}
)
FUTURE = Parsed("", {"error": "FutureCursor", "message": "Cursor in the future."})


async def fill(network: Network, account: Account, commits: int) -> None:
    """So many commits more; returns once all that was emitted is in the log."""
    for _ in range(commits):
        network.world.commit(account)
    await network.sequenced()


async def received(network: Network, cursor: int | None, count: int) -> list[Parsed]:
    """The first `count` messages after a cursor."""
    async with open_consumer(network.firehose_port, cursor=cursor) as consumer:
        with trio.fail_after(SECONDS):
            await consumer.received(count)
        return consumer.events[:count]


async def test_every_cursor_leads_where_it_says(network: Network) -> None:
    account = network.world.create_account(network.world.hosts[0])
    await fill(network, account, 16)
    everything = await received(network, 0, 20)
    assert [event.seq for event in everything] == list(range(1, 21))
    async with open_consumer(network.firehose_port) as live, open_consumer(network.firehose_port, cursor=20) as at_head:
        for cursor in (1, 2, 10, 18, 19):
            assert await received(network, cursor, 20 - cursor) == everything[cursor:]
        for cursor in (21, 2**53 - 1):
            async with open_consumer(network.firehose_port, cursor=cursor) as consumer:
                with trio.fail_after(SECONDS):
                    await consumer.finished()
                assert consumer.events == [FUTURE]
                assert consumer.closed == (1008, "FutureCursor")
        network.world.commit(account)
        with trio.fail_after(SECONDS):
            await live.received(1)
            await at_head.received(1)
        assert [live.events[0].seq, at_head.events[0].seq] == [21, 21]
        assert live.events == at_head.events


async def test_what_is_no_cursor_is_refused_before_the_upgrade(network: Network) -> None:
    for cursor in ("-1", "1.5", "abc", str(2**53), "9" * 30):
        with pytest.raises(Refused) as caught:
            async with open_consumer(network.firehose_port, cursor=cursor):
                pass
        assert caught.value.status == 400
        assert b'"InvalidRequest"' in caught.value.body


async def test_a_cursor_that_left_the_window_is_told_so_and_gets_the_whole_window(tmp_path: Path) -> None:
    async with open_network(tmp_path, retention_bytes="40000") as network:
        account = network.world.create_account(network.world.hosts[0])
        for _ in range(12):
            await fill(network, account, 3)  # few in one batch, as the window is cut between batches
        metrics = await network.metrics()
        oldest, head = int(metrics["relay_oldest_seq"]), int(metrics["relay_head_seq"])
        assert 3 < oldest < head
        assert metrics["relay_log_bytes"] < 55_000
        held = await received(network, 0, head - oldest + 1)
        assert [event.seq for event in held] == list(range(oldest, head + 1))
        for cursor in (1, oldest - 2):
            assert await received(network, cursor, len(held) + 1) == [OUTDATED, *held]
        for cursor in range(oldest - 1, head):  # on both sides of every segment's end
            left = held[cursor + 1 - oldest :]
            assert await received(network, cursor, len(left)) == left
        # The window outlives a restart, and so do its edges.
        await network.stop()
        await network.start()
        assert await received(network, 0, len(held)) == held
        assert await received(network, oldest - 2, len(held) + 1) == [OUTDATED, *held]


async def test_a_restart_in_the_middle_is_seamless_for_all(network: Network) -> None:
    """Consumers are told to come back; hosts and consumers go on where they were, with no gap and nothing twice."""
    world = network.world
    accounts = [world.create_account(host) for host in world.hosts for _ in range(2)]
    watch = Watch(world=world, port=network.firehose_port, retry_seconds=0.02)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        async with open_consumer(network.firehose_port) as plain:
            for _ in range(10):
                for account in accounts:
                    world.commit(account)
            with trio.fail_after(SECONDS):
                await watch.changed.wait_until(lambda: len(watch.events) > 5)
            await network.stop()
            with trio.fail_after(SECONDS):
                await plain.finished()
            assert plain.closed == (1012, "restarting")
        for account in accounts:
            world.commit(account)
        world.create_account(world.hosts[1])
        await network.start()
        with trio.fail_after(SECONDS):
            await watch.complete()
        assert watch.rejected == []
        assert watch.connections >= 2
        assert differences(world.emitted, watch.events) == []
        nursery.cancel_scope.cancel()
    assert (await network.replay()).events == watch.events
    # Everything had been finished: the hosts were asked for nothing twice.
    assert [len(host.cursors) for host in world.hosts] == [2, 2]


async def test_a_consumer_that_comes_back_after_each_event_misses_nothing(network: Network) -> None:
    account = network.world.create_account(network.world.hosts[0])
    await fill(network, account, 8)
    seen: list[Parsed] = []
    while len(seen) < 12:
        seen += await received(network, seen[-1].seq if seen else 0, 1)
    assert differences(network.world.emitted, seen) == []


async def test_slow_and_fast_consumers_get_the_same(network: Network) -> None:
    """One does not read while the log grows beyond what its socket holds; it holds nobody up and misses nothing."""
    world = network.world
    account = world.create_account(world.hosts[0], preload=400)
    slow: Consumer
    async with (
        open_consumer(network.firehose_port, cursor=0, receive_buffer_bytes=4096) as slow,
        open_consumer(network.firehose_port, cursor=0) as fast,
    ):
        with trio.fail_after(SECONDS):
            await slow.received(3)
        slow.pause()
        await fill(network, account, 600)
        with trio.fail_after(SECONDS):
            await until_caught_up(fast, 603)
        assert slow.count < 603
        slow.resume()
        with trio.fail_after(SECONDS):
            await until_caught_up(slow, 603)
        assert slow.messages == fast.messages
    assert differences(world.emitted, fast.events) == []
