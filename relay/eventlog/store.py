"""The RocksDB handle (shell, no trio): options, column families, format version, writes and syncs.

Owns the one open database. Does not know what a row means (`keys.py`) nor when to write (`sequencer.py`).
`write` and single gets hold the interpreter lock for microseconds and run on the loop; `sync` blocks on the disk
and is meant for a thread (measured: `flush_wal` releases the lock, a synced write does not).
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
)

from relay.eventlog import keys
from relay.eventlog.errors import OutOfSpace, StoreError

_logger = logging.getLogger(__name__)

_MIB = 1 << 20
_EVENTS_BUFFER_BYTES = 32 * _MIB
# After a full disk RocksDB goes on by itself once so much is free: the largest write buffer of any family.
RESUME_BYTES = _EVENTS_BUFFER_BYTES


class Family:
    """One column family: point reads and single writes by bytes."""

    __slots__ = ("_rdict", "handle", "name")

    def __init__(self, database: Rdict, name: str) -> None:
        self.name = name
        self.handle = database.get_column_family_handle(name)
        self._rdict = database.get_column_family(name)

    def get(self, key: bytes) -> bytes | None:
        """The value under `key`, or None."""
        with _translated("read"):
            value: bytes | None = self._rdict.get(key)
        return value

    def put(self, key: bytes, value: bytes) -> None:
        """Write one row, unsynced, or not at all while the disk is full.

        For rows that may be missing or old and need not agree with others; those go through a batch.
        """
        with suppress(OutOfSpace), _translated("put"):
            self._rdict.put(key, value)

    def delete(self, key: bytes) -> None:
        """Remove one row, unsynced, or not at all while the disk is full."""
        with suppress(OutOfSpace), _translated("delete"):
            self._rdict.delete(key)

    def items(self, from_key: bytes | None = None, *, backwards: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Rows from `from_key` on (the next one where it does not exist), in key order."""
        last = None
        rows = cast(Iterator[tuple[bytes, bytes]], self._rdict.items(from_key=from_key, backwards=backwards))
        for row in rows:
            last = row[0]
            yield row
        self._check_end(from_key if last is None else last, is_row=last is not None, backwards=backwards)

    def _check_end(self, at: bytes | None, *, is_row: bool, backwards: bool) -> None:
        """The iterator above ends in silence where a block is unreadable: look again, with one that tells."""
        iterator = self._rdict.iter()
        with _translated("read"):
            if at is None:
                (iterator.seek_to_last if backwards else iterator.seek_to_first)()
            else:
                (iterator.seek_for_prev if backwards else iterator.seek)(at)
            if is_row and iterator.valid():
                (iterator.prev if backwards else iterator.next)()
            iterator.status()

    def release(self) -> None:
        """Let go of the database; any use after this is an AttributeError."""
        del self.handle, self._rdict


Row = tuple[Family, bytes, bytes | None]


