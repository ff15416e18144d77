"""OpenTelemetryListener: retries on the current span, and metrics. It needs `pip install 'retrykit[otel]'`.

Names are those of the semantic conventions for HTTP, where these have one (opentelemetry.io/docs/specs/semconv/http).
"""

from collections.abc import Iterable

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from yarl import URL

from retrykit.core.events import CallEvent, Event, RetryEvent
from retrykit.core.policy import RetryPolicy
from retrykit.telemetry.naming import MOST_ORIGINS, OTHER, UNKNOWN, Labels, Watch, cause_of, outcome_of

_Attributes = dict[str, str | int | float]


class OpenTelemetryListener:
    """Tells OpenTelemetry of retries, by its API alone: which SDK takes it in is for the application to say.

        telemetry = OpenTelemetryListener()
        telemetry.watch("api", client.policy)
        set_listeners(log_listener, telemetry)

    On the span that is current where a call is made: an event `retrykit.retry` for each retry, one `retrykit.give_up`
    for each give-up, and the attribute `http.request.resend_count`, how often the last call that was retried has sent
    its request again. As metrics: calls, attempts, retries, give-ups and waits, with a bounded number of attributes as
    of `PrometheusListener`.

    Args:
        meter_provider: Makes the instruments. Default: the global one.
        max_origins: How many origins have attributes of their own; the others are `other`. Default: 20.

    Raises:
        ValueError: `max_origins` is no number of them.
    """

    def __init__(self, meter_provider: MeterProvider | None = None, *, max_origins: int = MOST_ORIGINS) -> None:
        self._labels, self._watch = Labels(max_origins), Watch()
        meter = metrics.get_meter("retrykit", meter_provider=meter_provider)
        self._calls = meter.create_counter("retrykit.calls", "{call}", "Calls that have ended")
        self._attempts = meter.create_counter("retrykit.attempts", "{attempt}", "Attempts of these calls")
        self._retries = meter.create_counter(
            "retrykit.retries", "{attempt}", "Failed attempts that another one follows"
        )
        self._give_ups = meter.create_counter("retrykit.give_ups", "{call}", "Calls that were given up on")
        self._waits = meter.create_histogram("retrykit.wait", "s", "Waits before another attempt")
        meter.create_observable_gauge(
            "retrykit.budget.left", [self._budgets], "1", "What is left in the emptiest bucket, from 0 to 1"
        )
        meter.create_observable_gauge("retrykit.circuits", [self._circuits], "{circuit}", "Circuits in each state")

    def watch(self, name: str, policy: RetryPolicy) -> None:
        """Tell of the budget and the circuit breaker of a policy, too, whenever the metrics are collected.

        Args:
            name: The attribute `retrykit.policy`.
            policy: Has a `RetryBudget`, a `CircuitBreaker`, or both. They live as long as the listener.

        Raises:
            TypeError: It is no policy.
            ValueError: It has neither, or the name is taken.
        """
        self._watch.add(name, policy)

    def __call__(self, event: Event) -> None:
        """What `set_listeners` wants."""
        where, cause = self._where(event), self._labels.cause(cause_of(event))
        if isinstance(event, RetryEvent):
            self._retries.add(1, {**where, "error.type": cause})
            self._waits.record(event.delay, where)
        else:
            self._give_ups.add(1, {**where, "retrykit.reason": event.reason})
        _tell_span(event)

    def call_ended(self, event: CallEvent) -> None:
        """The same."""
        where = self._where(event)
        self._calls.add(1, {**where, "retrykit.outcome": outcome_of(event)})
        self._attempts.add(event.attempts, where)

    def _where(self, event: Event | CallEvent) -> _Attributes:
        return {"retrykit.call": self._labels.call(event.call), **_server(self._labels.origin(event.origin))}

    def _budgets(self, _: CallbackOptions) -> Iterable[Observation]:
        for policy, left in self._watch.budgets():
            yield Observation(left, {"retrykit.policy": policy})

    def _circuits(self, _: CallbackOptions) -> Iterable[Observation]:
        for policy, state, count in self._watch.circuits():
            yield Observation(count, {"retrykit.policy": policy, "retrykit.state": state})


def _server(origin: str) -> _Attributes:
    if origin in (OTHER, UNKNOWN):
        return {"server.address": origin}
    url = URL(origin)
    server: _Attributes = {"server.address": url.host or UNKNOWN}
    return server if url.port is None else {**server, "server.port": url.port}


def _tell_span(event: Event) -> None:
    span = trace.get_current_span()
    if not span.is_recording():
        return
    told: _Attributes = {"retrykit.call": event.call, "error.type": cause_of(event)}
    if event.status is not None:
        told["http.response.status_code"] = event.status
    if event.method is not None:
        told["http.request.method"] = event.method
    if event.origin is not None:
        told.update(_server(event.origin))
    if isinstance(event, RetryEvent):
        span.set_attribute("http.request.resend_count", event.attempt)
        span.add_event(
            "retrykit.retry", {**told, "http.request.resend_count": event.attempt, "retrykit.wait": event.delay}
        )
    else:
        span.add_event("retrykit.give_up", {**told, "retrykit.reason": event.reason})
