"""The events that a fake host stores, with their places in its stream. Pure.

Owns numbering, the window, and which entry a cursor leads to. The bytes are anything at all.
"""

from bisect import bisect_right
from collections.abc import Iterable
from typing import Literal, NamedTuple

Ending = Literal["", "close", "reset"]


class Entry(NamedTuple):
    """Stored bytes of the stream, framed for the socket.

    `seq` is their place for cursors, whatever the bytes say. `ends` cuts the connection after them: "close" in
    order, "reset" by TCP reset. `once`: forgotten when they were sent for the first time.
    """

    seq: int
    wire: bytes
    ends: Ending = ""
    once: bool = False


class EventLog:
    """Entries in order. A place counts every entry ever appended, forgotten ones too."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._seqs: list[int] = []
        self._forgotten = 0
        self.last_seq = 0

    def append(self, entries: Iterable[Entry]) -> None:
        """Store entries behind the others."""
        added = list(entries)
        self._entries += added
        self._seqs += [entry.seq for entry in added]
        self.last_seq = max([self.last_seq, *(entry.seq for entry in added[-1:])])

    def forget(self, *, keep: int) -> None:
        """Drop the oldest entries but the newest `keep`."""
        dropped = max(0, len(self._entries) - keep)
        del self._entries[:dropped], self._seqs[:dropped]
        self._forgotten += dropped

    def purge(self, seqs: Iterable[int]) -> None:
        """Empty the entries with these numbers."""
        gone = set(seqs)
        self._entries = [entry._replace(wire=b"") if entry.seq in gone else entry for entry in self._entries]

    def outdated(self, cursor: int) -> bool:
        """Whether entries after `cursor` were forgotten. Never so for 0, which asks for what there is."""
        oldest = self._seqs[0] if self._seqs else self.last_seq + 1
        return 0 < cursor < oldest - 1 and self._forgotten > 0

    def place_after(self, cursor: int | None) -> int:
        """The place of the first entry beyond a cursor; beyond all where it is None."""
        held = len(self._entries) if cursor is None else bisect_right(self._seqs, cursor)
        return self._forgotten + held

    def take(self, place: int, count: int) -> tuple[list[Entry], int]:
        """Up to `count` entries from a place on, no further than one that ends the connection, and the place behind
        them. Entries to be sent once are forgotten by it."""
        index = max(0, place - self._forgotten)
        batch = self._entries[index : index + count]
        stop = next((number for number, entry in enumerate(batch, 1) if entry.ends), len(batch))
        for offset, entry in enumerate(batch[:stop], index):
            if entry.once:
                self._entries[offset] = Entry(entry.seq, b"")
        return batch[:stop], self._forgotten + index + stop
