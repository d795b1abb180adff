"""Opening the log (shell): finds where it ended and hands out its parts, wired.

Owns nothing at run time: `EventLog` is a bundle. Recovery is reading: the newest row, the counters, the hidden
accounts, the hosts. A database that was copied back from elsewhere is not handled here.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from relay.eventlog import keys
from relay.eventlog.accounts import Accounts
from relay.eventlog.errors import StoreError
from relay.eventlog.hiding import Hidden
from relay.eventlog.hosts import HostRows
from relay.eventlog.keys import Counters
from relay.eventlog.reader import Reader
from relay.eventlog.retention import Retention
from relay.eventlog.segments import Segments
from relay.eventlog.sequencer import Sequencer, SequencerLimits
from relay.eventlog.store import Store
from relay.eventlog.tail import Tail

_RETENTION_SHARE_OF_DISK = 0.6


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Sizes of the log's parts, in bytes and entries."""

    block_cache_bytes: int = 32 << 20
    write_buffer_bytes: int = 64 << 20
    wal_bytes_max: int = 256 << 20
    tail_bytes_max: int = 32 << 20
    account_cache_entries_max: int = 100_000
    limits: SequencerLimits = field(default_factory=SequencerLimits)


@dataclass(frozen=True, slots=True)
class EventLog:
    """The log's parts. `sequencer.run` must run somewhere; close with `store.close()`."""

    store: Store
    segments: Segments
    accounts: Accounts
    hosts: HostRows
    reader: Reader
    sequencer: Sequencer


def open_log(
    path: Path,
    *,
    retention_hours: float,
    retention_bytes: int | None,
    settings: LogSettings,
    now_us: Callable[[], int],
) -> EventLog:
    """Open or create the log under `path`. `retention_bytes` None: 60 % of the file system as it was at first start.

    Raises:
        StoreError: not ours, of another format, locked by another process, or contradicting itself.
    """
    store = Store(
        path,
        block_cache_bytes=settings.block_cache_bytes,
        write_buffer_bytes=settings.write_buffer_bytes,
        wal_bytes_max=settings.wal_bytes_max,
    )
    retention = Retention(retention_hours, retention_bytes or _default_retention_bytes(store, path))
    segments = Segments(store)
    counters = _recover_counters(store, segments)
    segments.drop_half_begun(counters.next_seq)
    if not segments.first_seqs:
        segments.begin(counters.next_seq)
    hidden = Hidden((did, keys.from_u64(below)) for did, below in store.family(keys.HIDDEN).items())
    accounts = Accounts(store, cache_entries_max=settings.account_cache_entries_max)
    hosts = HostRows(store)
    tail = Tail(head=counters.next_seq - 1, bytes_max=settings.tail_bytes_max, hidden=hidden)
    sequencer = Sequencer(
        store=store,
        segments=segments,
        accounts=accounts,
        hosts=hosts,
        tail=tail,
        hidden=hidden,
        retention=retention,
        counters=counters,
        limits=settings.limits,
        now_us=now_us,
    )
    return EventLog(store, segments, accounts, hosts, Reader(store, segments, tail, hidden), sequencer)


def _default_retention_bytes(store: Store, path: Path) -> int:
    """Fixed at first start: a window that shrinks because something else fills the disk would surprise."""
    meta = store.family(keys.META)
    stored = meta.get(keys.META_RETENTION_BYTES)
    if stored is not None:
        return keys.from_u64(stored)
    chosen = int(shutil.disk_usage(path).total * _RETENTION_SHARE_OF_DISK)
    store.write([(meta, keys.META_RETENTION_BYTES, keys.u64(chosen))])
    return chosen


def _recover_counters(store: Store, segments: Segments) -> Counters:
    """The stored counters, held against the newest event row: one batch wrote both."""
    stored = store.family(keys.META).get(keys.META_COUNTERS)
    counters = Counters(1, 1, 0) if stored is None else keys.decode_counters(stored)
    last = segments.last_row()
    if last is not None and last[0] != counters.next_seq - 1:
        raise StoreError(f"the newest event has seq {last[0]}, but {counters.next_seq} was to come next")
    return counters
