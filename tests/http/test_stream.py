"""A body that comes once and in order, whatever happens to its connections."""

import asyncio
import gzip
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrykit import (
    AsyncHTTPClient,
    CircuitBreaker,
    GiveUpError,
    GiveUpEvent,
    OriginPause,
    ResponseError,
    RetryBudget,
    RetryEvent,
    attempts_of,
    stream,
)
from retrykit.core.clock import using
from retrykit.guards.breaker import State
from retrykit.testing import no_waits
from tests.faults import CLOSE, SOON, Connection, FaultServer, Step, answer, head, raw, redirect
from tests.guards.clock import ManualClock
from tests.http.ranged import Ranged

BODY = random.Random(6).randbytes(5000)
DATES = {"Last-Modified": "Sun, 06 Nov 1994 08:00:00 GMT", "Date": "Sun, 06 Nov 1994 08:49:37 GMT"}


V1 = {"ETag": '"v1"'}


def a_file(
    body: bytes = BODY,
    cuts: Iterable[int] = (),
    *,
    end: str = "close",
    chunked: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Ranged:
    return Ranged(body, V1 if headers is None else headers, cuts=cuts, ends=[end], chunked=chunked)


def ranges_asked(server: FaultServer, path: str = "/file") -> list[str | None]:
    return [request.headers.get("Range") for request in server.seen(path)]


async def read(body: AsyncIterator[bytes]) -> tuple[bytes, Exception | None]:
    """What comes, and what ends it."""
    got = b""
    try:
        async for chunk in body:
            got += chunk
    except Exception as error:  # noqa: BLE001 - the test looks at it.
        return got, error
    return got, None


async def streamed(url: str, **options: Any) -> tuple[bytes, Exception | None]:
    async with stream(url, **options) as body:
        return await read(body)


# --- it goes on -------------------------------------------------------------------------------------------------------


async def test_a_body_that_comes_whole(faults: FaultServer, no_waits: list[float]):
    url = faults.script("/file", a_file())
    async with stream(url) as body:
        assert (body.status, body.size, body.headers["ETag"]) == (200, len(BODY), '"v1"')
        assert repr(body) == "<BodyStream 0 of 5000 bytes>"
        assert await body.read() == BODY
        assert await body.read() == b""
    assert ranges_asked(faults) == [None]
    assert no_waits == []


@pytest.mark.parametrize("end", ["close", "reset", "stall"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_breaks_off_is_gone_on_with(
    faults: FaultServer, no_waits: list[float], events: list[Any], end: str, chunked: bool
):
    url = faults.script("/file", a_file(cuts=(1000, 2500), end=end, chunked=chunked))
    async with stream(url, attempt_timeout=0.2) as body:
        assert await read(body) == (BODY, None)
        assert (body.status, "Content-Range" in body.headers) == (200, False)
    assert ranges_asked(faults) == [None, "bytes=1000-", "bytes=3500-"]
    assert [request.headers.get("If-Range") for request in faults.seen("/file")] == [None, '"v1"', '"v1"']
    assert no_waits == [1.0, 1.0]
    error = TimeoutError if end == "stall" else aiohttp.ClientPayloadError
    assert [(event.call, event.attempt, event.exception) for event in events] == [("stream", 1, error)] * 2
    assert {(event.method, event.path) for event in events} == {("GET", "/file")}


async def test_a_date_can_stand_for_an_etag(faults: FaultServer, no_waits: list[float]):
    url = faults.script("/file", a_file(cuts=(1000,), headers=DATES))
    assert await streamed(url) == (BODY, None)
    assert faults.seen("/file")[1].headers["If-Range"] == DATES["Last-Modified"]


async def test_each_new_byte_begins_the_count_anew_and_the_time(
    faults: FaultServer, no_waits: list[float], events: list[Any]
):
    url = faults.script("/file", a_file(cuts=(1,) * 20))
    assert await streamed(url, max_retries=2, timeout=5) == (BODY, None)
    assert no_waits == [1.0] * 20
    assert [round(event.elapsed) for event in events] == [0] * 20


@pytest.mark.parametrize("chunked", [False, True])
async def test_without_a_new_byte_the_attempts_add_up(
    faults: FaultServer, no_waits: list[float], events: list[Any], chunked: bool
):
    url = faults.script("/file", a_file(cuts=(1000, 0, 0, 0), chunked=chunked))
    got, error = await streamed(url)
    assert got == BODY[:1000]
    assert isinstance(error, aiohttp.ClientPayloadError)
    failures = ", ".join(["ClientPayloadError"] * 3)
    assert error.__notes__ == [f"gave up after 3 attempts in 3.0 s or more: {failures} (GET {faults.url}/file)"]
    assert [(attempt.delay, round(attempt.elapsed)) for attempt in attempts_of(error)] == [
        (1.0, 0),
        (2.0, 1),
        (None, 3),
    ]
    assert no_waits == [1.0, 2.0]
    assert [event.attempt for event in events] == [1, 2, 3]
    assert ranges_asked(faults) == [None, "bytes=1000-", "bytes=1000-"]


async def test_other_failures_on_the_way_count_too(faults: FaultServer, no_waits: list[float], events: list[Any]):
    resource = a_file(cuts=(1000, 0))
    url = faults.script("/file", resource, 503, resource, resource)
    assert await streamed(url, max_retries=4) == (BODY, None)
    assert no_waits == [1.0, 2.0, 4.0]
    assert [(event.attempt, event.status) for event in events] == [(1, None), (2, 503), (3, None)]


async def test_failures_before_the_first_byte_count_too(faults: FaultServer, no_waits: list[float]):
    resource = a_file(cuts=(0, 0))
    url = faults.script("/file", 503, resource, resource)
    got, error = await streamed(url)
    assert got == b""
    attempts = [(str(attempt), round(attempt.elapsed)) for attempt in attempts_of(error)]
    assert attempts == [("503", 0), ("ClientPayloadError", 1), ("ClientPayloadError", 3)]


async def test_the_delay_before_counts_for_the_next_one(faults: FaultServer):
    manual = ManualClock()
    manual.drawn = 0.5
    url = faults.script("/file", a_file(cuts=(1000, 0, 0, 0)))
    with using(manual):
        _, error = await streamed(url, max_retries=4, jitter="decorrelated")
    assert [attempt.delay for attempt in attempts_of(error)] == [2.0, 3.5, 5.75, None]


async def test_a_connection_that_was_closed_while_it_was_idle_is_followed_at_once(
    faults: FaultServer, no_waits: list[float]
):
    url = faults.script("/file", a_file(cuts=(1000,)), CLOSE, a_file())
    assert await streamed(url) == (BODY, None)
    assert no_waits == [1.0, 0.0]


async def test_what_has_come_but_was_not_read_is_not_asked_for_again(faults: FaultServer, no_waits: list[float]):
    resource = a_file(cuts=(4000,))
    url = faults.script("/file", resource)
    async with stream(url) as body:
        await faults.all_closed()  # Nothing was read yet, and the connection is gone.
        await asyncio.sleep(0.02)
        assert await body.read() == BODY
    assert ranges_asked(faults) == [None, "bytes=4000-"]
    assert faults.streamed == len(BODY)


async def test_a_body_may_come_part_by_part(faults: FaultServer, no_waits: list[float], events: list[Any]):
    def part(start: int, end: int, size: str = "5000") -> Step:
        return answer(206, BODY[start:end], {"Content-Range": f"bytes {start}-{end - 1}/{size}", "ETag": '"v1"'})

    url = faults.script("/file", a_file(cuts=(1000,)), part(1000, 2000), part(2000, 4500, "*"), part(4500, 5000))
    assert await streamed(url) == (BODY, None)
    assert ranges_asked(faults) == [None, "bytes=1000-", "bytes=2000-", "bytes=4500-"]
    assert no_waits == [1.0]  # A part that has come as announced is no failure.
    assert len(events) == 1


async def test_how_much_there_is_may_never_be_told(faults: FaultServer, no_waits: list[float]):
    part = answer(206, BODY[1000:2000], {"Content-Range": "bytes 1000-1999/*", "ETag": '"v1"'})
    url = faults.script("/file", a_file(cuts=(1000,), chunked=True), part, a_file(cuts=(3000,)), a_file())
    assert await streamed(url) == (BODY, None)
    assert ranges_asked(faults) == [None, "bytes=1000-", "bytes=2000-"]


async def test_all_has_come_but_its_end(faults: FaultServer, no_waits: list[float]):
    url = faults.script("/file", a_file(cuts=(len(BODY),), chunked=True))
    async with stream(url) as body:
        assert body.size is None
        assert await body.read() == BODY
        assert body.size == len(BODY)  # The server has told it by now.
    assert ranges_asked(faults) == [None, "bytes=5000-"]


async def test_where_all_has_come_how_the_connection_ends_does_not_matter(
    faults: FaultServer, no_waits: list[float], events: list[Any]
):
    resource = a_file(cuts=(1000, 4000), chunked=True)  # The size is known from the second answer on.
    url = faults.script("/file", resource)
    assert await streamed(url) == (BODY, None)
    assert ranges_asked(faults) == [None, "bytes=1000-"]


async def test_a_redirect_is_followed_anew(faults: FaultServer, no_waits: list[float]):
    resource = a_file(cuts=(1000,))
    faults.script("/file", resource)
    url = faults.script("/go", redirect("/file?signed=1", 302), redirect("/file?signed=2", 302))
    assert await streamed(url) == (BODY, None)
    assert ranges_asked(faults, "/go") == ranges_asked(faults) == [None, "bytes=1000-"]


_CUTS = st.lists(st.integers(0, 3000), max_size=8)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=_CUTS, chunked=st.booleans(), resumable=st.booleans(), size=st.sampled_from([0, 1, 5000]))
def test_what_was_handed_out_is_the_beginning_and_in_the_end_all(
    cuts: list[int], chunked: bool, resumable: bool, size: int
):
    whole = BODY[:size]

    async def main() -> None:
        resource = a_file(whole, tuple(cuts), chunked=chunked, headers=None if resumable else {})
        async with FaultServer() as server:
            url, got = server.script("/file", resource), b""
            async with stream(url, max_retries=len(cuts) + 1) as body:
                try:
                    async for chunk in body:
                        got += chunk
                        assert whole.startswith(got)
                except aiohttp.ClientPayloadError:
                    assert not resumable
                    assert got
                else:
                    assert got == whole

    with no_waits():
        asyncio.run(main())


async def test_a_repetition_at_once_is_no_step_of_the_backoff_and_happens_once(
    faults: FaultServer, no_waits: list[float]
):
    resource = a_file(cuts=(1000, 0, 0))
    url = faults.script("/file", resource, CLOSE, resource, CLOSE, resource, resource)
    assert await streamed(url, max_retries=6) == (BODY, None)
    assert no_waits == [1.0, 0.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize("end", ["close", "stall"])
async def test_a_read_that_was_cancelled_may_be_made_again(faults: FaultServer, end: str):
    url = faults.script("/file", a_file(cuts=(1000,), end=end))
    async with stream(url, attempt_timeout=0.05, base_delay=0.3) as body:
        got = await anext(body)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):  # It waits before it goes on.
                await anext(body)
        assert got + await body.read() == BODY
    assert ranges_asked(faults) == [None, "bytes=1000-"]


# --- it can't go on ---------------------------------------------------------------------------------------------------

GZIPPED = gzip.compress(BODY)
NOT_RESUMABLE: dict[str, tuple[Ranged, str]] = {
    "no validator": (a_file(headers={}), "its server names neither a strong ETag nor a Last-Modified"),
    "weak": (a_file(headers={"ETag": 'W/"v1"', **DATES}), "its server names neither a strong ETag"),
    "no ranges": (a_file(headers={"ETag": '"v1"', "Accept-Ranges": "none"}), "its server takes no ranges"),
}


@pytest.mark.parametrize("name", NOT_RESUMABLE)
async def test_the_error_comes_out_and_says_why(
    faults: FaultServer, no_waits: list[float], events: list[Any], name: str
):
    resource, why = NOT_RESUMABLE[name]
    resource.cuts = iter([1000])
    got, error = await streamed(faults.script("/file", resource))
    assert got == BODY[:1000]
    assert type(error) is aiohttp.ClientPayloadError
    (note,) = error.__notes__
    assert "gave up after 1 attempt in" in note
    assert f"the body can't be resumed: {why}" in note
    assert [(event.attempt, event.reason) for event in events] == [(1, "not_resumable")]
    assert no_waits == []
    assert len(faults.seen("/file")) == 1


async def test_it_says_why_whatever_else_ends_it(faults: FaultServer, no_waits: list[float], events: list[Any]):
    url = faults.script("/file", a_file(cuts=(1000,)), answer(200, BODY, {"ETag": '"v2"'}))
    _, error = await streamed(url, max_retries=2)
    assert error is not None
    assert "2 attempts" in error.__notes__[0]
    assert "ClientPayloadError, 200; the body can't be resumed: it has" in error.__notes__[0]
    assert [(attempt.status, attempt.exception) for attempt in attempts_of(error)] == [
        (None, aiohttp.ClientPayloadError),
        (200, None),
    ]
    assert (events[-1].status, events[-1].exception, events[-1].reason) == (200, None, "not_resumable")


async def test_what_a_server_sends_forges_no_line(faults: FaultServer, no_waits: list[float]):
    coded = a_file(cuts=(1000,), headers={"ETag": TAG, "Content-Encoding": "x-forged"})
    _, error = await streamed(faults.script("/file", coded))
    assert error is not None
    assert "its server has coded it (GET" in error.__notes__[0]


@pytest.mark.parametrize("name", NOT_RESUMABLE)
async def test_it_begins_again_where_nothing_was_handed_out(faults: FaultServer, no_waits: list[float], name: str):
    resource, _ = NOT_RESUMABLE[name]
    resource.cuts = iter([0, 0])
    assert await streamed(faults.script("/file", resource)) == (BODY, None)
    assert ranges_asked(faults) == [None, None, None]
    assert no_waits == [1.0, 2.0]


async def test_a_body_that_is_coded_all_the_same(faults: FaultServer, no_waits: list[float]):
    packed = a_file(GZIPPED, headers={"ETag": '"v1"', "Content-Encoding": "gzip"})
    url = faults.script("/file", packed)
    async with stream(url) as body:
        assert body.size is None
        assert await body.read() == BODY
    packed.cuts = iter([len(GZIPPED) // 2])
    got, error = await streamed(url)
    assert 0 < len(got) < len(BODY)
    assert BODY.startswith(got)
    assert error is not None
    assert "its server has coded it (gzip)" in error.__notes__[0]


def changed(part_headers: dict[str, str] | None = None, status: int = 206, body: bytes = BODY[1000:]) -> Step:
    return answer(status, body, part_headers)


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (answer(200, BODY, {"ETag": '"v1"'}), "has sent it whole"),
        (answer(200, BODY, {"ETag": '"v2"'}), "it has changed on its server"),
        (answer(206, BODY, {"Content-Range": "bytes 0-4999/5000"}), "has sent something else"),
        (answer(206, BODY[1001:], {"Content-Range": "bytes 1001-4999/5000"}), "has sent something else"),
        (answer(206, BODY[1000:], {}), "has sent something else"),
        (answer(206, BODY[1000:], {"Content-Range": "bytes 1000-4999/5000", "ETag": '"v2"'}), "it has changed"),
        (answer(206, BODY[1000:], {"Content-Range": "bytes 1000-4999/6000"}), "has another size now"),
        (answer(416, b"", {"Content-Range": "bytes */500"}), "has answered 416"),
        (answer(204), "has answered 204"),
        (redirect("/elsewhere", 302), "another address answers for it now"),
    ],
    ids=["again", "changed", "all", "later", "unnamed", "part changed", "size", "416", "204", "redirect"],
)
async def test_something_else_comes_instead_of_the_rest(
    faults: FaultServer, no_waits: list[float], events: list[Any], second: Step, why: str
):
    faults.script("/elsewhere", a_file())
    got, error = await streamed(faults.script("/file", a_file(cuts=(1000,)), second))
    assert got == BODY[:1000]
    assert type(error) is aiohttp.ClientPayloadError
    (note,) = error.__notes__
    assert "gave up after 2 attempts in" in note
    assert why in note
    last = events[-1]
    assert isinstance(last, GiveUpEvent)
    assert (last.attempt, last.reason) == (2, "not_resumable")
    assert no_waits == [1.0]
    await faults.all_closed()


TAG = '"v1"'
LARGE = {"Content-Length": "100000"}


@pytest.mark.parametrize(
    "second",
    [
        raw(head(200, {**LARGE, "ETag": '"v2"'}) + b"x", "stall"),
        raw(
            head(206, {"Content-Range": "bytes 1000-1000/5000", "ETag": TAG, "Transfer-Encoding": "chunked"})
            + b"2\r\nxx\r\n",
            "stall",
        ),
    ],
    ids=["changed", "too long"],
)
async def test_what_is_of_no_use_is_closed_at_once(faults: FaultServer, no_waits: list[float], second: Step):
    url = faults.script("/file", a_file(cuts=(1000,)), second)
    async with aiohttp.ClientSession() as session, stream(url, session=session) as body:
        _, error = await read(body)
        assert isinstance(error, aiohttp.ClientPayloadError)
        await faults.all_closed()


async def test_an_error_status_in_the_place_of_the_rest_is_the_end(faults: FaultServer, no_waits: list[float]):
    got, error = await streamed(faults.script("/file", a_file(cuts=(1000,)), 404))
    assert got == BODY[:1000]
    assert isinstance(error, ResponseError)
    assert error.status == 404
    assert "ended after 2 attempts" in error.__notes__[0]


async def test_a_status_that_is_given_up_on(faults: FaultServer, no_waits: list[float]):
    got, error = await streamed(faults.script("/file", a_file(cuts=(1000,)), 503))
    assert got == BODY[:1000]
    assert isinstance(error, GiveUpError)
    assert [str(attempt) for attempt in error.attempts] == ["ClientPayloadError", "503", "503"]


async def test_more_than_was_announced(faults: FaultServer, no_waits: list[float]):
    longer = BODY[1000:] + b"more"
    headers = {"Content-Range": "bytes 1000-4999/5000", "ETag": '"v1"', "Transfer-Encoding": "chunked"}
    second = raw(head(206, headers) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(longer), longer))
    got, error = await streamed(faults.script("/file", a_file(cuts=(1000,)), second))
    assert BODY.startswith(got)
    assert str(error) == "more bytes came than the server has announced, which were 5000"
    assert len(faults.seen("/file")) == 2


async def test_less_than_was_announced_is_a_failure(faults: FaultServer, no_waits: list[float]):
    headers = {"Content-Range": "bytes 1000-4999/5000", "ETag": '"v1"', "Transfer-Encoding": "chunked"}
    shorter = raw(head(206, headers) + b"%x\r\n%b\r\n0\r\n\r\n" % (500, BODY[1000:1500]))
    assert await streamed(faults.script("/file", a_file(cuts=(1000,)), shorter, a_file())) == (BODY, None)
    assert ranges_asked(faults) == [None, "bytes=1000-", "bytes=1500-"]
    assert no_waits == [1.0, 1.0]


async def test_all_has_come_and_only_the_end_is_missing(faults: FaultServer, no_waits: list[float]):
    stalling = a_file(cuts=(4000,), chunked=True, end="stall")
    url = faults.script("/file", a_file(cuts=(1000,), chunked=True), stalling)
    async with asyncio.timeout(SOON):
        assert await streamed(url, attempt_timeout=3600) == (BODY, None)


# --- before the body --------------------------------------------------------------------------------------------------


async def test_the_answer_is_retried(faults: FaultServer, no_waits: list[float]):
    url = faults.script("/file", 503, answer(429, b"", {"Retry-After": "7"}), a_file())
    assert await streamed(url) == (BODY, None)
    assert no_waits == [1.0, 7.0]


async def test_a_status_below_400_can_be_retried_too(faults: FaultServer, no_waits: list[float]):
    url = faults.script("/file", 202, 202, a_file())
    assert await streamed(url, statuses={202}) == (BODY, None)
    assert no_waits == [1.0, 2.0]
    with pytest.raises(GiveUpError):
        await streamed(faults.script("/file", 202), statuses={202}, on_give_up="return")


async def test_an_attempt_is_one_request(faults: FaultServer, no_waits: list[float]):
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await streamed(faults.script("/file", CLOSE))
    assert len(faults.requests) == 3


@pytest.mark.parametrize(("status", "error"), [(404, ResponseError), (503, GiveUpError)])
async def test_an_error_status_is_raised(
    faults: FaultServer, no_waits: list[float], status: int, error: type[ResponseError]
):
    with pytest.raises(error) as raised:
        await streamed(faults.script("/file", answer(status, b"why")))
    assert (raised.value.status, raised.value.body) == (status, b"why")


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body(faults: FaultServer, status: int):
    url = faults.script("/file", raw(head(status, {"Content-Length": "5000", "ETag": TAG})))
    async with stream(url, headers={"If-None-Match": TAG}) as body:
        assert (body.status, body.size, await body.read()) == (status, None, b"")


async def test_a_part_that_nobody_has_asked_for(faults: FaultServer, no_waits: list[float]):
    url = faults.script("/file", answer(206, BODY[:1000], {"Content-Range": "bytes 0-999/5000", "ETag": TAG}))
    with pytest.raises(ResponseError) as raised:
        await streamed(url)
    assert raised.value.status == 206
    assert raised.value.__notes__ == ["its server was asked for the whole body, and has sent a part"]


async def test_a_session_that_raises_by_itself(faults: FaultServer, no_waits: list[float]):
    url = faults.script("/file", 503, answer(404, b"why"))
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        with pytest.raises(ResponseError) as raised:
            await streamed(url, session=session)
    assert (raised.value.status, raised.value.body) == (404, b"why")


async def test_it_is_asked_for_as_it_is_unless_told_otherwise(faults: FaultServer):
    url = faults.script("/file", a_file())
    await streamed(url)
    await streamed(url, headers={"accept-encoding": "gzip", "X-Token": "t"})
    first, second = faults.seen("/file")
    assert first.headers["Accept-Encoding"] == "identity"
    assert (second.headers["Accept-Encoding"], second.headers["X-Token"]) == ("gzip", "t")


@pytest.mark.parametrize("name", ["Range", "range", "If-Range"])
async def test_a_range_of_the_callers_own_is_refused(faults: FaultServer, name: str):
    with pytest.raises(ValueError, match="for a part of a body, use"):
        await streamed(faults.url, headers={name: "bytes=5-"})
    assert faults.requests == []


async def _await(opening: Any) -> None:
    await opening


async def _iterate(opening: Any) -> None:
    async for _ in opening:
        pytest.fail("nothing was opened")


async def _enter_at_once(opening: Any) -> None:
    with opening:
        pytest.fail("nothing was opened")


@pytest.mark.parametrize("use", [_await, _iterate, _enter_at_once])
async def test_what_is_not_opened_says_how_it_is_opened(faults: FaultServer, use: Callable[[Any], Awaitable[None]]):
    async with AsyncHTTPClient(faults.url) as client:
        for opening in (stream(faults.url), client.stream("/")):
            assert repr(opening) == "<a stream, to be opened by `async with`>"
            with pytest.raises(TypeError, match=r"a stream was not opened; write `async with stream\(url\) as body:`"):
                await use(opening)
            with pytest.raises(AttributeError, match=r"not opened has no read; .* and inside of it `body.read`"):
                opening.read  # type: ignore[attr-defined]  # noqa: B018
    assert not faults.requests


async def test_a_body_says_what_it_has(faults: FaultServer):
    url = faults.script("/file", answer(200, b"abc"))
    async with stream(url) as body:
        with pytest.raises(
            TypeError, match="takes no number of bytes, and gives all that was not read yet; for pieces"
        ):
            await body.read(10)  # type: ignore[arg-type]
        with pytest.raises(
            AttributeError, match=r"a BodyStream has no json; it has status, headers, size and read\(\)"
        ):
            body.json  # type: ignore[attr-defined]  # noqa: B018
        assert not hasattr(body, "iter_chunked")
        assert await body.read() == b"abc"


async def test_wrong_options_are_refused(faults: FaultServer):
    for body in ({"data": b"x"}, {"json": {}}):
        with pytest.raises(TypeError, match="has none; leave it out, or send the request by post"):
            await streamed(faults.url, **body)
    with pytest.raises(TypeError, match="int is no session; give an aiohttp"):
        await streamed(faults.url, session=123)
    with pytest.raises(TypeError, match="max_retry"):
        await streamed(faults.url, max_retry=3)
    assert faults.requests == []


# --- time -------------------------------------------------------------------------------------------------------------


def dripping(count: int, every: float) -> Step:
    async def step(connection: Connection) -> None:
        await connection.send(head(200, {"Content-Length": str(count)}))
        for _ in range(count):
            await asyncio.sleep(every)
            await connection.send(b"x")

    return step


async def test_a_timeout_bounds_each_wait_and_not_the_whole(faults: FaultServer):
    url = faults.script("/file", dripping(8, 0.05))
    assert await streamed(url, timeout=0.3, attempt_timeout=0.2) == (b"x" * 8, None)


async def test_so_does_the_total_of_a_session(faults: FaultServer):
    url = faults.script("/file", dripping(8, 0.05), dripping(8, 0.6))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.3)) as session:
        assert await streamed(url, session=session) == (b"x" * 8, None)
        _, error = await streamed(url, session=session, max_retries=1)
    assert isinstance(error, TimeoutError)


