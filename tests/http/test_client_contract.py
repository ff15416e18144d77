"""The founding contract of AsyncHTTPClient, with aioresponses."""

import asyncio

import aiohttp
import pytest
from aioresponses import aioresponses

from retrykit import AsyncHTTPClient, retry_http

BASE = "https://api.example.com"


@pytest.fixture
def mocked():
    with aioresponses() as mocked:
        yield mocked


def calls(mocked):
    return sum(map(len, mocked.requests.values()))


async def test_get_gives_the_parsed_body(mocked):
    mocked.get(f"{BASE}/users/123", payload={"id": 123})
    async with AsyncHTTPClient(BASE) as client:
        assert await client.get("/users/123") == {"id": 123}
    assert calls(mocked) == 1


async def test_post_sends_json(mocked):
    mocked.post(f"{BASE}/items", status=201, payload={"id": 1})
    async with AsyncHTTPClient(BASE) as client:
        assert await client.post("/items", {"name": "x"}) == {"id": 1}
    ((call,),) = mocked.requests.values()
    assert call.kwargs["json"] == {"name": "x"}
    assert call.kwargs["data"] is None


async def test_503_503_200(mocked, no_waits):
    for status in (503, 503):
        mocked.get(f"{BASE}/flaky", status=status)
    mocked.get(f"{BASE}/flaky", payload={"ok": True})
    async with AsyncHTTPClient(BASE, max_retries=3, base_delay=1.0) as client:
        assert await client.get("/flaky") == {"ok": True}
    assert calls(mocked) == 3
    assert no_waits == [1.0, 2.0]


async def test_503_to_the_end(mocked, no_waits):
    mocked.get(f"{BASE}/down", status=503, repeat=True)
    async with AsyncHTTPClient(BASE, max_retries=3) as client:
        with pytest.raises(aiohttp.ClientResponseError) as raised:
            await client.get("/down")
    assert raised.value.status == 503
    assert calls(mocked) == 3


@pytest.mark.parametrize("status", [400, 404, 422, 500])
async def test_other_failures_are_not_retried(mocked, no_waits, status):
    mocked.get(f"{BASE}/x", status=status, repeat=True)
    async with AsyncHTTPClient(BASE) as client:
        with pytest.raises(aiohttp.ClientResponseError) as raised:
            await client.get("/x")
    assert raised.value.status == status
    assert calls(mocked) == 1


@pytest.mark.parametrize("error", [aiohttp.ClientConnectionError("refused"), TimeoutError()])
async def test_connection_errors_are_retried(mocked, no_waits, error):
    mocked.get(f"{BASE}/x", exception=error)
    mocked.get(f"{BASE}/x", payload={"ok": True})
    async with AsyncHTTPClient(BASE) as client:
        assert await client.get("/x") == {"ok": True}
    assert calls(mocked) == 2


async def test_a_timeout_that_leaves_no_room_comes_out_at_once(mocked, no_waits):
    mocked.get(f"{BASE}/x", exception=TimeoutError(), repeat=True)
    async with AsyncHTTPClient(BASE, timeout=1.0) as client:
        with pytest.raises(TimeoutError):
            await client.get("/x")
    assert calls(mocked) == 1
    assert no_waits == []


async def test_post_is_retried_on_503(mocked, no_waits):
    mocked.post(f"{BASE}/items", status=503)
    mocked.post(f"{BASE}/items", payload={"id": 1})
    async with AsyncHTTPClient(BASE) as client:
        assert await client.post("/items", {"name": "x"}) == {"id": 1}
    assert calls(mocked) == 2


async def test_the_session_before_during_and_after(mocked):
    mocked.get(f"{BASE}/x", payload={}, repeat=True)
    client = AsyncHTTPClient(BASE)
    assert client.session is None
    await client.get("/x")
    assert isinstance(client.session, aiohttp.ClientSession)
    await client.close()
    assert client.session.closed


async def test_gather_of_three_with_partial_failure(mocked, no_waits):
    mocked.get(f"{BASE}/1", payload={"n": 1})
    mocked.get(f"{BASE}/2", status=404)
    mocked.get(f"{BASE}/3", payload={"n": 3})
    async with AsyncHTTPClient(BASE) as client:
        results = await asyncio.gather(*(client.get(f"/{n}") for n in (1, 2, 3)), return_exceptions=True)
    assert results[0] == {"n": 1}
    assert isinstance(results[1], aiohttp.ClientResponseError)
    assert results[2] == {"n": 3}


async def test_a_decorated_coroutine(mocked, no_waits):
    mocked.get(f"{BASE}/users/1", status=503)
    mocked.get(f"{BASE}/users/1", payload={"id": 1})

    @retry_http(max_retries=3, base_delay=1.0)
    async def get_user(session, number):
        return await session.get(f"{BASE}/users/{number}")

    async with aiohttp.ClientSession() as session:
        response = await get_user(session, 1)
        assert await response.json() == {"id": 1}
    assert no_waits == [1.0]
