"""The names that aiohttp keeps to itself: all versions that we know have them; where one is missing, all goes on."""

import asyncio
import io

import aiohttp
import pytest

from retrykit import AsyncHTTPClient, RetryMiddleware
from retrykit.http.internals import has_timed_out, put_body, session_middlewares, timer_of, unread_in, value_of
from retrykit.http.replay import keep
from tests.faults import CLOSE, answer, redirect, truncated


async def middleware(request, handler):
    return await handler(request)


async def test_the_middlewares_of_a_session():
    async with aiohttp.ClientSession(middlewares=[middleware]) as session:
        assert list(session_middlewares(session)) == [middleware]
    async with aiohttp.ClientSession() as session:
        assert list(session_middlewares(session)) == []


@pytest.mark.parametrize("session", [object(), type("Fake", (), {"_middlewares": None})()], ids=["none", "no list"])
def test_a_session_that_shows_none(session):
    assert session_middlewares(session) is None


async def test_the_requests_of_one_call_share_a_timer(faults):
    seen = []

    async def watch(request, handler):
        seen.append(timer_of(request))
        return await handler(request)

    url = faults.script("/x", redirect("/next", 302))
    faults.script("/next", CLOSE, answer(200), answer(200))
    async with aiohttp.ClientSession(middlewares=[watch]) as session:
        for timeout in (aiohttp.ClientTimeout(total=5), aiohttp.ClientTimeout()):
            async with session.get(url, timeout=timeout):
                pass
    first_hop, broken, repeated, other_first_hop, other_next = seen
    assert first_hop is broken is repeated is not None
    assert other_first_hop is other_next is not None
    assert first_hop is not other_first_hop


def test_a_request_that_has_no_timer():
    assert timer_of(object()) is None
    assert not has_timed_out(object())


def test_what_a_payload_was_made_from():
    buffer = io.BytesIO(b"x")
    assert value_of(aiohttp.BytesIOPayload(buffer)) is buffer
    assert value_of(object()) is None


async def test_what_has_come_of_a_body_before_it_failed(faults):
    url = faults.script("/x", truncated(b"0123456789", 5))
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        await faults.all_closed()
        while response.content.exception() is None:
            await asyncio.sleep(0)
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.readany()
        assert unread_in(response.content) == b"01234"
        assert unread_in(response.content) == b""


def test_a_body_that_does_not_show_it():
    assert unread_in(object()) == b""


async def test_another_body(faults):
    buffer = io.BytesIO(b"hello")

    async def swap(request, handler):
        put_body(request, keep(request.body, "BytesIO"))
        assert request.body is not None
        return await handler(request)

    url = faults.script("/x", answer(200))
    async with aiohttp.ClientSession(middlewares=[swap]) as session, session.put(url, data=buffer):
        pass
    assert [request.body for request in faults.seen("/x")] == [b"hello"]
    assert not buffer.closed


class TestWhereTheyAreMissing:
    """aiohttp's own repeat stays, and nothing else is different."""

    async def test_of_a_session(self, faults, no_waits):
        class Session:
            """A session of a newer aiohttp."""

            def __init__(self, session):
                self.request, self.timeout = session.request, session.timeout

        faults.script("/x", CLOSE)
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await AsyncHTTPClient(faults.url, session=Session(session)).get("/x")
        assert len(faults.seen("/x")) == 6

    async def test_of_a_request(self, faults, no_waits):
        async def without_timer(request, handler):
            timer = request._timer
            del request._timer
            try:
                return await handler(request)
            finally:
                request._timer = timer

        async def with_timer(request, handler):
            request._timer = aiohttp.helpers.TimerNoop()
            try:
                return await handler(request)
            finally:
                del request._timer

        url = faults.script("/x", CLOSE)
        middlewares = [without_timer, RetryMiddleware(), with_timer]
        async with aiohttp.ClientSession(middlewares=middlewares) as session:
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await session.get(url)
        assert len(faults.seen("/x")) == 6
