"""Account records: the newest of each, in memory or in RocksDB. Reads only; the sequencer writes the rows.

An accepted event changes its account at once, so that the account's next event is checked against it; the row
follows in the event's batch. Records not yet written are pinned, the others live in an LRU.
"""

from cachetools import LRUCache

from relay.eventlog import keys
from relay.eventlog.errors import StoreError
from relay.eventlog.records import AccountRecord
from relay.eventlog.store import Store


class Accounts:
    """DID -> newest AccountRecord."""

    def __init__(self, store: Store, *, cache_entries_max: int) -> None:
        self._rows = store.family(keys.ACCOUNTS)
        self._roster = store.family(keys.ROSTER)
        self._cache: LRUCache[str, AccountRecord] = LRUCache(cache_entries_max)
        self._unwritten: dict[str, AccountRecord] = {}

    def get(self, did: str) -> AccountRecord | None:
        """The account's record, None for one never seen."""
        record = self._cache.get(did)
        if record is None:
            record = self._read(did)
            if record is not None:
                self._cache[did] = record
        return record

    def _read(self, did: str) -> AccountRecord | None:
        record = self._unwritten.get(did)
        if record is None:
            value = self._rows.get(did.encode())
            record = None if value is None else keys.decode_account(value)
        return record

    def put(self, did: str, record: AccountRecord) -> None:
        """For the sequencer: the record from now on; pinned until `written`."""
        self._unwritten[did] = record
        self._cache[did] = record

    def written(self, rows: dict[str, AccountRecord]) -> None:
        """For the sequencer: these records are in the database."""
        for did, record in rows.items():
            if self._unwritten.get(did) is record:
                del self._unwritten[did]

    def page(self, after_ordinal: int, limit: int) -> list[tuple[str, AccountRecord]]:
        """Up to `limit` accounts with ordinals above `after_ordinal`, in first-seen order.

        Reads past the cache: whoever pages through all accounts must not evict the busy ones.
        """
        page = []
        for _, did_bytes in self._roster.items(keys.u64(after_ordinal + 1)):
            did = did_bytes.decode()
            record = self._read(did)
            if record is None:
                raise StoreError(f"roster names {did}, which has no account row")
            page.append((did, record))
            if len(page) >= limit:
                break
        return page
