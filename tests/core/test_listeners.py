"""Listeners and the log."""

import asyncio
import dataclasses
import functools
import logging
import subprocess
import sys

import aiohttp
import pytest

import retrykit
from retrykit import CallEvent, GiveUpEvent, RetryEvent, retry_http
from retrykit.core.listeners import describe
from retrykit.testing import Disconnect, Reply, Resumable


@pytest.fixture
async def get_user(scripted_server):
    async with aiohttp.ClientSession() as session:

        @retry_http(max_retries=2)
        async def get_user(number, **options):
            url = f"{scripted_server.url}/users/{number}?token=hidden-query"
            return await session.get(url.replace("//", "//me:hidden-password@"), **options)

        yield get_user


class TestEvents:
    async def test_there_is_one_per_retry_and_one_per_give_up(self, get_user, scripted_server, no_waits, events):
        scripted_server.script("/users/1", 503)
        with pytest.raises(retrykit.GiveUpError):
            await get_user(1)
        shared = {
            "call": "get_user",
            "method": "GET",
            "origin": scripted_server.url,
            "path": "/users/1",
            "max_retries": 2,
            "status": 503,
            "exception": None,
        }
        retry, give_up = events
        assert retry == RetryEvent(**shared, attempt=1, elapsed=retry.elapsed, delay=1.0)
        assert give_up == GiveUpEvent(**shared, attempt=2, elapsed=give_up.elapsed, reason="attempts")
        assert give_up.elapsed >= 1.0

    async def test_they_are_frozen(self, events, no_waits):
        @retry_http
        async def fail():
            raise TimeoutError

        with pytest.raises(TimeoutError):
            await fail()
        with pytest.raises(dataclasses.FrozenInstanceError):
            events[0].attempt = 7
        assert (events[0].exception, events[0].status, events[0].method) == (TimeoutError, None, None)

    async def test_a_listener_that_fails_changes_nothing(self, get_user, scripted_server, no_waits, log):
        heard = []

        def broken(event):
            raise RuntimeError("broken")

        retrykit.set_listeners(broken, heard.append)
        scripted_server.script("/users/1", 503, 200)
        assert (await get_user(1)).status == 200
        assert len(heard) == 1
        assert "the listener broken failed, and was passed over" in log.text
        assert "broken" in log.text

    async def test_nor_does_one_whose_failures_are_causes_of_one_another(
        self, get_user, scripted_server, no_waits, log
    ):
        def ring(event):
            one, two = ValueError("one"), ValueError("two")
            one.__cause__, two.__cause__ = two, one
            raise one

        retrykit.set_listeners(ring)
        scripted_server.script("/users/1", 503, 200)
        assert (await get_user(1)).status == 200
        assert "the listener ring failed, and was passed over" in log.text

    async def test_a_log_that_fails_changes_nothing(self, get_user, scripted_server, no_waits, monkeypatch):
        class Broken(logging.Handler):
            def emit(self, record):
                raise RuntimeError("broken")

        logger = logging.getLogger("retrykit")
        monkeypatch.setattr(logger, "handlers", [Broken()])
        monkeypatch.setattr(logger, "level", logging.INFO)
        scripted_server.script("/users/1", 503, 200)
        assert (await get_user(1)).status == 200

    async def test_nobody_has_to_listen(self, get_user, scripted_server, no_waits, log):
        retrykit.set_listeners()
        scripted_server.script("/users/1", 503, 200)
        assert (await get_user(1)).status == 200
        assert log.records == []

    async def test_success_and_permanent_failure_are_no_events(self, get_user, scripted_server, events):
        scripted_server.script("/users/1", 200)
        await get_user(1)
        await get_user(2)
        assert events == []

    def test_a_listener_is_not_awaited(self):
        async def listen(event):
            pass

        with pytest.raises(
            TypeError, match=r"listen is a coroutine function, and a listener is not awaited; write `def`"
        ):
            retrykit.set_listeners(listen)

    def test_a_listener_must_be_callable(self):
        with pytest.raises(TypeError, match="'log' can't be called; a listener is a function"):
            retrykit.set_listeners("log")
        with pytest.raises(TypeError, match=r"one by one, and no list; write set_listeners\(\*listeners\)"):
            retrykit.set_listeners([print])

    def test_it_is_no_class(self):
        with pytest.raises(TypeError, match=r"Calls is a class; write an object of it: set_listeners\(Calls\(\)\)"):
            retrykit.set_listeners(Calls)

    def test_its_methods_are_not_awaited(self):
        class Asynchronous:
            async def __call__(self, event):
                pass

        class HearsLater(Calls):
            async def call_ended(self, event):
                pass

        class HasAName(Calls):
            call_ended = "call_ended"

        for listener in (Asynchronous(), functools.partial(Asynchronous().__call__)):
            with pytest.raises(TypeError, match="is a coroutine function, and a listener is not awaited"):
                retrykit.set_listeners(listener)
        for listener in (HearsLater(), HasAName()):
            with pytest.raises(TypeError, match=r"write `def call_ended\(self, event\)`"):
                retrykit.set_listeners(listener)


