"""Which events wait for what, in which order they come out, and who pays: real resolver, real log, fake network."""

import math
import random
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from relay.atproto.events import CommitEvent
from relay.eventlog.errors import StoreError
from relay.eventlog.sequencer import SequencerLimits
from relay.eventlog.verdict import DropReason
from relay.validation import rules
from relay.validation.lanes import LaneLimits
from relay.validation.rules import Judgement
from tests.validation.rig import LIMITS, STATUS, Rig, now_us, open_rig, until
from tests.world import frames
from tests.world.exchange import Response, error_response, json_response
from tests.world.keys import SigningKey
from tests.world.network import Account, World
from tests.world.oracle import differences
from tests.world.pds import FakeHost
from tests.world.workload import EVERYTHING, Workload

R = DropReason
DOWN = Response(500)
LIVELY = {**EVERYTHING, "commit": 100, "large_commit": 0, "delete": 6, "rotate_key": 80, "migrate": 80}


def kinds(rig: Rig, account: Account) -> list[str]:
    return [event.kind for event in rig.events if event.did == account.did]


def forge(world: World, account: Account, *, host: FakeHost | None = None) -> None:
    """A commit that a stranger signed, under a newer rev than that of the account's next real one."""
    stranger = world.create_account(account.host, announce=False, preload=3)
    stranger.repo.did = account.did
    made = stranger.repo.commit()
    payload = frames.commit_payload(made, seq=0, time=world.clock.datetime())
    world.emit(host or account.host, "#commit", payload, expect="drop")


# parking


async def test_events_of_an_unknown_account_wait_in_order_and_hold_their_hosts_watermark(rig: Rig) -> None:
    world = rig.world
    world.directory.failure = DOWN
    account = world.create_account(world.hosts[0])
    for _ in range(3):
        world.commit(account)
    rig.deliver()
    await until(lambda: rig.look_ups(account) > 2)
    assert rig.events == []
    assert rig.unfinished(account.host) == list(range(1, 8))
    assert rig.scheduler.waiting_events == 7
    world.directory.failure = None
    await rig.idle()
    assert differences(world.emitted, rig.events) == []
    assert kinds(rig, account) == ["#identity", "#account", "#commit", "#sync", "#commit", "#commit", "#commit"]
    assert rig.unfinished(account.host) == []


async def test_a_known_account_is_judged_on_the_spot(rig: Rig) -> None:
    account = rig.world.create_account(rig.world.hosts[0])
    await rig.known(account)
    assert rig.look_ups(account) == 1
    for _ in range(5):
        rig.world.commit(account)
    rig.deliver()
    assert account.repo.head is not None
    assert rig.rev(account) == account.repo.head.rev
    await rig.idle()
    assert differences(rig.world.emitted, rig.events) == []
    assert rig.look_ups(account) == 1


async def test_accounts_wait_independently(rig: Rig) -> None:
    world = rig.world
    first, second, third = [world.create_account(world.hosts[0], announce=False) for _ in range(3)]
    for account in (first, third):
        world.directory.answers[account.did] = json_response(404, {})
    for account in (first, second, third, second, first):
        world.commit(account)
    rig.deliver()
    await until(lambda: len(rig.events) == 2)
    assert {event.did for event in rig.events} == {second.did}
    assert rig.unfinished(world.hosts[0]) == [1, 3, 5]
    del world.directory.answers[first.did]
    await until(lambda: len(rig.events) == 4)
    assert rig.unfinished(world.hosts[0]) == [3]
    del world.directory.answers[third.did]
    await rig.idle()
    assert differences(world.emitted, rig.events) == []
    assert rig.unfinished(world.hosts[0]) == []


