"""Guards in calls, over real sockets: what each counts, what it refuses, and how they combine."""

import asyncio
import contextlib
import contextvars
import copy
import gc
import logging
import pickle
import time
from functools import partial

import aiohttp
import pytest
import tenacity

import retrykit
from retrykit import (
    AsyncHTTPClient,
    CircuitBreaker,
    CircuitOpenError,
    GiveUpError,
    LatencyQuantile,
    OriginPause,
    OriginPausedError,
    ResponseError,
    RetryBudget,
    RetryMiddleware,
    RetryPolicy,
    TryAgain,
    attempt_number,
    attempts_of,
    fetch_json,
    retry_http,
)
from retrykit.core.clock import using
from retrykit.guards.breaker import State
from retrykit.testing import Disconnect, Reply, ScriptedServer, Stall
from tests.guards.clock import ManualClock

# Slow enough to tell it from what is fast, on a busy machine too; no test waits for it.
SLOW = 30.0


@pytest.fixture
async def session():
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def fetch(session, scripted_server):
    """A coroutine that returns the response for a path."""

    async def fetch(path):
        return await session.get(scripted_server.url + path)

    return fetch


@pytest.fixture
def make_client(scripted_server):
    """Makes clients of the server."""

    def make(**options):
        return AsyncHTTPClient(scripted_server.url, **options)

    return make


def budget_of(retries):
    """A budget that is good for so many retries."""
    return RetryBudget.ratio(0.1, reserve=retries)


def left_of(budget, origin=None):
    """The retries that it is good for."""
    return budget.left(origin) / budget.cost


async def run_until(call, reached):
    """Run a coroutine as far as that, as a task would."""
    waiting = call.send(None)
    while not reached():
        await asyncio.sleep(0.005)
        if waiting.done():
            waiting = call.send(None)


