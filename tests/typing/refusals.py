"""What type checkers must refuse. `test_types.py` hands this file to mypy and pyright; nothing here is run.

Each refusal is expected by a comment that names its code; one that a checker no longer needs is an error itself.
"""

from aiohttp import ClientSession

from retrykit import (
    AsyncHTTPClient,
    CircuitBreaker,
    OriginPause,
    RetryBudget,
    RetryPolicy,
    fetch_all,
    fetch_json,
    fetch_text,
    get,
    retry_http,
    stream,
)


@retry_http(max_retries=2)
async def get_user(session: ClientSession, user_id: int, *, fields: str = "") -> str:
    return f"{session} {user_id} {fields}"


class Service:
    @retry_http
    async def method(self, user_id: int) -> str:
        return str(user_id)

    @staticmethod
    @retry_http
    async def static(user_id: int) -> str:
        return str(user_id)

    @classmethod
    @retry_http
    async def of_class(cls, user_id: int) -> str:
        return str(user_id)


def plain(user_id: int) -> str:
    return str(user_id)


async def arguments_of_a_function(session: ClientSession) -> None:
    await get_user(session, "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await get_user(session)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await get_user(session, 1, "name")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await get_user(session, 1, field="name")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await get_user.retry_with(max_retries=3)(session, "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    (await get_user(session, 1)).bit_length()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    get_user.retry_with(max_retries="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    get_user.retry_with(retries=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    get_user.policy.max_retries = 3  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


async def arguments_of_a_method(service: Service) -> None:
    await service.method("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await service.method()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await service.method(service, 1)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]
    await Service.method(1)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]
    await Service.of_class("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await Service.of_class(Service, 1)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]
    await Service.static("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await Service.static()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def options() -> None:
    retry_http(budget=0.1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    retry_http(pause=CircuitBreaker())  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    retry_http(hedge_after="1 s")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    retry_http(max_retries="3")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    retry_http(retries=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    retry_http(base_delay="1")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    retry_http(jitter="some")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    retry_http(statuses=503)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    retry_http(exceptions=[503])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    retry_http(before_retry=plain)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    retry_http(policy={"max_retries": 3})  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    retry_http(RetryPolicy())  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    RetryPolicy(max_retries="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RetryPolicy(retries=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    RetryPolicy(3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    RetryPolicy().replace(on_give_up="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def functions_that_return_no_awaitable() -> None:
    retry_http(plain)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    retry_http(max_retries=3)(plain)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def options_of_a_request(session: ClientSession, client: AsyncHTTPClient) -> None:
    await client.get("/a", max_retries="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.get("/a", timeout="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.get("/a", header={"a": "b"})  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.get_text("/a", allow_redirects="no")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.post("/a", {"a": 1}, idempotent="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.request("GET", "/a", retries=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    AsyncHTTPClient("https://example.com", max_retries="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await fetch_json("https://example.com", max_retries="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await fetch_text("https://example.com", session)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await get("https://example.com")  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]


async def what_is_refused_with_a_text_of_its_own(client: AsyncHTTPClient) -> None:
    await stream("https://example.com")  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    async for _ in stream("https://example.com"):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    with client:  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    async with client.stream("/a") as body:
        await body.read(10)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        body.json()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    fetch_all(["https://example.com"], max_retries=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    RetryBudget(tokens=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    CircuitBreaker(threshold=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    OriginPause(longes=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