class Store:
    """The open database. `close` it last; a second process is kept out by RocksDB's lock file."""

    def __init__(self, path: Path, *, block_cache_bytes: int, write_buffer_bytes: int, wal_bytes_max: int) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._cache = Cache(block_cache_bytes)
        options = self._database_options(write_buffer_bytes, wal_bytes_max)
        with _translated(f"cannot open {path}"):
            existing = Rdict.list_cf(str(path), options) if (path / "CURRENT").exists() else []
            names = {*keys.FIXED_FAMILIES, *(name for name in existing if name != "default")}
            self._database = Rdict(
                str(path),
                options,
                column_families={name: self._family_options(name) for name in names},
                access_type=AccessType.read_write(),
            )
        self._families = {name: Family(self._database, name) for name in names}
        self._check_format(path)

    def _database_options(self, write_buffer_bytes: int, wal_bytes_max: int) -> Options:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.create_missing_column_families(True)
        # A barely written family pins the write-ahead log until it is flushed: bound both (DESIGN 5).
        options.set_db_write_buffer_size(write_buffer_bytes)
        options.set_max_total_wal_size(wal_bytes_max)
        options.set_write_buffer_size(8 * _MIB)  # of the default family, which is never written
        options.set_max_open_files(512)
        options.set_keep_log_file_num(3)
        options.set_max_log_file_size(_MIB)
        options.set_stats_dump_period_sec(0)
        return options

    def _family_options(self, name: str) -> Options:
        options = Options(raw_mode=True)
        table = BlockBasedOptions()
        table.set_block_cache(self._cache)
        if keys.segment_first_seq(name) is not None:
            # Written once in key order, read by scans, dropped whole: nothing to compress away (hashes) or compact.
            table.set_block_size(64 * 1024)
            options.set_compression_type(DBCompressionType.none())
            options.set_write_buffer_size(_EVENTS_BUFFER_BYTES)
            options.set_target_file_size_base(64 * _MIB)
        else:
            table.set_bloom_filter(10, False)
            options.set_compression_type(DBCompressionType.lz4())
            options.set_write_buffer_size(8 * _MIB)
        options.set_block_based_table_factory(table)
        return options

    def _check_format(self, path: Path) -> None:
        meta = self.family(keys.META)
        stored = meta.get(keys.META_FORMAT)
        expected = str(keys.FORMAT_VERSION).encode()
        if stored is None and not self._database.latest_sequence_number():  # nothing was ever written
            self.write([(meta, keys.META_FORMAT, expected)])
            self.sync()
        elif stored != expected:
            self.close()
            found = "none" if stored is None else stored.decode(errors="replace")
            raise StoreError(f"{path} has format {found}; this relay reads format {keys.FORMAT_VERSION}")

    def family(self, name: str) -> Family:
        """A column family that exists."""
        return self._families[name]

    def segments(self) -> list[int]:
        """The first seqs of the log's segments, ascending."""
        found = (keys.segment_first_seq(name) for name in self._families)
        return sorted(first_seq for first_seq in found if first_seq is not None)

    def segment(self, first_seq: int) -> Family:
        """The segment that begins at `first_seq`."""
        return self._families[keys.segment_family(first_seq)]

    def create_segment(self, first_seq: int) -> Family:
        """Begin a segment (2-3 ms).

        Raises:
            OutOfSpace: the file system is full; an empty family may have come into being all the same.
            StoreError: anything else.
        """
        name = keys.segment_family(first_seq)
        with _translated("begin a segment"):
            self._database.create_column_family(name, self._family_options(name))
        family = self._families[name] = Family(self._database, name)
        return family

    def drop_segment(self, first_seq: int) -> None:
        """Give a segment's space back; an iterator that is open on it reads on to its end.

        On a full disk RocksDB may fail to note that down: then the segment may be there again at the next start.
        """
        name = keys.segment_family(first_seq)
        del self._families[name]
        with suppress(OutOfSpace), _translated("drop a segment"):
            self._database.drop_column_family(name)

    def write(self, rows: Iterable[Row]) -> None:
        """Write all rows or none, unsynced. A value of None deletes.

        Raises:
            OutOfSpace: the file system is full; nothing was written.
            StoreError: anything else.
        """
        batch = WriteBatch(raw_mode=True)
        for family, key, value in rows:
            if value is None:
                batch.delete(key, family.handle)
            else:
                batch.put(key, value, family.handle)
        with _translated("write"):
            self._database.write(batch)

    def sync(self) -> None:
        """Return when every earlier write is on the disk. Blocks; releases the interpreter lock.

        Raises:
            OutOfSpace: the file system is full.
            StoreError: anything else.
        """
        with _translated("sync"):
            self._database.flush_wal(True)

    def close(self) -> None:
        """Close. The lock file is free once every handle and iterator is gone, so no family is usable after.

        RocksDB flushes what it has in memory; where it cannot, the write-ahead log has it for the next start.
        """
        for family in self._families.values():
            family.release()
        self._families.clear()
        try:
            with _translated("close"):
                self._database.close()
        except StoreError as error:
            _logger.warning("closed without a last flush: %s", error)


@contextmanager
def _translated(action: str) -> Iterator[None]:
    """RocksDB's errors come as bare exceptions with a text."""
    try:
        yield
    except Exception as error:
        text = str(error)
        kind = OutOfSpace if "No space left" in text else StoreError
        hint = "another process uses it: " if "While lock file" in text else ""
        raise kind(f"{action}: {hint}{text}") from error
