"""The benchmarks' arithmetic, and that the documentation shows what was measured. They run in CI, by `--smoke`."""

import asyncio
import gc
import io
import json
import math
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from benchmarks import RESULTS, report
from benchmarks.effort import FULL, SMOKE
from benchmarks.measure import BY_HAND, CONTROL, Figure, Question, Row, Values, cpu_time, in_rounds, interval, ratios

ROOT = Path(__file__).parent.parent
NUMBERS = st.floats(min_value=0, max_value=1e6)


# --- rounds -----------------------------------------------------------------------------------------------------------


def noting(name: str, order: list[str]) -> Callable[[], Awaitable[float]]:
    async def case() -> float:
        order.append(name)
        return float(len(order))

    return case


async def run_rounds(seed: int) -> tuple[list[str], Values]:
    order: list[str] = []
    cases = {name: noting(name, order) for name in "abcd"}
    return order, await in_rounds(cases, 10, random.Random(seed))


async def test_each_round_has_every_case_in_it():
    order, costs = await run_rounds(1)
    assert [sorted(order[start : start + 4]) for start in range(0, 40, 4)] == [list("abcd")] * 10
    assert {name: len(found) for name, found in costs.items()} == dict.fromkeys("abcd", 10)


async def test_what_was_found_is_kept_by_round_and_case():
    order, costs = await run_rounds(1)
    for name, found in costs.items():
        assert found == [place + 1 for place, other in enumerate(order) if other == name]


async def test_the_order_is_another_in_each_round_and_the_same_for_a_seed():
    order, _ = await run_rounds(1)
    assert len({tuple(order[start : start + 4]) for start in range(0, 40, 4)}) > 3
    assert (await run_rounds(1))[0] == order
    assert (await run_rounds(2))[0] != order


def test_ratios_are_those_within_a_round():
    costs = {"base": [1.0, 10.0, 2.0], "twice": [2.0, 20.0, 4.0], CONTROL: [1.0, 10.0, 3.0]}
    assert ratios(costs, "base") == {"twice": [2.0, 2.0, 2.0], CONTROL: [1.0, 1.0, 1.5]}


async def test_the_collector_is_off_while_a_case_runs_and_runs_after_it():
    seen: list[object] = []

    async def case() -> None:
        seen.append(gc.isenabled())
        ring: list[object] = []
        ring.append(ring)

    def noted(phase: str, info: dict[str, int]) -> None:
        seen.append((phase, info["generation"]))

    gc.callbacks.append(noted)
    try:
        assert await cpu_time(case()) > 0
    finally:
        gc.callbacks.remove(noted)
    collection = [("start", 2), ("stop", 2)]
    assert seen == [*collection, False, *collection]
    assert gc.isenabled()


async def test_a_case_that_fails_leaves_the_collector_on():
    with pytest.raises(TimeoutError):
        await cpu_time(asyncio.wait_for(asyncio.sleep(1), 0))
    assert gc.isenabled()


# --- the interval -----------------------------------------------------------------------------------------------------


# From a table of the binomial distribution: of so many values, these are left out at either end.
@pytest.mark.parametrize(("n", "cut"), [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (15, 3), (20, 5), (25, 7), (100, 39)])
def test_the_interval_leaves_out_as_many_values_as_it_may(n: int, cut: int):
    values = [float(number) for number in range(n)]
    random.Random(1).shuffle(values)
    assert interval(values) == (cut, n - 1 - cut)


@given(st.lists(NUMBERS, min_size=1, max_size=60))
def test_the_median_is_in_its_interval(values: list[float]):
    row = Row.of("x", values)
    assert min(values) <= row.low <= row.median <= row.high <= max(values)


@settings(deadline=None)
@given(st.integers(min_value=6, max_value=120))
def test_the_interval_has_the_true_median_in_it_as_often_as_it_says(n: int):
    """Exactly: each value is below the median or above it like a coin that is tossed."""

    def holds(below: int) -> bool:
        low, high = interval([-1.0] * below + [1.0] * (n - below))
        return low < 0 < high

    assert sum(math.comb(n, below) for below in range(n + 1) if holds(below)) / 2**n >= 0.95


# --- the report -------------------------------------------------------------------------------------------------------


def question(**goals: float) -> Question:
    async def measure(*_: object) -> Values:
        return {}

    return Question("speed", "A call", "a loop", measure, goals)


