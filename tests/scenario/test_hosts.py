"""Hosts that go, come back, count anew or speak oddly: nothing is lost and nothing comes twice."""

import random
from pathlib import Path

import pytest
import trio

from relay.eventlog.verdict import DropReason
from tests.scenario.network import ADMIN, SECONDS, Network, open_network, until
from tests.world import frames, websocket
from tests.world.consumer import open_consumer
from tests.world.event_log import EventLog
from tests.world.exchange import Response, error_response, json_response
from tests.world.pds import CutAfter, FakeHost, Fault, NeverAnswer, Refuse, Slow

R = DropReason


class InclusiveLog(EventLog):
    """Begins with the event that the cursor names, as the event-stream specification has it (protocol.md D1)."""

    def place_after(self, cursor: int | None) -> int:
        return super().place_after(cursor and cursor - 1)


class HeedlessHost(FakeHost):
    """Sends what comes from now on, whatever the cursor."""

    async def _send_log(
        self, stream: trio.SocketStream, cursor: int | None, turn: trio.Lock, fault: Fault | None
    ) -> None:
        await super()._send_log(stream, None, turn, fault)


async def test_connections_cut_anywhere_leave_no_gap_and_no_double(network: Network) -> None:
    world = network.world
    home = world.hosts[0]
    account = world.create_account(home)
    async with open_consumer(network.firehose_port, cursor=0) as consumer:
        await network.settled(consumer)
        home.faults.extend([CutAfter(1), CutAfter(3, code=1012), CutAfter(1, code=1000), Refuse(Response(502))])
        home.cut()
        for _ in range(5):
            world.commit(account)
            world.account(account, active=True)
        world.identity(account)
        await network.settled(consumer)
        assert home.cursors == [0, 4, 5, 8, 9, 9]
    assert await network.drops() == {}