class TestLog:
    async def test_each_is_one_line_with_the_fields_in_extra(self, get_user, scripted_server, no_waits, log):
        scripted_server.script("/users/1", Reply(503, "hidden-body"))
        with pytest.raises(retrykit.GiveUpError):
            await get_user(1, headers={"X-Key": "hidden-header"})
        retry, give_up = log.records
        where = f"GET {scripted_server.url}/users/1"
        assert (retry.levelname, retry.message) == ("INFO", f"get_user: {where} attempt 1 of 2: 503, next in 1 s")
        line = f"get_user: {where} attempt 2 of 2: 503, gave up (attempts)"
        assert (give_up.levelname, give_up.message) == ("WARNING", line)
        assert (retry.call, retry.attempt, retry.status, retry.delay) == ("get_user", 1, 503, 1.0)
        assert (give_up.reason, give_up.path, give_up.exception) == ("attempts", "/users/1", None)

    async def test_nothing_secret_is_in_it(self, get_user, scripted_server, no_waits, log):
        scripted_server.script("/users/1", Reply(503, "hidden-body"))
        with pytest.raises(retrykit.GiveUpError) as raised:
            await get_user(1, headers={"X-Key": "hidden-header"}, data="hidden-request-body")
        shown = [str(record.__dict__) for record in log.records] + [str(raised.value), repr(raised.value)]
        assert "hidden" not in "".join(shown)

    async def test_an_exception_is_named_and_not_quoted(self, no_waits, log):
        @retry_http(max_retries=2)
        async def fail(secret):
            raise TimeoutError(secret)

        with pytest.raises(TimeoutError):
            await fail("hidden")
        assert [record.message for record in log.records] == [
            "fail: attempt 1 of 2: TimeoutError, next in 1 s",
            "fail: attempt 2 of 2: TimeoutError, gave up (attempts)",
        ]
        assert log.records[0].exception == "TimeoutError"

    def test_a_value_that_was_refused_says_so(self):
        event = RetryEvent(
            call="poll", method=None, origin=None, path=None, attempt=1, max_retries=3, status=None, exception=None,
            elapsed=0.0, delay=1.0,
        )  # fmt: skip
        assert describe(event) == "poll: attempt 1 of 3: refused by retry_if, next in 1 s"

    async def test_a_level_that_is_off_costs_no_line(self, get_user, scripted_server, no_waits, caplog):
        caplog.set_level(logging.ERROR, "retrykit")
        scripted_server.script("/users/1", 503, 200)
        await get_user(1)
        assert caplog.records == []

    def test_a_program_without_logging_hears_nothing(self):
        program = (
            "import asyncio, retrykit\n"
            "@retrykit.retry_http(base_delay=0)\n"
            "async def fail(): raise TimeoutError\n"
            "try: asyncio.run(fail())\n"
            "except TimeoutError: pass\n"
        )
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
        assert run.stderr == ""


# --- who takes note of what -------------------------------------------------------------------------------------------


async def test_where_the_log_passes_over_retries_it_still_has_the_give_up(caplog, no_waits):
    caplog.set_level(logging.WARNING, "retrykit")

    @retry_http
    async def fail():
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await fail()
    assert [record.message for record in caplog.records] == [
        "fail: attempt 3 of 3: ConnectionError, gave up (attempts)"
    ]


async def test_also_that_of_a_call_whose_next_attempt_is_refused(caplog, no_waits):
    caplog.set_level(logging.WARNING, "retrykit")
    pause = retrykit.OriginPause()

    @retry_http(pause=pause)
    async def fail():
        asyncio.get_running_loop().call_soon(pause.begin, None, 3600)  # Somebody else is told to wait.
        raise ConnectionError

    with pytest.raises(retrykit.OriginPausedError):
        await fail()
    assert caplog.records[-1].message == "fail: attempt 1 of 3: ConnectionError, gave up (retry_after)"


async def test_a_listener_beside_the_log_is_told_of_retries_whatever_its_level(caplog, no_waits):
    caplog.set_level(logging.WARNING, "retrykit")
    told = []
    retrykit.set_listeners(retrykit.log_listener, told.append)

    @retry_http
    async def fail():
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await fail()
    assert [type(event) for event in told] == [RetryEvent, RetryEvent, GiveUpEvent]


class Calls(list[CallEvent]):
    """A listener that hears of each call that ends."""

    def __call__(self, event):
        """It hears of nothing else."""

    def call_ended(self, event):
        self.append(event)

    def short(self):
        return [(event.attempts, event.status, event.exception, event.reason) for event in self]


@pytest.fixture
def ended():
    calls = Calls()
    retrykit.set_listeners(calls)
    return calls


