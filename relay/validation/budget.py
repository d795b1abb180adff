"""Token buckets (pure): how much work one party may cause. Time is passed in, in seconds.

Owns the arithmetic only; who waits or drops decides elsewhere.
"""


class TokenBucket:
    """`burst` tokens at once, refilled at `per_second`."""

    __slots__ = ("_burst", "_per_second", "_tokens", "_updated")

    def __init__(self, *, per_second: float, burst: float, now: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._tokens = burst
        self._updated = now

    def take(self, now: float) -> bool:
        """Take one token if there is one."""
        self._refill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def reserve(self, now: float) -> float:
        """Take one token, on credit if need be; returns how many seconds to wait before using it."""
        self._refill(now)
        self._tokens -= 1
        return max(0.0, -self._tokens / self._per_second)

    def _refill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._per_second)
        self._updated = now
