"""RetryMiddleware, for `aiohttp.ClientSession(middlewares=[...])`."""

import asyncio
import gc
import io
import weakref

import aiohttp
import pytest
from aiohttp import web

from retrykit import GiveUpError, GiveUpEvent, RetryMiddleware, RetryPolicy, attempts_of, retry_http
from tests.faults import (
    CLOSE,
    RESET_AFTER_HEADERS,
    SOON,
    STALL,
    TRUNCATED,
    answer,
    dripping,
    head,
    raw,
    redirect,
    streaming,
)


@pytest.fixture
async def session():
    async with aiohttp.ClientSession(middlewares=[RetryMiddleware()]) as session:
        yield session


async def test_503_503_200_is_one_request_to_the_caller(session, faults, no_waits):
    url = faults.script("/x", 503, 503, answer(200, b"done"))
    async with session.get(url) as response:
        assert await response.read() == b"done"
        assert [attempt.status for attempt in attempts_of(response)] == [503, 503, 200]
    assert no_waits == [1.0, 2.0]


async def test_it_hands_back_the_last_response_open_and_unread(session, faults, no_waits):
    url = faults.script("/x", answer(503, b"sorry"))
    async with session.get(url) as response:
        assert (response.status, await response.read()) == (503, b"sorry")
        assert len(attempts_of(response)) == 3


async def test_it_can_raise_instead(faults, no_waits):
    url = faults.script("/x", answer(503, b"sorry"))
    async with aiohttp.ClientSession(middlewares=[RetryMiddleware(on_give_up="raise")]) as session:
        with pytest.raises(GiveUpError) as raised:
            await session.get(url)
    assert (raised.value.body, raised.value.reason) == (b"sorry", "attempts")


async def test_raise_for_status_of_the_session_comes_after_it(faults, no_waits):
    url = faults.script("/x", 503)
    async with aiohttp.ClientSession(middlewares=[RetryMiddleware()], raise_for_status=True) as session:
        with pytest.raises(aiohttp.ClientResponseError):
            await session.get(url)
    assert len(faults.seen("/x")) == 3


async def test_per_request(faults, no_waits):
    url = faults.script("/x", 503, answer(200))
    async with aiohttp.ClientSession() as session:
        async with session.get(url, middlewares=[RetryMiddleware()]) as response:
            assert response.status == 200


class TestOptions:
    async def test_a_policy_options_or_both(self, faults, no_waits):
        policy = RetryPolicy(base_delay=0.5)
        assert RetryMiddleware(policy).policy == policy
        assert RetryMiddleware(policy, max_retries=2).policy == policy.replace(max_retries=2)
        assert repr(RetryMiddleware(max_retries=2)) == "<RetryMiddleware: 2 attempts, waits 1 s>"
        url = faults.script("/x", 503)
        async with aiohttp.ClientSession(middlewares=[RetryMiddleware(policy, max_retries=2)]) as session:
            async with session.get(url) as response:
                assert response.status == 503
        assert no_waits == [0.5]

    def test_wrong_ones_are_refused(self):
        with pytest.raises(TypeError, match="did you mean max_retries="):
            RetryMiddleware(attempts=3)
        with pytest.raises(TypeError, match="is no RetryPolicy"):
            RetryMiddleware(3)

    async def test_the_class_itself_is_refused(self, faults):
        url = faults.script("/x", 200)
        async with aiohttp.ClientSession(middlewares=[RetryMiddleware]) as session:
            with pytest.raises(TypeError, match=r"middlewares=\[RetryMiddleware\(\)\]"):
                await session.get(url)

    async def test_idempotent(self, faults, no_waits):
        url = faults.script("/x", CLOSE, answer(200))
        async with aiohttp.ClientSession(middlewares=[RetryMiddleware(idempotent=True)]) as session:
            async with session.post(url) as response:
                assert response.status == 200

    async def test_timeout_bounds_the_call(self, faults):
        url = faults.script("/x", STALL)
        async with aiohttp.ClientSession(middlewares=[RetryMiddleware(timeout=0.05)]) as session:
            with pytest.raises(TimeoutError) as raised:
                await session.get(url)
        assert "gave up after 1 attempt" in raised.value.__notes__[0]
        await faults.all_closed()

    async def test_attempt_timeout_bounds_each(self, faults, no_waits):
        url = faults.script("/x", STALL, answer(200))
        async with aiohttp.ClientSession(middlewares=[RetryMiddleware(attempt_timeout=0.05)]) as session:
            async with session.get(url) as response:
                assert response.status == 200


