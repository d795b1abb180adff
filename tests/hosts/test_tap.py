"""The tap between a real socket and trio-websocket, against a host that sends any bytes."""

import random
import ssl
import tracemalloc
from itertools import pairwise

import pytest
import trio
import trio.testing

from relay.hosts.ended import Cause, Ended
from relay.hosts.framing import FRAMES_PER_SLICE
from tests.hosts.tapped import TEXT, TOO_BIG, Item, tapped
from tests.world import websocket as ws

Tls = tuple[ssl.SSLContext, ssl.SSLContext]

# Every kind of frame that a well-behaved host may send, and what comes of it.
MIXTURE: list[tuple[bytes, list[Item]]] = [
    (ws.binary(b"one"), [b"one"]),
    (ws.frame(ws.PING, b"are you there"), []),
    (ws.binary(b""), [b""]),
    (ws.fragments(b"in three pieces", [3, 0, 5]), [b"in three pieces"]),
    (ws.frame(ws.TEXT, "tëxt".encode()), [TEXT]),
    (ws.binary(b"x" * 130), [b"x" * 130]),
    (ws.frame(ws.BINARY, b"he", final=False), []),
    (ws.frame(ws.PING, b""), []),
    (ws.frame(ws.CONTINUATION, b"llo"), [b"hello"]),
    (ws.frame(ws.PONG, b"unasked"), []),
    (ws.frame(ws.TEXT, b"a", final=False), []),
    (ws.frame(ws.CONTINUATION, b"b"), [TEXT]),
    (ws.binary(b"y" * 211), [TOO_BIG]),
    (ws.frame(ws.BINARY, b"z" * 100, final=False), []),
    (ws.frame(ws.CONTINUATION, b"z" * 111, final=False), []),
    (ws.frame(ws.PING, b"still there"), []),
    (ws.frame(ws.CONTINUATION, b"z"), [TOO_BIG]),
    (ws.binary(b"w" * 210), [b"w" * 210]),
]
MIXTURE_BYTES = b"".join(sent for sent, _ in MIXTURE)
MIXTURE_ITEMS = [item for _, items in MIXTURE for item in items]
MIXTURE_PONGS = [b"are you there", b"", b"still there"]
MIXTURE_LIMIT = 210

VIOLATIONS = {
    "masked": ws.frame(ws.BINARY, b"masked", mask=b"\1\2\3\4"),
    "masked ping": ws.frame(ws.PING, b"masked", mask=b"\1\2\3\4"),
    "16-bit length for 125": b"\x82\x7e\x00\x7d" + b"x" * 125,
    "64-bit length for 65535": b"\x82\x7f" + (65535).to_bytes(8, "big") + b"x" * 65535,
    "64-bit length with its top bit": b"\x82\x7f" + (1 << 63).to_bytes(8, "big"),
    "over what is discarded": b"\x82\x7f" + (64_000_001).to_bytes(8, "big"),
    "reserved bit": b"\xc2\x01x",
    "reserved data opcode": b"\x83\x01x",
    "reserved control opcode": b"\x8b\x00",
    "continuation of nothing": ws.frame(ws.CONTINUATION, b"x"),
    "message inside a message": ws.frame(ws.BINARY, b"x", final=False) + ws.binary(b"y"),
    "text inside a message": ws.frame(ws.BINARY, b"x", final=False) + ws.frame(ws.TEXT, b"y"),
    "fragmented ping": ws.frame(ws.PING, b"x", final=False),
    "ping of 126 bytes": ws.frame(ws.PING, b"x" * 126),
}


async def test_messages_of_every_length_form_arrive_whole() -> None:
    """7-bit, 16-bit and 64-bit lengths, at their edges."""
    messages = [bytes([size % 251]) * size for size in (0, 1, 125, 126, 127, 65535, 65536, 300_000)]
    async with tapped() as wire:
        await wire.host.send(b"".join(map(ws.binary, messages)))
        assert await wire.items(len(messages)) == messages
        assert wire.websocket.closed is None