@pytest.mark.parametrize(
    "answer",
    [json_response(404, {}), json_response(410, {}), json_response(200, {"id": "did:plc:someoneelse"})],
    ids=["404", "410", "bad document"],
)
async def test_a_failure_of_one_did_has_a_deadline(world: World, tmp_path: Path, answer: Response) -> None:
    seconds = 0.15
    async with open_rig(world, tmp_path / "log", limits=replace(LIMITS, unresolved_seconds=seconds)) as rig:
        account, other = [world.create_account(world.hosts[0], announce=False) for _ in range(2)]
        world.directory.answers[account.did] = answer
        for one in (account, account, other):
            world.commit(one)
        started = trio.current_time()
        rig.deliver()
        await until(lambda: rig.drops() == {R.IDENTITY_UNRESOLVED: 2})
        assert trio.current_time() - started >= seconds
        assert rig.unfinished(account.host) == []
        await rig.idle()
        assert [event.did for event in rig.events] == [other.did]
        # It is not held against what comes later.
        del world.directory.answers[account.did]
        world.commit(account)
        rig.deliver()
        await rig.idle()
        assert kinds(rig, account) == ["#commit"]


@pytest.mark.parametrize("bound", [{"lane_events_max": 5}, {"lane_bytes_max": 5000}], ids=["events", "bytes"])
async def test_a_full_lane_of_a_failed_account_is_dropped_at_once(
    world: World, tmp_path: Path, bound: dict[str, int]
) -> None:
    limits = replace(LIMITS, retry_min_seconds=30.0, retry_max_seconds=30.0)
    async with open_rig(world, tmp_path / "log", limits=limits, lanes=LaneLimits(**bound)) as rig:
        beside, account = [world.create_account(world.hosts[0], announce=False, preload=30) for _ in range(2)]
        for one in (beside, account):
            world.directory.answers[one.did] = json_response(404, {})
            world.commit(one)
        rig.deliver()
        await until(lambda: rig.look_ups(account) == 1)
        sent = 1
        while rig.scheduler.has_room(account.host.name):
            world.commit(account)
            rig.deliver()
            sent += 1
        assert sent == 5 if "lane_events_max" in bound else sent < 5
        await until(lambda: rig.drops() == {R.IDENTITY_UNRESOLVED: sent})
        assert rig.scheduler.has_room(account.host.name)
        assert rig.unfinished(account.host) == [1]


async def test_a_full_lane_without_a_failure_stops_its_host_and_no_other(world: World, tmp_path: Path) -> None:
    limits = replace(LIMITS, retry_min_seconds=0.2, retry_max_seconds=0.2)
    async with open_rig(world, tmp_path / "log", limits=limits, lanes=LaneLimits(lane_events_max=5)) as rig:
        home, other = world.hosts
        account = world.create_account(home, announce=False)
        world.directory.failure = DOWN
        for _ in range(4):
            world.commit(account)
        rig.deliver()
        assert rig.scheduler.has_room(home.name)
        world.commit(account)
        rig.deliver()
        assert not rig.scheduler.has_room(home.name)
        assert rig.scheduler.has_room(other.name)
        with trio.move_on_after(0.1) as scope:
            await rig.scheduler.wait_room(home.name)
        assert scope.cancelled_caught
        assert rig.look_ups(account) == 1, "a full lane is no reason to ask a failing directory more often"
        world.directory.failure = None
        with trio.fail_after(10):
            await rig.scheduler.wait_room(home.name)
        assert rig.scheduler.has_room(home.name)
        await rig.idle()
        assert differences(world.emitted, rig.events) == []
        assert rig.drops() == {}


@pytest.mark.parametrize(
    "bound",
    [{"host_events_max": 12}, {"host_bytes_max": 110_000}, {"total_bytes_max": 110_000}],
    ids=["events of a host", "bytes of a host", "bytes in all"],
)
async def test_many_small_lanes_stop_their_host_too(world: World, tmp_path: Path, bound: dict[str, int]) -> None:
    async with open_rig(world, tmp_path / "log", lanes=LaneLimits(**bound)) as rig:
        home, other = world.hosts
        world.directory.failure = DOWN
        while rig.scheduler.has_room(home.name):
            world.commit(world.create_account(home, announce=False, preload=20))
            rig.deliver()
        assert rig.scheduler.waiting_events in range(8, 14)
        assert rig.scheduler.has_room(other.name)
        world.directory.failure = None
        with trio.fail_after(10):
            await rig.scheduler.wait_room(home.name)
        await rig.idle()
        assert differences(world.emitted, rig.events) == []