async def test_messages_in_pieces_and_with_pings_between(network: Network) -> None:
    world = network.world
    home = world.hosts[0]
    rng = random.Random(3)
    account = world.create_account(home, preload=50)
    made = [account.repo.commit([]) for _ in range(20)]
    for number, commit in enumerate(made):
        seq = home.last_seq + 1
        message = frames.commit_frame(commit, seq=seq, time=world.clock.datetime())
        sizes = [rng.randrange(len(message) // 3) for _ in range(rng.randrange(4))]
        home.emit_wire(websocket.fragments(message, sizes))
        home.emit_wire(websocket.frame(websocket.PING, b"%d" % number), once=True)
    async with open_consumer(network.firehose_port, cursor=0) as consumer:
        with trio.fail_after(SECONDS):
            await consumer.received(3 + len(made))
            await home.changed.wait_until(lambda: len(home.pongs) == len(made))
        assert [event.payload["rev"] for event in consumer.events[3:]] == [commit.rev for commit in made]
        assert home.pongs == [b"%d" % number for number in range(len(made))]
    assert home.cursors == [0]


async def test_a_slow_host_is_read_at_its_pace(network: Network) -> None:
    world = network.world
    slow, other = world.hosts
    slow.fault = Slow(piece_bytes=400, pause_seconds=0.001)
    slow.cut()
    async with open_consumer(network.firehose_port, cursor=0) as consumer:
        accounts = [world.create_account(host) for host in (slow, other)]
        for _ in range(10):
            for account in accounts:
                world.commit(account)
        await network.settled(consumer)


async def test_a_host_with_inclusive_cursors(network: Network) -> None:
    world = network.world
    home = world.hosts[0]
    home.log = InclusiveLog()
    account = world.create_account(home)
    async with open_consumer(network.firehose_port, cursor=0) as consumer:
        for _ in range(3):
            await network.settled(consumer)
            before = len(home.cursors)
            home.cut()
            with trio.fail_after(SECONDS):
                await home.asked(before + 1)
            world.account(account, active=True)
            world.commit(account)
        await network.settled(consumer)
    assert home.cursors == [0, 4, 6, 8]
    assert await network.drops() == {}


async def test_a_host_that_lost_its_numbering_and_says_future_cursor(network: Network) -> None:
    """It is asked again from the beginning, once, and what it then has comes out."""
    world = network.world
    home = world.hosts[0]
    account = world.create_account(home)
    async with open_consumer(network.firehose_port, cursor=0) as consumer:
        for _ in range(6):
            world.commit(account)
        await network.settled(consumer)
        home.renumber()
        home.cut()
        with trio.fail_after(SECONDS):
            await home.asked(3)
        assert home.cursors == [0, 10, 0]
        for _ in range(3):
            world.commit(account)
        await network.settled(consumer)
        home.cut()
        with trio.fail_after(SECONDS):
            await home.asked(4)
        assert home.cursors[3] == 3
    status = (await network.query("getHostStatus", hostname=home.name)).json()
    assert (status["status"], status["seq"]) == ("active", 3)


async def test_a_host_that_counts_from_one_again_without_a_word(tmp_path: Path) -> None:
    async with open_network(tmp_path) as network:
        world = network.world
        home = await HeedlessHost.open()
        world.hosts.append(home)
        await network.serve(home)
        await network.crawl(home)
        account = world.create_account(home)
        async with open_consumer(network.firehose_port, cursor=0) as consumer:
            for _ in range(6):
                world.commit(account)
            await network.settled(consumer)
            home.renumber()
            home.cut()
            with trio.fail_after(SECONDS):
                await home.asked(2)
            assert home.cursors[1] == 10
            for _ in range(3):
                world.commit(account)
            await network.settled(consumer)
            assert home.last_seq == 3
        assert (await network.query("getHostStatus", hostname=home.name)).json()["seq"] == 3
        assert await network.drops() == {}


async def test_numbers_that_go_back_on_one_connection_are_dropped(network: Network) -> None:
    """As in the peers' scenario `seq_ordering`: equal, then lower, then the same commit under a good number."""
    world = network.world
    home = world.hosts[0]
    account = world.create_account(home, announce=False)
    time = world.clock.datetime()
    first, second = account.repo.commit(), account.repo.commit()
    async with open_consumer(network.firehose_port, cursor=0) as consumer:
        home.skip(999)
        for seq, commit in ((1000, first), (1000, second), (5, second), (2000, second)):
            home.emit_wire(websocket.binary(frames.commit_frame(commit, seq=seq, time=time)))
        with trio.fail_after(SECONDS):
            await consumer.received(2)
        assert [event.payload["rev"] for event in consumer.events] == [first.rev, second.rev]
    assert await network.drops() == {R.SEQ_NOT_INCREASING: 2}
    assert (await network.query("getHostStatus", hostname=home.name)).json()["seq"] == 2000


async def test_a_host_that_is_down_for_a_while_and_a_relay_restarted_meanwhile(network: Network) -> None:
    world = network.world
    away = world.hosts[0]
    accounts = [world.create_account(host) for host in world.hosts]
    async with open_consumer(network.firehose_port, cursor=0) as consumer:
        await network.settled(consumer)
        await network.take_down(away)
        for account in accounts:
            world.commit(account)
        with trio.fail_after(SECONDS):
            await consumer.received(9)
        await network.serve(away)
        await network.settled(consumer)
        await network.take_down(away)
        world.commit(accounts[0])
        await network.stop()
    await network.start()
    world.commit(accounts[1])
    await network.serve(away)
    async with open_consumer(network.firehose_port, cursor=0) as consumer:
        await network.settled(consumer)
    assert away.cursors == [0, 4, 5]


async def test_events_that_a_host_no_longer_has_are_passed_over(network: Network) -> None:
    """The host says OutdatedCursor, sends its window, and the stream goes on."""
    world = network.world
    home = world.hosts[0]
    account = world.create_account(home)
    async with open_consumer(network.firehose_port, cursor=0) as consumer:
        await network.settled(consumer)
        home.faults.append(NeverAnswer())
        await network.take_down(home)
        for _ in range(5):
            world.commit(account)
        home.log.forget(keep=2)
        for lost in world.emitted[4:7]:
            world.emitted.remove(lost)
        await network.serve(home)
        home.faults.clear()
        await network.settled(consumer)
    samples = await network.metrics()
    assert samples['relay_events_irregular_total{irregularity="discontinuous"}'] == 1


REFUSALS = [
    ("not a host", 400, "InvalidRequest"),
    ("", 400, "InvalidRequest"),
    ("ftp://localhost:2583", 400, "InvalidRequest"),
    ("localhost:1", 400, "HostNotFound"),
]


@pytest.mark.parametrize("admin", [False, True])
async def test_what_cannot_be_crawled(network: Network, admin: bool) -> None:
    path = "/admin/pds/requestCrawl" if admin else "/xrpc/com.atproto.sync.requestCrawl"
    auth = ADMIN if admin else None
    for text, status, error in REFUSALS:
        answer = await network.post(path, {"hostname": text}, auth=auth)
        assert (answer.status_code, answer.json()["error"]) == (status, error), text
    stranger = await FakeHost.open()
    await network.serve(stranger)
    method = "com.atproto.server.describeServer"
    for broken in (error_response(501, "MethodNotImplemented"), Response(200, b"<html>"), json_response(200, [])):
        stranger.answers[method] = broken
        answer = await network.post(path, {"hostname": stranger.name}, auth=auth)
        assert (answer.status_code, answer.json()["error"]) == (400, "HostNotFound")
    assert stranger.cursors == []
    hosts = (await network.query("listHosts")).json()["hosts"]
    assert sorted(host["hostname"] for host in hosts) == sorted(host.name for host in network.world.hosts)


async def test_a_host_may_announce_itself_in_any_spelling_on_either_port(network: Network) -> None:
    world = network.world
    path = "/xrpc/com.atproto.sync.requestCrawl"
    stranger = await FakeHost.open()
    await network.serve(stranger)
    for port in (network.http_port, network.firehose_port):
        for text in (stranger.name, stranger.endpoint, f"{stranger.endpoint.upper()}/"):
            answer = await network.post(path, {"hostname": text}, port=port)
            assert (answer.status_code, answer.content) == (200, b"")
    with trio.fail_after(SECONDS):
        await stranger.connected()
    assert stranger.cursors == [0]
    account = world.create_account(stranger)
    async with open_consumer(network.firehose_port, cursor=0) as consumer:
        await network.settled(consumer)
    assert (await network.query("getHostStatus", hostname=stranger.name)).json()["accountCount"] == 1
    assert (await network.query("getRepoStatus", did=account.did)).json()["active"] is True


async def test_another_relay_is_not_followed(network: Network) -> None:
    relay = await FakeHost.open(server="atproto-relay/9.9 (somebody else's)")
    await network.serve(relay)
    await network.post("/xrpc/com.atproto.sync.requestCrawl", {"hostname": relay.name})
    network.world.hosts.append(relay)
    network.world.create_account(relay)
    with trio.fail_after(SECONDS):
        await relay.asked(2)

    async def told() -> bool:
        reports = (await network.get("/admin/hosts", auth=ADMIN)).json()
        return any("atproto-relay" in (report["lastError"] or "") for report in reports)

    with trio.fail_after(SECONDS):
        await until(told)
    assert (await network.metrics())["relay_head_seq"] == 0


async def test_a_request_to_crawl_wakes_a_host_that_waits_out_its_backoff(tmp_path: Path) -> None:
    async with open_network(tmp_path, reconnect_max_seconds="3600") as network:
        home = network.world.hosts[0]
        home.fault = Refuse(Response(503))
        home.cut()
        with trio.fail_after(SECONDS):
            await home.asked(6)
        home.fault = None
        await network.post("/xrpc/com.atproto.sync.requestCrawl", {"hostname": home.name})
        with trio.fail_after(SECONDS):
            await home.connected()