async def test_an_answer_that_does_not_come_is_bounded_by_it_too(faults: FaultServer):
    url = faults.script("/file", raw(b"", "stall"))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.1)) as session:
        with pytest.raises(TimeoutError):
            await streamed(url, session=session, max_retries=1)


async def test_a_total_of_0_is_none(faults: FaultServer):
    url = faults.script("/file", dripping(3, 0.02))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0)) as session:
        assert await streamed(url, session=session) == (b"xxx", None)


@pytest.mark.parametrize("bound", [{"timeout": 0.3}, {"attempt_timeout": 0.3, "max_retries": 1}])
async def test_the_headers_take_of_the_same_time(faults: FaultServer, bound: dict[str, float]):
    async def step(connection: Connection) -> None:
        await asyncio.sleep(0.2)
        await connection.send(head(200, {"Content-Length": "1"}))
        await asyncio.sleep(0.2)
        await connection.send(b"x")

    got, error = await streamed(faults.script("/file", step), **bound)
    assert got == b""
    assert isinstance(error, TimeoutError)


async def test_what_its_reader_takes_is_not_counted(faults: FaultServer, events: list[Any]):
    url = faults.script("/file", 503, a_file(cuts=(0, 1000)))
    async with stream(url, base_delay=0.01, timeout=0.5) as body:
        await asyncio.sleep(0.6)
        got = await anext(body)
        await asyncio.sleep(0.6)
        assert got + await body.read() == BODY
    assert [event.attempt for event in events] == [1, 2, 1]


