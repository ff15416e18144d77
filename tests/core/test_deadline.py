"""deadline_scope: one deadline for all calls inside, over real sockets."""

import asyncio
import contextlib
import gc
import math
import re
from collections.abc import Iterator
from datetime import timedelta

import aiohttp
import pytest

import retrykit
from retrykit import (
    AsyncHTTPClient,
    CircuitBreaker,
    GiveUpError,
    OriginPause,
    OriginPausedError,
    RetryMiddleware,
    RetryPolicy,
    attempt_number,
    attempts_of,
    deadline_scope,
    download,
    fetch_all,
    fetch_json,
    retry_http,
    stream,
    time_left,
)
from retrykit.core.scope import deadlines, in_an_attempt
from retrykit.testing import Reply, Resumable


@pytest.fixture
async def client(scripted_server):
    async with AsyncHTTPClient(scripted_server.url) as client:
        yield client


NO_ROOM = "; the deadline around it leaves no room for another"


@pytest.fixture(autouse=True)
def _none_is_left() -> Iterator[None]:
    yield
    assert not deadlines


class TestCalls:
    async def test_no_wait_runs_past_it(self, client, scripted_server, no_waits):
        scripted_server.script("/down", 503)
        with deadline_scope(2.5), pytest.raises(GiveUpError) as raised:
            await client.get("/down")
        assert (raised.value.reason, len(raised.value.attempts), no_waits) == ("timeout", 2, [1.0])
        assert raised.value.summary.endswith(NO_ROOM)

    async def test_it_ends_an_attempt(self, scripted_server):
        scripted_server.script("/slow", Reply(delay=30))
        with deadline_scope(0.1), pytest.raises(TimeoutError) as raised:
            await fetch_json(scripted_server.url + "/slow")
        assert re.match(rf"gave up after 1 attempt in [\d.]+ s: TimeoutError{NO_ROOM}", raised.value.__notes__[0])

    @pytest.mark.parametrize(
        "options", [{}, {"timeout": 30}, {"attempt_timeout": 20}, {"budget": retrykit.RetryBudget()}]
    )
    async def test_it_ends_that_of_a_decorated_coroutine(self, scripted_server, options):
        scripted_server.script("/slow", 503, Reply(delay=30))

        @retry_http(base_delay=0, **options)
        async def get(session):
            return await session.get(scripted_server.url + "/slow")

        async with aiohttp.ClientSession() as session:
            with deadline_scope(0.2), pytest.raises(TimeoutError) as raised:
                await get(session)
            assert [str(attempt) for attempt in attempts_of(raised.value)] == ["503", "TimeoutError"]
            assert not session.connector._acquired

    async def test_it_ends_an_attempt_with_a_hedge(self, scripted_server):
        scripted_server.script("/slow", Reply(delay=30))
        with deadline_scope(0.2), pytest.raises(TimeoutError):
            await fetch_json(scripted_server.url + "/slow", hedge_after=0.05)
        assert len(scripted_server.requests("/slow")) == 2

    async def test_a_hedge_that_would_come_later_does_no_harm(self, scripted_server):
        scripted_server.script("/ok", {"id": 1})
        with deadline_scope(5):
            assert await fetch_json(scripted_server.url + "/ok", hedge_after=10) == {"id": 1}
            with retrykit.testing.disabled():
                assert await fetch_json(scripted_server.url + "/ok", hedge_after=10) == {"id": 1}

    async def test_a_call_keeps_its_own_timeout_where_that_ends_first(self, client, scripted_server, no_waits):
        scripted_server.script("/down", 503)
        with deadline_scope(10), pytest.raises(GiveUpError) as raised:
            await client.get("/down", timeout=0.5)
        assert raised.value.summary.endswith("; timeout=0.5 s leaves no room for another")

    async def test_all_calls_inside_share_it(self, client, scripted_server, no_waits):
        scripted_server.script("/flaky", 503, {}, 503, {}, 503, {})
        with deadline_scope(2.5):
            await client.get("/flaky")
            await client.get("/flaky")
            with pytest.raises(GiveUpError) as raised:
                await client.get("/flaky")
        assert (raised.value.reason, no_waits) == ("timeout", [1.0, 1.0])

    @pytest.mark.parametrize("seconds", [0, -3, timedelta(0)])
    async def test_where_it_has_passed_nothing_is_sent(self, client, scripted_server, seconds):
        with deadline_scope(seconds) as deadline:
            for call in (client.get("/ok"), fetch_json(scripted_server.url + "/ok")):
                with pytest.raises(
                    TimeoutError, match="the deadline around this call has passed, and nothing was sent"
                ):
                    await call
            assert deadline.left() == 0
        assert scripted_server.requests() == []

    async def test_nor_is_anything_left_to_the_garbage_collector(self, client):
        async def refused():
            with deadline_scope(0), contextlib.suppress(TimeoutError):
                await client.get("/ok")

        await refused()
        gc.collect()
        gc.disable()
        try:
            await refused()
            assert gc.collect() == 0
        finally:
            gc.enable()

    async def test_after_it_calls_are_as_ever(self, client, scripted_server, no_waits):
        scripted_server.script("/flaky", 503, 503, {})
        with deadline_scope(0):
            pass
        assert await client.get("/flaky") == {}
        assert no_waits == [1.0, 2.0]

    async def test_a_body_that_is_read_outside_of_the_call(self, client, scripted_server):
        scripted_server.script("/slow", Reply(body=b"whole", body_delay=30))
        with deadline_scope(0.2):
            async with client.request("GET", "/slow") as response:
                with pytest.raises(TimeoutError):
                    await response.read()

    async def test_the_guards_know_it(self, scripted_server, no_waits):
        scripted_server.script("/busy", Reply(429, retry_after=30))
        policy = RetryPolicy(pause=OriginPause(), breaker=CircuitBreaker())
        with deadline_scope(5):
            with pytest.raises(GiveUpError) as raised:
                await fetch_json(scripted_server.url + "/busy", policy=policy)
            assert raised.value.reason == "timeout"
            with pytest.raises(
                OriginPausedError, match=r"is paused for .* longer than the .* s that are left of its time"
            ):
                await fetch_json(scripted_server.url + "/busy", policy=policy)

    async def test_the_middleware_knows_it(self, scripted_server, no_waits):
        scripted_server.script("/down", 503)
        async with aiohttp.ClientSession(middlewares=[RetryMiddleware()]) as session:
            with deadline_scope(2.5):
                async with session.get(scripted_server.url + "/down") as response:
                    assert [attempt.status for attempt in attempts_of(response)] == [503, 503]