class TestRepeating:
    @pytest.mark.parametrize("method", ["POST", "PATCH"])
    @pytest.mark.parametrize("fault", [CLOSE, 502, 504], ids=["close", "502", "504"])
    async def test_what_may_be_done_is_not_sent_again(self, session, faults, no_waits, method, fault):
        url = faults.script("/x", fault)
        try:
            async with session.request(method, url) as response:
                assert response.status in (502, 504)
        except aiohttp.ServerDisconnectedError as error:
            assert "may have been processed" in error.__notes__[0]
        assert len(faults.seen("/x")) == 1

    async def test_unless_it_has_a_key(self, session, faults, no_waits):
        url = faults.script("/x", CLOSE, 502, answer(200))
        async with session.post(url, headers={"Idempotency-Key": "k"}) as response:
            assert response.status == 200

    @pytest.mark.parametrize("status", [408, 425, 429, 503])
    async def test_what_was_not_taken_up_is(self, session, faults, no_waits, status):
        url = faults.script("/x", status, answer(200))
        async with session.post(url) as response:
            assert response.status == 200

    async def test_retry_after_is_a_floor(self, session, faults, no_waits):
        url = faults.script("/x", answer(429, headers={"Retry-After": "7"}), answer(200))
        async with session.get(url) as response:
            assert response.status == 200
        assert no_waits == [7.0]


class TestRedirects:
    async def test_each_hop_is_a_call_of_its_own(self, session, faults, no_waits, events):
        url = faults.script("/x", 503, 503, redirect("/next"))
        faults.script("/next", 503, 503, answer(200))
        async with session.get(url) as response:
            assert response.status == 200
        assert [(event.path, event.attempt) for event in events] == [("/x", 1), ("/x", 2), ("/next", 1), ("/next", 2)]

    async def test_a_post_that_a_redirect_answered_is_not_sent_again(self, session, faults, no_waits):
        url = faults.script("/x", redirect("/next"))
        faults.script("/next", 503, answer(200))
        async with session.post(url, data=b"order") as response:
            assert response.status == 200
        assert [(request.method, request.path) for request in faults.requests] == [
            ("POST", "/x"),
            ("GET", "/next"),
            ("GET", "/next"),
        ]

    async def test_a_hop_that_was_refused_is_sent_again_by_itself(self, session, faults, no_waits, unused_tcp_port):
        url = faults.script("/x", redirect(f"http://127.0.0.1:{unused_tcp_port}/"))
        with pytest.raises(aiohttp.ClientConnectorError) as raised:
            await session.post(url, data=b"order")
        assert len(attempts_of(raised.value)) == 3
        assert len(faults.seen("/x")) == 1