async def test_a_wait_that_is_too_long_ends_it(faults: FaultServer, events: list[Any]):
    url = faults.script("/file", a_file(cuts=(1000,), end="stall"))
    got, error = await streamed(url, timeout=0.2)
    assert got == BODY[:1000]
    assert isinstance(error, TimeoutError)
    assert [event.reason for event in events] == ["timeout"]
    assert "gave up after 1 attempt in 0.2 s: TimeoutError" in error.__notes__[0]


# --- ends -------------------------------------------------------------------------------------------------------------


async def test_leaving_early_closes_the_connection(faults: FaultServer):
    url = faults.script("/file", a_file(cuts=(1000,), end="stall"))
    async with stream(url) as body:
        async for chunk in body:
            assert chunk == BODY[:1000]
            break
    await faults.all_closed()
    with pytest.raises(RuntimeError, match="the body is closed"):
        await anext(body)


async def test_a_closed_body_sends_nothing(faults: FaultServer, no_waits: list[float]):
    url = faults.script("/file", a_file(cuts=(1000,)))
    async with aiohttp.ClientSession() as session:
        async with stream(url, session=session) as body:
            assert await anext(body) == BODY[:1000]
            await faults.all_closed()
        with pytest.raises(RuntimeError, match="the body is closed"):
            await anext(body)
    assert len(faults.requests) == 1


