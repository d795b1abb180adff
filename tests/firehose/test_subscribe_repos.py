"""Cursor rules, close codes and catching up, over real sockets."""

import pytest
import trio
import trio_websocket

from relay.firehose.subscribe_repos import PATH
from tests.firehose.list_log import ListLog, message, seq_of
from tests.firehose.port import LOOPBACK, UPGRADE, Port, RawClient, Settings, running
from tests.world.websocket import CLOSE, PING, PONG

# Canonical bytes as observed from the reference PDS (protocol.md 1.2, 1.5).
_OUTDATED = (
    b"\xa2at\x65#infobop\x01\xa2dname\x6eOutdatedCursorgmessage\x78\x38"
    b"Requested cursor exceeded limit. Possibly missing events"
)
_FUTURE = b"\xa1bop\x20\xa2eerror\x6cFutureCursorgmessage\x75Cursor in the future."


def _log(events: int, *, size: int = 100) -> ListLog:
    log = ListLog()
    log.append(events, size)
    return log


async def _seqs(client: RawClient, count: int) -> list[int]:
    return [seq_of(await client.message()) for _ in range(count)]


async def _until_live(port: Port, count: int) -> None:
    with trio.fail_after(10):
        while len(port.sweep) != count:
            await trio.testing.wait_all_tasks_blocked()


async def test_no_cursor_is_live_only() -> None:
    """Nothing of the past, everything from now on."""
    async with running(log=_log(5)) as port:
        for query in ("", "?cursor=", "?other=1"):
            client = await port.connect(query)
            before = port.log.head
            port.log.append(2)
            assert [before + 1, before + 2] == await _seqs(client, 2)
            await client.stream.aclose()
            await _until_live(port, 0)


@pytest.mark.parametrize(
    ("cursor", "expected"), [(0, range(1, 8)), (1, range(2, 8)), (3, range(4, 8)), (5, range(6, 8))]
)
async def test_cursor_in_the_window_is_exclusive(cursor: int, expected: range) -> None:
    """Backlog after the cursor, then live, without a seam; cursor == head is live."""
    async with running(log=_log(5)) as port:
        client = await port.connect(f"?cursor={cursor}")
        await _until_live(port, 1)
        port.log.append(2)
        assert list(expected) == await _seqs(client, len(expected))


@pytest.mark.parametrize(("cursor", "outdated"), [(0, False), (1, True), (4, True), (5, False), (6, False)])
async def test_cursor_below_the_window(cursor: int, outdated: bool) -> None:
    """`#info` first, then the whole window; not for cursor 0, nor when nothing after the cursor is missing."""
    log = _log(8)
    log.forget_below(6)
    async with running(log=log) as port:
        client = await port.connect(f"?cursor={cursor}")
        if outdated:
            assert await client.message() == _OUTDATED
        expected = list(range(max(cursor + 1, 6), 9))
        assert expected == await _seqs(client, len(expected))


async def test_outdated_cursor_of_an_empty_window() -> None:
    """The info comes even when there is nothing to replay."""
    log = _log(8)
    log.forget_below(9)
    async with running(log=log) as port:
        client = await port.connect("?cursor=3")
        assert await client.message() == _OUTDATED
        log.append(1)
        assert await _seqs(client, 1) == [9]


@pytest.mark.parametrize("cursor", [6, 2**53 - 1])
async def test_future_cursor(cursor: int) -> None:
    """An error frame, then close 1008 with its name."""
    async with running(log=_log(5)) as port:
        client = await port.connect(f"?cursor={cursor}")
        assert await client.message() == _FUTURE
        assert await client.closing() == (1008, "FutureCursor")


@pytest.mark.parametrize("cursor", ["abc", "1.5", "-1", "%2B1", "1e3", "9007199254740992", "9" * 500, "%D9%A1", "0x1"])
async def test_malformed_cursor(cursor: str) -> None:
    """400 with an XRPC error before the upgrade."""
    async with running(log=_log(5)) as port:
        client = await port.dial()
        head = await client.request(f"GET {PATH}?cursor={cursor} HTTP/1.1", UPGRADE)
        assert head.startswith("HTTP/1.1 400 "), head
        assert "content-type: application/json" in head.lower()
        assert (await client.body(head)).startswith(b'{"error": "InvalidRequest", "message": "cursor must be')
        assert await client.eof()
        assert not len(port.consumers)


