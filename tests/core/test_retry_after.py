"""Retry-After: a header -> seconds, or nothing."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrykit.core.retry_after import seconds_to_wait

SENT = "Sun, 06 Nov 1994 08:49:37 GMT"
SENT_AT = 784111777.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        (" 7 ", 7),
        ("007", 7),
        ("1.5", 1.5),
        ("9" * 400, pytest.approx(1.797e308, rel=1e-3)),
        ("Sun, 06 Nov 1994 08:49:47 GMT", 10),
        ("Sunday, 06-Nov-94 08:49:47 GMT", 10),
        ("Sun Nov  6 08:49:47 1994", 10),
        (SENT, 0),
        ("-1", None),
        ("+5", None),
        ("5s", None),
        ("1e3", None),
        ("1.", None),
        (".5", None),
        ("1_000", None),
        ("nan", None),
        ("inf", None),
        ("\u0663", None),
        ("", None),
        ("soon", None),
        ("Sun, 06 Nov 1994 08:49:36 GMT", None),
        ("Sun, 31 Feb 1994 08:49:47 GMT", None),
        ("Sun, 06 Nov 99999 08:49:47 GMT", None),
    ],
)
def test_one_value(value, seconds):
    assert seconds_to_wait([value], SENT, 0.0) == seconds


def test_no_header_means_nothing():
    assert seconds_to_wait([], SENT, 0.0) is None


def test_of_several_the_longest_readable_counts():
    assert seconds_to_wait(["3", "soon", "5", "4"], None, 0.0) == 5


@pytest.mark.parametrize("date", [None, "yesterday"])
def test_a_date_is_measured_against_the_wall_clock_where_the_response_has_none(date):
    assert seconds_to_wait(["Sun, 06 Nov 1994 08:49:47 GMT"], date, SENT_AT + 4) == 6


def test_a_date_is_measured_against_the_responses_own_so_that_a_skewed_clock_does_no_harm():
    assert seconds_to_wait(["Sun, 06 Nov 1994 08:49:47 GMT"], SENT, SENT_AT + 86400) == 10


@given(st.lists(st.text()), st.none() | st.text(), st.floats(0, 1e11))
def test_whatever_a_server_sends_gives_a_finite_time_or_nothing(values, date, wall):
    seconds = seconds_to_wait(values, date, wall)
    assert seconds is None or (0 <= seconds < math.inf)
