"""What retrykit has beside the attempts themselves, each tried on a real server."""

from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry

import retrykit
from retrykit.telemetry.opentelemetry import OpenTelemetryListener
from retrykit.telemetry.prometheus import PrometheusListener
from retrykit.testing import Disconnect, Reply, Resumable, ScriptedServer, Stall, disabled, no_waits

Feature = Callable[[ScriptedServer], Awaitable[None]]
"""It raises an `AssertionError` where the feature is not there."""

BODY = b"0123456789" * 1000


async def fetch(server: ScriptedServer, **options: Any) -> bytes:
    async with retrykit.AsyncHTTPClient(server.url, **options) as client:
        return await client.get_bytes("/")


async def fails(server: ScriptedServer, **options: Any) -> Exception:
    with no_waits(), pytest.raises(Exception) as error:  # noqa: PT011 - which it is, the caller looks at.
        await fetch(server, **options)
    return error.value


async def budget(server: ScriptedServer) -> None:
    """One for two calls, that is good for three retries."""
    server.script("/", 503)
    shared = retrykit.RetryBudget(3, cost=1)
    for _ in range(2):
        await fails(server, budget=shared)
    assert len(server.requests()) == 2 + 3


async def breaker(server: ScriptedServer) -> None:
    server.script("/", 503)
    shared = retrykit.CircuitBreaker(min_attempts=3)
    await fails(server, breaker=shared)
    assert isinstance(await fails(server, breaker=shared), retrykit.CircuitOpenError)
    assert len(server.requests()) == 3


async def pause(server: ScriptedServer) -> None:
    server.script("/", Reply(503, retry_after=300))
    shared = retrykit.OriginPause()
    await fails(server, pause=shared)
    assert isinstance(await fails(server, pause=shared), retrykit.OriginPausedError)
    assert len(server.requests()) == 1


async def hedging(server: ScriptedServer) -> None:
    server.script("/", Stall(), b"ok")
    assert await fetch(server, hedge_after=0.05, timeout=5) == b"ok"


async def key(server: ScriptedServer) -> None:
    server.script("/", Disconnect(), 503, {"id": 1})
    with no_waits():
        async with retrykit.AsyncHTTPClient(server.url) as client:
            await client.post("/", {"item": 1}, idempotency_key=True)
    keys = {request.headers["Idempotency-Key"] for request in server.requests()}
    assert (len(server.requests()), len(keys)) == (3, 1)


async def factory(server: ScriptedServer) -> None:
    async def lines() -> Any:
        yield b"all of it"

    server.script("/", 503, {"lines": 1})
    with no_waits():
        async with retrykit.AsyncHTTPClient(server.url) as client:
            await client.post("/", lines)
    assert [request.body for request in server.requests()] == [b"all of it"] * 2


async def resume(server: ScriptedServer) -> None:
    server.script("/", Resumable(BODY, sent=4000), Resumable(BODY))
    with no_waits():
        async with retrykit.stream(f"{server.url}/") as body:
            assert b"".join([chunk async for chunk in body]) == BODY
    assert [request.headers.get("Range") for request in server.requests()] == [None, "bytes=4000-"]


async def existing(server: ScriptedServer) -> None:
    server.script("/", 503, b"ok")
    with no_waits():
        async with aiohttp.ClientSession(middlewares=[retrykit.RetryMiddleware()]) as session:
            async with session.get(f"{server.url}/") as response:
                assert await response.read() == b"ok"


async def history(server: ScriptedServer) -> None:
    server.script("/", 503)
    attempts = retrykit.attempts_of(await fails(server))
    assert [(attempt.status, attempt.delay) for attempt in attempts] == [(503, 1.0), (503, 2.0), (503, None)]


async def hook(server: ScriptedServer) -> None:
    server.script("/", 503)
    told: list[Any] = []
    retrykit.set_listeners(told.append)  # Those that were there before are given back by `conftest.py`.
    await fails(server)
    kinds = [type(event) for event in told]
    assert kinds == [retrykit.RetryEvent, retrykit.RetryEvent, retrykit.GiveUpEvent]


async def metrics(server: ScriptedServer) -> None:
    server.script("/", 503, b"ok")
    registry, reader = CollectorRegistry(), InMemoryMetricReader()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    retrykit.set_listeners(PrometheusListener(registry), OpenTelemetryListener(meters))
    with no_waits():
        await fetch(server)
    labels = {"call": "AsyncHTTPClient", "origin": server.url, "cause": "503"}
    assert registry.get_sample_value("retrykit_retries_total", labels) == 1
    collected = reader.get_metrics_data()
    assert collected is not None
    assert '"retrykit.retries"' in collected.to_json()
    meters.shutdown()


async def scope(server: ScriptedServer) -> None:
    """Each of two calls would end in time. The second comes too late, by what the first has waited."""
    server.script("/", 503, b"ok", 503, b"ok")
    with no_waits(), retrykit.deadline_scope(1.5):
        assert await fetch(server) == b"ok"
        with pytest.raises(retrykit.GiveUpError) as error:
            await fetch(server)
    assert error.value.reason == "timeout"


async def time_left(server: ScriptedServer) -> None:
    """The second attempt has less, by the wait of 1 s before it."""
    server.script("/", 503, b"ok")
    had: list[float] = []

    @retrykit.retry_http(timeout=5)
    async def load(session: aiohttp.ClientSession) -> bytes:
        had.append(retrykit.time_left() or 0)
        async with session.get(f"{server.url}/", raise_for_status=True) as response:
            return await response.read()

    with no_waits():
        async with aiohttp.ClientSession() as session:
            await load(session)
    first, second = had
    assert 0 < second < first - 0.9


async def waits_off(server: ScriptedServer) -> None:
    server.script("/", 503, 503, b"ok")
    with no_waits() as waits:
        assert await fetch(server, base_delay=5) == b"ok"
    assert waits == [5, 10]


async def switched_off(server: ScriptedServer) -> None:
    server.script("/", 503)
    with disabled():
        await fails(server)
    assert len(server.requests()) == 1


async def failing_server(server: ScriptedServer) -> None:
    server.script("/", Disconnect(), 503, Reply(429, retry_after=7), b"ok")
    with no_waits() as waits:
        assert await fetch(server, max_retries=4) == b"ok"
    assert waits == [0.0, 1.0, 7.0]


async def anything(server: ScriptedServer) -> None:
    calls: list[int] = []

    @retrykit.retry_http(exceptions=(KeyError,))
    async def something() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise KeyError
        return "done"

    with no_waits():
        assert await something() == "done"


async def no_plain_functions(server: ScriptedServer) -> None:
    with pytest.raises(TypeError):
        await retrykit.retry_http(lambda: None)()  # type: ignore[call-overload]


async def no_blocks(server: ScriptedServer) -> None:
    with pytest.raises(TypeError):
        async for _ in retrykit.retry_http(max_retries=3):  # type: ignore[attr-defined]
            pass


async def another_url(server: ScriptedServer) -> None:
    """The coroutine chooses it, by the number of the attempt."""
    server.script("/first", 503)
    server.script("/second", b"ok")

    @retrykit.retry_http
    async def load(session: aiohttp.ClientSession) -> bytes:
        path = "/first" if retrykit.attempt_number() == 1 else "/second"
        async with session.get(f"{server.url}{path}", raise_for_status=True) as response:
            return await response.read()

    with no_waits():
        async with aiohttp.ClientSession() as session:
            assert await load(session) == b"ok"
