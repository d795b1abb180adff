"""What is asked on behalf of waiting events, how often, and what an answer that does not come means."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from relay.eventlog.verdict import DropReason
from tests.validation.rig import LANES, LIMITS, Rig, open_rig, until
from tests.world import frames
from tests.world.exchange import Response
from tests.world.keys import SigningKey
from tests.world.network import World
from tests.world.oracle import differences
from tests.world.plc import document_response

R = DropReason
DOWN = Response(500)


async def test_one_hosts_slow_look_ups_leave_room_for_those_of_others(world: World, tmp_path: Path) -> None:
    async with open_rig(world, tmp_path / "log", limits=replace(LIMITS, host_concurrency=2)) as rig:
        home, other = world.hosts
        world.directory.latency_seconds = math.inf
        for _ in range(6):
            world.create_account(home, announce=False)
        slow = list(world.accounts.values())
        for account in slow:
            world.commit(account)
        rig.deliver()
        await until(lambda: world.directory.requests.total() == 2)
        quick = world.create_account(other)
        world.directory.latency_seconds = 0.0
        rig.deliver()
        await until(lambda: len(rig.events) == 4)
        assert {event.did for event in rig.events} == {quick.did}
        assert sum(map(rig.look_ups, slow)) == 2


async def test_a_hosts_look_ups_keep_its_rate(world: World, tmp_path: Path) -> None:
    async with open_rig(world, tmp_path / "log", limits=replace(LIMITS, host_burst=2, host_per_second=20)) as rig:
        started = trio.current_time()
        for _ in range(6):
            world.commit(world.create_account(world.hosts[0], announce=False))
        rig.deliver()
        await rig.idle()
        assert trio.current_time() - started >= 4 / 20
        assert differences(world.emitted, rig.events) == []


async def test_a_document_that_was_asked_for_by_others_may_be_older_than_the_event(rig: Rig) -> None:
    """The first answer still has the former key: a bad signature then asks once more."""
    world = rig.world
    account = world.create_account(world.hosts[0], announce=False)
    entry = world.directory.get(account.did)
    world.directory.answers[account.did] = document_response(replace(entry, key=SigningKey.generate(world.rng)))
    world.directory.latency_seconds = 0.05
    world.commit(account)
    rig.deliver()
    await until(lambda: rig.resolver.cached(account.did) is not None)
    del world.directory.answers[account.did]
    await rig.idle()
    assert rig.look_ups(account) == 2
    assert differences(world.emitted, rig.events) == []


async def test_an_identity_that_can_not_be_refreshed_ends_alone(world: World, tmp_path: Path) -> None:
    """What is known still serves the events behind it."""
    async with open_rig(world, tmp_path / "log", limits=replace(LIMITS, unresolved_seconds=0.05)) as rig:
        account, other = [world.create_account(world.hosts[0]) for _ in range(2)]
        await rig.known(account)
        await rig.known(other)
        world.directory.answers[account.did] = DOWN
        payload = frames.identity_payload(account.did, seq=0, time=world.clock.datetime())
        world.emit(account.host, "#identity", payload, expect="drop")
        world.commit(account)
        world.identity(other)
        rig.deliver()
        await until(lambda: rig.drops() == {R.IDENTITY_UNRESOLVED: 1})
        await rig.idle()
        assert differences(world.emitted, rig.events) == []


async def test_an_identity_that_can_not_be_refreshed_ends_alone_before_a_full_lane(rig: Rig) -> None:
    """64 commits wait behind it: no room is no reason to drop what can be verified."""
    world = rig.world
    account = world.create_account(world.hosts[0])
    await rig.known(account)
    world.directory.answers[account.did] = DOWN
    payload = frames.identity_payload(account.did, seq=0, time=world.clock.datetime())
    world.emit(account.host, "#identity", payload, expect="drop")
    for _ in range(LANES.lane_events_max):
        world.commit(account)
    rig.deliver()
    assert not rig.scheduler.has_room(account.host.name)
    await rig.idle()
    assert rig.drops() == {R.IDENTITY_UNRESOLVED: 1}
    assert differences(world.emitted, rig.events) == []
    assert rig.unfinished(account.host) == []


@pytest.mark.parametrize("healthy", [True, False])
async def test_a_did_that_alone_fails_has_a_deadline_if_the_directory_is_healthy(
    world: World, tmp_path: Path, healthy: bool
) -> None:
    """Nobody else is asked for, so only `/_health` can tell whose failure it is."""
    seconds = 0.05
    async with open_rig(world, tmp_path / "log", limits=replace(LIMITS, unresolved_seconds=seconds)) as rig:
        account = world.create_account(world.hosts[0], announce=False)
        if healthy:
            world.directory.answers[account.did] = DOWN
        else:
            world.directory.failure = DOWN
        world.commit(account)
        rig.deliver()
        started = trio.current_time()
        if healthy:
            await until(lambda: rig.drops() == {R.IDENTITY_UNRESOLVED: 1})
            assert trio.current_time() - started >= seconds
            assert rig.events == []
        else:
            await until(lambda: trio.current_time() - started >= 4 * seconds and rig.look_ups(account) >= 6)
            assert rig.drops() == {}
            world.directory.failure = None
            await rig.idle()
            assert differences(world.emitted, rig.events) == []
        assert world.directory.requests["_health"] == 1, "once in five seconds"
        assert rig.unfinished(account.host) == []


@pytest.mark.parametrize("status", ["deleted", "deactivated"])
async def test_a_former_home_can_not_end_an_account_that_has_moved(rig: Rig, status: str) -> None:
    """Nothing has come from the new host yet, and the relay still has the old document."""
    world = rig.world
    old, new = world.hosts
    account = world.create_account(old)
    await rig.known(account)
    world.directory.change(account.did, endpoint=new.endpoint)
    time = world.clock.datetime()
    payload = frames.account_payload(account.did, seq=0, time=time, active=False, status=status)
    world.emit(old, "#account", payload, expect="drop")
    rig.deliver()
    await rig.idle()
    assert rig.drops() == {R.WRONG_HOST: 1}
    assert differences(world.emitted, rig.events) == []
    record = rig.log.accounts.get(account.did)
    assert record is not None
    assert record.active


@pytest.mark.parametrize("gone", [False, True], ids=["down", "gone"])
@pytest.mark.parametrize("status", ["deactivated", "deleted"])
async def test_an_account_can_end_without_the_directory(rig: Rig, status: str, gone: bool) -> None:
    """The directory is down, or the DID has ended first: neither holds up what the account's own host says of it."""
    world = rig.world
    account = world.create_account(world.hosts[0])
    await rig.known(account)
    if gone:
        world.directory.tombstone(account.did)
    else:
        world.directory.failure = DOWN
    if status == "deleted":
        world.delete(account)
    else:
        world.deactivate(account)
    rig.deliver()
    with trio.fail_after(1):
        await rig.idle()
    assert differences(world.emitted, rig.events, hidden=world.deleted) == []
    assert rig.drops() == {}
    record = rig.log.accounts.get(account.did)
    assert record is not None
    assert (record.active, record.status) == (False, status)


@pytest.mark.parametrize("first", ["#identity", "deactivated", "expired"])
async def test_deletion_comes_out_although_the_did_is_gone(world: World, tmp_path: Path, first: str) -> None:
    """The directory answers 410 and the cache has lost it: our own record says whose word counts."""
    async with open_rig(world, tmp_path / "log", limits=replace(LIMITS, unresolved_seconds=0.1)) as rig:
        account = world.create_account(world.hosts[0])
        await rig.known(account)
        world.directory.tombstone(account.did)
        if first == "#identity":
            payload = frames.identity_payload(account.did, seq=0, time=world.clock.datetime())
            world.emit(account.host, "#identity", payload, expect="either")
        elif first == "deactivated":
            world.deactivate(account)
        else:
            rig.resolver.purge(account.did)
        world.delete(account)
        rig.deliver()
        await rig.idle()
        record = rig.log.accounts.get(account.did)
        assert record is not None
        assert record.status == "deleted", rig.drops()
