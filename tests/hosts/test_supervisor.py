"""Hosts that come, go and misbehave, followed over real sockets with short times."""

import logging
from dataclasses import replace

import pytest
import trio

from relay.atproto import frames
from relay.eventlog.errors import StoreError
from relay.eventlog.records import HostRecord, HostStatus
from relay.hosts.ended import Cause
from relay.hosts.supervisor import CrawlRefused, HostStatistics
from relay.net.hostname import parse
from tests.hosts.fake_host import (
    FakeHost,
    ListSink,
    MemoryHosts,
    answer,
    identity,
    open_host,
    send,
    send_and_leave,
    until,
    upgrade_and_say_nothing,
)
from tests.hosts.running import SETTINGS, World, running
from tests.hosts.wire import DEADLINE_SECONDS, HostEnd, UpgradeRequest
from tests.world import websocket as ws


def statistics(world: World, name: str) -> HostStatistics:
    found = world.supervisor.host_statistics(name)
    assert found is not None
    return found


async def refusal(world: World, text: str, *, admin: bool = False) -> tuple[int, str]:
    with pytest.raises(CrawlRefused) as caught:
        await world.supervisor.request_crawl(text, admin=admin)
    return caught.value.status, caught.value.error


async def test_reconnects_with_the_cursor_and_misses_nothing() -> None:
    """Cut off again and again: every event once, each time from where it was."""
    async with running() as world:
        host = await world.host()
        host.events = list(range(1, 11))
        host.behaviours.extend(map(host.send_log_up_to, (3, 4, 9)))
        host.behaviour = host.send_log
        await world.supervisor.request_crawl(host.name, admin=False)
        await until(lambda: len(world.sink.envelopes) == 10)
        assert world.sink.seqs == list(range(1, 11))
        assert host.cursors == [0, 3, 4, 9]


async def test_an_unfinished_event_is_asked_for_again() -> None:
    """The cursor is that of what is finished, not of what was received."""
    known = MemoryHosts()
    async with running(known=known) as world:
        host = await world.host()
        known.records[host.name] = HostRecord(last=9, unfinished=(5, 8))
        host.events = list(range(1, 11))
        host.behaviour = host.send_log
        await world.supervisor.request_crawl(host.name, admin=False)
        await until(lambda: len(world.sink.envelopes) == 3)
        assert host.cursors == [4]
        assert world.sink.seqs == [5, 8, 10]


async def test_never_gives_up() -> None:
    """Refused, silent, gone, in turn and many times: the first good connection is used."""
    settings = replace(SETTINGS, dial_timeout_seconds=0.1)
    async with running(settings=settings) as world:
        host = await world.host()
        bad = [answer(b"HTTP/1.1 500 Oops\r\n\r\n"), answer(b""), answer(b"x" * 100_000), send_and_leave()]
        host.behaviours.extend(bad * 5)
        host.events = [1]
        host.behaviour = host.send_log
        await world.supervisor.request_crawl(host.name, admin=False)
        await until(lambda: world.sink.seqs == [1])
        assert len(host.requests) == 21
        assert statistics(world, host.name).connected_seconds is not None


async def test_a_host_that_hangs_up_at_once_is_not_dialled_in_a_loop() -> None:
    """With or without events before."""
    settings = replace(SETTINGS, backoff_min_seconds=0.1, backoff_max_seconds=0.1)
    async with running(settings=settings) as world:
        host = await world.host()
        seq = 0

        async def one_event(end: HostEnd, request: UpgradeRequest) -> None:
            nonlocal seq
            seq += 1
            await end.send(request.accept + ws.binary(identity(seq)))

        host.behaviour = one_event
        start = trio.current_time()
        await world.supervisor.request_crawl(host.name, admin=False)
        await until(lambda: len(host.requests) == 4)
        assert trio.current_time() - start >= 0.3


async def test_a_future_cursor_starts_over() -> None:
    """A host that lost its numbering is followed as a new one, after a wait."""
    known = MemoryHosts()
    async with running(known=known) as world:
        host = await world.host()
        known.records[host.name] = HostRecord(last=5000)
        host.behaviours.append(send(ws.binary(frames.error_frame("FutureCursor", "Cursor in the future."))))
        host.events = [1, 2]
        host.behaviour = host.send_log
        await world.supervisor.request_crawl(host.name, admin=False)
        await until(lambda: world.sink.seqs == [1, 2])
        assert host.cursors == [5000, 0]
        assert world.sink.moved[host.name] >= 1  # so that the forgotten cursor is stored


