"""What type checkers must see in retrykit. `test_types.py` hands this file to mypy and pyright; nothing here is run."""

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, Protocol, TypeVar, assert_type

import tenacity
from aiohttp import ClientResponse, ClientSession, ClientTimeout
from yarl import URL

import retrykit.redis
from retrykit import (
    TRANSIENT_ERRORS,
    AsyncHTTPClient,
    Attempt,
    Breaker,
    Budget,
    CircuitBreaker,
    FetchAll,
    Fetched,
    GiveUpError,
    LatencyQuantile,
    OriginPause,
    Pause,
    RetryBudget,
    RetryEvent,
    RetryMiddleware,
    RetryPolicy,
    attempt_number,
    attempts_of,
    fetch_all,
    fetch_bytes,
    fetch_json,
    fetch_text,
    get,
    post,
    retry_http,
)

T = TypeVar("T")


# --- coroutine functions ----------------------------------------------------------------------------------------------


@retry_http
async def bare(session: ClientSession, user_id: int, *, fields: str, verbose: bool = False) -> str:
    """Decorated without options."""
    async with session.get(f"https://api.example.com/users/{user_id}") as response:
        return await response.text()


@retry_http(max_retries=3, base_delay=timedelta(seconds=1), jitter="full", statuses={429, 503})
async def with_options(session: ClientSession, user_id: int, *, fields: str, verbose: bool = False) -> str:
    """Decorated with options."""
    return await bare(session, user_id, fields=fields, verbose=verbose)


@retry_http(policy=RetryPolicy(max_retries=2), timeout=30)
async def with_policy(session: ClientSession, user_id: int, *, fields: str, verbose: bool = False) -> str:
    """Decorated with a policy and options."""
    return await bare(session, user_id, fields=fields, verbose=verbose)


class GetUser(Protocol):
    """The signature of the three, as it was before they were decorated."""

    def __call__(
        self, session: ClientSession, user_id: int, *, fields: str, verbose: bool = False
    ) -> Coroutine[Any, Any, str]: ...


async def functions_keep_their_signature(session: ClientSession) -> None:
    kept: list[GetUser] = [bare, with_options, with_policy]
    assert_type(await kept[0](session, 1, fields="name"), str)
    await assert_type(bare(session, 1, fields="name"), Coroutine[Any, Any, str])
    assert_type(await bare(session, 1, fields="name"), str)
    assert_type(await with_options(session, user_id=1, fields="name", verbose=True), str)
    assert_type(await with_policy(session=session, user_id=1, fields="name"), str)


@retry_http
async def first(items: Sequence[T], default: T) -> T:
    """A generic function."""
    return items[0] if items else default


@retry_http(max_retries=2)
async def parsed(path: str, model: Callable[[bytes], T]) -> T:
    """Another one."""
    return model(await fetch_bytes(path))


async def generic_functions_stay_generic() -> None:
    assert_type(await first([1, 2], 0), int)
    assert_type(await first(("a", "b"), default="c"), str)
    assert_type(await parsed("/a", bytes.decode), str)


async def attributes_are_typed(session: ClientSession) -> None:
    assert_type(bare.policy, RetryPolicy)
    assert_type(bare.__name__, str)
    changed: GetUser = bare.retry_with(max_retries=5, base_delay=0.5)
    replaced: GetUser = bare.retry_with(policy=RetryPolicy(), timeout=None).retry_with(max_retries=1)
    assert_type(await changed(session, 1, fields="name"), str)
    assert_type(await replaced(session, 1, fields="name"), str)
    assert_type(bare.retry_with(max_retries=5).policy, RetryPolicy)
    assert_type(await bare.__wrapped__(session, 1, fields="name"), str)


async def whatever_is_called_and_awaited_can_be_decorated(session: ClientSession) -> None:
    assert_type(await retry_http()(session.get)("https://example.com", params={"a": "b"}), ClientResponse)
    assert_type(await retry_http(session.post)("https://example.com", json={}), ClientResponse)
    of_this_session = functools.partial(bare, session, fields="name")
    assert_type(await of_this_session(1), str)
    assert_type(await retry_http(of_this_session)(1), str)
    assert_type(await retry_http(max_retries=2)(of_this_session)(user_id=1), str)


# --- methods ----------------------------------------------------------------------------------------------------------


