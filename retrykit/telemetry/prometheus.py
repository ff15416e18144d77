"""PrometheusListener: counters, a histogram and gauges of what retries do.

It needs `prometheus-client`.
"""

from collections.abc import Iterable, Iterator

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, Metric
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.registry import Collector
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "retrykit.telemetry.prometheus needs prometheus-client; install it: pip install prometheus-client",
        name=error.name,
    ) from error

from retrykit.core.checks import shown_type
from retrykit.core.events import CallEvent, Event, RetryEvent
from retrykit.core.policy import RetryPolicy
from retrykit.telemetry.naming import (
    GAVE_UP,
    MOST_ORIGINS,
    WAIT_BUCKETS,
    Labels,
    Watch,
    cause_of,
    outcome_of,
    was_thrown_away,
)

__all__ = ["PrometheusListener"]


class PrometheusListener:
    """Counts calls, attempts, retries, give-ups and waits in Prometheus' client library.

        telemetry = PrometheusListener()
        telemetry.watch("api", client.policy)
        set_listeners(log_listener, telemetry)

    The number of series is bounded: of the calls, the first 50 names have series of their own, of the origins the first
    `max_origins`, and of the causes the first 30; the others share the value `other`. No label has a path, a query or
    anything of a body in it. Make one listener for each registry.

    Args:
        registry: Where the metrics are registered. Default: the one of the process.
        max_origins: How many origins have series of their own. Default: 20.

    Raises:
        TypeError: `max_origins` is no whole number, or the registry is none.
        ValueError: It is less than 0, or the registry has such metrics already.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY, *, max_origins: int = MOST_ORIGINS) -> None:
        self._labels, self._watch = Labels(max_origins), Watch()
        where = ("call", "origin")
        self._calls = Counter("retrykit_calls", "Calls that have ended", (*where, "outcome"), registry=None)
        self._attempts = Counter("retrykit_attempts", "Attempts of these calls", where, registry=None)
        self._retries = Counter(
            "retrykit_retries", "Failed attempts that another one follows", (*where, "cause"), registry=None
        )
        self._give_ups = Counter("retrykit_give_ups", "Calls that were given up on", (*where, "reason"), registry=None)
        self._waits = Histogram(
            "retrykit_wait_seconds", "Waits before another attempt", where, registry=None, buckets=WAIT_BUCKETS
        )
        metrics = (self._calls, self._attempts, self._retries, self._give_ups, self._waits, _Guards(self._watch))
        _register(metrics, registry)

    def watch(self, name: str, policy: RetryPolicy) -> None:
        """Tell of the budget and the circuit breaker of a policy, too, whenever the metrics are collected.

        Args:
            name: The value of the label `policy`.
            policy: Has a `RetryBudget`, a `CircuitBreaker`, or both; guards of other kinds are passed over. They live
                as long as the listener, and that as long as its registry.

        Raises:
            TypeError: It is no policy, or the name is no text.
            ValueError: It has neither, or the name is taken.
        """
        self._watch.add(name, policy)

    def __call__(self, event: Event) -> None:
        """What `set_listeners` wants."""
        if isinstance(event, RetryEvent):
            where = self._labels.call(event.call), self._labels.origin(event.origin)
            self._retries.labels(*where, self._labels.cause(cause_of(event))).inc()
            self._waits.labels(*where).observe(event.delay)

    def call_ended(self, event: CallEvent) -> None:
        """What `set_listeners` asks for calls that end."""
        if was_thrown_away(event):
            return
        where = self._labels.call(event.call), self._labels.origin(event.origin)
        outcome = outcome_of(event)
        self._calls.labels(*where, outcome).inc()
        self._attempts.labels(*where).inc(event.attempts)
        # No `GiveUpEvent` tells of a call that was refused before its first attempt.
        if outcome == GAVE_UP and event.reason is not None:
            self._give_ups.labels(*where, event.reason).inc()


def _register(metrics: Iterable[Collector], registry: CollectorRegistry) -> None:
    """Register all of them, or none."""
    if not isinstance(registry, CollectorRegistry):
        raise TypeError(
            f"registry is {shown_type(registry)}; give a prometheus_client.CollectorRegistry, or leave it out for that"
            " of the process"
        )
    registered: list[Collector] = []
    try:
        for metric in metrics:
            registry.register(metric)
            registered.append(metric)
    except ValueError as error:
        for metric in registered:
            registry.unregister(metric)
        raise ValueError(
            "this registry has metrics of these names already, those of another PrometheusListener, say; share that"
            " listener, or give this one a registry of its own: PrometheusListener(CollectorRegistry())"
        ) from error


class _Guards(Collector):
    """What guards come to, at the moment at which it is asked for."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def describe(self) -> Iterator[Metric]:
        yield from self._families()

    def collect(self) -> Iterator[Metric]:
        budgets, circuits = self._families()
        for policy, left in self._watch.budgets():
            budgets.add_metric([policy], left)
        for policy, state, count in self._watch.circuits():
            circuits.add_metric([policy, state], count)
        yield budgets
        yield circuits

    @staticmethod
    def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
        return (
            GaugeMetricFamily(
                "retrykit_budget_left_ratio", "What is left in the emptiest bucket, from 0 to 1", labels=["policy"]
            ),
            GaugeMetricFamily("retrykit_circuits", "Circuits in each state", labels=["policy", "state"]),
        )