async def test_hidden_events_are_passed_over() -> None:
    """In the backlog, at its end and live; positions move on nevertheless."""
    log = _log(6)
    log.hide(1, 3, 6, 7, 8, 10)
    async with running(log=log) as port:
        client = await port.connect("?cursor=0")
        assert await _seqs(client, 3) == [2, 4, 5]
        await _until_live(port, 1)
        log.append(2)
        log.append(3)
        assert await _seqs(client, 2) == [9, 11]
        assert port.consumers.statistics()[0].position == 11


async def test_events_larger_than_a_segment() -> None:
    """5 MB frames go whole, live and from the log."""
    log = _log(2, size=5_000_000)
    async with running(log=log) as port:
        client = await port.connect("?cursor=0")
        assert await _seqs(client, 2) == [1, 2]
        await _until_live(port, 1)
        log.append(1, size=5_000_000)
        log.append(1)
        assert await _seqs(client, 2) == [3, 4]


async def test_a_library_client() -> None:
    """trio-websocket accepts the handshake, gets events, its ping is answered and its close too."""
    async with running(log=_log(3)) as port:
        async with trio_websocket.open_websocket_url(port.url + "?cursor=1") as client:
            assert [await client.get_message() for _ in range(2)] == [message(2), message(3)]
            with trio.fail_after(10):
                await client.ping(b"there?")
            await client.aclose(1000, "done")
        assert client.closed is not None
        assert (client.closed.code, client.closed.reason) == (1000, "done")
        await _until_live(port, 0)


async def test_subprotocol_is_selected_only_where_it_is_spoken() -> None:
    """`xrpc.v0.cbor` if offered, else none; no extension is accepted; the server names itself."""
    async with running() as port:
        offers = {"xrpc.v1.json": None, "xrpc.v1.json, xrpc.v0.cbor": "xrpc.v0.cbor"}
        for offer, expected in offers.items():
            client = await port.dial()
            more = f"Sec-WebSocket-Protocol: {offer}\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
            head = await client.request(f"GET {PATH} HTTP/1.1", UPGRADE + more)
            headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:])
            assert expected == headers.get("sec-websocket-protocol")
            assert "sec-websocket-extensions" not in headers
            assert headers["server"] == "atproto-relay/test"


async def test_shutdown_closes_1012() -> None:
    """Live and catching-up consumers are told to come back, at a frame boundary."""
    async with running(log=_log(3)) as port:
        clients = [await port.connect("?cursor=0") for _ in range(3)]
        for client in clients:
            assert await _seqs(client, 3) == [1, 2, 3]
        port.serving.cancel()
        for client in clients:
            assert await client.closing() == (1012, "restarting")


async def test_shutdown_in_a_replay_is_told_at_a_frame_boundary() -> None:
    """What was begun is finished first, at the consumer's pace, then comes the close."""
    log = _log(6000, size=5000)
    async with running(Settings(close_seconds=10), log=log) as port:
        client = await port.connect("?cursor=0", receive_buffer_bytes=4096)
        assert await _seqs(client, 1) == [1]
        await _until_stalled(port, 0.1)
        port.serving.cancel()
        expected = 2
        while (received := await client.frame()).opcode != CLOSE:
            assert seq_of(received.payload) == expected
            expected += 1
        assert received.payload == (1012).to_bytes(2, "big") + b"restarting"
        assert expected < 6000
        await client.send(CLOSE, received.payload[:2])
        assert await client.eof()


async def test_shutdown_does_not_wait_for_the_deaf() -> None:
    """A consumer that takes nothing holds the shutdown up for `close_seconds` at most."""
    log = _log(3000, size=5000)
    async with running(Settings(close_seconds=0.2), log=log) as port:
        await port.connect("?cursor=0", receive_buffer_bytes=4096)
        with trio.fail_after(10):
            while not port.consumers.statistics()[0].bytes:
                await trio.testing.wait_all_tasks_blocked()
        port.serving.cancel()
        with trio.fail_after(5):
            while len(port.consumers):
                await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_consumer_that_takes_nothing_is_too_slow() -> None:
    """No byte for `stall_seconds` while data wait: told when it reads again, and closed 1008."""
    log = _log(6000, size=5000)
    async with running(Settings(stall_seconds=0.3, close_seconds=10), log=log) as port:
        client = await port.connect("?cursor=0", receive_buffer_bytes=4096)
        with trio.fail_after(10):
            while not len(port.consumers) or port.consumers.statistics()[0].live:
                await trio.testing.wait_all_tasks_blocked()
            await _until_stalled(port, 0.6)
        expected = 1
        while (received := await client.message())[:2] == b"\0\0":
            assert expected == seq_of(received)
            expected += 1
        assert received.startswith(b"\xa1bop\x20\xa2eerror\x6fConsumerTooSlow")
        assert await client.closing() == (1008, "ConsumerTooSlow")
        assert 1 < expected < 6000


