"""Lenient validation: what strict drops for its form passes, what is not the account's own word still does not."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from relay.eventlog.verdict import DropReason
from tests.scenario.forgeries import FORGERIES
from tests.scenario.network import SECONDS, Network, open_network
from tests.scenario.test_forgeries import stage
from tests.world import frames, records
from tests.world.consumer import open_consumer
from tests.world.network import Account

R = DropReason

# Kinds that only concern the tree, and pass (DESIGN 6); every other kind of forgery is dropped for its own reason.
PASSED = frozenset({R.TOO_BIG, R.REBASE, R.PREV_DATA_MISSING, R.INVERSION_CONTRADICTION, R.BLOCK_MISSING})


@pytest.fixture
async def lenient(tmp_path: Path) -> AsyncIterator[Network]:
    async with open_network(tmp_path, hosts=1, validation="lenient") as network:
        yield network


def without(event: Any, *names: str) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in names}


def emit_old_style(network: Network, account: Account, *, since: str | None) -> None:
    """A commit as hosts made it before sync 1.1: no `prevData`, no `prev` in its operations."""
    world = network.world
    writes = records.writes(world.rng, account.repo, count=3)
    payload = frames.commit_payload(account.repo.commit(writes), seq=0, time=world.clock.datetime())
    payload["ops"] = [without(op, "prev") for op in payload["ops"]]
    world.emit(account.host, "#commit", without(payload, "prevData") | {"since": since})


async def test_commits_of_old_hosts_pass_with_gaps(lenient: Network) -> None:
    """As in the peers' scenarios `legacy` and `post_lifecycle_legacy`."""
    world = lenient.world
    account = world.create_account(world.hosts[0], preload=40)
    async with open_consumer(lenient.firehose_port, cursor=0) as consumer:
        for _ in range(3):
            assert account.repo.head is not None
            emit_old_style(lenient, account, since=account.repo.head.rev)
        account.repo.commit(records.writes(world.rng, account.repo))  # never seen
        assert account.repo.head is not None
        emit_old_style(lenient, account, since=account.repo.head.rev)
        emit_old_style(lenient, account, since=None)
        await lenient.settled(consumer)
    assert await lenient.drops() == {}


async def test_commits_after_a_pause_pass_although_they_name_a_dropped_one(lenient: Network) -> None:
    """As in the peers' scenario `deactivation`."""
    world = lenient.world
    account = world.create_account(world.hosts[0], preload=40)
    async with open_consumer(lenient.firehose_port, cursor=0) as consumer:
        world.commit(account)
        world.deactivate(account)
        payload = frames.commit_payload(account.repo.commit(), seq=0, time=world.clock.datetime())
        world.emit(account.host, "#commit", payload, expect="drop")
        await lenient.drops_become({R.ACCOUNT_INACTIVE: 1})
        world.account(account, active=True)
        for _ in range(4):
            world.commit(account)
        await lenient.settled(consumer)
    assert await lenient.drops() == {R.ACCOUNT_INACTIVE: 1}


async def test_every_forgery_between_two_good_events(lenient: Network) -> None:
    world = lenient.world
    host = world.hosts[0]
    async with open_consumer(lenient.firehose_port, cursor=0) as consumer:
        accounts = [world.create_account(host, preload=60) for _ in FORGERIES]
        await lenient.settled(consumer)
        expected: dict[DropReason, int] = {}
        passing = 0
        for account, forgery in zip(accounts, FORGERIES, strict=True):
            world.commit(account)
            host.emit_wire(forgery.wire(stage(world, account, host.last_seq + 1)))
            if forgery.reason in PASSED:
                passing += 1
            else:
                expected[forgery.reason] = expected.get(forgery.reason, 0) + 1
        with trio.move_on_after(SECONDS):
            await consumer.received(len(world.emitted) + passing)
        await lenient.drops_become(expected)
        assert len(consumer.events) == len(world.emitted) + passing
        assert host.cursors == [0]