def test_unfinished_numbers_of_a_host_are_bounded() -> None:
    """What is read of a host waits in lanes or in the inbox; each stops the reading (DESIGN 5.2: at 4,096)."""
    assert LaneLimits().host_events_max + SequencerLimits().inbox_events_max <= 4096


@pytest.mark.parametrize("silent", [False, True], ids=["errors", "silence"])
async def test_an_outage_of_the_directory_has_no_deadline_and_drops_nothing(
    world: World, tmp_path: Path, silent: bool
) -> None:
    limits = replace(LIMITS, unresolved_seconds=0.05)
    lanes = LaneLimits(lane_events_max=6)
    async with open_rig(world, tmp_path / "log", limits=limits, lanes=lanes, http_seconds=0.3) as rig:
        world.directory.failure = None if silent else DOWN
        world.directory.latency_seconds = math.inf if silent else 0.0
        accounts = [world.create_account(host) for host in world.hosts for _ in range(3)]
        for _ in range(2):
            for account in accounts:
                world.commit(account)
        rig.deliver()
        await until(lambda: min(map(rig.look_ups, accounts)) >= (2 if silent else 4))
        assert rig.drops() == {}
        assert rig.events == []
        assert not any(rig.scheduler.has_room(host.name) for host in world.hosts)
        world.directory.failure, world.directory.latency_seconds = None, 0.0
        await rig.idle()
        assert differences(world.emitted, rig.events) == []
        assert rig.drops() == {}


async def test_the_last_time_out_of_an_outage_does_not_end_a_full_lane(world: World, tmp_path: Path) -> None:
    """It looks like a failure of that account alone, as the directory has answered for others in the meantime."""
    async with open_rig(world, tmp_path / "log", lanes=LaneLimits(lane_events_max=2), http_seconds=0.3) as rig:
        world.directory.latency_seconds = math.inf
        waiting, other = [world.create_account(host, announce=False) for host in world.hosts]
        for _ in range(2):
            world.commit(waiting)
        rig.deliver()
        await until(lambda: rig.look_ups(waiting) == 1)
        world.directory.latency_seconds = 0.0
        world.commit(other)
        rig.deliver()
        await until(lambda: rig.resolver.cached(other.did) is not None)
        assert rig.look_ups(waiting) == 1
        await rig.idle()
        assert rig.drops() == {}
        assert differences(world.emitted, rig.events) == []
        assert rig.resolver.outcomes == {"found": 2, "IdentityFailure": 1}


async def test_what_waits_at_shutdown_is_unfinished_and_comes_again(world: World, tmp_path: Path) -> None:
    home = world.hosts[0]
    async with open_rig(world, tmp_path / "log") as rig:
        known = world.create_account(home)
        await rig.known(known)
        done = home.last_seq
        world.directory.failure = DOWN
        parked = world.create_account(home)
        world.commit(known)
        rig.deliver()
        rig.running.cancel()
        await until(lambda: len(rig.events) == done + 1)
    world.directory.failure = None
    async with open_rig(world, tmp_path / "log") as rig:
        assert rig.unfinished(home) == list(range(done + 1, done + 5))
        cursor = rig.log.hosts.progress(home.name).connect()
        assert cursor == done
        rig.receive(event for event in world.emitted if event.seq > cursor)
        await rig.idle()
        assert differences(world.emitted, rig.events) == []
        assert kinds(rig, parked) == ["#identity", "#account", "#commit", "#sync"]


# authority


