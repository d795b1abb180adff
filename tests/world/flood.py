"""A prepared load: accounts and their framed commits, made before any clock starts. Pure.

Owns making them from a seed and keeping them in a file. Says nothing of ports: documents are made when hosts exist.
"""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cbor2

from tests.world import records
from tests.world import websocket as ws
from tests.world.clock import Clock
from tests.world.event_log import Entry
from tests.world.frames import commit_frame
from tests.world.keys import Curve, SigningKey
from tests.world.repo import Proof, Repo
from tests.world.workload import WRITES_PER_COMMIT, WRITES_WEIGHTS


@dataclass(frozen=True, slots=True)
class Plan:
    """What to make. `records` is how many an account has at the start."""

    seed: int
    commits: int
    accounts: int
    hosts: int
    records: int
    curve: Curve
    proof: Proof


@dataclass(frozen=True, slots=True)
class LoadAccount:
    """An account of the load; `host` is an index."""

    did: str
    key: SigningKey
    host: int


@dataclass(frozen=True, slots=True)
class Flood:
    """`warm_up` has one commit of each account, `main` the planned number; each is (host index, entry) in order."""

    accounts: Sequence[LoadAccount]
    warm_up: Sequence[tuple[int, Entry]]
    main: Sequence[tuple[int, Entry]]


def make_flood(plan: Plan, *, now_microseconds: int) -> Flood:
    """All accounts and commits of a plan; revisions end near `now_microseconds`."""
    rng = random.Random(plan.seed)
    step = 1000
    start = now_microseconds - 4 * step * (plan.commits + plan.accounts)
    clock = Clock(now_microseconds=start, step_microseconds=step)
    accounts, repos = [], []
    for index in range(plan.accounts):
        key = SigningKey.generate(rng, plan.curve)
        repo = Repo(did=records.plc_did(rng), key=key, clock=clock)
        repo.preload(records.stock(rng, clock, plan.records))
        accounts.append(LoadAccount(repo.did, key, index % plan.hosts))
        repos.append(repo)
    seqs = [0] * plan.hosts

    def commit(index: int) -> tuple[int, Entry]:
        host, repo = accounts[index].host, repos[index]
        seqs[host] += 1
        count = rng.choices(WRITES_PER_COMMIT, WRITES_WEIGHTS)[0]
        made = repo.commit(records.writes(rng, repo, count=count), proof=plan.proof)
        message = commit_frame(made, seq=seqs[host], time=clock.datetime())
        return host, Entry(seqs[host], ws.binary(message))

    warm_up = [commit(index) for index in range(plan.accounts)]
    return Flood(accounts, warm_up, [commit(rng.randrange(plan.accounts)) for _ in range(plan.commits)])


def messages(flood: Flood) -> list[bytes]:
    """The messages of warm-up and main part, without their WebSocket framing."""
    entries = [entry for _, entry in (*flood.warm_up, *flood.main)]
    return [next(ws.FrameReader().feed(entry.wire)).payload for entry in entries]


def dump(plan: Plan, flood: Flood) -> bytes:
    """The bytes of a cache file."""
    value: dict[str, Any] = {
        "plan": asdict(plan),
        "accounts": [[account.did, account.key.curve, account.key.secret, account.host] for account in flood.accounts],
        "warm_up": [[host, entry.seq, entry.wire] for host, entry in flood.warm_up],
        "main": [[host, entry.seq, entry.wire] for host, entry in flood.main],
    }
    return cbor2.dumps(value)


def restore(data: bytes) -> tuple[Plan, Flood]:
    """The plan and load of a cache file's bytes."""
    value = cbor2.loads(data)
    accounts = [LoadAccount(did, SigningKey(curve, secret), host) for did, curve, secret, host in value["accounts"]]
    parts = [[(host, Entry(seq, wire)) for host, seq, wire in value[name]] for name in ("warm_up", "main")]
    return Plan(**value["plan"]), Flood(accounts, *parts)
