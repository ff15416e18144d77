"""The libraries that are compared, each set up as its own documentation shows it, and each behind the same function."""

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import aiohttp
import aiohttp_retry
import backoff
import httpx
import httpx_retries
import stamina
import stamina.instrumentation
import tenacity
from yarl import URL

import retrykit

Send = Callable[..., Awaitable[bytes]]
"""`send(method, url, data=None)` gives the body of a success; what is left of a failure is raised."""

STATUSES = retrykit.RetryPolicy().statuses
PENDING = b"pending"
"""A body that says that there is none yet."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How a library is set up. What is `None` is left to its default."""

    attempts: int | None = 3
    delay: float | None = 0.0
    """Seconds between two attempts, always the same."""
    rule: Literal["usual", "by status", "anything but ValueError"] = "usual"
    """What is retried. Usual is the default; where there is none, `aiohttp.ClientError` and `TimeoutError`. By status
    is for those that have no default: a function that wants the statuses that retrykit has."""
    lost: bool = False
    """Is it told to retry lost connections? For `aiohttp_retry`, which has to be."""
    pending: bool = False
    """Is it told to retry what is `PENDING`?"""
    retry_after: bool = False
    """Is it given a function that reads Retry-After?"""
    deadline: float | None = None
    """What comes nearest to a bound of the whole call, in seconds."""
    read_timeout: float | None = None
    """Of one attempt, by the HTTP client."""
    connections: int = 100
    """How many the pool may have."""
    log: bool = False
    """Is it told to log? For tenacity, which has to be."""
    whole: bool = False
    """Is the body to be read within an attempt? For httpx-retries, which has a function for that."""
    jitter: bool = False
    """Exponential waits from 1 s on, jitter, and no wait above 1 s."""


# --- what a user writes for those that know no HTTP -------------------------------------------------------------------

NETWORK = (aiohttp.ClientError, TimeoutError)


def has_status(error: BaseException) -> bool:
    return isinstance(error, aiohttp.ClientResponseError) and error.status in STATUSES


def is_no_value_error(error: BaseException) -> bool:
    return not isinstance(error, ValueError)


class NotReadyError(Exception):
    """For those that look at exceptions only."""


