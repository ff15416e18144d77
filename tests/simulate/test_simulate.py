"""The simulation: what can be known by hand, what always holds, and that it agrees with real calls."""

import asyncio
import logging
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrykit import (
    CircuitBreaker,
    OriginPause,
    RetryBudget,
    RetryPolicy,
)
from retrykit.core import clock
from retrykit.simulate import Scenario, simulate

DOWN = ((0.0, 1000.0),)


def run(make, seed=1, **scenario):
    """The result of a single policy."""
    [result] = simulate(Scenario(**scenario), {"policy": make}, seed)
    return result


class TestAHealthyServer:
    def test_each_call_succeeds_with_a_single_request(self):
        result = run(RetryPolicy, rate=50, capacity=1000, duration=10)
        assert result.requests == result.calls == result.succeeded > 400
        assert result.requests_per_call == result.success == 1
        assert result.reasons == {"success": result.calls}
        assert result.sent == {1: result.calls}

    def test_calls_begin_at_the_rate(self):
        result = run(RetryPolicy, rate=100, capacity=1000, duration=50)
        assert 4700 < result.calls < 5300
        assert len(set(result.begun[:50])) > 10  # and at random

    def test_there_are_more_of_them_in_an_overload(self):
        result = run(RetryPolicy, rate=100, capacity=10_000, duration=20, overloads=((5, 10, 3), (8, 10, 2)))
        assert 400 < sum(result.begun[:5]) < 600
        assert 780 < sum(result.begun[5:8]) < 1020
        assert 1050 < sum(result.begun[8:10]) < 1350
        assert 850 < sum(result.begun[10:]) < 1150

    def test_a_share_fails_at_random(self):
        result = run(lambda: RetryPolicy(max_retries=1), rate=500, capacity=10_000, duration=20, failure_rate=0.1)
        assert 0.88 < result.success < 0.92

    def test_a_retry_rescues_most_of_them(self):
        result = run(RetryPolicy, rate=500, capacity=10_000, duration=20, failure_rate=0.1)
        assert result.success > 0.997
        assert 1.09 < result.requests_per_call < 1.13


class TestAnOutage:
    def test_in_one_without_end_they_come_when_the_schedule_says(self):
        result = run(lambda: RetryPolicy(max_retries=4), rate=50, duration=1, outages=DOWN)
        calls = result.calls
        assert result.received == (calls, calls, 0, calls, 0, 0, 0, calls)
        assert result.sent == {4: calls}
        assert result.reasons == {"attempts": calls}
        assert result.succeeded == 0

    def test_jitter_spreads_them(self):
        plain = run(lambda: RetryPolicy(base_delay=8), rate=200, duration=1, outages=DOWN)
        spread = run(lambda: RetryPolicy(base_delay=8, jitter="full"), rate=200, duration=1, outages=DOWN)
        assert plain.received[1:8] == (0,) * 7
        assert all(spread.received[1:8])

    def test_a_decorrelated_wait_follows_from_the_one_before(self):
        result = run(lambda: RetryPolicy(max_retries=4, jitter="decorrelated"), rate=200, duration=1, outages=DOWN)
        assert 4 + 3 * 3 < len(result.received) <= 1 + 3 + 9 + 27 + 1

    def test_calls_that_began_in_it_succeed_after_it(self):
        result = run(lambda: RetryPolicy(max_retries=2, base_delay=5), rate=50, duration=3, outages=((0, 3),))
        assert result.success == 1
        assert result.served[:5] == (0,) * 5

    def test_a_timeout_ends_them(self):
        result = run(lambda: RetryPolicy(max_retries=9, timeout=5), rate=50, duration=1, outages=DOWN)
        assert result.reasons == {"timeout": result.calls}
        assert result.sent == {3: result.calls}  # at 0, 1 and 3; the next one would be at 7

    def test_what_is_not_retried_is_sent_once(self):
        result = run(lambda: RetryPolicy(statuses={429}), rate=50, duration=1, outages=DOWN)
        assert result.reasons == {"not_retried": result.calls}
        assert result.sent == {1: result.calls}


