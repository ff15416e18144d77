"""Idempotency keys: by what a server knows a request again."""

import aiohttp
import pytest

from retrykit import AsyncHTTPClient, GiveUpError, RetryMiddleware, RetryPolicy, post, retry_http
from tests.faults import CLOSE, answer

KEY = "Idempotency-Key"


def keys(faults):
    return [request.headers.get(KEY) for request in faults.seen("/x")]


@pytest.fixture
async def client(faults):
    async with AsyncHTTPClient(faults.url) as client:
        yield client


async def test_none_is_sent_unasked(client, faults, no_waits):
    faults.script("/x", 503, answer(200))
    await client.post("/x", {"id": 1})
    await client.post("/x", {"id": 1}, idempotency_key=None)
    await client.post("/x", {"id": 1}, idempotency_key=False)
    assert keys(faults) == [None] * 4


async def test_one_is_made_for_the_call_and_stays_the_same(client, faults, no_waits):
    faults.script("/x", CLOSE, 502, answer(200))
    await client.post("/x", {"id": 1}, idempotency_key=True)
    await client.post("/x", {"id": 1}, idempotency_key=True)
    first, second, third, other = keys(faults)
    assert first == second == third != other
    assert len(first) == len(other) == 36


async def test_the_callers_own_is_sent_as_it_is(client, faults, no_waits):
    faults.script("/x", CLOSE, answer(200))
    await client.post("/x", {"id": 1}, idempotency_key="order-7", headers={"X-Other": "1"})
    assert keys(faults) == ["order-7", "order-7"]
    assert [request.headers["X-Other"] for request in faults.seen("/x")] == ["1", "1"]


async def test_it_goes_with_any_method_that_asks_for_it(client, faults):
    faults.script("/x", answer(200))
    await client.get("/x", idempotency_key="k")
    assert keys(faults) == ["k"]


async def test_a_helper_takes_it(faults, no_waits):
    url = faults.script("/x", CLOSE, answer(200))
    async with aiohttp.ClientSession() as session:
        async with await post(session, url, json={"id": 1}, idempotency_key=True) as response:
            assert response.status == 200
    first, second = keys(faults)
    assert first == second is not None


class TestOnTheClient:
    @pytest.fixture
    async def client(self, faults):
        async with AsyncHTTPClient(faults.url, idempotency_key=True) as client:
            yield client

    @pytest.mark.parametrize("verb", ["post", "patch"])
    async def test_one_is_made_for_each_call_that_needs_it(self, client, faults, no_waits, verb):
        faults.script("/x", CLOSE, answer(200))
        await getattr(client, verb)("/x", {"id": 1})
        await getattr(client, verb)("/x", {"id": 1})
        first, second, other = keys(faults)
        assert first == second != other

    async def test_request_does_so_too(self, client, faults):
        faults.script("/x", answer(200))
        async with client.request("post", "/x"):
            pass
        assert keys(faults) != [None]

    @pytest.mark.parametrize("verb", ["get", "put", "delete"])
    async def test_what_is_idempotent_needs_none(self, client, faults, verb):
        faults.script("/x", answer(200))
        await getattr(client, verb)("/x")
        assert keys(faults) == [None]

    async def test_a_call_can_have_its_own_or_none(self, client, faults, no_waits):
        faults.script("/x", answer(200), answer(200), answer(200), answer(200), CLOSE)
        await client.post("/x", idempotency_key="mine")
        await client.post("/x", headers={"idempotency-key": "mine, too"})
        await client.post("/x", headers=iter([("Idempotency-Key", "mine, three")]))
        await client.post("/x", idempotency_key=False)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await client.post("/x", idempotency_key=False)
        assert keys(faults) == ["mine", "mine, too", "mine, three", None, None]

    async def test_a_text_would_be_one_key_for_all_calls(self):
        with pytest.raises(TypeError, match="a key is for one call"):
            AsyncHTTPClient("http://localhost", idempotency_key="order-7")


@pytest.mark.parametrize("header", ["Idempotency-Key", "idempotency-key"])
async def test_a_header_of_the_callers_says_the_same(client, faults, no_waits, header):
    faults.script("/x", CLOSE, 504, answer(200))
    await client.post("/x", {"id": 1}, headers={header: "k"})
    assert keys(faults) == ["k"] * 3


async def test_without_one_a_gateways_failure_ends_the_call(client, faults, no_waits):
    faults.script("/x", 504)
    with pytest.raises(GiveUpError, match="send an Idempotency-Key header") as raised:
        await client.post("/x", {"id": 1})
    assert raised.value.reason == "not_repeatable"


@pytest.mark.parametrize("key", ["", " ", "a\r\nX-Evil: 1", "ü", "\x00"])
async def test_what_can_be_no_header_is_refused(client, faults, key):
    with pytest.raises(ValueError, match="must be visible ASCII text"):
        await client.post("/x", idempotency_key=key)
    assert faults.requests == []


@pytest.mark.parametrize("key", [7, b"key"])
async def test_what_is_no_text_is_refused(client, key):
    with pytest.raises(TypeError, match=r"idempotency_key is (an int|a bytes); write True"):
        await client.post("/x", idempotency_key=key)


async def test_both_ways_at_once_are_refused(client):
    with pytest.raises(ValueError, match="were both given"):
        await client.post("/x", idempotency_key=True, headers={KEY: "k"})


@pytest.mark.parametrize("blank", ["", "  "])
async def test_a_blank_header_is_no_key(client, faults, no_waits, blank):
    faults.script("/x", CLOSE, answer(200))
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await client.post("/x", headers={KEY: blank})
    assert len(faults.seen("/x")) == 1
    async with AsyncHTTPClient(faults.url, idempotency_key=True) as sends_keys:
        await sends_keys.post("/x", headers={KEY: blank})
    assert len(keys(faults)[-1]) == 36


@pytest.mark.parametrize("name", ["idempotent_key", "idempotency", "idempotence_key", "idempotency_keys"])
async def test_a_misspelt_key_is_told(client, faults, name):
    with pytest.raises(TypeError, match=r"did you mean idempotency_key=\?"):
        await client.post("/x", **{name: True})
    with pytest.raises(TypeError, match=r"did you mean idempotency_key=\?"):
        AsyncHTTPClient(faults.url, **{name: True})
    assert faults.requests == []


@pytest.mark.parametrize("make", [retry_http, RetryPolicy, RetryMiddleware])
def test_a_key_is_for_one_call(make):
    with pytest.raises(TypeError, match="send it as the header Idempotency-Key"):
        make(idempotency_key=True)
