"""Which collections a tree, known in part, proves present or absent. Pure.

Owns the state test: all keys of a collection are one run in key order, so the visible keys around that run, and the
gaps between them, decide. Needs only a validated tree under a signed commit, not its operations. Knows no index.
Source: protocol.md 4.9.
"""

from bisect import bisect_left
from collections.abc import Iterable
from enum import Enum, auto


class CollectionState(Enum):
    """What a tree proves about one collection."""

    PRESENT = auto()
    ABSENT = auto()
    UNKNOWN = auto()


class CollectionFacts:
    """The facts in one visible sequence: keys in order, and None for each gap (`mst.visible`)."""

    __slots__ = ("_gaps_before", "_keys")

    def __init__(self, sequence: Iterable[bytes | None]) -> None:
        self._keys: list[bytes] = []
        # How many gaps lie before each key, and at the end all of them.
        self._gaps_before: list[int] = []
        gaps = 0
        for key in sequence:
            if key is None:
                gaps += 1
            else:
                self._keys.append(key)
                self._gaps_before.append(gaps)
        self._gaps_before.append(gaps)

    @property
    def complete(self) -> bool:
        """Whether the whole tree is visible: then `present` names every collection there is."""
        return self._gaps_before[-1] == 0

    @property
    def present(self) -> set[str]:
        """The collections with a visible key; a key without a slash, or not of ASCII, belongs to none."""
        names = {key[: key.index(b"/")] for key in self._keys if b"/" in key}
        return {name.decode("ascii") for name in names if name.isascii()}

    def state(self, collection: str) -> CollectionState:
        """What the tree proves about a collection, given by its NSID."""
        first = bisect_left(self._keys, collection.encode() + b"/")
        # "0" is the byte behind "/": the least key behind every key of the collection.
        end = bisect_left(self._keys, collection.encode() + b"0")
        if first < end:
            return CollectionState.PRESENT
        gaps_up_to_previous = self._gaps_before[first - 1] if first else 0
        has_gap = self._gaps_before[first] > gaps_up_to_previous
        return CollectionState.UNKNOWN if has_gap else CollectionState.ABSENT
