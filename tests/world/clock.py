"""A clock that tests move by hand, and the TIDs and datetimes it gives. Pure.

Every reading is later than the one before, so that revisions made from it strictly increase.
"""

from datetime import UTC, datetime, timedelta

TID_ALPHABET = "234567abcdefghijklmnopqrstuvwxyz"


def tid(number: int) -> str:
    """The 13 characters of a 64-bit TID (protocol.md 4.2)."""
    return "".join(TID_ALPHABET[number >> shift & 31] for shift in range(60, -1, -5))


class Clock:
    """Microseconds since the epoch; each reading moves it by `step_microseconds`."""

    def __init__(self, *, now_microseconds: int, step_microseconds: int = 1000) -> None:
        self.now_microseconds = now_microseconds
        self._step_microseconds = step_microseconds

    def advance(self, seconds: float) -> None:
        """Move forward (or, for a broken host, backward)."""
        self.now_microseconds += round(seconds * 1_000_000)

    def catch_up(self, now_microseconds: int) -> None:
        """Move forward to a time, if it is later."""
        self.now_microseconds = max(self.now_microseconds, now_microseconds)

    def read(self) -> int:
        """The time in microseconds, later than any before."""
        self.now_microseconds += self._step_microseconds
        return self.now_microseconds

    def tid(self) -> str:
        """A TID of a new reading, with clock id 0."""
        return tid(self.read() << 10)

    def datetime(self) -> str:
        """The present time as an atproto datetime; does not move the clock."""
        moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=self.now_microseconds)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
