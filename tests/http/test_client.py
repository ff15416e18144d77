"""AsyncHTTPClient over real sockets."""

import asyncio
import contextlib
import inspect
import traceback

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from retrykit import AsyncHTTPClient, GiveUpError, ResponseError, RetryPolicy, attempts_of
from retrykit.testing import Disconnect, Reply, Reset, Truncated


@pytest.fixture
async def client(scripted_server):
    async with AsyncHTTPClient(scripted_server.url) as client:
        yield client


class TestVerbs:
    async def test_get_gives_the_parsed_body(self, client, scripted_server):
        scripted_server.script("/users/123", {"id": 123})
        assert await client.get("/users/123") == {"id": 123}

    async def test_post_sends_json_and_gives_the_parsed_body(self, client, scripted_server):
        scripted_server.script("/items", Reply(201, {"id": 1}))
        assert await client.post("/items", {"name": "x"}) == {"id": 1}
        (request,) = scripted_server.requests("/items")
        assert (request.method, request.json()) == ("POST", {"name": "x"})
        assert request.headers["Content-Type"] == "application/json"

    @pytest.mark.parametrize("verb", ["get", "post", "put", "patch", "delete", "options"])
    async def test_all_verbs(self, client, scripted_server, verb):
        scripted_server.script("/x", {"ok": True}, method=verb)
        assert await getattr(client, verb)("/x", params={"q": "1"}, headers={"X-Key": "2"}) == {"ok": True}
        (request,) = scripted_server.requests()
        assert (request.method, request.query["q"], request.headers["X-Key"]) == (verb.upper(), "1", "2")

    async def test_head_gives_nothing(self, client, scripted_server):
        scripted_server.script("/x", {"ok": True})
        assert await client.head("/x") is None

    @pytest.mark.parametrize("empty", [204, 200, Reply(200, "  \n")])
    async def test_an_empty_body_is_none(self, client, scripted_server, empty):
        scripted_server.script("/x", empty)
        assert await client.delete("/x") is None

    async def test_get_text_and_get_bytes(self, client, scripted_server):
        scripted_server.script("/page", Reply(200, b"\xe9", {"Content-Type": "text/plain; charset=latin-1"}))
        assert await client.get_text("/page") == "é"
        assert await client.get_bytes("/page") == b"\xe9"

    @pytest.mark.parametrize(
        ("data", "sent", "content_type"),
        [
            (["a", 1], b'["a", 1]', "application/json"),
            (b"raw", b"raw", "application/octet-stream"),
            ("text", b"text", "text/plain; charset=utf-8"),
            (aiohttp.FormData({"a": "1"}), b"a=1", "application/x-www-form-urlencoded"),
        ],
        ids=lambda value: type(value).__name__,
    )
    async def test_what_data_may_be(self, client, scripted_server, data, sent, content_type):
        scripted_server.script("/x", 200)
        await client.put("/x", data)
        (request,) = scripted_server.requests()
        assert (request.body, request.headers["Content-Type"]) == (sent, content_type)

    async def test_a_file_is_sent_as_it_is(self, client, scripted_server, tmp_path):
        path = tmp_path / "file"
        path.write_bytes(b"contents")
        scripted_server.script("/x", 200)
        with path.open("rb") as file:
            await client.put("/x", file)
        assert scripted_server.requests()[0].body == b"contents"

    async def test_json_by_keyword(self, client, scripted_server):
        scripted_server.script("/x", 200)
        await client.post("/x", json="a string")
        assert scripted_server.requests()[0].body == b'"a string"'

    async def test_data_and_json_together_are_refused(self, client):
        with pytest.raises(ValueError, match="data= and json= were both given"):
            await client.post("/x", {"a": 1}, json={"b": 2})

    async def test_json_goes_by_its_content_rather_than_its_type(self, client, scripted_server):
        scripted_server.script("/x", Reply(200, '{"a": 1}'))
        assert await client.get("/x") == {"a": 1}

    async def test_what_is_no_json_says_what_it_is(self, client, scripted_server):
        scripted_server.script("/page", Reply(200, "<html>", {"Content-Type": "text/html"}))
        with pytest.raises(aiohttp.ContentTypeError, match="The body is no JSON, and its content type is text/html"):
            await client.get("/page")
        assert len(scripted_server.requests()) == 1

    async def test_broken_json_is_a_value_error(self, client, scripted_server):
        scripted_server.script("/x", Reply(200, "{", {"Content-Type": "application/problem+json"}))
        with pytest.raises(ValueError, match="Expecting property name") as raised:
            await client.get("/x?token=hidden")
        assert raised.value.__notes__ == [f"in the body of GET {scripted_server.url}/x"]


