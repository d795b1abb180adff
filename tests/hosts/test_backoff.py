"""How long a host waits for its next dial."""

import pytest

from relay.hosts.backoff import Backoff


def delays(backoff: Backoff, count: int, fraction: float) -> list[float]:
    return [backoff.next_delay(fraction) for _ in range(count)]


def test_doubles_up_to_the_maximum_and_stays_there() -> None:
    """For ever: no count of failures overflows or ends it."""
    backoff = Backoff(minimum_seconds=1, maximum_seconds=3600)
    ceilings = delays(backoff, 5000, 1.0)
    assert ceilings[:13] == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600]
    assert set(ceilings[12:]) == {3600}


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.999])
def test_jitter_spreads_over_the_whole_span(fraction: float) -> None:
    """From the minimum to the ceiling, and never below the minimum."""
    backoff = Backoff(minimum_seconds=1, maximum_seconds=60)
    for failures, delay in enumerate(delays(backoff, 20, fraction), start=1):
        assert delay == pytest.approx(1 + fraction * (min(60, 2**failures) - 1))


def test_progress_makes_the_next_wait_short_but_not_none() -> None:
    """A host that sends one event and hangs up is still waited for."""
    backoff = Backoff(minimum_seconds=1, maximum_seconds=3600)
    delays(backoff, 20, 0.5)
    backoff.reset()
    assert backoff.next_delay(0.5) == 1.5
    assert backoff.next_delay(0.0) == 1.0


def test_a_maximum_below_the_minimum_is_the_minimum() -> None:
    """Whatever the settings say, there is a wait."""
    assert Backoff(minimum_seconds=5, maximum_seconds=1).next_delay(0.9) == 5
