"""The tables, for the screen and for the documentation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.outage.contenders import CONTENDERS
from benchmarks.outage.musts import Must, musts
from benchmarks.outage.report import Report
from benchmarks.outage.runs import Run
from benchmarks.outage.scenarios import WINDOW
from benchmarks.report import shown

if TYPE_CHECKING:
    from rich.table import Table as RichTable


@dataclass(frozen=True)
class Table:
    """One of them."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def markdown(self) -> str:
        """With its title above."""
        lines = [self.head, ("---",) * len(self.head), *self.rows]
        return f"**{self.title}**\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def rich(self) -> "RichTable":
        """For the screen."""
        from rich.table import Table as RichTable  # noqa: PLC0415 - the tests of this file do without it.

        made = RichTable(*self.head, title=self.title, title_justify="left")
        for row in self.rows:
            made.add_row(*row)
        return made


def tables(report: Report) -> list[Table]:
    """Those of what was measured; without the goals, which need all of it."""
    made = [
        _by_contender(report, "An outage of 5 s", _OUTAGE),
        _by_contender(report, "Half as many calls again as the server can work off; failures now and then", _OVERLOAD),
        _fleet(report),
        _simulation(report),
        _hedging(report),
    ]
    return [table for table in made if table.rows]


def goals(report: Report) -> Table:
    """What has to hold, for a report of everything."""
    rows = [
        (must.what, shown(must.measured), _limit(must), "yes" if must.holds else "**no**") for must in musts(report)
    ]
    return Table("What has to hold", ("", "measured", "goal", "held"), rows)


def markdown(report: Report) -> str:
    """All tables, and what was measured with."""
    versions = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    parts = [table.markdown() for table in (*tables(report), goals(report))]
    return "\n".join([*parts, f"Measured on {report.date} with {versions}.\n"])


def _limit(must: Must) -> str:
    return f"≤ {shown(must.most)}" if must.most is not None else f"≥ {shown(must.least or 0)}"


class _Column(NamedTuple):
    """Of a table that has a row for each contender."""

    head: str
    scenario: str
    show: Callable[[Run], str]


def _recovery(run: Run) -> str:
    if run.recovery is None:
        return f"not in {WINDOW * len(run.received) - run.measured.end:g} s"
    return "at once" if run.recovery == 0 else f"after {run.recovery:g} s"


_OUTAGE = [
    _Column("requests per call", "outage", lambda run: shown(run.requests_per_call)),
    _Column("calls that succeed in the end", "outage", lambda run: f"{run.success:.0%}"),
    _Column("goodput is back", "outage", _recovery),
    _Column("goodput is back, with the long queue", "long-queue", _recovery),
]
_OVERLOAD = [
    _Column("overload: requests per call", "overload", lambda run: shown(run.requests_per_call)),
    _Column("overload: goodput", "overload", lambda run: f"{run.goodput:.0f}/s"),
    _Column("2 % failures: calls that succeed", "failures", lambda run: f"{run.success:.1%}"),
]


def _by_contender(report: Report, title: str, columns: list[_Column]) -> Table:
    found = {(run.scenario, run.contender): run for run in report.runs}
    rows: list[tuple[str, ...]] = []
    for name in CONTENDERS:
        runs = [(column, found.get((column.scenario, name))) for column in columns]
        if any(run for _, run in runs):
            rows.append((name, *("" if run is None else column.show(run) for column, run in runs)))
    return Table(title, ("", *(column.head for column in columns)), rows)


def _fleet(report: Report) -> Table:
    rows = [(run.contender, shown(run.requests_per_call)) for run in report.runs if run.scenario == "fleet"]
    return Table("50 processes of 7 calls each", ("", "outage: requests per call"), rows)


def _simulation(report: Report) -> Table:
    measured = {run.contender: shown(run.requests_per_call) for run in report.runs if run.scenario == "outage"}
    rows = [(name, measured.get(name, ""), shown(value)) for name, value in report.simulated.items()]
    return Table("Requests per call in the outage", ("", "measured", "simulated"), rows)


def _hedging(report: Report) -> Table:
    rows = [
        (way.name, _milliseconds(way.p50), _milliseconds(way.p99), shown(way.requests_per_call))
        for way in report.hedged
    ]
    return Table("Hedging, where 1 % of the answers take 1 s", ("", "p50", "p99", "requests per call"), rows)


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"