class TestStatuses:
    @pytest.mark.parametrize("status", [400, 404, 422, 500, 501])
    async def test_a_failure_raises_at_once_with_its_body(self, client, scripted_server, status):
        scripted_server.script("/x", Reply(status, {"error": "name is missing"}))
        with pytest.raises(aiohttp.ClientResponseError) as raised:
            await client.get("/x?token=hidden")
        error = raised.value
        assert type(error) is ResponseError
        assert (error.status, error.body) == (status, b'{"error": "name is missing"}')
        assert str(error) == f"{status} {error.message}: GET {scripted_server.url}/x"
        assert len(scripted_server.requests()) == 1

    async def test_503_503_200_takes_three_requests_and_two_waits(self, client, scripted_server, no_waits):
        scripted_server.script("/flaky", 503, 503, {"id": 1})
        assert await client.get("/flaky") == {"id": 1}
        assert no_waits == [1.0, 2.0]
        assert len(scripted_server.requests()) == 3
        assert scripted_server.connections == 1

    async def test_503_to_the_end_is_three_requests_and_a_give_up_error(self, client, scripted_server, no_waits):
        scripted_server.script("/down", Reply(503, "busy"))
        with pytest.raises(GiveUpError) as raised:
            await client.get("/down")
        assert (raised.value.status, raised.value.reason, raised.value.body) == (503, "attempts", b"busy")
        assert [attempt.status for attempt in raised.value.attempts] == [503] * 3
        assert traceback.extract_tb(raised.tb)[-1].filename.endswith("send.py")
        assert len(scripted_server.requests()) == 3

    async def test_a_status_below_400_that_is_retried_is_no_success(self, client, scripted_server, no_waits):
        scripted_server.script("/job", Reply(202, {"state": "pending"}), {"state": "done"})
        assert await client.get("/job", statuses={202}) == {"state": "done"}
        scripted_server.script("/job", Reply(202, {"state": "pending"}))
        with pytest.raises(GiveUpError) as raised:
            await client.get("/job", statuses={202})
        assert raised.value.status == 202

    async def test_a_body_that_breaks_off_is_fetched_again(self, client, scripted_server, no_waits):
        scripted_server.script("/x", Truncated({"id": 1}), Truncated({"id": 1}), {"id": 1})
        assert await client.get("/x") == {"id": 1}
        assert len(scripted_server.requests()) == 3

    async def test_a_large_error_body_is_cut(self, client, scripted_server):
        scripted_server.script("/x", Reply(400, b"x" * 5_000_000))
        with pytest.raises(ResponseError) as raised:
            await client.get("/x")
        assert len(raised.value.body) == 64 * 1024


