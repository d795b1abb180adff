"""How far the relay is with one host's stream. Pure.

A host's event is finished when it is in a synced batch or dropped. This keeps which sequence numbers of a host
are finished, across connections and (through `unfinished` and `last`, stored in the host's row) across
processes, so that a replayed event never comes out twice and an unfinished one is never skipped (DESIGN 5.2).

Everything up to `last` is finished except the numbers in `unfinished`; that is the low watermark and the ranges
above it, in the form that is cheapest to keep.
"""

from collections.abc import Iterable
from enum import Enum, auto


class Receipt(Enum):
    """What to do with an event that came in under a sequence number."""

    NEW = auto()
    REPLAYED = auto()
    OUT_OF_ORDER = auto()
    RENUMBERED = auto()


class HostProgress:
    """One host's finished sequence numbers. One connection at a time."""

    __slots__ = ("_connection_seq", "_in_flight", "_missing", "_requested", "epoch", "last")

    def __init__(self, last: int = 0, unfinished: Iterable[int] = ()) -> None:
        self.last = last
        self.epoch = 0  # counts the host's renumberings: old numbers in flight must not finish new ones
        self._in_flight: dict[int, None] = {}
        self._missing: dict[int, None] = dict.fromkeys(sorted(unfinished))
        self._connection_seq: int | None = None
        self._requested = 0

    @property
    def in_flight(self) -> int:
        """How many events were received and are not finished."""
        return len(self._in_flight)

    @property
    def unfinished(self) -> list[int]:
        """The numbers at or below `last` that are not finished, ascending."""
        return sorted([*self._missing, *self._in_flight])

    def connect(self) -> int:
        """Begin a connection; returns the cursor to ask for (0: from the host's oldest event)."""
        self._connection_seq = None
        self._requested = next(iter(self._missing)) - 1 if self._missing else self.last
        return self._requested

    def forget(self) -> None:
        """The host started its numbering again (FutureCursor, or numbers below the cursor): begin at nothing.

        Events in flight keep their way to the log, but their old numbers mean nothing any more.
        """
        self.last = 0
        self.epoch += 1
        self._requested = 0
        self._missing.clear()
        self._in_flight.clear()

    def receive(self, seq: int) -> Receipt:
        """An event arrived. NEW must be answered by one `finish(seq, epoch)` later; the others must not.

        The first number of a connection may lie below the cursor that was asked for: then the host has started
        its numbering again, and what it has from there on is only got by connecting anew. (One equal to the
        cursor comes from a host with inclusive cursors.)
        """
        previous = self._connection_seq
        if previous is None:
            if seq < self._requested:
                self.forget()
                if seq > 1:
                    return Receipt.RENUMBERED
        elif seq <= previous:
            return Receipt.OUT_OF_ORDER
        self._connection_seq = seq
        if seq > self.last:
            self._missing.clear()  # passed by: the host does not hold them any more
            self.last = seq
            self._in_flight[seq] = None
            return Receipt.NEW
        while self._missing and (oldest := next(iter(self._missing))) < seq:
            del self._missing[oldest]  # passed by as well
        if seq in self._missing:
            del self._missing[seq]
            self._in_flight[seq] = None
            return Receipt.NEW
        return Receipt.REPLAYED

    def finish(self, seq: int, epoch: int) -> None:
        """The event received under this number, in this epoch, is in the batch being written, or dropped."""
        if epoch == self.epoch:
            self._in_flight.pop(seq, None)