async def _until_stalled(port: Port, seconds: float) -> None:
    """Until the only consumer's position has stood still for this long."""
    position, since = -1, trio.current_time()
    while trio.current_time() < since + seconds:
        if (now_at := port.consumers.statistics()[0].position) != position:
            position, since = now_at, trio.current_time()
        await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_consumer_that_leaves_the_window_is_too_slow() -> None:
    """When what comes next is gone, it gets what was begun, then the error."""
    log = _log(6000, size=5000)
    async with running(log=log) as port:
        client = await port.connect("?cursor=0", receive_buffer_bytes=4096)
        assert await _seqs(client, 1) == [1]
        log.forget_below(5999)
        expected = 2
        while (received := await client.message())[:2] == b"\0\0":
            assert expected == seq_of(received)
            expected += 1
        assert received.startswith(b"\xa1bop\x20\xa2eerror\x6fConsumerTooSlow")
        assert await client.closing() == (1008, "ConsumerTooSlow")


async def test_ping_is_answered_during_a_replay() -> None:
    """The pong comes between frames long before the replay's end."""
    log = _log(4000, size=5000)
    async with running(log=log) as port:
        client = await port.connect("?cursor=0")
        assert await _seqs(client, 1) == [1]
        await client.send(PING, b"now")
        frames = 0
        while (received := await client.frame()).opcode != PONG:
            frames += 1
        assert received.payload == b"now"
        assert frames < 3000
        rest = [seq_of(await client.message()) for _ in range(3999 - frames)]
        assert rest[-1] == 4000


async def test_peers_close_is_answered_with_its_code() -> None:
    """Also in the middle of a replay, at a frame boundary."""
    log = _log(4000, size=5000)
    async with running(log=log) as port:
        client = await port.connect("?cursor=0")
        await client.send(CLOSE, (1001).to_bytes(2, "big") + b"bye")
        while (received := await client.frame()).opcode != CLOSE:
            seq_of(received.payload)
        assert (1001).to_bytes(2, "big") + b"bye" == received.payload
        assert await client.eof()


async def test_too_many_consumers() -> None:
    """429 with Retry-After, per address and in all; a place that was given back is free."""
    settings = Settings(consumers_max=3, consumers_per_address_max=2, trusted_proxies=LOOPBACK)
    async with running(settings) as port:
        first = await port.connect(headers="X-Forwarded-For: 192.0.2.1\r\n")
        await port.connect(headers="X-Forwarded-For: 192.0.2.1\r\n")
        assert await _status(port, "192.0.2.1") == "429"
        await port.connect(headers="X-Forwarded-For: 192.0.2.2\r\n")
        assert await _status(port, "192.0.2.3") == "429"
        await first.stream.aclose()
        with trio.fail_after(10):
            while len(port.consumers) == 3:
                await trio.testing.wait_all_tasks_blocked()
        assert await _status(port, "192.0.2.1") == "101"


async def _status(port: Port, address: str) -> str:
    client = await port.dial()
    head = await client.request(f"GET {PATH} HTTP/1.1", UPGRADE + f"X-Forwarded-For: {address}\r\n")
    assert ("retry-after: " in head.lower()) == (" 429 " in head)
    return head.split()[1]


async def test_statistics() -> None:
    """Who is connected, where they are, and what they were sent."""
    async with running(log=_log(4)) as port:
        client = await port.connect("?cursor=1", headers="User-Agent: tests/1\r\n")
        assert await _seqs(client, 3) == [2, 3, 4]
        await _until_live(port, 1)
        (seen,) = port.consumers.statistics()
        assert (
            seen.address,
            seen.user_agent,
            seen.position,
            seen.events,
            seen.bytes,
            seen.live,
        ) == ("127.0.0.1", "tests/1", 4, 3, 306, True)
        await client.stream.aclose()
        await _until_live(port, 0)
        assert (port.consumers.events_total, port.consumers.bytes_total) == (3, 306)