class TestRepeating:
    async def test_post_is_retried_on_503_like_the_rest(self, client, scripted_server, no_waits):
        scripted_server.script("/items", 503, {"id": 1})
        assert await client.post("/items", {"name": "x"}) == {"id": 1}
        assert [request.json() for request in scripted_server.requests()] == [{"name": "x"}] * 2

    @pytest.mark.parametrize("fault", [502, Disconnect(), Reset(), Truncated()], ids=str)
    async def test_a_post_that_may_be_done_is_not_sent_again(self, client, scripted_server, no_waits, fault):
        scripted_server.script("/items", fault, 200)
        with pytest.raises(aiohttp.ClientError):
            await client.post("/items", {"name": "x"})
        assert len(scripted_server.requests()) == 1

    @pytest.mark.parametrize("options", [{"idempotent": True}, {"headers": {"idempotency-key": "7"}}])
    async def test_unless_the_caller_says_that_it_is_safe(self, client, scripted_server, no_waits, options):
        scripted_server.script("/items", Disconnect(), {"id": 1})
        assert await client.post("/items", {"name": "x"}, **options) == {"id": 1}
        assert len(scripted_server.requests()) == 2

    async def test_a_post_that_never_left_is_sent_again(self, unused_tcp_port, no_waits):
        async with AsyncHTTPClient(f"http://127.0.0.1:{unused_tcp_port}") as client:
            with pytest.raises(aiohttp.ClientConnectorError) as raised:
                await client.post("/items", {"name": "x"})
        assert len(attempts_of(raised.value)) == 3

    async def test_a_body_that_is_used_up_is_not_sent_again(self, client, scripted_server, no_waits):
        async def generate():
            yield b"some"
            yield b"thing"

        scripted_server.script("/items", 503, 200)
        with pytest.raises(GiveUpError, match="a body of type async_generator can't be sent again") as raised:
            await client.post("/items", generate())
        assert raised.value.reason == "body"
        assert [request.body for request in scripted_server.requests()] == [b"something"]

    async def test_the_fields_of_a_form_are_sent_again(self, scripted_server, no_waits):
        scripted_server.script("/items", 503, 200)
        async with AsyncHTTPClient(scripted_server.url) as client:
            await client.post("/items", (("a", "1"), ("b", "2")))
        assert [request.body for request in scripted_server.requests()] == [b"a=1&b=2"] * 2


