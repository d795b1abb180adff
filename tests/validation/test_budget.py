"""The token bucket's arithmetic: no window holds more than the burst and the rate, however it is asked."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.validation.budget import TokenBucket

RATES = st.floats(0.01, 1000)
BURSTS = st.integers(1, 50)
GAPS = st.lists(st.floats(0, 10), max_size=100)


def test_a_burst_then_the_rate() -> None:
    bucket = TokenBucket(per_second=2, burst=3, now=100)
    assert [bucket.take(100) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(now) for now in (100.4, 100.5, 100.6, 101)] == [False, True, False, True]
    assert [bucket.take(1000) for _ in range(4)] == [True, True, True, False]


def test_credit_is_paid_back_before_anything_is_taken() -> None:
    bucket = TokenBucket(per_second=2, burst=1, now=0)
    assert [bucket.reserve(0) for _ in range(3)] == [0, 0.5, 1]
    assert not bucket.take(1.4)
    assert bucket.take(1.5)
    assert bucket.reserve(1.5) == pytest.approx(0.5)


@given(per_second=RATES, burst=BURSTS, gaps=GAPS)
def test_never_more_than_burst_and_rate(per_second: float, burst: int, gaps: list[float]) -> None:
    bucket, now, taken = TokenBucket(per_second=per_second, burst=burst, now=0), 0.0, 0
    for gap in gaps:
        now += gap
        taken += bucket.take(now)
        assert taken <= burst + now * per_second + 1e-6


@given(per_second=RATES, burst=BURSTS, gaps=GAPS)
def test_reservations_come_in_order_and_keep_the_rate(per_second: float, burst: int, gaps: list[float]) -> None:
    bucket, now, turns = TokenBucket(per_second=per_second, burst=burst, now=0), 0.0, []
    for gap in gaps:
        now += gap
        turns.append(now + bucket.reserve(now))
    assert all(early <= late + 1e-6 for early, late in pairwise(turns))
    for number, turn in enumerate(turns, 1):
        assert number <= burst + turn * per_second + 1e-3
