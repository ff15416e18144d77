"""One attempt, one request on the wire: whoever sends, and through whatever session."""

import contextlib

import aiohttp
import pytest

from retrykit import AsyncHTTPClient, GiveUpError, RetryMiddleware, attempts_of, fetch_bytes, get, post, retry_http
from retrykit.core import clock
from tests.faults import CLOSE, GARBAGE, RESET, RESET_AFTER_HEADERS, TRUNCATED, answer, redirect


@contextlib.asynccontextmanager
async def client_with_a_session_of_its_own(base):
    async with AsyncHTTPClient(base) as client:
        yield client.request


@contextlib.asynccontextmanager
async def client_with_a_session_handed_in(base):
    async with aiohttp.ClientSession() as session:
        client = AsyncHTTPClient(base, session=session)
        yield client.request


@contextlib.asynccontextmanager
async def helpers(base):
    async with aiohttp.ClientSession() as session:
        by_method = {"GET": get, "POST": post}
        yield lambda method, path, **options: by_method[method](session, base + path, on_give_up="return", **options)


@contextlib.asynccontextmanager
async def middleware_of_a_session(base):
    async with aiohttp.ClientSession(middlewares=[RetryMiddleware()]) as session:
        yield lambda method, path, **options: session.request(method, base + path, **options)


@contextlib.asynccontextmanager
async def middleware_of_a_request(base):
    async with aiohttp.ClientSession() as session:
        middlewares = [RetryMiddleware()]
        yield lambda method, path, **options: session.request(method, base + path, middlewares=middlewares, **options)


SENDERS = [
    client_with_a_session_of_its_own,
    client_with_a_session_handed_in,
    helpers,
    middleware_of_a_session,
    middleware_of_a_request,
]


@pytest.fixture(params=SENDERS, ids=lambda sender: sender.__name__)
async def send(request, faults):
    """Sends a request, and gives the response."""
    async with request.param(faults.url) as send:
        yield send


class TestOneRequestForAnAttempt:
    @pytest.mark.parametrize(
        ("fault", "error"),
        [(CLOSE, aiohttp.ServerDisconnectedError), (RESET, aiohttp.ClientOSError)],
        ids=["close", "reset"],
    )
    async def test_three_attempts_are_three_requests(self, send, faults, no_waits, fault, error):
        faults.script("/x", fault)
        with pytest.raises(error) as raised:
            await send("GET", "/x")
        assert len(faults.seen("/x")) == 3
        assert len(attempts_of(raised.value)) == 3
        assert no_waits == [0.0, 1.0]

    async def test_a_warm_connection_that_breaks_is_no_exception(self, send, faults, no_waits):
        faults.script("/warm", 200)
        faults.script("/x", CLOSE)
        async with await send("GET", "/warm") as response:
            await response.read()
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await send("GET", "/x")
        assert len(faults.seen("/x")) == 3

    async def test_listeners_see_every_request(self, send, faults, no_waits, events):
        faults.script("/x", CLOSE, RESET, 503)
        async with await send("GET", "/x") as response:
            assert response.status == 503
        assert [event.exception or event.status for event in events] == [
            aiohttp.ServerDisconnectedError,
            aiohttp.ClientOSError,
            503,
        ]
        assert len(faults.seen("/x")) == 3

    async def test_a_second_call_of_the_same_task_is_sent(self, send, faults, no_waits):
        faults.script("/x", CLOSE, CLOSE, CLOSE, 200)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await send("GET", "/x")
        async with await send("GET", "/x") as response:
            assert response.status == 200
        assert len(faults.seen("/x")) == 4

    async def test_fetch_without_a_session(self, faults, no_waits):
        url = faults.script("/x", CLOSE)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await fetch_bytes(url)
        assert len(faults.seen("/x")) == 3

    async def test_a_coroutine_of_the_users_own_has_aiohttps_repeat(self, faults, no_waits):
        url = faults.script("/x", CLOSE)
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await retry_http(session.get)(url)
        assert len(faults.seen("/x")) == 6
        assert no_waits == [1.0, 2.0]


