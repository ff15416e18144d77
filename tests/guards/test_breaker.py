"""CircuitBreaker: the table of its states, transition by transition."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrykit import CircuitBreaker, CircuitOpenError
from retrykit.core.clock import using
from retrykit.guards.breaker import TRANSITIONS, State, Turn
from tests.guards.clock import ManualClock

ORIGIN, OTHER = "https://a.example", "https://b.example"


def attempt(breaker, *, failed, origin=ORIGIN):
    breaker.leave(origin, breaker.enter(origin), failed=failed)


def in_state(state, clock, **options):
    """A breaker whose circuit is in this state; two attempts are enough to open it."""
    breaker = CircuitBreaker(**{"min_attempts": 2, "open_for": 5, **options})
    if state is not State.CLOSED:
        attempt(breaker, failed=True)
        attempt(breaker, failed=True)
    if state is State.HALF_OPEN:
        clock.time += 5
    assert breaker.state(ORIGIN) is state
    return breaker


def fail_often(breaker, clock):
    attempt(breaker, failed=True)
    attempt(breaker, failed=True)


def let_time_pass(breaker, clock):
    clock.time += 5


def fail_once(breaker, clock):
    attempt(breaker, failed=True)


def succeed(breaker, clock):
    attempt(breaker, failed=False)


@pytest.mark.parametrize(
    ("before", "turn", "happens"),
    [
        (State.CLOSED, Turn.FAILURES, fail_often),
        (State.OPEN, Turn.TIME, let_time_pass),
        (State.HALF_OPEN, Turn.PROBE_FAILED, fail_once),
        (State.HALF_OPEN, Turn.PROBES_SUCCEEDED, succeed),
    ],
)
def test_each_turn_of_the_table(clock, before, turn, happens):
    breaker = in_state(before, clock)
    happens(breaker, clock)
    assert breaker.state(ORIGIN) is TRANSITIONS[before, turn]


def test_the_table_is_complete():
    assert {turn for _, turn in TRANSITIONS} == set(Turn)
    assert {state for state, _ in TRANSITIONS} == set(TRANSITIONS.values()) == set(State)
    assert len(TRANSITIONS) == 4


@pytest.mark.parametrize(
    ("state", "happens"),
    [
        (State.CLOSED, let_time_pass),
        (State.CLOSED, fail_once),
        (State.CLOSED, succeed),
        (State.OPEN, lambda *_: None),
        (State.HALF_OPEN, let_time_pass),
    ],
)
def test_nothing_else_changes_it(clock, state, happens):
    breaker = in_state(state, clock)
    happens(breaker, clock)
    assert breaker.state(ORIGIN) is state


def test_an_open_circuit_says_how_long_it_stays_so(clock):
    breaker = in_state(State.OPEN, clock)
    clock.time += 1.5
    assert breaker.open_for(ORIGIN) == 3.5
    with pytest.raises(CircuitOpenError) as caught:
        breaker.enter(ORIGIN)
    error = caught.value
    assert (error.origin, error.retry_after, error.reason) == (ORIGIN, 3.5, "circuit_open")
    assert str(error) == (
        f"the circuit of {ORIGIN} is open for 3.5 s more, since too many attempts have failed, and nothing was sent"
    )
    attempt(breaker, origin=OTHER, failed=False)  # that of another origin is its own
    assert breaker.open_for(OTHER) == 0


def test_a_half_open_circuit_lets_only_its_probes_through(clock):
    breaker = in_state(State.HALF_OPEN, clock, probes=2)
    first, second = breaker.enter(ORIGIN), breaker.enter(ORIGIN)
    with pytest.raises(CircuitOpenError, match="is open until its probes have ended"):
        breaker.enter(ORIGIN)
    assert breaker.open_for(ORIGIN) == 0
    breaker.leave(ORIGIN, first, failed=False)
    assert breaker.state(ORIGIN) is State.HALF_OPEN
    breaker.leave(ORIGIN, second, failed=False)
    assert breaker.state(ORIGIN) is State.CLOSED


def test_one_probe_that_fails_is_enough(clock):
    breaker = in_state(State.HALF_OPEN, clock, probes=2)
    first, second = breaker.enter(ORIGIN), breaker.enter(ORIGIN)
    breaker.leave(ORIGIN, first, failed=False)
    breaker.leave(ORIGIN, second, failed=True)
    assert breaker.state(ORIGIN) is State.OPEN
    assert breaker.open_for(ORIGIN) == 5


def test_a_probe_that_says_nothing_makes_room_for_another(clock):
    breaker = in_state(State.HALF_OPEN, clock)
    probe = breaker.enter(ORIGIN)
    breaker.leave(ORIGIN, probe, failed=None)
    assert breaker.state(ORIGIN) is State.HALF_OPEN
    attempt(breaker, failed=False)
    assert breaker.state(ORIGIN) is State.CLOSED


def test_a_probe_that_hangs_makes_room_for_another_in_the_end(clock):
    breaker = in_state(State.HALF_OPEN, clock)
    hanging = breaker.enter(ORIGIN)
    clock.time += 4.9
    with pytest.raises(CircuitOpenError):
        breaker.enter(ORIGIN)
    clock.time += 0.1
    another = breaker.enter(ORIGIN)
    with pytest.raises(CircuitOpenError):
        breaker.enter(ORIGIN)
    breaker.leave(ORIGIN, hanging, failed=None)  # it makes room no second time
    with pytest.raises(CircuitOpenError):
        breaker.enter(ORIGIN)
    breaker.leave(ORIGIN, another, failed=False)
    assert breaker.state(ORIGIN) is State.CLOSED


def test_a_probe_has_its_time_from_its_own_start(clock):
    breaker = in_state(State.HALF_OPEN, clock)
    clock.time += 60  # nobody calls for a while, though somebody looks
    assert breaker.state(ORIGIN) is State.HALF_OPEN
    silent = breaker.enter(ORIGIN)
    with pytest.raises(CircuitOpenError):
        breaker.enter(ORIGIN)
    clock.time += 4.9
    breaker.leave(ORIGIN, silent, failed=None)
    breaker.enter(ORIGIN)
    clock.time += 0.2
    with pytest.raises(CircuitOpenError):
        breaker.enter(ORIGIN)


def test_what_began_before_a_turn_counts_no_more(clock):
    breaker = CircuitBreaker(min_attempts=2, open_for=5)
    late = [breaker.enter(ORIGIN) for _ in range(4)]
    fail_often(breaker, clock)
    breaker.leave(ORIGIN, late[0], failed=False)
    assert breaker.state(ORIGIN) is State.OPEN
    clock.time += 5
    probe = breaker.enter(ORIGIN)
    breaker.leave(ORIGIN, late[1], failed=True)
    breaker.leave(ORIGIN, late[2], failed=None)
    assert breaker.state(ORIGIN) is State.HALF_OPEN
    with pytest.raises(CircuitOpenError):
        breaker.enter(ORIGIN)
    breaker.leave(ORIGIN, probe, failed=False)
    breaker.leave(ORIGIN, late[3], failed=True)
    fail_once(breaker, clock)
    assert breaker.state(ORIGIN) is State.CLOSED  # only one has failed since


def test_a_closed_circuit_begins_to_count_anew(clock):
    breaker = in_state(State.HALF_OPEN, clock)
    succeed(breaker, clock)
    fail_once(breaker, clock)
    assert breaker.state(ORIGIN) is State.CLOSED
    fail_once(breaker, clock)
    assert breaker.state(ORIGIN) is State.OPEN


@pytest.mark.parametrize(("successes", "failures", "opens"), [(11, 9, False), (10, 10, True), (0, 19, False)])
def test_it_takes_the_rate_and_the_minimum(clock, successes, failures, opens):
    breaker = CircuitBreaker(failure_rate=0.5, min_attempts=20)
    for number in range(successes + failures):
        attempt(breaker, failed=number >= successes)
    assert (breaker.state(ORIGIN) is State.OPEN) == opens


def test_what_says_nothing_is_not_counted(clock):
    breaker = CircuitBreaker(min_attempts=2)
    for _ in range(10):
        attempt(breaker, failed=None)
    fail_once(breaker, clock)
    assert breaker.state(ORIGIN) is State.CLOSED


def test_a_success_does_not_open_it(clock):
    breaker = CircuitBreaker(min_attempts=3, failure_rate=0.5)
    fail_often(breaker, clock)
    succeed(breaker, clock)  # now there are enough, and two of three failed
    assert breaker.state(ORIGIN) is State.CLOSED
    fail_once(breaker, clock)
    assert breaker.state(ORIGIN) is State.OPEN


@given(st.lists(st.tuples(st.floats(0, 15), st.booleans()), max_size=60))
def test_what_is_older_than_the_window_is_forgotten(steps):
    clock = ManualClock()
    with using(clock):
        breaker = CircuitBreaker(window=10, min_attempts=3, failure_rate=0.5, open_for=1)
        history = []
        for wait, failed in steps:
            clock.time += wait
            if breaker.state(ORIGIN) is not State.CLOSED:
                break
            attempt(breaker, failed=failed)
            history.append((clock.time, failed))
            # To a tenth of the window: what is surely inside, and what may be.
            inside = [bad for time, bad in history if clock.time - time <= 9]
            maybe = [bad for time, bad in history if clock.time - time < 10]
            if breaker.state(ORIGIN) is State.OPEN:
                assert failed
                assert len(maybe) >= 3
            elif inside == maybe and failed:
                assert len(inside) < 3 or sum(inside) < 0.5 * len(inside)


def test_of_many_origins_the_one_used_longest_ago_is_forgotten(clock):
    breaker = CircuitBreaker(min_attempts=1, max_origins=2)
    origins = ["https://1.example", "https://2.example", "https://3.example"]
    for origin in origins:
        attempt(breaker, origin=origin, failed=True)
    assert [breaker.state(origin) for origin in origins] == [State.CLOSED, State.OPEN, State.OPEN]
    breaker.leave(origins[0], 0, failed=True)  # that of a forgotten one may still end
    assert breaker.state(origins[0]) is State.CLOSED
    assert repr(breaker) == "<CircuitBreaker: 2 not closed>"


def test_the_log_tells_of_each_turn(clock, caplog):
    caplog.set_level(logging.INFO, "retrykit")
    breaker = in_state(State.HALF_OPEN, clock)
    succeed(breaker, clock)
    counted = "of enough attempts, too many failed (2 of 2 attempts failed in 10 s)"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "WARNING",
            f"the circuit of {ORIGIN} is open: {counted}; in 5 s it is tried again",
        ),
        ("INFO", f"the circuit of {ORIGIN} is half-open: it was open for long enough"),
        ("INFO", f"the circuit of {ORIGIN} is closed: all probes succeeded"),
    ]


def test_circuits_are_counted_by_their_states_and_left_as_they_are(clock, caplog):
    breaker = CircuitBreaker(min_attempts=1, open_for=5)
    assert breaker.states() == dict.fromkeys(State, 0)
    attempt(breaker, failed=True)
    clock.time += 5
    attempt(breaker, failed=True, origin=OTHER)
    attempt(breaker, failed=False, origin=None)
    caplog.clear()
    caplog.set_level(logging.INFO, "retrykit")
    assert breaker.states() == {State.CLOSED: 1, State.OPEN: 1, State.HALF_OPEN: 1}
    assert not caplog.records  # Who counts them, perhaps in a thread, changes none.


def test_one_can_be_closed_and_is_found_by_an_address(clock, caplog):
    breaker = in_state(State.OPEN, clock, name="the shop")
    assert breaker.state(f"{ORIGIN}/v1?page=2") is State.OPEN
    breaker.close(f"{ORIGIN}/")
    assert breaker.state(ORIGIN) is State.CLOSED
    with pytest.raises(ValueError, match=r"'a\.example' is no origin; write scheme, host and port"):
        breaker.state("a.example")
    attempt(breaker, origin=None, failed=True)
    attempt(breaker, origin=None, failed=True)
    assert caplog.records[-1].getMessage().startswith("the circuit of the shop is open")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"failure_rate": 0}, ValueError, "failure_rate=0 is no share of 1"),
        ({"failure_rate": 50}, ValueError, "failure_rate=50 is no share of 1"),
        ({"window": 0}, ValueError, "window=0 is no length of time; write a finite number of seconds"),
        ({"min_attempts": 0}, ValueError, "min_attempts=0 is less than 1"),
        ({"open_for": "5 s"}, TypeError, "open_for='5 s' is no time"),
        ({"probes": 0}, ValueError, "probes=0 is less than 1"),
    ],
)
def test_what_cannot_work_is_refused(options, error, message):
    with pytest.raises(error) as caught:
        CircuitBreaker(**options)
    assert str(caught.value).startswith(message)