class TestOthers:
    """Middlewares before it see one request, those after it each attempt."""

    async def test_their_order(self, faults, no_waits):
        def counting(counts):
            async def middleware(request, handler):
                counts.append(request.method)
                return await handler(request)

            return middleware

        before, after = [], []
        middlewares = [counting(before), RetryMiddleware(), counting(after)]
        url = faults.script("/x", 503, CLOSE, answer(200))
        async with aiohttp.ClientSession(middlewares=middlewares) as session, session.get(url) as response:
            assert response.status == 200
        assert (len(before), len(after)) == (1, 3)

    async def test_one_around_it_may_send_a_request_again(self, faults, no_waits):
        calls = []

        async def stubborn(request, handler):
            calls.append(request)
            try:
                return await handler(request)
            except aiohttp.ServerDisconnectedError:
                return await handler(request)

        url = faults.script("/x", CLOSE, CLOSE, CLOSE, answer(200))
        middlewares = [stubborn, RetryMiddleware()]
        async with aiohttp.ClientSession(middlewares=middlewares) as session, session.get(url) as response:
            assert response.status == 200
        assert (len(faults.seen("/x")), len(calls)) == (4, 1)

    async def test_an_error_of_the_system_counts_as_aiohttps_own(self, faults, no_waits):
        calls = []

        async def broken(request, handler):
            calls.append(request.url)
            if len(calls) < 3:
                raise OSError(5, "the wire is cut")
            return await handler(request)

        url = faults.script("/x", answer(200))
        async with aiohttp.ClientSession(middlewares=[RetryMiddleware(), broken]) as session:
            async with session.get(url) as response:
                assert response.status == 200
                assert [attempt.exception for attempt in attempts_of(response)[:2]] == [aiohttp.ClientOSError] * 2
        assert no_waits == [0.0, 1.0]

    async def test_a_timeout_is_no_such_error(self, faults, no_waits):
        async def late(request, handler):
            raise TimeoutError

        url = faults.script("/x", answer(200))
        async with aiohttp.ClientSession(middlewares=[RetryMiddleware(), late]) as session:
            with pytest.raises(TimeoutError):
                await session.get(url)
        assert no_waits == [1.0, 2.0]

    async def test_an_exception_of_ones_own_is_not_retried(self, faults, no_waits):
        async def fail(request, handler):
            raise KeyError("mine")

        url = faults.script("/x", answer(200))
        async with aiohttp.ClientSession(middlewares=[RetryMiddleware(), fail]) as session:
            with pytest.raises(KeyError):
                await session.get(url)
        assert no_waits == []

    @pytest.mark.parametrize("data", ["file", "buffer"])
    async def test_one_before_it_may_read_the_body(self, faults, no_waits, tmp_path, data):
        if not hasattr(aiohttp.BytesPayload, "as_bytes"):
            pytest.skip("as_bytes came with a later aiohttp 3.12")
        path = tmp_path / "file"
        path.write_bytes(b"- hello")
        file = path.open("rb") if data == "file" else io.BytesIO(b"- hello")
        file.seek(2)

        async def sign(request, handler):
            request.headers["X-Length"] = str(len(await request.body.as_bytes()))
            return await handler(request)

        url = faults.script("/x", 503, answer(200))
        async with aiohttp.ClientSession(middlewares=[sign, RetryMiddleware()]) as session:
            async with session.put(url, data=file) as response:
                assert response.status == 200
        assert [(request.body, request.headers["X-Length"]) for request in faults.seen("/x")] == [(b"hello", "5")] * 2

    async def test_those_after_it_start_anew_in_each_attempt(self, faults, no_waits, tmp_path):
        if not hasattr(aiohttp.ClientRequest, "update_body"):
            pytest.skip("update_body came with a later aiohttp 3.12")
        path = tmp_path / "file"
        path.write_bytes(b"hello")

        async def seal(request, handler):
            request.headers.add("X-Sealed", "yes")
            await request.update_body(b"<" + await request.body.as_bytes() + b">")
            return await handler(request)

        url = faults.script("/x", 503, CLOSE, answer(200))
        file = path.open("rb")
        async with aiohttp.ClientSession(middlewares=[RetryMiddleware(), seal]) as session:
            async with session.put(url, data=file) as response:
                assert response.status == 200
        assert [request.body for request in faults.seen("/x")] == [b"<hello>"] * 3
        assert [request.headers.getall("X-Sealed") for request in faults.seen("/x")] == [["yes"]] * 3
        assert [request.headers["Content-Length"] for request in faults.seen("/x")] == ["7"] * 3
        assert file.closed

    async def test_what_one_has_put_there_is_closed_and_forgotten(self, faults, no_waits, tmp_path):
        if not hasattr(aiohttp.ClientRequest, "update_body"):
            pytest.skip("update_body came with a later aiohttp 3.12")
        path = tmp_path / "file"
        path.write_bytes(b"from a file")
        opened = []

        async def generate():
            yield b"from a generator"

        async def differently(request, handler):
            attempt = len(faults.seen("/x"))
            if attempt == 0:
                opened.append(path.open("rb"))
                await request.update_body(opened[0])
            elif attempt == 1:
                await request.update_body(generate())
            return await handler(request)

        url = faults.script("/x", 503, 503, answer(200))
        async with aiohttp.ClientSession(middlewares=[RetryMiddleware(), differently]) as session:
            async with session.put(url, data=b"as it came") as response:
                assert response.status == 200
        sent = [(request.body, request.headers.get("Content-Length")) for request in faults.seen("/x")]
        assert sent == [(b"from a file", "11"), (b"from a generator", None), (b"as it came", "10")]
        assert "Transfer-Encoding" not in faults.seen("/x")[2].headers
        async with asyncio.timeout(SOON):
            while not opened[0].closed:
                await asyncio.sleep(0.005)

    async def test_one_that_gives_a_generator_a_body_can_do_so_again(self, faults, no_waits):
        if not hasattr(aiohttp.ClientRequest, "update_body"):
            pytest.skip("update_body came with a later aiohttp 3.12")

        async def generate():
            yield b"hello"

        async def pack(request, handler):
            await request.update_body(await request.body.as_bytes())
            return await handler(request)

        url = faults.script("/x", 503, answer(200))
        async with aiohttp.ClientSession(middlewares=[RetryMiddleware(), pack]) as session:
            async with session.put(url, data=generate()) as response:
                assert response.status == 200
        assert [request.body for request in faults.seen("/x")] == [b"hello"] * 2

    async def test_one_around_it_may_use_another_task(self, faults, no_waits):
        async def elsewhere(request, handler):
            return await asyncio.create_task(handler(request))

        url = faults.script("/x", CLOSE)
        async with aiohttp.ClientSession(middlewares=[elsewhere, RetryMiddleware()]) as session:
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await session.get(url)
        assert len(faults.seen("/x")) == 3

    async def test_one_around_it_may_send_requests_of_its_own(self, faults, no_waits):
        token = faults.script("/token", 200)
        url = faults.script("/x", CLOSE)
        retries = RetryMiddleware()
        async with aiohttp.ClientSession(middlewares=[retries]) as tokens:

            async def fetch_token(request, handler):
                async with tokens.get(token):
                    return await handler(request)

            async with aiohttp.ClientSession(middlewares=[fetch_token, retries]) as session:
                with pytest.raises(aiohttp.ServerDisconnectedError):
                    await session.get(url)
        assert len(faults.seen("/x")) == 3

    async def test_digest_authentication_goes_with_it(self, faults, no_waits):
        if not hasattr(aiohttp, "DigestAuthMiddleware"):
            pytest.skip("it came with a later aiohttp 3.12")
        challenge = answer(401, headers={"WWW-Authenticate": 'Digest realm="r", nonce="n", qop="auth"'})
        url = faults.script("/x", 503, challenge, 503, CLOSE, answer(200))
        digest = aiohttp.DigestAuthMiddleware("user", "password")
        async with aiohttp.ClientSession(middlewares=[digest, RetryMiddleware()]) as session:
            async with session.put(url, data=io.BytesIO(b"hello")) as response:
                assert response.status == 200
        assert [request.body for request in faults.seen("/x")] == [b"hello"] * 5


