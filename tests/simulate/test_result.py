"""What a result tells of what was counted."""

import math
from collections import Counter

import pytest

from retrykit.simulate import Result, Scenario


def result(*, begun=(), received=(), served=(), **scenario):
    options = {"duration": max(len(begun), 1), "capacity": 100, **scenario}
    return Result(
        name="policy",
        policy="3 attempts",
        scenario=Scenario(**options),
        begun=tuple(begun),
        received=tuple(received or begun),
        served=tuple(served or begun),
        reasons=Counter(),
        sent=Counter(),
    )


def test_the_whole_run():
    counted = result(begun=[10, 10, 0, 0], received=[10, 20, 10, 0], served=[5, 5, 5, 1], duration=2)
    assert (counted.calls, counted.requests, counted.succeeded) == (20, 40, 16)
    assert counted.requests_per_call == 2
    assert counted.success == 0.8
    assert counted.goodput == 8


def test_a_part_of_it():
    counted = result(begun=[10, 10, 20, 20], received=[10, 20, 30, 80], served=[1, 2, 3, 4])
    assert counted.requests_per_call_in(1, 3) == 50 / 30
    assert counted.requests_per_call_in(0.5, 3.5) == 50 / 30  # whole windows
    assert counted.requests_per_call_in(0, 100) == 140 / 60
    assert counted.goodput_in(2, 4) == 3.5


def test_a_part_with_nothing_in_it():
    counted = result(begun=[10, 0, 10])
    assert math.isnan(counted.requests_per_call_in(1, 2))
    assert math.isnan(counted.requests_per_call_in(0.2, 0.8))
    assert math.isnan(counted.goodput_in(5, 9))
    assert math.isnan(result(begun=[0]).success)


def test_windows_of_another_length():
    counted = result(begun=[1, 2, 3, 4, 5, 6], received=[10, 20, 30, 40, 50, 60], window=0.1, duration=0.6)
    assert counted.requests_per_call_in(0.1, 0.3) == 10
    assert counted.goodput_in(0.3, 0.6) == pytest.approx(50)


class TestRecovery:
    @staticmethod
    def recovery(served, *, begun=10, outages=((2, 4),), **scenario):
        return result(begun=[begun] * len(served), served=served, outages=outages, **scenario).recovery

    def test_in_the_first_window(self):
        assert self.recovery([10, 10, 0, 0, 10, 10, 10, 10]) == 0

    def test_later(self):
        assert self.recovery([10, 10, 0, 0, 5, 9, 10, 10]) == 2

    def test_a_window_that_is_good_does_not_count_where_a_bad_one_follows(self):
        assert self.recovery([10, 10, 0, 0, 10, 10, 3, 10]) == 3

    def test_never(self):
        assert self.recovery([10, 10, 0, 0, 10, 10, 0, 0]) is None

    def test_without_an_outage(self):
        assert self.recovery([10, 3, 10, 10], outages=()) == 0

    def test_what_comes_with_an_overload_later_does_not_count(self):
        assert self.recovery([10, 10, 0, 0, 10, 10, 0, 0], overloads=((6, 8, 3),)) == 0

    def test_of_several_outages_the_longest_counts(self):
        served = [10, 10, 0, 0, 10, 10, 0, 3, 3, 10]
        assert self.recovery(served, outages=((2, 4), (6, 7))) == 2
        assert self.recovery([*served[:-1], 0], outages=((2, 4), (6, 7))) is None

    def test_as_good_as_before_is_good_enough(self):
        assert self.recovery([8, 8, 8, 0, 8, 8], outages=((3, 4),)) == 0
        assert self.recovery([8, 8, 8, 0, 7, 8], outages=((3, 4),)) == 1

    def test_more_than_the_capacity_is_not_asked_for(self):
        counted = result(begun=[50, 50, 50, 500], served=[50, 50, 0, 96], outages=((2, 3),), capacity=100)
        assert counted.recovery == 0

    def test_an_outage_that_ends_within_a_window(self):
        assert self.recovery([10, 10, 0, 3, 10, 10], outages=((2, 3.5),)) == 0.5

    def test_an_outage_that_does_not_end(self):
        assert self.recovery([10, 10, 0, 0], outages=((2, 9),)) is None
