"""The token bucket's arithmetic: exact waits, and no window with more than the burst and the rate."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.net.token_bucket import TokenBucket

RATES = st.floats(0.01, 1000)
BURSTS = st.integers(1, 50)
STEPS = st.lists(st.tuples(st.floats(0, 10), st.integers(1, 5)), min_size=1, max_size=60)


def test_a_burst_then_the_rate() -> None:
    bucket = TokenBucket(per_second=10, burst=3)
    assert [bucket.reserve(100.0) for _ in range(6)] == pytest.approx([0, 0, 0, 0.1, 0.2, 0.3])
    assert bucket.reserve(100.5) == 0.0
    assert [bucket.reserve(200.0) for _ in range(4)] == pytest.approx([0, 0, 0, 0.1])


def test_many_tokens_at_once_wait_as_long_as_one_by_one() -> None:
    one_by_one, at_once = (TokenBucket(per_second=10, burst=3) for _ in range(2))
    last = [one_by_one.reserve(5.0) for _ in range(8)][-1]
    assert at_once.reserve(5.0, 8) == pytest.approx(last) == pytest.approx(0.5)
    assert at_once.reserve(5.5, 0) == pytest.approx(0)


def test_taking_never_waits() -> None:
    bucket = TokenBucket(per_second=2, burst=3)
    assert [bucket.take(100) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(now) for now in (100.4, 100.5, 100.6, 101)] == [False, True, False, True]
    assert [bucket.take(1000) for _ in range(4)] == [True, True, True, False]


def test_credit_is_paid_back_before_anything_is_taken() -> None:
    bucket = TokenBucket(per_second=2, burst=1)
    assert [bucket.reserve(0) for _ in range(3)] == [0, 0.5, 1]
    assert not bucket.take(1.4)
    assert bucket.take(1.5)
    assert bucket.reserve(1.5) == pytest.approx(0.5)


def test_asking_when_takes_nothing() -> None:
    bucket = TokenBucket(per_second=10, burst=10)
    assert bucket.seconds_until(0, 10) == 0
    for _ in range(10):
        bucket.reserve(0)
    assert [bucket.seconds_until(0, tokens) for tokens in (0, 1, 5, 10)] == pytest.approx([0, 0.1, 0.5, 1])
    assert bucket.seconds_until(0.4, 5) == pytest.approx(0.1)


def test_other_numbers_leave_what_was_taken() -> None:
    bucket = TokenBucket(per_second=10, burst=10)
    bucket.reserve(0, 12)
    bucket.change(0, per_second=1, burst=10)
    assert bucket.reserve(0, 0) == pytest.approx(2)
    bucket.change(0, per_second=1, burst=20)
    assert bucket.reserve(0, 8) == 0
    assert bucket.reserve(0, 1) == pytest.approx(1)


def test_other_numbers_leave_a_full_bucket_full() -> None:
    bucket = TokenBucket(per_second=10, burst=10)
    bucket.change(0, per_second=1, burst=2)
    assert [bucket.take(0) for _ in range(3)] == [True, True, False]


@given(per_second=RATES, burst=BURSTS, steps=STEPS)
def test_no_window_holds_more_than_burst_and_rate(
    per_second: float, burst: int, steps: list[tuple[float, int]]
) -> None:
    """However it is asked; and the turns come in order."""
    bucket, now = TokenBucket(per_second=per_second, burst=burst), 1000.0
    turns = []
    for gap, tokens in steps:
        now += gap
        for _ in range(tokens):
            turns.append(now + bucket.reserve(now))
    assert all(early <= late + 1e-6 for early, late in pairwise(turns))
    for first in range(len(turns)):
        for last in range(first, len(turns)):
            assert last - first + 1 <= burst + (turns[last] - turns[first]) * per_second + 1e-3


@given(per_second=RATES, burst=BURSTS, steps=STEPS)
def test_nothing_waits_without_need(per_second: float, burst: int, steps: list[tuple[float, int]]) -> None:
    """A naive bucket that refills in steps agrees on every wait."""
    bucket, now, left = TokenBucket(per_second=per_second, burst=burst), 1000.0, float(burst)
    for gap, tokens in steps:
        now += gap
        left = min(burst, left + gap * per_second) - tokens
        assert bucket.reserve(now, tokens) == pytest.approx(max(0.0, -left / per_second), abs=1e-3)


@given(per_second=RATES, burst=BURSTS, gaps=st.lists(st.floats(0, 10), max_size=100))
def test_taking_never_exceeds_burst_and_rate(per_second: float, burst: int, gaps: list[float]) -> None:
    bucket, now, taken = TokenBucket(per_second=per_second, burst=burst), 0.0, 0
    for gap in gaps:
        now += gap
        taken += bucket.take(now)
        assert taken <= burst + now * per_second + 1e-6
