"""The token bucket: how much one party may do, and exactly how long it has to wait. Pure: time is passed in.

Times are seconds. Owns the arithmetic only; who waits or drops is decided elsewhere. Kept as one moment, the one at
which the bucket will be full again, so that there is nothing to refill.
"""


class TokenBucket:
    """`burst` tokens at once, refilled at `per_second`; full at first. `now` must not go back."""

    __slots__ = ("_burst_seconds", "_full_at", "_token_seconds")

    def __init__(self, *, per_second: float, burst: float) -> None:
        self._token_seconds = 1 / per_second
        self._burst_seconds = burst / per_second
        self._full_at = float("-inf")

    def reserve(self, now: float, tokens: float = 1) -> float:
        """Take tokens, on credit if need be; returns how many seconds to wait before using them."""
        full_at = self._full_at
        self._full_at = full_at = (full_at if full_at > now else now) + tokens * self._token_seconds
        wait = full_at - now - self._burst_seconds
        return wait if wait > 0 else 0.0

    def take(self, now: float) -> bool:
        """Take one token if there is one."""
        if self.seconds_until(now, 1):
            return False
        self._full_at = max(self._full_at, now) + self._token_seconds
        return True

    def seconds_until(self, now: float, tokens: float) -> float:
        """In how many seconds so many tokens (at most the burst) will be there, if nobody takes any before."""
        return max(0.0, self._full_at - now - self._burst_seconds + tokens * self._token_seconds)

    def change(self, now: float, *, per_second: float, burst: float) -> None:
        """Other numbers from now on. What is missing from the full bucket stays missing."""
        missing = max(0.0, self._full_at - now) / self._token_seconds
        self._token_seconds = 1 / per_second
        self._burst_seconds = burst / per_second
        self._full_at = now + missing * self._token_seconds