async def test_a_foreign_host_is_dropped_at_its_own_cost_while_the_real_one_flows(rig: Rig) -> None:
    world = rig.world
    home, foreign = world.hosts
    account = world.create_account(home)
    await rig.known(account)
    before = rig.look_ups(account)
    for _ in range(20):
        for event in world.emitted[1:4]:
            world.emit(foreign, event.kind, frames.parse(event.message).payload, expect="drop")
    sent = foreign.last_seq
    rig.deliver()
    assert rig.scheduler.waiting_events == sent
    world.commit(account)
    rig.deliver()
    assert account.repo.head is not None
    assert rig.rev(account) == account.repo.head.rev, "the real host's event waited"
    assert rig.scheduler.waiting_events == sent
    await rig.idle()
    assert rig.drops() == {R.WRONG_HOST: sent}
    assert rig.look_ups(account) == before + 1
    for _ in range(20):
        world.emit(foreign, "#account", frames.parse(world.emitted[1].message).payload, expect="drop")
        rig.deliver()
        await rig.idle()
    assert rig.look_ups(account) == before + LIMITS.account_refreshes_burst
    assert rig.drops() == {R.WRONG_HOST: sent + 20}
    assert differences(world.emitted, rig.events) == []
    assert rig.unfinished(foreign) == []


async def test_a_migration_is_seen_by_one_look_up_and_the_old_host_has_no_say_after_it(rig: Rig) -> None:
    world = rig.world
    old, new = world.hosts
    account = world.create_account(old)
    await rig.known(account)
    before = rig.look_ups(account)
    old.hosted.pop(account.did)
    account.host = new
    world.directory.change(account.did, endpoint=new.endpoint)
    for _ in range(3):
        world.commit(account)
    rig.deliver()
    await rig.idle()
    assert rig.look_ups(account) == before + 1
    assert kinds(rig, account)[4:] == ["#commit"] * 3
    record = rig.log.accounts.get(account.did)
    assert record is not None
    assert record.host == new.name
    counts = [host.accounts for host in rig.log.hosts.records()]
    assert sorted(counts) == [0, 1]
    world.depart(account, old)
    payload = frames.commit_payload(account.repo.commit(), seq=0, time=world.clock.datetime())
    world.emit(old, "#commit", payload, expect="drop")
    rig.deliver()
    await rig.idle()
    assert rig.drops() == {R.WRONG_HOST: 2}
    assert differences(world.emitted, rig.events) == []


async def test_a_whole_migration_and_back_comes_out_in_order(rig: Rig) -> None:
    world = rig.world
    old, new = world.hosts
    account = world.create_account(old)
    world.commit(account)
    await rig.known(account)
    world.migrate(account, new)
    world.commit(account)
    rig.deliver()
    await rig.idle()
    world.depart(account, old)
    rig.deliver()
    await rig.idle()
    assert rig.drops() == {R.WRONG_HOST: 1}
    world.migrate(account, old)
    world.commit(account)
    rig.deliver()
    await rig.idle()
    assert kinds(rig, account)[5:] == ["#account", "#identity", "#sync", "#commit"] * 2
    assert differences(world.emitted, rig.events) == []
    assert rig.drops() == {R.WRONG_HOST: 1}


# keys


async def test_a_key_rotated_in_silence_costs_one_look_up(rig: Rig) -> None:
    world = rig.world
    account = world.create_account(world.hosts[0])
    await rig.known(account)
    before = rig.look_ups(account)
    world.rotate_key(account, curve="p256", tell=False)
    world.commit(account)
    rig.deliver()
    await rig.idle()
    assert rig.look_ups(account) == before + 1
    world.commit(account)
    rig.deliver()
    assert account.repo.head is not None
    assert rig.rev(account) == account.repo.head.rev
    await rig.idle()
    assert differences(world.emitted, rig.events) == []


