"""One call, over real sockets: attempts, waits, what comes out, and what is left behind."""

import asyncio
import contextvars
import copy
import dataclasses
import gc
import re
import time
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import aiohttp
import pytest
import tenacity
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

import retrykit
from retrykit import GiveUpError, ResponseError, TryAgain, attempt_number, attempts_of, retry_http
from retrykit.core.scope import time_left
from retrykit.testing import Disconnect, Reply, Reset, Truncated


@pytest.fixture
async def session():
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def fetch(session, scripted_server):
    """A coroutine that returns the response for a path."""

    async def fetch(path, **options):
        return await session.get(scripted_server.url + path, **options)

    return fetch


@pytest.fixture
def read(session, scripted_server):
    """A coroutine that returns parsed data."""

    async def read(path):
        async with session.get(scripted_server.url + path, raise_for_status=True) as response:
            return await response.json()

    return read


class TestAttempts:
    async def test_a_success_is_one_request_and_no_wait(self, fetch, scripted_server, no_waits):
        scripted_server.script("/ok", {"id": 1})
        response = await retry_http(fetch)("/ok")
        assert await response.json() == {"id": 1}
        assert len(scripted_server.requests("/ok")) == 1
        assert no_waits == []

    async def test_the_default_is_three_attempts_with_waits_of_1_and_2_seconds(self, fetch, scripted_server, no_waits):
        scripted_server.script("/flaky", 503, 503, {"id": 1})
        response = await retry_http(fetch)("/flaky")
        assert await response.json() == {"id": 1}
        assert len(scripted_server.requests("/flaky")) == 3
        assert no_waits == [1.0, 2.0]

    async def test_there_is_no_wait_after_the_last_attempt(self, fetch, scripted_server, no_waits):
        scripted_server.script("/down", 503)
        with pytest.raises(GiveUpError):
            await retry_http(max_retries=4, base_delay=0.5)(fetch)("/down")
        assert no_waits == [0.5, 1.0, 2.0]
        assert len(scripted_server.requests("/down")) == 4

    @pytest.mark.parametrize("status", [200, 204, 301, 400, 404, 429 - 25, 500, 501])
    async def test_other_statuses_are_answers(self, fetch, scripted_server, no_waits, status):
        scripted_server.script("/answer", status)
        response = await retry_http(fetch)("/answer", allow_redirects=False)
        assert response.status == status
        assert len(scripted_server.requests("/answer")) == 1

    @pytest.mark.parametrize("fault", [Reset(), Disconnect(), Truncated({"id": 1})], ids=str)
    async def test_a_connection_that_breaks_is_retried(self, read, scripted_server, no_waits, fault):
        scripted_server.script("/broken", fault, fault, {"id": 1})
        # aiohttp repeats a GET once by itself where the connection broke before the answer.
        assert await retry_http(max_retries=3)(read)("/broken") == {"id": 1}
        assert 1 <= len(no_waits) <= 2

    async def test_a_value_is_judged_by_what_is_raised(self, read, scripted_server, no_waits):
        scripted_server.script("/flaky", 503, {"id": 1})
        assert await retry_http(read)("/flaky") == {"id": 1}

    async def test_retry_after_is_waited_for(self, fetch, scripted_server, no_waits):
        scripted_server.script("/limited", Reply(429, retry_after=7), 200)
        await retry_http(fetch)("/limited")
        assert no_waits == [7.0]

    async def test_a_server_cannot_forge_lines_of_a_log(self, session, scripted_server, no_waits, events):
        scripted_server.script("/a\nforged", 503)
        with pytest.raises(GiveUpError) as raised:
            await retry_http()(session.get)(f"{scripted_server.url}/a%0aforged")
        raised.value.message = "Busy\x1b[31m\x08"
        assert str(raised.value).startswith(f"503 Busy[31m: GET {scripted_server.url}/a%0Aforged (gave up")
        assert events[0].path == "/a%0Aforged"

    async def test_a_date_without_a_date_to_measure_it_by_counts_from_now(self, session, no_waits):
        async def serve(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            when = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
            writer.write(f"HTTP/1.1 503 Busy\r\nRetry-After: {when}\r\nConnection: close\r\n\r\n".encode())
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        with pytest.raises(GiveUpError):
            await retry_http(max_retries=2)(session.get)(f"http://{host}:{port}/")
        assert 25 < no_waits[0] <= 30
        server.close()
        await server.wait_closed()

    async def test_a_permanent_failure_comes_out_at_once_and_untouched(self, session, no_waits):
        with pytest.raises(aiohttp.InvalidURL) as raised:
            await retry_http()(session.get)("http://")
        assert no_waits == []
        assert not hasattr(raised.value, "__notes__")
        assert attempts_of(raised.value) == ()

    async def test_a_hundred_callers_never_disturb_one_another(self, fetch, scripted_server, no_waits, events):
        for caller in range(100):
            scripted_server.script(f"/{caller}", *[503] * (caller % 3), {"caller": caller})
        flaky = retry_http(fetch)

        async def call(caller):
            response = await flaky(f"/{caller}")
            return await response.json(), len(attempts_of(response))

        answers = await asyncio.gather(*map(call, range(100)))
        assert answers == [({"caller": n}, 0 if n % 3 == 0 else n % 3 + 1) for n in range(100)]
        assert sorted(no_waits) == [1.0] * 66 + [2.0] * 33

    async def test_jitter_draws_each_wait(self, fetch, scripted_server, no_waits):
        scripted_server.script("/down", 503)
        with pytest.raises(GiveUpError):
            await retry_http(max_retries=30, max_delay=10, jitter="full")(fetch)("/down")
        assert all(0 <= wait < 10 for wait in no_waits)
        assert len(set(no_waits)) == 29

    async def test_disabled_makes_one_attempt(self, fetch, scripted_server, retries_disabled):
        scripted_server.script("/down", 503)
        with pytest.raises(GiveUpError) as raised:
            await retry_http(fetch)("/down")
        assert len(scripted_server.requests("/down")) == 1
        assert raised.value.reason == "attempts"


class TestGivingUp:
    async def test_a_response_is_raised_with_all_that_is_known(self, fetch, scripted_server, no_waits):
        scripted_server.script("/down", Reply(503, {"error": "busy"}, {"X-Trace": "7"}))
        with pytest.raises(GiveUpError) as raised:
            await retry_http(fetch)("/down?token=secret")
        error = raised.value
        assert isinstance(error, aiohttp.ClientResponseError)
        assert (error.status, error.reason, error.body) == (503, "attempts", b'{"error": "busy"}')
        assert error.headers["X-Trace"] == "7"
        assert [(a.number, a.status, a.exception, a.delay) for a in error.attempts] == [
            (1, 503, None, 1.0),
            (2, 503, None, 2.0),
            (3, 503, None, None),
        ]
        assert attempts_of(error) == error.attempts
        where = f"GET {scripted_server.url}/down"
        assert str(error) == (
            f"503 Service Unavailable: {where} (gave up after 3 attempts in 3.0 s or more: 503, 503, 503)"
        )
        assert repr(error) == f"<GiveUpError {error}>"
        assert str(copy.copy(error)) == str(error)

    async def test_an_exception_comes_out_as_itself_with_a_note(self, session, no_waits, unused_tcp_port):
        with pytest.raises(aiohttp.ClientConnectorError) as raised:
            await retry_http()(session.get)(f"http://127.0.0.1:{unused_tcp_port}/")
        names = ", ".join(["ClientConnectorError"] * 3)
        (note,) = raised.value.__notes__  # The attempts themselves take real time.
        assert re.fullmatch(rf"gave up after 3 attempts in 3\.\d s or more: {names}", note)
        assert [attempt.exception for attempt in attempts_of(raised.value)] == [aiohttp.ClientConnectorError] * 3
        assert [attempt.status for attempt in attempts_of(raised.value)] == [None] * 3
        assert traceback.extract_tb(raised.tb)[-1].filename.endswith("connector.py")

    async def test_a_raised_status_comes_out_as_itself(self, read, scripted_server, no_waits):
        scripted_server.script("/down", 503)
        with pytest.raises(aiohttp.ClientResponseError) as raised:
            await retry_http(read)("/down")
        assert type(raised.value) is aiohttp.ClientResponseError
        assert raised.value.__notes__ == ["gave up after 3 attempts in 3.0 s or more: 503, 503, 503"]

    async def test_a_note_takes_the_place_of_an_earlier_one(self, no_waits):
        error = TimeoutError()
        error.add_note("somebody else's")

        @retry_http(max_retries=2)
        async def fail():
            raise error

        for _ in range(2):
            with pytest.raises(TimeoutError):
                await fail()
        note = "gave up after 2 attempts in 1.0 s or more: TimeoutError, TimeoutError"
        assert error.__notes__ == ["somebody else's", note]

    async def test_a_permanent_failure_after_a_retry_says_what_came_before(self, no_waits):
        outcomes = [TimeoutError(), ValueError("no")]

        @retry_http
        async def fail():
            raise outcomes.pop(0)

        with pytest.raises(ValueError, match="no") as raised:
            await fail()
        assert raised.value.__notes__ == ["ended after 2 attempts in 1.0 s or more: TimeoutError, ValueError"]
        assert len(attempts_of(raised.value)) == 2

    async def test_it_can_be_returned_open_and_unread(self, fetch, scripted_server, no_waits):
        scripted_server.script("/down", Reply(503, "busy"))
        response = await retry_http(on_give_up="return")(fetch)("/down")
        assert response.status == 503
        assert await response.text() == "busy"
        assert [attempt.status for attempt in attempts_of(response)] == [503, 503, 503]

    async def test_a_response_that_came_after_failures_tells_of_them(self, fetch, scripted_server, no_waits):
        scripted_server.script("/flaky", 503, 200)
        response = await retry_http(fetch)("/flaky")
        assert [(a.number, a.status, a.delay) for a in attempts_of(response)] == [(1, 503, 1.0), (2, 200, None)]

    async def test_too_long_a_retry_after_ends_the_call_at_once(self, fetch, scripted_server, no_waits):
        scripted_server.script("/limited", Reply(429, retry_after=3600))
        with pytest.raises(GiveUpError, match="it was asked for a longer wait than max_retry_after=60 s") as raised:
            await retry_http(fetch)("/limited")
        assert raised.value.reason == "retry_after"
        assert len(scripted_server.requests("/limited")) == 1

    async def test_what_may_not_be_repeated_is_not(self, read, scripted_server, no_waits):
        scripted_server.script("/broken", Truncated({"id": 1}))
        with pytest.raises(aiohttp.ClientPayloadError) as raised:
            await retry_http(idempotent=False)(read)("/broken")
        because = "; the request may have been processed, and idempotent=False says that it must not be repeated then"
        assert raised.value.__notes__[0].endswith(because)
        assert len(scripted_server.requests("/broken")) == 1

    async def test_only_what_is_exactly_a_response_error_turns_into_a_give_up_error(self, no_waits):
        class Mine(ResponseError):
            pass

        request = aiohttp.RequestInfo(URL("http://h/"), "GET", CIMultiDictProxy(CIMultiDict()), URL("http://h/"))

        @retry_http
        async def fail(kind):
            error = kind(request, (), status=503)
            error.add_note("the user's")
            raise error from ValueError("the cause")

        with pytest.raises(Mine) as raised:
            await fail(Mine)
        assert raised.value.__notes__[0] == "the user's"
        with pytest.raises(GiveUpError) as raised:
            await fail(ResponseError)
        assert raised.value.__notes__ == ["the user's"]
        assert isinstance(raised.value.__cause__, ValueError)

    async def test_a_call_inside_of_another_keeps_its_own_history(self, fetch, scripted_server, no_waits):
        scripted_server.script("/down", 503)
        inner = retry_http(max_retries=2)(fetch)
        with pytest.raises(GiveUpError) as raised, pytest.warns(retrykit.StackedRetriesWarning):
            await retry_http(max_retries=3)(inner)("/down")
        assert len(scripted_server.requests("/down")) == 6
        assert len(attempts_of(raised.value)) == len(raised.value.attempts) == 2
        assert "gave up after 3 attempts" in raised.value.__notes__[0]

    @pytest.mark.parametrize("headers", [None, {}, {"retry-after": "7"}], ids=str)
    async def test_errors_that_a_test_has_made_will_do(self, no_waits, headers, events):
        @retry_http(max_retries=2)
        async def fail():
            raise aiohttp.ClientResponseError(None, (), status=503, headers=headers)

        with pytest.raises(aiohttp.ClientResponseError):
            await fail()
        assert no_waits == [7.0 if headers else 1.0]
        assert str(ResponseError(None, (), status=503)) == "503"

    async def test_an_exception_may_be_a_frozen_dataclass(self, no_waits):
        @dataclasses.dataclass(frozen=True)
        class Frozen(Exception):
            code: int

        @retry_http(exceptions=(Frozen,))
        async def fail():
            raise Frozen(7)

        with pytest.raises(Frozen) as raised:
            await fail()
        assert raised.value.__notes__[0].startswith("gave up after 3 attempts")


class TestTryAgain:
    async def test_it_asks_for_another_attempt(self, fetch, scripted_server, no_waits):
        scripted_server.script("/pending", {"state": "pending"}, {"state": "done"})

        @retry_http
        async def finished():
            response = await fetch("/pending")
            if (body := await response.json())["state"] == "pending":
                raise TryAgain(after=5)
            return body

        assert await finished() == {"state": "done"}
        assert no_waits == [5.0]

    @pytest.mark.parametrize("again", [TryAgain, tenacity.TryAgain])
    async def test_what_it_was_raised_from_comes_out(self, no_waits, again):
        @retry_http(idempotent=False)
        async def refused():
            try:
                raise KeyError("the reason")
            except KeyError as error:
                raise again from error

        with pytest.raises(KeyError) as raised:
            await refused()
        assert raised.value.__notes__[0].startswith(
            "gave up after 3 attempts in 3.0 s or more: TryAgain, TryAgain, TryAgain"
        )
        assert raised.value.__context__ is None

    async def test_an_exception_being_handled_counts_too(self, no_waits):
        @retry_http
        async def refused():
            try:
                raise KeyError("the reason")
            except KeyError:
                raise TryAgain  # noqa: B904

        with pytest.raises(KeyError):
            await refused()

    async def test_it_comes_out_itself_where_it_stands_for_nothing(self, no_waits):
        @retry_http
        async def refused():
            try:
                raise KeyError("unrelated")
            except KeyError:
                raise TryAgain from None

        with pytest.raises(TryAgain):
            await refused()

    async def test_what_the_caller_is_handling_is_none_of_its_business(self, no_waits):
        @retry_http
        async def backup():
            raise TryAgain("pending")

        with pytest.raises(TryAgain, match="pending"):
            try:
                raise KeyError("primary")
            except KeyError:
                await backup()


class TestStrategies:
    async def test_wait_is_asked_only_where_another_attempt_may_follow(self, no_waits):
        asked = []

        def wait(state):
            asked.append(state.outcome.exception())
            return 1

        @retry_http(wait=wait, retry_if=lambda _: False)
        async def call(outcome):
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        assert await call(1) == 1
        with pytest.raises(ValueError, match="no"):
            await call(ValueError("no"))
        assert asked == []
        with pytest.raises(TimeoutError):
            await call(TimeoutError())
        assert len(asked) == 3

    async def test_a_strategy_that_has_to_be_awaited_is_refused(self, fetch, scripted_server):
        async def pending(outcome):
            return True

        scripted_server.script("/ok", 200)
        with pytest.raises(TypeError, match=r"retry_if=<lambda> answered a coroutine, and strategies are not awaited"):
            await retry_http(retry_if=lambda outcome: pending([outcome]))(fetch)("/ok")

    async def test_tenacitys_waits_replace_the_schedule(self, fetch, scripted_server, no_waits):
        scripted_server.script("/down", 503)
        wait = tenacity.wait_chain(tenacity.wait_fixed(3), tenacity.wait_fixed(4))
        with pytest.raises(GiveUpError):
            await retry_http(wait=wait)(fetch)("/down")
        assert no_waits == [3.0, 4.0]

    async def test_a_plain_callable_is_handed_the_state(self, fetch, scripted_server, no_waits):
        scripted_server.script("/down", 503)
        seen = []

        def wait(state):
            seen.append((state.attempt_number, state.outcome.result().status, state.args, state.idle_for))
            return 2

        with pytest.raises(GiveUpError):
            await retry_http(wait=wait)(fetch)("/down")
        assert seen == [(1, 503, ("/down",), 0.0), (2, 503, ("/down",), 2.0), (3, 503, ("/down",), 4.0)]

    @pytest.mark.parametrize(
        ("stop", "waits"),
        [
            (tenacity.stop_after_attempt(2), [1.0]),
            (tenacity.stop_after_delay(3), [1.0, 2.0]),
            (tenacity.stop_before_delay(3), [1.0]),
            (tenacity.stop_after_attempt(9), [1.0, 2.0, 4.0]),
        ],
    )
    async def test_tenacitys_stops_stop_earlier(self, fetch, scripted_server, no_waits, stop, waits):
        scripted_server.script("/down", 503)
        with pytest.raises(GiveUpError) as raised:
            await retry_http(max_retries=4, stop=stop)(fetch)("/down")
        assert no_waits == waits
        assert raised.value.reason == ("attempts" if len(waits) == 3 else "stop")

    async def test_tenacitys_retries_add_reasons(self, read, scripted_server, no_waits):
        scripted_server.script("/pending", {"state": "pending"}, {"state": "done"})
        retry_if = tenacity.retry_if_result(lambda body: body["state"] == "pending")
        assert await retry_http(retry_if=retry_if)(read)("/pending") == {"state": "done"}

    async def test_a_plain_callable_is_handed_the_outcome(self, fetch, scripted_server, no_waits):
        scripted_server.script("/new", 500, Disconnect(), 200)
        seen = []

        def retry_if(outcome):
            seen.append(outcome)
            return isinstance(outcome, aiohttp.ClientResponse) and outcome.status == 500

        response = await retry_http(retry_if=retry_if)(fetch)("/new")
        assert response.status == 200
        assert [outcome.status for outcome in seen if isinstance(outcome, aiohttp.ClientResponse)] == [500, 200]
        assert len(scripted_server.requests("/new")) == 3

    async def test_a_response_it_refuses_to_the_end_is_given_up_on(self, fetch, scripted_server, no_waits):
        scripted_server.script("/new", Reply(500, "broken"))
        with pytest.raises(GiveUpError) as raised:
            await retry_http(retry_if=lambda response: response.status == 500)(fetch)("/new")
        assert raised.value.status == 500
        assert raised.value.body == b"broken"

    async def test_a_value_it_refuses_to_the_end_is_returned(self, no_waits, events):
        @retry_http(retry_if=lambda value: value == "pending")
        async def poll():
            return "pending"

        assert await poll() == "pending"
        assert no_waits == [1.0, 2.0]
        assert events[-1].reason == "attempts"

    async def test_a_value_is_handed_on_untouched(self, no_waits):
        values = [None, SimpleNamespace(id=1)]

        @retry_http(retry_if=lambda value: value is None)
        async def poll():
            return values.pop(0)

        value = await poll()
        assert value == SimpleNamespace(id=1)
        assert attempts_of(value) == ()

    async def test_a_strategy_that_fails_comes_out_and_leaves_no_connection(self, fetch, scripted_server):
        seen = []

        def fail(response):
            seen.append(response)
            raise KeyError

        scripted_server.script("/ok", Reply(200, b"x" * 1_000_000))
        with pytest.raises(KeyError):
            await retry_http(retry_if=fail)(fetch)("/ok")
        assert seen[0].closed

    async def test_one_that_fails_on_a_value_comes_out_too(self):
        @retry_http(retry_if=lambda value: value["missing"])
        async def answer():
            return {}

        with pytest.raises(KeyError, match="missing"):
            await answer()

    async def test_a_first_attempt_that_they_accept_is_all_there_is(self, fetch, scripted_server, events):
        scripted_server.script("/ok", 200)
        response = await retry_http(retry_if=lambda _: False)(fetch)("/ok")
        assert attempts_of(response) == ()
        assert events == []

    @pytest.mark.parametrize("answer", [-1, float("nan"), float("inf"), None, "2"])
    async def test_a_wait_that_is_no_time_is_refused(self, fetch, scripted_server, answer):
        def my_wait(state):
            return answer

        scripted_server.script("/down", 503)
        with pytest.raises(ValueError, match=rf"wait=my_wait answered {answer!r}, which is no time to wait"):
            await retry_http(wait=my_wait)(fetch)("/down")


class TestBeforeRetry:
    async def test_it_runs_before_each_further_attempt(self, fetch, scripted_server, no_waits):
        scripted_server.script("/private", 401, 200)
        token, sent = "old", []

        async def refresh(event):
            nonlocal token
            sent.append((event.attempt, event.status, list(no_waits)))
            token = "new"

        @retry_http(statuses={401}, before_retry=refresh)
        async def private():
            return await fetch("/private", headers={"Authorization": f"Bearer {token}"})

        retrykit.set_listeners()
        assert (await private()).status == 200
        assert sent == [(1, 401, [1.0])]
        tokens = [request.headers["Authorization"] for request in scripted_server.requests("/private")]
        assert tokens == ["Bearer old", "Bearer new"]

    async def test_what_it_raises_ends_the_call(self, fetch, scripted_server, no_waits):
        async def refresh(event):
            raise ConnectionError("no new token")

        scripted_server.script("/down", 503)
        with pytest.raises(ConnectionError, match="no new token") as raised:
            await retry_http(before_retry=refresh)(fetch)("/down")
        assert len(scripted_server.requests("/down")) == 1
        assert raised.value.__notes__ == ["ended after 1 attempt in 0.0 s or more: 503"]
        assert [attempt.status for attempt in attempts_of(raised.value)] == [503]

    async def test_one_that_cannot_be_awaited_says_so(self, fetch, scripted_server, no_waits):
        scripted_server.script("/down", 503)
        with pytest.raises(
            TypeError, match=r"before_retry=append returned None, which can't be awaited; .*`async def`"
        ):
            await retry_http(before_retry=[].append)(fetch)("/down")

    async def test_it_is_bounded_by_the_timeout(self, fetch, scripted_server, events):
        async def refresh(event):
            await asyncio.sleep(30)

        scripted_server.script("/down", 503)
        with pytest.raises(TimeoutError) as raised:
            await retry_http(before_retry=refresh, timeout=0.1, base_delay=0.01)(fetch)("/down")
        assert raised.value.__notes__[0].startswith("gave up after 1 attempt in")
        assert len(scripted_server.requests("/down")) == 1
        assert [type(event).__name__ for event in events] == ["RetryEvent", "GiveUpEvent"]
        assert events[-1].reason == "timeout"

    async def test_a_timeout_error_of_its_own_is_not_taken_for_ours(self, fetch, scripted_server, no_waits):
        async def refresh(event):
            raise TimeoutError("of its own")

        scripted_server.script("/down", 503)
        with pytest.raises(TimeoutError, match="of its own") as raised:
            await retry_http(before_retry=refresh, timeout=10)(fetch)("/down")
        assert raised.value.__notes__ == ["ended after 1 attempt in 0.0 s: 503"]


class TestTime:
    async def test_the_timeout_ends_an_attempt(self, fetch, scripted_server, session):
        scripted_server.script("/slow", 503, Reply(delay=30))
        with pytest.raises(TimeoutError) as raised:
            await retry_http(timeout=0.2, base_delay=0.01)(fetch)("/slow")
        assert raised.value.__notes__ == [
            "gave up after 2 attempts in 0.2 s: 503, TimeoutError; timeout=0.2 s leaves no room for another"
        ]
        assert not session.connector._acquired

    async def test_no_wait_is_begun_that_would_end_after_it(self, fetch, scripted_server, no_waits):
        scripted_server.script("/down", 503)
        with pytest.raises(GiveUpError) as raised:
            await retry_http(timeout=2.5)(fetch)("/down")
        assert raised.value.reason == "timeout"
        assert no_waits == [1.0]

    async def test_an_attempt_that_takes_too_long_is_ended_and_retried(self, fetch, scripted_server, no_waits):
        scripted_server.script("/slow", Reply(delay=30), {"id": 1})
        response = await retry_http(attempt_timeout=0.1)(fetch)("/slow")
        assert await response.json() == {"id": 1}
        assert [attempt.exception for attempt in attempts_of(response)] == [TimeoutError, None]

    async def test_an_attempt_gets_no_more_than_what_is_left(self, fetch, scripted_server):
        scripted_server.script("/slow", Reply(delay=30))
        with pytest.raises(TimeoutError) as raised:
            await retry_http(timeout=0.5, attempt_timeout=0.4, base_delay=0.01)(fetch)("/slow")
        assert len(scripted_server.requests("/slow")) == 2
        assert attempts_of(raised.value)[-1].elapsed < 0.75

    async def test_a_call_inside_of_another_sees_the_nearer_deadline(self, no_waits):
        seen = []

        async def look():
            seen.append(time_left())

        @retry_http(timeout=10)
        async def outer():
            await retry_http(timeout=100)(look)()
            await retry_http(timeout=5)(look)()
            await retry_http(attempt_timeout=5)(look)()
            await look()

        await outer()
        assert [round(left) for left in seen] == [10, 5, 5, 10]
        assert time_left() is None

    async def test_a_note_names_only_time_that_was_measured(self, fetch, scripted_server):
        scripted_server.script("/slow", Reply(503, delay=0.1))
        with pytest.raises(GiveUpError, match=r"gave up after 1 attempt in 0.0 s or more: 503"):
            await retry_http(max_retries=1)(fetch)("/slow")
        with pytest.raises(GiveUpError, match=r"gave up after 1 attempt in 0\.[1-9] s: 503"):
            await retry_http(max_retries=1, timeout=10)(fetch)("/slow")

    async def test_elapsed_counts_from_the_start_where_time_is_limited(self, fetch, scripted_server, events):
        scripted_server.script("/slow", Reply(503, delay=0.1), 200)
        await retry_http(timeout=10, base_delay=0)(fetch)("/slow")
        assert events[0].elapsed >= 0.1

    async def test_a_body_that_stalls_does_not_push_the_wait_past_it(self, session, stalling):
        url, connections = await stalling(b"HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\nstart")
        with pytest.raises(GiveUpError) as raised:
            await retry_http(timeout=0.5, base_delay=0.4)(session.get)(url)
        assert raised.value.reason == "timeout"
        assert [attempt.delay for attempt in raised.value.attempts] == [0.4, None]
        assert len(connections) == 2

    async def test_no_attempt_is_sent_once_it_has_passed(self, fetch, scripted_server):
        scripted_server.script("/down", 503)
        told = []
        retrykit.set_listeners(told.append, lambda event: time.sleep(0.3))
        with pytest.raises(TimeoutError) as raised:
            await retry_http(timeout=0.25, base_delay=0.01)(fetch)("/down")
        assert len(scripted_server.requests("/down")) == 1
        assert len(attempts_of(raised.value)) == 1
        assert [(event.attempt, getattr(event, "reason", None)) for event in told] == [(1, None), (1, "timeout")]

    async def test_nor_where_nobody_listens(self, fetch, scripted_server):
        scripted_server.script("/down", 503)
        retrykit.set_listeners()

        def late(state):
            time.sleep(0.3)
            return False

        with pytest.raises(TimeoutError):
            await retry_http(timeout=0.25, base_delay=0.01, stop=late)(fetch)("/down")
        assert len(scripted_server.requests("/down")) == 1

    async def test_a_task_that_outlives_its_call_is_free_of_it(self):
        seen = []

        async def background():
            seen.append((attempt_number(), time_left() is None))
            await asyncio.sleep(0.02)
            seen.append((attempt_number(), time_left() is None))

        tasks = []

        @retry_http(timeout=10, base_delay=0)
        async def start():
            if attempt_number() == 1:
                raise TimeoutError
            tasks.append(asyncio.create_task(background()))
            await asyncio.sleep(0)

        await start()
        await tasks[0]
        assert seen == [(2, False), (1, True)]


class TestAttemptNumber:
    @pytest.mark.parametrize("options", [{}, {"timeout": 60}])
    async def test_the_running_attempt_can_be_asked_for(self, no_waits, options):
        numbers = []

        @retry_http(**options)
        async def fail():
            numbers.append(attempt_number())
            raise TimeoutError

        with pytest.raises(TimeoutError):
            await fail()
        assert numbers == [1, 2, 3]
        assert attempt_number() == 1

    @pytest.mark.parametrize("options", [{}, {"timeout": 60}])
    async def test_between_attempts_none_is_running(self, no_waits, options):
        numbers = []

        async def hook(_event):
            numbers.append(attempt_number())

        @retry_http(before_retry=hook, **options)
        async def fail():
            raise TimeoutError

        with pytest.raises(TimeoutError):
            await fail()
        assert numbers == [1, 1]

    @pytest.mark.parametrize("options", [{}, {"timeout": 60}])
    async def test_a_cancelled_attempt_runs_no_more(self, no_waits, options):
        @retry_http(**options)
        async def fail():
            if attempt_number() == 1:
                raise TimeoutError
            asyncio.current_task().cancel()
            await asyncio.sleep(1)

        with pytest.raises(asyncio.CancelledError):
            await fail()
        assert attempt_number() == 1

    async def test_each_task_has_its_own(self, no_waits):
        numbers = {}

        @retry_http
        async def fail(times, name):
            numbers.setdefault(name, []).append(attempt_number())
            await asyncio.sleep(0)
            if len(numbers[name]) < times:
                raise TimeoutError

        await asyncio.gather(*(fail(times, times) for times in (1, 2, 3)))
        assert numbers == {1: [1], 2: [1, 2], 3: [1, 2, 3]}

    async def test_a_call_that_is_closed_from_elsewhere_leaves_nothing_there(self):
        @retry_http(timeout=60)
        async def wait():
            await asyncio.sleep(30)

        call = wait()
        elsewhere = contextvars.copy_context()
        elsewhere.run(call.send, None)
        assert elsewhere.run(time_left) > 5

        @retry_http(timeout=5)
        async def close_it():
            call.close()
            return time_left()

        assert 4 < await close_it() <= 5
        assert time_left() is None
        assert elsewhere.run(time_left) is None


class TestCancellation:
    async def test_it_comes_out_at_once_during_a_wait(self, fetch, scripted_server):
        scripted_server.script("/down", 503)
        task = asyncio.create_task(retry_http(base_delay=30)(fetch)("/down"))
        while not scripted_server.requests("/down"):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(scripted_server.requests("/down")) == 1

    async def test_it_comes_out_at_once_during_a_request(self, fetch, scripted_server, session):
        scripted_server.script("/slow", Reply(delay=30))
        task = asyncio.create_task(retry_http(timeout=60)(fetch)("/slow"))
        while not scripted_server.requests("/slow"):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not session.connector._acquired
        assert len(scripted_server.requests("/slow")) == 1

    async def test_no_strategy_sees_it(self):
        seen = []

        @retry_http(retry_if=seen.append, exceptions=(Exception,))
        async def wait():
            await asyncio.sleep(30)

        task = asyncio.create_task(wait())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert seen == []

    async def test_the_callers_own_timeout_comes_out_as_the_callers(self, fetch, scripted_server):
        scripted_server.script("/down", 503)
        with pytest.raises(TimeoutError) as raised:
            async with asyncio.timeout(0.1):
                await retry_http(base_delay=30)(fetch)("/down")
        assert not hasattr(raised.value, "__notes__")

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_nothing_but_exceptions_is_caught(self, error):
        calls = []

        @retry_http
        async def fail():
            calls.append(1)
            raise error

        coroutine = fail()
        with pytest.raises(error):
            coroutine.send(None)
        assert calls == [1]


class TestNothingIsLeft:
    @pytest.mark.parametrize("options", [{}, {"timeout": 30}, {"retry_if": lambda _: False}], ids=str)
    async def test_no_reference_cycles(self, fetch, scripted_server, no_waits, options):
        scripted_server.script("/flaky", 503, 200)
        scripted_server.script("/down", 503)

        @retry_http(**options)
        async def raises(error):
            raise error

        @retry_http(**options)
        async def asks():
            try:
                raise KeyError
            except KeyError as error:
                raise TryAgain from error

        flaky = retry_http(**options)(fetch)

        def broken_strategy(outcome):
            return 1 / 0

        async def all_kinds_of_calls():
            await raises_in(raises(TimeoutError), TimeoutError)
            await raises_in(raises(ValueError), ValueError)
            await raises_in(asks(), KeyError)
            await raises_in(flaky("/down"), GiveUpError)
            await raises_in(flaky.retry_with(max_retries=2)("/down"), GiveUpError)
            await raises_in(raises.retry_with(retry_if=broken_strategy)(ValueError), ZeroDivisionError)
            (await flaky("/flaky")).release()

        async def raises_in(call, expected):
            try:
                await call
            except expected:
                return
            raise AssertionError

        left = []
        gc.disable()
        try:
            for _ in range(4):  # what other tests have left goes with the first rounds
                await all_kinds_of_calls()
                left.append(gc.collect())
        finally:
            gc.enable()
        assert left[-1] == 0

    async def test_a_waiting_call_holds_no_exception(self):
        class Mine(TimeoutError):
            pass

        @retry_http(base_delay=30, retry_if=lambda _: False)
        async def fail():
            raise Mine

        task = asyncio.create_task(fail())
        await asyncio.sleep(0.05)
        gc.collect()
        assert not [each for each in gc.get_objects() if isinstance(each, Mine)]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_a_waiting_call_holds_no_response(self, fetch, scripted_server):
        scripted_server.script("/down", Reply(503, b"x" * 1000))
        task = asyncio.create_task(retry_http(base_delay=30, retry_if=lambda _: False)(fetch)("/down"))
        while not scripted_server.requests("/down"):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        gc.collect()
        responses = [each for each in gc.get_objects() if isinstance(each, aiohttp.ClientResponse)]
        assert not [response for response in responses if str(response.url).startswith(scripted_server.url)]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
