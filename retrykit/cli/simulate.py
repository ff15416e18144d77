"""`python -m retrykit simulate`: several policies in an outage, a burst and an overload, side by side."""

import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from retrykit.cli.console import Output
from retrykit.core.events import in_seconds
from retrykit.core.policy import RetryPolicy
from retrykit.guards.breaker import CircuitBreaker
from retrykit.guards.budget import RetryBudget
from retrykit.guards.pause import OriginPause
from retrykit.simulate import Result, Scenario, simulate

# The load is 0.6 of the capacity unless it is given, so that this overload is 1.5 of it; and the queue holds a little
# more than what callers who wait for a second have the patience for.
_BUSY, _SECONDS_QUEUED = 0.6, 1.2
_OUTAGES = ((10.0, 15.0),)
_OVERLOADS = ((30.0, 31.0, 4.0), (40.0, 45.0, 2.5))


def scenario_of(arguments: Namespace) -> Scenario:
    """What the arguments say, and else the default.

    Raises:
        ValueError: Two of them contradict one another.
    """
    given: dict[str, Any] = {name: value for name, value in vars(arguments).items() if value is not None}
    rate: float = given.get("rate", 600.0)
    capacity: float = given.get("capacity", rate / _BUSY)
    queue: int = given.get("queue", round(_SECONDS_QUEUED * capacity))
    clients, duration = given.get("clients", 1000), given.get("duration", 60.0)
    if "outage" not in given and "overload" not in given:
        given["outage"], given["overload"] = _before(duration, _OUTAGES), _before(duration, _OVERLOADS)
    for start, end in given.get("outage", ()):
        if end >= duration:
            raise ValueError(
                f"the outage {start:g}-{end:g} goes on to the end, --duration {duration:g}, so that nobody could see"
                " what comes after it; write a longer --duration"
            )
    return Scenario(
        clients=clients,
        processes=given.get("processes", min(10, clients)),
        rate=rate,
        duration=duration,
        capacity=capacity,
        queue=queue,
        outages=tuple(given.get("outage", ())),
        overloads=tuple(given.get("overload", ())),
        failure_rate=given.get("failure_rate", 0.0),
        retry_after=given.get("retry_after", 1.0) or None,
    )


def _before(duration: float, events: Iterable[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Those that are over before that."""
    return [event for event in events if event[1] < duration]


def compared(policy: RetryPolicy) -> dict[str, Callable[[], RetryPolicy]]:
    """The policies that are put side by side.

    Args:
        policy: How often, and after what waits. Without jitter, the row for jitter is left out.
    """
    rows: dict[str, Callable[[], RetryPolicy]] = {
        "no retry": lambda: policy.replace(max_retries=1),
        "exponential": lambda: policy.replace(jitter="none"),
        f"{policy.jitter} jitter": lambda: policy,
        "budget": lambda: policy.replace(budget=RetryBudget()),
        "budget + breaker + pause": lambda: policy.replace(
            budget=RetryBudget(), breaker=CircuitBreaker(), pause=OriginPause()
        ),
    }
    rows.pop("none jitter", None)
    return rows


def run(scenario: Scenario, policies: Mapping[str, Callable[[], RetryPolicy]], seed: int) -> list[Result]:
    """Simulate, and print the table.

    Args:
        scenario: What the policies are put through.
        policies: By their names.
        seed: What the random numbers follow from.

    Returns:
        What came of them, for a picture.
    """
    console = Output()
    _introduce(console, scenario, seed)
    results: list[Result] = []
    for name, make in policies.items():
        with _progress(f"simulating {name} …"):
            results += simulate(scenario, {name: make}, seed)
    console.print(_table(scenario, results))
    for result in results:
        console.print(f"[bold]{result.name}[/]: {result.policy}")
    return results


def _progress(what: str) -> AbstractContextManager[object]:
    """Show what is done, where somebody sees it: elsewhere, standard error may take nothing."""
    is_seen = sys.stderr is not None and sys.stderr.isatty()
    return Console(stderr=True).status(what) if is_seen else nullcontext()


def recovery_of(result: Result) -> str:
    """How long it took after the outage, in words."""
    if not result.scenario.outages:
        return "-"
    if result.recovery is None:
        return "never"
    return in_seconds(result.recovery) if result.recovery else "at once"


def _introduce(console: Console, scenario: Scenario, seed: int) -> None:
    processes = "1 process" if scenario.processes == 1 else f"{scenario.processes:,} processes"
    retry_after = in_seconds(scenario.retry_after) if scenario.retry_after else "none"
    console.print(
        f"{scenario.clients:,} callers in {processes}: {scenario.rate:,g} calls/s for {scenario.duration:g} s"
    )
    console.print(
        f"a server of {scenario.capacity:,g} requests/s, with a queue of {scenario.queue:,}; Retry-After: {retry_after}"
    )
    events = [f"outage {start:g} to {end:g} s" for start, end in scenario.outages] or ["no outage"]
    events += [f"{factor:g}x the calls {start:g} to {end:g} s" for start, end, factor in scenario.overloads]
    if scenario.failure_rate:
        events.append(f"{scenario.failure_rate:.3g} of the requests fail at random")
    console.print(f"{', '.join([*events, f'seed {seed}'])}")


def _table(scenario: Scenario, results: Sequence[Result]) -> Table:
    spans = [("outage", *outage) for outage in scenario.outages]
    spans += [(f"{factor:g}x", start, end) for start, end, factor in scenario.overloads]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("policy", max_width=17)
    table.add_column("requests\nper call", justify="right", no_wrap=True)
    for title, _, _ in spans:
        table.add_column(f"in the\n{title}" if title == "outage" else f"at\n{title}", justify="right", no_wrap=True)
    for title in ("goodput\nper s", "success", "recovers"):
        table.add_column(title, justify="right", no_wrap=True)
    for result in results:
        counts = [result.requests_per_call, *(result.requests_per_call_in(start, end) for _, start, end in spans)]
        table.add_row(
            result.name,
            *(f"{count:.2f}" for count in counts),
            f"{result.goodput:,.0f}",
            f"{result.success:.1%}",
            recovery_of(result),
        )
    return table
