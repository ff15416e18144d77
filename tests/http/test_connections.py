"""What a call does to connections and memory, how long it may take, and what it leaves behind: nothing."""

import asyncio
import contextlib
import gc
import socket
import sys
import tracemalloc
from pathlib import Path
from types import FrameType

import aiohttp
import pytest

from retrykit import AsyncHTTPClient, GiveUpError, RetryMiddleware, attempts_of, fetch_bytes, get, retry_http
from tests.faults import (
    BROKEN_CHUNK,
    CLOSE,
    INVALID_GZIP,
    RESET,
    SOON,
    STALL,
    STALL_IN_BODY,
    TRUNCATED,
    answer,
    dripping,
    gzip_bomb,
    head,
    raw,
    streaming,
)

AIOHTTP = tuple(int(part) for part in aiohttp.__version__.split(".")[:2])


@pytest.fixture
async def client(faults):
    async with AsyncHTTPClient(faults.url) as client:
        yield client


class TestDiscarding:
    @pytest.mark.parametrize("late", [0, 0.05], ids=["together", "late"])
    async def test_small_bodies_need_no_second_connection(self, client, faults, no_waits, late):
        faults.script("/x", *[answer(503, b"x" * 1000, late=late)] * 2, answer(200, b"1"))
        assert await client.get("/x") == 1
        assert faults.connections == 1

    async def test_nor_do_requests_with_bodies(self, client, faults, no_waits):
        faults.script("/x", *[answer(503, b"sorry")] * 2, answer(200, b"1"))
        assert await client.post("/x", {"id": "x" * 100_000}) == 1
        assert faults.connections == 1

    async def test_a_chunked_body_is_drained_too(self, client, faults, no_waits):
        chunked = raw(head(503, {"Transfer-Encoding": "chunked"}) + b"5\r\nsorry\r\n0\r\n\r\n", then="keep")
        faults.script("/x", chunked, chunked, answer(200, b"1"))
        assert await client.get("/x") == 1
        assert faults.connections == 1

    async def test_a_large_error_body_is_not_read(self, client, faults, no_waits):
        faults.script("/x", streaming(503, 50_000_000), answer(200, b"1"))
        assert await client.get("/x") == 1
        assert faults.connections == 2
        assert faults.streamed < 20_000_000  # what the system buffers of it on both sides

    @pytest.mark.skipif(AIOHTTP < (3, 14), reason="aiohttp before 3.14 unpacks what comes at once")
    async def test_a_gzip_bomb_does_not_fill_the_memory(self, client, faults, no_waits):
        faults.script("/x", gzip_bomb(503, 300_000_000), answer(200, b"1"))
        tracemalloc.start()
        assert await client.get("/x") == 1
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 30_000_000

    @pytest.mark.parametrize("method", ["get_bytes", "request"])
    async def test_nor_does_one_that_is_given_up_on(self, client, faults, no_waits, method):
        faults.script("/x", gzip_bomb(503, 10_000_000))
        if method == "request":
            async with client.request("GET", "/x", max_retries=1) as response:
                assert not response.content.at_eof()
        else:
            with pytest.raises(GiveUpError) as raised:
                await client.get_bytes("/x", max_retries=1)
            assert raised.value.body == bytes(64 * 1024)

    @pytest.mark.parametrize(
        "fault",
        [dripping(), raw(head(503, {"Content-Length": "100"}) + b"start", "stall"),
         raw(head(503, {"Transfer-Encoding": "chunked"}) + b"5\r\nhello\r\n", "stall")],
        ids=["dripping", "stalling", "unfinished"],
    )  # fmt: skip
    async def test_one_that_does_not_end_does_not_hold_the_call_up(self, client, faults, no_waits, fault):
        faults.script("/x", fault, answer(200, b"1"))
        async with asyncio.timeout(SOON):
            assert await client.get("/x") == 1
        assert faults.connections == 2

    @pytest.mark.parametrize(
        "fault",
        [answer(503, b"no gzip", {"Content-Encoding": "gzip"}), raw(head(503, {"Content-Length": "100"}) + b"start")],
        ids=["no gzip", "truncated"],
    )
    async def test_a_broken_one_is_still_a_503(self, client, faults, no_waits, fault):
        faults.script("/x", fault, answer(200, b"1"))
        async with client.request("GET", "/x") as response:
            assert [attempt.status for attempt in attempts_of(response)] == [503, 200]

    async def test_a_pool_of_one_connection_never_deadlocks(self, faults, no_waits):
        faults.script(
            "/x", dripping(), CLOSE, RESET, streaming(503, 5_000_000), STALL, answer(503, b"x"), answer(200, b"1")
        )
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
            client = AsyncHTTPClient(faults.url, session=session, max_retries=9, base_delay=0.01, attempt_timeout=0.3)
            async with asyncio.timeout(SOON):
                assert await client.get("/x") == 1

    async def test_the_response_that_is_returned_is_open_and_unread(self, client, faults, no_waits):
        faults.script("/x", answer(503, b"sorry"))
        async with client.request("GET", "/x") as response:
            assert not response.closed or response.content.total_bytes
            assert await response.read() == b"sorry"
        async with aiohttp.ClientSession() as session:
            async with await get(session, faults.url + "/x", on_give_up="return") as response:
                assert await response.read() == b"sorry"


