"""What a GET costs the client: real requests to a server on this machine, 50 at once.

Only the CPU time of this process counts; the server has another. Each case has a session of its own, whose connections
stay open, and each request a URL that was never asked for before, so that no cache helps anybody.
"""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from random import Random
from typing import Any

from aiohttp import ClientMiddlewareType, ClientResponse, ClientSession
from aiohttp_retry import RetryClient

from benchmarks.adapters import LIBRARIES, Adapt, aiohttp_retry_options, by_hand, example_middleware
from benchmarks.effort import Effort
from benchmarks.measure import BY_HAND, CONTROL, Case, Question, Values, cpu_time, in_rounds, ratios
from benchmarks.server import serving
from retrykit import AsyncHTTPClient, RetryMiddleware

AT_ONCE = 50

Get = Callable[[str], Awaitable[bytes]]
"""Fetches the body of a path."""

PLAIN = "plain aiohttp"
ONCE = (PLAIN, CONTROL)
"""Those that send a request once, whatever comes."""


def _plain(session: Any, url: str) -> Get:
    """By the `get` of a session, or of what looks like one."""

    async def get(path: str) -> bytes:
        async with session.get(url + path) as response:
            body: bytes = await response.read()
            return body

    return get


def _decorated(adapt: Adapt, session: ClientSession, url: str) -> Get:
    """By a coroutine function that returns the response, under retry."""

    async def fetch(url: str) -> ClientResponse:
        return await session.get(url)

    call = adapt(fetch, 0)

    async def get(path: str) -> bytes:
        async with await call(url + path) as response:
            return await response.read()

    return get


def _by_request(client: AsyncHTTPClient) -> Get:
    """By the client, which hands over the response."""

    async def get(path: str) -> bytes:
        async with client.request("GET", path) as response:
            return await response.read()

    return get


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[dict[str, Get]]:
    """All the ways to fetch a body from a server."""
    async with contextlib.AsyncExitStack() as stack:

        async def session(*middlewares: ClientMiddlewareType) -> ClientSession:
            return await stack.enter_async_context(ClientSession(middlewares=middlewares))

        async def client() -> AsyncHTTPClient:
            return await stack.enter_async_context(AsyncHTTPClient(url, base_delay=0))

        def by_aiohttp_retry(session: ClientSession) -> RetryClient:
            return RetryClient(session, retry_options=aiohttp_retry_options(0))

        decorators = {BY_HAND: by_hand, **LIBRARIES}
        del decorators["aiohttp_retry"]  # It is a client, and here it can have a real session.
        yield {
            PLAIN: _plain(await session(), url),
            CONTROL: _plain(await session(), url),
            **{name: _decorated(adapt, await session(), url) for name, adapt in decorators.items()},
            "RetryMiddleware": _plain(await session(RetryMiddleware(base_delay=0)), url),
            "client.request": _by_request(await client()),
            "client.get_bytes": (await client()).get_bytes,
            "aiohttp_retry": _plain(by_aiohttp_retry(await session()), url),
            "aiohttp's example": _plain(await session(example_middleware), url),
        }


async def _send(get: Get, paths: Iterator[str], calls: int) -> None:
    """So many GETs, 50 at once."""
    waiting = itertools.islice(paths, calls)

    async def work() -> None:
        for path in waiting:
            await get(path)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


async def _successes(effort: Effort, chance: Random) -> Values:
    paths = (f"/items/{number}" for number in itertools.count())

    def case(get: Get) -> Case:
        async def spend() -> float:
            return await cpu_time(_send(get, paths, effort.wire_calls)) / effort.wire_calls

        return spend

    async with serving() as url, opened(url) as gets:
        return await _compare({name: case(get) for name, get in gets.items()}, effort, chance)


async def _some_failures(effort: Effort, chance: Random) -> Values:
    paths = (f"/flaky/{number}" for number in itertools.count())

    def case(name: str, get: Get, tally: Get) -> Case:
        async def spend() -> float:
            seconds, requests, failed = await _tallied(_send(get, paths, effort.wire_calls), tally)
            expected = effort.wire_calls + (0 if name in ONCE else failed)
            assert requests == expected, f"{name} sent {requests} requests where it should have sent {expected}"
            return seconds / requests

        return spend

    async with serving() as url, opened(url) as gets:
        tally = gets[PLAIN]
        return await _compare({name: case(name, get, tally) for name, get in gets.items()}, effort, chance)


async def _tallied(stretch: Awaitable[object], tally: Get) -> tuple[float, int, int]:
    """The CPU time of a stretch; how many requests the server got in it, and how many of them it answered with 503."""
    before = json.loads(await tally("/tally"))
    taken = await cpu_time(stretch)
    after = json.loads(await tally("/tally"))
    return taken, after["requests"] - before["requests"], after["failed"] - before["failed"]


async def _compare(cases: dict[str, Case], effort: Effort, chance: Random) -> Values:
    await in_rounds(cases, 1, chance)  # Now the connections are open.
    return ratios(await in_rounds(cases, effort.wire_rounds, chance), PLAIN)


_GOALS = {"retry_http": 1.03, "RetryMiddleware": 1.03, "client.request": 1.08}

QUESTIONS = [
    Question("wire", "A GET", PLAIN, _successes, _GOALS),
    Question("wire-503", "A GET, with 503 as every tenth answer", PLAIN, _some_failures, {"retry_http": 1.05}),
]
