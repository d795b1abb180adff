"""Host records and each host's progress, all in memory (about 2,800), loaded at start. No I/O after that.

The sequencer writes the rows; the supervisor and the HTTP port read.
"""

from bisect import bisect_right

from relay.eventlog import keys
from relay.eventlog.progress import HostProgress
from relay.eventlog.records import HostRecord, HostStatus
from relay.eventlog.store import Store


class _Host:
    __slots__ = ("accounts", "progress", "status")

    def __init__(self, record: HostRecord) -> None:
        self.status = record.status
        self.accounts = record.accounts
        self.progress = HostProgress(record.last, record.unfinished)

    def record(self) -> HostRecord:
        return HostRecord(self.status, self.progress.last, tuple(self.progress.unfinished), self.accounts)


class HostRows:
    """Host name -> record and progress."""

    def __init__(self, store: Store) -> None:
        rows = store.family(keys.HOSTS).items()
        self._hosts = {name.decode(): _Host(keys.decode_host(value)) for name, value in rows}
        self._ordered: list[str] = sorted(self._hosts)

    def get(self, name: str) -> HostRecord | None:
        """The host's record as of now (more than what is synced), None for an unknown host."""
        host = self._hosts.get(name)
        return None if host is None else host.record()

    def records(self) -> list[HostRecord]:
        """Every known host's record, by name."""
        return [self._hosts[name].record() for name in self._ordered]

    def names(self) -> list[str]:
        """Every known host, by name."""
        return list(self._ordered)

    def page(self, after: str, limit: int) -> list[tuple[str, HostRecord]]:
        """Up to `limit` hosts with names above `after`, by name."""
        start = bisect_right(self._ordered, after)
        return [(name, self._hosts[name].record()) for name in self._ordered[start : start + limit]]

    def progress(self, name: str) -> HostProgress:
        """The one progress object of a known host. Raises KeyError for an unknown one."""
        return self._hosts[name].progress

    def add(self, name: str) -> None:
        """For the sequencer: a host known from now on; nothing happens when it is known already."""
        if name not in self._hosts:
            self._hosts[name] = _Host(HostRecord())
            self._ordered = sorted(self._hosts)

    def set_status(self, name: str, status: HostStatus) -> None:
        """For the sequencer."""
        self._hosts[name].status = status

    def count_account(self, name: str, change: int) -> None:
        """For the sequencer: living accounts of a host; a host that is not known (any more) counts nothing."""
        host = self._hosts.get(name)
        if host is not None:
            host.accounts = max(0, host.accounts + change)
