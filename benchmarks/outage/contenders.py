"""Who sends the requests: no retry at all, retrykit with and without its guards, and others.

Where they can be set up alike they are: four attempts, waits that begin with half a second and double. stamina is left
as it comes, since its defaults are what it is for.
"""

from collections.abc import Awaitable, Callable

import stamina
import stamina.instrumentation
from aiohttp import ClientResponse, ClientResponseError, ClientSession
from aiohttp_retry import ExponentialRetry, RetryClient

import retrykit
from retrykit import CircuitBreaker, RetryBudget, RetryPolicy

ATTEMPTS = 4
BASE_DELAY = 0.5

RESERVE = 40
"""Of the budget: under a tenth of the calls in the outage, of which there are 800."""

NO_RETRY = "no retry"
EXPONENTIAL = "retrykit, exponential"
FULL_JITTER = "retrykit, full jitter"
BUDGET = "retrykit, budget"
BREAKER = "retrykit, budget and breaker"
AIOHTTP_RETRY = "aiohttp_retry"
STAMINA = "stamina"

Get = Callable[[str], Awaitable[ClientResponse]]
"""Fetches a URL, with what retries there are. It returns the last response, or raises."""
Contender = Callable[[ClientSession], Get]
"""Makes that for a session, with a budget of its own."""


def _exponential() -> RetryPolicy:
    return RetryPolicy(max_retries=ATTEMPTS, base_delay=BASE_DELAY)


def _full_jitter() -> RetryPolicy:
    return _exponential().replace(jitter="full")


def _budget() -> RetryPolicy:
    return _full_jitter().replace(budget=RetryBudget.ratio(0.1, reserve=RESERVE))


def _breaker() -> RetryPolicy:
    # It sees an outage within a second, and the end of one as well.
    return _budget().replace(breaker=CircuitBreaker(window=2, open_for=1))


POLICIES: dict[str, Callable[[], RetryPolicy]] = {
    NO_RETRY: lambda: RetryPolicy(max_retries=1),
    EXPONENTIAL: _exponential,
    FULL_JITTER: _full_jitter,
    BUDGET: _budget,
    BREAKER: _breaker,
}
"""Those that the simulation knows, too."""


def _plain(session: ClientSession) -> Get:
    async def fetch(url: str) -> ClientResponse:
        return await session.get(url)

    return fetch


def with_policy(policy: RetryPolicy, session: ClientSession) -> Get:
    """By the decorator."""
    return retrykit.retry_http(policy=policy)(_plain(session))


def _retrykit(name: str) -> Contender:
    return lambda session: with_policy(POLICIES[name](), session)


def _aiohttp_retry(session: ClientSession) -> Get:
    options = ExponentialRetry(
        attempts=ATTEMPTS,
        start_timeout=BASE_DELAY / 2,  # It doubles before the first wait.
        statuses=set(RetryPolicy().statuses),
        exceptions=set(retrykit.TRANSIENT_ERRORS),
        retry_all_server_errors=False,
    )
    return RetryClient(session, retry_options=options).get


def _stamina(session: ClientSession) -> Get:
    stamina.instrumentation.set_on_retry_hooks([])  # By default, it logs every retry.

    async def checked(url: str) -> ClientResponse:
        response = await session.get(url)
        response.raise_for_status()
        return response

    return stamina.retry(on=_is_transient)(checked)


def _is_transient(error: Exception) -> bool:
    if isinstance(error, ClientResponseError):
        return error.status in RetryPolicy().statuses
    return isinstance(error, retrykit.TRANSIENT_ERRORS)


CONTENDERS: dict[str, Contender] = {
    NO_RETRY: _plain,
    **{name: _retrykit(name) for name in POLICIES if name != NO_RETRY},
    AIOHTTP_RETRY: _aiohttp_retry,
    STAMINA: _stamina,
}
