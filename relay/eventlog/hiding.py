"""Which accounts' content is hidden below which seq (DESIGN 5, Hiding). Pure state, loaded at start.

Deletion and local takedown hide `#commit` and `#sync` of an account, never its `#account` and `#identity`. The
sequencer is the only writer; tail and cold reads ask.
"""

from collections.abc import Iterable

from relay.eventlog.keys import EventKind

_CONTENT = frozenset({EventKind.COMMIT, EventKind.SYNC})


class Hidden:
    """DID -> content with a seq below this is not served."""

    __slots__ = ("_below",)

    def __init__(self, rows: Iterable[tuple[bytes, int]] = ()) -> None:
        self._below = dict(rows)

    def __bool__(self) -> bool:
        return bool(self._below)

    def hide(self, did: bytes, below: int) -> None:
        """Hide the account's content below a seq."""
        self._below[did] = below

    def covers(self, seq: int, kind: int, did: bytes) -> bool:
        """Whether this event must not be served."""
        below = self._below.get(did)
        return below is not None and seq < below and kind in _CONTENT

    def expired(self, oldest: int) -> list[bytes]:
        """Accounts whose hidden content has left the window that begins at `oldest`; they are forgotten here."""
        gone = [did for did, below in self._below.items() if below <= oldest]
        for did in gone:
            del self._below[did]
        return gone
