"""The network as its own perfect relay: what a host emits passes verifier and oracle, and nothing else does."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
import trio

from tests.world import frames
from tests.world.consumer import open_consumer
from tests.world.exchange import Response
from tests.world.flood import Plan, dump, make_flood, messages, restore
from tests.world.ipld import cid_of, link
from tests.world.keys import SigningKey
from tests.world.network import World
from tests.world.oracle import differences
from tests.world.pds import CutAfter, Refuse
from tests.world.verify import Rejected, StreamVerifier
from tests.world.watch import Watch
from tests.world.workload import EVERYTHING, Workload

NOW = 1_790_000_000_000_000
LIVELY = {**EVERYTHING, "commit": 100, "delete": 6, "large_commit": 5, "silent_commit_and_sync": 10}
PLAN = Plan(seed=1, commits=40, accounts=4, hosts=2, records=30, curve="k256", proof="covering")


@asynccontextmanager
async def lived(*, seed: int, steps: int, hosts: int = 1) -> AsyncIterator[tuple[World, Workload]]:
    """A served world that lived for some steps, as if every relay kept up."""
    world = await World.open(seed=seed, hosts=hosts, now_microseconds=NOW)
    for index in range(10):
        world.create_account(world.hosts[index % hosts], curve="p256" if index % 3 else "k256")
    workload = Workload(world, weights=LIVELY, caught_up=lambda _: True)
    for _ in range(steps):
        workload.step()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(world.serve)
            yield world, workload
            nursery.cancel_scope.cancel()


async def test_what_a_host_emits_verifies_and_is_complete() -> None:
    async with lived(seed=3, steps=250) as (world, workload), open_consumer(world.hosts[0].port, cursor=0) as consumer:
        await consumer.received(len(world.emitted))
        verifier = StreamVerifier(keys=world.directory.keys)
        events = [verifier.take(message) for message in consumer.messages]
        assert differences(world.emitted, events) == []
        assert all(verifier.counts.values())
        assert all(count for kind, count in workload.steps.items() if kind != "migrate")
        silent = workload.steps["silent_commit_and_sync"]
        assert verifier.discontinuities == 0 < silent


async def test_a_watch_survives_restarts_and_knows_who_is_caught_up() -> None:
    async with lived(seed=4, steps=40) as (world, _), trio.open_nursery() as nursery:
        host = world.hosts[0]
        host.faults.extend([CutAfter(10), Refuse(Response(502)), CutAfter(15, code=1012)])
        watch = Watch(world=world, port=host.port, retry_seconds=0.001)
        account = next(account for account in world.accounts.values() if account.active)
        assert not watch.caught_up(account)
        nursery.start_soon(watch.run)
        await watch.complete()
        assert watch.caught_up(account)
        assert (watch.connections, host.cursors) == (3, [0, 10, 10, 25])
        world.commit(account)
        assert not watch.caught_up(account)
        world.emit_message(host, "#identity", b"not a message", account.did, expect="drop")
        world.sync(account)
        await watch.complete()
        assert len(watch.rejected) == 1
        assert differences(world.emitted, watch.events) == []
        nursery.cancel_scope.cancel()


async def test_the_same_seed_lives_the_same_life() -> None:
    async with lived(seed=7, steps=150, hosts=2) as (first, _), lived(seed=7, steps=150, hosts=2) as (second, _):
        assert [event.message for event in first.emitted] == [event.message for event in second.emitted]
        assert {event.host for event in first.emitted} == {host.name for host in first.hosts}


async def test_the_oracle_sees_loss_repetition_disorder_and_change() -> None:
    async with lived(seed=5, steps=60) as (world, _):
        events = [frames.parse(event.message) for event in world.emitted]
        assert differences(world.emitted, events) == []
        commit = next(index for index, event in enumerate(events) if event.kind == "#commit")
        later = next(index for index in range(commit + 1, len(events)) if events[index].did == events[commit].did)
        swapped = list(events)
        swapped[commit], swapped[later] = events[later], events[commit]
        changed = list(events)
        changed[commit] = frames.Parsed("#commit", events[commit].payload | {"time": "never"})
        for wrong in (
            events[:commit] + events[commit + 1 :],
            [*events[: commit + 1], *events[commit:]],
            swapped,
            changed,
            [*events, frames.Parsed("#identity", {"did": "did:plc:nobody", "seq": 1, "time": ""})],
        ):
            assert differences(world.emitted, wrong)
        without = [event for event in events if event.did != events[commit].did or event.kind == "#account"]
        assert differences(world.emitted, without)


async def test_the_oracle_lets_hidden_content_be_missing() -> None:
    async with lived(seed=5, steps=30) as (world, _):
        gone = world.emitted[0].did
        kept = [
            frames.parse(event.message)
            for event in world.emitted
            if event.did != gone or event.kind in ("#identity", "#account")
        ]
        assert differences(world.emitted, kept)
        assert differences(world.emitted, kept, hidden={gone}) == []


def forgeries(world: World, payload: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Broken versions of a `#commit` payload with one create."""
    other = next(account for account in world.accounts.values() if account.did != payload["repo"])
    head = other.repo.head
    assert head is not None
    return {
        "someone else's": payload | {"repo": other.did},
        "rev": payload | {"rev": head.rev},
        "commit": payload | {"commit": link(head.commit)},
        "blocks": payload | {"blocks": payload["blocks"][:-1] + b"\0"},
        "other blocks": payload | {"blocks": head.car},
        "ops left out": payload | {"ops": []},
        "prevData": payload | {"prevData": link(cid_of(b"another tree"))},
        "no prevData": {name: value for name, value in payload.items() if name != "prevData"},
        "tooBig": payload | {"tooBig": True},
    }