async def test_a_look_up_for_a_signature_may_find_that_the_host_has_no_say(rig: Rig) -> None:
    world = rig.world
    old, new = world.hosts
    account = world.create_account(old)
    await rig.known(account)
    account.repo.key = SigningKey.generate(world.rng)
    world.directory.change(account.did, key=account.repo.key, endpoint=new.endpoint)
    payload = frames.commit_payload(account.repo.commit(), seq=0, time=world.clock.datetime())
    world.emit(old, "#commit", payload, expect="drop")
    rig.deliver()
    await rig.idle()
    assert rig.drops() == {R.WRONG_HOST: 1}
    assert differences(world.emitted, rig.events) == []


async def test_bad_signatures_cost_at_most_the_accounts_budget(world: World, tmp_path: Path) -> None:
    limits = replace(LIMITS, account_refreshes_burst=3.0, account_refreshes_per_second=0.001)
    async with open_rig(world, tmp_path / "log", limits=limits) as rig:
        account = world.create_account(world.hosts[0])
        await rig.known(account)
        before = rig.look_ups(account)
        for _ in range(8):
            forge(world, account)
            rig.deliver()
            await rig.idle()
        assert rig.drops() == {R.SIGNATURE_INVALID: 8}
        assert rig.look_ups(account) == before + 3
        world.commit(account)
        rig.deliver()
        await rig.idle()
        assert differences(world.emitted, rig.events) == []


# #identity


@pytest.mark.parametrize("documented", [True, False])
async def test_identity_refreshes_the_key_and_keeps_only_a_documented_handle(rig: Rig, documented: bool) -> None:
    world = rig.world
    account = world.create_account(world.hosts[0])
    await rig.known(account)
    before = rig.look_ups(account)
    account.repo.key = SigningKey.generate(world.rng)
    handle = "renamed.test" if documented else account.handle
    world.directory.change(account.did, key=account.repo.key, handle=handle)
    world.identity(account, handle="renamed.test")
    world.commit(account, ())
    rig.deliver()
    await rig.idle()
    assert rig.look_ups(account) == before + 1
    assert differences(world.emitted, rig.events) == []
    told = [event for event in rig.events if event.kind == "#identity"][-1]
    assert told.payload.get("handle") == ("renamed.test" if documented else None)


async def test_one_look_up_serves_all_that_waited_for_it(rig: Rig) -> None:
    """Good and bad, of the account's own host; what comes after it has begun needs another one."""
    world = rig.world
    account = world.create_account(world.hosts[0])
    await rig.known(account)
    before = rig.look_ups(account)
    for number in range(5):
        world.identity(account, handle=account.handle)
        forge(world, account)
        world.commit(account)
        if number == 3:
            rig.deliver()
            assert rig.look_ups(account) == before
            world.directory.latency_seconds = 0.05
            await until(lambda: rig.look_ups(account) == before + 1)
    rig.deliver()
    await rig.idle()
    assert rig.look_ups(account) == before + 2
    assert rig.drops() == {R.SIGNATURE_INVALID: 5}
    assert differences(world.emitted, rig.events) == []


async def test_a_foreign_identity_passes_only_if_the_document_changed(rig: Rig) -> None:
    world = rig.world
    home, foreign = world.hosts
    account = world.create_account(home)
    await rig.known(account)

    async def told_by_foreign(handle: str, *, expect: str) -> None:
        payload = frames.identity_payload(account.did, seq=0, time=world.clock.datetime(), handle=handle)
        world.emit(foreign, "#identity", payload, expect=expect)  # type: ignore[arg-type]
        rig.deliver()
        await rig.idle()

    await told_by_foreign(account.handle, expect="drop")
    assert rig.drops() == {R.IDENTITY_UNCHANGED: 1}
    world.directory.change(account.did, handle="renamed.test")
    await told_by_foreign("renamed.test", expect="pass")
    await told_by_foreign("renamed.test", expect="drop")
    assert rig.drops() == {R.IDENTITY_UNCHANGED: 2}
    assert differences(world.emitted, rig.events) == []
    assert rig.unfinished(foreign) == []
    # Of an account that was never seen there is nothing to have changed.
    unknown = world.create_account(home, announce=False)
    payload = frames.identity_payload(unknown.did, seq=0, time=world.clock.datetime())
    world.emit(foreign, "#identity", payload, expect="drop")
    rig.deliver()
    await rig.idle()
    assert rig.drops() == {R.IDENTITY_UNCHANGED: 3}


