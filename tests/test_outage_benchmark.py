"""The benchmark of outages: its arithmetic, its server, that the documentation shows what was measured, and what has to
hold. All of it runs in CI, by `--smoke`."""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from benchmarks import hedging
from benchmarks.outage import RESULTS, fleet, measure, picture, scenarios, simulated, tables
from benchmarks.outage.client import make_calls, session
from benchmarks.outage.contenders import BUDGET, CONTENDERS, EXPONENTIAL, FULL_JITTER, NO_RETRY, POLICIES, RESERVE
from benchmarks.outage.musts import Must, musts, ranked_otherwise
from benchmarks.outage.report import PACKAGES, Report
from benchmarks.outage.runs import Run, begin, run, tally
from benchmarks.outage.scenarios import FULL, SMOKE, Effort, Scenario, Span, outage, overload, starts
from benchmarks.outage.server import serving

ROOT = Path(__file__).parent.parent

TINY = Effort(
    before=0.5, outage=0.5, after=0.5, overload=0.5, failures=0.5, processes=2, calls_each=2, hedged=100, at_once=True
)


# --- what is counted --------------------------------------------------------------------------------------------------


def a_run(*in_time: int) -> Run:
    """One of windows in each of which 10 calls begin, and 12 requests are received."""
    windows = len(in_time)
    return Run("outage", BUDGET, Span(1, 2), (10,) * windows, in_time, (5,) * windows, (12,) * windows, 0)


def test_figures_are_those_of_the_trouble():
    counted = replace(a_run(10, 10, 1, 3, 10, 10), received=(10, 10, 12, 32, 10, 10), succeeded=(10, 10, 1, 6, 10, 10))
    assert counted.requests_per_call == 44 / 20
    assert counted.success == 7 / 20
    assert counted.goodput == 4


@pytest.mark.parametrize(
    ("after", "recovery"),
    [
        ((10, 10, 10), 0),
        ((9, 10, 10), 0.5),
        ((9, 9, 10), 1),
        ((10, 9, 10), 1),  # It was back, and did not stay so.
        ((9, 9, 9), None),
        ((10, 10, 9), None),
    ],
)
def test_recovery_is_when_goodput_is_back_to_stay(after: tuple[int, ...], recovery: float | None):
    assert a_run(10, 10, 0, 0, *after).recovery == recovery


def test_nineteen_of_twenty_are_recovered():
    assert a_run(20, 20, 0, 0, 19).recovery == 0
    assert a_run(20, 20, 0, 0, 18).recovery is None


def test_calls_begin_at_a_steady_rate_in_overload_as_well():
    planned = starts(overload(FULL), random.Random(1))
    assert planned == sorted(planned)
    assert Counter(int(start) for start in planned) == {
        **dict.fromkeys((0, 1, 10), 160),
        **dict.fromkeys(range(2, 10), 300),
    }
    assert planned == starts(overload(FULL), random.Random(1)) != starts(overload(FULL), random.Random(2))


def test_the_reserves_are_under_a_tenth_of_the_calls():
    assert 0.1 * 160 * FULL.outage > RESERVE
    assert 0.1 * FULL.processes * FULL.calls_each > fleet.RESERVE


def test_the_99th_percentile_is_the_fastest_of_the_slowest_hundredth():
    times = [1.0] * 990 + [2.0] + [3.0] * 9
    random.Random(1).shuffle(times)
    assert hedging.percentile(times, 0.99) == 2.0
    assert hedging.percentile(times, 0.98) == 1.0


# --- the server -------------------------------------------------------------------------------------------------------

STEADY = Scenario("test", 2.0, capacity=20, queue=3)


async def statuses(opened: aiohttp.ClientSession, url: str, count: int) -> list[int]:
    async def status() -> int:
        async with opened.get(url) as response:
            return response.status

    return await asyncio.gather(*(status() for _ in range(count)))