async def test_a_task_that_still_reads_when_it_is_closed(faults: FaultServer):
    async def slow(connection: Connection) -> None:
        await asyncio.sleep(0.2)
        await a_file(cuts=(10,), end="stall")(connection)

    url = faults.script("/file", a_file(cuts=(1000,)), slow)
    async with aiohttp.ClientSession() as session:
        async with stream(url, session=session, base_delay=0) as body:
            await anext(body)
            late = asyncio.create_task(anext(body))
            while len(faults.requests) < 2:
                await asyncio.sleep(0.01)
            with pytest.raises(RuntimeError, match="another task is reading this body"):
                await anext(body)
        with pytest.raises(RuntimeError, match="the body is closed"):
            await late
        await faults.all_closed()


async def test_a_body_that_was_read_leaves_its_connection_to_others(faults: FaultServer):
    url = faults.script("/file", a_file())
    async with aiohttp.ClientSession() as session:
        for _ in range(3):
            assert await streamed(url, session=session) == (BODY, None)
    assert faults.connections == 1


@pytest.mark.parametrize("cuts", [(1000,), (1000, 0)])
async def test_cancellation_passes_through(faults: FaultServer, cuts: tuple[int, ...]):
    url = faults.script("/file", a_file(cuts=cuts, end="stall"))
    reading = asyncio.create_task(streamed(url, attempt_timeout=0.1 if len(cuts) > 1 else None, base_delay=0))
    async with asyncio.timeout(SOON):
        while len(faults.seen("/file")) < len(cuts):
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.03)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await faults.all_closed()


