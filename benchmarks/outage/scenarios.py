"""What happens to the server and to its clients: outage, overload, failures now and then. All times are seconds."""

from dataclasses import dataclass
from random import Random
from typing import NamedTuple

WINDOW = 0.5
"""Load and goodput are told for each half-second."""

CAPACITY = 200
"""Requests that the server works off in a second."""
RATE = 160
"""Calls that are begun in a second, where nothing else is said: four fifths of what the server is capable of."""
QUEUE = 100
"""Requests that there may be at the server, the one that it works on included: half a second's, so that who is let in
is answered in time."""
LONG_QUEUE = 300
"""One and a half seconds': whoever is at its end has gone away before it is their turn."""

ATTEMPT_TIMEOUT = 1.0
"""After which a client goes away, whatever retries for it: the `total` of its session's timeout."""
PATIENCE = 2.0
"""A call that succeeds counts as goodput where it does so within this time."""


class Span(NamedTuple):
    """From one instant to another."""

    start: float
    end: float

    @property
    def length(self) -> float:
        """Seconds."""
        return self.end - self.start

    @property
    def windows(self) -> slice:
        """Those that it consists of."""
        return slice(round(self.start / WINDOW), round(self.end / WINDOW))


class Effort(NamedTuple):
    """How long everything lasts."""

    before: float
    outage: float
    after: float
    overload: float
    failures: float
    processes: int
    """In the fleet,"""
    calls_each: int
    """and the calls of each."""
    hedged: int
    """GETs for each way of hedging."""
    at_once: bool
    """Are all contenders measured at the same time? They disturb one another, but nobody looks at the figures."""


FULL = Effort(
    before=2, outage=5, after=8, overload=8, failures=5, processes=50, calls_each=7, hedged=3000, at_once=False
)
SMOKE = Effort(
    before=0.5, outage=0.5, after=0.5, overload=0.5, failures=0.5, processes=4, calls_each=3, hedged=300, at_once=True
)


@dataclass(frozen=True)
class Scenario:
    """What happens."""

    name: str
    duration: float
    """For so long, calls are begun."""
    rate: float = RATE
    capacity: int = CAPACITY
    queue: int = QUEUE
    outage: Span | None = None
    """Every request is answered with 503."""
    overload: Span | None = None
    """There are `factor` times as many calls as the server can work off."""
    factor: float = 1.5
    failure_rate: float = 0.0
    """The share of requests that are answered with 503 all the time."""

    @property
    def measured(self) -> Span:
        """The time that the figures are about."""
        return self.outage or self.overload or Span(0, self.duration)


def outage(effort: Effort) -> Scenario:
    """The server is down for a while."""
    down = Span(effort.before, effort.before + effort.outage)
    return Scenario("outage", down.end + effort.after, outage=down)


def long_queue(effort: Effort) -> Scenario:
    """The same, where the server's queue is longer than its clients' patience."""
    short = outage(effort)
    return Scenario("long-queue", short.duration, outage=short.outage, queue=LONG_QUEUE)


def overload(effort: Effort) -> Scenario:
    """There is half as much again to do as the server is capable of."""
    busy = Span(effort.before, effort.before + effort.overload)
    return Scenario("overload", busy.end + 2 * WINDOW, overload=busy)


def failures(effort: Effort) -> Scenario:
    """Two of a hundred requests fail."""
    return Scenario("failures", effort.failures, failure_rate=0.02)


def fleet(effort: Effort) -> Scenario:
    """The server is down for all the calls of many processes."""
    down = Span(WINDOW, WINDOW + effort.outage)
    calls = effort.processes * effort.calls_each
    return Scenario("fleet", down.end, rate=calls / effort.outage, outage=down)


def starts(scenario: Scenario, chance: Random) -> list[float]:
    """The instants at which calls are begun: one in each of as many equal parts of a second as its rate says."""
    begun: list[float] = []
    overload = scenario.overload or Span(scenario.duration, scenario.duration)
    for span, rate in (
        (Span(0, overload.start), scenario.rate),
        (overload, scenario.factor * scenario.capacity),
        (Span(overload.end, scenario.duration), scenario.rate),
    ):
        begun += [span.start + (number + chance.random()) / rate for number in range(round(span.length * rate))]
    return begun