async def test_one_host_does_not_hold_up_another() -> None:
    """A silent one, a refusing one and a good one."""
    async with running() as world:
        silent, refusing, good = [await world.host() for _ in range(3)]
        refusing.behaviour = answer(b"HTTP/1.1 429 Slow Down\r\n\r\n")
        good.events = [1]
        good.behaviour = good.send_log
        for host in (silent, refusing, good):
            await world.supervisor.request_crawl(host.name, admin=False)
        await until(lambda: world.sink.seqs == [1])
        assert world.supervisor.statistics().connected == 1


async def test_stored_hosts_are_followed_from_the_start() -> None:
    """All but the banned ones and those that this relay may not speak to, from their cursors."""
    known = MemoryHosts()
    async with trio.open_nursery() as nursery:
        hosts = [await open_host() for _ in range(4)]
        for host in hosts:
            nursery.start_soon(host.serve)
            host.events = list(range(1, 6))
            host.behaviour = host.send_log
        statuses = (HostStatus.ACTIVE, HostStatus.OFFLINE, HostStatus.BANNED, HostStatus.IDLE)
        for host, status in zip(hosts, statuses, strict=True):
            known.records[host.name] = HostRecord(status=status, last=3)
        known.records["not a host name"] = HostRecord()
        async with running(known=known) as world:
            await until(lambda: len(world.sink.envelopes) == 6)
            assert {envelope.origin.host for envelope in world.sink.envelopes} == {
                hosts[0].name,
                hosts[1].name,
                hosts[3].name,
            }
            assert [host.cursors for host in hosts] == [[3], [3], [], [3]]
            await until(lambda: known.records[hosts[1].name].status is HostStatus.ACTIVE)
            assert known.records[hosts[2].name].status is HostStatus.BANNED
        nursery.cancel_scope.cancel()


async def test_starting_is_bounded_in_rate() -> None:
    """2,800 TLS handshakes at once would stall everything."""
    known = MemoryHosts()
    known.records = {f"localhost:{port}": HostRecord() for port in range(1, 7)}
    async with running(known=known, settings=replace(SETTINGS, start_rate_per_second=20)) as world:
        assert len(world.supervisor.statistics().hosts) <= 2
        await until(lambda: len(world.supervisor.statistics().hosts) == 6)


async def test_a_host_that_fails_for_long_is_offline_until_it_comes_back() -> None:
    """And is still tried."""
    async with running(settings=replace(SETTINGS, offline_after_seconds=0.1)) as world:
        host = await world.host()
        host.behaviour = answer(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
        await world.supervisor.request_crawl(host.name, admin=False)
        await until(lambda: world.hosts.records[host.name].status is HostStatus.OFFLINE)
        attempts = len(host.requests)
        await until(lambda: len(host.requests) > attempts + 1)
        host.behaviour = upgrade_and_say_nothing
        await until(lambda: world.hosts.records[host.name].status is HostStatus.ACTIVE)


async def test_a_crawl_request_wakes_a_waiting_host() -> None:
    """It need not sit out an hour of backoff."""
    settings = replace(SETTINGS, backoff_min_seconds=0.05, backoff_max_seconds=3600, offline_after_seconds=3600)
    async with running(settings=settings) as world:
        host = await world.host()
        host.behaviours.extend([send_and_leave()] * 7)
        host.events = [1]
        host.behaviour = host.send_log
        await world.supervisor.request_crawl(host.name, admin=False)
        for attempt in range(1, 8):
            await until(lambda attempt=attempt: host.ended == attempt)  # type: ignore[misc]
            await until(lambda: statistics(world, host.name).retry_in_seconds is not None)
            await world.supervisor.request_crawl(host.name, admin=False)
        await until(lambda: world.sink.seqs == [1])


async def test_a_connected_host_is_left_alone_by_crawl_requests() -> None:
    """A PDS sends one every 20 minutes."""
    async with running() as world:
        host = await world.host()
        host.behaviour = upgrade_and_say_nothing
        for name in (host.name, host.name.upper(), f"http://{host.name}/"):
            await world.supervisor.request_crawl(name, admin=False)
            await until(lambda: world.supervisor.statistics().connected == 1)
        assert len(host.requests) == 1
        assert world.hosts.names() == [host.name]


@pytest.mark.parametrize(
    "text", ["", "no host", "https://user@pds.example.com", "pds.example.com:99999999", "x" * 5000]
)
async def test_a_name_that_is_none_is_refused(text: str) -> None:
    """As a bad request."""
    async with running() as world:
        assert await refusal(world, text) == (400, "InvalidRequest")


@pytest.mark.parametrize("text", ["localhost:2583", "127.0.0.1", "http://pds.example.com", "[::1]"])
async def test_private_hosts_are_refused_unless_allowed(text: str) -> None:
    """Before anything is dialled, for operators too."""
    async with running(allow_private=False) as world:
        assert await refusal(world, text, admin=True) == (400, "InvalidRequest")


@pytest.mark.parametrize(
    "description",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<ok>",
        b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n" + b" " * 70_000,
        b"nonsense\r\n\r\n",
    ],
)
async def test_what_is_no_host_of_accounts_is_refused(description: bytes) -> None:
    """And neither stored nor dialled again."""
    async with running() as world:
        host = await world.host()
        host.describe = description
        assert await refusal(world, host.name) == (400, "HostNotFound")
        assert await refusal(world, "localhost:1") == (400, "HostNotFound")
        assert world.hosts.names() == []
        assert host.requests == []


