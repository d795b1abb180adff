"""The one writer (trio): gives events their seqs and time_us, writes them with all that must agree, publishes.

Owns the inbox, the counters and the order write -> sync -> publish. An event, its account's row, the roster, its
host's cursor and the segment's size are one WriteBatch; nobody sees the event before that batch is synced
(DESIGN 1.2, 1.3). Does not judge events: validation did.
"""

import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import trio

from relay.atproto.cbor import uint
from relay.eventlog import keys
from relay.eventlog.accounts import Accounts
from relay.eventlog.errors import OutOfSpace
from relay.eventlog.hiding import Hidden
from relay.eventlog.hosts import HostRows
from relay.eventlog.keys import Counters
from relay.eventlog.records import AccountRecord, HostStatus
from relay.eventlog.retention import Retention
from relay.eventlog.segments import Segments
from relay.eventlog.store import RESUME_BYTES, Family, Row, Store
from relay.eventlog.tail import Tail, TailRow
from relay.eventlog.verdict import Accept, Drop, DropReason, Irregularity

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SequencerLimits:
    """Bounds of the inbox and of a batch; `sync_interval_seconds` is the least time between two syncs."""

    inbox_events_max: int = 2048
    inbox_bytes_max: int = 8 << 20
    batch_bytes_max: int = 1 << 20
    sync_interval_seconds: float = 0.010
    cursor_interval_seconds: float = 1.0
    full_disk_retry_seconds: float = 1.0


class _Pending(NamedTuple):
    """An accepted event in the inbox, with its account's record after it and before it."""

    accept: Accept
    record: AccountRecord
    previous: AccountRecord | None


@dataclass(slots=True)
class _Batch:
    """What one write and one sync carry."""

    first_seq: int
    rows: list[Row]
    published: list[TailRow]
    accounts: dict[str, AccountRecord]
    hides: list[tuple[bytes, int]]
    waiters: list[trio.Event]