async def test_every_split_of_the_stream_gives_the_same() -> None:
    """All kinds of frames, cut in two at every byte; every ping is answered, in order."""
    async with tapped(message_bytes_max=MIXTURE_LIMIT) as wire:
        for cut in range(1, len(MIXTURE_BYTES)):
            wire.received.items.clear()
            reads = wire.tap.reads
            await wire.host.send(MIXTURE_BYTES[:cut])
            await wire.until(lambda reads=reads: wire.tap.reads > reads)  # type: ignore[misc]
            await wire.host.send(MIXTURE_BYTES[cut:])
            assert await wire.items(len(MIXTURE_ITEMS)) == MIXTURE_ITEMS
            for payload in MIXTURE_PONGS:
                assert await wire.host.frame() == ws.Frame(True, ws.PONG, payload)


@pytest.mark.parametrize("seed", range(5))
async def test_any_chopping_gives_the_same(seed: int) -> None:
    """The mixture many times over, in random pieces, through a buffer smaller than most of them."""
    chance = random.Random(seed)
    data, position = MIXTURE_BYTES * 20, 0
    async with tapped(message_bytes_max=MIXTURE_LIMIT, buffer_bytes=256) as wire:
        while position < len(data):
            size = chance.choice((1, 2, 3, 5, 50, 400))
            await wire.host.send(data[position : position + size])
            position += size
        assert await wire.items(len(MIXTURE_ITEMS) * 20) == MIXTURE_ITEMS * 20


async def test_frames_in_the_packet_of_the_upgrade_are_not_lost() -> None:
    """A host may send its first events with the 101."""
    async with tapped(message_bytes_max=MIXTURE_LIMIT, after_upgrade=MIXTURE_BYTES[:-3]) as wire:
        await wire.host.send(MIXTURE_BYTES[-3:])
        assert await wire.items(len(MIXTURE_ITEMS)) == MIXTURE_ITEMS


async def test_text_keeps_its_place() -> None:
    """Text between binary messages is told in order, valid UTF-8 or not."""
    async with tapped() as wire:
        text = ws.frame(ws.TEXT, b"\xff\xfe")
        await wire.host.send(ws.binary(b"a") + text + ws.binary(b"b") + text + text + ws.binary(b"c"))
        assert await wire.items(6) == [b"a", TEXT, b"b", TEXT, TEXT, b"c"]


@pytest.mark.parametrize("kind", VIOLATIONS)
async def test_a_violation_ends_the_connection(kind: str) -> None:
    """What came before is delivered, nothing after."""
    async with tapped() as wire:
        await wire.host.send(ws.binary(b"before") + VIOLATIONS[kind] + ws.binary(b"after"))
        await wire.closed()
        assert wire.received.items == [b"before"]
        assert isinstance(wire.tap.failure, Ended)
        assert wire.tap.failure.cause is Cause.WEBSOCKET_VIOLATION


@pytest.mark.parametrize("code", [1005, 999, 2500])
async def test_a_broken_close_frame_ends_the_connection(code: int) -> None:
    """Control frames are judged by wsproto: a close code that may not be sent is a protocol error."""
    async with tapped() as wire:
        await wire.host.send(ws.close(code) + ws.binary(b"after"))
        assert (await wire.closed()).code == 1002
        assert wire.received.items == []


async def test_a_close_frame_is_answered_and_ends_everything() -> None:
    """The close handshake is trio-websocket's; what follows the close frame is not delivered."""
    async with tapped() as wire:
        await wire.host.send(ws.binary(b"last") + ws.close(1012, "restart") + ws.binary(b"after"))
        reason = await wire.closed()
        assert (reason.code, reason.reason) == (1012, "restart")
        assert await wire.host.frame() == ws.Frame(True, ws.CLOSE, (1012).to_bytes(2, "big") + b"restart")
        assert wire.received.items == [b"last"]