class Service:
    """Every kind of method, bare and with options."""

    @retry_http
    async def bare(self, user_id: int, *, verbose: bool = False) -> str:
        return f"{user_id} {verbose}"

    @retry_http(max_retries=3)
    async def with_options(self, user_id: int, *, verbose: bool = False) -> str:
        return await self.bare(user_id, verbose=verbose)

    @retry_http
    async def generic(self, path: str, model: Callable[[bytes], T]) -> T:
        return model(path.encode())

    @staticmethod
    @retry_http
    async def static(user_id: int, *, verbose: bool = False) -> str:
        return f"{user_id} {verbose}"

    @retry_http(max_retries=3)
    @staticmethod
    async def static_inside(user_id: int, *, verbose: bool = False) -> str:
        return f"{user_id} {verbose}"

    @staticmethod
    @retry_http
    async def static_alone() -> str:
        return ""

    @classmethod
    @retry_http
    async def of_class(cls, user_id: int, *, verbose: bool = False) -> str:
        return f"{cls} {user_id} {verbose}"

    @retry_http(max_retries=3)
    @classmethod
    async def of_class_inside(cls, user_id: int, *, verbose: bool = False) -> str:
        return f"{cls} {user_id} {verbose}"


class SpecialService(Service):
    """A subclass."""

    @retry_http
    async def more(self, user_id: int) -> str:
        return await super().bare(user_id)


Bound = Callable[[int], Coroutine[Any, Any, str]]


async def methods_are_bound(service: Service) -> None:
    bound: list[Bound] = [service.bare, service.with_options, service.of_class, service.of_class_inside]
    assert_type(await bound[0](1), str)
    assert_type(await service.bare(1), str)
    assert_type(await service.bare(user_id=1, verbose=True), str)
    assert_type(await service.generic("/a", model=bytes.decode), str)
    assert_type(await SpecialService().bare(1, verbose=True), str)
    assert_type(await SpecialService().more(1), str)


async def methods_are_functions_of_their_class(service: Service) -> None:
    assert_type(await Service.bare(service, 1), str)
    assert_type(await Service.with_options(service, user_id=1, verbose=True), str)
    assert_type(await Service.with_options.retry_with(max_retries=1)(service, 1), str)
    assert_type(Service.bare.policy, RetryPolicy)


async def class_methods_are_bound_to_the_class(service: Service) -> None:
    assert_type(await Service.of_class(1, verbose=True), str)
    assert_type(await Service.of_class_inside(user_id=1), str)
    assert_type(await SpecialService.of_class(1), str)
    assert_type(await service.of_class(1, verbose=True), str)
    assert_type(await service.of_class_inside(user_id=1), str)


async def static_methods_are_not_bound(service: Service) -> None:
    unbound: list[Bound] = [Service.static, Service.static_inside, SpecialService.static]
    assert_type(await unbound[0](1), str)
    assert_type(await Service.static(1, verbose=True), str)
    assert_type(await Service.static_inside(user_id=1), str)
    assert_type(await Service.static_alone(), str)
    assert_type(await service.static_alone(), str)


# --- ready-made -------------------------------------------------------------------------------------------------------


async def refresh(event: RetryEvent) -> None:
    """A hook."""
    assert_type(event.delay, float)


def policies() -> None:
    policy = RetryPolicy(
        max_retries=5,
        base_delay=0.5,
        max_delay=timedelta(minutes=1),
        jitter="decorrelated",
        stop=tenacity.stop_after_delay(30),
        statuses=[429, 503],
        exceptions=(*TRANSIENT_ERRORS, KeyError),
        retry_if=lambda outcome: outcome is None,
        max_retry_after=10,
        timeout=None,
        attempt_timeout=3,
        before_retry=refresh,
        on_give_up="return",
        idempotent=True,
    )
    assert_type(policy, RetryPolicy)
    assert_type(policy.replace(wait=tenacity.wait_fixed(2), retry_if=tenacity.retry_if_result(bool)), RetryPolicy)
    assert_type(policy.replace(wait=lambda state: 2.0 * state.attempt_number), RetryPolicy)
    assert_type(policy.max_retries, int)
    assert_type(policy.base_delay, float)
    assert_type(policy.timeout, float | None)
    assert_type(policy.statuses, frozenset[int])


async def helpers(session: ClientSession) -> None:
    assert_type(await get(session, "https://example.com"), ClientResponse)
    assert_type(await post(session, "https://example.com", data=b"", idempotent=True), ClientResponse)
    assert_type(await fetch_json("https://example.com"), Any)
    assert_type(await fetch_text("https://example.com", session=session, max_retries=5), str)
    assert_type(await fetch_bytes("https://example.com", timeout=ClientTimeout(sock_read=1), params={"a": 1}), bytes)
    assert_type(await fetch_text.retry_with(max_retries=5)("https://example.com"), str)
    assert_type(fetch_text.policy, RetryPolicy)


