"""Scenario: who calls how often, what the server can serve, and what happens to it."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from retrykit.core import checks
from retrykit.guards.origins import share, whole


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What the policies are put through. All times are seconds, from the start of the simulation.

    Raises:
        ValueError: A number can't work.
        TypeError: It is no number, or not a pair or triple where there has to be one.
    """

    clients: int = 1000
    """Callers. Each call is that of one of them, drawn at random, and begins whether its earlier ones have ended or
    not."""

    processes: int = 1
    """Sets of guards that the callers are spread over: each process has a policy of its own, with its own budget, pause
    and breaker. 1 is a fleet that shares them all."""

    rate: float = 600.0
    """Calls per second, of all callers together. They begin at random instants (a Poisson process)."""

    duration: float = 60.0
    """Calls begin until then; those under way go on to their end."""

    capacity: float = 1000.0
    """Requests per second that the server can serve, one after the other, in the order in which they came."""

    queue: int = 1200
    """Requests that may wait for their turn; with so many there, another one is answered 503 at once."""

    outages: tuple[tuple[float, float], ...] = ()
    """From when to when the server answers every request 503 at once. What it has in its queue is served."""

    overloads: tuple[tuple[float, float, float], ...] = ()
    """From when to when there are how many times as many calls: `(40, 50, 1.5)`. Where two meet, both count."""

    failure_rate: float = 0.0
    """The share of requests that are answered 503 at once, at any time and at random."""

    retry_after: float | None = None
    """The Retry-After that the server sends with each 503. Default: none."""

    window: float = 1.0
    """The results are counted in windows that are so long."""

    def __post_init__(self) -> None:
        whole("clients", self.clients)
        whole("processes", self.processes)
        for name in ("rate", "duration", "capacity", "window"):
            _above_zero(name, getattr(self, name))
        if self.processes > self.clients:
            raise ValueError(
                f"processes={self.processes} are more than clients={self.clients}, so that some would have none;"
                " write more clients"
            )
        if self.queue != 0:
            whole("queue", self.queue)
        if self.failure_rate != 0:
            share("failure_rate", self.failure_rate, 0.02)
        if self.retry_after is not None:
            checks.seconds("retry_after", self.retry_after)
        end = 0.0
        for outage in sorted(self.outages):
            _check_event("outages", outage, 2, "(10, 15)", self.duration)
            if outage[0] < end:
                raise ValueError(f"outages contains {outage!r}, which begins in the one before; write them as one")
            end = outage[1]
        for overload in self.overloads:
            _check_event("overloads", overload, 3, "(40, 50, 1.5)", self.duration)
            _above_zero("the factor in overloads", overload[2])

    def rate_at(self, instant: float) -> float:
        """Calls per second at that time."""
        factors = (factor for start, end, factor in self.overloads if start <= instant < end)
        return self.rate * math.prod(factors)

    def next_disturbance(self, after: float) -> float:
        """When the next outage or overload begins; the end of the run where there is none."""
        starts = [event[0] for event in (*self.outages, *self.overloads) if event[0] >= after]
        return min([*starts, self.duration])

    def arrivals(self, draw: Callable[[], float]) -> Iterator[float]:
        """The instants at which calls begin.

        Args:
            draw: Gives a number in [0, 1), each time another.
        """
        instants = {instant for start, end, _ in self.overloads for instant in (start, end) if instant < self.duration}
        changes = sorted({0.0, *instants})
        for start, end in zip(changes, [*changes[1:], self.duration], strict=True):
            # A Poisson process remembers nothing: where the rate changes, it begins anew.
            instant, rate = start, self.rate_at(start)
            # To the nanosecond, because the last bit of a logarithm is not the same on every machine.
            while (instant := round(instant - math.log(1.0 - draw()) / rate, 9)) < end:
                yield instant


def _above_zero(name: str, value: object) -> None:
    if not checks.is_number(value):
        raise TypeError(f"{name}={value!r} is no number; write one above 0")
    assert isinstance(value, int | float)
    if not 0 < value < math.inf:
        raise ValueError(f"{name}={value!r} can't be simulated; write a finite number above 0")


def _check_event(name: str, event: object, length: int, example: str, duration: float) -> None:
    if not isinstance(event, tuple) or len(event) != length or not all(map(checks.is_number, event)):
        raise TypeError(f"{name} contains {event!r}; write tuples of {length} numbers such as {example}")
    start, end = event[:2]
    if not 0 <= start < end < math.inf:
        raise ValueError(f"{name} contains {event!r}, which does not begin before it ends; write one such as {example}")
    if start >= duration:
        raise ValueError(
            f"{name} contains {event!r}, which begins after the end, duration={duration:g}; write a longer duration,"
            " or leave it out"
        )
