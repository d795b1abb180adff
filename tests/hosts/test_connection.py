"""One connection to a host over a real socket: dial, upgrade, messages, and every way to end."""

import ssl
from dataclasses import replace

import pytest
import trio

from relay.atproto import frames
from relay.eventlog.verdict import DropReason
from relay.hosts.ended import Cause
from relay.hosts.settings import HostSettings
from relay.hosts.supervisor import HostStatistics
from relay.net.hostname import parse
from tests.hosts.fake_host import (
    Behaviour,
    FakeHost,
    ListSink,
    answer,
    identity,
    respond_to_pings,
    say_nothing,
    send,
    send_and_leave,
    until,
    upgrade_and_say_nothing,
)
from tests.hosts.running import SETTINGS, World, running
from tests.hosts.wire import HostEnd, UpgradeRequest
from tests.world import websocket as ws

Tls = tuple[ssl.SSLContext, ssl.SSLContext]

REFUSED = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\n"
REFUSALS = {
    "404 with a body": REFUSED % b"404 Not Found" + b'Content-Length: 13\r\n\r\n{"error":"X"}',
    "200": REFUSED % b"200 OK" + b"Content-Length: 0\r\n\r\n",
    "redirect": REFUSED % b"302 Found" + b"Location: /elsewhere\r\nContent-Length: 0\r\n\r\n",
    "early hints": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "body up to the end": REFUSED % b"500 Oops" + b"\r\nsome text",
    "body without an end": REFUSED % b"503 Busy" + b"Transfer-Encoding: chunked\r\n\r\n" + b"5\r\nhello\r\n" * 1000,
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "head without an end": b"HTTP/1.1 101 Switching Protocols\r\n" + b"X: y\r\n" * 20_000,
    "101 without headers": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "101 with a bad key": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
    "101 with a header that is none": b"HTTP/1.1 101 Switching Protocols\r\n\xff\xfe\r\n\r\n",
    "nothing": b"",
    "half a head": b"HTTP/1.1 101 Switching",
}


async def last_end(world: World, host: FakeHost, behaviour: Behaviour) -> HostStatistics:
    """The host's statistics after its first connection, which behaves like this, and before its second."""
    host.behaviours.append(behaviour)
    await world.hosts.add_host(host.name)
    await world.supervisor.request_crawl(host.name, admin=False)
    await until(lambda: statistics(world, host).last_end is not None)
    return statistics(world, host)


def statistics(world: World, host: FakeHost) -> HostStatistics:
    found = world.supervisor.host_statistics(host.name)
    assert found is not None
    return found


def ended_with(world: World, name: str) -> Cause | None:
    found = world.supervisor.host_statistics(name)
    return None if found is None or found.last_end is None else found.last_end.cause


async def end_of(behaviour: Behaviour, settings: HostSettings = SETTINGS) -> tuple[Cause, str]:
    """How a connection to a host that behaves like this ends."""
    async with running(settings=settings) as world:
        host = await world.host()
        end = (await last_end(world, host, behaviour)).last_end
        assert end is not None
        return end.cause, end.detail


async def test_the_request_is_what_a_host_expects() -> None:
    """The method's path, a cursor always, our name, no subprotocol, no extension."""
    async with running() as world:
        host = await world.host()
        host.behaviour = upgrade_and_say_nothing
        await world.supervisor.request_crawl(host.name, admin=False)
        await until(lambda: bool(host.requests))
        request = host.requests[0]
        assert request.target == "/xrpc/com.atproto.sync.subscribeRepos?cursor=0"
        assert request.headers["host"] == f"localhost:{host.port}"
        assert request.headers["user-agent"] == "relay-test"
        offered = {name for name in request.headers if name.startswith("sec-websocket-")}
        assert offered == {"sec-websocket-key", "sec-websocket-version"}