class TestTheFirstLostConnection:
    async def test_it_is_followed_at_once_and_later_ones_wait(self, send, faults, no_waits):
        faults.script("/x", CLOSE, CLOSE, answer(200))
        async with await send("GET", "/x") as response:
            assert [attempt.delay for attempt in attempts_of(response)] == [0.0, 1.0, None]
        assert no_waits == [0.0, 1.0]

    async def test_it_is_no_step_of_the_backoff(self, faults, no_waits):
        faults.script("/x", 503, CLOSE, 503, 503, answer(200, b"1"))
        async with AsyncHTTPClient(faults.url, max_retries=5) as client:
            assert await client.get("/x") == 1
        assert no_waits == [1.0, 0.0, 2.0, 4.0]

    async def test_a_decorrelated_wait_goes_by_the_last_one_that_was_taken(self, faults):
        class Drawing(clock.SystemClock):
            """Draws the longest wait, and takes none."""

            draw = staticmethod(lambda: 1 - 2**-53)

            async def sleep(self, seconds):
                waits.append(round(seconds, 6))

        waits = []
        faults.script("/x", 503, CLOSE, 503, answer(200, b"1"))
        with clock.using(Drawing()):
            async with AsyncHTTPClient(faults.url, max_retries=4, jitter="decorrelated", timeout=None) as client:
                assert await client.get("/x") == 1
        assert waits == [3.0, 0.0, 9.0]

    async def test_a_request_that_may_not_be_repeated_is_not_followed(self, send, faults, no_waits):
        faults.script("/x", CLOSE, 200)
        with pytest.raises(aiohttp.ServerDisconnectedError) as raised:
            await send("POST", "/x")
        assert "may have been processed" in raised.value.__notes__[0]
        assert len(faults.seen("/x")) == 1

    async def test_a_refused_connection_waits(self, unused_tcp_port, no_waits):
        async with AsyncHTTPClient(f"http://127.0.0.1:{unused_tcp_port}") as client:
            with pytest.raises(aiohttp.ClientConnectorError):
                await client.get("/x")
        assert no_waits == [1.0, 2.0]

    async def test_a_body_that_breaks_off_waits(self, faults, no_waits):
        faults.script("/x", RESET_AFTER_HEADERS, TRUNCATED, answer(200, b"1"))
        async with AsyncHTTPClient(faults.url) as client:
            assert await client.get("/x") == 1
        assert no_waits == [1.0, 2.0]

    async def test_it_counts_towards_max_retries(self, faults, no_waits):
        faults.script("/x", CLOSE, 200)
        async with AsyncHTTPClient(faults.url, max_retries=1) as client:
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await client.get("/x")
        assert len(faults.seen("/x")) == 1

    async def test_a_strategy_does_not_make_it_wait(self, faults, no_waits):
        faults.script("/x", CLOSE, CLOSE, answer(200, b"1"))
        async with AsyncHTTPClient(faults.url, wait=lambda state: 5) as client:
            assert await client.get("/x") == 1
        assert no_waits == [0.0, 5.0]

    async def test_the_log_says_so(self, faults, no_waits, log):
        faults.script("/x", CLOSE, answer(200, b"1"))
        async with AsyncHTTPClient(faults.url) as client:
            await client.get("/x")
        assert log.messages == [
            f"AsyncHTTPClient: GET {faults.url}/x attempt 1 of 3: ServerDisconnectedError, next at once"
        ]


class TestASessionThatIsHandedIn:
    async def test_its_middlewares_run_for_each_attempt(self, faults, no_waits):
        async def sign(request, handler):
            request.headers["X-Signed"] = "yes"
            return await handler(request)

        faults.script("/x", 503, CLOSE, answer(200, b"1"))
        async with aiohttp.ClientSession(middlewares=[sign]) as session:
            client = AsyncHTTPClient(faults.url, session=session)
            assert await client.get("/x") == 1
            assert await fetch_bytes(faults.url + "/x", session=session) == b"1"
        assert [request.headers.get("X-Signed") for request in faults.seen("/x")] == ["yes"] * 4

    async def test_its_middlewares_see_errors_as_they_are(self, faults, no_waits):
        seen = []

        async def watch(request, handler):
            try:
                return await handler(request)
            except Exception as error:
                seen.append(type(error))
                raise

        faults.script("/x", CLOSE)
        async with aiohttp.ClientSession(middlewares=[watch]) as session:
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await AsyncHTTPClient(faults.url, session=session).get("/x")
        assert seen == [aiohttp.ServerDisconnectedError] * 3

    async def test_middlewares_of_a_call_take_their_place(self, faults, no_waits):
        def marking(mark):
            async def middleware(request, handler):
                request.headers["X-Mark"] = mark
                return await handler(request)

            return middleware

        faults.script("/x", CLOSE, answer(200, b"1"))
        async with aiohttp.ClientSession(middlewares=[marking("session")]) as session:
            client = AsyncHTTPClient(faults.url, session=session)
            await client.get("/x", middlewares=[marking("call")])
            await client.get("/x", middlewares=iter([marking("call")]))
        assert [request.headers["X-Mark"] for request in faults.seen("/x")] == ["call"] * 3

    async def test_its_traces_see_errors_as_they_are(self, faults, no_waits):
        seen = []

        async def ended(session, context, params):
            seen.append(type(params.exception))

        trace = aiohttp.TraceConfig()
        trace.on_request_exception.append(ended)
        faults.script("/x", CLOSE)
        async with aiohttp.ClientSession(trace_configs=[trace]) as session:
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await AsyncHTTPClient(faults.url, session=session).get("/x")
        assert seen == [aiohttp.ServerDisconnectedError] * 3

    async def test_its_headers_and_limits_are_kept(self, faults, no_waits):
        faults.script("/x", 503, answer(200, b"1"))
        settings = {"headers": {"X-Team": "a"}, "timeout": aiohttp.ClientTimeout(total=7)}
        async with aiohttp.ClientSession(raise_for_status=True, **settings) as session:
            assert await AsyncHTTPClient(faults.url, session=session).get("/x") == 1
            assert session.timeout.total == 7
        assert {request.headers["X-Team"] for request in faults.seen("/x")} == {"a"}

    async def test_one_that_is_not_aiohttps_gets_no_middlewares(self, no_waits):
        class Fake:
            timeout = aiohttp.ClientTimeout()

            async def request(self, method, url, **options):
                assert "middlewares" not in options
                raise aiohttp.ServerDisconnectedError

        with pytest.raises(aiohttp.ServerDisconnectedError) as raised:
            await AsyncHTTPClient("http://localhost", session=Fake()).get("/x")
        assert len(attempts_of(raised.value)) == 3