async def cycles_of(call):
    """What of retrykit only the garbage collector frees, of a few calls."""
    await call()
    gc.collect()
    gc.disable()
    try:
        gc.set_debug(gc.DEBUG_SAVEALL)
        for _ in range(3):
            await call()
        await asyncio.sleep(0.05)
        gc.collect()
        return [thing for thing in gc.garbage if type(thing).__module__.startswith("retrykit")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


class AskingElsewhere:
    """A budget that answers later, as one does that has to ask a server."""

    def __init__(self, *answers, seconds=0.0):
        self._answers, self._seconds = list(answers), seconds
        self.earned = 0

    async def spend(self, origin, *, throttled):
        await asyncio.sleep(self._seconds)
        return self._answers.pop(0)

    def earn(self, origin):
        self.earned += 1


class _NothingLeft:
    """A budget that is used up."""

    def spend(self, origin, *, throttled):
        return False

    def earn(self, origin):
        """Nothing changes."""


class TestBudget:
    async def test_it_ends_calls_that_it_has_not_enough_for(self, fetch, scripted_server, no_waits, events):
        scripted_server.script("/down", 503)
        retried = retry_http(budget=budget_of(3))(fetch)
        sent = []
        for _ in range(4):
            with pytest.raises(GiveUpError) as caught:
                await retried("/down")
            sent.append(len(caught.value.attempts))
        assert sent == [3, 2, 1, 1]
        assert caught.value.reason == "budget"
        assert "the retry budget has not enough left for another" in str(caught.value)
        assert events[-1].reason == "budget"
        assert len(scripted_server.requests("/down")) == 7

    async def test_an_exception_comes_out_as_itself_with_a_note(self, fetch, scripted_server):
        scripted_server.script("/gone", Disconnect())
        with pytest.raises(aiohttp.ServerDisconnectedError) as caught:
            await retry_http(budget=RetryBudget(14), base_delay=0)(fetch)("/gone")
        assert len(attempts_of(caught.value)) == 2
        assert caught.value.__notes__ == [caught.value.__notes__[0]]
        assert "the retry budget has not enough left" in caught.value.__notes__[0]

    async def test_a_response_is_handed_back_where_that_is_asked_for(self, make_client, scripted_server):
        scripted_server.script("/down", Reply(503, "busy"))
        budget = budget_of(1)
        async with make_client(budget=budget, base_delay=0) as client:
            async with client.request("GET", "/down") as response:
                assert response.status == 503
                assert await response.text() == "busy"
            assert len(attempts_of(response)) == 2
            assert left_of(budget, scripted_server.url) == 0

    @pytest.mark.parametrize(("status", "earned"), [(200, 1), (204, 1), (404, 1), (500, 0), (501, 0)])
    async def test_an_answer_below_500_gives_back(self, fetch, make_client, scripted_server, status, earned):
        scripted_server.script("/it", status)
        budget = RetryBudget()
        budget.spend(scripted_server.url)
        budget.spend(None)
        async with make_client(budget=budget) as client:
            await (await client.request("GET", "/it")).release()
        await retry_http(budget=budget)(fetch)("/it")
        assert (budget.left(scripted_server.url), budget.left()) == (486 + earned, 486 + earned)

    async def test_an_answer_that_is_raised_gives_back_as_well(self, make_client, scripted_server):
        scripted_server.script("/missing", 404)
        scripted_server.script("/broken", 500)
        budget = RetryBudget()
        budget.spend(scripted_server.url)
        async with make_client(budget=budget) as client:
            for path in ("/missing", "/broken"):
                with pytest.raises(ResponseError):
                    await client.get(path)
        assert budget.left(scripted_server.url) == 487

    async def test_a_value_that_is_judged_gives_back(self):
        budget = RetryBudget()
        budget.spend()

        @retry_http(budget=budget, retry_if=lambda value: value == "pending")
        async def poll():
            return "done"

        assert await poll() == "done"
        assert budget.left() == 487

    async def test_what_fails_for_good_gives_nothing_back(self):
        budget = RetryBudget()
        budget.spend()

        @retry_http(budget=budget)
        async def fail():
            raise ValueError("a bug")

        with pytest.raises(ValueError, match="a bug"):
            await fail()
        assert budget.left() == 486

    async def test_a_429_is_cheaper(self, fetch, scripted_server, no_waits):
        scripted_server.script("/limited", 429, 503, 200)
        budget = RetryBudget()
        await retry_http(budget=budget)(fetch)("/limited")
        assert budget.left() == 500 - 5 - 14 + 1

    async def test_the_repeat_at_once_takes_from_it(self, make_client, scripted_server):
        scripted_server.script("/closed", Disconnect(), 200)
        budget = budget_of(1)
        async with make_client(budget=budget) as client:
            await client.get_bytes("/closed")
            assert left_of(budget, scripted_server.url) == pytest.approx(0.1)
            scripted_server.script("/closed", Disconnect(), 200)
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await client.get_bytes("/closed")

    async def test_it_is_asked_last(self, fetch, scripted_server, no_waits):
        scripted_server.script("/limited", Reply(503, retry_after=3600))
        scripted_server.script("/down", 503)
        budget = budget_of(9)
        for options in ({}, {"max_retries": 1}, {"timeout": 0.5}, {"stop": lambda _: True}):
            path = "/down" if options else "/limited"
            with pytest.raises(GiveUpError) as caught:
                await retry_http(budget=budget, **options)(fetch)(path)
            assert caught.value.reason != "budget"
        assert left_of(budget) == 9

    async def test_it_is_one_for_all_that_share_the_policy(
        self, fetch, make_client, session, scripted_server, no_waits
    ):
        scripted_server.script("/down", 503)
        budget = budget_of(4)
        policy = RetryPolicy(budget=budget, max_retries=2)
        async with make_client(policy=policy) as client:
            for call in (
                lambda: client.get("/down"),
                lambda: client.get("/down", max_retries=2),
                lambda: fetch_json(scripted_server.url + "/down", policy=policy),
                lambda: session.get(scripted_server.url + "/down", middlewares=[RetryMiddleware(policy)]),
            ):
                try:
                    response = await call()
                    response.release()
                except GiveUpError as error:
                    assert error.reason == "attempts"
        assert left_of(budget, scripted_server.url) == 0
        with pytest.raises(GiveUpError):
            await retry_http(policy=policy)(fetch)("/down")
        assert left_of(budget) == 3  # that of what has no origin

    async def test_it_may_have_to_ask_elsewhere(self, fetch, make_client, scripted_server, no_waits, events):
        scripted_server.script("/down", 503)
        scripted_server.script("/gone", Disconnect())
        scripted_server.script("/back", 503, 200)
        with pytest.raises(GiveUpError) as caught:
            await retry_http(budget=AskingElsewhere(True, False))(fetch)("/down")
        assert (caught.value.reason, len(caught.value.attempts)) == ("budget", 2)
        assert [event.attempt for event in events] == [1, 2]
        async with make_client(budget=AskingElsewhere(True, False, True)) as client:
            with pytest.raises(aiohttp.ServerDisconnectedError) as lost:
                await client.get("/gone")
            assert len(attempts_of(lost.value)) == 2
            await client.get_bytes("/back")
        budget = AskingElsewhere(True)
        scripted_server.script("/back", 503, 200)
        await retry_http(budget=budget, retry_if=lambda _: False)(fetch)("/back")
        assert budget.earned == 1

    async def test_a_call_that_is_cancelled_while_it_asks_leaves_nothing_open(self, session, scripted_server):
        scripted_server.script("/down", Reply(503, "x" * 100_000))
        responses = []

        @retry_http(budget=AskingElsewhere(True, seconds=SLOW))
        async def fetch():
            responses.append(await session.get(scripted_server.url + "/down"))
            return responses[-1]

        task = asyncio.create_task(fetch())
        while not responses:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert responses[0].closed


class TestPause:
    async def test_after_the_first_429_nobody_sends_until_it_has_passed(self, make_client, scripted_server):
        """The measurement of the issue, in real time: 200 callers, and a Retry-After of 2 seconds."""
        scripted_server.script("/limited", Reply(429, retry_after=2), 200)
        scripted_server.script("/other", 200)
        arrivals = []

        async def call(client, path):
            await client.get_bytes(path)
            arrivals.append(time.monotonic())

        async with make_client(pause=OriginPause(spread=0.25), timeout=SLOW) as client:
            first = asyncio.create_task(call(client, "/limited"))
            while not scripted_server.requests():
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)
            began = time.monotonic()
            callers = [asyncio.create_task(call(client, f"/{'limited' if n % 2 else 'other'}")) for n in range(200)]
            await asyncio.sleep(1.8)
            assert len(scripted_server.requests()) == 1
            await asyncio.gather(first, *callers)
        assert len(scripted_server.requests()) == 202
        assert min(arrivals) >= began + 1.9
        # They come one after the other: no tenth of a second has most of them.
        slots = [int((arrival - min(arrivals)) * 10) for arrival in arrivals]
        assert max(slots.count(slot) for slot in slots) < 120

    async def test_those_that_were_told_are_let_go_one_by_one_as_well(self, fetch, scripted_server):
        scripted_server.script("/limited", *[Reply(429, retry_after=1)] * 60, 200)
        pause, arrivals = OriginPause(spread=0.5), []
        retried = retry_http(pause=pause)(fetch)

        async def call():
            await retried("/limited")
            arrivals.append(time.monotonic())

        await asyncio.gather(*[call() for _ in range(60)])
        slots = [int((arrival - min(arrivals)) * 20) for arrival in arrivals]
        assert max(slots.count(slot) for slot in slots) < 30

    async def test_a_call_that_can_not_wait_fails_at_once_and_sends_nothing(self, make_client, scripted_server, events):
        pause = OriginPause()
        pause.begin(scripted_server.url, 20)
        scripted_server.script("/ok", 200)
        async with make_client(pause=pause) as client:
            with pytest.raises(OriginPausedError) as caught:
                await client.get("/ok", timeout=10)
            assert caught.value.reason == "timeout"
            assert caught.value.retry_after == pytest.approx(20, abs=2)
            with pytest.raises(TimeoutError):
                await client.get("/ok", timeout=10)
            with pytest.raises(OriginPausedError) as caught:
                await client.get("/ok", max_retry_after=5)
            assert caught.value.reason == "retry_after"
            assert "longer than the 5 s that max_retry_after allows, and nothing was sent" in str(caught.value)
        assert scripted_server.requests() == []
        assert attempts_of(caught.value) == ()
        assert events == []

    async def test_what_waits_for_a_retry_is_held_as_well(self, make_client, scripted_server, no_waits):
        scripted_server.script("/a", 503, 200)
        pause = OriginPause(spread=0)
        pause.begin(scripted_server.url, 0.0001)
        async with make_client(pause=pause, base_delay=1) as client:
            async with client.request("GET", "/a", before_retry=_pausing(pause, scripted_server.url, 5)) as response:
                assert response.status == 200
        assert no_waits[-2:] == [1.0, pytest.approx(5, abs=0.5)]

    async def test_its_own_retry_waits_for_the_pause(self, make_client, scripted_server, no_waits):
        scripted_server.script("/limited", Reply(429, retry_after=2), 200)
        async with make_client(pause=OriginPause(spread=0), base_delay=0.5) as client:
            async with client.request("GET", "/limited") as response:
                assert response.status == 200
        assert no_waits == [pytest.approx(2, abs=0.01)]

    async def test_a_pause_of_another_call_ends_a_call_that_can_not_wait(self, make_client, scripted_server, no_waits):
        scripted_server.script("/down", 503)
        pause = OriginPause()

        async def announce(_):
            pause.begin(scripted_server.url, 40)

        async with make_client(pause=pause, timeout=30, base_delay=1) as client:
            with pytest.raises(OriginPausedError) as caught:
                await client.get("/down", before_retry=announce)
            assert [attempt.status for attempt in attempts_of(caught.value)] == [503]
            assert "gave up after 1 attempt" in caught.value.__notes__[0]
            with pytest.raises(OriginPausedError):
                await client.get("/down")
        assert len(scripted_server.requests()) == 1

    async def test_a_failure_during_a_pause_ends_with_its_own_outcome(self, make_client, scripted_server, no_waits):
        pause = OriginPause()
        scripted_server.script("/down", Reply(503, delay=0.1))
        async with make_client(pause=pause, timeout=30, base_delay=1) as client:
            call = asyncio.create_task(client.get("/down"))
            while not scripted_server.requests():
                await asyncio.sleep(0.01)
            pause.begin(scripted_server.url, 40)
            with pytest.raises(GiveUpError) as caught:
                await call
            assert caught.value.reason == "timeout"
            pause.begin(scripted_server.url, 100)

    @pytest.mark.parametrize("reply", [Reply(503), Reply(404, retry_after=5), Reply(200, retry_after=5)])
    async def test_only_a_retry_after_of_429_and_503_pauses(self, make_client, scripted_server, reply):
        pause = OriginPause()
        scripted_server.script("/it", reply)
        async with make_client(pause=pause, max_retries=1) as client, client.request("GET", "/it"):
            assert pause.left(scripted_server.url) == 0

    @pytest.mark.parametrize("options", [{}, {"statuses": ()}, {"max_retries": 1}, {"max_retry_after": 1}])
    async def test_it_pauses_whatever_becomes_of_the_call(self, make_client, scripted_server, options):
        pause = OriginPause()
        scripted_server.script("/limited", Reply(429, retry_after=50))
        async with make_client(pause=pause, **options) as client, client.request("GET", "/limited"):
            assert pause.left(scripted_server.url) == pytest.approx(50, abs=2)

    async def test_the_functions_that_share_it_pause_together(self, fetch, scripted_server, no_waits):
        pause = OriginPause(spread=0)
        scripted_server.script("/limited", Reply(429, retry_after=7))
        with pytest.raises(GiveUpError):
            await retry_http(pause=pause, max_retries=1)(fetch)("/limited")
        scripted_server.script("/ok", 200)
        await retry_http(pause=pause)(fetch)("/ok")
        assert no_waits == [pytest.approx(7, abs=0.5)]

    async def test_being_held_is_no_part_of_an_attempt(self, make_client, scripted_server):
        pause = OriginPause(spread=0)
        scripted_server.script("/ok", Reply(200, delay=0.05))
        pause.begin(scripted_server.url, 0.6)
        async with make_client(pause=pause, attempt_timeout=0.5, max_retries=1) as client:
            assert await client.get_bytes("/ok") == b""

    async def test_a_held_call_has_only_what_is_left_of_its_time(self, make_client, scripted_server):
        pause = OriginPause(spread=0)
        scripted_server.script("/slow", Stall())
        pause.begin(scripted_server.url, 0.5)
        async with make_client(pause=pause, timeout=0.8) as client:
            with pytest.raises(TimeoutError) as caught:
                await asyncio.wait_for(client.get("/slow"), 10)
        assert not isinstance(caught.value, OriginPausedError)
        assert attempts_of(caught.value)[-1].elapsed == pytest.approx(0.8, abs=0.25)

    async def test_a_call_is_let_go_before_its_time_is_over(self, make_client, scripted_server, no_waits):
        pause = OriginPause(spread=100)
        scripted_server.script("/ok", 200)
        async with make_client(pause=pause, timeout=30) as client:
            for _ in range(20):
                pause.begin(scripted_server.url, 10)
                await client.get_bytes("/ok")
        assert all(9 < wait < 30 for wait in no_waits)

    async def test_an_answer_behind_a_redirect_pauses_the_one_who_gave_it(self, make_client, scripted_server):
        async with ScriptedServer() as other:
            scripted_server.script("/it", Reply(302, headers={"Location": other.url + "/there"}))
            other.script("/there", Reply(503, retry_after=50))
            pause, breaker = OriginPause(), CircuitBreaker(min_attempts=1)
            async with make_client(pause=pause, breaker=breaker, max_retries=1) as client:
                with pytest.raises(GiveUpError):
                    await client.get("/it")
            assert pause.left(scripted_server.url) == 0
            assert pause.left(other.url) == pytest.approx(50, abs=2)
            assert breaker.state(scripted_server.url) is State.CLOSED

    async def test_a_helper_knows_the_base_url_of_its_session(self, scripted_server):
        scripted_server.script("/limited", Reply(429, retry_after=50))
        scripted_server.script("/ok", {"id": 1})
        pause = OriginPause()
        policy = RetryPolicy(pause=pause, max_retries=1)
        async with aiohttp.ClientSession(base_url=scripted_server.url) as session:
            with pytest.raises(GiveUpError):
                await retrykit.get(session, "/limited", policy=policy)
            assert pause.left(scripted_server.url) > 40
            assert pause.left(None) == 0
            with pytest.raises(OriginPausedError):
                await fetch_json("/ok", session=session, policy=policy, timeout=1)
            async with ScriptedServer() as other, aiohttp.ClientSession(base_url=other.url) as well:
                other.script("/ok", {"id": 2})
                assert await fetch_json("/ok", session=well, policy=policy) == {"id": 2}

    async def test_who_wakes_a_moment_early_is_not_held_for_long_again(self):
        class Early(ManualClock):
            def __init__(self):
                super().__init__()
                self.drawn, self.slept = 0.5, []

            async def sleep(self, seconds, /):
                self.slept.append(seconds)
                self.time += seconds - (5.000_001 if len(self.slept) == 1 else 0)

        clock, pause = Early(), OriginPause(spread=1)
        with using(clock):
            pause.begin(None, 10)
            await retry_http(pause=pause)(asyncio.sleep)(0)
        assert clock.slept == [15, pytest.approx(0.000_001)]

    async def test_a_held_call_can_be_cancelled(self, make_client, scripted_server):
        pause = OriginPause()
        pause.begin(scripted_server.url, 20)
        async with make_client(pause=pause) as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.get("/ok"), 0.05)
        assert scripted_server.requests() == []