class TestRequest:
    async def test_both_ways_give_the_raw_response_whatever_its_status(self, client, scripted_server):
        scripted_server.script("/x", Reply(404, "not here"))
        async with client.request("get", "/x") as response:
            assert (response.status, await response.text()) == (404, "not here")
        assert response.closed
        response = await client.request("GET", "/x")
        assert await response.text() == "not here"

    async def test_it_is_a_coroutine_like_aiohttps_own(self, client, scripted_server):
        scripted_server.script("/x", "here")
        response = await asyncio.create_task(client.request("GET", "/x"))
        assert await response.text() == "here"
        client.request("GET", "/x").close()
        with pytest.raises(ZeroDivisionError):
            client.request("GET", "/x").throw(ZeroDivisionError)
        assert len(scripted_server.requests()) == 1

    async def test_it_is_retried_and_gives_the_last_response(self, client, scripted_server, no_waits):
        scripted_server.script("/down", Reply(503, "busy"))
        async with client.request("GET", "/down") as response:
            assert (response.status, await response.text()) == (503, "busy")
        assert len(attempts_of(response)) == 3
        assert no_waits == [1.0, 2.0]

    async def test_it_can_be_told_to_raise(self, client, scripted_server, no_waits):
        scripted_server.script("/down", 503)
        with pytest.raises(GiveUpError):
            await client.request("GET", "/down", on_give_up="raise")

    async def test_reading_its_body_counts_towards_the_timeout(self, stalling):
        url, _ = await stalling(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nstart")
        async with AsyncHTTPClient(url, timeout=0.3) as client:
            response = await client.request("GET", "/")
            with pytest.raises(TimeoutError):
                await response.read()

    @pytest.mark.parametrize("options", [{"policy": RetryPolicy(max_retries=1)}, {"on_give_up": None}], ids=str)
    async def test_a_policy_of_its_own_does_not_make_it_raise(self, client, scripted_server, no_waits, options):
        scripted_server.script("/down", 503)
        async with client.request("GET", "/down", **options) as response:
            assert response.status == 503

    async def test_on_give_up_return_leaves_the_verbs_raising(self, scripted_server, no_waits):
        scripted_server.script("/down", 503)
        async with AsyncHTTPClient(scripted_server.url, on_give_up="return") as client:
            with pytest.raises(GiveUpError):
                await client.get("/down")


class TestTimeouts:
    async def test_the_default_is_30_seconds_for_the_whole_call(self):
        client = AsyncHTTPClient("http://127.0.0.1")
        assert client.timeout == aiohttp.ClientTimeout(total=30.0)
        assert client.policy.timeout == 30.0

    async def test_none_is_no_bound(self):
        client = AsyncHTTPClient("http://127.0.0.1", timeout=None)
        assert client.timeout == aiohttp.ClientTimeout()
        assert client.policy.timeout is None

    async def test_it_bounds_a_call_and_raises_timeout_error(self, scripted_server):
        scripted_server.script("/slow", Reply(delay=30))
        async with AsyncHTTPClient(scripted_server.url, timeout=0.2) as client:
            with pytest.raises(TimeoutError) as raised:
                await client.get("/slow")
        why = "gave up after 1 attempt in 0.2 s: TimeoutError; timeout=0.2 s leaves no room for another"
        assert raised.value.__notes__ == [f"{why} (GET {scripted_server.url}/slow)"]
        assert len(scripted_server.requests()) == 1

    async def test_a_timeout_of_aiohttps_own_needs_room_for_another_attempt(self, scripted_server):
        scripted_server.script("/slow", Reply(delay=30))
        timeout = aiohttp.ClientTimeout(total=1.0, sock_read=0.1)
        async with AsyncHTTPClient(scripted_server.url, timeout=timeout) as client:
            with pytest.raises(aiohttp.SocketTimeoutError):
                await client.get("/slow")
        assert len(scripted_server.requests()) == 1

    @pytest.mark.parametrize("longer", [20, None, aiohttp.ClientTimeout(total=20), aiohttp.ClientTimeout()], ids=str)
    @pytest.mark.parametrize("own", [0.1, aiohttp.ClientTimeout(total=0.1)], ids=str)
    async def test_a_verbs_timeout_takes_the_place_of_the_clients(self, scripted_server, own, longer):
        scripted_server.script("/slow", Reply(body={"id": 1}, delay=0.3))
        async with AsyncHTTPClient(scripted_server.url, timeout=own) as client:
            assert await client.get("/slow", timeout=longer) == {"id": 1}
            with pytest.raises(TimeoutError):
                await client.get("/slow", timeout=0.05)

    async def test_a_policy_of_a_verb_keeps_the_clients_unless_it_has_its_own(self, scripted_server):
        scripted_server.script("/slow", Reply(body={"id": 1}, delay=0.3))
        async with AsyncHTTPClient(scripted_server.url, timeout=0.1) as client:
            with pytest.raises(TimeoutError):
                await client.get("/slow", policy=RetryPolicy(max_retries=1))
            assert await client.get("/slow", policy=RetryPolicy(timeout=20)) == {"id": 1}

    @pytest.mark.parametrize("timeout", [20, None], ids=str)
    async def test_a_number_takes_the_place_of_a_whole_client_timeout(self, scripted_server, timeout):
        scripted_server.script("/slow", Reply(body={"id": 1}, delay=0.3))
        own = aiohttp.ClientTimeout(total=20, sock_read=0.1)
        async with AsyncHTTPClient(scripted_server.url, max_retries=1, timeout=own) as client:
            assert await client.get("/slow", timeout=timeout) == {"id": 1}
            with pytest.raises(TimeoutError):
                await client.get("/slow")

    @pytest.mark.parametrize("options", [{"attempt_timeout": 60}, {"policy": RetryPolicy(attempt_timeout=60)}], ids=str)
    async def test_the_default_is_no_reason_to_cut_an_attempt(self, options):
        with pytest.raises(ValueError, match=r"attempt_timeout=60 is longer than a client's default timeout=30"):
            AsyncHTTPClient("http://127.0.0.1", **options)
        assert AsyncHTTPClient("http://127.0.0.1", timeout=90, **options).policy.attempt_timeout == 60
        with pytest.raises(ValueError, match=r"attempt_timeout=60 is longer than the client's timeout=5"):
            await AsyncHTTPClient("http://127.0.0.1", timeout=5).get("/", policy=RetryPolicy(attempt_timeout=60))
        assert AsyncHTTPClient("http://127.0.0.1", attempt_timeout=9).policy == RetryPolicy(
            timeout=30, attempt_timeout=9
        )

    async def test_the_other_fields_of_a_client_timeout_bound_each_attempt(self, scripted_server):
        scripted_server.script("/slow", Reply(delay=30), Reply(delay=30), {"id": 1})
        timeout = aiohttp.ClientTimeout(total=20, sock_read=0.1)
        async with AsyncHTTPClient(scripted_server.url, base_delay=0, timeout=timeout) as client:
            assert client.timeout == timeout
            assert await client.get("/slow") == {"id": 1}

    async def test_a_session_that_is_handed_in_keeps_its_own_bounds_too(self, scripted_server):
        scripted_server.script("/slow", Reply(delay=30))
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.1)) as session:
            client = AsyncHTTPClient(scripted_server.url, session=session, base_delay=0)
            with pytest.raises(TimeoutError):
                await client.get("/slow")
        assert len(scripted_server.requests()) == 3


