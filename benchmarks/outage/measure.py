"""All that is measured, one after the other."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial
from typing import TypeVar

from benchmarks import hedging
from benchmarks.outage import fleet, scenarios, simulated
from benchmarks.outage.contenders import CONTENDERS
from benchmarks.outage.report import Report
from benchmarks.outage.runs import Run, run
from benchmarks.outage.scenarios import Effort, Scenario
from benchmarks.overhead import listening

T = TypeVar("T")

Tell = Callable[[str], None]
"""Told what is measured now."""

SCENARIOS: dict[str, Callable[[Effort], Scenario]] = {
    "outage": scenarios.outage,
    "long-queue": scenarios.long_queue,
    "overload": scenarios.overload,
    "failures": scenarios.failures,
}
"""Those that every contender meets."""

PARTS = (*SCENARIOS, "fleet", "simulation", "hedging")


def chosen(names: Collection[str] | None) -> Collection[str]:
    """The parts with these names; all of them, where no names are given.

    Raises:
        LookupError: There is no such part.
    """
    if unknown := set(names or ()) - set(PARTS):
        raise LookupError(
            f"there is nothing to measure named {', '.join(sorted(unknown))}; there is {', '.join(PARTS)}"
        )
    return PARTS if names is None else names


def measure(parts: Collection[str], effort: Effort, seed: int, tell: Tell) -> Report:
    """Measure these parts.

    Raises:
        LookupError: The fleet is among them, and there is no Redis.
    """
    logging.getLogger("retrykit").addHandler(logging.NullHandler())
    with listening():  # Nobody: the others say nothing either.
        return asyncio.run(_measured(parts, effort, seed, tell))


async def _measured(parts: Collection[str], effort: Effort, seed: int, tell: Tell) -> Report:
    runs: list[Run] = []
    for part, make in SCENARIOS.items():
        if part in parts:
            tell(part)
            runs += await _all([partial(run, make(effort), name, seed) for name in CONTENDERS], effort)
    if "fleet" in parts:
        tell("fleet")
        scenario = scenarios.fleet(effort)
        runs += [await fleet.run(scenario, name, effort.processes, seed) for name in (fleet.EACH, fleet.SHARED)]
    foretold: dict[str, float] = {}
    if "simulation" in parts:
        tell("simulation")
        foretold = simulated.requests_per_call(scenarios.outage(effort), seed)
    hedged: Sequence[hedging.Hedged] = ()
    if "hedging" in parts:
        tell("hedging")
        hedged = [await hedging.measure(name, effort.hedged) for name in hedging.WAYS]
    return Report.of(runs, foretold, hedged, seed)


async def _all(makes: Iterable[Callable[[], Awaitable[T]]], effort: Effort) -> Sequence[T]:
    if effort.at_once:
        return await asyncio.gather(*(make() for make in makes))
    return [await make() for make in makes]