def accepted(world: World, payloads: dict[str, dict[str, Any]]) -> list[str]:
    """The names of those that a fresh verifier takes."""
    taken = []
    for name, payload in payloads.items():
        with suppress(Rejected):
            StreamVerifier(keys=world.directory.keys).take(frames.frame("#commit", payload))
            taken.append(name)
    return taken


async def test_the_verifier_rejects_forgeries() -> None:
    async with lived(seed=9, steps=0) as (world, _):
        account = next(iter(world.accounts.values()))
        emitted = world.commit(account)
        payload = frames.parse(emitted.message).payload
        assert accepted(world, {"as it was": payload}) == ["as it was"]
        assert accepted(world, forgeries(world, payload)) == []
        foreign = SigningKey.generate(world.rng).did_key
        with pytest.raises(Rejected, match="signature"):
            StreamVerifier(keys=lambda _: [foreign]).take(emitted.message)
        twice = StreamVerifier(keys=world.directory.keys)
        twice.take(emitted.message)
        with pytest.raises(Rejected, match="seq"):
            twice.take(emitted.message)
        with pytest.raises(Rejected, match="rev"):
            twice.take(frames.frame("#commit", payload | {"seq": payload["seq"] + 1}))


def test_a_prepared_load_survives_its_file() -> None:
    flood = make_flood(PLAN, now_microseconds=NOW)
    assert restore(dump(PLAN, flood)) == (PLAN, flood)
    keys = {account.did: [account.key.did_key] for account in flood.accounts}
    verifiers = [StreamVerifier(keys=keys.__getitem__) for _ in range(PLAN.hosts)]
    hosts = [host for host, _ in (*flood.warm_up, *flood.main)]
    for host, message in zip(hosts, messages(flood), strict=True):
        verifiers[host].take(message)
    assert sum(verifier.counts["#commit"] for verifier in verifiers) == PLAN.commits + PLAN.accounts


async def _line(stream: trio.abc.ReceiveStream, wanted: str) -> dict[str, Any]:
    """The next output line of this event."""
    buffer = b""
    while True:
        buffer += await stream.receive_some(1)
        if buffer.endswith(b"\n"):
            said: dict[str, Any] = json.loads(buffer)
            if said["event"] == wanted:
                return said
            buffer = b""


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "tests.world.load", *arguments]


async def test_the_load_process_floods_on_command() -> None:
    command = _command(["--commits", "40", "--accounts", "4", "--hosts", "1", "--records", "20"])
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            start = partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            process: trio.Process = await nursery.start(start)
            assert process.stdin is not None
            assert process.stdout is not None
            ready = await _line(process.stdout, "ready")
            port = int(ready["hosts"][0].partition(":")[2])
            async with open_consumer(port) as consumer:
                await process.stdin.send_all(b"warm\n")
                await _line(process.stdout, "sent")
                await consumer.received(4)
                await process.stdin.send_all(b"go\n")
                sent = await _line(process.stdout, "sent")
                await consumer.received(44)
                assert (sent["sent"], sent["connected"]) == (44, 1)
                await process.stdin.send_all(b"quit\n")
                await consumer.finished()