# --- with the rest of the policy --------------------------------------------------------------------------------------


async def test_a_budget_bounds_how_often_it_goes_on(faults: FaultServer, no_waits: list[float], events: list[Any]):
    url = faults.script("/file", a_file(cuts=(100, 100, 100)))
    got, error = await streamed(url, budget=RetryBudget(30, refund=1e-9))
    assert got == BODY[:300]
    assert isinstance(error, aiohttp.ClientPayloadError)
    assert events[-1].reason == "budget"


async def test_a_breaker_sees_the_requests_and_not_what_broke(faults: FaultServer, no_waits: list[float]):
    breaker = CircuitBreaker(min_attempts=2)
    assert await streamed(faults.script("/file", a_file(cuts=(100,) * 6)), breaker=breaker) == (BODY, None)
    assert breaker.state(faults.url) is State.CLOSED


async def test_to_a_breaker_an_answer_that_is_not_the_rest_is_an_answer(faults: FaultServer, no_waits: list[float]):
    breaker = CircuitBreaker(min_attempts=1, open_for=0.5)
    url = faults.script("/file", a_file(cuts=(1000,)), answer(200, BODY, {"ETag": '"v2"'}))
    async with stream(url, breaker=breaker) as body:
        await anext(body)
        breaker.leave(faults.url, breaker.enter(faults.url), failed=True)
        assert breaker.state(faults.url) is State.OPEN
        _, error = await read(body)  # The next attempt, 1 s later, is a probe.
    assert isinstance(error, aiohttp.ClientPayloadError)
    assert breaker.state(faults.url) is State.CLOSED