class TestTime:
    async def test_an_attempt_that_expired_frees_its_connection_and_is_retried(self, client, faults, no_waits):
        faults.script("/x", STALL, STALL_IN_BODY, answer(200, b"1"))
        assert await client.get("/x", attempt_timeout=0.1) == 1
        async with asyncio.timeout(SOON):
            while faults.open > 1:
                await asyncio.sleep(0.01)

    async def test_it_is_not_retried_where_that_is_not_safe(self, client, faults, no_waits):
        faults.script("/x", STALL, 200)
        with pytest.raises(TimeoutError) as raised:
            await client.post("/x", {"id": 1}, attempt_timeout=0.1)
        assert "may have been processed" in raised.value.__notes__[0]
        assert len(faults.seen("/x")) == 1
        await faults.all_closed()

    @pytest.mark.parametrize("fault", [BROKEN_CHUNK, STALL_IN_BODY], ids=["broken chunk", "stall"])
    async def test_a_body_that_never_ends_is_bounded_by_the_attempt(self, faults, no_waits, fault):
        async def in_two_parts(connection):
            await connection.send(head(200, {"Transfer-Encoding": "chunked"}) + b"5\r\nhello\r\n")
            await asyncio.sleep(0.05)
            await connection.send(b"ZZ\r\n")
            await connection.closed_by_peer()

        url = faults.script("/x", in_two_parts if fault is BROKEN_CHUNK else fault, answer(200, b"whole"))
        assert await fetch_bytes(url, attempt_timeout=0.3) == b"whole"

    async def test_the_outcome_comes_out_at_once_where_a_wait_would_end_too_late(self, client, faults):
        faults.script("/x", 503)
        with pytest.raises(GiveUpError) as raised:
            await client.get("/x", timeout=0.9)
        assert raised.value.reason == "timeout"
        assert len(raised.value.attempts) == 1
        faults.script("/x", RESET, CLOSE)
        with pytest.raises(aiohttp.ServerDisconnectedError) as broken:
            await client.get("/x", timeout=0.9)
        assert "timeout=0.9 s leaves no room for another" in broken.value.__notes__[0]

    async def test_a_retry_after_beyond_the_end_comes_out_at_once(self, client, faults, no_waits):
        faults.script("/x", answer(429, headers={"Retry-After": "20"}))
        with pytest.raises(GiveUpError) as raised:
            await client.get("/x", timeout=10)
        assert raised.value.reason == "timeout"
        assert no_waits == []

    async def test_an_attempt_still_running_is_ended_and_the_note_lists_the_earlier_ones(self, client, faults):
        faults.script("/x", 503, CLOSE, STALL)
        with pytest.raises(TimeoutError) as raised:
            await client.get("/x", timeout=0.3, base_delay=0.01)
        (note,) = raised.value.__notes__
        assert "3 attempts" in note
        assert "503, ServerDisconnectedError, TimeoutError" in note
        await faults.all_closed()

    async def test_reading_what_was_handed_over_is_bounded(self, client, faults):
        faults.script("/x", STALL_IN_BODY)
        async with client.request("GET", "/x", timeout=0.3) as response:
            with pytest.raises(TimeoutError):
                await response.read()

    async def test_so_it_is_behind_a_broken_chunk(self, client, faults):
        async def broken(connection):
            await connection.send(head(200, {"Transfer-Encoding": "chunked"}) + b"5\r\nhello\r\n")
            await asyncio.sleep(0.05)
            await connection.send(b"ZZ\r\n")
            await connection.closed_by_peer()

        faults.script("/x", broken)
        async with asyncio.timeout(SOON), client.request("GET", "/x", timeout=0.3) as response:
            with pytest.raises((TimeoutError, aiohttp.ClientPayloadError)):
                await response.read()


