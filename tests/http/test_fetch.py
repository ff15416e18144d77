"""The helpers that are retried already."""

import asyncio
import inspect

import aiohttp
import pytest

import retrykit
from retrykit import GiveUpError, ResponseError, RetryPolicy, fetch_bytes, fetch_json, fetch_text
from retrykit.testing import Disconnect, Reply, Truncated


@pytest.fixture
async def session():
    async with aiohttp.ClientSession() as session:
        yield session


async def streamed(url):
    async with retrykit.stream(url) as body:
        return await body.read()


async def got(url):
    async with aiohttp.ClientSession() as session:
        return await retrykit.get(session, url)


@pytest.mark.parametrize("helper", [retrykit.get, retrykit.post])
async def test_get_and_post_give_a_response(session, scripted_server, no_waits, helper):
    scripted_server.script("/x", 503, Reply(404, "not here"), method=helper.__name__)
    response = await helper(session, f"{scripted_server.url}/x", params={"q": "1"})
    assert (response.status, await response.text()) == (404, "not here")
    assert [request.query["q"] for request in scripted_server.requests()] == ["1", "1"]


async def test_get_raises_what_was_given_up_on(session, scripted_server, no_waits):
    scripted_server.script("/down", 503)
    with pytest.raises(GiveUpError):
        await retrykit.get(session, f"{scripted_server.url}/down")


async def test_post_is_not_sent_again_where_it_may_have_been_processed(session, scripted_server, no_waits):
    scripted_server.script("/x", Disconnect(), 200)
    with pytest.raises(aiohttp.ServerDisconnectedError) as raised:
        await retrykit.post(session, f"{scripted_server.url}/x", data=b"x")
    assert "is not known to be safe to repeat: if it is, say so with idempotent=True" in raised.value.__notes__[0]
    assert (await retrykit.post(session, f"{scripted_server.url}/x", data={"a": "1"}, idempotent=True)).status == 200


@pytest.mark.parametrize(
    ("helper", "value"), [(fetch_json, {"id": 1}), (fetch_text, '{"id": 1}'), (fetch_bytes, b'{"id": 1}')]
)
class TestFetch:
    async def test_the_body_is_read_inside_the_retried_call(self, session, scripted_server, no_waits, helper, value):
        scripted_server.script("/x", 503, Truncated({"id": 1}), {"id": 1})
        assert await helper(f"{scripted_server.url}/x", session=session) == value
        assert no_waits == [1.0, 2.0]
        assert not session.closed

    async def test_without_a_session_it_makes_one(self, scripted_server, no_waits, helper, value):
        scripted_server.script("/x", 503, {"id": 1})
        assert await helper(f"{scripted_server.url}/x") == value

    async def test_a_failure_raises_with_its_body(self, scripted_server, no_waits, helper, value):
        scripted_server.script("/missing", Reply(404, "not here"))
        scripted_server.script("/down", Reply(503, "busy"))
        with pytest.raises(ResponseError) as raised:
            await helper(f"{scripted_server.url}/missing")
        assert raised.value.body == b"not here"
        assert no_waits == []
        with pytest.raises(GiveUpError) as raised:
            await helper(f"{scripted_server.url}/down")
        assert (raised.value.body, raised.value.reason) == (b"busy", "attempts")

    async def test_options_go_by_retry_with_or_with_the_call(self, scripted_server, no_waits, helper, value):
        scripted_server.script("/down", 503)
        url = f"{scripted_server.url}/down"
        for call in (
            helper.retry_with(max_retries=2)(url),
            helper(url, max_retries=2),
            helper(url, policy=RetryPolicy(max_retries=2)),
            helper.retry_with(max_retries=5)(url, max_retries=2),
        ):
            with pytest.raises(GiveUpError):
                await call
        assert no_waits == [1.0] * 4
        assert helper.policy == RetryPolicy()
        assert helper.retry_with(max_retries=2).policy == RetryPolicy(max_retries=2)

    async def test_timeout_bounds_the_call(self, scripted_server, helper, value):
        scripted_server.script("/slow", Reply(delay=30))
        with pytest.raises(TimeoutError):
            await helper(f"{scripted_server.url}/slow", timeout=0.1)

    async def test_its_face(self, helper, value):
        assert inspect.iscoroutinefunction(helper)
        assert list(inspect.signature(helper).parameters) == ["url", "session", "options"]
        assert helper.__wrapped__.__name__ == helper.__name__


