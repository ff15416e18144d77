"""What bounds a request beside the calls' own limits, and what a middleware leaves behind."""

import asyncio
import weakref
from unittest.mock import AsyncMock, Mock

import aiohttp
import pytest

import retrykit
from retrykit import AsyncHTTPClient, ResponseError, RetryMiddleware
from retrykit.testing import Reply
from tests.faults import answer, dripping


@pytest.mark.parametrize("where", ["before_retry", "retry_if"])
async def test_a_lost_connection_of_the_users_own_code_has_aiohttp_repeat_nothing(scripted_server, no_waits, where):
    scripted_server.script("/down", 503)

    async def hook(event):
        raise aiohttp.ServerDisconnectedError

    def strategy(outcome):
        raise aiohttp.ServerDisconnectedError

    middleware = RetryMiddleware(**{where: hook if where == "before_retry" else strategy})
    async with aiohttp.ClientSession(middlewares=[middleware]) as session:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.get(scripted_server.url + "/down")
    assert len(scripted_server.requests("/down")) == 1


def test_a_middleware_is_no_cycle():
    gone = weakref.ref(RetryMiddleware())
    assert gone() is None


async def test_a_session_whose_total_is_0_has_none(scripted_server):
    scripted_server.script("/slow", Reply(200, delay=0.05))

    async def make():
        await asyncio.sleep(0.02)
        return b"x"

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0)) as session:
        response = await retrykit.post(session, scripted_server.url + "/slow", data=make, max_retries=1)
        assert response.status == 200


async def test_a_client_whose_session_was_closed_by_hand_opens_anew(scripted_server):
    scripted_server.script("/ok", {"id": 1})
    client = AsyncHTTPClient(scripted_server.url)
    await client.get("/ok")
    await client.session.close()
    async with client:
        assert await client.get("/ok") == {"id": 1}


async def test_a_verb_raises_our_error_whatever_its_options_say(scripted_server):
    scripted_server.script("/missing", 404)
    async with AsyncHTTPClient(scripted_server.url) as client:
        with pytest.raises(ResponseError) as raised:
            await client.get("/missing?token=secret", raise_for_status=True)
    assert "secret" not in str(raised.value)


async def test_draining_takes_no_more_than_half_of_what_is_left_in_the_first_attempt_either(faults):
    faults.script("/drip", dripping(503, every=0.01), answer(200, b"{}"))
    async with AsyncHTTPClient(faults.url, timeout=0.25, base_delay=0.01) as client:
        assert await client.get("/drip") == {}


async def test_a_session_that_hangs_by_itself_is_bounded_too(monkeypatch):
    async def hang(*args, **options):  # As a mock that has a callback.
        await asyncio.sleep(1)
        return pytest.fail("it was not bounded")

    monkeypatch.setattr(aiohttp.ClientSession, "_request", hang)
    async with AsyncHTTPClient("http://a.example", timeout=0.05) as client:
        with pytest.raises(TimeoutError):
            await client.get("/")


@pytest.mark.parametrize("options", [{}, {"data": lambda: b"x"}], ids=["no body", "a function"])
async def test_a_mock_of_a_session_will_do(options):
    session = Mock(request=AsyncMock(return_value="answer"))
    assert await retrykit.post(session, "http://a.example/", **options) == "answer"


async def test_a_session_whose_public_method_is_patched_is_sent_by_that(monkeypatch):
    async def answer(session, method, url, **options):
        raise ValueError(method)

    monkeypatch.setattr(aiohttp.ClientSession, "request", answer)
    async with AsyncHTTPClient("http://127.0.0.1:1", max_retries=1) as client:
        with pytest.raises(ValueError, match="GET"):
            await client.get("/")