class TestOptions:
    async def test_they_are_positional_by_name_or_a_policy(self):
        def policy(*args, **options):
            return AsyncHTTPClient("http://127.0.0.1", *args, **options).policy

        assert policy() == RetryPolicy(timeout=30)
        assert policy(5, 0.5, 10.0) == RetryPolicy(max_retries=5, base_delay=0.5, timeout=10)
        assert policy(policy=RetryPolicy(max_retries=7, timeout=9)) == RetryPolicy(max_retries=7, timeout=9)
        assert policy(max_retries=2, policy=RetryPolicy(max_retries=7)) == RetryPolicy(max_retries=2, timeout=30)
        assert policy(jitter="full", statuses={500}) == RetryPolicy(jitter="full", statuses={500}, timeout=30)

    def test_the_signature_says_whose_defaults_they_are(self):
        signature = str(inspect.signature(AsyncHTTPClient))
        assert "= the policy's" in signature

    async def test_a_call_can_have_its_own(self, client, scripted_server, no_waits):
        scripted_server.script("/down", 503)
        with pytest.raises(GiveUpError):
            await client.get("/down", max_retries=2, base_delay=0.25)
        with pytest.raises(GiveUpError):
            await client.get("/down", policy=RetryPolicy(max_retries=1))
        assert no_waits == [0.25]
        assert client.policy == RetryPolicy(timeout=30)

    @pytest.mark.parametrize("name", ["max_attempts", "max_retrys", "retries"])
    async def test_misspelt_ones_are_told(self, client, name):
        with pytest.raises(TypeError, match=rf"there is no option {name}=; did you mean max_retries=\?"):
            await client.get("/x", **{name: 3})

    async def test_a_session_for_one_call_is_refused(self, client):
        with pytest.raises(TypeError, match=r"give it to the client: AsyncHTTPClient\(base_url, session=session\)"):
            await client.get("/x", session=client.session)

    def test_with_is_told_to_be_async_with(self, client):
        with pytest.raises(TypeError, match="AsyncHTTPClient is closed by awaiting; write `async with`"):
            with client:
                pytest.fail("it can't be entered")

    async def test_options_of_a_newer_aiohttp_go_through(self, client, scripted_server):
        with pytest.raises(TypeError, match="something_new"):
            await client.get("/x", something_new=3)

    async def test_wrong_ones_are_refused_when_it_is_made(self):
        with pytest.raises(ValueError, match="max_retries=0"):
            AsyncHTTPClient("http://127.0.0.1", max_retries=0)
        with pytest.raises(TypeError, match="is no RetryPolicy"):
            AsyncHTTPClient("http://127.0.0.1", policy={})
        with pytest.raises(TypeError, match="policy='x' is no RetryPolicy"):
            await AsyncHTTPClient("http://127.0.0.1").get("/", policy="x")