async def test_a_pause_holds_what_goes_on(faults: FaultServer, no_waits: list[float]):
    pause = OriginPause()
    async with stream(faults.script("/file", a_file(cuts=(1000,))), pause=pause) as body:
        pause.begin(faults.url, 5)
        assert await body.read() == BODY
    (wait,) = no_waits
    assert 5 <= wait <= 6.25


async def test_it_is_not_hedged(faults: FaultServer):
    async def slow(connection: Connection) -> None:
        await asyncio.sleep(0.1)
        await answer(200, BODY)(connection)

    url = faults.script("/file", slow)
    assert await streamed(url, hedge_after=0.01) == (BODY, None)
    async with AsyncHTTPClient(faults.url, hedge_after=0.01) as client, client.stream("/file") as body:
        assert await body.read() == BODY
    assert len(faults.requests) == 2


async def test_before_retry_runs_before_it_goes_on(faults: FaultServer, no_waits: list[float]):
    seen: list[RetryEvent] = []

    async def hook(event: RetryEvent) -> None:
        seen.append(event)

    url = faults.script("/file", a_file(cuts=(1000,)))
    assert await streamed(url, before_retry=hook) == (BODY, None)
    assert [event.exception for event in seen] == [aiohttp.ClientPayloadError]


async def test_what_a_policy_does_not_name_is_not_gone_on_with(faults: FaultServer, no_waits: list[float]):
    url = faults.script("/file", a_file(cuts=(1000,)))
    got, error = await streamed(url, exceptions=[TimeoutError])
    assert (got, type(error)) == (BODY[:1000], aiohttp.ClientPayloadError)
    assert not hasattr(error, "__notes__")
    assert len(faults.requests) == 1