async def test_closing_ourselves_says_so() -> None:
    """`close` sends a close frame with its code."""
    async with tapped() as wire:
        wire.tap.close(1001)
        assert await wire.host.frame() == ws.Frame(True, ws.CLOSE, (1001).to_bytes(2, "big"))
        assert await wire.host.frame() is None


@pytest.mark.parametrize("data", [b"\x82", b"\x82\x7e\x01", ws.binary(b"x" * 500)[:400], b"\x89\x05ab"])
async def test_eof_inside_a_frame_delivers_nothing(data: bytes) -> None:
    """A frame that never ends is no message."""
    async with tapped() as wire:
        await wire.host.send(data)
        await wire.until(lambda: wire.tap.reads > 0)
        await wire.host.aclose()
        assert (await wire.closed()).code == 1006
        assert wire.received.items == []


async def test_messages_over_the_limit_are_discarded_unbuffered() -> None:
    """In one frame or in fragments, up to 64 MB; the next message is as good as ever."""
    async with tapped() as wire:
        await wire.host.send(ws.binary(b"before"))
        await wire.items(1)
        tracemalloc.start()
        await wire.host.send(b"\x82\x7f" + (20_000_000).to_bytes(8, "big"))
        piece = b"x" * 1_000_000
        for _ in range(20):
            await wire.host.send(piece)
        await wire.items(2)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 4_000_000
        await wire.host.send(ws.frame(ws.BINARY, b"", final=False))
        for _ in range(6):
            await wire.host.send(ws.frame(ws.CONTINUATION, piece, final=False))
        await wire.host.send(ws.frame(ws.CONTINUATION, b"") + ws.binary(b"x" * 5_000_000) + ws.binary(b"after"))
        assert await wire.items(5) == [b"before", TOO_BIG, TOO_BIG, b"x" * 5_000_000, b"after"]
        assert wire.websocket.closed is None


async def test_fragments_that_never_end_are_a_violation() -> None:
    """The 64 MB are those of the whole message."""
    async with tapped(message_bytes_max=1000, discard_bytes_max=3000) as wire:
        await wire.host.send(ws.frame(ws.TEXT, b"x" * 2000, final=False))
        await wire.host.send(ws.frame(ws.CONTINUATION, b"x" * 1001))
        await wire.closed()
        assert wire.received.items == []
        assert wire.tap.failure is not None


async def test_reading_stops_while_there_is_no_room() -> None:
    """A receiver without room holds up the host, not memory; nothing is lost."""
    message = b"x" * 10_000
    async with tapped(buffer_bytes=65536) as wire:
        await trio.testing.wait_all_tasks_blocked()  # the tap is parked on the socket: one more read will come
        wire.received.room = False
        await wire.host.send(ws.binary(b"first"))
        await wire.until(lambda: wire.tap.paused)
        assert wire.received.items == [b"first"]
        sent = 0

        async def flood() -> None:
            nonlocal sent
            for _ in range(2000):
                await wire.host.send(ws.binary(message))
                sent += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            with trio.move_on_after(0.3):
                await wire.until(lambda: sent == 2000)
            assert sent < 2000
            assert wire.received.items == [b"first"]
            wire.received.room = True
        assert await wire.items(2001) == [b"first"] + [message] * 2000


async def test_stop_holds_in_the_middle_of_a_read() -> None:
    """The message after the one that ended the subscription is not delivered, even if it was read with it."""
    async with tapped() as wire:
        wire.received.stop_after = b"the end"
        await wire.host.send(ws.binary(b"a") + ws.binary(b"the end") + ws.binary(b"b"))
        await wire.closed()
        assert wire.received.items == [b"a", b"the end"]


async def test_failing_from_outside_wakes_the_reader() -> None:
    """A tap that is parked on a silent socket ends at once."""
    async with tapped() as wire:
        failure = Ended(Cause.NO_PONG, "silent")
        wire.tap.fail(failure)
        await wire.closed()
        assert wire.tap.failure == failure