@pytest.fixture
def measured() -> report.Report:
    values = {CONTROL: [0.99, 1.01], "retry_http": [1.2, 1.4], BY_HAND: [1.0, 1.0], "stamina": [42.0, 44.0]}
    one = Figure.of(question(retry_http=1.5), values)
    values = {"retry_http": [0.0], "RetryMiddleware": [1.0]}
    two = Figure.of(Question("objects", "Objects", "", question().measure), values)
    return report.Report("2026-11-24", {"Python": "3.11.7", "aiohttp": "3.14.5"}, 1, (one, two))


def test_a_figure_is_made_of_values(measured: report.Report):
    assert measured.figures[0] == Figure(
        "speed",
        "A call",
        "a loop",
        2,
        (
            Row(CONTROL, 1.0, 0.99, 1.01),
            Row("retry_http", pytest.approx(1.3), 1.2, 1.4, 1.5),
            Row(BY_HAND, 1.0, 1.0, 1.0),
            Row("stamina", 43.0, 42.0, 44.0),
        ),
    )


def test_a_report_is_read_as_it_was_written(measured: report.Report, tmp_path: Path):
    measured.write(tmp_path / "results.json")
    assert report.Report.read(tmp_path / "results.json") == measured


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.0314, "0.031"), (0.98, "0.980"), (1, "1.00"), (15.04, "15.0"), (147.3, "147")]
)
def test_figures_have_as_many_digits_as_mean_something(value: float, text: str):
    assert report.shown(value) == text


def test_the_tables_of_the_documentation(measured: report.Report):
    assert report.markdown(measured) == (
        "|  | over | retrykit | 95 % interval | noise | goal |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        "| A call | a loop | **1.30** | 1.20 to 1.40 | 0.990 to 1.01 | ≤ 1.50 |\n"
        "| Objects, `retry_http` | a count | **0** | 0 to 0 |  |  |\n"
        "| Objects, `RetryMiddleware` | a count | **1.00** | 1.00 to 1.00 |  |  |\n"
        "\n"
        "|  | retrykit | hand-written loop | backoff | aiohttp_retry | stamina | tenacity | aiohttp's example |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
        "| A call | 1.30 | 1.00 |  |  | 43.0 |  |  |\n"
        "\n"
        "Measured on 2026-11-24 with Python 3.11.7, aiohttp 3.14.5.\n"
    )


def test_the_table_on_the_screen_has_all_that_was_found(measured: report.Report):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(report.table(measured.figures))
    shown = console.export_text()
    assert "A call, over a loop" in shown
    assert all(row.name in shown for figure in measured.figures for row in figure.rows)
    assert "42.0 to 44.0" in shown


# --- what was measured last -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def last() -> report.Report:
    return report.Report.read(RESULTS)


def test_the_documentation_shows_what_was_measured_last(last: report.Report):
    assert (ROOT / "docs" / "performance-table.inc").read_text() == report.markdown(last), (
        "make it anew: python -m benchmarks draw"
    )


def test_it_was_measured_in_full(last: report.Report):
    rounds = {figure.name: figure.rounds for figure in last.figures}
    full = {
        "success": FULL.rounds,
        "wire": FULL.wire_rounds,
        "memory": FULL.waiting_rounds,
        "cancel": FULL.cancelling_rounds,
        "import": FULL.import_rounds,
        "crawl": FULL.crawl_rounds,
    }
    assert rounds | full == rounds, "measure anew: python -m benchmarks run"


def test_it_says_what_it_was_measured_with(last: report.Report):
    assert set(last.versions) == {"Python", *report.PACKAGES}


def test_it_says_nothing_of_the_machine():
    text = RESULTS.read_text()
    assert set(json.loads(text)) == {"date", "versions", "seed", "figures"}
    assert "/" not in text
    assert str(Path.home()) not in text


def test_every_goal_is_known_to_the_documentation(last: report.Report):
    ours = [row for figure in last.figures for row in figure.rows if row.goal is not None]
    assert ours
    assert {row.name for row in ours} <= set(report.OURS)


# --- the command ------------------------------------------------------------------------------------------------------


def run(*arguments: str, isolated: bool = False) -> subprocess.CompletedProcess[str]:
    flags = ["-S"] if isolated else []
    command = [sys.executable, *flags, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_it_has_help():
    assert "--smoke" in run("run", "--help").stdout


def test_it_names_the_extra_where_something_is_missing():
    missing = run("run", isolated=True)  # Without site-packages.
    assert missing.returncode == 1
    assert missing.stderr.endswith("pip install -e '.[bench]'\n")


def test_smoke_is_less_of_everything():
    assert all(less < more for less, more in zip(SMOKE, FULL, strict=True))
