"""A token bucket that tells exactly how long to wait. Pure: the time comes in as an argument."""


class Pace:
    """At most `burst` at once and `per_second` in the long run."""

    __slots__ = ("_burst_seconds", "_interval", "_next")

    def __init__(self, *, per_second: float, burst: int) -> None:
        self._interval = 1 / per_second
        self._burst_seconds = (burst - 1) * self._interval
        self._next = float("-inf")  # when the next turn would be if there were no burst

    def reserve(self, now: float) -> float:
        """Takes the next turn and returns in how many seconds it is; turns are in order of reservation."""
        turn = max(self._next, now - self._burst_seconds)
        self._next = turn + self._interval
        return max(0.0, turn - now)

    def idle_seconds(self, now: float) -> float:
        """In how many seconds at least half of the burst is unused, if nobody else takes a turn."""
        return max(0.0, self._next + self._burst_seconds / 2 - now)
