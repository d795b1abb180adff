"""The sweep, and the way out of it and back: every consumer gets exactly the contiguous sequence."""

import random

import pytest
import trio

from relay.firehose.live import window_seconds
from relay.firehose.websocket import KeepAlive
from tests.firehose.list_log import ListLog, seq_of
from tests.firehose.port import Port, RawClient, Settings, running
from tests.world.websocket import BINARY, PING, PONG, TEXT


def test_window() -> None:
    """None for few consumers, 5 ms at 100, 10 ms from 500 on; never decreasing."""
    assert [window_seconds(count) for count in (0, 1, 20)] == [0, 0, 0]
    assert [window_seconds(count) for count in (100, 500, 9000)] == pytest.approx([0.005, 0.010, 0.010])
    windows = [window_seconds(count) for count in range(600)]
    assert windows == sorted(windows)


async def _until_live(port: Port, count: int) -> None:
    with trio.fail_after(20):
        while len(port.sweep) != count:
            await trio.testing.wait_all_tasks_blocked(0.001)


async def test_many_live_consumers_get_the_same() -> None:
    """More than one slice of the sweep, with its window; the same bytes in the same order for all."""
    consumers, events = 120, 60
    async with running() as port:
        clients = [await port.connect() for _ in range(consumers)]
        await _until_live(port, consumers)
        for burst in range(1, 11):
            port.log.append(6)
            if burst % 3 == 0:
                await trio.testing.wait_all_tasks_blocked(0.001)
        for client in clients:
            assert [seq_of(await client.message()) for _ in range(events)] == list(range(1, events + 1))
        assert len(port.sweep) == consumers


async def test_a_slow_consumer_leaves_and_comes_back() -> None:
    """It stops reading, is passed by without holding others up, and misses and repeats nothing."""
    async with running() as port:
        slow = await port.connect(receive_buffer_bytes=4096)
        fast = [await port.connect() for _ in range(3)]
        await _until_live(port, 4)
        events = 0
        while len(port.sweep) == 4 or events < 4000:
            port.log.append(50, size=5000)
            events += 50
            for client in fast:
                assert [seq_of(await client.message()) for _ in range(50)] == list(range(events - 49, events + 1))
        assert len(port.sweep) == 3
        received = [seq_of(await slow.message()) for _ in range(events)]
        assert received == list(range(1, events + 1))
        await _until_live(port, 4)
        port.log.append(1)
        assert [seq_of(await client.message()) for client in (slow, *fast)] == [events + 1] * 4


async def test_clients_may_talk() -> None:
    """Data messages, whole or in many frames, are read and thrown away; a ping behind them is answered."""
    async with running() as port:
        client = await port.connect()
        await client.send(TEXT, b"hello")
        await client.send(BINARY, b"x" * 30_000)
        await client.send(PING, b"still there?")
        answer = await client.frame()
        assert (answer.opcode, answer.payload) == (PONG, b"still there?")
        port.log.append(1)
        assert seq_of(await client.message()) == 1


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x82\x03abc", 1002),  # not masked
        (b"\xc2\x80\0\0\0\0", 1002),  # a reserved bit
        (b"\x09\x80\0\0\0\0", 1002),  # a fragmented ping
        (b"\x83\x80\0\0\0\0", 1002),  # an unknown opcode
        (b"\x81\x82\0\0\0\0\xff\xff", 1007),  # text that is not UTF-8
    ],
)
async def test_a_violation_of_the_protocol_ends_the_stream(sent: bytes, code: int) -> None:
    """The close code says which."""
    async with running() as port:
        client = await port.connect()
        await client.stream.send_all(sent)
        assert (await client.closing())[0] == code


async def test_a_silent_peer_is_pinged_and_given_up() -> None:
    """Pings while nothing is sent; one that answers stays, one that does not is disconnected."""
    keep_alive = KeepAlive(ping_seconds=0.1, answer_seconds=0.3)
    async with running(Settings(keep_alive=keep_alive)) as port:
        mute, answering = await port.connect(), await port.connect()
        await _until_live(port, 2)
        for _ in range(8):
            ping = await answering.frame()
            assert ping.opcode == PING
            await answering.send(PONG, ping.payload)
        await _until_live(port, 1)
        while (received := await mute.stream.receive_some(100)) != b"":
            assert received.replace(b"\x89\x00", b"") == b""
        port.log.append(1)
        assert seq_of(await answering.message()) == 1


async def test_who_is_sent_events_is_not_pinged() -> None:
    """Data prove as much as a pong, and reset the clock of the unanswered ping."""
    keep_alive = KeepAlive(ping_seconds=0.3, answer_seconds=0.4)
    async with running(Settings(keep_alive=keep_alive)) as port:
        client = await port.connect()
        began = trio.current_time()
        seq = 0
        while trio.current_time() < began + 1:
            port.log.append(1)
            seq += 1
            received = await client.frame()
            assert (received.opcode, seq_of(received.payload)) == (BINARY, seq)
            await trio.testing.wait_all_tasks_blocked(0.02)


@pytest.mark.parametrize("seed", range(4))
async def test_any_pace_gives_the_contiguous_sequence(seed: int) -> None:
    """Random production, stalls, hidden events, cursors and disconnections; every consumer sees what a list says."""
    rng = random.Random(seed)
    log = ListLog()
    log.append(rng.randrange(300), size=rng.choice((60, 3000)))
    async with running(log=log) as port, trio.open_nursery() as nursery:
        final = trio.Event()

        async def produce() -> None:
            for _ in range(60):
                seqs = range(log.head + 1, log.head + 1 + rng.choice((1, 1, 2, 10, 60)))
                log.hide(*(seq for seq in seqs if rng.random() < 0.1))
                log.append(len(seqs), size=rng.choice((20, 300, 5000, 5000, 70_000)))
                if rng.random() < 0.7:
                    await trio.sleep(rng.choice((0, 0, 0.001, 0.005)))
            log.append(1)
            final.set()

        async def consume(client: RawClient, cursor: int, stop_at: int) -> None:
            position = cursor
            while position < stop_at and not (final.is_set() and position == log.head):
                seq = seq_of(await client.message())
                assert log.visible(position)[0] == seq
                position = seq
                if rng.random() < 0.01:
                    await trio.sleep(rng.choice((0, 0.02, 0.1)))
            await trio.aclose_forcefully(client.stream)

        async def arrive() -> None:
            for _ in range(16):
                cursor = rng.randrange(log.head + 1)
                client = await port.connect(f"?cursor={cursor}", receive_buffer_bytes=rng.choice((None, 4096, 65536)))
                stop_at = rng.choice((cursor + 20, 10**9, 10**9, 10**9))
                nursery.start_soon(consume, client, cursor, stop_at)
                await trio.sleep(rng.choice((0, 0.002, 0.01)))

        nursery.start_soon(produce)
        nursery.start_soon(arrive)