class TestCalls:
    async def test_one_that_succeeds_at_once_is_told_of(self, get_user, scripted_server, ended):
        scripted_server.script("/users/1", {})
        await get_user(1)
        assert ended == [
            CallEvent(
                call="get_user",
                method="GET",
                origin=scripted_server.url,
                path="/users/1",
                attempts=1,
                status=200,
                exception=None,
                reason=None,
            )
        ]

    async def test_how_each_may_end(self, get_user, scripted_server, no_waits, ended):
        scripted_server.script("/users/1", 503, 200, 404, 503, 503, Disconnect(), Disconnect())
        await get_user(1)
        await get_user(1)
        with pytest.raises(retrykit.GiveUpError):
            await get_user(1)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await get_user(1)
        assert ended.short() == [
            (2, 200, None, None),
            (1, 404, None, None),
            (2, 503, retrykit.GiveUpError, "attempts"),
            (2, None, aiohttp.ServerDisconnectedError, "attempts"),
        ]

    async def test_a_value_has_no_status(self, scripted_server, no_waits, ended):
        scripted_server.script("/users", 503, {"id": 1}, 404)
        assert await retrykit.fetch_json(scripted_server.url + "/users") == {"id": 1}
        with pytest.raises(retrykit.ResponseError):
            await retrykit.fetch_json(scripted_server.url + "/users")
        assert ended.short() == [(2, None, None, None), (1, 404, retrykit.ResponseError, None)]
        assert {(event.method, event.origin, event.path) for event in ended} == {("GET", scripted_server.url, "/users")}

    @pytest.mark.parametrize("options", [{}, {"breaker": retrykit.CircuitBreaker()}, {"timeout": 20}])
    async def test_a_call_that_is_cancelled_is_told_of(self, get_user, scripted_server, ended, options):
        scripted_server.script("/users/1", 503, Reply(delay=30))
        task = asyncio.create_task(get_user.retry_with(base_delay=0, **options)(1))
        while len(scripted_server.requests()) < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.short() == [(2, None, asyncio.CancelledError, None)]
        assert (ended[0].method, ended[0].origin, ended[0].path) == ("GET", scripted_server.url, "/users/1")

    async def test_what_nothing_was_sent_for_has_no_attempt(self, get_user, ended):
        breaker = retrykit.CircuitBreaker(min_attempts=1)
        breaker.leave(None, breaker.enter(None), failed=True)
        with pytest.raises(retrykit.CircuitOpenError):
            await get_user.retry_with(breaker=breaker)(1)
        with retrykit.deadline_scope(0), pytest.raises(TimeoutError):
            await get_user(1)
        assert ended.short() == [
            (0, None, retrykit.CircuitOpenError, "circuit_open"),
            (0, None, TimeoutError, "timeout"),
        ]

    async def test_hedges_are_attempts(self, scripted_server, ended):
        scripted_server.script("/slow", Reply(delay=30), {"id": 1})
        await retrykit.fetch_json(scripted_server.url + "/slow", hedge_after=0.05)
        assert ended.short() == [(2, None, None, None)]

    async def test_each_part_of_a_stream_is_a_call(self, scripted_server, no_waits, ended):
        scripted_server.script("/log", 503, Resumable(b"x" * 100, sent=60), 503, Resumable(b"x" * 100))
        async with retrykit.stream(scripted_server.url + "/log") as body:
            await body.read()
        # The break is one of the attempts of the call that goes on, but was made in the one before.
        assert [(event.call, event.attempts, event.status) for event in ended] == [
            ("stream", 2, 200),
            ("stream", 2, 206),
        ]

    async def test_what_retry_if_judges(self, get_user, scripted_server, no_waits, ended):
        scripted_server.script("/users/1", 200, 200)
        await get_user.retry_with(retry_if=lambda response: True, on_give_up="return")(1)
        assert ended.short() == [(2, 200, None, "attempts")]

    async def test_a_hook_that_fails_ends_a_call(self, get_user, scripted_server, no_waits, ended):
        async def refresh(event):
            raise ConnectionError

        scripted_server.script("/users/1", 503)
        with pytest.raises(ConnectionError):
            await get_user.retry_with(before_retry=refresh)(1)
        assert ended.short() == [(1, None, ConnectionError, None)]

    async def test_a_listener_that_fails_changes_nothing(self, get_user, scripted_server, log):
        class Broken(Calls):
            def call_ended(self, event):
                raise RuntimeError("broken")

        calls = Calls()
        retrykit.set_listeners(Broken(), calls)
        scripted_server.script("/users/1", 200)
        assert (await get_user(1)).status == 200
        assert len(calls) == 1
        assert "failed, and was passed over" in log.text

    async def test_nobody_is_told_where_nobody_hears_of_calls(self, get_user, scripted_server, ended):
        retrykit.set_listeners(ended.append)
        scripted_server.script("/users/1", 200)
        await get_user(1)
        assert ended == []