class TestWhatItKeeps:
    async def test_what_was_lost_keeps_nothing_of_the_callers_alive(self, faults, no_waits):
        class Mine:
            pass

        url = faults.script("/x", redirect("/next"))
        faults.script("/next", CLOSE)
        retries = RetryMiddleware()

        async def lose(session):
            mine = Mine()
            references.append(weakref.ref(mine))
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await session.post(url)  # A POST is not repeated by aiohttp, although the hop that is lost is a GET.

        references = []
        async with aiohttp.ClientSession(middlewares=[retries]) as session:
            for _ in range(70):
                await lose(session)
            gc.collect()
            # Without retrykit, too, the last one is still there: aiohttp's connection has its error.
            assert not [reference for reference in references[:-1] if reference() is not None]
            assert len(retries._given_up) <= 64

    async def test_an_error_that_cannot_be_copied_comes_out_all_the_same(self, faults, no_waits):
        class Odd(aiohttp.ServerDisconnectedError):
            def __init__(self, *, where):
                super().__init__(where)
                self.args = ()

        async def lose(request, handler):
            requests.append(request)
            raise Odd(where="there")

        requests = []
        async with aiohttp.ClientSession(middlewares=[RetryMiddleware(), lose]) as session:
            with pytest.raises(Odd):
                await session.get(faults.url)
        assert len(requests) == 3