async def test_a_banned_host_is_refused() -> None:
    """By its lexicon's name for that."""
    known = MemoryHosts()
    known.records["localhost:1"] = HostRecord(status=HostStatus.BANNED)
    async with running(known=known) as world:
        assert await refusal(world, "localhost:1", admin=True) == (400, "HostBanned")


async def test_crawl_requests_are_bounded() -> None:
    """Anybody may send them: only so many hosts are asked at a time; an operator waits instead."""
    async with running(settings=replace(SETTINGS, probes_max=1)) as world:
        silent, good = await world.host(), await world.host()
        silent.describe = None
        good.behaviour = upgrade_and_say_nothing
        async with trio.open_nursery() as nursery:

            async def asked() -> None:
                assert await refusal(world, silent.name) == (400, "HostNotFound")

            nursery.start_soon(asked)
            await trio.testing.wait_all_tasks_blocked()
            assert await refusal(world, good.name) == (429, "RateLimitExceeded")
            await world.supervisor.request_crawl(good.name, admin=True)
        await until(lambda: world.supervisor.statistics().connected == 1)


async def test_a_failure_of_ours_concerns_one_host_only(caplog: pytest.LogCaptureFixture) -> None:
    """A bug met by one host's event is logged with its cause, and the host is followed on.

    The event stays unfinished: it is not met at every reconnection, but a later process asks for it again.
    """
    sink = ListSink(fails_with=RuntimeError("a bug"))
    async with running(sink=sink) as world:
        host = await world.host()
        host.events = [1]
        host.behaviour = host.send_log
        with caplog.at_level(logging.ERROR):
            await world.supervisor.request_crawl(host.name, admin=False)
            await until(lambda: len(host.requests) == 2)
        end = statistics(world, host.name).last_end
        assert end is not None
        assert end.cause is Cause.INTERNAL_ERROR
        assert "a bug" in caplog.text
        assert world.hosts.progress(host.name).unfinished == [1]


async def test_a_failure_of_our_store_ends_the_process() -> None:
    """It is not one host's business."""

    async def follow() -> None:
        async with running(sink=ListSink(fails_with=StoreError("corrupt"))) as world:
            host = await world.host()
            host.events = [1]
            host.behaviour = host.send_log
            await world.supervisor.request_crawl(host.name, admin=False)
            await trio.sleep_forever()

    with trio.fail_after(DEADLINE_SECONDS), pytest.raises(ExceptionGroup) as caught:
        await follow()
    assert caught.group_contains(StoreError)


async def test_stopping_tells_the_hosts() -> None:
    """Each gets a close frame: going away."""
    codes = []

    async def behave(end: HostEnd, request: UpgradeRequest) -> None:
        await end.send(request.accept)
        while (frame := await end.frame()) is not None:
            codes.append((frame.opcode, int.from_bytes(frame.payload[:2], "big")))

    async with running() as world:
        hosts: list[FakeHost] = [await world.host() for _ in range(3)]
        for host in hosts:
            host.behaviour = behave
            await world.supervisor.request_crawl(host.name, admin=False)
        await until(lambda: world.supervisor.statistics().connected == 3)
        world.run.cancel()
        await until(lambda: len(codes) == 3)
        assert codes == [(ws.CLOSE, 1001)] * 3


async def test_statistics_add_up() -> None:
    """Per host and in sum."""
    async with running() as world:
        hosts = [await world.host() for _ in range(2)]
        for host, count in zip(hosts, (2, 3), strict=True):
            host.events = list(range(1, count + 1))
            host.behaviour = host.send_log
            await world.supervisor.request_crawl(host.name, admin=False)
        await until(lambda: len(world.sink.envelopes) == 5)
        seen = world.supervisor.statistics()
        assert {host.name: host.events for host in seen.hosts} == {hosts[0].name: 2, hosts[1].name: 3}
        assert (seen.connected, seen.messages, seen.events) == (2, 5, 5)
        assert seen.bytes == sum(host.bytes for host in seen.hosts) == 5 * len(identity(1))
        assert world.supervisor.host_statistics(parse("localhost:1", allow_private=True).name) is None
