"""The sweep, and the way out of it and back: every consumer gets exactly the contiguous sequence."""

import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from relay.firehose.consumers import Consumers
from relay.firehose.live import LiveSweep, Subscriber, window_seconds
from relay.firehose.websocket import KeepAlive, WebSocket
from tests.firehose.list_log import ListLog, seq_of
from tests.firehose.port import Port, RawClient, Settings, running
from tests.world.websocket import BINARY, PING, PONG, TEXT, FrameReader


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


async def test_data_stand_for_a_pong() -> None:
    """Who takes events is not pinged, and a ping that was not answered before is forgotten."""
    keep_alive = KeepAlive(ping_seconds=0.2, answer_seconds=0.4)
    async with running(Settings(keep_alive=keep_alive)) as port:
        client = await port.connect()
        assert (await client.frame()).opcode == PING
        until = trio.current_time() + 0.8
        seq = 0
        while trio.current_time() < until:
            port.log.append(1)
            seq += 1
            received = await client.frame()
            assert (received.opcode, seq_of(received.payload)) == (BINARY, seq)
            await trio.testing.wait_all_tasks_blocked(0.02)


@asynccontextmanager
async def _subscribers(
    count: int, log: ListLog
) -> AsyncIterator[tuple[LiveSweep, list[Subscriber], list[socket.socket]]]:
    """A sweep that does not run yet, and consumers with the other ends of their sockets."""
    pairs = [socket.socketpair() for _ in range(count)]
    consumers = Consumers(consumers_max=count, consumers_per_address_max=count)
    subscribers = []
    for ours, theirs in pairs:
        ours.setblocking(False)
        theirs.setblocking(False)
        consumer = consumers.admit(stream="test", address="", user_agent="", now=0)
        websocket = WebSocket(ours, received=b"", keep_alive=KeepAlive(ping_seconds=60, answer_seconds=60))
        subscribers.append(Subscriber(consumer, websocket))
    try:
        yield LiveSweep(log), subscribers, [theirs for _, theirs in pairs]
    finally:
        for ours, theirs in pairs:
            ours.close()
            theirs.close()


def _received(theirs: socket.socket) -> list[int]:
    try:
        data = theirs.recv(1 << 20)
    except BlockingIOError:
        return []
    return [seq_of(frame.payload) for frame in FrameReader().feed(data)]


async def test_who_is_ahead_is_passed_over_and_who_is_between_is_put_out() -> None:
    """The sweep goes 0 -> 5: only who stands exactly at 0 may get its segment."""
    log = ListLog()
    async with _subscribers(4, log) as (sweep, subscribers, theirs), trio.open_nursery() as nursery:
        log.append(5)
        for subscriber, position in zip(subscribers, (0, 3, 5, 6), strict=True):
            subscriber.consumer.position = position
            assert sweep.join(subscriber)
        nursery.start_soon(sweep.run)
        await trio.testing.wait_all_tasks_blocked()
        assert [_received(end) for end in theirs] == [[1, 2, 3, 4, 5], [], [], []]
        assert [subscriber.consumer.live for subscriber in subscribers] == [True, False, True, True]
        assert [subscriber.left.is_set() for subscriber in subscribers] == [False, True, False, False]
        subscribers[1].consumer.position = 4
        assert not sweep.join(subscribers[1])
        log.append(2)
        await trio.testing.wait_all_tasks_blocked()
        assert [_received(end) for end in theirs] == [[6, 7], [], [6, 7], []]
        nursery.cancel_scope.cancel()


async def test_who_leaves_while_others_are_written_to_gets_nothing_more() -> None:
    """The sweep lets others run between slices of sockets."""
    log = ListLog()
    async with _subscribers(250, log) as (sweep, subscribers, theirs), trio.open_nursery() as nursery:
        assert all(sweep.join(subscriber) for subscriber in subscribers)
        nursery.start_soon(sweep.run)
        log.append(1)
        while sweep.position == 0:
            await trio.lowlevel.checkpoint()
        sweep.remove(subscribers[-1])
        await trio.testing.wait_all_tasks_blocked()
        assert [_received(end) for end in theirs] == [[1]] * 249 + [[]]
        nursery.cancel_scope.cancel()


async def test_a_sweep_that_leaves_the_window_puts_everyone_out() -> None:
    """It goes on at the head; the consumers find out for themselves what they have missed."""
    log = ListLog()
    async with _subscribers(2, log) as (sweep, subscribers, theirs), trio.open_nursery() as nursery:
        assert all(sweep.join(subscriber) for subscriber in subscribers)
        log.append(9)
        log.forget_below(5)
        nursery.start_soon(sweep.run)
        await trio.testing.wait_all_tasks_blocked()
        assert (sweep.position, len(sweep)) == (9, 0)
        assert all(subscriber.left.is_set() for subscriber in subscribers)
        assert [_received(end) for end in theirs] == [[], []]
        nursery.cancel_scope.cancel()


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