async def test_a_client_timeout_bounds_the_call_and_each_attempt(scripted_server):
    scripted_server.script("/slow", Reply(delay=30), {"id": 1})
    timeout = aiohttp.ClientTimeout(total=20, sock_read=0.1)
    assert await fetch_json(f"{scripted_server.url}/slow", timeout=timeout, base_delay=0) == {"id": 1}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda session, url: fetch_json(session), "fetch_json takes the URL, and all else by name; write fetch"),
        (lambda session, url: fetch_json(session, url, max_retries=5), r"write fetch_json\(url, session=session\)"),
        (lambda session, url: fetch_json(url, session), r"write fetch_json\(url, session=session\)"),
        (
            lambda session, url: fetch_json(url, session=3),
            "int is no session; give an aiohttp.ClientSession as `session`",
        ),
        (
            lambda session, url: retrykit.get(url),
            r"takes the session first, and then the URL; write get\(session, url\)",
        ),
        (lambda session, url: retrykit.get(session), r"get\(\) missing 1 required positional argument: 'url'"),
        (lambda session, url: retrykit.get(session, session), "ClientSession is no URL; give the URL as a str or yarl"),
        (lambda session, url: retrykit.post(url, session=session), r"write post\(session, url\)"),
        (lambda session, url: retrykit.get(url, session), r"write get\(session, url\)"),
        (lambda session, url: retrykit.post(session, url, {}), r"by name; write post\(session, url, data=data\)"),
        (
            lambda session, url: fetch_json(url, session=aiohttp.ClientSession),
            "session=ClientSession is a class; write an object of it, which is closed at the end",
        ),
        (lambda session, url: fetch_text(url, method="POST"), "the method is fixed here"),
        (lambda session, url: fetch_text(url, retries=3), "did you mean max_retries="),
        (lambda session, url: fetch_text(url, header={}), r"there is no option header=; did you mean headers=\?"),
        (lambda session, url: fetch_text(url, verify=False), r"did you mean ssl=\?"),
    ],
)
async def test_mistakes_are_told(session, call, message):
    with pytest.raises(TypeError, match=message):
        await call(session, "http://127.0.0.1/")


async def test_what_goes_with_a_request_goes_with_each_attempt(scripted_server, no_waits):
    scripted_server.script("/x", 503, {"id": 1})
    headers, cookies = zip(["X-Key"], ["1"], strict=True), iter([("a", "2")])
    await fetch_json(f"{scripted_server.url}/x", headers=headers, cookies=cookies)
    sent = [(request.headers.get("X-Key"), request.headers.get("Cookie")) for request in scripted_server.requests()]
    assert sent == [("1", "a=2")] * 2


@pytest.mark.parametrize("options", [{"timeout": 0.2}, {"attempt_timeout": 0.2}], ids=str)
async def test_a_status_comes_out_even_where_its_body_does_not(stalling, options):
    url, connections = await stalling(b"HTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\nstart")
    with pytest.raises(ResponseError) as raised:
        await fetch_json(url, **options)
    assert (raised.value.status, raised.value.body) == (404, b"start")
    assert len(connections) == 1


@pytest.mark.parametrize("url", ["http://[::", "localhost/x", "/x", "ftp://localhost/x", "localhost:8080/x"])
@pytest.mark.parametrize("fetch", [fetch_json, streamed, got])
async def test_a_url_that_cannot_be_sent_to_is_aiohttps_to_refuse(url, fetch, no_waits):
    with pytest.raises((aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)) as raised:
        await fetch(url)
    assert raised.value.__notes__ == [
        "this is no URL of http; write it whole, with scheme and host, such as https://example.com/users"
    ]
    assert no_waits == []


async def test_of_a_redirect_to_no_url_nothing_else_is_said(scripted_server):
    scripted_server.script("/away", Reply(302, headers={"Location": "ftp://localhost/x"}))
    with pytest.raises(aiohttp.NonHttpUrlRedirectClientError) as raised:
        await fetch_json(f"{scripted_server.url}/away")
    assert not hasattr(raised.value, "__notes__")


async def test_a_hundred_at_once(session, scripted_server, no_waits):
    for n in range(100):
        scripted_server.script(f"/{n}", 503, {"n": n})
    urls = [f"{scripted_server.url}/{n}" for n in range(100)]
    assert await asyncio.gather(*(fetch_json(url, session=session) for url in urls)) == [{"n": n} for n in range(100)]
