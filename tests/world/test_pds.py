"""The fake host and directory speak the wire: cursors, windows, queries, every scripted fault."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
import trio_websocket

from tests.world import frames
from tests.world import websocket as ws
from tests.world.consumer import Refused, open_consumer
from tests.world.exchange import json_response
from tests.world.ipld import cid_text, read_car
from tests.world.keys import SigningKey
from tests.world.network import World
from tests.world.pds import SUBSCRIBE, CutAfter, FakeHost, NeverAnswer, Refuse, Silent, Slow
from tests.world.plc import DidEntry, document_response

NOW = 1_790_000_000_000_000
DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"


def event(seq: int) -> bytes:
    return frames.identity_frame(DID, seq=seq, time="2026-01-01T00:00:00Z")


@asynccontextmanager
async def running(*services: Callable[..., Awaitable[None]]) -> AsyncIterator[None]:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for service in services:
                await nursery.start(service)
            yield
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def host_with(events: int) -> AsyncIterator[FakeHost]:
    host = await FakeHost.open()
    for _ in range(events):
        host.emit(event)
    async with running(host.serve):
        yield host


@pytest.mark.parametrize(("cursor", "expected"), [(0, [1, 2, 3, 4]), (2, [3, 4]), (3, [4]), (None, [4])])
async def test_a_cursor_is_exclusive(cursor: int | None, expected: list[int]) -> None:
    async with host_with(3) as host, open_consumer(host.port, cursor=cursor) as consumer:
        await host.connected()
        host.emit(event)
        await consumer.received(len(expected))
        assert [message.seq for message in consumer.events] == expected
        assert host.cursors == [cursor]


async def test_a_cursor_beyond_the_newest_is_refused_on_the_stream() -> None:
    async with host_with(3) as host, open_consumer(host.port, cursor=4) as consumer:
        await consumer.finished()
        assert consumer.events[0].payload["error"] == "FutureCursor"
        assert consumer.closed == (1008, "FutureCursor")


async def test_a_cursor_before_the_window_is_told_so() -> None:
    async with host_with(9) as host:
        host.log.forget(keep=3)
        for cursor, outdated in ((2, True), (5, True), (6, False), (0, False)):
            async with open_consumer(host.port, cursor=cursor) as consumer:
                last = await consumer.find(lambda message: message.payload.get("seq") == 9)
                assert last.seq == 9
                assert (consumer.events[0].kind == "#info") is outdated
                assert [message.seq for message in consumer.events[outdated:]] == [7, 8, 9]


async def test_a_host_that_lost_everything_starts_again() -> None:
    async with host_with(5) as host:
        host.renumber()
        assert host.emit(event) == 1
        async with open_consumer(host.port, cursor=0) as consumer:
            await consumer.received(1)
            assert consumer.last_seq == 1


async def test_a_foreign_client_reads_the_stream() -> None:
    async with host_with(200) as host:
        url = f"ws://localhost:{host.port}{SUBSCRIBE}?cursor=0"
        async with trio_websocket.open_websocket_url(url) as socket:
            messages = [await socket.get_message() for _ in range(200)]
            await socket.ping(b"there?")
        assert messages == [event(seq) for seq in range(1, 201)]
        assert host.pings == [b"there?"]
        await host.disconnected()
        assert [code for code, _ in host.closes] == [1000]


async def test_a_connection_is_cut_where_the_script_says_and_resumes() -> None:
    async with host_with(10) as host:
        host.faults.extend([CutAfter(3), CutAfter(4, code=1012)])
        seen: list[int] = []
        for _ in range(3):
            async with open_consumer(host.port, cursor=seen[-1] if seen else 0) as consumer:
                if len(seen) == 7:
                    await consumer.received(3)
                else:
                    await consumer.finished()
                seen += [message.seq for message in consumer.events]
        assert seen == list(range(1, 11))
        assert host.cursors == [0, 3, 7]


async def test_refusals_and_silence() -> None:
    async with host_with(1) as host:
        host.faults.extend([Refuse(json_response(503, {"error": "Busy"})), NeverAnswer(), Silent()])
        with pytest.raises(Refused) as refused:
            async with open_consumer(host.port):
                pass
        assert refused.value.status == 503
        with trio.move_on_after(0.05) as unanswered:
            async with open_consumer(host.port):
                pass
        assert unanswered.cancelled_caught
        async with open_consumer(host.port, cursor=0) as consumer:
            await consumer.ping(b"x")
            await host.changed.wait_until(lambda: host.pings == [b"x"])
            assert (consumer.count, consumer.pongs) == (0, [])
        async with open_consumer(host.port, cursor=0) as consumer:
            await consumer.ping(b"y")
            await consumer.changed.wait_until(lambda: consumer.pongs == [b"y"])


async def test_raw_bytes_of_every_kind_stand_at_their_place() -> None:
    async with host_with(1) as host, open_consumer(host.port, cursor=0) as consumer:
        host.emit_wire(ws.frame(ws.TEXT, b"hello"))
        host.emit_wire(ws.frame(ws.PING, b"ping"), once=True)
        whole = event(3)
        assert host.emit_wire(ws.fragments(whole, [5, 0, 20])) == 3
        host.emit_wire(ws.close(1011, "oops"), ends="close", once=True)
        host.emit(event)
        await consumer.finished()
        assert consumer.texts == [b"hello"]
        assert consumer.pings == [b"ping"]
        assert consumer.messages == [event(1), whole]
        assert consumer.closed == (1011, "oops")
        async with open_consumer(host.port, cursor=1) as again:
            await again.received(3)
            assert (again.texts, again.messages) == ([b"hello"], [whole, event(4)])
            assert (again.pings, again.closed) == ([], None)


async def test_a_slow_host_sends_all_in_the_end() -> None:
    async with host_with(3) as host:
        host.fault = Slow(piece_bytes=7, pause_seconds=0)
        async with open_consumer(host.port, cursor=0) as consumer:
            await consumer.received(3)
            assert consumer.messages == [event(1), event(2), event(3)]


async def test_a_host_goes_down_and_comes_back_on_its_port() -> None:
    host = await FakeHost.open()
    port = host.port
    for seen in (1, 2):
        host.emit(event)
        async with running(host.serve), open_consumer(port, cursor=0) as consumer:
            await consumer.received(seen)
        with pytest.raises(OSError, match="refused"):
            async with open_consumer(port):
                pass


async def test_a_did_web_document_stands_at_its_host() -> None:
    async with host_with(0) as host, httpx.AsyncClient() as client:
        did = f"did:web:localhost%3A{host.port}"
        key = SigningKey.generate(random.Random(1), "k256")
        host.well_known["/.well-known/did.json"] = document_response(DidEntry(did, key, host.endpoint))
        document = (await client.get(host.endpoint + "/.well-known/did.json")).json()
        assert (document["id"], document["verificationMethod"][0]["publicKeyMultibase"]) == (did, key.multikey)


async def test_queries_show_the_accounts() -> None:
    world = await World.open(seed=1, hosts=1, now_microseconds=NOW)
    account = world.create_account(world.hosts[0])
    url = world.hosts[0].endpoint + "/xrpc/com.atproto."
    async with running(world.serve), httpx.AsyncClient() as client:
        head = account.repo.head
        assert head is not None
        described = await client.get(url + "server.describeServer")
        assert described.json()["availableUserDomains"]
        status = (await client.get(url + "sync.getRepoStatus", params={"did": account.did})).json()
        assert status == {"did": account.did, "active": True, "rev": head.rev}
        latest = (await client.get(url + "sync.getLatestCommit", params={"did": account.did})).json()
        assert latest == {"cid": cid_text(head.commit), "rev": head.rev}
        export = await client.get(url + "sync.getRepo", params={"did": account.did})
        assert read_car(export.content)[0] == [head.commit]
        world.deactivate(account)
        status = (await client.get(url + "sync.getRepoStatus", params={"did": account.did})).json()
        assert status == {"did": account.did, "active": False, "status": "deactivated"}
        refused = await client.get(url + "sync.getRepo", params={"did": account.did})
        assert (refused.status_code, refused.json()["error"]) == (400, "RepoDeactivated")
        listed = (await client.get(url + "sync.listRepos")).json()["repos"]
        assert [(row["did"], row["status"]) for row in listed] == [(account.did, "deactivated")]
        world.hosts[0].answers["com.atproto.sync.listRepos"] = json_response(500, {})
        assert (await client.get(url + "sync.listRepos")).status_code == 500


async def test_the_directory_gives_documents_and_fails_as_told() -> None:
    world = await World.open(seed=1, hosts=2, now_microseconds=NOW)
    directory = world.directory
    account = world.create_account(world.hosts[0])
    url = f"{directory.url}/{account.did}"
    async with running(world.serve), httpx.AsyncClient() as client:
        document = (await client.get(url)).json()
        method = document["verificationMethod"][0]
        assert (method["type"], "did:key:" + method["publicKeyMultibase"]) == ("Multikey", account.repo.key.did_key)
        assert document["service"][0]["serviceEndpoint"] == world.hosts[0].endpoint
        assert document["alsoKnownAs"] == ["at://" + account.handle]

        fresh = SigningKey.generate(world.rng, "p256")
        directory.change(account.did, key=fresh, form="legacy", endpoint=world.hosts[1].endpoint)
        document = (await client.get(url)).json()
        assert document["verificationMethod"][0]["type"] == "EcdsaSecp256r1VerificationKey2019"
        assert document["service"][0]["serviceEndpoint"] == world.hosts[1].endpoint
        assert directory.keys(account.did) == [account.repo.key.did_key, fresh.did_key]

        directory.tombstone(account.did)
        assert (await client.get(url)).status_code == 410
        directory.put(DidEntry(account.did, fresh, None))
        assert (await client.get(url)).json()["service"] == []
        assert directory.requests[account.did] == 4
        assert (await client.get(f"{directory.url}/{DID}")).status_code == 404
        directory.failure = json_response(503, {})
        assert (await client.get(url)).status_code == 503
        directory.latency_seconds = float("inf")
        with trio.move_on_after(0.05) as unanswered:
            await client.get(url)
        assert unanswered.cancelled_caught
