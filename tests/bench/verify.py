"""What verifying one commit costs, step by step, on the fast road and on the general one. No process, no socket.

    python -m tests.bench.verify --commits 200

Prints JSON: microseconds of each step, as the median over the commits of the best of some runs. `small` commits are
those of the fake network (3.3 kB), `production` ones have about the size of the real network's (5.1 kB, 10.5 blocks,
8.5 nodes with 39 entries; measurements.md 2). No verdict: numbers to compare on one machine, the yardstick beside them.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from random import Random

from relay.atproto import canonical, car, commit, frames, inversion, splice
from relay.atproto.events import CommitEvent
from relay.atproto.keys import VerifyingKey, parse_did_key
from tests.bench.facts import k256_verification_us, machine_facts
from tests.world import records
from tests.world.clock import Clock
from tests.world.frames import commit_frame
from tests.world.keys import SigningKey
from tests.world.repo import Repo

_NODE_START = b"\xa2ae"
_RUNS = 7
# Records that a repository has at the start: its depth, and with it the size of the proofs, grows with their logarithm.
_REPOSITORIES = {"small": (200, 400), "production": (8_000, 40_000)}

Steps = Iterator[tuple[str, float]]


def main() -> None:
    """Measure both kinds of commits and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=200, help="commits of each kind")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = Random(arguments.seed)
    signing_key = SigningKey.generate(rng)
    key = parse_did_key(signing_key.did_key)
    result: dict[str, object] = {
        "machine": machine_facts(),
        "k256_verification_us": round(k256_verification_us(signing_key), 1),
    }
    for kind, sizes in _REPOSITORIES.items():
        messages = [
            message for size in sizes for message in _messages(rng, signing_key, size, arguments.commits // len(sizes))
        ]
        result[kind] = {
            "commits": len(messages),
            "mean": _shape(messages),
            "fast_us": _medians(messages, lambda message: _fast_steps(message, key)),
            "general_us": _medians(messages, lambda message: _general_steps(message, key)),
            "proven_by_the_fast_road": sum(_is_proven(message) for message in messages) / len(messages),
        }
    json.dump(result, sys.stdout, indent=2)
    print()


def _messages(rng: Random, key: SigningKey, size: int, count: int) -> list[bytes]:
    clock = Clock(now_microseconds=1_750_000_000_000_000)
    repo = Repo(did=records.plc_did(rng), key=key, clock=clock)
    repo.preload(records.stock(rng, clock, size))
    return [
        commit_frame(repo.commit(records.writes(rng, repo)), seq=10_000_000 + at, time=clock.datetime())
        for at in range(count)
    ]


def _event(message: bytes) -> CommitEvent:
    event = frames.parse(message)
    assert isinstance(event, CommitEvent)
    return event


def _shape(messages: list[bytes]) -> dict[str, float]:
    """The mean size of the commits."""
    blocks = [car.read(_event(message).blocks).blocks.values() for message in messages]
    nodes = [[block for block in each if block.startswith(_NODE_START)] for each in blocks]
    entries = [sum(node.count(b"\xa4ak") for node in each) for each in nodes]
    means = {"bytes": map(len, messages), "blocks": map(len, blocks), "nodes": map(len, nodes), "entries": entries}
    return {name: round(statistics.mean(values), 1) for name, values in means.items()}


def _is_proven(message: bytes) -> bool:
    event = canonical.commit_event(message)
    found = None if event is None else canonical.car_blocks(event.blocks)
    signed = None if found is None else canonical.commit_object(found[1][found[0]])
    return (
        event is not None
        and found is not None
        and signed is not None
        and splice.proves(found[1], signed.data, event.prev_data, event.ops)
    )


def _medians(messages: list[bytes], steps: Callable[[bytes], Steps]) -> dict[str, float]:
    """Of each step and of their sum."""
    best: dict[str, list[float]] = {}
    for message in messages:
        runs = [dict(steps(message)) for _ in range(_RUNS)]
        for name in runs[0]:
            best.setdefault(name, []).append(min(run[name] for run in runs))
        best.setdefault("total", []).append(min(sum(run.values()) for run in runs))
    return {name: round(statistics.median(seconds) * 1e6, 1) for name, seconds in best.items()}


def _fast_steps(message: bytes, key: VerifyingKey) -> Steps:
    """(step, seconds) of one verification."""
    started = time.perf_counter()
    event = canonical.commit_event(message)
    yield "frame", time.perf_counter() - started
    assert event is not None
    started = time.perf_counter()
    found = canonical.car_blocks(event.blocks)
    yield "car", time.perf_counter() - started
    assert found is not None
    root, blocks = found
    started = time.perf_counter()
    signed = canonical.commit_object(blocks[root])
    yield "commit_object", time.perf_counter() - started
    assert signed is not None
    started = time.perf_counter()
    valid = key.verify(signed.unsigned, signed.sig)
    yield "signature", time.perf_counter() - started
    assert valid
    started = time.perf_counter()
    splice.proves(blocks, signed.data, event.prev_data, event.ops)
    yield "tree", time.perf_counter() - started


def _general_steps(message: bytes, key: VerifyingKey) -> Steps:
    """(step, seconds) of one verification."""
    started = time.perf_counter()
    event = _event(message)
    yield "frame", time.perf_counter() - started
    started = time.perf_counter()
    read = car.read(event.blocks)
    yield "car", time.perf_counter() - started
    started = time.perf_counter()
    signed = commit.parse(read.blocks[read.roots[0]])
    yield "commit_object", time.perf_counter() - started
    started = time.perf_counter()
    valid = key.verify(signed.unsigned, signed.sig)
    yield "signature", time.perf_counter() - started
    assert valid
    started = time.perf_counter()
    inversion.check(read.blocks, signed.data, event.prev_data, event.ops)
    yield "tree", time.perf_counter() - started


if __name__ == "__main__":
    main()