class TestBodies:
    async def test_a_stream_has_no_more_than_what_is_left(self, scripted_server, no_waits):
        scripted_server.script("/log", Resumable(b"x" * 100, sent=50), 503)
        with deadline_scope(2.5):
            async with stream(scripted_server.url + "/log") as body:
                with pytest.raises(aiohttp.ClientError) as raised:
                    await body.read()
        assert raised.value.reason == "timeout"
        assert no_waits == [1.0]

    async def test_one_that_stalls_is_ended(self, stalling):
        url, _ = await stalling(b'HTTP/1.1 200 OK\r\nETag: "a"\r\nContent-Length: 100\r\n\r\nstart')
        received = []
        with deadline_scope(0.2):
            async with stream(url) as body:
                with pytest.raises(TimeoutError) as raised:
                    async for chunk in body:
                        received.append(chunk)  # noqa: PERF401 - a comprehension would lose what has come.
        assert received == [b"start"]
        assert re.match(rf"gave up after 1 attempt in [\d.]+ s: TimeoutError{NO_ROOM}", raised.value.__notes__[0])

    async def test_the_wait_for_a_byte_is_not_taken_off_twice(self, stalling):
        url, connections = await stalling(b'HTTP/1.1 200 OK\r\nETag: "a"\r\nContent-Length: 100\r\n\r\nstart')
        with deadline_scope(1):
            async with stream(url, attempt_timeout=0.6, base_delay=0.1) as body:
                with pytest.raises(TimeoutError):
                    await body.read()
        assert len(connections) == 2

    async def test_a_download(self, scripted_server, tmp_path):
        with deadline_scope(0), pytest.raises(TimeoutError, match="nothing was sent"):
            await download(scripted_server.url + "/file", tmp_path / "file")

    async def test_fetch_all(self, scripted_server, no_waits):
        scripted_server.script("/down", 503)
        with deadline_scope(2.5):
            results = [fetched async for fetched in fetch_all([scripted_server.url + "/down"] * 3)]
        assert [fetched.error.reason for fetched in results] == ["timeout"] * 3