def asked_wait(failed: Any) -> float:
    """The seconds of the Retry-After that came with an exception or a response."""
    value = (getattr(failed, "headers", None) or {}).get("Retry-After", "0")
    if value.isdigit():
        return float(value)
    return (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()


def reading(session: aiohttp.ClientSession) -> Send:
    """The coroutine that is decorated."""

    async def send(method: str, url: str, data: Any = None) -> bytes:
        async with session.request(method, url, data=data) as response:
            response.raise_for_status()
            return await response.read()

    return send


@contextlib.asynccontextmanager
async def opened_session(setup: Setup) -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(sock_read=setup.read_timeout, connect=1)
    connector = aiohttp.TCPConnector(limit=setup.connections)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield session


# --- retrykit ---------------------------------------------------------------------------------------------------------


def retrykit_options(setup: Setup) -> dict[str, Any]:
    options: dict[str, Any] = {"timeout": setup.deadline}
    if setup.attempts is not None:
        options["max_retries"] = setup.attempts
    if setup.jitter:
        options.update(base_delay=1.0, max_delay=1.0, jitter="full")
    elif setup.delay is not None:
        options.update(base_delay=setup.delay, max_delay=max(setup.delay, 60))
    if setup.pending:
        options["retry_if"] = lambda outcome: outcome == PENDING
    elif setup.rule == "anything but ValueError":
        options["retry_if"] = lambda outcome: isinstance(outcome, BaseException) and is_no_value_error(outcome)
    return options


@contextlib.asynccontextmanager
async def opened_decorator(setup: Setup) -> AsyncIterator[Send]:
    async with opened_session(setup) as session:
        yield retrykit.retry_http(**retrykit_options(setup))(reading(session))


@contextlib.asynccontextmanager
async def opened_client(setup: Setup) -> AsyncIterator[Send]:
    async with opened_session(setup) as session:

        async def send(method: str, url: str, data: Any = None) -> bytes:
            origin = str(URL(url).origin())
            client = retrykit.AsyncHTTPClient(origin, session=session, **retrykit_options(setup))
            if method == "GET":
                return await client.get_bytes(url)
            async with client.request(method, url, data=data) as response:
                response.raise_for_status()
                return await response.read()

        yield send


# --- aiohttp_retry ----------------------------------------------------------------------------------------------------


class ObedientRetry(aiohttp_retry.ExponentialRetry):
    """`get_timeout` is what its documentation has one override."""

    def get_timeout(self, attempt: int, response: aiohttp.ClientResponse | None = None) -> float:
        return asked_wait(response)


async def is_ready(response: aiohttp.ClientResponse) -> bool:
    return await response.read() != PENDING


def aiohttp_retry_options(setup: Setup) -> aiohttp_retry.ExponentialRetry:
    options: dict[str, Any] = {}
    if setup.attempts is not None:
        options["attempts"] = setup.attempts
    if setup.delay is not None:
        options.update(start_timeout=setup.delay, max_timeout=setup.delay, factor=1)
    if setup.lost:
        options["exceptions"] = set(NETWORK)
    if setup.rule == "anything but ValueError":
        options["exceptions"] = {Exception}
    if setup.pending:
        options["evaluate_response_callback"] = is_ready
    if setup.jitter:
        return aiohttp_retry.JitterRetry(attempts=setup.attempts or 3, start_timeout=1, max_timeout=1)
    return (ObedientRetry if setup.retry_after else aiohttp_retry.ExponentialRetry)(**options)


@contextlib.asynccontextmanager
async def opened_aiohttp_retry(setup: Setup) -> AsyncIterator[Send]:
    async with opened_session(setup) as session:
        client = aiohttp_retry.RetryClient(session, retry_options=aiohttp_retry_options(setup))

        async def send(method: str, url: str, data: Any = None) -> bytes:
            async with client.request(method, url, data=data) as response:
                response.raise_for_status()
                return await response.read()

        yield send


# --- tenacity ---------------------------------------------------------------------------------------------------------


def tenacity_options(setup: Setup) -> dict[str, Any]:
    retries: dict[str, Any] = {
        "usual": tenacity.retry_if_exception_type(NETWORK),
        "by status": tenacity.retry_if_exception(has_status),
        "anything but ValueError": tenacity.retry_if_not_exception_type(ValueError),
    }
    options: dict[str, Any] = {"retry": retries[setup.rule], "reraise": True}
    if setup.pending:
        options["retry"] = tenacity.retry_if_result(lambda body: body == PENDING)
    if setup.attempts is not None:
        options["stop"] = tenacity.stop_after_attempt(setup.attempts)
        if setup.deadline is not None:
            options["stop"] |= tenacity.stop_before_delay(setup.deadline)
    if setup.log:
        options["before_sleep"] = tenacity.before_sleep_log(logging.getLogger("tenacity"), logging.INFO)
    if setup.retry_after:
        options["wait"] = lambda state: asked_wait(state.outcome.exception())
    elif setup.jitter:
        options["wait"] = tenacity.wait_random_exponential(multiplier=1, max=1)
    elif setup.delay is not None:
        options["wait"] = tenacity.wait_fixed(setup.delay)
    return options


@contextlib.asynccontextmanager
async def opened_tenacity(setup: Setup) -> AsyncIterator[Send]:
    async with opened_session(setup) as session:
        yield tenacity.retry(**tenacity_options(setup))(reading(session))


# --- stamina ----------------------------------------------------------------------------------------------------------


def stamina_options(setup: Setup) -> dict[str, Any]:
    rules: dict[str, Any] = {"usual": NETWORK, "by status": has_status, "anything but ValueError": is_no_value_error}
    options: dict[str, Any] = {"on": asked_wait if setup.retry_after else rules[setup.rule]}
    if setup.attempts is not None:
        options.update(attempts=setup.attempts, timeout=setup.deadline)
    if setup.jitter:
        options.update(wait_initial=1, wait_max=1, wait_jitter=1)
    elif setup.delay is not None:
        options.update(wait_initial=setup.delay, wait_max=setup.delay, wait_jitter=0, wait_exp_base=1)
    if setup.pending:
        options["on"] = NotReadyError
    return options


@contextlib.asynccontextmanager
async def opened_stamina(setup: Setup) -> AsyncIterator[Send]:
    async with opened_session(setup) as session:
        send = reading(session)

        async def send_or_raise(method: str, url: str, data: Any = None) -> bytes:
            body = await send(method, url, data)
            if setup.pending and body == PENDING:
                raise NotReadyError
            return body

        yield stamina.retry(**stamina_options(setup))(send_or_raise)


# --- backoff ----------------------------------------------------------------------------------------------------------


def backoff_options(setup: Setup) -> dict[str, Any]:
    options: dict[str, Any] = {"wait_gen": backoff.expo}
    if setup.attempts is not None:
        options.update(max_tries=setup.attempts, max_time=setup.deadline)
    if setup.retry_after:
        options.update(wait_gen=backoff.runtime, value=asked_wait, jitter=None)
    elif setup.jitter:
        options.update(max_value=1)
    elif setup.delay is not None:
        options.update(wait_gen=backoff.constant, interval=setup.delay, jitter=None)
    return options


@contextlib.asynccontextmanager
async def opened_backoff(setup: Setup) -> AsyncIterator[Send]:
    rules: dict[str, Any] = {
        "usual": {"exception": NETWORK},
        "by status": {"exception": NETWORK, "giveup": lambda error: not has_status(error)},
        "anything but ValueError": {"exception": Exception, "giveup": lambda error: isinstance(error, ValueError)},
    }
    async with opened_session(setup) as session:
        if setup.pending:
            decorated = backoff.on_predicate(predicate=lambda body: body == PENDING, **backoff_options(setup))
        else:
            decorated = backoff.on_exception(**rules[setup.rule], **backoff_options(setup))
        yield decorated(reading(session))


# --- httpx-retries ----------------------------------------------------------------------------------------------------


async def refuse_pending(response: httpx.Response) -> None:
    if await response.aread() == PENDING:
        raise NotReadyError


def httpx_retry(setup: Setup) -> httpx_retries.Retry:
    options: dict[str, Any] = {"total_timeout": setup.deadline}
    if setup.attempts is not None:
        options["total"] = setup.attempts - 1
    if setup.jitter:
        options.update(backoff_factor=1, max_backoff_wait=1)
    elif setup.delay:
        options.update(backoff_factor=setup.delay, max_backoff_wait=setup.delay, backoff_jitter=0)
    if setup.rule == "anything but ValueError":
        options["retry_on_exceptions"] = [Exception]
    if setup.pending:
        options.update(validate_response=refuse_pending, retry_on_exceptions=[NotReadyError])
    return httpx_retries.Retry(**options)


@contextlib.asynccontextmanager
async def opened_httpx_retries(setup: Setup) -> AsyncIterator[Send]:
    retry, limits = httpx_retry(setup), httpx.Limits(max_connections=setup.connections)
    transport: httpx.AsyncBaseTransport = httpx.AsyncHTTPTransport(limits=limits, trust_env=False)
    if not setup.whole:
        transport = httpx_retries.RetryTransport(transport, retry)
    timeout = httpx.Timeout(1, read=setup.read_timeout)
    async with httpx.AsyncClient(transport=transport, timeout=timeout, trust_env=False) as client:

        async def send(method: str, url: str, data: Any = None) -> bytes:
            if setup.whole:
                return (await httpx_retries.aretry_request(client, method, url, retry=retry)).content
            # httpx takes an open file as a part of a form.
            body: dict[str, Any] = {"files": {"file": data}} if hasattr(data, "read") else {"content": data}
            response = await client.request(method, url, **body)
            response.raise_for_status()
            return response.content

        yield send


@contextlib.contextmanager
def default_hooks_of_stamina() -> Iterator[None]:
    """Those that it has where neither structlog nor prometheus_client is installed."""
    before = stamina.instrumentation.get_on_retry_hooks()
    stamina.instrumentation.set_on_retry_hooks([stamina.instrumentation.LoggingOnRetryHook])
    try:
        yield
    finally:
        stamina.instrumentation.set_on_retry_hooks(before)


Open = Callable[[Setup], contextlib.AbstractAsyncContextManager[Send]]

SUBJECTS: dict[str, Open] = {
    "decorator": opened_decorator,
    "client": opened_client,
    "aiohttp_retry": opened_aiohttp_retry,
    "tenacity": opened_tenacity,
    "stamina": opened_stamina,
    "backoff": opened_backoff,
    "httpx-retries": opened_httpx_retries,
}
"""The columns of the tables; the first two are `retry_http` and `AsyncHTTPClient`."""
