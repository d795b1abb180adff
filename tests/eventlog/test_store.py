"""The RocksDB handle where RocksDB itself keeps silent."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest
from rocksdict import Options, Rdict

from relay.eventlog import keys
from relay.eventlog.errors import StoreError
from relay.eventlog.store import Store

_ROWS = 1000


@contextmanager
def opened(path: Path) -> Iterator[Store]:
    store = Store(path, block_cache_bytes=1 << 20, write_buffer_bytes=1 << 24, wal_bytes_max=1 << 24)
    try:
        yield store
    finally:
        store.close()


def make_families(path: Path) -> Rdict:
    """A database with our families and no rows."""
    options = Options(raw_mode=True)
    options.create_missing_column_families(True)
    return Rdict(str(path), options, column_families={name: Options(raw_mode=True) for name in keys.FIXED_FAMILIES})


def test_a_first_start_that_died_before_its_first_row_is_started_again(tmp_path: Path) -> None:
    make_families(tmp_path).close()
    for _ in range(2):
        with opened(tmp_path) as store:
            assert store.family(keys.META).get(keys.META_FORMAT) == b"1"


def test_rows_without_a_format_are_not_ours(tmp_path: Path) -> None:
    database = make_families(tmp_path)
    database.get_column_family(keys.META)[b"something"] = b"else"
    database.close()
    with pytest.raises(StoreError, match="format none"), opened(tmp_path):
        pass


def test_an_unreadable_block_is_an_error_and_not_the_end(tmp_path: Path) -> None:
    random_bytes = random.Random(1).randbytes
    with opened(tmp_path) as store:
        segment = store.create_segment(1)
        store.write((segment, keys.u64(seq), random_bytes(1000)) for seq in range(1, _ROWS + 1))
        assert len(list(segment.items())) == _ROWS
    largest = max(tmp_path.glob("*.sst"), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    with opened(tmp_path) as store:
        segment = store.segment(1)
        for start, backwards in ((None, False), (None, True), (keys.u64(1), False), (keys.u64(_ROWS), True)):
            with pytest.raises(StoreError, match="read: Corruption"):
                list(segment.items(start, backwards=backwards))
        unreadable = next(seq for seq in range(1, _ROWS) if is_unreadable(store, seq))
        for backwards in (False, True):
            with pytest.raises(StoreError, match="read: Corruption"):
                list(segment.items(keys.u64(unreadable), backwards=backwards))
        readable = [keys.from_u64(key) for key, _ in islice(segment.items(), unreadable - 1)]
        assert readable == list(range(1, unreadable))
        assert list(store.family(keys.ROSTER).items()) == []


def is_unreadable(store: Store, seq: int) -> bool:
    try:
        assert store.segment(1).get(keys.u64(seq)) is not None
    except StoreError:
        return True
    return False
