"""OpenTelemetryListener, with the SDK."""

import asyncio
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, Tracer
from yarl import URL

from retrykit import (
    AsyncHTTPClient,
    CallEvent,
    CircuitOpenError,
    GiveUpError,
    RetryEvent,
    attempt_number,
    fetch_json,
    retry_http,
    set_listeners,
)
from retrykit.telemetry.opentelemetry import OpenTelemetryListener
from retrykit.testing import Disconnect, ScriptedServer


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def listener(reader: InMemoryMetricReader) -> OpenTelemetryListener:
    listener = OpenTelemetryListener(MeterProvider([reader], shutdown_on_exit=False))
    set_listeners(listener)
    return listener


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(spans: InMemorySpanExporter) -> Tracer:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider.get_tracer("test")


def measured(reader: InMemoryMetricReader) -> dict[str, list[tuple[dict[str, Any], float]]]:
    """The points of each metric: attributes, and the value or (of a histogram) the sum."""
    data = reader.get_metrics_data()
    assert data is not None
    return {
        metric.name: [
            (dict(point.attributes or {}), getattr(point, "value", getattr(point, "sum", 0.0)))
            for point in metric.data.data_points
        ]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


async def test_metrics(
    client: AsyncHTTPClient,
    scripted_server: ScriptedServer,
    reader: InMemoryMetricReader,
    listener: OpenTelemetryListener,
    no_waits: list[float],
):
    listener.watch("api", client.policy)
    scripted_server.script("/users", 503, {}, Disconnect(), {}, 503)
    for _ in range(2):
        await client.get("/users")
    with pytest.raises(GiveUpError):
        await client.get("/users")
    points = measured(reader)
    url = URL(scripted_server.url)
    where = {"retrykit.call": "AsyncHTTPClient", "server.address": url.host, "server.port": url.port}
    assert points["retrykit.calls"] == [
        ({**where, "retrykit.outcome": "success"}, 2),
        ({**where, "retrykit.outcome": "gave_up"}, 1),
    ]
    assert points["retrykit.attempts"] == [(where, 7)]
    assert points["retrykit.retries"] == [
        ({**where, "error.type": "503"}, 3),
        ({**where, "error.type": "ServerDisconnectedError"}, 1),
    ]
    assert points["retrykit.give_ups"] == [({**where, "retrykit.reason": "attempts"}, 1)]
    assert points["retrykit.wait"] == [(where, sum(no_waits))]
    assert points["retrykit.budget.left"] == [({"retrykit.policy": "api"}, pytest.approx((70 - 4 * 14 + 2) / 70))]
    circuits = {attributes["retrykit.state"]: count for attributes, count in points["retrykit.circuits"]}
    assert circuits == {"closed": 1, "open": 0, "half-open": 0}


async def test_the_current_span(
    scripted_server: ScriptedServer,
    spans: InMemorySpanExporter,
    tracer: Tracer,
    listener: OpenTelemetryListener,
    no_waits: list[float],
):
    scripted_server.script("/users", 503)
    with tracer.start_as_current_span("handler"), pytest.raises(GiveUpError):
        await fetch_json(scripted_server.url + "/users?token=hidden", max_retries=3)
    [span] = spans.get_finished_spans()
    assert dict(span.attributes or {}) == {"http.request.resend_count": 2}
    url = URL(scripted_server.url)
    shared = {
        "retrykit.call": "fetch_json",
        "error.type": "503",
        "http.response.status_code": 503,
        "http.request.method": "GET",
        "server.address": url.host,
        "server.port": url.port,
    }
    assert [(event.name, dict(event.attributes or {})) for event in span.events] == [
        ("retrykit.retry", {**shared, "http.request.resend_count": 1, "retrykit.wait": 1.0}),
        ("retrykit.retry", {**shared, "http.request.resend_count": 2, "retrykit.wait": 2.0}),
        ("retrykit.give_up", {**shared, "retrykit.reason": "attempts"}),
    ]
    assert "hidden" not in span.to_json()


async def test_a_call_that_succeeds_at_once_leaves_a_span_as_it_is(
    scripted_server: ScriptedServer, spans: InMemorySpanExporter, tracer: Tracer, listener: OpenTelemetryListener
):
    scripted_server.script("/users", {})
    with tracer.start_as_current_span("handler"):
        await fetch_json(scripted_server.url + "/users")
    [span] = spans.get_finished_spans()
    assert (dict(span.attributes or {}), span.events) == ({}, ())


async def test_a_method_that_the_conventions_do_not_know(
    scripted_server: ScriptedServer,
    spans: InMemorySpanExporter,
    tracer: Tracer,
    listener: OpenTelemetryListener,
    no_waits: list[float],
):
    with tracer.start_as_current_span("handler"):
        async with AsyncHTTPClient(scripted_server.url) as client:
            for method in ("PURGE", "QUERY"):
                scripted_server.script("/cache", 503, 200)
                async with await client.request(method, "/cache"):
                    pass
    [span] = spans.get_finished_spans()
    names = ("http.request.method", "http.request.method_original")
    assert [[(event.attributes or {}).get(name) for name in names] for event in span.events] == [
        ["_OTHER", "PURGE"],
        ["QUERY", None],
    ]


async def test_a_call_that_was_refused_before_its_first_attempt(
    client: AsyncHTTPClient,
    scripted_server: ScriptedServer,
    reader: InMemoryMetricReader,
    spans: InMemorySpanExporter,
    tracer: Tracer,
    listener: OpenTelemetryListener,
    no_waits: list[float],
):
    scripted_server.script("/down", 503)
    for _ in range(2):
        with pytest.raises(GiveUpError):
            await client.get("/down")
    with tracer.start_as_current_span("handler", record_exception=False), pytest.raises(CircuitOpenError):
        await client.get("/down")
    [span] = spans.get_finished_spans()
    [event] = span.events
    told = event.attributes or {}
    assert (event.name, told["error.type"]) == ("retrykit.give_up", "CircuitOpenError")
    assert told["retrykit.reason"] == "circuit_open"
    reasons = {attributes["retrykit.reason"]: count for attributes, count in measured(reader)["retrykit.give_ups"]}
    assert reasons == {"attempts": 1, "circuit_open": 2}


async def test_a_call_that_is_thrown_away(reader: InMemoryMetricReader, listener: OpenTelemetryListener):
    """As of Prometheus: the SDK has locks, too."""

    @retry_http
    async def wait() -> None:
        await asyncio.sleep(30)

    call = wait()
    call.send(None)
    call.close()
    assert reader.get_metrics_data() is None


async def test_the_span_of_each_request_can_have_its_number(
    scripted_server: ScriptedServer,
    spans: InMemorySpanExporter,
    tracer: Tracer,
    listener: OpenTelemetryListener,
    no_waits: list[float],
):
    """What the page says of a hook, where an instrumentation of aiohttp makes a span for each request."""

    async def begin(_: object, context: SimpleNamespace, __: object) -> None:
        context.span = tracer.start_span("GET", kind=SpanKind.CLIENT)
        if attempt_number() > 1:
            context.span.set_attribute("http.request.resend_count", attempt_number() - 1)

    async def end(_: object, context: SimpleNamespace, __: object) -> None:
        context.span.end()

    traces = aiohttp.TraceConfig()
    traces.on_request_start.append(begin)
    traces.on_request_end.append(end)
    traces.on_request_exception.append(end)

    @retry_http
    async def get_users(session: aiohttp.ClientSession) -> object:
        async with session.get("/users", raise_for_status=True) as response:
            return await response.json()

    async with aiohttp.ClientSession(scripted_server.url, trace_configs=[traces]) as session:
        client = AsyncHTTPClient(scripted_server.url, session=session)
        for call in (client.get("/users"), get_users(session), fetch_json("/users", session=session)):
            scripted_server.script("/users", 503, 503, {"id": 1})
            await call
    resent = [(span.attributes or {}).get("http.request.resend_count") for span in spans.get_finished_spans()]
    assert resent == [None, 1, 2] * 3


def test_the_number_of_attributes_is_bounded(reader: InMemoryMetricReader, listener: OpenTelemetryListener):
    for number in range(3000):
        shared = {
            "call": f"call{number}", "method": "GET", "origin": f"http://host{number}:80", "path": f"/{number}",
            "status": None, "exception": type(f"Error{number}", (Exception,), {}),
        }  # fmt: skip
        listener(RetryEvent(**shared, attempt=1, max_retries=3, elapsed=0.0, delay=1.0))
        listener.call_ended(CallEvent(**shared, attempts=2, reason=None))
    points = measured(reader)
    retries = [attributes for attributes, _ in points["retrykit.retries"]]
    assert len({attributes["retrykit.call"] for attributes in retries}) == 51
    assert len({attributes["server.address"] for attributes in retries}) == 21
    assert len({attributes["error.type"] for attributes in retries}) == 31
    assert all(len(series) <= 51 for series in points.values())
    assert sum(count for _, count in points["retrykit.calls"]) == 3000


async def test_waits_have_buckets_of_seconds(
    scripted_server: ScriptedServer,
    reader: InMemoryMetricReader,
    listener: OpenTelemetryListener,
    no_waits: list[float],
):
    scripted_server.script("/users", 503, 503, {})
    await fetch_json(scripted_server.url + "/users")
    data = reader.get_metrics_data()
    assert data is not None
    [waits] = [
        point
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
        if metric.name == "retrykit.wait"
        for point in metric.data.data_points
    ]
    counted = {bound: count for bound, count in zip(waits.explicit_bounds, waits.bucket_counts, strict=False) if count}
    assert counted == {1.0: 1, 2.5: 1}


def test_without_the_api_it_says_what_to_install():
    program = "import sys; sys.modules['opentelemetry.metrics'] = None; import retrykit.telemetry.opentelemetry"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "needs opentelemetry-api; install it: pip install opentelemetry-api" in done.stderr


async def test_without_an_sdk_nothing_happens(scripted_server: ScriptedServer, no_waits: list[float]):
    set_listeners(OpenTelemetryListener())
    scripted_server.script("/users", 503, {"id": 1})
    assert await fetch_json(scripted_server.url + "/users") == {"id": 1}
