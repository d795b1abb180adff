"""The token bucket's waits, exactly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.identity.pace import Pace


def test_a_burst_then_the_rate() -> None:
    """After `burst` turns at once, each waits one interval more than the one before."""
    pace = Pace(per_second=10, burst=3)
    assert [pace.reserve(100.0) for _ in range(6)] == pytest.approx([0, 0, 0, 0.1, 0.2, 0.3])
    assert pace.reserve(100.5) == 0.0
    assert [pace.reserve(200.0) for _ in range(4)] == pytest.approx([0, 0, 0, 0.1])


def test_idle_when_half_of_the_burst_is_unused() -> None:
    """Renewals wait until that moment, and not longer."""
    pace = Pace(per_second=10, burst=11)
    assert pace.idle_seconds(0.0) == 0.0
    for _ in range(11):
        pace.reserve(0.0)
    wait = pace.idle_seconds(0.0)
    assert wait == pytest.approx(0.6)
    assert pace.idle_seconds(wait) == pytest.approx(0.0)


@given(
    gaps=st.lists(st.floats(0, 2), min_size=1, max_size=60),
    per_second=st.floats(0.5, 50),
    burst=st.integers(1, 10),
)
def test_no_window_holds_more_than_burst_and_rate(gaps: list[float], per_second: float, burst: int) -> None:
    """Between any two turns lie no more turns than the burst and the rate allow."""
    pace, now, turns = Pace(per_second=per_second, burst=burst), 1000.0, []
    for gap in gaps:
        now += gap
        turns.append(now + pace.reserve(now))
    for first in range(len(turns)):
        for last in range(first, len(turns)):
            assert last - first + 1 <= burst + (turns[last] - turns[first]) * per_second + 1e-6