class TestCancellation:
    """It comes out at once, nothing more is sent, and nothing is left."""

    @pytest.fixture(params=["client", "decorated", "middleware"])
    async def call(self, request, faults):
        """Makes a call, with a base delay of 30 s; sees to it that nothing is left of it."""
        async with (
            aiohttp.ClientSession() as plain,
            aiohttp.ClientSession(middlewares=[RetryMiddleware(base_delay=30)]) as retrying,
        ):
            client = AsyncHTTPClient(faults.url, base_delay=30, timeout=60, session=plain)
            calls = {
                "client": lambda: client.get("/x"),
                "decorated": lambda: retry_http(base_delay=30)(plain.get)(faults.url + "/x"),
                "middleware": lambda: read(retrying, faults.url + "/x"),
            }
            before = asyncio.all_tasks()
            yield calls[request.param]
            async with asyncio.timeout(SOON):
                while plain.connector._acquired or retrying.connector._acquired:
                    await asyncio.sleep(0.005)
                while faults.open > len(pooled(plain)) + len(pooled(retrying)):
                    await asyncio.sleep(0.005)
            left = asyncio.all_tasks() - before - {asyncio.current_task()}
            assert not [task for task in left if "retrykit" in repr(task.get_coro())]
            assert len(left) == faults.open

    FAULTS = {  # noqa: RUF012
        "wait": [503, 200],
        "request": [STALL, 200],
        "drain": [raw(head(503, {"Content-Length": "9"}) + b"x", "stall"), 200],
        "second request": [CLOSE, STALL, 200],
    }

    @pytest.mark.parametrize("where", FAULTS)
    async def test_a_task(self, call, faults, where):
        faults.script("/x", *self.FAULTS[where])
        task = asyncio.create_task(call())
        await self.arrived(faults, where)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)
        assert len(faults.seen("/x")) == (2 if where == "second request" else 1)

    @pytest.mark.parametrize("where", FAULTS)
    async def test_a_timeout_of_the_callers(self, call, faults, where):
        faults.script("/x", *self.FAULTS[where])
        with pytest.raises(TimeoutError) as raised:
            async with asyncio.timeout(0.15):
                await call()
        assert not hasattr(raised.value, "__notes__")

    @pytest.mark.parametrize("where", FAULTS)
    async def test_a_task_group(self, call, faults, where):
        faults.script("/x", *self.FAULTS[where])

        async def fail():
            await self.arrived(faults, where)
            raise KeyError("the other task")

        with pytest.raises(ExceptionGroup) as raised:
            async with asyncio.TaskGroup() as group:
                group.create_task(call())
                group.create_task(fail())
        assert [type(error) for error in raised.value.exceptions] == [KeyError]

    async def test_during_a_connect(self):
        # The backlog of a server that accepts nothing is full after a connection or two; the next one waits.
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            host, port = listener.getsockname()
            fillers = [asyncio.create_task(asyncio.open_connection(host, port)) for _ in range(3)]
            await asyncio.sleep(0.05)
            async with AsyncHTTPClient(f"http://{host}:{port}") as client:
                before = asyncio.all_tasks()
                task = asyncio.create_task(client.get("/x"))
                await asyncio.sleep(0.05)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert not asyncio.all_tasks() - before
                assert not client.session.connector._acquired
            for filler in fillers:
                filler.cancel()
            for opened in await asyncio.gather(*fillers, return_exceptions=True):
                if isinstance(opened, tuple):
                    opened[1].close()

    @staticmethod
    async def arrived(faults, where):
        async with asyncio.timeout(SOON):
            while len(faults.seen("/x")) < (2 if where == "second request" else 1):
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)


async def read(session, url, method="GET"):
    async with session.request(method, url) as response:
        return await response.read()


