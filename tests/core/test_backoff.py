"""The schedule of waits."""

import math

import tenacity
from hypothesis import given
from hypothesis import strategies as st

from retrykit.core import backoff
from retrykit.core.backoff import JITTERS

attempts = st.integers(1, 5000)
delays = st.floats(0, 1e6)
draws = st.floats(0, 1, exclude_max=True)


def test_without_jitter_the_delays_double_up_to_the_cap():
    schedule = [backoff.delay("none", attempt, 0.0, 1.0, 10.0, draw=0.7) for attempt in range(1, 7)]
    assert schedule == [1, 2, 4, 8, 10, 10]


@given(st.integers(1, 1024), delays, delays)  # beyond, tenacity overflows, and answers its maximum
def test_without_jitter_it_is_tenacitys_wait_exponential(attempt, base, cap):
    state = tenacity.RetryCallState(tenacity.AsyncRetrying(), None, (), {})
    state.attempt_number = attempt
    expected = tenacity.wait_exponential(multiplier=base, max=cap)(state)
    assert math.isclose(backoff.delay("none", attempt, 0.0, base, cap, draw=0.0), expected)


@given(st.sampled_from(JITTERS), attempts, delays, delays, delays, draws)
def test_every_delay_is_finite_and_within_the_cap(jitter, attempt, previous, base, cap, draw):
    delay = backoff.delay(jitter, attempt, previous, base, cap, draw=draw)
    assert math.isfinite(delay)
    assert 0 <= delay <= cap


@given(attempts, delays, delays)
def test_the_ceiling_never_falls(attempt, base, cap):
    assert backoff.ceiling(attempt, base, cap) <= backoff.ceiling(attempt + 1, base, cap)


def test_full_jitter_draws_from_zero_to_the_ceiling():
    assert backoff.span("full", 3, 0.0, 1.0, 60.0) == (0, 4)
    assert backoff.delay("full", 3, 0.0, 1.0, 60.0, draw=0.25) == 1


def test_equal_jitter_draws_from_the_upper_half():
    assert backoff.span("equal", 3, 0.0, 1.0, 60.0) == (2, 4)
    assert backoff.delay("equal", 3, 0.0, 1.0, 60.0, draw=0.25) == 2.5


def test_decorrelated_jitter_draws_from_the_base_to_three_times_the_previous_delay():
    assert backoff.span("decorrelated", 1, 0.0, 1.0, 60.0) == (1, 3)
    assert backoff.span("decorrelated", 2, 2.5, 1.0, 60.0) == (1, 7.5)
    assert backoff.span("decorrelated", 9, 50.0, 1.0, 60.0) == (1, 60)