class TestRedirects:
    """A hop that was answered may have been processed, whatever becomes of the next."""

    @pytest.fixture
    def next_hop_refuses(self, faults, unused_tcp_port):
        faults.script("/x", redirect(f"http://127.0.0.1:{unused_tcp_port}/next"))

    async def test_a_post_whose_next_hop_is_refused_is_not_sent_again(self, faults, next_hop_refuses, no_waits):
        async with AsyncHTTPClient(faults.url) as client:
            with pytest.raises(aiohttp.ClientConnectorError) as raised:
                await client.post("/x", {"id": 1})
        assert "the request was answered by a redirect, and may have been processed" in raised.value.__notes__[0]
        assert f"(POST {faults.url}/x)" in raised.value.__notes__[0]
        assert len(faults.seen("/x")) == 1

    async def test_nor_one_whose_next_hop_is_unavailable(self, faults, no_waits):
        faults.script("/x", redirect("/next"))
        faults.script("/next", 503)
        async with AsyncHTTPClient(faults.url) as client:
            with pytest.raises(GiveUpError) as raised:
                await client.post("/x", {"id": 1})
        assert raised.value.reason == "not_repeatable"
        assert [request.method for request in faults.requests] == ["POST", "GET"]

    @pytest.mark.parametrize("raising", [False, True])
    async def test_nor_one_of_a_coroutine_that_may_not_be_repeated(self, faults, no_waits, raising):
        faults.script("/x", redirect("/next"))
        faults.script("/next", 503)
        async with aiohttp.ClientSession(raise_for_status=raising) as session:

            @retry_http(idempotent=False)
            async def order():
                return await session.post(faults.url + "/x")

            with pytest.raises(aiohttp.ClientResponseError):
                await order()
        assert len(faults.seen("/x")) == 1

    async def test_nor_one_of_such_a_coroutine_whose_next_hop_is_refused(self, faults, next_hop_refuses, no_waits):
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientConnectorError):
                await retry_http(idempotent=False)(session.post)(faults.url + "/x")
        assert len(faults.seen("/x")) == 1

    async def test_a_get_is(self, faults, next_hop_refuses, no_waits):
        async with AsyncHTTPClient(faults.url) as client:
            with pytest.raises(aiohttp.ClientConnectorError):
                await client.get("/x")
        assert len(faults.seen("/x")) == 3

    async def test_a_post_that_was_refused_at_once_is(self, unused_tcp_port, no_waits):
        async with AsyncHTTPClient(f"http://127.0.0.1:{unused_tcp_port}") as client:
            with pytest.raises(aiohttp.ClientConnectorError) as raised:
                await client.post("/x", {"id": 1})
        assert len(attempts_of(raised.value)) == 3

    async def test_a_post_with_a_key_is(self, faults, next_hop_refuses, no_waits):
        async with AsyncHTTPClient(faults.url) as client:
            with pytest.raises(aiohttp.ClientConnectorError):
                await client.post("/x", {"id": 1}, idempotency_key=True)
        assert len(faults.seen("/x")) == 3

    async def test_a_lost_connection_behind_a_redirect_is_one_request_too(self, faults, no_waits):
        faults.script("/x", redirect("/next", 302))
        faults.script("/next", CLOSE)
        async with AsyncHTTPClient(faults.url) as client:
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await client.get("/x")
        assert (len(faults.seen("/x")), len(faults.seen("/next"))) == (3, 3)


async def test_a_malformed_answer_is_permanent(faults, no_waits):
    faults.script("/x", GARBAGE)
    async with AsyncHTTPClient(faults.url) as client:
        with pytest.raises(aiohttp.ClientResponseError):
            await client.get("/x")
    assert len(faults.seen("/x")) == 1


async def test_a_reset_on_accept_is_followed(faults, no_waits):
    faults.resets_on_accept = 2
    faults.script("/x", answer(200, b"1"))
    async with AsyncHTTPClient(faults.url) as client:
        assert await client.get("/x") == 1
    assert faults.connections == 3