async def test_a_ping_of_ours_is_empty_and_masked() -> None:
    """And its pong disturbs nobody."""
    async with tapped() as wire:
        wire.tap.ping()
        assert await wire.host.frame() == ws.Frame(True, ws.PING, b"")
        await wire.host.send(ws.frame(ws.PONG, b"") + ws.binary(b"next"))
        assert await wire.items(1) == [b"next"]


async def test_a_flood_of_pings_does_not_stall_others() -> None:
    """Control frames are handed over one at a time, with a checkpoint for each."""
    async with tapped() as wire:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            await wire.host.send(ws.frame(ws.PONG, b"") * 2000 + ws.binary(b"done"))
            await wire.items(1)
            nursery.cancel_scope.cancel()
        assert turns > 2000


async def test_a_flood_of_empty_messages_does_not_stall_others() -> None:
    """A full buffer of them is delivered in slices, and others run between any two."""
    async with tapped(buffer_bytes=1 << 18) as wire:
        seen = [0]

        async def others() -> None:
            while True:
                await trio.lowlevel.checkpoint()
                seen.append(len(wire.received.items))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            await wire.host.send(ws.binary(b"") * 20_000 + ws.frame(ws.PING, b"?") + ws.binary(b"done"))
            await wire.items(20_001)
            nursery.cancel_scope.cancel()
        assert wire.received.items[-1] == b"done"
        assert max(after - before for before, after in pairwise(seen)) <= 2 * FRAMES_PER_SLICE  # they take turns
        assert await wire.host.frame() == ws.Frame(True, ws.PONG, b"?")


async def test_a_slow_slice_is_followed_by_a_rest(mock_clock: trio.testing.MockClock) -> None:
    """A host whose messages take long gets a quarter of the time; one of ordinary messages is not held up."""
    async with tapped() as wire:

        async def delivered(message: bytes, *, seconds: float) -> None:
            wire.received.on_message = lambda: mock_clock.jump(seconds)
            await wire.host.send(ws.binary(message))
            await trio.testing.wait_all_tasks_blocked(0.01)

        await delivered(b"ordinary", seconds=0.015)
        await delivered(b"slow", seconds=1.0)
        assert wire.received.items == [b"ordinary", b"slow"]
        await delivered(b"next", seconds=0.0)
        mock_clock.jump(2.9)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert wire.received.items == [b"ordinary", b"slow"]
        mock_clock.jump(0.2)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert wire.received.items == [b"ordinary", b"slow", b"next"]


async def test_tls_carries_the_same(tls: Tls) -> None:
    """The mixture through a non-blocking SSLSocket."""
    async with tapped(message_bytes_max=MIXTURE_LIMIT, tls=tls) as wire:
        for position in range(0, len(MIXTURE_BYTES), 7):
            await wire.host.send(MIXTURE_BYTES[position : position + 7])
        assert await wire.items(len(MIXTURE_ITEMS)) == MIXTURE_ITEMS
        for payload in MIXTURE_PONGS:
            assert await wire.host.frame() == ws.Frame(True, ws.PONG, payload)


async def test_tls_in_a_flood_loses_nothing(tls: Tls) -> None:
    """Many full records at once: what OpenSSL holds back must be read without waiting for the socket."""
    messages = [bytes([number % 256]) * (number * 37 % 40_000) for number in range(500)]
    async with tapped(tls=tls) as wire:
        for message in messages:
            await wire.host.send(ws.binary(message))
        assert await wire.items(len(messages)) == messages


async def test_tls_ends_with_the_connection(tls: Tls) -> None:
    """A host that goes away without closing TLS is a lost connection."""
    async with tapped(tls=tls) as wire:
        await wire.host.send(ws.binary(b"last"))
        await wire.items(1)
        await wire.host.aclose()
        assert (await wire.closed()).code == 1006
