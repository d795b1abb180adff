"""Second implementations of what the HTTP port reads, in memory."""

from bisect import bisect_right

from relay.eventlog.errors import StoreError
from relay.eventlog.records import AccountRecord, HostRecord
from relay.http.xrpc import XrpcError

COMMIT = bytes.fromhex("01711220") + bytes(range(32))
COMMIT_TEXT = "bafyreiaaaebagbafaydqqcikbmga2dqpcaireeyuculbogazdinryhi6d4"
REV = "3lmxjza3nva27"


class MemoryAccounts:
    """Accounts in first-seen order; ordinals are 10, 20, 30, …"""

    def __init__(self) -> None:
        self._records: dict[str, AccountRecord] = {}
        self._ordered: list[tuple[int, str]] = []

    def add(
        self, did: str, *, status: str = "", local_status: str = "", commit: bytes = COMMIT, host: str = "pds.test"
    ) -> str:
        ordinal = 10 * (len(self._ordered) + 1)
        active = status in ("", "desynchronized")
        rev = REV if commit else ""
        self._records[did] = AccountRecord(host, local_status, active, status, rev, commit, commit, ordinal)
        self._ordered.append((ordinal, did))
        return did

    def get(self, did: str) -> AccountRecord | None:
        if did == "did:plc:corrupt":
            raise StoreError("account row is unreadable")
        return self._records.get(did)

    def page(self, after_ordinal: int, limit: int) -> list[tuple[str, AccountRecord]]:
        start = bisect_right(self._ordered, after_ordinal, key=lambda row: row[0])
        return [(did, self._records[did]) for _, did in self._ordered[start : start + limit]]


class MemoryHosts:
    """Hosts by name."""

    def __init__(self) -> None:
        self.records: dict[str, HostRecord] = {}

    def get(self, name: str) -> HostRecord | None:
        return self.records.get(name)

    def page(self, after: str, limit: int) -> list[tuple[str, HostRecord]]:
        return [(name, record) for name, record in sorted(self.records.items()) if name > after][:limit]


class MemoryCrawler:
    """Remembers what it was asked; refuses `banned.test`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool]] = []

    async def request_crawl(self, text: str, *, admin: bool) -> None:
        if text == "broken.test":
            raise RuntimeError("a bug")
        if text == "banned.test":
            raise XrpcError(400, "HostBanned", "banned.test is banned")
        self.asked.append((text, admin))
