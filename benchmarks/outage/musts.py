"""What has to hold."""

from dataclasses import dataclass

from benchmarks.hedging import NONE
from benchmarks.outage.contenders import BUDGET, NO_RETRY
from benchmarks.outage.fleet import SHARED
from benchmarks.outage.report import Report

MOST_HEDGES = 1.05
"""Requests for each call."""


@dataclass(frozen=True)
class Must:
    """One figure, and what it may be."""

    what: str
    measured: float
    least: float | None = None
    most: float | None = None

    @property
    def holds(self) -> bool:
        """Is it so?"""
        return (self.least is None or self.measured >= self.least) and (self.most is None or self.measured <= self.most)


def musts(report: Report) -> list[Must]:
    """All of them, for a report of everything."""
    outage, overload = report.run("outage", BUDGET), report.run("overload", BUDGET)
    bare = report.run("overload", NO_RETRY)
    recovery = float("inf") if outage.recovery is None else outage.recovery
    return [
        Must("Budget: requests per call in the outage", outage.requests_per_call, most=1.10),
        Must("Budget: requests per call in overload", overload.requests_per_call, most=1.15),
        Must("Budget: goodput in overload, over that without retries", overload.goodput / bare.goodput, least=0.97),
        Must("Budget: seconds from the end of the outage to the first good window", recovery, most=0),
        Must("Budget: success where 2 % of requests fail", report.run("failures", BUDGET).success, least=0.998),
        Must(
            "Fleet with Redis: requests per call in the outage", report.run("fleet", SHARED).requests_per_call, most=1.3
        ),
        *_hedging(report),
        Must("Simulation: policies that it ranks otherwise, by requests per call", ranked_otherwise(report), most=0),
    ]


def _hedging(report: Report) -> list[Must]:
    bare, *hedged = report.hedged
    assert bare.name == NONE
    return [
        must
        for way in hedged
        for must in (
            Must(f"`{way.name}`: p99 without hedging, over that with it", bare.p99 / way.p99, least=5),
            Must(f"`{way.name}`: requests per call", way.requests_per_call, most=MOST_HEDGES),
        )
    ]


def ranked_otherwise(report: Report) -> int:
    """How many policies have another place in the simulation than on the real server, by requests per call."""
    real = sorted(report.simulated, key=lambda name: report.run("outage", name).requests_per_call)
    foretold = sorted(report.simulated, key=lambda name: report.simulated[name])
    return sum(one != other for one, other in zip(real, foretold, strict=True))
