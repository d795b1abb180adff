"""Nothing forged comes out: every kind between two good events of the same account, over real sockets, strict mode."""

import time
from collections import Counter
from copy import copy
from pathlib import Path

import httpx
import trio

from relay.eventlog.verdict import DropReason
from tests.relay_process import RELAY, RelayProcess
from tests.scenario.forgeries import FOREIGN, FORGERIES, Forgery, Stage
from tests.world import frames, websocket
from tests.world.consumer import open_consumer
from tests.world.exchange import json_response
from tests.world.ipld import encode
from tests.world.keys import SigningKey
from tests.world.network import Account, World
from tests.world.oracle import differences
from tests.world.repo import MadeCommit, Repo, Write

_SECONDS = 30


def fork(repo: Repo) -> Repo:
    """A repository that goes its own way from here."""
    twin = copy(repo)
    twin.records = dict(repo.records)
    twin.clock = copy(repo.clock)
    return twin


def stage(world: World, account: Account, seq: int) -> Stage:
    """The account's next commit (a create, an update, a delete), as a host would number it `seq`.

    Where the clock's record key makes a tree in which some kind can't be forged, the next one is taken.
    """
    time_text = world.clock.datetime()
    assert account.repo.head is not None
    previous = frames.commit_payload(account.repo.head, seq=0, time=time_text)
    while True:
        made = next_commit(world, account)
        staged = Stage(
            made=made,
            payload=frames.commit_payload(made, seq=seq, time=time_text),
            repo=fork(account.repo),
            previous=previous,
            other_did=next(did for did in world.accounts if did != account.did),
            stranger=SigningKey.generate(world.rng),
        )
        if staged.has_company:
            return staged


def next_commit(world: World, account: Account) -> MadeCommit:
    """Made by a twin of the repository."""
    posts = sorted(path for path in account.repo.records if path.startswith("app.bsky.feed.post/"))
    record = encode({"$type": "app.bsky.feed.post", "text": "forged"})
    writes = [
        Write("create", f"app.bsky.feed.post/{world.clock.tid()}", record),
        Write("update", posts[-2], record),
        Write("delete", posts[-3]),
    ]
    return fork(account.repo).commit(writes)


def emit_between(world: World, account: Account, forgery: Forgery, *, foreign: bool) -> None:
    """A good commit, the forged event, a good commit."""
    world.commit(account)
    host = world.hosts[1] if foreign else account.host
    host.emit_wire(forgery.wire(stage(world, account, host.last_seq + 1)))
    world.commit(account)


async def test_no_forged_event_comes_out_and_no_good_one_is_lost(nursery: trio.Nursery, tmp_path: Path) -> None:
    assert len(FORGERIES) + len(FOREIGN) >= 50
    names = [forgery.name for forgery in (*FORGERIES, *FOREIGN)]
    assert len(set(names)) == len(names)
    world = await World.open(seed=11, hosts=2, now_microseconds=time.time_ns() // 1000)
    await nursery.start(world.serve)
    flags = ("--reconnect-min-seconds", "0.05", "--identity-park-seconds", "0.5")
    async with httpx.AsyncClient() as http:
        relay = RelayProcess(command=(*RELAY, *flags), directory=tmp_path / "relay", plc=world.directory.url, http=http)
        await relay.start()
        try:
            for host in world.hosts:
                await relay.request_crawl(host.name)
            await scenario(world, relay)
        finally:
            await relay.kill()


async def scenario(world: World, relay: RelayProcess) -> None:
    async with open_consumer(relay.firehose_port, cursor=0) as consumer:
        accounts = [world.create_account(world.hosts[0], preload=60) for _ in (*FORGERIES, *FOREIGN)]
        with trio.fail_after(_SECONDS):
            await consumer.received(len(world.emitted))
        connections = [host.cursors[:] for host in world.hosts]
        for account, forgery in zip(accounts, FORGERIES, strict=False):
            emit_between(world, account, forgery, foreign=False)
        for account, forgery in zip(accounts[len(FORGERIES) :], FOREIGN, strict=True):
            emit_between(world, account, forgery, foreign=True)
        with trio.move_on_after(_SECONDS):
            await consumer.received(len(world.emitted))
        assert not differences(world.emitted, consumer.events)

        # Events of an identity that there is not, or no longer, wait for it in vain and hold nobody up.
        for answer in (404, 410):
            nobody = world.create_account(world.hosts[0], preload=60, announce=False)
            world.directory.answers[nobody.did] = json_response(answer, {"message": "not here"})
            host = nobody.host
            host.emit_wire(websocket.binary(stage(world, nobody, host.last_seq + 1).message))
        world.commit(accounts[0])
        with trio.fail_after(_SECONDS):
            await consumer.received(len(world.emitted))
        expected = Counter(forgery.reason for forgery in (*FORGERIES, *FOREIGN))
        expected[DropReason.IDENTITY_UNRESOLVED] = 2
        with trio.move_on_after(_SECONDS):  # what waits for an identity is dropped last
            while sum((counted := await relay.drops()).values()) < expected.total():
                await trio.sleep(0.1)
        assert counted == dict(expected), {
            reason: (counted.get(reason, 0), expected[DropReason(reason)])
            for reason in counted.keys() | expected.keys()
            if counted.get(reason, 0) != expected[DropReason(reason)]
        }
        assert [host.cursors for host in world.hosts] == connections, "a host was disconnected"

        # What could not be decoded is met again after a reconnection, and holds nothing up.
        for host in world.hosts:
            host.emit_wire(websocket.binary(b"\xff"))
            host.cut()
        world.commit(accounts[0])
        with trio.fail_after(_SECONDS):
            await consumer.received(len(world.emitted))
            for host in world.hosts:
                await host.asked(2)
        assert not differences(world.emitted, consumer.events)
        assert [len(host.cursors) for host in world.hosts] == [2, 2]