def _pausing(pause, origin, seconds):
    async def announce(_):
        pause.begin(origin, seconds)

    return announce


class TestBreaker:
    async def test_an_open_circuit_sends_nothing(self, make_client, scripted_server, no_waits, events):
        scripted_server.script("/down", 503)
        breaker = CircuitBreaker(min_attempts=6)
        async with make_client(breaker=breaker) as client:
            for _ in range(2):
                with pytest.raises(GiveUpError):
                    await client.get("/down")
            told = len(events)
            with pytest.raises(CircuitOpenError) as caught:
                await client.get("/down")
        assert caught.value.origin == scripted_server.url
        assert 0 < caught.value.retry_after <= 5
        assert isinstance(caught.value, aiohttp.ClientError)
        assert attempts_of(caught.value) == ()
        assert len(events) == told
        assert len(scripted_server.requests()) == 6

    async def test_the_call_that_opens_it_ends_with_its_own_outcome(
        self, make_client, scripted_server, no_waits, events
    ):
        scripted_server.script("/down", Reply(503, "why"))
        async with make_client(breaker=CircuitBreaker(min_attempts=2), max_retries=5) as client:
            with pytest.raises(GiveUpError) as caught:
                await client.get("/down")
        assert (caught.value.reason, caught.value.body) == ("circuit_open", b"why")
        assert [attempt.status for attempt in caught.value.attempts] == [503, 503]
        assert "the circuit breaker would not let another through" in str(caught.value)
        assert events[-1].reason == "circuit_open"
        assert no_waits == [1.0]

    async def test_a_wait_that_is_longer_than_the_circuit_is_open_is_waited(self, fetch, scripted_server, no_waits):
        scripted_server.script("/down", 503, 503, 200)
        breaker = CircuitBreaker(min_attempts=1, open_for=1.5)
        response = await retry_http(breaker=breaker, base_delay=2)(fetch)("/down")
        assert response.status == 200
        assert no_waits == [2.0, 4.0]
        assert breaker.state() is State.CLOSED

    async def test_one_that_opens_during_the_wait_ends_the_call(self, make_client, scripted_server, no_waits, events):
        scripted_server.script("/down", 503)
        breaker = CircuitBreaker(min_attempts=2, open_for=30)

        async def fail(_):
            breaker.leave(scripted_server.url, breaker.enter(scripted_server.url), failed=True)

        async with make_client(breaker=breaker, before_retry=fail) as client:
            with pytest.raises(CircuitOpenError) as caught:
                await client.get("/down")
        assert [attempt.status for attempt in attempts_of(caught.value)] == [503]
        assert "gave up after 1 attempt" in caught.value.__notes__[0]
        assert events[-1].reason == "circuit_open"
        assert caught.value.__context__ is None

    async def test_it_is_never_retried(self, scripted_server, make_client, no_waits):
        breaker = CircuitBreaker(min_attempts=1)
        breaker.leave(scripted_server.url, breaker.enter(scripted_server.url), failed=True)
        async with make_client(breaker=breaker) as client:

            @retry_http(exceptions=(aiohttp.ClientError,))
            async def outer():
                return await client.get("/ok")

            with pytest.raises(CircuitOpenError):
                await outer()
        assert no_waits == []
        with pytest.raises(ValueError, match="CircuitOpenError, which is permanent"):
            RetryPolicy(exceptions=(CircuitOpenError,))

    @pytest.mark.parametrize("status", [404, 401, 400, 500])
    async def test_an_answer_is_that_of_a_healthy_server(self, make_client, fetch, scripted_server, status):
        scripted_server.script("/it", status)
        breaker = CircuitBreaker(min_attempts=2)
        async with make_client(breaker=breaker, base_delay=0) as client:
            for _ in range(3):
                with pytest.raises(ResponseError):
                    await client.get("/it")
            with pytest.raises(ResponseError):  # 404 until it is there: that is no outage either
                await client.get("/it", statuses={404, 401, 400})
            for _ in range(3):
                await retry_http(breaker=breaker)(fetch)("/it")
        assert breaker.state(scripted_server.url) is State.CLOSED
        assert breaker.state() is State.CLOSED

    async def test_what_asks_for_another_attempt_is_no_outage(self):
        breaker = CircuitBreaker(min_attempts=2)

        @retry_http(breaker=breaker, base_delay=0, retry_if=lambda value: value == "pending")
        async def poll():
            if attempt_number() == 1:
                return "pending"
            raise TryAgain

        with pytest.raises(TryAgain):
            await poll()
        assert breaker.state() is State.CLOSED

    @pytest.mark.parametrize("failure", [Reply(502), Reply(429), Disconnect(), Stall()])
    async def test_what_would_be_retried_is_an_outage(self, make_client, scripted_server, failure):
        scripted_server.script("/it", failure)
        breaker = CircuitBreaker(min_attempts=3)
        async with make_client(breaker=breaker, base_delay=0, attempt_timeout=0.2) as client:
            with pytest.raises((ResponseError, aiohttp.ClientError, TimeoutError)):
                await client.get("/it")
        assert breaker.state(scripted_server.url) is State.OPEN

    async def test_what_is_asked_for_because_of_a_failure_is_one(self):
        breaker = CircuitBreaker(min_attempts=3)

        @retry_http(breaker=breaker, base_delay=0)
        async def fetch():
            raise TryAgain from aiohttp.ServerDisconnectedError()

        with pytest.raises(aiohttp.ServerDisconnectedError):
            await fetch()
        assert breaker.state() is State.OPEN

    async def test_a_500_neither_opens_nor_closes_it(self, fetch, scripted_server):
        scripted_server.script("/broken", 500)
        breaker = CircuitBreaker(min_attempts=1, open_for=0.05)
        breaker.leave(None, breaker.enter(None), failed=True)
        await asyncio.sleep(0.06)
        for _ in range(2):
            await retry_http(breaker=breaker)(fetch)("/broken")
            assert breaker.state() is State.HALF_OPEN

    async def test_refusals_leave_no_cycles(self, fetch):
        breaker = CircuitBreaker(min_attempts=1)
        breaker.leave(None, breaker.enter(None), failed=True)
        for options in ({}, {"hedge_after": 1}):
            refused = retry_http(breaker=breaker, **options)(fetch)

            async def refuse(refused=refused):
                with contextlib.suppress(CircuitOpenError):
                    await refused("/ok")

            assert await cycles_of(refuse) == []

    async def test_a_bug_is_not_counted(self):
        breaker = CircuitBreaker(min_attempts=1, open_for=0.05)

        @retry_http(breaker=breaker)
        async def fail():
            raise KeyError("a bug")

        with pytest.raises(KeyError):
            await fail()
        assert breaker.state() is State.CLOSED
        breaker.leave(None, breaker.enter(None), failed=True)
        await asyncio.sleep(0.06)
        with pytest.raises(KeyError):
            await fail()
        assert breaker.state() is State.HALF_OPEN

    @pytest.mark.parametrize("hedge_after", [None, 0.2])
    async def test_no_attempt_begins_after_the_end(self, fetch, scripted_server, hedge_after):
        scripted_server.script("/down", 503, 200)

        def late(state):
            time.sleep(0.3)
            return False

        options = {"breaker": CircuitBreaker(), "hedge_after": hedge_after, "stop": late}
        with pytest.raises(TimeoutError) as caught:
            await retry_http(timeout=0.25, base_delay=0.01, **options)(fetch)("/down")
        assert [attempt.status for attempt in attempts_of(caught.value)] == [503]
        assert len(scripted_server.requests()) == 1

    async def test_half_open_it_tries_with_one_attempt_at_a_time(self, make_client, scripted_server, no_waits):
        scripted_server.script("/ok", Reply(200, delay=0.2))
        breaker = CircuitBreaker(min_attempts=1, open_for=0.05)
        breaker.leave(scripted_server.url, breaker.enter(scripted_server.url), failed=True)
        await asyncio.sleep(0.06)
        async with make_client(breaker=breaker) as client:
            results = await asyncio.gather(*[client.get_bytes("/ok") for _ in range(5)], return_exceptions=True)
            assert [type(result) for result in results] == [bytes] + [CircuitOpenError] * 4
            assert breaker.state(scripted_server.url) is State.CLOSED
            await client.get_bytes("/ok")

    @pytest.mark.parametrize("hedge_after", [None, 10])
    async def test_a_probe_that_is_cancelled_makes_room_for_another(self, make_client, scripted_server, hedge_after):
        scripted_server.script("/slow", Stall())
        scripted_server.script("/ok", 200)
        breaker = CircuitBreaker(min_attempts=1, open_for=0.05)
        breaker.leave(scripted_server.url, breaker.enter(scripted_server.url), failed=True)
        await asyncio.sleep(0.06)
        async with make_client(breaker=breaker, hedge_after=hedge_after) as client:
            probe = asyncio.create_task(client.get("/slow"))
            while not scripted_server.requests():
                await asyncio.sleep(0.01)
            with pytest.raises(CircuitOpenError):
                await client.get("/ok")
            probe.cancel()
            with pytest.raises(asyncio.CancelledError):
                await probe
            await client.get_bytes("/ok")
        assert breaker.state(scripted_server.url) is State.CLOSED