async def test_what_finds_the_queue_full_is_refused_and_all_is_counted():
    async with serving(STEADY) as url, session() as opened:
        await begin(opened, url)
        assert Counter(await statuses(opened, url, 10)) == {200: 3, 503: 7}
        assert await statuses(opened, url, 3) == [200] * 3  # There is room again.
        counted = await tally(opened, url)
        assert sum(counted["received"]) == 13
        assert counted["abandoned"] == 0


async def test_it_works_for_those_who_have_gone_away():
    async with serving(replace(STEADY, queue=4)) as url, session() as opened:
        await begin(opened, url)
        waiting = [asyncio.create_task(statuses(opened, url, 1)) for _ in range(3)]
        await asyncio.sleep(0.02)
        waiting[1].cancel()
        waiting[2].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert await statuses(opened, url, 1) == [200]  # It was the fourth in turn.
        assert (await tally(opened, url))["abandoned"] == 2


async def test_in_an_outage_everything_is_refused():
    async with serving(replace(STEADY, outage=Span(0, 0.5))) as url, session() as opened:
        await begin(opened, url)
        assert await statuses(opened, url, 3) == [503] * 3
        await asyncio.sleep(0.6)
        assert await statuses(opened, url, 3) == [200] * 3
        assert (await tally(opened, url))["received"] == [3, 3, 0, 0]


async def test_failures_are_as_frequent_as_they_should_be():
    async with serving(replace(STEADY, capacity=10_000, queue=1000, failure_rate=0.5)) as url, session() as opened:
        counted = Counter(await statuses(opened, url, 200))
        assert 60 < counted[503] < 140
        assert set(counted) == {200, 503}


# --- the client -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONTENDERS)
async def test_all_but_one_get_through_a_short_outage(name: str):
    async with serving(replace(STEADY, outage=Span(0, 0.1))) as url, session() as opened:
        await begin(opened, url)
        [call] = await make_calls(CONTENDERS[name](opened), url, time.monotonic(), [0.0], until=3.0)
        assert (call.ended is None) == (name == NO_RETRY)


async def test_what_has_not_ended_in_the_end_is_cancelled():
    async with serving(replace(STEADY, capacity=2)) as url, session() as opened:
        await begin(opened, url)
        began = time.monotonic()
        calls = await make_calls(CONTENDERS[NO_RETRY](opened), url, began, [0.0, 0.1], until=0.3)
        assert [call.ended for call in calls] == [None, None]
        first, second = sorted(call.begun for call in calls)
        assert 0 <= first < 0.1 <= second


async def test_a_run_counts_what_the_server_and_the_calls_tell():
    made = await run(outage(TINY), BUDGET, seed=1)
    assert (made.scenario, made.contender, made.measured) == ("outage", BUDGET, Span(0.5, 1.0))
    assert 230 < sum(made.begun) <= 240  # The last one may begin a little too late to be counted.
    assert 1 < made.requests_per_call < 2
    assert 0.5 * made.begun[0] < made.in_time[0] <= made.begun[0]
    assert made.in_time[1] < 0.5 * made.begun[1]


async def test_a_fleet_shares_a_budget_in_redis():
    made = await fleet.run(scenarios.fleet(TINY), fleet.SHARED, TINY.processes, seed=1)
    assert 6 <= sum(made.begun) <= 8
    assert made.requests_per_call >= 1


async def test_hedging_is_measured_on_a_server():
    name = "hedge_after=0.05"
    found = await hedging.measure(name, 200)
    assert (found.name, found.calls) == (name, 200)
    assert found.requests > 200
    assert found.p50 < found.p99


def test_the_simulation_knows_all_of_our_policies():
    assert list(simulated.requests_per_call(outage(TINY), seed=1)) == list(POLICIES)


# --- the report -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def last() -> Report:
    """What was measured last."""
    return Report.read(RESULTS)


