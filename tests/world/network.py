"""The fake network: hosts, accounts and a directory, and everything that was ever emitted. A trio shell.

Owns which account lives where, what life events send and in which order (protocol.md 2.8), and the record of every
event, which is the oracle of what a relay must let out. Random life is `workload.py`.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import trio

from tests.world import frames, records
from tests.world.clock import Clock
from tests.world.keys import Curve, SigningKey
from tests.world.pds import FakeHost
from tests.world.plc import DidEntry, FakeDirectory, Form
from tests.world.queries import Hosted
from tests.world.repo import MadeCommit, Proof, Repo, Write

Expect = Literal["pass", "drop", "either"]
CONTENT = frozenset({"#commit", "#sync"})


@dataclass(frozen=True, slots=True)
class Emitted:
    """An event that a host stored, under its own number, and what a strict relay must do with it."""

    host: str
    seq: int
    kind: str
    did: str
    message: bytes
    expect: Expect


@dataclass(slots=True, eq=False)
class Account:
    """An account of the network. `host` and `handle` are the present ones."""

    did: str
    handle: str
    repo: Repo
    host: FakeHost

    @property
    def hosted(self) -> Hosted:
        """Its standing at its host."""
        return self.host.hosted[self.did]

    @property
    def active(self) -> bool:
        return self.did in self.host.hosted and self.hosted.active


class World:
    """The network. Make it with `await World.open(...)`, run `serve()` in a nursery; every method emits at once."""

    def __init__(
        self, *, rng: random.Random, clock: Clock, directory: FakeDirectory, hosts: Sequence[FakeHost]
    ) -> None:
        self.rng = rng
        self.clock = clock
        self.directory = directory
        self.hosts = list(hosts)
        self.accounts: dict[str, Account] = {}
        self.emitted: list[Emitted] = []
        """Every event in the order of emission; per host and per account that is the order of its stream."""
        self.expected: Counter[tuple[str, bool]] = Counter()
        """How many events a relay must let out, by DID and whether they are content (`#commit`, `#sync`)."""
        self.deleted: set[str] = set()
        """The DIDs of deleted accounts: a relay may hide content from before, also from those who lag a little."""

    @classmethod
    async def open(cls, *, seed: int, hosts: int, now_microseconds: int) -> "World":
        """`hosts` hosts and a directory, listening on loopback, without accounts."""
        opened = [await FakeHost.open() for _ in range(hosts)]
        return cls(
            rng=random.Random(seed),
            clock=Clock(now_microseconds=now_microseconds),
            directory=await FakeDirectory.open(),
            hosts=opened,
        )

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.directory.serve)
            for host in self.hosts:
                await nursery.start(host.serve)
            task_status.started()

    def relay_environment(self, data_dir: str) -> dict[str, str]:
        """The settings that point a relay at this network (its binds left out)."""
        return {
            "RELAY_PLC_URL": self.directory.url,
            "RELAY_ALLOW_PRIVATE_HOSTS": "true",
            "RELAY_BOOTSTRAP": "",
            "RELAY_ADMIN_PASSWORD": "admin",
            "RELAY_DATA_DIR": data_dir,
        }

    # emitting

    def emit(self, host: FakeHost, kind: str, payload: frames.Payload, *, expect: Expect = "pass") -> Emitted:
        """Store an event at a host, under the host's next number, whatever `payload` says of `seq`."""
        payload = payload | {"seq": host.last_seq + 1}
        return self.emit_message(host, kind, frames.frame(kind, payload), frames.did_of(kind, payload), expect)

    def emit_message(self, host: FakeHost, kind: str, message: bytes, did: str, expect: Expect = "pass") -> Emitted:
        """Store any message at a host, under the host's next number."""
        seq = host.emit(lambda _: message)
        emitted = Emitted(host.name, seq, kind, did, message, expect)
        self.emitted.append(emitted)
        self.expected[did, kind in CONTENT] += expect == "pass"
        return emitted

    def identity(self, account: Account, *, handle: str | None = None) -> Emitted:
        """An `#identity`."""
        payload = frames.identity_payload(account.did, seq=0, time=self.clock.datetime(), handle=handle)
        return self.emit(account.host, "#identity", payload)

    def account(self, account: Account, *, active: bool, status: str | None = None) -> Emitted:
        """Set the standing at the host and emit its `#account`."""
        account.hosted.active, account.hosted.status = active, status
        payload = frames.account_payload(account.did, seq=0, time=self.clock.datetime(), active=active, status=status)
        return self.emit(account.host, "#account", payload)

    def commit_made(self, account: Account, made: MadeCommit) -> Emitted:
        """Emit a commit that the account's repository made."""
        return self.emit(account.host, "#commit", frames.commit_payload(made, seq=0, time=self.clock.datetime()))

    def commit(self, account: Account, writes: Sequence[Write] | None = None, *, proof: Proof = "covering") -> Emitted:
        """Make and emit a commit; of one random write where none are given."""
        chosen = records.writes(self.rng, account.repo) if writes is None else writes
        return self.commit_made(account, account.repo.commit(chosen, proof=proof))

    def sync(self, account: Account) -> Emitted:
        """Emit the repository's state as `#sync`."""
        head = account.repo.head
        if head is None:
            raise ValueError("the repository has no commit")
        return self.emit(account.host, "#sync", frames.sync_payload(head, seq=0, time=self.clock.datetime()))

    # life

    def create_account(
        self,
        host: FakeHost,
        *,
        curve: Curve = "k256",
        form: Form = "multikey",
        preload: int = 0,
        announce: bool = True,
        did: str | None = None,
    ) -> Account:
        """A new account: identity, account, first commit, sync. Without `did` it gets a did:plc.

        With `preload` it comes with so many records, and no first commit is emitted. `announce=False` emits nothing.
        """
        did = records.plc_did(self.rng) if did is None else did
        account = Account(did, "", Repo(did=did, key=SigningKey.generate(self.rng, curve), clock=self.clock), host)
        account.handle = f"user{len(self.accounts)}.test"
        self.accounts[did] = account
        self.directory.put(DidEntry(did, account.repo.key, host.endpoint, account.handle, form))
        host.hosted[did] = Hosted(account.repo)
        if preload:
            account.repo.preload(records.stock(self.rng, self.clock, preload))
        if announce:
            self.identity(account, handle=account.handle)
            self.account(account, active=True)
            if not preload:
                self.commit(account, ())
            self.sync(account)
        return account

    def change_handle(self, account: Account, handle: str) -> Emitted:
        """Another handle in the document, and an `#identity` that tells it."""
        account.handle = handle
        self.directory.change(account.did, handle=handle)
        return self.identity(account, handle=handle)

    def rotate_key(self, account: Account, *, curve: Curve = "k256", tell: bool = True) -> Emitted:
        """Another signing key: `#identity` (unless not told), then the commit signed again.

        A relay that is behind, and meets commits of the old key after it asked the directory, must drop them: rotate
        when it has caught up.
        """
        account.repo.key = SigningKey.generate(self.rng, curve)
        self.directory.change(account.did, key=account.repo.key)
        if tell:
            self.identity(account, handle=account.handle)
        return self.commit(account, ())

    def migrate(self, account: Account, host: FakeHost) -> None:
        """Move to another host: account, identity and a sync of the commit signed anew, all at the new one.

        The old host keeps quiet (see `depart`). Migrate when the relay has caught up with the account.
        """
        standing = account.host.hosted.pop(account.did)
        account.host = host
        host.hosted[account.did] = standing
        account.repo.key = SigningKey.generate(self.rng, account.repo.key.curve)
        self.directory.change(account.did, endpoint=host.endpoint, key=account.repo.key)
        account.repo.commit()
        self.account(account, active=True)
        self.identity(account, handle=account.handle)
        self.sync(account)

    def depart(self, account: Account, former: FakeHost) -> Emitted:
        """The former host's `#account` after a migration, which a relay that knows of it drops."""
        payload = frames.account_payload(
            account.did, seq=0, time=self.clock.datetime(), active=False, status="deactivated"
        )
        return self.emit(former, "#account", payload, expect="drop")

    def deactivate(self, account: Account) -> Emitted:
        """The account's own pause."""
        return self.account(account, active=False, status="deactivated")

    def take_down(self, account: Account) -> Emitted:
        """The host's decision against the account."""
        return self.account(account, active=False, status="takendown")

    def reactivate(self, account: Account) -> Emitted:
        """Active again: account, and after a deactivation identity and sync too."""
        paused = account.hosted.status == "deactivated"
        emitted = self.account(account, active=True)
        if paused:
            self.identity(account, handle=account.handle)
            emitted = self.sync(account)
        return emitted

    def delete(self, account: Account) -> Emitted:
        """The account's end. Its earlier events stay in the host's log (a real PDS purges them: `FakeHost.log`)."""
        emitted = self.account(account, active=False, status="deleted")
        del account.host.hosted[account.did]
        self.deleted.add(account.did)
        del self.expected[account.did, True]
        return emitted