async def test_identities_beyond_the_budget_wait_for_it_and_are_not_lost(world: World, tmp_path: Path) -> None:
    limits = replace(LIMITS, account_refreshes_burst=1.0, account_refreshes_per_second=20.0)
    async with open_rig(world, tmp_path / "log", limits=limits) as rig:
        account = world.create_account(world.hosts[0])
        await rig.known(account)
        started = trio.current_time()
        for _ in range(4):
            world.identity(account, handle=account.handle)
            rig.deliver()
            await rig.idle()
        assert trio.current_time() - started >= 3 / 20.0
        assert differences(world.emitted, rig.events) == []


# hosting status


async def test_content_of_an_inactive_account_is_dropped_after_one_question(rig: Rig) -> None:
    world = rig.world
    home = world.hosts[0]
    account = world.create_account(home)
    world.deactivate(account)
    await rig.known(account)
    for _ in range(3):
        payload = frames.commit_payload(account.repo.commit(), seq=0, time=world.clock.datetime())
        world.emit(home, "#commit", payload, expect="drop")
        rig.deliver()
        await rig.idle()
    assert rig.drops() == {R.ACCOUNT_INACTIVE: 3}
    assert home.requests[STATUS] == 1
    world.reactivate(account)
    world.commit(account)
    rig.deliver()
    await rig.idle()
    assert kinds(rig, account)[4:] == ["#account", "#account", "#identity", "#sync", "#commit"]
    assert differences(world.emitted, rig.events) == []


async def test_an_account_that_its_host_calls_active_is_announced_before_its_commit(rig: Rig) -> None:
    world = rig.world
    home = world.hosts[0]
    account = world.create_account(home)
    world.take_down(account)
    await rig.known(account)
    account.hosted.active, account.hosted.status = True, None  # and its #account got lost
    for _ in range(2):
        world.commit(account)
    rig.deliver()
    await rig.idle()
    announced = [event for event in rig.events if event.did == account.did][-3:]
    assert [event.kind for event in announced] == ["#account", "#commit", "#commit"]
    assert announced[0].payload["active"] is True
    assert "status" not in announced[0].payload
    assert home.requests[STATUS] == 1
    assert rig.drops() == {}


async def test_without_an_answer_an_account_stays_inactive(rig: Rig) -> None:
    world = rig.world
    account = world.create_account(world.hosts[0])
    world.deactivate(account)
    await rig.known(account)
    account.host.answers["com.atproto.sync.getRepoStatus"] = error_response(400, "RepoNotFound")
    payload = frames.commit_payload(account.repo.commit(), seq=0, time=world.clock.datetime())
    world.emit(account.host, "#commit", payload, expect="drop")
    rig.deliver()
    await rig.idle()
    assert rig.drops() == {R.ACCOUNT_INACTIVE: 1}


async def test_a_rev_is_held_against_a_clock_that_was_set_back(world: World, tmp_path: Path) -> None:
    """What was allowed under the wrong clock is not any more, from the first event on."""
    clock = [now_us() + 86_400_000_000]
    async with open_rig(world, tmp_path / "log", clock_us=lambda: clock[0]) as rig:
        account = world.create_account(world.hosts[0])
        await rig.known(account)
        clock[0] = now_us()
        ahead = copy(account.repo)
        ahead.clock = copy(ahead.clock)
        ahead.clock.catch_up(clock[0] + 3_600_000_000)
        payload = frames.commit_payload(ahead.commit(()), seq=0, time=world.clock.datetime())
        world.emit(account.host, "#commit", payload, expect="drop")
        world.commit(account)
        rig.deliver()
        await rig.idle()
        assert rig.drops() == {R.REV_IN_FUTURE: 1}
        assert differences(world.emitted, rig.events) == []


# bugs of ours