async def client() -> None:
    async with AsyncHTTPClient("https://example.com", 3, 1.0, 30, policy=RetryPolicy(), max_delay=10) as opened:
        assert_type(opened, AsyncHTTPClient)
        assert_type(opened.policy, RetryPolicy)
        assert_type(opened.timeout, ClientTimeout)
        assert_type(opened.session, ClientSession | None)
        assert_type(await opened.get("/a", params={"a": "b"}, timeout=3, jitter="full"), Any)
        assert_type(await opened.get_text("/a", headers={"a": "b"}, max_retries=5), str)
        assert_type(await opened.get_bytes("/a", policy=RetryPolicy()), bytes)
        assert_type(await opened.post("/a", {"a": 1}), Any)
        assert_type(await opened.post("/a", lambda: b"a", idempotency_key=True), Any)
        assert_type(await opened.patch("/a", b"a", idempotency_key="key", upload_tracker=object), Any)
        assert_type(await opened.request("GET", "/a"), ClientResponse)
        async with opened.request("GET", "/a", timeout=ClientTimeout(total=1)) as response:
            assert_type(response, ClientResponse)


async def middleware() -> None:
    retries = RetryMiddleware(RetryPolicy(), max_retries=2)
    assert_type(retries.policy, RetryPolicy)
    async with ClientSession(middlewares=[retries]) as session, session.get("/a", middlewares=[retries]) as response:
        assert_type(response, ClientResponse)
    AsyncHTTPClient("https://example.com", idempotency_key=True)


def outcomes(error: GiveUpError) -> None:
    assert_type(error.attempts, tuple[Attempt, ...])
    assert_type(attempts_of(error), tuple[Attempt, ...])
    assert_type(error.body, bytes)
    assert_type(error.status, int)
    assert_type(attempt_number(), int)


# --- guards -----------------------------------------------------------------------------------------------------------


class BudgetOfOnesOwn:
    """What the protocol asks for, and nothing else."""

    async def spend(self, origin: str | None, *, throttled: bool) -> bool:
        """Ask somebody."""
        return origin is None or throttled

    def earn(self, origin: str | None) -> None:
        """Tell nobody."""


async def guards(fleet: retrykit.redis.Fleet) -> None:
    """They are what the protocols say, and options everywhere."""
    budget: Budget = RetryBudget.ratio(0.1, reserve=5)
    pause: Pause = OriginPause()
    breaker: Breaker = CircuitBreaker(window=timedelta(seconds=5))
    policy = RetryPolicy(budget=budget, pause=pause, breaker=breaker, hedge_after=timedelta(seconds=1))
    retry_http(policy=policy, hedge_after=LatencyQuantile(0.95))
    retry_http(budget=BudgetOfOnesOwn(), hedge_after=lambda origin: None if origin is None else 0.5)
    await fetch_json("https://api.example.com", budget=fleet.budget, pause=fleet.pause)
    AsyncHTTPClient("https://api.example.com", budget=RetryBudget(), hedge_after=0.2)
    assert_type(RetryBudget().left(), float)


# --- many at once -----------------------------------------------------------------------------------------------------


@retry_http
async def length_of(number: int) -> str:
    """Of one argument."""
    return str(number)


async def many(urls: list[str], mixed: list[str | URL], numbers: AsyncIterator[int], session: ClientSession) -> None:
    """The value's type follows `fetch`, and the item's both."""
    assert_type(fetch_all(urls), FetchAll[str, Any])
    assert_type(fetch_all({URL("https://example.com")}, ordered=True), FetchAll[URL, Any])
    assert_type(fetch_all(urls, fetch_text, concurrency=5), FetchAll[str, str])
    assert_type(fetch_all(urls, fetch_bytes.retry_with(max_retries=5)), FetchAll[str, bytes])
    assert_type(fetch_all(urls, functools.partial(fetch_text, session=session)), FetchAll[str, str])
    assert_type(fetch_all(urls, AsyncHTTPClient("https://example.com").get_bytes), FetchAll[str, bytes])
    assert_type(fetch_all(numbers, lambda number: length_of(number + 1)), FetchAll[int, str])
    wider: FetchAll[str | URL, object] = fetch_all(urls, fetch_text)
    async with fetch_all(numbers, length_of) as results:
        assert_type(results, FetchAll[int, str])
        async for fetched in results:
            assert_type(fetched, Fetched[int, str])
            assert_type(fetched.item, int)
            assert_type(fetched.value, str | None)
            assert_type(fetched.error, Exception | None)
            assert_type(fetched.result(), str)
    await wider.aclose()
    assert_type([fetched.attempts async for fetched in fetch_all(mixed)], list[int])