class TestWhatItCannotSee:
    @pytest.mark.parametrize("fault", [TRUNCATED, RESET_AFTER_HEADERS], ids=["truncated", "reset"])
    async def test_a_body_that_breaks_off_after_it_was_handed_over(self, session, faults, no_waits, fault):
        url = faults.script("/x", fault, answer(200))
        async with session.get(url) as response:
            with pytest.raises(aiohttp.ClientError):
                await response.read()
        assert len(faults.seen("/x")) == 1

    async def test_a_decorated_coroutine_sees_it(self, faults, no_waits):
        url = faults.script("/x", TRUNCATED, answer(200, b"whole"))
        async with aiohttp.ClientSession(middlewares=[RetryMiddleware()]) as session:

            @retry_http
            async def read():
                async with session.get(url) as response:
                    return await response.read()

            assert await read() == b"whole"

    async def test_cookies_of_a_discarded_response(self, session, faults, no_waits):
        url = faults.script(
            "/x", answer(503, headers={"Set-Cookie": "a=1"}), answer(200, headers={"Set-Cookie": "b=2"})
        )
        async with session.get(url):
            pass
        assert {cookie.key for cookie in session.cookie_jar} <= {"b"}

    async def test_the_total_of_the_session_spans_all_attempts(self, faults):
        url = faults.script("/x", 503)
        timeout = aiohttp.ClientTimeout(total=0.1)
        middlewares = [RetryMiddleware(base_delay=60)]
        async with aiohttp.ClientSession(middlewares=middlewares, timeout=timeout) as session:
            with pytest.raises(TimeoutError):
                await session.get(url)
        assert len(faults.seen("/x")) == 1

    @pytest.mark.parametrize(
        "fault", [STALL, raw(head(503, {"Content-Length": "9"}) + b"x", "stall")], ids=["in an attempt", "in a drain"]
    )
    async def test_nor_is_anything_sent_once_it_has_passed(self, faults, events, fault):
        url = faults.script("/x", fault, 200)
        timeout = aiohttp.ClientTimeout(total=0.1)
        async with aiohttp.ClientSession(middlewares=[RetryMiddleware(base_delay=0)], timeout=timeout) as session:
            with pytest.raises(TimeoutError) as raised:
                await session.get(url)
        assert len(faults.seen("/x")) == 1
        assert not [event for event in events if isinstance(event, GiveUpEvent)]
        assert fault is STALL or "ended after 1 attempt" in raised.value.__notes__[0]

    async def test_a_websocket_passes_through(self, no_waits):
        requests = []

        async def refuse(request):
            requests.append(request)
            return web.Response(status=503)

        async def echo(request):
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for message in socket:
                await socket.send_str(message.data)
            return socket

        app = web.Application()
        app.router.add_get("/refuse", refuse)
        app.router.add_get("/echo", echo)
        runner = web.AppRunner(app)
        await runner.setup()
        await (site := web.TCPSite(runner, "127.0.0.1", 0)).start()
        host, port = site._server.sockets[0].getsockname()
        async with aiohttp.ClientSession(middlewares=[RetryMiddleware()]) as session:
            async with session.ws_connect(f"http://{host}:{port}/echo") as socket:
                await socket.send_str("hello")
                assert await socket.receive_str() == "hello"
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(f"http://{host}:{port}/refuse")
        await runner.cleanup()
        assert len(requests) == 1


class TestConnections:
    async def test_small_bodies_leave_the_connection_for_the_next_attempt(self, session, faults, no_waits):
        url = faults.script("/x", answer(503, b"sorry"), answer(503, b"sorry", late=0.05), answer(200, b"done"))
        async with session.get(url) as response:
            assert await response.read() == b"done"
        assert faults.connections == 1

    @pytest.mark.parametrize("fault", [dripping(), streaming(503, 5_000_000)], ids=["dripping", "5 MB"])
    async def test_a_body_that_is_not_worth_reading_is_not_read(self, session, faults, no_waits, fault):
        url = faults.script("/x", fault, answer(200))
        async with session.get(url) as response:
            assert response.status == 200
        assert faults.connections == 2

    async def test_a_pool_of_one_never_deadlocks(self, faults, no_waits):
        url = faults.script("/x", dripping(), raw(b""), answer(503, b"sorry"), answer(200))
        connector = aiohttp.TCPConnector(limit=1)
        middlewares = [RetryMiddleware(max_retries=4)]
        async with aiohttp.ClientSession(middlewares=middlewares, connector=connector) as session:
            async with asyncio.timeout(SOON), session.get(url) as response:
                assert response.status == 200

    async def test_cancellation_comes_out_at_once(self, session, faults):
        url = faults.script("/x", 503)
        call = asyncio.create_task(session.get(url))
        while not faults.seen("/x"):
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert len(faults.seen("/x")) == 1