class TestHedging:
    async def test_a_second_attempt_beside_a_slow_one(self, make_client, scripted_server):
        scripted_server.script("/it", Stall(), {"id": 1})
        async with make_client(hedge_after=0.05) as client:
            async with client.request("GET", "/it") as response:
                assert await response.json() == {"id": 1}
            first, second = attempts_of(response)
            assert (str(first), str(second)) == ("CancelledError", "200")
            assert first.delay is None
            assert await client.get("/it") == {"id": 1}
            assert len(scripted_server.requests()) == 3
        assert len(asyncio.all_tasks()) <= 3  # this one, and the server's

    async def test_the_first_one_may_still_win(self, fetch, scripted_server):
        scripted_server.script("/it", Reply(200, delay=0.3), Stall())
        response = await retry_http(hedge_after=0.05)(fetch)("/it")
        assert response.status == 200
        assert [str(attempt) for attempt in attempts_of(response)] == ["CancelledError", "200"]
        assert len(scripted_server.requests()) == 2

    async def test_a_fast_one_is_alone(self, fetch, scripted_server):
        scripted_server.script("/it", 200)
        response = await retry_http(hedge_after=5)(fetch)("/it")
        assert attempts_of(response) == ()
        assert len(scripted_server.requests()) == 1

    async def test_the_loser_is_cancelled_and_awaited(self, session, scripted_server):
        scripted_server.script("/it", Stall(), 200)
        ended = []

        @retry_http(hedge_after=0.05)
        async def fetch():
            number = attempt_number()
            try:
                return await session.get(scripted_server.url + "/it")
            finally:
                await asyncio.sleep(0.05)
                ended.append(number)

        response = await fetch()
        assert response.status == 200
        assert sorted(ended) == [1, 2]
        response.release()
        assert not session.connector._acquired

    async def test_at_most_two_run_at_a_time(self, session, scripted_server):
        scripted_server.script("/it", Stall())
        running, most = 0, 0

        @retry_http(hedge_after=0.02, max_retries=5, timeout=0.4)
        async def fetch():
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                return await session.get(scripted_server.url + "/it")
            finally:
                running -= 1

        with pytest.raises(TimeoutError):
            await fetch()
        assert (running, most) == (0, 2)

    async def test_a_copy_that_fails_starts_the_next_at_once(self, fetch, scripted_server, no_waits, events):
        scripted_server.script("/it", Stall(), 503, {"id": 1})
        response = await retry_http(hedge_after=0.05)(fetch)("/it")
        assert await response.json() == {"id": 1}
        assert [str(attempt) for attempt in attempts_of(response)] == ["503", "CancelledError", "200"]
        assert no_waits == []
        assert [(event.attempt, event.status, event.delay) for event in events] == [(1, 503, 0.0)]

    async def test_the_response_of_a_copy_that_failed_is_let_go(self, session, scripted_server):
        scripted_server.script("/it", Stall(), Reply(503, "x" * 100_000, body_delay=SLOW), 200)
        responses = []

        @retry_http(hedge_after=0.05)
        async def fetch():
            responses.append(await session.get(scripted_server.url + "/it"))
            return responses[-1]

        won = await fetch()
        assert [response.status for response in responses] == [503, 200]
        assert responses[0].closed
        won.release()
        assert not session.connector._acquired

    async def test_listeners_are_told_of_a_next_one_only_where_it_begins(
        self, fetch, scripted_server, no_waits, events
    ):
        scripted_server.script("/it", Reply(503, delay=0.15), Reply(503, delay=0.25))
        with pytest.raises(GiveUpError):
            await retry_http(hedge_after=0.05, max_retries=2)(fetch)("/it")
        assert [(type(event).__name__, event.attempt) for event in events] == [("GiveUpEvent", 2)]

    async def test_stop_allows_none_beside_either(self, fetch, scripted_server):
        scripted_server.script("/it", Reply(200, delay=0.3))
        for stop in (tenacity.stop_after_attempt(1), tenacity.stop_after_delay(0.01), lambda _: True):
            await retry_http(hedge_after=0.05, stop=stop)(fetch)("/it")
        assert len(scripted_server.requests()) == 3
        await retry_http(hedge_after=0.05, stop=tenacity.stop_after_attempt(2))(fetch)("/it")
        assert len(scripted_server.requests()) == 5

    async def test_what_has_to_happen_before_a_retry_happens(self, session, scripted_server, no_waits):
        scripted_server.script("/it", Reply(401, delay=0.15), Reply(401, delay=0.25), 200)
        token = "old"

        async def refresh(event):
            nonlocal token
            token = f"new after {event.status}"

        @retry_http(hedge_after=0.05, statuses={401}, before_retry=refresh)
        async def fetch():
            return await session.get(scripted_server.url + "/it", headers={"Token": token})

        assert (await fetch()).status == 200
        sent = [request.headers["Token"] for request in scripted_server.requests()]
        assert sent == ["old", "old", "new after 401"]

    async def test_a_stack_is_reported(self, fetch, scripted_server):
        scripted_server.script("/it", Reply(503, delay=0.05))
        inner = retry_http(max_retries=2, base_delay=0)(fetch)

        @retry_http(hedge_after=0.02, max_retries=3, base_delay=0, exceptions=(GiveUpError,))
        async def outer():
            return await inner("/it")

        with pytest.warns(retrykit.StackedRetriesWarning, match="outer"), pytest.raises(GiveUpError):
            await outer()

    async def test_a_copy_that_was_told_to_wait_starts_none(self, fetch, scripted_server):
        scripted_server.script("/it", Reply(200, delay=0.5), Reply(503, retry_after=20), 200)
        response = await retry_http(hedge_after=0.05)(fetch)("/it")
        assert response.status == 200
        assert len(scripted_server.requests()) == 2

    async def test_where_all_fail_the_last_failure_is_retried(self, fetch, scripted_server, no_waits):
        scripted_server.script("/it", Reply(429, delay=0.15, retry_after=1), Reply(503, delay=0.3), 200)
        response = await retry_http(hedge_after=0.05)(fetch)("/it")
        assert response.status == 200
        assert [attempt.status for attempt in attempts_of(response)] == [429, 503, 200]
        assert no_waits == [1.0]  # of the attempts before, one waited for nothing

    async def test_what_a_copy_was_told_to_wait_is_waited(self, fetch, scripted_server, no_waits):
        scripted_server.script("/it", Reply(503, delay=0.15, retry_after=9), Reply(503, delay=0.3), 200)
        response = await retry_http(hedge_after=0.05)(fetch)("/it")
        assert response.status == 200
        assert no_waits == [pytest.approx(8.8, abs=0.15)]

    async def test_one_that_fails_is_replaced_once_and_then_there_is_the_backoff(
        self, session, scripted_server, no_waits
    ):
        scripted_server.script("/it", Reply(503, delay=0.15))
        with pytest.raises(GiveUpError) as caught:
            await retry_http(hedge_after=0.05, max_retries=7)(lambda: session.get(scripted_server.url + "/it"))()
        assert len(caught.value.attempts) == 7
        assert no_waits == [1.0, 2.0]  # after three attempts, and three more

    async def test_one_that_may_come_back_now_is_replaced(self, fetch, scripted_server):
        scripted_server.script("/it", Stall(), Reply(503, retry_after=0), 200)
        response = await retry_http(hedge_after=0.05)(fetch)("/it")
        assert [str(attempt) for attempt in attempts_of(response)] == ["503", "CancelledError", "200"]

    async def test_an_answer_that_is_no_success_is_an_answer(self, make_client, scripted_server):
        scripted_server.script("/it", Stall(), 404)
        async with make_client(hedge_after=0.05) as client:
            with pytest.raises(ResponseError) as caught:
                await client.get("/it")
        assert caught.value.status == 404
        assert [str(attempt) for attempt in attempts_of(caught.value)] == ["CancelledError", "404"]

    async def test_it_counts_towards_max_retries(self, fetch, scripted_server, no_waits):
        scripted_server.script("/it", Stall())
        with pytest.raises(TimeoutError) as caught:
            await retry_http(hedge_after=0.05, max_retries=3, attempt_timeout=0.3)(fetch)("/it")
        assert len(attempts_of(caught.value)) == 3
        assert len(scripted_server.requests()) == 3

    async def test_each_copy_has_a_time_of_its_own(self, fetch, scripted_server):
        scripted_server.script("/it", Stall(), Reply(200, delay=0.35))
        response = await retry_http(hedge_after=0.3, attempt_timeout=0.5, max_retries=2)(fetch)("/it")
        assert [str(attempt) for attempt in attempts_of(response)] == ["TimeoutError", "200"]

    async def test_what_may_not_be_repeated_is_not_hedged(self, make_client, scripted_server):
        scripted_server.script("/it", Reply(200, delay=0.3))
        async with make_client(hedge_after=0.02) as client:
            await client.post("/it", b"once")
            assert len(scripted_server.requests()) == 1
            await client.post("/it", b"twice", idempotency_key=True)
            assert len(scripted_server.requests()) == 3
            keys = {request.headers.get("Idempotency-Key") for request in scripted_server.requests()[1:]}
            assert len(keys) == 1

    async def test_a_body_that_can_not_be_shared_is_not_hedged(self, make_client, scripted_server, tmp_path):
        scripted_server.script("/it", Reply(200, delay=0.3))
        path = tmp_path / "body"
        path.write_bytes(b"a file" * 50_000)

        async def generate():
            yield b"a generator"

        async with make_client(hedge_after=0.05) as client:
            await client.put("/it", generate())
            assert len(scripted_server.requests()) == 1
            await client.put("/it", path.open("rb"))
            await client.put("/it", lambda: path.open("rb"))
            form = aiohttp.FormData({"file": path.open("rb")})
            await client.put("/it", form)
        bodies = [request.body for request in scripted_server.requests()]
        assert len(bodies) == 7
        assert bodies[1:5] == [path.read_bytes()] * 4
        assert path.read_bytes() in bodies[5]
        assert path.read_bytes() in bodies[6]

    async def test_the_middleware_refuses_it(self):
        with pytest.raises(ValueError, match="RetryMiddleware can't hedge"):
            RetryMiddleware(hedge_after=1)

    async def test_it_may_be_a_function(self, make_client, scripted_server):
        scripted_server.script("/it", Reply(200, delay=0.3))
        asked = []

        def after(origin):
            asked.append(origin)
            return None if len(asked) == 1 else 0.02

        async with make_client(hedge_after=after) as client:
            await client.get_bytes("/it")
            assert len(scripted_server.requests()) == 1
            await client.get_bytes("/it")
            assert len(scripted_server.requests()) == 3
        assert asked == [scripted_server.url] * 2
        async with make_client(hedge_after=lambda _: "soon") as client:
            with pytest.raises(TypeError, match="returned 'soon'; it has to return seconds"):
                await client.get("/it")

    async def test_it_learns_what_is_slow(self, make_client, scripted_server):
        scripted_server.script("/fast", 200)
        latency = LatencyQuantile(0.9, warm_up=20, window=40)
        async with make_client(hedge_after=latency) as client:
            for _ in range(20):
                assert latency(scripted_server.url) is None
                await client.get_bytes("/fast")
            fast = latency(scripted_server.url)
            assert 0 < fast < 1
            scripted_server.script("/slow", Stall(), 200)
            await client.get_bytes("/slow")
            assert len(scripted_server.requests("/slow")) == 2
            # What lost took at least that long.
            recorded = latency._latencies[scripted_server.url].by_age
            assert recorded[-1] >= fast
            scripted_server.script("/down", 503)
            with pytest.raises(GiveUpError):
                await client.get_bytes("/down", base_delay=0)
            assert len(recorded) == 21  # a failure that came fast is no fast answer

    async def test_failures_teach_it_nothing_before_the_first_hedge_either(self, make_client, scripted_server):
        scripted_server.script("/down", 503)
        latency = LatencyQuantile(0.9, warm_up=1)
        async with make_client(hedge_after=latency) as client:
            with pytest.raises(GiveUpError):
                await client.get_bytes("/down", base_delay=0)
        assert latency(scripted_server.url) is None

    async def test_only_first_attempts_teach_it(self):
        latency, began = LatencyQuantile(0.9, warm_up=1), 0

        @retry_http(hedge_after=latency, base_delay=0)
        async def attempt():
            nonlocal began
            began += 1
            if began == 1:
                raise aiohttp.ServerDisconnectedError

        await attempt()
        assert latency() is None

    async def test_two_that_fail_in_one_turn_are_two_attempts(self):
        gate, began = asyncio.Event(), 0

        @retry_http(hedge_after=0.02, max_retries=3, base_delay=0)
        async def fail():
            nonlocal began
            began += 1
            if began < 3:
                await gate.wait()
            raise aiohttp.ServerDisconnectedError(f"attempt {began}")

        task = asyncio.create_task(fail())
        while began < 2:
            await asyncio.sleep(0.01)
        gate.set()
        with pytest.raises(aiohttp.ServerDisconnectedError) as caught:
            await task
        assert (began, len(attempts_of(caught.value))) == (3, 3)

    async def test_a_cancelled_call_leaves_nothing_behind(self, session, scripted_server):
        scripted_server.script("/it", Stall())
        ended = []

        @retry_http(hedge_after=0.02)
        async def fetch():
            try:
                return await session.get(scripted_server.url + "/it")
            except asyncio.CancelledError:
                try:
                    await asyncio.sleep(SLOW)
                finally:
                    ended.append(attempt_number())
                raise

        task = asyncio.create_task(fetch())
        while len(scripted_server.requests()) < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0.01)
        task.cancel()  # a second time, while the attempts are awaited
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(ended) == [1, 2]
        assert not session.connector._acquired

    async def test_a_response_that_comes_too_late_is_let_go(self, session, scripted_server):
        scripted_server.script("/it", Reply(200, delay=0.05), 200)
        gates = [asyncio.Event(), asyncio.Event()]
        responses = []

        @retry_http(hedge_after=0.02)
        async def fetch():
            number = len(responses)
            responses.append(None)
            responses[number] = await session.get(scripted_server.url + "/it")
            await gates[number].wait()
            return responses[number]

        task = asyncio.create_task(fetch())
        while None in responses or len(responses) < 2:
            await asyncio.sleep(0.01)
        for gate in gates:  # both end in the same turn of the loop
            gate.set()
        won = await task
        lost = responses[1 - responses.index(won)]
        assert lost.closed
        assert won.status == 200
        won.release()
        assert not session.connector._acquired

    async def test_it_lets_go_where_it_is_cancelled_while_it_waits_for_the_loser(self, session, scripted_server):
        scripted_server.script("/it", Stall(), Reply(200, "x" * 100_000, body_delay=SLOW))
        responses = []

        @retry_http(hedge_after=0.02)
        async def fetch():
            try:
                responses.append(await session.get(scripted_server.url + "/it"))
                return responses[-1]
            except asyncio.CancelledError:
                await asyncio.sleep(0.3)
                raise

        task = asyncio.create_task(fetch())
        while not responses:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert responses[0].closed
        assert not session.connector._acquired

    async def test_a_coroutine_that_is_thrown_away_leaves_no_task(self, fetch, scripted_server):
        scripted_server.script("/it", Stall())
        before = asyncio.all_tasks()
        call = retry_http(hedge_after=5)(fetch)("/it")
        call.send(None)
        call.close()
        for _ in range(5):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == before

    @pytest.mark.parametrize("budget", [None, AskingElsewhere(True, seconds=SLOW)], ids=["two run", "it asks"])
    async def test_so_does_one_that_is_thrown_away_later(self, budget):
        before = asyncio.all_tasks()
        breaker = CircuitBreaker(min_attempts=1, open_for=0.3, probes=2)
        breaker.leave(None, breaker.enter(None), failed=True)
        await asyncio.sleep(0.31)
        call = retry_http(hedge_after=0.02, budget=budget, breaker=breaker)(asyncio.sleep)(SLOW)
        await run_until(call, lambda: len(asyncio.all_tasks() - before) == 2)
        call.close()
        for _ in range(5):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == before
        breaker.enter(None)  # both probes are free again
        breaker.enter(None)

    async def test_one_that_is_thrown_away_while_it_waits_for_the_loser(self):
        before, began, cancelled = asyncio.all_tasks(), [], []

        async def attempt():
            began.append(1)
            if len(began) == 2:
                return "done"
            try:
                await asyncio.sleep(SLOW)
            except asyncio.CancelledError:
                cancelled.append(1)
                await asyncio.sleep(SLOW)

        call = retry_http(hedge_after=0.02)(attempt)()
        await run_until(call, lambda: bool(cancelled))
        call.close()
        for task in asyncio.all_tasks() - before:  # It did not end when it was told to.
            task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == before

    async def test_an_attempt_that_cancels_itself_is_the_end(self):
        began = []

        @retry_http(hedge_after=0.02)
        async def attempt():
            began.append(1)
            if len(began) == 1:
                await asyncio.sleep(SLOW)
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await attempt()
        assert len(began) == 2

    async def test_what_is_not_hedged_runs_where_it_was_called(self, fetch, scripted_server):
        variable = contextvars.ContextVar("variable", default=0)

        async def attempt():
            variable.set(1)

        await retry_http(hedge_after=5)(attempt)()
        assert variable.get() == 0
        await retry_http(hedge_after=5, idempotent=False)(attempt)()
        assert variable.get() == 1
        variable.set(0)
        await retry_http(hedge_after=LatencyQuantile(0.9))(attempt)()
        assert variable.get() == 1

    async def test_what_the_function_raises_is_no_attempt(self, fetch, scripted_server, events):
        def after(_):
            raise TimeoutError("its own")

        with pytest.raises(TimeoutError, match="its own") as caught:
            await retry_http(hedge_after=after)(fetch)("/it")
        assert attempts_of(caught.value) == ()
        assert events == []
        with pytest.raises(ValueError, match="returned -1"):
            await retry_http(hedge_after=lambda _: -1)(fetch)("/it")

    async def test_attempts_that_run_out_of_time_leave_no_cycles(self, fetch, scripted_server):
        scripted_server.script("/it", Stall())
        timed = retry_http(hedge_after=0.01, timeout=0.05)(fetch)

        async def call():
            with contextlib.suppress(TimeoutError):
                await timed("/it")

        assert await cycles_of(call) == []

    async def test_it_leaves_no_cycles(self, fetch, scripted_server):
        scripted_server.script("/it", Stall(), 404)
        scripted_server.script("/down", Reply(503, delay=0.1))

        async def read(path):
            response = await fetch(path)
            response.raise_for_status()

        hedged = retry_http(hedge_after=0.02, max_retries=2, base_delay=0)(read)
        for path in ("/it", "/down"):
            with pytest.raises(aiohttp.ClientResponseError):
                await hedged(path)

        async def call():
            for path in ("/it", "/down"):
                with contextlib.suppress(aiohttp.ClientResponseError):
                    await hedged(path)

        assert await cycles_of(call) == []

    async def test_listeners_and_the_log_see_failed_copies(self, make_client, scripted_server, log):
        scripted_server.script("/it", Stall(), 503, 200)
        async with make_client(hedge_after=0.05) as client:
            await client.get_bytes("/it")
        assert [record.levelno for record in log.records] == [logging.INFO]
        assert "attempt 1 of 3: 503, next at once" in log.records[0].getMessage()

    async def test_a_failing_predicate_leaves_nothing_behind(self, fetch, session, scripted_server):
        scripted_server.script("/it", Reply(200, delay=0.1), Stall())

        def judge(_):
            raise RuntimeError("the predicate's own bug")

        with pytest.raises(RuntimeError, match="own bug"):
            await retry_http(hedge_after=0.02, retry_if=judge)(fetch)("/it")
        assert not session.connector._acquired

    async def test_a_value_that_is_refused_is_no_answer(self, scripted_server, no_waits):
        @retry_http(hedge_after=0.02, retry_if=lambda value: value == "pending")
        async def poll():
            if attempt_number() == 1:
                await asyncio.sleep(0.1)
                return "pending"
            await asyncio.sleep(0.2)
            return "done"

        assert await poll() == "done"
        assert no_waits == []


