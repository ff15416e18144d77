"""What is made of the figures: a file, a table on the screen, tables for the documentation."""

import json
import platform
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Self

from benchmarks.measure import BY_HAND, CONTROL, Figure, Row

if TYPE_CHECKING:
    from rich.table import Table

PACKAGES = ("retrykit", "aiohttp", "aiohttp_retry", "backoff", "stamina", "tenacity")

OURS = ("retry_http", "RetryMiddleware", "client.request", "client.get_bytes", "retrykit")
"""The rows that are retrykit's, in its forms."""

PEERS = ("backoff", "aiohttp_retry", "stamina", "tenacity", "aiohttp's example")


@dataclass(frozen=True)
class Report:
    """All figures of one run, and what they were measured with."""

    date: str
    versions: dict[str, str]
    seed: int
    figures: tuple[Figure, ...]

    @classmethod
    def of(cls, figures: Iterable[Figure], seed: int) -> Self:
        """A report of today, on what is installed."""
        versions = {"Python": platform.python_version()} | {name: version(name) for name in PACKAGES}
        return cls(datetime.now(UTC).date().isoformat(), versions, seed, tuple(figures))

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `write` has written."""
        saved = json.loads(path.read_text())
        figures = [
            Figure(**{**figure, "rows": tuple(Row(**row) for row in figure["rows"])}) for figure in saved["figures"]
        ]
        return cls(**{**saved, "figures": tuple(figures)})

    def write(self, path: Path) -> None:
        """Write a JSON file."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")


def shown(value: float) -> str:
    """A figure with as many digits as mean something."""
    digits = 0 if value == 0 or value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}"


def _interval(row: Row) -> str:
    return f"{shown(row.low)} to {shown(row.high)}"


def _goal(row: Row) -> str:
    return "" if row.goal is None else f"≤ {shown(row.goal)}"


# --- the screen -------------------------------------------------------------------------------------------------------


def table(figures: Iterable[Figure]) -> "Table":
    """All that was found."""
    from rich.table import Table  # noqa: PLC0415 - the tests of this file do without it.

    made = Table("", "median", "95 % interval", "goal")
    for figure in figures:
        over = f", over {figure.over}" if figure.over else ""
        made.add_section()
        made.add_row(f"[bold]{figure.title}[/bold]{over}", "", f"{figure.rounds} rounds", "")
        for row in figure.rows:
            made.add_row(f"  {row.name}", shown(row.median), _interval(row), _goal(row))
    return made


# --- the documentation ------------------------------------------------------------------------------------------------


def markdown(report: Report) -> str:
    """Two tables, retrykit's and everybody's, and what they were measured with."""
    parts = [_ours(report.figures), _everybodys(report.figures), _measured_with(report)]
    return "\n".join(f"{part}\n" for part in parts)


def _ours(figures: Iterable[Figure]) -> str:
    lines = [
        _line(
            _named(figure, row),
            figure.over or "a count",
            f"**{shown(row.median)}**",
            _interval(row),
            _noise(figure),
            _goal(row),
        )
        for figure in figures
        for row in figure.rows
        if row.name in OURS
    ]
    return "\n".join([*_head("", "over", "retrykit", "95 % interval", "noise", "goal"), *lines])


def _named(figure: Figure, row: Row) -> str:
    forms = [other for other in figure.rows if other.name in OURS]
    return figure.title if len(forms) == 1 else f"{figure.title}, `{row.name}`"


def _noise(figure: Figure) -> str:
    control = figure.row(CONTROL)
    return _interval(control) if control else ""


def _everybodys(figures: Iterable[Figure]) -> str:
    lines = [_line(figure.title, *_medians(figure)) for figure in figures if figure.row(*PEERS)]
    return "\n".join([*_head("", "retrykit", BY_HAND, *PEERS), *lines])


def _medians(figure: Figure) -> Iterator[str]:
    for names in (OURS, (BY_HAND,), *((peer,) for peer in PEERS)):
        if row := figure.row(*names):
            yield shown(row.median)
        else:
            yield "1" if BY_HAND in names and BY_HAND in figure.over else ""


def _measured_with(report: Report) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    return f"Measured on {report.date} with {versions}."


def _head(*names: str) -> list[str]:
    return [_line(*names), _line(*("---" for _ in names))]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