class TestAnOverload:
    def test_the_queue_is_worked_off(self):
        result = run(RetryPolicy, rate=100, capacity=50, queue=10_000, duration=4)
        assert result.success == 1
        assert result.served[1:7] == (50,) * 6
        assert len(result.served) >= 8

    def test_a_full_queue_refuses(self):
        result = run(lambda: RetryPolicy(max_retries=1), rate=1000, capacity=10, queue=5, duration=2)
        assert result.succeeded == 19 + 6  # what was served while calls began, and what was still there then
        assert result.reasons["attempts"] == result.calls - result.succeeded

    def test_an_attempt_that_takes_too_long_times_out_and_its_work_is_wasted(self):
        result = run(
            lambda: RetryPolicy(max_retries=1, attempt_timeout=1), rate=400, capacity=100, queue=200, duration=10
        )
        # After a third of a second the queue is longer than anyone waits, and all the work is for those who have left.
        assert 120 < result.succeeded < 150
        assert sum(result.served[2:]) == 0

    def test_one_that_may_have_been_processed_is_sent_again_only_where_it_may_be(self):
        options = {"attempt_timeout": 1, "idempotent": False}
        result = run(lambda: RetryPolicy(**options), rate=400, capacity=100, queue=10_000, duration=2)
        assert set(result.reasons) == {"success", "not_repeatable"}
        assert result.sent == {1: result.calls}

    def test_without_that_timeout_nothing_is_wasted(self):
        result = run(lambda: RetryPolicy(max_retries=1), rate=400, capacity=100, queue=200, duration=10)
        assert result.succeeded > 1000

    def test_a_call_never_goes_on_past_its_timeout(self):
        result = run(
            lambda: RetryPolicy(max_retries=9, base_delay=0, timeout=0.7),
            rate=400,
            capacity=100,
            queue=10_000,
            duration=5,
            window=0.1,
        )
        assert set(result.reasons) == {"success", "timeout"}
        assert result.sent == {1: result.calls}
        assert len(result.received) <= 58


class TestBudget:
    @staticmethod
    def policy():
        return RetryPolicy(max_retries=9, base_delay=0.1, budget=RetryBudget.ratio(0.1, reserve=7))

    def test_an_outage_costs_its_reserve(self):
        result = run(self.policy, rate=100, duration=2, outages=DOWN)
        assert result.requests == result.calls + 7
        assert result.reasons == {"budget": result.calls}

    def test_each_process_has_its_own(self):
        result = run(self.policy, rate=100, duration=2, outages=DOWN, processes=3)
        assert result.requests == result.calls + 3 * 7

    def test_one_that_is_made_outside_is_shared(self):
        shared = self.policy()
        result = run(lambda: shared, rate=100, duration=2, outages=DOWN, processes=3)
        assert result.requests == result.calls + 7

    def test_successes_fill_it_again(self):
        result = run(self.policy, rate=100, duration=30, outages=((0, 1), (29, 100)))
        during = result.requests - result.calls
        assert during == 2 * 7


class TestBreaker:
    def test_it_opens_and_nothing_more_is_sent(self):
        result = run(
            lambda: RetryPolicy(max_retries=1, breaker=CircuitBreaker(min_attempts=20)),
            rate=100,
            duration=4,
            outages=DOWN,
        )
        assert result.requests == 20
        assert result.reasons == {"attempts": 20, "circuit_open": result.calls - 20}
        assert result.sent == {0: result.calls - 20, 1: 20}

    def test_it_closes_once_the_server_is_back(self):
        breaker = CircuitBreaker(min_attempts=20, open_for=5)
        result = run(lambda: RetryPolicy(max_retries=1, breaker=breaker), rate=100, duration=20, outages=((0, 8),))
        assert sum(result.received[:10]) == 21  # and one probe, 5 s later
        assert result.success > 0.4
        assert sum(result.served[11:20]) == sum(result.begun[11:20])

    def test_a_retry_is_not_waited_for_where_it_would_be_refused(self):
        result = run(
            lambda: RetryPolicy(max_retries=5, breaker=CircuitBreaker(min_attempts=1)),
            rate=1000,
            duration=0.5,
            window=0.1,
            outages=DOWN,
        )
        assert result.requests == 1
        assert result.reasons == {"circuit_open": result.calls}
        assert len(result.received) <= 7