def test_a_report_is_read_as_it_was_written(last: Report, tmp_path: Path):
    last.write(tmp_path / "results.json")
    assert Report.read(tmp_path / "results.json") == last


def test_the_documentation_shows_what_was_measured_last(last: Report):
    assert (ROOT / "docs" / "outage-table.inc").read_text() == tables.markdown(last), (
        "make it anew: python -m benchmarks draw"
    )


def test_what_has_to_hold_does(last: Report):
    assert len(musts(last)) == 11
    for must in musts(last):
        assert must.holds, must


def test_it_was_measured_in_full(last: Report):
    made = Counter((one.scenario, one.measured) for one in last.runs)
    full = {(name, make(FULL).measured): len(CONTENDERS) for name, make in measure.SCENARIOS.items()}
    assert made == {**full, ("fleet", scenarios.fleet(FULL).measured): 2}, "measure anew: python -m benchmarks outage"
    assert {way.calls for way in last.hedged} == {FULL.hedged}


def test_it_says_what_it_was_measured_with(last: Report):
    assert set(last.versions) == {"Python", *PACKAGES}


def test_it_says_nothing_of_the_machine():
    text = RESULTS.read_text()
    assert set(json.loads(text)) == {"date", "versions", "seed", "runs", "simulated", "hedged"}
    assert "/" not in text


def test_a_must_is_a_limit_that_may_be_reached():
    assert Must("x", 1.1, most=1.1).holds
    assert not Must("x", 1.11, most=1.1).holds
    assert Must("x", 0.97, least=0.97).holds
    assert not Must("x", 0.96, least=0.97).holds


def test_policies_that_the_simulation_ranks_otherwise_are_counted(last: Report):
    assert ranked_otherwise(last) == 0
    exchanged = {**last.simulated, EXPONENTIAL: last.simulated[FULL_JITTER], FULL_JITTER: last.simulated[EXPONENTIAL]}
    assert ranked_otherwise(replace(last, simulated=exchanged)) == 2


def test_a_part_of_it_has_fewer_tables(last: Report):
    assert len(tables.tables(last)) == 5
    assert [table.title for table in tables.tables(replace(last, runs=(), simulated={}))] == [
        "Hedging, where 1 % of the answers take 1 s"
    ]


def test_what_missed_its_goal_is_named(last: Report):
    slow = tuple(replace(way, p99=1.0) for way in last.hedged)
    missed = [row for row in tables.goals(replace(last, hedged=slow)).rows if row[-1] != "yes"]
    assert [row[0] for row in missed] == [
        f"`{way.name}`: p99 without hedging, over that with it" for way in last.hedged[1:]
    ]


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_picture_is_drawn(last: Report, tmp_path: Path, suffix: str):
    path = tmp_path / f"storm.{suffix}"
    picture.draw(last, path)
    assert path.stat().st_size > 10_000


def test_the_picture_names_all_contenders():
    drawn = (ROOT / "docs" / "storm.svg").read_text()
    assert all(f">{name}<" in drawn for name in CONTENDERS)


# --- the command ------------------------------------------------------------------------------------------------------


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "benchmarks", "outage", *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def test_it_says_what_there_is_to_measure():
    asked = command("--only", "inrage", "outage")
    assert asked.returncode == 1
    assert asked.stderr == (
        "there is nothing to measure named inrage; there is outage, long-queue, overload, failures, fleet, simulation,"
        " hedging\n"
    )


def test_a_part_is_measured_and_shown_but_not_saved():
    before = RESULTS.read_bytes()
    shown = command("--smoke", "--only", "simulation")
    assert shown.returncode == 0, shown.stderr
    assert BUDGET in shown.stdout
    assert "saved" not in shown.stdout
    assert RESULTS.read_bytes() == before


def test_smoke_is_less_of_everything():
    assert all(less < more for less, more in zip(SMOKE[:-1], FULL[:-1], strict=True))
    assert SMOKE.at_once
    assert not FULL.at_once