class TestSession:
    async def test_it_is_made_on_first_use_and_closed_by_close(self, scripted_server):
        scripted_server.script("/x", 200)
        client = AsyncHTTPClient(scripted_server.url)
        assert client.session is None
        await client.get("/x")
        assert isinstance(client.session, aiohttp.ClientSession)
        await client.close()
        assert client.session.closed
        await client.close()

    async def test_closing_what_was_never_used_is_nothing(self):
        client = AsyncHTTPClient("http://127.0.0.1")
        await client.close()
        assert client.session is None

    async def test_the_context_manager_opens_and_closes_it(self, scripted_server):
        async with AsyncHTTPClient(scripted_server.url) as client:
            assert not client.session.closed
        assert client.session is not None
        assert client.session.closed

    async def test_also_after_an_exception(self, scripted_server):
        with pytest.raises(ZeroDivisionError):
            async with AsyncHTTPClient(scripted_server.url) as client:
                raise ZeroDivisionError
        assert client.session.closed

    async def test_it_can_be_entered_again(self, scripted_server):
        scripted_server.script("/x", {"id": 1})
        client = AsyncHTTPClient(scripted_server.url)
        for _ in range(2):
            async with client:
                assert await client.get("/x") == {"id": 1}

    async def test_after_close_a_call_fails_at_once(self, client, no_waits):
        await client.close()
        with pytest.raises(RuntimeError, match="Session is closed; make the calls inside of `async with`"):
            await client.get("/x")
        assert no_waits == []

    def test_it_belongs_to_one_event_loop(self):
        client = AsyncHTTPClient("http://127.0.0.1")

        async def use():
            with contextlib.suppress(aiohttp.ClientError):
                await client.get("/x", timeout=0.01)

        with asyncio.Runner() as first, asyncio.Runner() as second:
            first.run(use())
            with pytest.raises(RuntimeError, match="this client belongs to another event loop"):
                second.run(use())
            first.run(client.close())

    async def test_what_is_no_session_is_refused(self):
        with pytest.raises(TypeError, match=r"int is no session; give an aiohttp\.ClientSession as `session`"):
            AsyncHTTPClient("http://127.0.0.1", session=3)
        with pytest.raises(TypeError, match="session=ClientSession is a class; write an object of it"):
            AsyncHTTPClient("http://127.0.0.1", session=aiohttp.ClientSession)

    async def test_nor_is_the_client_of_a_test_server_which_has_one(self):
        async with TestClient(TestServer(web.Application())) as test_client:
            with pytest.raises(TypeError, match=r"TestClient is no aiohttp\.ClientSession;.* session=client\.session"):
                AsyncHTTPClient("http://127.0.0.1", session=test_client)

    async def test_what_goes_by_name_says_so(self):
        async with aiohttp.ClientSession() as session:
            with pytest.raises(TypeError, match="is a ClientSession, and a session goes by name: session=session"):
                AsyncHTTPClient("http://127.0.0.1", session)
        with pytest.raises(TypeError, match="is a RetryPolicy, and a policy goes by name: policy=policy"):
            AsyncHTTPClient("http://127.0.0.1", RetryPolicy())

    @pytest.mark.parametrize("name", ["headers", "auth", "cookies", "connector"])
    async def test_what_belongs_to_a_session_says_so(self, name):
        with pytest.raises(TypeError, match=rf"{name}= belongs to the session: .*ClientSession\({name}=\.\.\.\)"):
            AsyncHTTPClient("http://127.0.0.1", **{name: None})

    async def test_one_that_is_handed_in_is_used_and_never_closed(self, scripted_server):
        scripted_server.script("/x", 200)
        async with aiohttp.ClientSession(headers={"X-Mine": "1"}) as session:
            async with AsyncHTTPClient(scripted_server.url, session=session) as client:
                assert client.session is session
                await client.get("/x")
            await client.close()
            assert not session.closed
        assert scripted_server.requests()[0].headers["X-Mine"] == "1"

    async def test_one_that_raises_by_itself_leaves_no_body_behind(self, scripted_server):
        scripted_server.script("/x", Reply(422, "name is missing"))
        async with aiohttp.ClientSession(raise_for_status=True) as session:
            client = AsyncHTTPClient(scripted_server.url, session=session)
            with pytest.raises(ResponseError) as raised:
                await client.get("/x")
            assert raised.value.body == b"name is missing"
            async with client.request("GET", "/x") as response:
                assert response.status == 422

    async def test_concurrent_first_uses_share_one(self, scripted_server):
        scripted_server.script("/x", 200)
        client = AsyncHTTPClient(scripted_server.url)
        sessions = set()

        async def use():
            await client.get("/x")
            sessions.add(client.session)

        await asyncio.gather(*(use() for _ in range(20)))
        assert len(sessions) == 1
        await client.close()


