"""What the hosts' streams flow into, and where hosts are kept, as the supervisor sees them. Pure protocols.

`relay.service` gives the real ones (scheduler and sequencer); nothing here has behaviour.
"""

from typing import Protocol

from relay.eventlog.progress import HostProgress
from relay.eventlog.records import HostRecord, HostStatus
from relay.eventlog.verdict import Drop, DropReason
from relay.validation.envelope import Envelope


class EventSink(Protocol):
    """Takes what connections receive. Only `wait_room` waits."""

    def submit(self, envelope: Envelope) -> None:
        """A new event, to be validated; its origin is finished by whoever ends it."""

    def drop(self, drop: Drop) -> None:
        """An event that ends here, but moves its host's cursor."""

    def count_drop(self, host: str, reason: DropReason) -> None:
        """A message without a usable seq was dropped."""

    def cursor_moved(self, host: str) -> None:
        """The host's progress changed without an event."""

    def has_room(self, host: str) -> bool:
        """Whether this host may be read on."""

    async def wait_room(self, host: str) -> None:
        """Return when `has_room(host)`."""


class KnownHosts(Protocol):
    """Reads the stored hosts (`relay.eventlog.hosts.HostRows`)."""

    def get(self, name: str) -> HostRecord | None:
        """The host's record, None for an unknown one."""

    def names(self) -> list[str]:
        """Every known host."""

    def progress(self, name: str) -> HostProgress:
        """The one progress object of a known host."""


class HostWriter(Protocol):
    """Changes the stored hosts, durably (`relay.eventlog.sequencer.Sequencer`)."""

    async def add_host(self, name: str) -> None:
        """Make a host known; nothing happens when it is known already."""

    async def set_host_status(self, name: str, status: HostStatus) -> None:
        """Change a known host's status."""
