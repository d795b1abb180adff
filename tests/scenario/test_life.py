"""Accounts through their lives: what comes out, what does not, and what is said of them afterwards."""

import trio

from relay.eventlog.verdict import DropReason
from tests.scenario.network import SECONDS, Network
from tests.world import frames
from tests.world.consumer import open_consumer
from tests.world.exchange import Response
from tests.world.ipld import cid_text
from tests.world.network import CONTENT, Account, World
from tests.world.oracle import differences
from tests.world.pds import FakeHost
from tests.world.plc import document_response
from tests.world.verify import StreamVerifier

R = DropReason


def commit_elsewhere(world: World, host: FakeHost, account: Account) -> None:
    """The account's next commit, by a host that has no say."""
    payload = frames.commit_payload(account.repo.commit(), seq=0, time=world.clock.datetime())
    world.emit(host, "#commit", payload, expect="drop")


async def test_whole_lives(network: Network) -> None:
    """Creation, commits, handle, pause, return, takedown, reversal, end: in order, unchanged, and verifiable."""
    world = network.world
    async with open_consumer(network.firehose_port) as consumer:
        accounts = [world.create_account(host, curve=curve) for host in world.hosts for curve in ("k256", "p256")]
        for account in accounts:
            world.commit(account)
        for account in accounts:
            world.change_handle(account, f"renamed-{account.handle}")
            world.commit(account)
            world.deactivate(account)
            world.reactivate(account)
            world.commit(account)
            world.take_down(account)
            world.reactivate(account)
            world.commit(account)
        await network.settled(consumer)
        for account in accounts[:2]:
            world.delete(account)
        with trio.fail_after(SECONDS):
            await consumer.received(len(world.emitted))
        verifier = StreamVerifier(keys=world.directory.keys)
        for message in consumer.messages:
            verifier.take(message)
        assert verifier.discontinuities == 0
        assert differences(world.emitted, consumer.events) == []
    assert await network.drops() == {}


async def test_deletion_hides_what_was_before_in_replays_but_not_the_news_of_it(network: Network) -> None:
    world = network.world
    async with open_consumer(network.firehose_port) as consumer:
        doomed, staying = [world.create_account(host) for host in world.hosts]
        for account in (doomed, staying, doomed):
            world.commit(account)
        await network.settled(consumer)
        seen_live = [event.kind for event in consumer.events if event.did == doomed.did]
        assert seen_live == ["#identity", "#account", "#commit", "#sync", "#commit", "#commit"]
        world.delete(doomed)
        world.commit(staying)
        with trio.fail_after(SECONDS):
            await consumer.received(len(world.emitted))
        kept = [event for event in consumer.events if event.did == staying.did or event.kind not in CONTENT]
    replayed = await network.replay()
    assert replayed.events == kept
    told = [event.payload for event in replayed.events if event.did == doomed.did]
    assert [(event.get("active"), event.get("status")) for event in told] == [
        (None, None),
        (True, None),
        (False, "deleted"),
    ]


async def test_commits_of_inactive_accounts_stay_in(network: Network) -> None:
    world = network.world
    home = world.hosts[0]
    async with open_consumer(network.firehose_port) as consumer:
        paused, suspect = [world.create_account(home) for _ in range(2)]
        world.deactivate(paused)
        world.take_down(suspect)
        for account in (paused, suspect, paused):
            commit_elsewhere(world, home, account)
        await network.settled(consumer)
        await network.drops_become({R.ACCOUNT_INACTIVE: 3})
        statuses = [(await network.query("getRepoStatus", did=one.did)).json() for one in (paused, suspect)]
        assert [(status["active"], status["status"]) for status in statuses] == [
            (False, "deactivated"),
            (False, "takendown"),
        ]
        for account in (paused, suspect):
            world.reactivate(account)
            world.commit(account)
        await network.settled(consumer)
        latest = (await network.query("getLatestCommit", did=suspect.did)).json()
        assert suspect.repo.head is not None
        assert latest == {"rev": suspect.repo.head.rev, "cid": cid_text(suspect.repo.head.commit)}
    assert await network.drops() == {R.ACCOUNT_INACTIVE: 3}


async def test_an_account_whose_reactivation_was_lost_is_asked_about_and_announced(network: Network) -> None:
    world = network.world
    async with open_consumer(network.firehose_port) as consumer:
        account = world.create_account(world.hosts[0])
        world.deactivate(account)
        await network.settled(consumer)
        account.hosted.active, account.hosted.status = True, None
        world.commit(account)
        with trio.fail_after(SECONDS):
            await consumer.received(len(world.emitted) + 1)
        news = consumer.events[-2:]
        assert [event.kind for event in news] == ["#account", "#commit"]
        assert news[0].payload["active"] is True
    assert (await network.query("getRepoStatus", did=account.did)).json()["active"] is True


async def test_a_migration_that_only_the_directory_tells_of(network: Network) -> None:
    """The new host's first event is a commit; the relay still has the old document in its cache."""
    world = network.world
    old, new = world.hosts
    async with open_consumer(network.firehose_port) as consumer:
        account = world.create_account(old)
        world.commit(account)
        await network.settled(consumer)
        account.host = new
        new.hosted[account.did] = old.hosted.pop(account.did)
        world.directory.change(account.did, endpoint=new.endpoint)
        for _ in range(3):
            world.commit(account)
        await network.settled(consumer)
        world.depart(account, old)
        commit_elsewhere(world, old, account)
        await network.drops_become({R.WRONG_HOST: 2})
        world.commit(account)
        await network.settled(consumer)
    assert (await network.query("getRepoStatus", did=account.did)).json()["active"] is True
    redirect = await network.query("getRepo", did=account.did)
    assert redirect.headers["location"].startswith(f"{new.endpoint}/")
    counts = {name: (await network.query("getHostStatus", hostname=name)).json() for name in (old.name, new.name)}
    assert [status["accountCount"] for status in counts.values()] == [0, 1]


async def test_an_account_whose_identity_is_on_the_web(network: Network) -> None:
    """Its host serves the document; without it, the account's events end after their deadline and hold nobody up."""
    world = network.world
    home, other = world.hosts
    async with open_consumer(network.firehose_port) as consumer:
        account = world.create_account(home, did=f"did:web:localhost%3A{home.port}")
        home.well_known["/.well-known/did.json"] = document_response(world.directory.get(account.did))
        world.commit(account)
        lost = world.create_account(other, did=f"did:web:localhost%3A{other.port}", announce=False)
        commit_elsewhere(world, other, lost)
        world.create_account(other)
        await network.settled(consumer)
        await network.drops_become({R.IDENTITY_UNRESOLVED: 1})
    assert world.directory.requests[account.did] == 0
    assert home.requests["/.well-known/did.json"] == 1


async def test_events_wait_for_a_directory_that_is_down(network: Network) -> None:
    """Known accounts go on meanwhile; the wait of the others has no deadline."""
    world = network.world
    async with open_consumer(network.firehose_port) as consumer:
        known = world.create_account(world.hosts[0])
        await network.settled(consumer)
        world.directory.failure = Response(503)
        unknown = [world.create_account(host) for host in world.hosts]
        world.commit(known)
        with trio.fail_after(SECONDS):
            await consumer.received(5)
            await world.directory.changed.wait_until(
                lambda: all(world.directory.requests[account.did] > 0 for account in unknown)
            )
        assert consumer.count == 5
        assert (await network.metrics())["relay_parked_events"] == 8
        world.directory.failure = None
        await network.settled(consumer)
    assert await network.drops() == {}