class Sequencer:
    """Accepts verdicts without waiting, writes them in the background; `has_room` says when to stop sending."""

    def __init__(
        self,
        *,
        store: Store,
        segments: Segments,
        accounts: Accounts,
        hosts: HostRows,
        tail: Tail,
        hidden: Hidden,
        retention: Retention,
        counters: Counters,
        limits: SequencerLimits,
        now_us: Callable[[], int],
    ) -> None:
        self._store = store
        self._segments = segments
        self._accounts = accounts
        self._hosts = hosts
        self._tail = tail
        self._hidden = hidden
        self._retention = retention
        self._limits = limits
        self._now_us = now_us
        self._next_seq, self._next_ordinal, self._last_time_us = counters
        self._inbox: deque[_Pending] = deque()
        self._inbox_bytes = 0
        self._dirty_hosts: set[str] = set()
        self._waiters: list[trio.Event] = []
        self._work = trio.Event()
        self._room = trio.Event()
        self._drops: Counter[DropReason] = Counter(dict.fromkeys(DropReason, 0))
        self._drops_by_host: dict[str, Counter[DropReason]] = {}
        self.sequenced: Counter[keys.EventKind] = Counter(dict.fromkeys(keys.EventKind, 0))
        self.irregularities: Counter[Irregularity] = Counter(dict.fromkeys(Irregularity, 0))
        self.syncs = 0
        self._unwritten: _Batch | None = None
        self._full_since: float | None = None
        self._accounts_family = store.family(keys.ACCOUNTS)
        self._roster_family = store.family(keys.ROSTER)
        self._hosts_family = store.family(keys.HOSTS)
        self._hidden_family = store.family(keys.HIDDEN)
        self._meta_family = store.family(keys.META)

    # what others send

    def submit(self, verdict: Accept | Drop) -> None:
        """Take an event to write, or a drop to count. Never waits; ask `has_room` before reading more."""
        if isinstance(verdict, Drop):
            verdict.origin.finish()
            self.count_drop(verdict.origin.host, verdict.reason)
            return
        self._inbox.append(self._move_account(verdict))
        self._inbox_bytes += len(verdict.head) + len(verdict.tail)
        self._work.set()

    def cursor_moved(self, host: str) -> None:
        """A host's progress changed without an event: its row is to be written soon."""
        self._dirty_hosts.add(host)
        self._work.set()

    def count_drop(self, host: str, reason: DropReason) -> None:
        """Count a drop; on its own for messages that have no usable seq."""
        self._drops[reason] += 1
        by_host = self._drops_by_host.get(host)
        if by_host is None:
            by_host = self._drops_by_host[host] = Counter()
        by_host[reason] += 1
        self.cursor_moved(host)

    def has_room(self) -> bool:
        """Whether the inbox takes more."""
        return len(self._inbox) < self._limits.inbox_events_max and self._inbox_bytes < self._limits.inbox_bytes_max

    async def wait_room(self) -> None:
        """Return when `has_room`."""
        await trio.lowlevel.checkpoint()
        while not self.has_room():
            await self._room.wait()

    async def add_host(self, name: str) -> None:
        """Make a host known; returns when that is synced."""
        self._hosts.add(name)
        await self._synced(name)

    async def set_host_status(self, name: str, status: HostStatus) -> None:
        """Change a known host's status; returns when that is synced."""
        self._hosts.set_status(name, status)
        await self._synced(name)

    async def _synced(self, host: str) -> None:
        done = trio.Event()
        self._waiters.append(done)
        self.cursor_moved(host)
        await done.wait()

    # what others read

    @property
    def drops(self) -> Mapping[DropReason, int]:
        """Drops by reason since the start; every reason is there."""
        return self._drops

    def drops_by_host(self, name: str) -> Mapping[DropReason, int]:
        """One host's drops by reason since the start."""
        return self._drops_by_host.get(name, Counter())

    # the one writer

    def _move_account(self, accept: Accept) -> _Pending:
        """The event's account is in its new state from now on; the rows follow in the event's batch."""
        record = accept.account
        previous = self._accounts.get(accept.did)
        if previous is None:
            record = replace(record, ordinal=self._next_ordinal)
            self._next_ordinal += 1
        elif record.ordinal != previous.ordinal:
            record = replace(record, ordinal=previous.ordinal)
        self._accounts.put(accept.did, record)
        return _Pending(accept, record, previous)

    async def run(self) -> None:
        """Write until cancelled; what is in the inbox then is lost unless `flush` is called after."""
        while True:
            await self._wait_work()
            try:
                await self._write_batch()
            except OutOfSpace as error:
                self._note_full_disk(error)
                await trio.sleep(self._limits.full_disk_retry_seconds)
            else:
                await trio.sleep(self._limits.sync_interval_seconds)

    async def flush(self) -> None:
        """Write all that has been submitted. For shutdown, after `run` has ended.

        Not on a full disk: what is left then is unfinished and comes again from its hosts.
        """
        with trio.CancelScope(shield=True):
            try:
                while self._unwritten or self._inbox or self._dirty_hosts or self._waiters:
                    await self._write_batch()
            except OutOfSpace as error:
                _logger.error("disk full, stopping without the last events: %s", error)

    def _note_full_disk(self, error: OutOfSpace) -> None:
        if self._full_since is None:
            self._full_since = trio.current_time()
            _logger.error("disk full, ingest waits for %d MiB of free space: %s", RESUME_BYTES >> 20, error)

    async def _wait_work(self) -> None:
        """Until there is an event or somebody waits; cursors alone wait a little for company."""
        deadline = math.inf
        while not (self._unwritten or self._inbox or self._waiters):
            if self._dirty_hosts and deadline == math.inf:
                deadline = trio.current_time() + self._limits.cursor_interval_seconds
            with trio.move_on_at(deadline) as scope:
                await self._work.wait()
            self._work = trio.Event()
            if scope.cancelled_caught:
                return

    async def _write_batch(self) -> None:
        """Write, sync and publish one batch: the one that found no room on the disk, with its seqs, or the next."""
        batch = self._unwritten = self._unwritten or self._plan()
        with trio.CancelScope(shield=True):  # a batch that was begun is published: its seqs are taken
            self._store.write(batch.rows)
            await trio.to_thread.run_sync(self._store.sync)
        self.syncs += 1
        self._unwritten = None
        if self._full_since is not None:
            _logger.warning("disk has room again after %.0f s", trio.current_time() - self._full_since)
            self._full_since = None
        self._accounts.written(batch.accounts)
        for did, below in batch.hides:
            self._hidden.hide(did, below)
        if batch.published:
            self._tail.publish(batch.first_seq, batch.published)
        for waiter in batch.waiters:
            waiter.set()

    def _plan(self) -> _Batch:
        """Take what fits from the inbox and lay out its rows; seqs and times are given here."""
        now_us = self._now_us()
        rows = self._turn_segments(now_us)
        first_time_us = max(now_us, self._last_time_us + 1)
        batch = _Batch(self._next_seq, rows, [], {}, [], self._waiters)
        self._waiters = []
        value_bytes = 0
        segment = self._segments.newest()
        while self._inbox and value_bytes < self._limits.batch_bytes_max:
            value_bytes += self._plan_event(batch, segment, now_us)
        if batch.published:
            rows.append(self._segments.grow(value_bytes, first_time_us, self._last_time_us))
        for did, record in batch.accounts.items():
            rows.append((self._accounts_family, did.encode(), keys.encode_account(record)))
        for name in self._dirty_hosts:
            host = self._hosts.get(name)
            if host is not None:
                rows.append((self._hosts_family, name.encode(), keys.encode_host(host)))
        self._dirty_hosts.clear()
        counters = Counters(self._next_seq, self._next_ordinal, self._last_time_us)
        rows.append((self._meta_family, keys.META_COUNTERS, keys.encode_counters(counters)))
        self._give_room()
        return batch

    def _plan_event(self, batch: _Batch, segment: Family, now_us: int) -> int:
        """Number the inbox's first event and add its rows; returns the size of its value in bytes."""
        accept, record, previous = self._inbox.popleft()
        self._inbox_bytes -= len(accept.head) + len(accept.tail)
        seq = self._next_seq
        self._next_seq += 1
        time_us = max(now_us, self._last_time_us + 1)
        self._last_time_us = time_us + max(accept.ops, 1) - 1
        did = accept.did.encode()
        number = uint(seq)
        frame = b"".join(
            (
                keys.socket_frame_head(len(accept.head) + len(number) + len(accept.tail)),
                accept.head,
                number,
                accept.tail,
            )
        )
        value = keys.encode_event_head(time_us, accept.kind, did) + frame
        batch.rows.append((segment, keys.u64(seq), value))
        batch.published.append(TailRow(accept.kind, did, frame))
        batch.accounts[accept.did] = record
        self._count_account(record, previous)
        if previous is None:
            batch.rows.append((self._roster_family, keys.u64(record.ordinal), did))
        if accept.hides:
            batch.hides.append((did, seq))
            batch.rows.append((self._hidden_family, did, keys.u64(seq)))
        if accept.origin is not None:
            accept.origin.finish()
            self._dirty_hosts.add(accept.origin.host)
        self.sequenced[accept.kind] += 1
        for irregularity in accept.irregularities:
            self.irregularities[irregularity] += 1
        return len(value)

    def _count_account(self, record: AccountRecord, previous: AccountRecord | None) -> None:
        """Living accounts per host, counted in the batch that changes them."""
        before = previous.host if previous is not None and _is_living(previous) else None
        after = record.host if _is_living(record) else None
        if before == after:
            return
        for name, change in ((before, -1), (after, +1)):
            if name is not None:
                self._hosts.count_account(name, change)
                self._dirty_hosts.add(name)

    def _turn_segments(self, now_us: int) -> list[Row]:
        """Begin a new segment when the newest is full, drop those that have left the window."""
        rows: list[Row] = []
        if self._inbox and self._retention.is_full(self._segments, now_us):
            try:
                self._segments.begin(self._next_seq)
            except OutOfSpace as error:  # the segment goes on; the next one is tried at a later seq
                _logger.warning("disk full: %s", error)
        while self._retention.has_expired(self._segments, now_us):
            rows.append(self._segments.drop_oldest())
            gone = self._hidden.expired(self._segments.oldest)
            rows += [(self._hidden_family, did, None) for did in gone]
        return rows

    def _give_room(self) -> None:
        room, self._room = self._room, trio.Event()
        room.set()


def _is_living(record: AccountRecord) -> bool:
    """Whether the account counts for its host: all but deleted ones do."""
    return record.upstream_status != "deleted"
