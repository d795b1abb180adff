"""How long to wait before the next dial of a host. Pure: the random number is passed in.

Exponential with jitter over the whole span, capped, and without an end: no host is given up for good. Nothing here
knows what counts as progress.
"""


class Backoff:
    """One host's row of failures. Times are seconds."""

    __slots__ = ("_failures", "_maximum", "_minimum")

    def __init__(self, *, minimum_seconds: float, maximum_seconds: float) -> None:
        self._minimum = minimum_seconds
        self._maximum = maximum_seconds
        self._failures = 0

    def reset(self) -> None:
        """The host made progress, or somebody vouches for it: the next wait is a short one."""
        self._failures = 0

    def next_delay(self, fraction: float) -> float:
        """The seconds to wait after one more failure; `fraction` is uniform in [0, 1).

        Never below the minimum, not even after progress: a host that sends one event and hangs up must not be
        redialled in a busy loop (peers.md 1.7 has a relay that does).
        """
        self._failures = min(self._failures + 1, 64)  # the power below stays a small number
        ceiling = min(self._maximum, self._minimum * 2.0**self._failures)
        return self._minimum + fraction * max(0.0, ceiling - self._minimum)
