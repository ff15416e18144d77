"""LatencyQuantile: what is slow, learned from what was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrykit import LatencyQuantile

ORIGIN, OTHER = "https://a.example", "https://b.example"


def test_nothing_is_slow_before_enough_is_known():
    latency = LatencyQuantile(0.5, warm_up=3, window=10)
    for seconds in (0.1, 0.2):
        latency.record(ORIGIN, seconds)
    assert latency(ORIGIN) is None
    latency.record(ORIGIN, 0.3)
    assert latency(ORIGIN) == 0.2
    assert latency(OTHER) is None
    assert latency() is None


@given(st.lists(st.floats(0, 100), min_size=20, max_size=200), st.floats(0.01, 0.99), st.integers(1, 50))
def test_so_large_a_part_of_the_last_is_no_slower(times, quantile, window):
    latency = LatencyQuantile(quantile, warm_up=1, window=window)
    for seconds in times:
        latency.record(None, seconds)
    recent = times[-window:]
    slow = latency()
    assert slow in recent
    assert sum(seconds > slow for seconds in recent) <= (1 - quantile) * len(recent)
    assert sum(seconds <= slow for seconds in recent) >= quantile * len(recent)


def test_the_old_is_forgotten():
    latency = LatencyQuantile(0.9, warm_up=1, window=10)
    for seconds in [9.0] * 10 + [0.1] * 10:
        latency.record(ORIGIN, seconds)
    assert latency(ORIGIN) == 0.1


def test_of_many_origins_the_one_used_longest_ago_is_forgotten():
    latency = LatencyQuantile(0.5, warm_up=1, max_origins=2)
    for origin in ("1", "2", "1", "3"):
        latency.record(origin, 1.0)
    assert [latency(origin) for origin in ("1", "2", "3")] == [1.0, None, 1.0]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"quantile": 0}, ValueError, "quantile=0 is no share of 1; write a number above 0 and up to 1: quantile=0.95"),
        ({"quantile": 1}, ValueError, "quantile=1 is the slowest of all"),
        ({"quantile": 95}, ValueError, "quantile=95 is no share of 1"),
        ({"quantile": "p95"}, TypeError, "quantile='p95' is no number"),
        ({"quantile": 0.9, "window": 50}, ValueError, "warm_up=100 is more than window=50"),
        ({"quantile": 0.9, "warm_up": 0}, ValueError, "warm_up=0 is less than 1"),
    ],
)
def test_what_cannot_work_is_refused(options, error, message):
    with pytest.raises(error) as caught:
        LatencyQuantile(**options)
    assert str(caught.value).startswith(message)


def test_its_repr_tells_its_numbers():
    assert repr(LatencyQuantile(0.95)) == "<LatencyQuantile 0.95 of the last 1000>"
