"""The server: a queue of known length, work that nobody waits for, and when it answers nothing at all."""

import pytest

from retrykit.simulate import Scenario
from retrykit.simulate.server import Server
from retrykit.simulate.world import VirtualClock, numbers


def server(**options):
    return Server(Scenario(**{"capacity": 10, "queue": 2, **options}), numbers(1, "failures"))


def test_requests_are_served_one_after_the_other():
    busy = server()
    assert [busy.receive(0) for _ in range(3)] == pytest.approx([0.1, 0.2, 0.3])


def test_a_server_with_nothing_to_do_begins_at_once():
    idle = server()
    idle.receive(0)
    assert idle.receive(5) == pytest.approx(5.1)


def test_so_many_may_wait_beside_the_one_that_is_served():
    full = server()
    assert [full.receive(0) is None for _ in range(4)] == [False, False, False, True]
    assert full.receive(0.15) == pytest.approx(0.4)
    assert full.receive(0.15) is None


@pytest.mark.parametrize("capacity", [3, 7, 10, 49, 1000])
def test_how_many_may_wait_does_not_depend_on_how_times_are_rounded(capacity):
    full = server(capacity=capacity, queue=100)
    assert [full.receive(0.1) is None for _ in range(103)] == [False] * 101 + [True] * 2


def test_without_a_queue_one_is_served_at_a_time():
    narrow = server(queue=0)
    assert narrow.receive(0) == pytest.approx(0.1)
    assert narrow.receive(0.05) is None
    assert narrow.receive(0.11) is not None


def test_in_an_outage_there_is_no_answer_but_503():
    down = server(outages=((1, 2), (3, 4)))
    instants = (0.5, 1, 1.5, 2, 3.5, 4)
    assert [down.receive(instant) is None for instant in instants] == [False, True, True, False, True, False]


def test_what_it_has_refused_takes_no_time():
    refusing = server(failure_rate=1)
    assert [refusing.receive(0) for _ in range(50)] == [None] * 50


class TestNumbers:
    def test_they_are_even(self):
        draw = numbers(1, "test")
        drawn = [draw() for _ in range(10_000)]
        assert all(0 <= number < 1 for number in drawn)
        for tenth in range(10):
            assert 850 < sum(1 for number in drawn if int(number * 10) == tenth) < 1150
        assert len(set(drawn)) == len(drawn)

    def test_they_follow_from_seed_and_purpose(self):
        first = [numbers(*which)() for which in ((1, "a"), (1, "a"), (2, "a"), (1, "b"))]
        assert first[0] == first[1]
        assert len(set(first)) == 3

    def test_they_are_the_same_everywhere(self):
        draw = numbers(1, "arrivals")
        assert [round(draw(), 6) for _ in range(3)] == [0.129451, 0.575853, 0.308908]


class TestClock:
    def test_its_time_is_what_it_is_set_to(self):
        clock = VirtualClock(numbers(1, "waits"))
        clock.time = 7.5
        assert clock.now() == clock.wall() == 7.5
        assert clock.draw() != clock.draw()
        assert clock.key() != clock.key()

    def test_nobody_sleeps_on_it(self):
        with pytest.raises(
            RuntimeError, match=r"something would sleep for 2 s inside of a simulation, where nobody waits; leave"
        ):
            VirtualClock(numbers(1, "waits")).sleep(2)
