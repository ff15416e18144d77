"""OpenTelemetryListener: retries on the current span, and metrics. It needs `opentelemetry-api`.

Names are those of the semantic conventions for HTTP, where these have one (opentelemetry.io/docs/specs/semconv/http).
"""

from collections.abc import Iterable

from yarl import URL

try:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter
    from opentelemetry.trace import get_current_span
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "retrykit.telemetry.opentelemetry needs opentelemetry-api; install it: pip install opentelemetry-api",
        name=error.name,
    ) from error

from retrykit.core.events import CallEvent, Event, Reason, RetryEvent
from retrykit.core.policy import RetryPolicy
from retrykit.telemetry.naming import (
    GAVE_UP,
    MOST_ORIGINS,
    OTHER,
    UNKNOWN,
    WAIT_BUCKETS,
    Labels,
    Watch,
    cause_of,
    outcome_of,
    was_thrown_away,
)

__all__ = ["OpenTelemetryListener"]

_Attributes = dict[str, str | int | float]

# What the conventions call known: the methods of RFC 9110 §9.3, PATCH and QUERY. Any other one is told as `_OTHER`.
_METHODS = {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}


class OpenTelemetryListener:
    """Tells OpenTelemetry of retries, by its API alone: which SDK takes it in is for the application to say.

        telemetry = OpenTelemetryListener()
        telemetry.watch("api", client.policy)
        set_listeners(log_listener, telemetry)

    On the span that is current where a call is made: an event `retrykit.retry` for each retry, one `retrykit.give_up`
    for each give-up, and the attribute `http.request.resend_count`, how often the last call that was retried has sent
    its request again. As metrics: calls, attempts, retries, give-ups and waits, with a bounded number of attributes as
    of `PrometheusListener`. Make one listener for each meter provider.

    Args:
        meter_provider: Makes the instruments. Default: the global one.
        max_origins: How many origins have attributes of their own; the others are `other`. Default: 20.

    Raises:
        TypeError: `max_origins` is no whole number.
        ValueError: It is less than 0.
    """

    def __init__(self, meter_provider: MeterProvider | None = None, *, max_origins: int = MOST_ORIGINS) -> None:
        self._labels, self._watch = Labels(max_origins), Watch()
        meter = get_meter("retrykit", meter_provider=meter_provider)
        self._calls = meter.create_counter("retrykit.calls", "{call}", "Calls that have ended")
        self._attempts = meter.create_counter("retrykit.attempts", "{attempt}", "Attempts of these calls")
        self._retries = meter.create_counter(
            "retrykit.retries", "{attempt}", "Failed attempts that another one follows"
        )
        self._give_ups = meter.create_counter("retrykit.give_ups", "{call}", "Calls that were given up on")
        self._waits = meter.create_histogram(
            "retrykit.wait", "s", "Waits before another attempt", explicit_bucket_boundaries_advisory=WAIT_BUCKETS
        )
        meter.create_observable_gauge(
            "retrykit.budget.left", [self._budgets], "1", "What is left in the emptiest bucket, from 0 to 1"
        )
        meter.create_observable_gauge("retrykit.circuits", [self._circuits], "{circuit}", "Circuits in each state")

    def watch(self, name: str, policy: RetryPolicy) -> None:
        """Tell of the budget and the circuit breaker of a policy, too, whenever the metrics are collected.

        Args:
            name: The attribute `retrykit.policy`.
            policy: Has a `RetryBudget`, a `CircuitBreaker`, or both; guards of other kinds are passed over. They live
                as long as the listener, and that as long as its meter provider.

        Raises:
            TypeError: It is no policy, or the name is no text.
            ValueError: It has neither, or the name is taken.
        """
        self._watch.add(name, policy)

    def __call__(self, event: Event) -> None:
        """What `set_listeners` wants."""
        if isinstance(event, RetryEvent):
            where = self._where(event)
            self._retries.add(1, {**where, "error.type": self._labels.cause(cause_of(event))})
            self._waits.record(event.delay, where)
            _tell_span_of_retry(event)

    def call_ended(self, event: CallEvent) -> None:
        """What `set_listeners` asks for calls that end."""
        if was_thrown_away(event):
            return
        where, outcome = self._where(event), outcome_of(event)
        self._calls.add(1, {**where, "retrykit.outcome": outcome})
        self._attempts.add(event.attempts, where)
        # No `GiveUpEvent` tells of a call that was refused before its first attempt.
        if outcome == GAVE_UP and event.reason is not None:
            self._give_ups.add(1, {**where, "retrykit.reason": event.reason})
            _tell_span_of_give_up(event, event.reason)

    def _where(self, event: Event | CallEvent) -> _Attributes:
        return {"retrykit.call": self._labels.call(event.call), **_server(self._labels.origin(event.origin))}

    def _budgets(self, _: CallbackOptions) -> Iterable[Observation]:
        for policy, left in self._watch.budgets():
            yield Observation(left, {"retrykit.policy": policy})

    def _circuits(self, _: CallbackOptions) -> Iterable[Observation]:
        for policy, state, count in self._watch.circuits():
            yield Observation(count, {"retrykit.policy": policy, "retrykit.state": state})


def _server(origin: str) -> _Attributes:
    if origin == UNKNOWN:
        return {}
    if origin == OTHER:
        return {"server.address": origin}
    url = URL(origin)
    server: _Attributes = {"server.address": url.host or UNKNOWN}
    return server if url.port is None else {**server, "server.port": url.port}


def _tell_span_of_retry(event: RetryEvent) -> None:
    span = get_current_span()
    if span.is_recording():
        span.set_attribute("http.request.resend_count", event.attempt)
        resent: _Attributes = {"http.request.resend_count": event.attempt, "retrykit.wait": event.delay}
        span.add_event("retrykit.retry", {**_failure(event), **resent})


def _tell_span_of_give_up(event: CallEvent, reason: Reason) -> None:
    span = get_current_span()
    if span.is_recording():
        span.add_event("retrykit.give_up", {**_failure(event), "retrykit.reason": reason})


def _failure(event: RetryEvent | CallEvent) -> _Attributes:
    """What failed, as a span is told of it."""
    told: _Attributes = {"retrykit.call": event.call, "error.type": cause_of(event)}
    if event.status is not None:
        told["http.response.status_code"] = event.status
    if event.method in _METHODS:
        told["http.request.method"] = event.method
    elif event.method is not None:
        told.update({"http.request.method": "_OTHER", "http.request.method_original": event.method})
    if event.origin is not None:
        told.update(_server(event.origin))
    return told
