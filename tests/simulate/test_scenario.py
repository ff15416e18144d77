"""What a scenario may be, and when its calls begin."""

import pytest

from retrykit.simulate import Scenario
from retrykit.simulate.world import numbers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clients": 0}, "clients=0 is less than 1"),
        ({"clients": 3, "processes": 4}, r"processes=4 are more than clients=3.*write more clients"),
        ({"rate": 0}, "rate=0 can't be simulated; write a finite number above 0"),
        ({"capacity": float("inf")}, "capacity=inf can't be simulated"),
        ({"duration": -1}, "duration=-1 can't be simulated"),
        ({"window": 0}, "window=0 can't be simulated"),
        ({"queue": -1}, "queue=-1 is less than 1"),
        ({"failure_rate": 1.5}, "failure_rate=1.5 is no share of 1"),
        ({"retry_after": -1}, "retry_after=-1 is no time to wait"),
        ({"outages": ((5, 5),)}, r"outages contains \(5, 5\), which does not begin before it ends"),
        ({"outages": ((-1, 5),)}, r"outages contains \(-1, 5\)"),
        ({"outages": ((60, 65),)}, r"\(60, 65\), which begins after the end, duration=60"),
        (
            {"outages": ((10, 15), (12, 20))},
            r"outages contains \(12, 20\), which begins in the one before; write them as",
        ),
        ({"overloads": ((5, 4, 2),)}, r"overloads contains \(5, 4, 2\)"),
        ({"overloads": ((4, 5, 0),)}, "the factor in overloads=0 can't be simulated"),
    ],
)
def test_what_can_t_work_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Scenario(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": "many"}, "rate='many' is no number"),
        ({"clients": 1.5}, "clients=1.5 is no whole number"),
        ({"queue": 1.5}, "queue=1.5 is no whole number"),
        ({"failure_rate": "few"}, "failure_rate='few' is no number"),
        ({"outages": (10, 15)}, r"outages contains 10; write tuples of 2 numbers such as \(10, 15\)"),
        ({"outages": ((10, 15, 2),)}, "write tuples of 2 numbers"),
        ({"overloads": ((10, 15),)}, r"write tuples of 3 numbers such as \(40, 50, 1.5\)"),
        ({"overloads": ((10, 15, "x"),)}, "write tuples of 3 numbers"),
    ],
)
def test_what_is_no_number_is_refused(options, message):
    with pytest.raises(TypeError, match=message):
        Scenario(**options)


def test_an_outage_may_go_on_past_the_end():
    assert Scenario(duration=10, outages=((5, 500),)).outages == ((5, 500),)


def test_where_overloads_meet_both_count():
    scenario = Scenario(rate=10, overloads=((10, 20, 2), (15, 30, 3)))
    assert [scenario.rate_at(instant) for instant in (0, 10, 15, 20, 30)] == [10, 20, 60, 30, 10]


def test_the_next_disturbance():
    scenario = Scenario(outages=((10, 15),), overloads=((40, 45, 2),))
    assert [scenario.next_disturbance(instant) for instant in (0, 10, 15, 41)] == [10, 10, 40, 60]


def test_calls_begin_in_order_and_before_the_end():
    scenario = Scenario(rate=50, duration=7, overloads=((2, 3, 4), (6, 99, 0.5)))
    instants = list(scenario.arrivals(numbers(1, "arrivals")))
    assert instants == sorted(instants)
    assert instants[0] > 0
    assert instants[-1] < 7
