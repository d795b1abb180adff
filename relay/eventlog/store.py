"""The RocksDB handle (shell, no trio): options, column families, format version, writes and syncs.

Owns the one open database. Does not know what a row means (`keys.py`) nor when to write (`sequencer.py`).
`write` and single gets hold the interpreter lock for microseconds and run on the loop; `sync` blocks on the disk
and is meant for a thread (measured: `flush_wal` releases the lock, a synced write does not).
"""

from collections.abc import Iterable, Iterator
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

_MIB = 1 << 20


class StoreError(Exception):
    """Our own storage failed or is not what it should be: the process must end."""


class OutOfSpace(StoreError):
    """The file system is full: the same write may be tried again."""


class Family:
    """One column family: point reads and single writes by bytes."""

    __slots__ = ("_rdict", "handle", "name")

    def __init__(self, database: Rdict, name: str) -> None:
        self.name = name
        self.handle = database.get_column_family_handle(name)
        self._rdict = database.get_column_family(name)

    def get(self, key: bytes) -> bytes | None:
        """The value under `key`, or None."""
        value: bytes | None = self._rdict.get(key)
        return value

    def put(self, key: bytes, value: bytes) -> None:
        """Write one row, unsynced. For rows that need not agree with others; those go through a batch."""
        self._rdict.put(key, value)

    def delete(self, key: bytes) -> None:
        """Remove one row, unsynced."""
        self._rdict.delete(key)

    def items(self, from_key: bytes | None = None, *, backwards: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Rows from `from_key` on (the next one where it does not exist), in key order."""
        return cast(Iterator[tuple[bytes, bytes]], self._rdict.items(from_key=from_key, backwards=backwards))

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
        existing = Rdict.list_cf(str(path), options) if (path / "CURRENT").exists() else []
        names = {*keys.FIXED_FAMILIES, *(name for name in existing if name != "default")}
        try:
            self._database = Rdict(
                str(path),
                options,
                column_families={name: self._family_options(name) for name in names},
                access_type=AccessType.read_write(),
            )
        except Exception as error:
            raise StoreError(f"cannot open {path}: {error}") from error
        self._families = {name: Family(self._database, name) for name in names}
        self._check_format(path, new=not existing)

    def _database_options(self, write_buffer_bytes: int, wal_bytes_max: int) -> Options:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.create_missing_column_families(True)
        # A barely written family pins the write-ahead log until it is flushed: bound both (DESIGN 5).
        options.set_db_write_buffer_size(write_buffer_bytes)
        options.set_max_total_wal_size(wal_bytes_max)
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
            options.set_write_buffer_size(32 * _MIB)
            options.set_target_file_size_base(64 * _MIB)
        else:
            table.set_bloom_filter(10, False)
            options.set_compression_type(DBCompressionType.lz4())
            options.set_write_buffer_size(8 * _MIB)
        options.set_block_based_table_factory(table)
        return options

    def _check_format(self, path: Path, *, new: bool) -> None:
        meta = self.family(keys.META)
        stored = meta.get(keys.META_FORMAT)
        expected = str(keys.FORMAT_VERSION).encode()
        if stored is None and new:
            meta.put(keys.META_FORMAT, expected)
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
        """Begin a segment (2-3 ms)."""
        name = keys.segment_family(first_seq)
        self._database.create_column_family(name, self._family_options(name))
        family = self._families[name] = Family(self._database, name)
        return family

    def drop_segment(self, first_seq: int) -> None:
        """Give a segment's space back; an iterator that is open on it reads on to its end."""
        name = keys.segment_family(first_seq)
        del self._families[name]
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
        try:
            self._database.write(batch)
        except Exception as error:
            raise _store_error("write", error) from error

    def sync(self) -> None:
        """Return when every earlier write is on the disk. Blocks; releases the interpreter lock.

        Raises:
            OutOfSpace: the file system is full.
            StoreError: anything else.
        """
        try:
            self._database.flush_wal(True)
        except Exception as error:
            raise _store_error("sync", error) from error

    def close(self) -> None:
        """Close. The lock file is free once every handle and iterator is gone, so no family is usable after."""
        for family in self._families.values():
            family.release()
        self._families.clear()
        self._database.close()


def _store_error(action: str, error: Exception) -> StoreError:
    """RocksDB's errors come as bare exceptions with a text."""
    text = str(error)
    kind = OutOfSpace if "No space left" in text else StoreError
    return kind(f"{action}: {text}")
