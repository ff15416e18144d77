"""OpenTelemetryListener, with the SDK."""

from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer
from yarl import URL

from retrykit import AsyncHTTPClient, GiveUpError, fetch_json, set_listeners
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


async def test_without_an_sdk_nothing_happens(scripted_server: ScriptedServer, no_waits: list[float]):
    set_listeners(OpenTelemetryListener())
    scripted_server.script("/users", 503, {"id": 1})
    assert await fetch_json(scripted_server.url + "/users") == {"id": 1}