@pytest.mark.parametrize("known", [True, False], ids=["on the spot", "in a lane"])
async def test_a_bug_that_an_event_uncovers_costs_that_event(
    rig: Rig, known: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted, logged and finished; the account's next events and those of others go on."""
    world = rig.world
    account, other = [world.create_account(world.hosts[0], announce=False) for _ in range(2)]
    if known:
        for one in (account, other):
            world.commit(one)
        await rig.known(account)
    unlucky = world.hosts[0].last_seq + 2
    judge_commit = rules.judge_commit

    def judge(event: CommitEvent, **facts: Any) -> Judgement:
        if event.seq == unlucky:
            raise ZeroDivisionError("a bug")
        return judge_commit(event, **facts)

    monkeypatch.setattr(rules, "judge_commit", judge)
    world.commit(account)
    payload = frames.commit_payload(account.repo.commit(()), seq=0, time=world.clock.datetime())
    world.emit(account.host, "#commit", payload, expect="drop")
    world.commit(other)
    world.commit(account)
    rig.deliver()
    await rig.idle()
    assert rig.drops() == {R.INTERNAL_ERROR: 1}
    assert differences(world.emitted, rig.events) == []
    assert rig.unfinished(account.host) == []
    assert f"event {unlucky} of {account.host.name} met a bug" in caplog.text
    assert "ZeroDivisionError: a bug" in caplog.text


async def test_a_bug_in_what_a_lane_does_costs_one_event_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the rules: here in the announcement of an account that its host calls active after all."""
    world = rig.world
    account, other = [world.create_account(world.hosts[0]) for _ in range(2)]
    world.deactivate(account)
    await rig.known(account)
    account.hosted.active, account.hosted.status = True, None
    monkeypatch.setattr("relay.atproto.frames.account_message", lambda *_: 1 // 0)
    payload = frames.commit_payload(account.repo.commit(), seq=0, time=world.clock.datetime())
    world.emit(account.host, "#commit", payload, expect="drop")
    world.reactivate(account)
    world.commit(account)
    world.commit(other)
    rig.deliver()
    await rig.idle()
    assert rig.drops() == {R.INTERNAL_ERROR: 1}
    assert differences(world.emitted, rig.events) == []
    assert rig.unfinished(account.host) == []


async def test_a_failure_of_our_storage_is_no_such_bug(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the process rather than an event."""
    world = rig.world
    account = world.create_account(world.hosts[0])
    await rig.known(account)

    def judge(event: CommitEvent, **facts: Any) -> Judgement:
        raise StoreError("corrupt row")

    monkeypatch.setattr(rules, "judge_commit", judge)
    world.commit(account)
    with pytest.raises(StoreError, match="corrupt row"):
        rig.deliver()
    assert rig.drops() == {}
    assert rig.unfinished(account.host) == [account.host.last_seq]


# all together


@pytest.mark.parametrize("seed", range(3))
async def test_a_random_life_with_a_failing_directory_loses_and_repeats_nothing(
    world: World, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    async with open_rig(world, tmp_path / "log") as rig:
        accounts = [world.create_account(host) for host in world.hosts for _ in range(3)]
        await rig.known(accounts[-1])

        def caught_up(account: Account) -> bool:
            return rig.scheduler.waiting_events == 0 and rig.all_delivered

        workload = Workload(world, weights=LIVELY, caught_up=caught_up)
        for _ in range(80):
            for _ in range(rng.randrange(1, 4)):
                workload.step()
            rig.deliver()
            await trio.sleep(rng.choice((0, 0.02)))
            world.directory.failure = rng.choice((None, None, DOWN))
        world.directory.failure = None
        await rig.idle()
        await until(lambda: rig.log.reader.head >= world.expected.total())
        assert differences(world.emitted, rig.events, hidden=world.deleted) == []
        assert [rig.unfinished(host) for host in world.hosts] == [[], []]
        assert workload.steps["rotate_key"]
        assert workload.steps["migrate"]