class TestPause:
    def test_nothing_is_sent_until_it_has_passed_and_then_all_is_spread_out(self):
        result = run(
            lambda: RetryPolicy(pause=OriginPause(spread=0.25)),
            rate=200,
            capacity=100_000,
            duration=1,
            outages=((0, 1),),
            retry_after=2,
            window=0.1,
        )
        first = next(index for index, received in enumerate(result.received) if received)
        assert sum(result.received[: first + 20]) == 1
        after = result.received[first + 20 : first + 26]
        assert sum(after) == result.calls == result.succeeded
        assert sum(1 for received in after if received > 10) == 5

    def test_calls_that_wait_for_a_retry_are_spread_out_too(self):
        result = run(
            lambda: RetryPolicy(max_retries=2, attempt_timeout=0.5, pause=OriginPause(spread=0.25)),
            rate=1000,
            capacity=1,
            queue=10_000,
            duration=0.2,
            outages=((0.1, 0.2),),
            retry_after=5,
            window=0.1,
        )
        # Half of them wait for an answer that comes too late. Then one is told when to come back, and the others wait.
        assert result.received[1:51] == (1,) + (0,) * 49
        assert sum(result.received[51:65]) == result.calls
        assert max(result.received[51:]) < 40

    def test_a_call_that_can_t_wait_so_long_fails_at_once(self):
        pausing = {"rate": 100, "duration": 1, "outages": ((0, 1),), "retry_after": 2}
        impatient = run(lambda: RetryPolicy(pause=OriginPause(), timeout=1), **pausing)
        assert impatient.requests == 1
        assert impatient.reasons == {"timeout": impatient.calls}
        strict = run(lambda: RetryPolicy(pause=OriginPause(), max_retry_after=1), **pausing)
        assert strict.requests == 1
        assert strict.reasons == {"retry_after": strict.calls}

    def test_a_pause_is_not_waited_for_where_the_circuit_is_open_for_longer(self):
        result = run(
            lambda: RetryPolicy(pause=OriginPause(), breaker=CircuitBreaker(min_attempts=1, open_for=5)),
            rate=100,
            duration=0.5,
            outages=DOWN,
            retry_after=2,
            window=0.1,
        )
        assert result.requests == 1
        assert result.reasons == {"circuit_open": result.calls}
        assert len(result.received) <= 7

    def test_without_a_retry_after_there_is_none(self):
        plain = run(RetryPolicy, rate=100, duration=1, outages=DOWN)
        paused = run(lambda: RetryPolicy(pause=OriginPause()), rate=100, duration=1, outages=DOWN)
        assert paused.received == plain.received


# --- what always holds ------------------------------------------------------------------------------------------------

OUTAGES = st.lists(st.tuples(st.floats(0, 2), st.floats(2.5, 6)), max_size=1).map(tuple)
OVERLOADS = st.lists(st.tuples(st.floats(0, 2), st.floats(2.5, 6), st.floats(0.1, 5)), max_size=2).map(tuple)
SCENARIOS = st.builds(
    Scenario,
    clients=st.integers(5, 50),
    processes=st.integers(1, 5),
    rate=st.floats(1, 80),
    duration=st.floats(2.5, 5),
    capacity=st.floats(5, 100),
    queue=st.integers(0, 100),
    outages=OUTAGES,
    overloads=OVERLOADS,
    failure_rate=st.floats(0, 0.5),
    retry_after=st.none() | st.sampled_from([0.0, 0.5, 2.0, 100.0]),
    window=st.sampled_from([0.25, 1.0]),
)
OPTIONS = st.fixed_dictionaries(
    {"max_retries": st.integers(1, 5), "jitter": st.sampled_from(["none", "full", "equal", "decorrelated"])},
    optional={
        "base_delay": st.floats(0, 2),
        "timeout": st.floats(1.5, 5),
        "attempt_timeout": st.floats(0.01, 1.5),
        "budget": st.builds(RetryBudget.ratio, reserve=st.integers(1, 50)),
        "breaker": st.builds(CircuitBreaker, min_attempts=st.integers(1, 20), open_for=st.floats(0.1, 3)),
        "pause": st.builds(OriginPause, spread=st.floats(0, 1)),
    },
)