@pytest.mark.parametrize("kind", ["client", "middleware"])
async def test_no_reference_cycles(faults, no_waits, kind):
    steps = {
        "/flaky": lambda: (503, answer(200, b"1")),
        "/down": lambda: (answer(503, b"sorry"),),
        "/lost": lambda: (CLOSE, CLOSE),
        "/posted": lambda: (CLOSE,),
        "/refused": lambda: (answer(404, b"no"),),
    }
    async with aiohttp.ClientSession(middlewares=[RetryMiddleware()] if kind == "middleware" else []) as session:
        client = AsyncHTTPClient(faults.url, session=session)

        async def all_kinds_of_calls():
            for path, script in steps.items():
                faults.script(path, *script())
                method = "POST" if path == "/posted" else "GET"
                with contextlib.suppress(aiohttp.ClientError):
                    if kind == "client":
                        await {"GET": client.get_bytes, "POST": client.post}[method](path)
                    else:
                        await read(session, faults.url + path, method)

        await all_kinds_of_calls()
        gc.collect()  # what other tests have left
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            await all_kinds_of_calls()
            await faults.all_but(len(pooled(session)))
            gc.collect()
            # asyncio's transports have cycles of their own.
            frames = [each for each in gc.garbage if isinstance(each, FrameType)]
            kept = [frame.f_code for frame in frames if frame.f_globals.get("__name__", "").startswith("retrykit")]
            responses = [each for each in gc.garbage if isinstance(each, aiohttp.ClientResponse)]
        finally:
            gc.set_debug(0)
            gc.enable()
            gc.garbage.clear()
    assert not kept
    assert not responses


@pytest.mark.skipif(sys.platform != "linux", reason="it counts the entries of /proc/self/fd")
class TestLeaks:
    CALLS = 10_000

    @pytest.mark.parametrize("kind", ["client", "decorated", "middleware"])
    async def test_ten_thousand_calls_leave_nothing(self, faults, no_waits, kind):
        steps = {
            "/ok": [answer(200, b"1")],
            "/flaky": [answer(503, b"sorry"), answer(200, b"1")] * self.CALLS,
            "/lost": [CLOSE, answer(200, b"1")] * self.CALLS,
            "/cut": [TRUNCATED, answer(200, b"1")] * self.CALLS,
            "/gzip": [INVALID_GZIP, answer(200, b"1")] * self.CALLS,
            "/down": [answer(503, b"sorry")],
        }
        for path, script in steps.items():
            faults.script(path, *script)
        # Most calls meet no fault, as in life; the faults cost a connection each.
        paths = ["/ok"] * 14 + ["/flaky"] * 2 + ["/lost", "/cut", "/gzip", "/down"]
        middlewares = [RetryMiddleware()] if kind == "middleware" else []
        async with aiohttp.ClientSession(middlewares=middlewares) as session:
            client = AsyncHTTPClient(faults.url, session=session)
            calls = {
                "client": client.get_bytes,
                "decorated": lambda path: retried(session, faults.url + path),
                "middleware": lambda path: read(session, faults.url + path),
            }
            retried = retry_http(read)
            call = calls[kind]
            await self.make(call, paths, 200)
            before = await self.held(faults, session)
            await self.make(call, paths, self.CALLS)
            after = await self.held(faults, session)
        descriptors, tasks, pooled = (late - early for late, early in zip(after, before, strict=True))
        assert tasks == 0
        assert pooled <= 0
        # Connections to the server count twice, since it runs here; those that are pooled stay as they were.
        assert abs(descriptors) <= 4

    @staticmethod
    async def make(call, paths, count):
        async def some(start):
            for number in range(start, count, 20):
                with contextlib.suppress(aiohttp.ClientError):
                    await call(paths[number % len(paths)])

        await asyncio.gather(*(some(start) for start in range(20)))

    @staticmethod
    async def held(faults, session):
        """File descriptors, tasks, and connections that are in use by a request."""
        gc.collect()
        in_use = session.connector._acquired
        async with asyncio.timeout(SOON):
            while in_use or faults.open > len(pooled(session)):
                await asyncio.sleep(0.01)
        descriptors = open_files() - 2 * len(pooled(session))
        return descriptors, len(asyncio.all_tasks()) - faults.open, len(in_use)


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def pooled(session):
    """The connections that wait in the pool."""
    return [each for waiting in session.connector._conns.values() for each in waiting]
