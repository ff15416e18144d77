"""A retried call inside of a retried call multiplies their attempts, which one warning reports."""

import asyncio
import warnings

import aiohttp
import pytest

from retrykit import AsyncHTTPClient, GiveUpError, RetryMiddleware, StackedRetriesWarning, retry_http
from tests.faults import CLOSE, answer


def warned(recwarn):
    return [str(warning.message) for warning in recwarn if warning.category is StackedRetriesWarning]


@pytest.fixture
def recwarn(recwarn):
    warnings.simplefilter("always")
    return recwarn


async def test_one_warning_names_both_places(no_waits, recwarn):
    @retry_http(max_retries=2)
    async def near_the_request():
        raise TimeoutError

    @retry_http(max_retries=3)
    async def far_from_it():
        await near_the_request()

    for _ in range(3):
        with pytest.raises(TimeoutError):
            await far_from_it()
    (text,) = warned(recwarn)
    module = __name__
    assert [warning.filename for warning in recwarn] == [__file__]
    assert text.startswith(
        f"{module}.far_from_it retries {module}.near_the_request, which had made 2 attempts by itself"
    )


async def test_each_pair_has_its_own(no_waits, recwarn):
    async def fail():
        raise TimeoutError

    def named(name, inner):
        async def call():
            await inner()

        call.__name__ = call.__qualname__ = name
        return retry_http(max_retries=2)(call)

    one, two = named("pair_one", fail), named("pair_two", fail)
    for outer in (named("pair_a", one), named("pair_b", one), named("pair_a", two)):
        with pytest.raises(TimeoutError):
            await outer()
    assert len(warned(recwarn)) == 3


async def test_a_response_and_what_it_was_raised_as(faults, no_waits, recwarn):
    url = faults.script("/x", 503)
    async with aiohttp.ClientSession() as session:
        get = retry_http(max_retries=2, on_give_up="return")(session.get)

        @retry_http(max_retries=2)
        async def around_a_response():
            return await get(url)

        @retry_http(max_retries=2, exceptions=(ConnectionError,))
        async def around_another_exception():
            try:
                await get.retry_with(on_give_up="raise")(url)
            except GiveUpError as error:
                raise ConnectionError from error

        with pytest.raises(GiveUpError):
            await around_a_response()
        with pytest.raises(ConnectionError):
            await around_another_exception()
    assert len(warned(recwarn)) == 2


async def test_a_client_or_middleware_inside(faults, no_waits, recwarn):
    url = faults.script("/x", CLOSE)
    async with (
        AsyncHTTPClient(faults.url) as client,
        aiohttp.ClientSession(middlewares=[RetryMiddleware()]) as session,
    ):
        for name, send in (("a_client", lambda: client.get("/x")), ("a_session", lambda: session.get(url))):

            async def call(send=send):
                await send()

            call.__name__ = call.__qualname__ = name
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await retry_http(max_retries=2)(call)()
    first, second = warned(recwarn)
    assert "a_client retries AsyncHTTPClient, which had made 3 attempts" in first
    assert "a_session retries RetryMiddleware, which had made 3 attempts" in second


@pytest.mark.parametrize("raising", [False, True])
async def test_a_status_that_was_raised(faults, no_waits, recwarn, raising):
    url = faults.script("/x", 503)
    async with aiohttp.ClientSession(middlewares=[RetryMiddleware()], raise_for_status=raising) as session:

        async def call():
            async with session.get(url) as response:
                response.raise_for_status()

        call.__name__ = call.__qualname__ = f"raising_{raising}"
        with pytest.raises(aiohttp.ClientResponseError):
            await retry_http(max_retries=2)(call)()
    (text,) = warned(recwarn)
    assert f"raising_{raising} retries RetryMiddleware, which had made 3 attempts" in text


async def test_a_client_around_a_middleware(faults, no_waits, recwarn):
    faults.script("/x", 503)
    async with aiohttp.ClientSession(middlewares=[RetryMiddleware()]) as session:

        class Around(AsyncHTTPClient):
            pass

        with pytest.raises(GiveUpError):
            await Around(faults.url, session=session).get("/x")
    (text,) = warned(recwarn)
    assert text.startswith("Around retries RetryMiddleware")
    assert [warning.filename for warning in recwarn] == [__file__]


async def test_an_inner_success_gives_none(faults, no_waits, recwarn):
    url = faults.script("/x", *[503, answer(202)] * 3)
    async with aiohttp.ClientSession(middlewares=[RetryMiddleware()]) as session:
        poll = retry_http(retry_if=lambda response: response.status == 202, on_give_up="return")(session.get)
        async with await poll(url) as response:
            assert response.status == 202
    assert len(faults.seen("/x")) == 6
    assert warned(recwarn) == []


async def test_tasks_of_their_own_do_not_hide_it(no_waits, recwarn):
    @retry_http(max_retries=2)
    async def in_a_task():
        raise TimeoutError

    @retry_http(max_retries=2)
    async def around_a_task():
        await asyncio.gather(in_a_task())

    with pytest.raises(TimeoutError):
        await around_a_task()
    assert len(warned(recwarn)) == 1


async def test_calls_that_do_not_multiply_give_none(faults, no_waits, recwarn):
    url = faults.script("/x", 503, answer(200), answer(200))
    error = TimeoutError()

    @retry_http(max_retries=2)
    async def inner():
        raise error

    @retry_http(max_retries=1)
    async def once():
        raise TimeoutError

    @retry_http(max_retries=2)
    async def around_one_attempt():
        await once()

    @retry_http(max_retries=3)
    async def raises_what_another_call_had_raised():
        raise error

    @retry_http(max_retries=2)
    async def around_a_success():
        async with AsyncHTTPClient(faults.url) as client:
            await client.request("GET", url)
        raise TimeoutError

    @retry_http(max_retries=1)
    async def around_without_retrying():
        await inner()

    for call in (
        around_without_retrying,
        inner,
        raises_what_another_call_had_raised,
        around_one_attempt,
        around_a_success,
    ):
        with pytest.raises(TimeoutError):
            await call()
    assert warned(recwarn) == []


async def test_a_ring_of_causes_ends(no_waits):
    @retry_http(max_retries=2)
    async def fail():
        one, two = TimeoutError(), ValueError()
        one.__cause__, two.__cause__ = two, one
        raise one

    with pytest.raises(TimeoutError):
        await fail()