class TestCombined:
    """The pairs where the order changes the outcome, as the table in docs/guards.md has them."""

    async def test_an_open_circuit_takes_nothing_from_the_budget(self, make_client, scripted_server, no_waits):
        scripted_server.script("/down", 503)
        budget = budget_of(5)
        async with make_client(budget=budget, breaker=CircuitBreaker(min_attempts=2), max_retries=5) as client:
            with pytest.raises(GiveUpError) as caught:
                await client.get("/down")
            assert caught.value.reason == "circuit_open"
            with pytest.raises(CircuitOpenError):
                await client.get("/down")
        assert left_of(budget, scripted_server.url) == 4  # for the one retry before

    async def test_the_breaker_counts_what_the_budget_refuses_to_repeat(self, make_client, scripted_server):
        scripted_server.script("/down", 503)
        budget, breaker = budget_of(1), CircuitBreaker(min_attempts=4)
        async with make_client(budget=budget, breaker=breaker, base_delay=0) as client:
            for _ in range(3):
                with pytest.raises(GiveUpError):
                    await client.get("/down")
        assert breaker.state(scripted_server.url) is State.OPEN

    async def test_a_pause_that_is_too_long_takes_nothing_from_the_budget(self, make_client, scripted_server):
        scripted_server.script("/limited", Reply(429, retry_after=50))
        budget = budget_of(5)
        async with make_client(budget=budget, pause=OriginPause(), timeout=10) as client:
            for error in (GiveUpError, OriginPausedError):
                with pytest.raises(error):
                    await client.get("/limited")
        assert left_of(budget, scripted_server.url) == 5

    async def test_a_held_call_is_no_probe(self, make_client, scripted_server):
        scripted_server.script("/ok", 200)
        pause, breaker = OriginPause(spread=0), CircuitBreaker(min_attempts=1, open_for=0.05)
        breaker.leave(scripted_server.url, breaker.enter(scripted_server.url), failed=True)
        await asyncio.sleep(0.06)
        pause.begin(scripted_server.url, 0.5)
        async with make_client(pause=pause, breaker=breaker) as client:
            held = asyncio.create_task(client.get_bytes("/ok"))
            await asyncio.sleep(0.1)
            breaker.leave(scripted_server.url, breaker.enter(scripted_server.url), failed=None)  # there is room
            await held
        assert breaker.state(scripted_server.url) is State.CLOSED

    async def test_a_pause_comes_before_an_open_circuit(self, make_client, scripted_server):
        pause, breaker = OriginPause(), CircuitBreaker(min_attempts=1)
        breaker.leave(scripted_server.url, breaker.enter(scripted_server.url), failed=True)
        pause.begin(scripted_server.url, 50)
        async with make_client(pause=pause, breaker=breaker, timeout=10) as client:
            with pytest.raises(OriginPausedError):
                await client.get("/ok")

    async def test_a_circuit_may_close_while_a_call_is_held(self, make_client, scripted_server):
        scripted_server.script("/ok", 200)
        pause, breaker = OriginPause(spread=0), CircuitBreaker(min_attempts=1, open_for=0.3)
        breaker.leave(scripted_server.url, breaker.enter(scripted_server.url), failed=True)
        pause.begin(scripted_server.url, 0.5)
        async with make_client(pause=pause, breaker=breaker) as client:
            await client.get_bytes("/ok")
        assert breaker.state(scripted_server.url) is State.CLOSED

    @pytest.mark.parametrize("make_budget", [lambda: budget_of(1), lambda: AskingElsewhere(True, False)])
    async def test_a_budget_that_is_used_up_stops_hedges_and_keeps_what_runs(self, fetch, scripted_server, make_budget):
        scripted_server.script("/it", Reply(200, delay=0.4))
        hedged = retry_http(hedge_after=0.05, budget=make_budget())(fetch)
        assert len(attempts_of(await hedged("/it"))) == 2
        assert len(scripted_server.requests()) == 2
        response = await hedged("/it")
        assert response.status == 200
        assert len(scripted_server.requests()) == 3

    async def test_an_answer_does_not_wait_for_the_budget(self, fetch, scripted_server):
        scripted_server.script("/it", Reply(200, delay=0.2))
        budget = AskingElsewhere(True, seconds=SLOW)
        response = await asyncio.wait_for(retry_http(hedge_after=0.05, budget=budget)(fetch)("/it"), 10)
        assert response.status == 200
        assert len(scripted_server.requests()) == 1

    async def test_an_answer_beside_a_failure_takes_nothing(self, fetch, scripted_server, events):
        gates, began = [asyncio.Event(), asyncio.Event()], 0
        budget = budget_of(5)

        @retry_http(hedge_after=0.02, budget=budget)
        async def fetch_in_turn():
            nonlocal began
            number = began
            began += 1
            await gates[number].wait()
            if number == 0:
                raise aiohttp.ServerDisconnectedError
            return "done"

        task = asyncio.create_task(fetch_in_turn())
        while began < 2:
            await asyncio.sleep(0.01)
        for gate in gates:  # both end in the same turn of the loop
            gate.set()
        assert await task == "done"
        assert left_of(budget) == pytest.approx(4.1)
        assert (began, events) == (2, [])

    async def test_an_answer_of_the_budget_that_comes_too_late_ends_the_call(self, fetch, scripted_server, events):
        scripted_server.script("/down", Reply(503, "why"))
        budget = AskingElsewhere(True, seconds=SLOW)
        with pytest.raises(GiveUpError) as caught:
            await asyncio.wait_for(retry_http(budget=budget, timeout=0.3, base_delay=0)(fetch)("/down"), 10)
        assert caught.value.reason == "timeout"
        assert caught.value.status == 503
        assert [event.reason for event in events] == ["timeout"]

    async def test_what_a_budget_raises_comes_out(self, fetch, scripted_server):
        scripted_server.script("/down", 503)

        class Broken(AskingElsewhere):
            async def spend(self, origin, *, throttled):
                raise TimeoutError("its own")

        with pytest.raises(TimeoutError, match="its own"):
            await retry_http(budget=Broken(), timeout=20)(fetch)("/down")

    @pytest.mark.parametrize("hedge_after", [None, 0.02])
    @pytest.mark.parametrize("method", ["enter", "leave", "begin", "hold"])
    async def test_what_a_guard_raises_comes_out_and_is_no_attempt(
        self, fetch, session, scripted_server, events, method, hedge_after
    ):
        scripted_server.script("/it", Reply(503, retry_after=0.1, delay=0.1))

        def fail(*_, **__):
            raise ConnectionError("its own")

        broken = {method: fail}
        breaker = type("Breaker", (CircuitBreaker,), broken if method in {"enter", "leave"} else {})()
        pause = type("Pause", (OriginPause,), broken if method in {"begin", "hold"} else {})()
        with pytest.raises(ConnectionError, match="its own") as caught:
            await retry_http(breaker=breaker, pause=pause, hedge_after=hedge_after)(fetch)("/it")
        assert attempts_of(caught.value) == ()
        assert events == []
        assert len(scripted_server.requests()) <= (1 if hedge_after is None else 2)
        assert not session.connector._acquired

    async def test_what_a_budget_raises_for_a_hedge_comes_out_and_keeps_no_permit(self):
        class Broken(AskingElsewhere):
            async def spend(self, origin, *, throttled):
                await asyncio.sleep(0)
                raise ConnectionError("its own")

        breaker = CircuitBreaker(min_attempts=1, open_for=0.3, probes=2)
        breaker.leave(None, breaker.enter(None), failed=True)
        await asyncio.sleep(0.31)
        hedged = retry_http(breaker=breaker, hedge_after=0.02, budget=Broken())(asyncio.sleep)

        async def call():
            with contextlib.suppress(ConnectionError):
                await hedged(SLOW)

        assert await cycles_of(call) == []
        breaker.enter(None)  # both probes are free again
        breaker.enter(None)

    async def test_a_wait_that_the_answer_of_the_budget_has_pushed_past_the_end_is_not_begun(
        self, fetch, scripted_server
    ):
        scripted_server.script("/down", 503)
        budget = AskingElsewhere(True, seconds=0.5)
        with pytest.raises(GiveUpError) as caught:
            await retry_http(budget=budget, timeout=1, base_delay=0.9)(fetch)("/down")
        assert caught.value.reason == "timeout"
        assert caught.value.attempts[-1].elapsed < 0.9

    async def test_a_budget_may_answer_with_anything_true(self, fetch, scripted_server):
        class Ones(RetryBudget):
            def spend(self, origin=None, *, throttled=False):
                return int(super().spend(origin, throttled=throttled))

        scripted_server.script("/down", 503)
        with pytest.raises(GiveUpError) as caught:
            await retry_http(budget=Ones(14), base_delay=0)(fetch)("/down")
        assert (caught.value.reason, len(caught.value.attempts)) == ("budget", 2)

    async def test_a_circuit_that_outlasts_the_pause_ends_the_call_at_once(self, make_client, scripted_server):
        pause, breaker = OriginPause(), CircuitBreaker(min_attempts=1, open_for=30)
        breaker.leave(scripted_server.url, breaker.enter(scripted_server.url), failed=True)
        pause.begin(scripted_server.url, 20)
        async with make_client(pause=pause, breaker=breaker, timeout=None) as client:
            with pytest.raises(CircuitOpenError):
                await asyncio.wait_for(client.get("/ok"), 10)

    async def test_hedges_are_counted_by_the_breaker(self, fetch, scripted_server):
        scripted_server.script("/it", Reply(503, delay=0.3))
        breaker = CircuitBreaker(min_attempts=2)
        with pytest.raises(GiveUpError):
            await retry_http(hedge_after=0.05, breaker=breaker, max_retries=2)(fetch)("/it")
        assert breaker.state() is State.OPEN

    async def test_an_open_circuit_stops_hedges_and_keeps_what_runs(self, fetch, scripted_server):
        scripted_server.script("/it", Reply(200, delay=0.3))
        breaker = CircuitBreaker(min_attempts=1)
        call = asyncio.create_task(retry_http(hedge_after=0.1, breaker=breaker)(fetch)("/it"))
        await asyncio.sleep(0.03)
        breaker.leave(None, breaker.enter(None), failed=True)
        assert (await call).status == 200
        assert len(scripted_server.requests()) == 1

    async def test_a_probe_is_not_hedged_past_the_probes(self, fetch, scripted_server):
        scripted_server.script("/it", Reply(200, delay=0.3))
        breaker, budget = CircuitBreaker(min_attempts=1, open_for=0.6), budget_of(3)
        breaker.leave(None, breaker.enter(None), failed=True)
        await asyncio.sleep(0.61)
        response = await retry_http(hedge_after=0.05, breaker=breaker, budget=budget)(fetch)("/it")
        assert response.status == 200
        assert left_of(budget) == 3
        assert len(scripted_server.requests()) == 1
        assert breaker.state() is State.CLOSED

    async def test_a_hedge_that_the_breaker_refuses_ends_nothing(self, fetch, scripted_server, no_waits):
        scripted_server.script("/it", Reply(503, delay=0.2), 200)

        class FullOfProbes(CircuitBreaker):
            refused = 0

            def enter(self, origin=None):
                if len(scripted_server.requests()) == 1 and not self.refused:
                    self.refused += 1
                    raise CircuitOpenError(origin, 0)
                return super().enter(origin)

        breaker = FullOfProbes()
        response = await retry_http(hedge_after=0.05, breaker=breaker)(fetch)("/it")
        assert response.status == 200
        assert breaker.refused == 1
        assert [attempt.status for attempt in attempts_of(response)] == [503, 200]

    @pytest.mark.parametrize(
        "budget",
        [AskingElsewhere(False, seconds=0.01), AskingElsewhere(True, seconds=SLOW), _NothingLeft()],
        ids=["refuses later", "never answers", "refuses"],
    )
    async def test_a_hedge_that_the_budget_refuses_is_no_probe(self, fetch, scripted_server, budget):
        scripted_server.script("/it", Reply(500, delay=0.2))
        breaker = CircuitBreaker(min_attempts=1, open_for=0.6, probes=2)
        breaker.leave(None, breaker.enter(None), failed=True)
        await asyncio.sleep(0.61)
        response = await asyncio.wait_for(
            retry_http(hedge_after=0.02, breaker=breaker, budget=budget)(fetch)("/it"), 10
        )
        assert response.status == 500
        assert len(scripted_server.requests()) == 1
        assert breaker.state() is State.HALF_OPEN
        breaker.enter(None)
        breaker.enter(None)
        with pytest.raises(CircuitOpenError):
            breaker.enter(None)

    async def test_what_happens_while_the_budget_is_asked_counts(self, fetch, scripted_server):
        scripted_server.script("/it", Reply(200, delay=0.4))
        pause, budget = OriginPause(), AskingElsewhere(True, seconds=0.2)
        call = asyncio.create_task(retry_http(hedge_after=0.02, pause=pause, budget=budget)(fetch)("/it"))
        await asyncio.sleep(0.1)
        pause.begin(None, 50)
        assert (await call).status == 200
        assert len(scripted_server.requests()) == 1

    async def test_no_hedge_begins_after_the_end(self):
        began = 0

        def late(state):
            time.sleep(0.3)
            return False

        @retry_http(hedge_after=0.05, timeout=0.25, stop=late)
        async def attempt():
            nonlocal began
            began += 1
            await asyncio.sleep(SLOW)

        with pytest.raises(TimeoutError):
            await attempt()
        assert began == 1

    async def test_a_paused_origin_is_not_hedged(self, fetch, scripted_server):
        scripted_server.script("/it", Reply(200, delay=0.3))
        pause, budget = OriginPause(), budget_of(3)
        call = asyncio.create_task(retry_http(hedge_after=0.1, pause=pause, budget=budget)(fetch)("/it"))
        await asyncio.sleep(0.03)
        pause.begin(None, 50)
        assert (await call).status == 200
        assert len(scripted_server.requests()) == 1
        assert left_of(budget) == 3

    async def test_all_of_them_together(self, make_client, scripted_server, no_waits):
        scripted_server.script("/it", 503, Stall(), {"id": 1})
        policy = RetryPolicy(
            timeout=20,
            attempt_timeout=5,
            budget=RetryBudget(),
            pause=OriginPause(),
            breaker=CircuitBreaker(),
            hedge_after=0.05,
            max_retries=3,
        )
        assert str(policy) == (
            "3 attempts, waits 1 s + 2 s, timeout 20 s, 5 s per attempt, hedged after 0.05 s,"
            " with budget and pause and breaker"
        )
        async with make_client(policy=policy) as client:
            async with client.request("GET", "/it") as response:
                assert await response.json() == {"id": 1}
            assert [str(attempt) for attempt in attempts_of(response)] == ["503", "CancelledError", "200"]
        assert policy.budget.left(scripted_server.url) == 500 - 14 - 14 + 1

    async def test_retries_that_are_disabled_hedge_nothing(self, fetch, scripted_server, retries_disabled):
        scripted_server.script("/it", Reply(200, delay=0.2))
        await retry_http(hedge_after=0.02)(fetch)("/it")
        assert len(scripted_server.requests()) == 1