@given(scenario=SCENARIOS, options=OPTIONS, seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_nothing_is_lost_and_nothing_comes_from_nowhere(scenario, options, seed):
    [result] = simulate(scenario, {"policy": lambda: RetryPolicy(**options)}, seed)
    assert sum(requests * calls for requests, calls in result.sent.items()) == result.requests
    assert sum(result.sent.values()) == sum(result.reasons.values()) == result.calls
    assert result.reasons["success"] == result.succeeded
    assert max(result.sent, default=0) <= options["max_retries"]
    assert len(result.begun) == len(result.received) == len(result.served)
    # The server is never faster than it can be. A window may begin in the middle of a request.
    assert all(served <= scenario.capacity * scenario.window + 1 for served in result.served)


# --- repeatable -------------------------------------------------------------------------------------------------------

PROGRAM = """
from retrykit import CircuitBreaker, OriginPause, RetryBudget, RetryPolicy
from retrykit.simulate import Scenario, simulate

def make():
    return RetryPolicy(jitter="full", budget=RetryBudget(), breaker=CircuitBreaker(), pause=OriginPause())

scenario = Scenario(
    rate=60, capacity=50, queue=60, processes=4, duration=10, outages=((2, 4),), retry_after=1, failure_rate=0.01
)
[result] = simulate(scenario, {"all": make}, 7)
print(result.begun, result.received, result.served, sorted(result.reasons.items()), sorted(result.sent.items()))
"""


def test_the_same_seed_gives_the_same_result_in_any_process():
    def run(hash_seed):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-W", "error", "-c", PROGRAM]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout

    printed = run("1")
    assert len(printed) > 100
    assert run("2") == printed


def full_jitter():
    return RetryPolicy(jitter="full")


def test_the_same_seed_gives_the_same_result_and_another_seed_another():
    scenario = {"rate": 100, "capacity": 120, "duration": 10, "outages": ((2, 4),), "processes": 3}
    assert run(full_jitter, **scenario) == run(full_jitter, **scenario)
    assert run(full_jitter, **scenario).begun != run(full_jitter, seed=2, **scenario).begun


def test_all_policies_meet_the_same_calls_and_one_changes_nothing_for_another():
    scenario = Scenario(rate=100, capacity=120, duration=10, failure_rate=0.1, processes=3)
    alone = simulate(scenario, {"jitter": full_jitter})
    together = simulate(scenario, {"plain": RetryPolicy, "jitter": full_jitter})
    assert [result.name for result in together] == ["plain", "jitter"]
    assert together[1:] == alone
    assert together[0].begun[:10] == together[1].begun[:10]


# --- the order of the policies ----------------------------------------------------------------------------------------


def test_in_an_outage_retries_make_it_worse_and_guards_don_t():
    scenario = Scenario(rate=300, capacity=500, queue=600, duration=30, outages=((10, 15),), retry_after=1)
    base = RetryPolicy(max_retries=4, attempt_timeout=1)
    none, plain, jitter, budget, guarded = simulate(
        scenario,
        {
            "no retry": lambda: base.replace(max_retries=1),
            "exponential": lambda: base,
            "full jitter": lambda: base.replace(jitter="full"),
            "budget": lambda: base.replace(jitter="full", budget=RetryBudget()),
            "all": lambda: base.replace(
                jitter="full", budget=RetryBudget(), breaker=CircuitBreaker(), pause=OriginPause()
            ),
        },
    )
    during = [result.requests_per_call_in(10, 15) for result in (guarded, none, budget, jitter, plain)]
    assert during[0] < 0.1
    assert during[1] == 1
    assert 1 < during[2] < 1.1
    assert min(during[3:]) > 2
    assert (none.recovery, budget.recovery) == (0, 0)
    assert plain.recovery is None
    assert budget.goodput >= 0.97 * none.goodput
    assert none.goodput > 1.3 * max(plain.goodput, jitter.goodput)
    assert guarded.success > none.success  # It waited where the server asked for that.


# --- around it --------------------------------------------------------------------------------------------------------


def test_afterwards_the_time_is_real_and_the_log_is_on(log):
    before = clock.now()
    breaker = CircuitBreaker(min_attempts=2)
    run(lambda: RetryPolicy(breaker=breaker), rate=100, duration=100, outages=((0, 50),))
    assert 0 <= clock.now() - before < 60
    assert log.records == []
    logging.getLogger("retrykit").warning("heard")
    assert [record.message for record in log.records] == ["heard"]


def test_they_are_given_back_after_an_error_too(log):
    def fail():
        raise LookupError

    with pytest.raises(LookupError):
        run(fail)
    logging.getLogger("retrykit").warning("heard")
    assert len(log.records) == 1
    assert clock.now() > 0


class TestWhatIsNotSimulated:
    @pytest.mark.parametrize(
        "option",
        [
            {"hedge_after": 0.1},
            {"wait": lambda _: 1.0},
            {"stop": lambda _: False},
            {"retry_if": lambda _: False},
            {"before_retry": asyncio.sleep},
        ],
        ids=lambda option: next(iter(option)),
    )
    def test_it_is_refused_by_name(self, option):
        [name] = option
        with pytest.raises(ValueError, match=f"the policy 'policy' has {name}=, which is not simulated"):
            run(lambda: RetryPolicy(**option))

    def test_so_is_a_policy_in_the_place_of_a_function(self):
        with pytest.raises(TypeError, match=r"'policy' is no function that makes a RetryPolicy; write lambda:"):
            run(RetryPolicy())
        with pytest.raises(TypeError, match="no function that makes a RetryPolicy"):
            run(dict)

    def test_so_is_a_budget_that_has_to_ask_elsewhere(self):
        class Elsewhere:
            async def spend(self, origin, *, throttled):
                return True

            def earn(self, origin):
                pass

        with pytest.raises(TypeError, match="has to ask elsewhere, and a simulation waits for nobody"):
            run(lambda: RetryPolicy(budget=Elsewhere()), outages=DOWN)