class TestConcurrency:
    async def test_gather_with_partial_failure(self, client, scripted_server, no_waits):
        scripted_server.script("/good", {"id": 1})
        scripted_server.script("/flaky", 503, {"id": 2})
        scripted_server.script("/down", 503)
        good, flaky, down = await asyncio.gather(
            client.get("/good"), client.get("/flaky"), client.get("/down"), return_exceptions=True
        )
        assert (good, flaky) == ({"id": 1}, {"id": 2})
        assert isinstance(down, GiveUpError)

    async def test_a_hundred_callers(self, client, scripted_server, no_waits):
        for n in range(100):
            scripted_server.script(f"/{n}", 503, {"n": n})
        assert await asyncio.gather(*(client.get(f"/{n}") for n in range(100))) == [{"n": n} for n in range(100)]
        assert len(scripted_server.requests()) == 200


class TestAddresses:
    @pytest.mark.parametrize(
        ("base", "path", "joined"),
        [
            ("", "/users/1", "/users/1"),
            ("", "users/1", "/users/1"),
            ("", "", "/"),
            ("/", "/users", "/users"),
            ("/v1", "/users", "/v1/users"),
            ("/v1/", "users", "/v1/users"),
            ("/v1/", "", "/v1/"),
            ("/v1", "/users:batch", "/v1/users:batch"),
            ("/v1", "users:batch", "/v1/users:batch"),
            ("/v1", "/@me", "/v1/@me"),
            ("/v1", "/a/../b", "/v1/b"),
            ("/v1", "/see/http://other", "/v1/see/http://other"),
            ("/v1", URL("/users"), "/v1/users"),
            ("/v1", "?page=2", "/v1"),
            ("/v1", "/a%2fb", "/v1/a/b"),
            ("/a//b", "/x", "/a//b/x"),
        ],
    )
    async def test_a_path_goes_below_the_base(self, scripted_server, base, path, joined):
        scripted_server.script(joined, 200)
        async with AsyncHTTPClient(scripted_server.url + base) as client:
            await client.get(path)
        assert [request.path for request in scripted_server.requests()] == [joined]

    async def test_what_is_encoded_already_stays_so(self, scripted_server):
        for base in ("", "/v1"):
            async with AsyncHTTPClient(scripted_server.url + base) as client:
                for where in (
                    URL(f"{scripted_server.url}{base}/a%7Eb?s=%21", encoded=True),
                    URL("/a%7Eb?s=%21", encoded=True),
                ):
                    async with client.request("GET", where) as response:
                        assert response.url.raw_path_qs == f"{base}/a%7Eb?s=%21"

    async def test_a_query_in_the_path_is_kept(self, client, scripted_server):
        scripted_server.script("/search", 200)
        await client.get("/search?q=a%20b&to=http://x", params={"page": "2"})
        assert dict(scripted_server.requests()[0].query) == {"q": "a b", "to": "http://x", "page": "2"}

    async def test_a_whole_address_on_the_same_server_is_taken_as_it_is(self, scripted_server):
        scripted_server.script("/next", 200)
        base = scripted_server.url.replace("//", "//me:secret@") + "/v1"
        async with AsyncHTTPClient(base) as client:
            await client.get(f"{scripted_server.url}/next?page=2")
        (request,) = scripted_server.requests("/next")
        assert request.headers["Authorization"].startswith("Basic ")

    @pytest.mark.parametrize(
        "path",
        [
            "@evil.example/",
            "//evil.example",
            "//evil.example/path",
            "/\\evil.example",
            "\\\\evil.example",
            ":80@evil.example/",
            "http://evil.example/",
            "  http://evil.example/",
            "https://127.0.0.1/",
            "HTTP://127.0.0.1:1/",
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
            "/v1/../../admin",
            "../admin",
            "/%2e%2e/admin",
            "/..%2fadmin",
            "/a/%2e%2e%2f%2e%2e/admin",
        ],
    )
    @pytest.mark.parametrize("verb", ["get", "request"])
    async def test_nothing_in_a_path_leads_elsewhere(self, scripted_server, path, verb):
        async with AsyncHTTPClient(scripted_server.url + "/v1") as client:
            with pytest.raises(ValueError, match=r"server|leads out of /v1|is not on"):
                await (client.get(path) if verb == "get" else client.request("GET", path))
        assert scripted_server.requests() == []

    async def test_a_default_port_is_no_other_server(self):
        client = AsyncHTTPClient("http://127.0.0.1:80/")
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.get("http://127.0.0.1/x", max_retries=1)
        await client.close()

    @pytest.mark.parametrize("path", [None, 3, ["users", 1]])
    async def test_what_is_no_path_is_refused(self, client, path):
        with pytest.raises(TypeError, match="is no path; write it from its slash on"):
            await client.get(path)

    async def test_credentials_cannot_be_changed(self, client, scripted_server):
        with pytest.raises(ValueError, match="credentials of its own") as raised:
            await client.get(scripted_server.url.replace("//", "//you:hidden@") + "/x")
        assert "hidden" not in str(raised.value)

    @pytest.mark.parametrize("base", ["", "api.example.com", "/v1", "ftp://example.com", "http://", "http://[::"])
    async def test_a_base_that_names_no_server_is_refused(self, base):
        with pytest.raises(ValueError, match=r"names no server; write it whole, such as 'https://"):
            AsyncHTTPClient(base)

    async def test_a_base_that_is_no_text_is_refused(self):
        with pytest.raises(TypeError, match=r"base_url is None, which is no URL; write one as a str or yarl\.URL"):
            AsyncHTTPClient(None)
        async with aiohttp.ClientSession() as session:
            with pytest.raises(TypeError, match="base_url is a ClientSession, which is no URL"):
                AsyncHTTPClient(session)

    async def test_a_base_with_a_query_is_refused(self):
        with pytest.raises(ValueError, match="has a query or fragment") as raised:
            AsyncHTTPClient("http://me:hidden@example.com/?key=hidden")
        assert "hidden" not in str(raised.value)
        with pytest.raises(ValueError, match=r"names no server|has a query") as raised:
            AsyncHTTPClient("https://me:hid/hidden?hidden@example.com/")
        assert "hid" not in str(raised.value)
        with pytest.raises(ValueError, match="names no server") as raised:
            AsyncHTTPClient("me:hidden@example.com")
        assert "hidden" not in str(raised.value)
        with pytest.raises(ValueError, match="name of a server") as raised:
            await AsyncHTTPClient("http://example.com").get("//me:hidden@example.com/?key=hidden")
        assert "hidden" not in str(raised.value)

    async def test_its_repr_shows_no_credentials(self):
        client = AsyncHTTPClient("https://me:hidden@example.com/v1")
        assert repr(client) == "<AsyncHTTPClient https://example.com/v1: 3 attempts, waits 1 s + 2 s, timeout 30 s>"
        assert client.base_url == URL("https://me:hidden@example.com/v1")


async def test_a_request_that_was_not_sent_says_how_it_is(scripted_server):
    async with AsyncHTTPClient(scripted_server.url) as client:
        request = client.request("GET", "/x?token=s3cret")
        assert repr(request) == "<a request, to be sent by `await` or `async with`>"
        request.close()
    assert scripted_server.requests() == []