class _AsyncBreaker(CircuitBreaker):
    async def enter(self, origin=None):
        return 0

    def __repr__(self):
        return "<a breaker>"


class _WithPause:
    pause = OriginPause()

    def __repr__(self):
        return "<a fleet>"


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            (
                {"budget": RetryBudget},
                TypeError,
                "budget=RetryBudget is a class; write an object of it, such as budget=RetryBudget()",
            ),
            ({"budget": 0.1}, TypeError, "budget=0.1 is no budget; write budget=RetryBudget(), and share"),
            ({"pause": 2}, TypeError, "pause=2 is no pause; write pause=OriginPause(), and share"),
            ({"hedge_after": float("inf")}, ValueError, "hedge_after=inf is no length of time"),
            (
                {"hedge_after": RetryBudget()},
                TypeError,
                "hedge_after=<RetryBudget: 500 tokens, 14 for a retry, 5 after a",
            ),
            (
                {"breaker": _AsyncBreaker()},
                TypeError,
                "breaker=<a breaker> has a method enter() that is asynchronous, an",
            ),
            ({"pause": _WithPause()}, TypeError, "pause=<a fleet> is no pause, and has one; write its .pause"),
            ({"breaker": OriginPause()}, TypeError, "breaker=<OriginPause: 0 paused> has no method enter()"),
            ({"hedge_after": 0}, ValueError, "hedge_after=0 is no length of time; write a finite number of seconds"),
            ({"hedge_after": "p95"}, TypeError, "hedge_after='p95' is no time"),
            ({"hedge_after": LatencyQuantile}, TypeError, "hedge_after=LatencyQuantile is a class"),
            ({"hedge_after": asyncio.sleep}, TypeError, "hedge_after=sleep is asynchronous"),
            (
                {"hedge_after": 5, "timeout": 5},
                ValueError,
                "hedge_after=5 never comes, since an attempt ends after 5 s",
            ),
            ({"hedge_after": 3, "timeout": 5, "attempt_timeout": 2}, ValueError, "hedge_after=3 never comes"),
            ({"retry_budget": RetryBudget()}, TypeError, "there is no option retry_budget=; did you mean budget=?"),
        ],
    )
    def test_what_cannot_work_is_refused(self, options, error, message):
        with pytest.raises(error) as caught:
            RetryPolicy(**options)
        assert str(caught.value).startswith(message)

    def test_a_shorter_timeout_takes_the_place_of_a_hedge(self):
        policy = RetryPolicy(hedge_after=3)
        assert policy.replace(timeout=2).hedge_after is None
        assert policy.replace(attempt_timeout=3).hedge_after is None
        assert policy.replace(timeout=4).hedge_after == 3

    def test_a_hedge_needs_a_second_attempt(self):
        with pytest.raises(ValueError, match="hedge_after= and max_retries=1 contradict one another"):
            RetryPolicy(hedge_after=3, max_retries=1)
        assert RetryPolicy(hedge_after=3).replace(max_retries=1).hedge_after is None

    def test_a_clients_own_timeout_drops_no_hedge_silently(self):
        with pytest.raises(ValueError, match="hedge_after=40 never comes within a client's default timeout=30"):
            AsyncHTTPClient("https://api.example.com", hedge_after=40)
        client = AsyncHTTPClient("https://api.example.com", hedge_after=40, timeout=None)
        assert client.policy.hedge_after == 40

    @pytest.mark.parametrize(
        "error",
        [CircuitOpenError("https://a.example", 2.0), OriginPausedError("https://a.example", 2.0, "timeout", 1.0)],
    )
    def test_the_errors_can_be_copied_and_pickled(self, error):
        for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            assert (type(twin), str(twin), vars(twin)) == (type(error), str(error), vars(error))
        assert getattr(error, "errno", None) is None

    def test_a_policy_says_after_what_it_hedges(self):
        policy = RetryPolicy(max_retries=2, hedge_after=LatencyQuantile(0.9), budget=RetryBudget())
        assert str(policy) == "2 attempts, waits 1 s, hedged after what LatencyQuantile says, with budget"

    def test_a_policy_is_still_a_value(self):
        budget = RetryBudget()
        assert RetryPolicy(budget=budget) == RetryPolicy(budget=budget)
        assert hash(RetryPolicy(budget=budget)) == hash(RetryPolicy(budget=budget))
        assert RetryPolicy(budget=budget) != RetryPolicy(budget=RetryBudget())
        assert RetryPolicy(budget=budget).replace(max_retries=5).budget is budget

    def test_the_public_errors_are_those_of_aiohttp(self):
        assert issubclass(CircuitOpenError, aiohttp.ClientError)
        assert issubclass(OriginPausedError, aiohttp.ClientError)
        assert issubclass(OriginPausedError, TimeoutError)
        assert "this function is paused" in str(OriginPausedError(None, 1, "timeout", 0.5))
        assert "this function is open for 1 s more" in str(CircuitOpenError(None, 1))
        assert retrykit.Budget


@pytest.mark.parametrize(
    ("make", "option", "message"),
    [
        (RetryBudget, "ratio", r"there is no option ratio=; for a share of the calls, write RetryBudget.ratio\(0.1\)"),
        (RetryBudget, "max_tokens", r"there is no option max_tokens=; did you mean capacity=\?"),
        (RetryBudget, "reserve", "the options are capacity, cost, throttling_cost, refund, max_origins$"),
        (CircuitBreaker, "recovery_timeout", r"did you mean open_for=\?"),
        (CircuitBreaker, "failure_rat", r"did you mean failure_rate=\?"),
        (OriginPause, "spred", r"there is no option spred=; did you mean spread=\?"),
        (RetryBudget.ratio, "reserv", r"there is no option reserv=; did you mean reserve=\?"),
        (RetryBudget.ratio, "capacity", "the options are ratio, reserve, max_origins$"),
        (partial(LatencyQuantile, 0.95), "windw", r"there is no option windw=; did you mean window=\?"),
    ],
)
def test_a_guard_says_which_options_it_has(make, option, message):
    with pytest.raises(TypeError, match=message):
        make(**{option: 1})