# --- the client -------------------------------------------------------------------------------------------------------


async def test_a_client_streams_what_is_below_its_base(faults: FaultServer, no_waits: list[float], events: list[Any]):
    faults.script("/v1/file", a_file(cuts=(1000, 1000)))
    async with AsyncHTTPClient(f"{faults.url}/v1") as client:
        async with client.stream("/file", params={"a": "1"}, headers={"X-Token": "t"}) as body:
            assert await body.read() == BODY
        async with client.stream("file") as body:
            assert (body.status, body.size) == (200, len(BODY))
            assert await body.read() == BODY
        with pytest.raises(ValueError, match="could be read as the name of a server"):
            client.stream("//evil.example")
    assert {request.path for request in faults.requests} == {"/v1/file?a=1", "/v1/file"}
    assert [request.headers.get("X-Token") for request in faults.requests] == ["t", "t", "t", None]
    assert {event.call for event in events} == {"AsyncHTTPClient"}


async def test_the_timeout_of_a_client_bounds_each_wait(faults: FaultServer):
    faults.script("/file", dripping(8, 0.05))
    async with AsyncHTTPClient(faults.url, timeout=0.3) as client:
        async with client.stream("/file") as body:
            assert await body.read() == b"x" * 8
        async with client.stream("/file", timeout=aiohttp.ClientTimeout(total=0.2)) as body:
            assert await body.read() == b"x" * 8


@pytest.mark.parametrize("bound", [0.2, aiohttp.ClientTimeout(sock_read=0.2)])
async def test_a_body_that_stands_still(faults: FaultServer, bound: Any):
    faults.script("/file", a_file(cuts=(1000,), end="stall"))
    async with AsyncHTTPClient(faults.url, max_retries=1, timeout=bound) as client, client.stream("/file") as body:
        got, error = await read(body)
    assert got == BODY[:1000]
    assert isinstance(error, TimeoutError)


async def test_options_go_with_a_call(faults: FaultServer, no_waits: list[float]):
    faults.script("/file", 503, 503, 503, 503, a_file())
    async with AsyncHTTPClient(faults.url) as client, client.stream("/file", max_retries=5, base_delay=0.5) as body:
        assert await body.read() == BODY
    assert no_waits == [0.5, 1.0, 2.0, 4.0]
