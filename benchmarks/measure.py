"""How things are compared: in rounds that each have every case in them, by the ratios within a round.

A machine gets slower and faster while it is measured on. Cases that alternate within some 20 ms meet the same machine,
and in an order that is shuffled anew for each round none of them is always the one after the garbage of another. The
median of the ratios leaves out the rounds in which something else ran.

What a library leaves to the garbage collector is part of its price. So the collector is off while a case runs, and then
runs once, on the clock: a case pays for its own garbage and for nobody else's. Left on, it would start at thresholds,
and which of two cases that hardly differ gets past one more of them says little about either.
"""

import contextlib
import gc
import math
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Self

from benchmarks.effort import Effort

CONTROL = "control"
"""The baseline once more, as a case of its own: what its interval leaves between 1 and itself is noise."""

BY_HAND = "hand-written loop"
"""What a careful user writes without a library."""

CONFIDENCE = 0.95

Case = Callable[[], Awaitable[float]]
"""Measures one stretch: what a call cost in it."""

Values = Mapping[str, Sequence[float]]
"""What was found for each case, round by round."""


async def in_rounds(cases: Mapping[str, Case], rounds: int, chance: Random) -> dict[str, list[float]]:
    """The costs of every case, one for each round."""
    costs: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    with _few_objects():
        for _ in range(rounds):
            chance.shuffle(order)
            for name in order:
                costs[name].append(await cases[name]())
    return costs


async def cpu_time(work: Awaitable[object]) -> float:
    """The CPU time that this takes, and the garbage collector afterwards."""
    gc.collect()
    gc.disable()
    started = time.process_time()
    try:
        await work
        gc.collect()
        return time.process_time() - started
    finally:
        gc.enable()


@contextlib.contextmanager
def _few_objects() -> Iterator[None]:
    """Keep what is there already out of the collector's sight, so that it is quick."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def ratios(costs: Values, baseline: str) -> dict[str, list[float]]:
    """The costs of the other cases over those of the baseline in the same round."""
    return {
        name: [cost / base for cost, base in zip(costs[name], costs[baseline], strict=True)]
        for name in costs
        if name != baseline
    }


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Between what the true median lies, with a confidence of 95 %.

    It is outside of the k-th smallest and the k-th largest value as often as fewer than k of n coins show heads; so
    nothing is assumed of how the values are spread. Fewer than six values are never that sure: then it is the smallest
    and the largest.
    """
    ordered, n = sorted(values), len(values)
    k, outside = 0, 1 / 2**n
    while outside <= (1 - CONFIDENCE) / 2:
        k += 1
        outside += math.comb(n, k) / 2**n
    cut = max(k - 1, 0)
    return ordered[cut], ordered[n - 1 - cut]


@dataclass(frozen=True)
class Row:
    """What was found for one case."""

    name: str
    median: float
    low: float
    """Where the median's interval begins."""
    high: float
    """Where it ends."""
    goal: float | None = None
    """What the median should not be above."""

    @classmethod
    def of(cls, name: str, values: Sequence[float], goal: float | None = None) -> Self:
        """The median of the values, and its interval."""
        return cls(name, statistics.median(values), *interval(values), goal)


@dataclass(frozen=True)
class Question:
    """Something to be measured."""

    name: str
    title: str
    over: str
    """What the ratios are over; empty where what is found is no ratio."""
    measure: Callable[[Effort, Random], Awaitable[Values]]
    goals: Mapping[str, float] = field(default_factory=dict)
    """The goals of single cases."""


@dataclass(frozen=True)
class Figure:
    """What the answer was."""

    name: str
    title: str
    over: str
    rounds: int
    rows: tuple[Row, ...]

    @classmethod
    def of(cls, question: Question, values: Values) -> Self:
        """The answer that lies in the values."""
        rows = tuple(Row.of(name, found, question.goals.get(name)) for name, found in values.items())
        rounds = min(len(found) for found in values.values())
        return cls(question.name, question.title, question.over, rounds, rows)

    def row(self, *names: str) -> Row | None:
        """The first of these rows that there is."""
        found = {row.name: row for row in self.rows}
        return next((found[name] for name in names if name in found), None)
