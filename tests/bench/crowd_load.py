"""Accounts by the ten thousand, with real signed commits, made in a minute. Pure.

Trees are the dear part: some repositories are made whole, and every account copies the life of one of them, signed by
its own key under its own DID. Numbers are given when an event is emitted.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from relay.atproto.frames import split_at_seq
from tests.world import records
from tests.world.clock import Clock
from tests.world.frames import commit_frame
from tests.world.ipld import cid_of
from tests.world.keys import SigningKey
from tests.world.repo import MadeCommit, Repo, sign_commit, unsigned_commit
from tests.world.workload import WRITES_PER_COMMIT, WRITES_WEIGHTS

_SCRIPTS = 40
_RECORDS = 400


@dataclass(frozen=True, slots=True)
class Account:
    """One account; `host` is an index."""

    did: str
    key: SigningKey
    host: int


@dataclass(frozen=True, slots=True)
class Event:
    """A commit without its number: `head + number + tail` is the message."""

    host: int
    head: bytes
    tail: bytes


class CrowdLoad:
    """Accounts spread evenly over hosts; every call of `next_events` goes on where the one before stopped."""

    def __init__(self, *, seed: int, accounts: int, hosts: int, commits_each: int, now_microseconds: int) -> None:
        rng = random.Random(seed)
        self._clock = Clock(now_microseconds=now_microseconds - 1000 * _SCRIPTS * (commits_each + _RECORDS))
        self._scripts = [_script(rng, self._clock, commits_each) for _ in range(_SCRIPTS)]
        self.accounts = [
            Account(records.plc_did(rng), SigningKey.generate(rng), index % hosts) for index in range(accounts)
        ]
        self._done = [0] * accounts

    def next_event(self, account: int) -> Event:
        """The account's next commit. Raises IndexError after its last one."""
        made = self._scripts[account % _SCRIPTS][self._done[account]]
        self._done[account] += 1
        message = commit_frame(_resigned(made, self.accounts[account]), seq=1, time=self._clock.datetime())
        head, tail = split_at_seq(message)
        return Event(self.accounts[account].host, head, tail)

    def next_events(self, accounts: Sequence[int], count: int) -> Iterator[Event]:
        """`count` commits of these accounts, in turn."""
        for number in range(count):
            yield self.next_event(accounts[number % len(accounts)])


def _script(rng: random.Random, clock: Clock, commits: int) -> list[MadeCommit]:
    repo = Repo(did=records.plc_did(rng), key=SigningKey.generate(rng), clock=clock)
    repo.preload(records.stock(rng, clock, _RECORDS))
    counts = rng.choices(WRITES_PER_COMMIT, WRITES_WEIGHTS, k=commits)
    return [repo.commit(records.writes(rng, repo, count=count)) for count in counts]


def _resigned(made: MadeCommit, account: Account) -> MadeCommit:
    block = sign_commit(account.key, unsigned_commit(did=account.did, rev=made.rev, data=made.data))
    blocks = (*made.blocks[:-1], (cid_of(block), block))
    return replace(made, did=account.did, commit=cid_of(block), commit_block=block, blocks=blocks)