async def test_events_and_drops_go_to_the_sink() -> None:
    """Each kind of message, each with its outcome; the connection stays throughout."""
    broken = frames.message("#identity", {"seq": 3, "did": "nobody", "time": "2025-01-01T00:00:00.000Z"})
    unknown = frames.message("#tombstone", {"seq": 5, "did": "did:plc:x"})
    async with running() as world:
        host = await world.host()
        host.behaviour = send(
            ws.binary(frames.info_frame("OutdatedCursor", "Possibly missing events")),
            ws.binary(identity(2)),
            ws.frame(ws.TEXT, b"hello"),
            ws.binary(b"\xff"),
            ws.binary(broken),
            ws.binary(b"x" * 5_000_001),
            ws.binary(identity(4)),
            ws.binary(unknown),
            ws.binary(identity(4)),
            ws.fragments(identity(6), [1, 10]),
        )
        await world.supervisor.request_crawl(host.name, admin=False)
        await until(lambda: len(world.sink.envelopes) == 3)
        assert world.sink.seqs == [2, 4, 6]
        assert world.sink.counted == {
            DropReason.TEXT_MESSAGE: 1,
            DropReason.UNDECODABLE: 1,
            DropReason.MESSAGE_TOO_BIG: 1,
            DropReason.SEQ_NOT_INCREASING: 1,
        }
        assert [(drop.reason, drop.origin.seq) for drop in world.sink.drops] == [(DropReason.INVALID_EVENT, 3)]
        assert world.sink.moved[host.name] == 1
        seen = statistics(world, host)
        assert (seen.connections, seen.messages, seen.events) == (1, 10, 4)
        assert seen.connected_seconds is not None
        assert seen.last_end is None


@pytest.mark.parametrize("kind", REFUSALS)
async def test_a_refused_upgrade_is_told_at_once(kind: str) -> None:
    """Whatever a host answers in place of the 101, the attempt ends and says so; no deadline is waited for."""
    stay = kind in {"body without an end", "404 with a body"}
    cause, detail = await end_of(answer(REFUSALS[kind], stay=stay))
    assert cause is Cause.UPGRADE_REFUSED
    assert detail
    if kind[0].isdigit() and not kind.startswith("101"):
        assert kind[:3] in detail


async def test_a_silent_upgrade_is_bounded() -> None:
    """A host that accepts the connection and never answers costs the dial's time limit."""
    assert (await end_of(say_nothing, replace(SETTINGS, dial_timeout_seconds=0.1)))[0] is Cause.DIAL_TIMED_OUT


async def test_an_upgrade_in_drops_is_bounded() -> None:
    """A byte now and then does not move the deadline."""

    async def drip(end: HostEnd, request: UpgradeRequest) -> None:
        for byte in request.accept:
            await end.send(bytes([byte]))
            with trio.move_on_after(0.02):
                await end.frame()

    assert (await end_of(drip, replace(SETTINGS, dial_timeout_seconds=0.2)))[0] is Cause.DIAL_TIMED_OUT


async def test_nobody_there() -> None:
    """A refused connection is a value, not an exception."""
    async with running() as world:
        await world.hosts.add_host("localhost:1")
        world.supervisor.add(parse("localhost:1", allow_private=True))
        await until(lambda: ended_with(world, "localhost:1") is not None)
        assert ended_with(world, "localhost:1") is Cause.DIAL_FAILED


async def test_a_relay_is_refused() -> None:
    """Two relays that follow each other are a loop; what such a host sends is not taken."""

    async def behave(end: HostEnd, request: UpgradeRequest) -> None:
        accept = request.accept.replace(b"\r\n", b"\r\nServer: indigo-relay (ATProto-Relay)\r\n", 1)
        await end.send(accept + ws.binary(identity(1)))
        await respond_to_pings(end)

    async with running() as world:
        host = await world.host()
        end = (await last_end(world, host, behave)).last_end
        assert end is not None
        assert end.cause is Cause.IS_A_RELAY
        assert world.sink.envelopes == []


async def test_a_host_may_close() -> None:
    """Its code and reason are told."""
    assert await end_of(send(ws.close(1012, "restart"))) == (Cause.HOST_CLOSED, "1012 restart")


async def test_a_host_may_vanish() -> None:
    """The end of the stream without a close frame."""
    assert (await end_of(send_and_leave(ws.binary(identity(1)))))[0] is Cause.CONNECTION_LOST


async def test_a_violation_closes_with_1002() -> None:
    """And is told apart from a lost connection."""
    codes = []

    async def behave(end: HostEnd, request: UpgradeRequest) -> None:
        await end.send(request.accept + b"\xc2\x00")
        while (frame := await end.frame()) is not None:
            codes.append((frame.opcode, int.from_bytes(frame.payload[:2], "big")))

    assert (await end_of(behave))[0] is Cause.WEBSOCKET_VIOLATION
    assert codes == [(ws.CLOSE, 1002)]