class TestScopes:
    async def test_the_smaller_counts(self):
        with deadline_scope(10) as outer:
            with deadline_scope(2) as inner:
                assert (round(outer.left()), round(inner.left()), round(time_left())) == (10, 2, 2)
            with deadline_scope(60) as longer:
                assert (round(longer.left()), round(time_left())) == (10, 10)
            with deadline_scope(None) as none:
                assert (round(none.left()), round(time_left())) == (10, 10)
        assert time_left() is None

    @pytest.mark.parametrize("seconds", [None, math.inf])
    async def test_none_is_no_bound(self, seconds):
        with deadline_scope(seconds) as deadline:
            assert deadline.left() is None
            assert time_left() is None

    async def test_its_time_begins_with_it(self, no_waits):
        deadline = deadline_scope(timedelta(seconds=3))
        assert deadline.left() == 3
        await retrykit.core.clock.sleep(2)
        with deadline:
            assert round(deadline.left()) == 3
            await retrykit.core.clock.sleep(2)
            assert round(deadline.left()) == 1
            await retrykit.core.clock.sleep(2)
            assert (deadline.left(), time_left()) == (0, 0)

    async def test_a_task_that_is_started_inside_is_bounded_until_it_is_left(self):
        seen = []
        left = asyncio.Event()

        async def look():
            seen.append(time_left())
            await left.wait()
            seen.append(time_left())

        with deadline_scope(10):
            task = asyncio.create_task(look())
            await asyncio.sleep(0)
        left.set()
        await task
        assert (round(seen[0]), seen[1]) == (10, None)

    async def test_another_task_is_not_bounded(self):
        begun, seen = asyncio.Event(), []

        async def look():
            await begun.wait()
            seen.append(time_left())

        task = asyncio.create_task(look())
        await asyncio.sleep(0)
        with deadline_scope(1):
            begun.set()
            await task
        assert seen == [None]

    async def test_it_is_no_attempt(self, scripted_server, no_waits):
        numbers = []

        @retry_http
        async def flaky():
            with deadline_scope(10):
                numbers.append(attempt_number())
                if len(numbers) < 3:
                    raise ConnectionError
            return numbers[-1]

        with deadline_scope(60):
            assert attempt_number() == 1
            assert await flaky() == 3
        assert numbers == [1, 2, 3]

    async def test_a_call_in_an_attempt_has_no_more_than_the_call_around_it(self, client, scripted_server, no_waits):
        scripted_server.script("/down", 503)
        seen = []

        @retry_http(timeout=2.5, max_retries=1)
        async def both():
            try:
                return await client.get("/down")
            except GiveUpError as error:
                seen.append((error.reason, len(error.attempts)))
                raise

        with pytest.raises(GiveUpError):
            await both()
        assert seen == [("timeout", 2)]

    async def test_tasks_that_start_one_another_keep_nothing_of_those_before(self):
        ended = asyncio.Event()

        async def begin(further):
            with deadline_scope(30):
                if further:
                    await asyncio.sleep(0)
                    tasks.append(asyncio.create_task(begin(further - 1)))
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                else:
                    mark = in_an_attempt()
                    while mark is not None:
                        around.append(mark)
                        mark = mark[0].outer
                    ended.set()

        tasks, around = [asyncio.create_task(begin(50))], []
        await ended.wait()
        await asyncio.gather(*tasks)
        assert len(around) < 5

    async def test_what_is_called_before_a_retry_knows_what_is_left(self, client, scripted_server, no_waits):
        left = []

        async def look(_):
            left.append(time_left())

        scripted_server.script("/x", 503, {"x": 1})
        await client.get("/x", timeout=20, before_retry=look)
        assert 18 < left[0] <= 19
        assert time_left() is None

    async def test_it_is_entered_once(self):
        deadline = deadline_scope(1)
        with deadline:
            pass
        with pytest.raises(RuntimeError, match=r"entered before; make one for each: `with deadline_scope\(2.5\):`"):
            deadline.__enter__()

    async def test_it_is_no_async_with(self):
        with pytest.raises(TypeError, match="write `with` in place of `async with`"):
            async with deadline_scope(1):
                pass

    @pytest.mark.parametrize("seconds", ["2.5", True, object()])
    def test_what_is_no_time(self, seconds):
        with pytest.raises(TypeError, match=r"deadline_scope\(.*\) is no time; give seconds as a number"):
            deadline_scope(seconds)

    def test_nan(self):
        with pytest.raises(ValueError, match=r"deadline_scope\(nan\) is no time"):
            deadline_scope(math.nan)
