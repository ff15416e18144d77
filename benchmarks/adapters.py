"""Each library as one function, so that all are called alike: three attempts, the same failures, no jitter, no log.

What is retried is what retrykit retries by default. Each library is used as its documentation has it, and called
without a layer that a user would not have.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

import backoff
import stamina
import stamina.instrumentation
import tenacity
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientResponseError, ClientSession
from aiohttp_retry import ExponentialRetry, RetryClient

import retrykit

STATUSES = retrykit.RetryPolicy().statuses
TRANSIENT = retrykit.TRANSIENT_ERRORS

TIMEOUT = 30.0
"""Seconds that a call may take, where it has a timeout at all."""

Fetch = Callable[[str], Coroutine[Any, Any, ClientResponse]]
"""What is to be retried: a coroutine function that takes a URL."""
Call = Callable[[str], Awaitable[ClientResponse]]
"""The same under retry."""
Adapt = Callable[[Fetch, float], Call]
"""Puts it under retry, with that many seconds between two attempts."""


def by_hand(fetch: Fetch, delay: float) -> Call:
    """What a careful user writes."""

    async def call(*args: Any, **kwargs: Any) -> ClientResponse:
        for attempt in range(1, 4):
            try:
                response = await fetch(*args, **kwargs)
            except TRANSIENT:
                if attempt == 3:
                    raise
            else:
                if response.status not in STATUSES:
                    return response
                if attempt == 3:
                    response.raise_for_status()
                response.release()
            await asyncio.sleep(delay * 2 ** (attempt - 1))
        raise AssertionError("the last attempt returns or raises")

    return call


def by_hand_in_time(fetch: Fetch, delay: float) -> Call:
    """What they write where a call has to end in time."""
    attempts = by_hand(fetch, delay)

    async def call(*args: Any, **kwargs: Any) -> ClientResponse:
        async with asyncio.timeout(TIMEOUT):
            return await attempts(*args, **kwargs)

    return call


def with_retrykit(fetch: Fetch, delay: float) -> Call:
    """The decorator. A delay of one second is its default."""
    return retrykit.retry_http(base_delay=delay)(fetch)


def with_retrykit_in_time(fetch: Fetch, delay: float) -> Call:
    """The decorator with a timeout."""
    return retrykit.retry_http(base_delay=delay, timeout=TIMEOUT)(fetch)


def with_retrykit_and_budget(fetch: Fetch, delay: float) -> Call:
    """The decorator with a budget of which something was taken, and which is not full again: a full one does less."""
    budget = retrykit.RetryBudget(refund=1e-9)
    budget.spend()
    return retrykit.retry_http(base_delay=delay, budget=budget)(fetch)


def with_backoff(fetch: Fetch, delay: float) -> Call:
    """Two decorators: one looks at what is raised, the other at what is returned."""
    waits: dict[str, Any] = {"interval": delay, "jitter": None, "max_tries": 3, "logger": None}
    by_exception = backoff.on_exception(backoff.constant, TRANSIENT, **waits)
    by_result = backoff.on_predicate(backoff.constant, _is_retriable, **waits)
    return by_result(by_exception(fetch))


def with_aiohttp_retry(fetch: Fetch, delay: float) -> Call:
    """A client, around what it takes for a session."""
    session = cast(ClientSession, _Session(fetch))
    return RetryClient(session, retry_options=aiohttp_retry_options(delay)).get


class _Session:
    """As much of a session as `aiohttp_retry` needs."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    def request(self, _method: str, url: str, **_options: object) -> Awaitable[ClientResponse]:
        return self._fetch(url)


def aiohttp_retry_options(delay: float) -> ExponentialRetry:
    """The options that are the same as everybody's."""
    return ExponentialRetry(
        attempts=3,
        start_timeout=delay,
        max_timeout=delay,
        factor=1,
        statuses=set(STATUSES),
        exceptions=set(TRANSIENT),
        retry_all_server_errors=False,
    )


def with_stamina(fetch: Fetch, delay: float) -> Call:
    """The decorator. It sees exceptions only, so the coroutine raises what the others read off the response."""
    stamina.instrumentation.set_on_retry_hooks([])  # By default, it logs every retry.

    async def checked(url: str) -> ClientResponse:
        response = await fetch(url)
        if response.status in STATUSES:
            response.raise_for_status()
        return response

    waits: dict[str, Any] = {"wait_initial": delay, "wait_max": delay, "wait_exp_base": 1, "wait_jitter": 0}
    return stamina.retry(on=_is_transient, attempts=3, timeout=None, **waits)(checked)


def with_tenacity(fetch: Fetch, delay: float) -> Call:
    """The decorator."""
    by_exception = tenacity.retry_if_exception_type(TRANSIENT)
    return tenacity.retry(
        retry=by_exception | tenacity.retry_if_result(_is_retriable),
        stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_fixed(delay),
        reraise=True,
    )(fetch)


def _is_retriable(response: ClientResponse) -> bool:
    return response.status in STATUSES


def _is_transient(error: Exception) -> bool:
    if isinstance(error, ClientResponseError):
        return error.status in STATUSES
    return isinstance(error, TRANSIENT)


async def example_middleware(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """As in aiohttp's examples: it goes by the status alone, and leaves the response that it discards as it is."""
    for _ in range(2):
        response = await handler(request)
        if response.status not in STATUSES:
            return response
        await asyncio.sleep(0)
    return await handler(request)


LIBRARIES: dict[str, Adapt] = {
    "retry_http": with_retrykit,
    "backoff": with_backoff,
    "aiohttp_retry": with_aiohttp_retry,
    "stamina": with_stamina,
    "tenacity": with_tenacity,
}