async def test_an_error_frame_ends_the_connection() -> None:
    """Nothing that follows it is taken."""
    async with running() as world:
        host = await world.host()
        error = ws.binary(frames.error_frame("ConsumerTooSlow", "bye"))
        seen = await last_end(world, host, send(ws.binary(identity(1)), error, ws.binary(identity(2))))
        assert seen.last_end is not None
        assert (seen.last_end.cause, seen.last_end.detail) == (Cause.ERROR_FRAME, "ConsumerTooSlow: bye")
        assert world.sink.seqs == [1]


async def test_a_host_that_answers_no_ping_is_given_up() -> None:
    """Silence alone is no reason, an unanswered ping is."""
    settings = replace(SETTINGS, ping_interval_seconds=0.05, pong_deadline_seconds=0.05)
    assert (await end_of(upgrade_and_say_nothing, settings))[0] is Cause.NO_PONG


async def test_a_quiet_host_that_answers_pings_stays() -> None:
    """For as long as it likes."""
    pings = 0

    async def behave(end: HostEnd, request: UpgradeRequest) -> None:
        nonlocal pings
        await end.send(request.accept)
        while (frame := await end.frame()) is not None:
            assert frame == ws.Frame(True, ws.PING, b"")
            pings += 1
            await end.send(ws.frame(ws.PONG, b""))

    settings = replace(SETTINGS, ping_interval_seconds=0.02, pong_deadline_seconds=0.5)
    async with running(settings=settings) as world:
        host = await world.host()
        host.behaviour = behave
        await world.supervisor.request_crawl(host.name, admin=False)
        await until(lambda: pings >= 5)
        assert statistics(world, host).connections == 1
        assert statistics(world, host).connected_seconds is not None


async def test_a_host_that_is_not_read_is_not_judged() -> None:
    """While there is no room its pongs can't be seen."""
    sink = ListSink()
    settings = replace(SETTINGS, ping_interval_seconds=0.02, pong_deadline_seconds=0.02)
    async with running(sink=sink, settings=settings) as world:
        host = await world.host()

        async def behave(end: HostEnd, request: UpgradeRequest) -> None:
            await end.send(request.accept + ws.binary(identity(1)))
            while await end.frame() is not None:
                pass

        host.behaviour = behave
        sink.room = False
        await world.supervisor.request_crawl(host.name, admin=False)
        await until(lambda: statistics(world, host).connected_seconds is not None)
        await until(lambda: (statistics(world, host).connected_seconds or 0) > 0.2)
        assert sink.seqs == []
        sink.room = True
        await until(lambda: sink.seqs == [1])
        assert statistics(world, host).connections == 1


async def test_their_pings_are_answered_in_a_flood() -> None:
    """A TypeScript client gives up after 10 s without a pong; ours come between any two batches."""
    pongs = []

    async def behave(end: HostEnd, request: UpgradeRequest) -> None:
        await end.send(request.accept)
        seq = 0
        for ping in range(20):
            await end.send(b"".join(ws.binary(identity(seq + offset)) for offset in range(1, 101)))
            seq += 100
            await end.send(ws.frame(ws.PING, bytes([ping])))
            frame = await end.frame()
            assert frame is not None
            pongs.append((frame.opcode, frame.payload))
        await respond_to_pings(end)

    async with running() as world:
        host = await world.host()
        host.behaviour = behave
        await world.supervisor.request_crawl(host.name, admin=False)
        await until(lambda: len(pongs) == 20)
        assert pongs == [(ws.PONG, bytes([ping])) for ping in range(20)]
        assert world.sink.seqs == list(range(1, 2001))


async def test_over_tls(tls: Tls) -> None:
    """Upgrade and events over TLS with a certificate that the context trusts."""
    async with running(tls=tls[0]) as world:
        host = await world.host(tls=tls[1])
        host.behaviour = send(*(ws.binary(identity(seq)) for seq in range(1, 500)))
        await world.supervisor.request_crawl(host.name, admin=False)
        await until(lambda: len(world.sink.envelopes) == 499)
        assert host.requests[0].headers["host"] == f"localhost:{host.port}"


async def test_an_untrusted_certificate_is_a_failed_dial(tls: Tls) -> None:
    """And the host is never spoken to."""
    async with running() as world:  # its context trusts nobody
        host = await world.host(tls=tls[1])
        await world.hosts.add_host(host.name)
        world.supervisor.add(parse(host.name, allow_private=True))
        await until(lambda: statistics(world, host).last_end is not None)
        end = statistics(world, host).last_end
        assert end is not None
        assert end.cause is Cause.DIAL_FAILED
        assert "certificate" in end.detail.lower()
        assert host.requests == []
