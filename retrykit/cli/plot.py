"""The pictures of `simulate` and `plan`. What they show can be told apart without colour, too."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from retrykit.cli.plan import Wait, span, worst_case
from retrykit.cli.simulate import recovery_of
from retrykit.core.events import in_seconds
from retrykit.core.policy import RetryPolicy
from retrykit.simulate import Result, Scenario

# Two of the colours of M. Okabe and K. Ito ("Color Universal Design", 2008), one light and one dark.
_LIGHT, _DARK = "#56b4e9", "#a63c00"
_TEXT, _FAINT = "#22272e", "#e3e6ea"
_HATCH, _DASHES = "////", (0, (4, 3))

_STYLE: dict[str, Any] = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "figure.facecolor": "white",  # It is looked at on a dark page, too.
    "font.size": 9,
    "hatch.color": "#9aa1ab",
    "hatch.linewidth": 0.6,
    "text.color": _TEXT,
    "svg.fonttype": "none",  # Text stays text.
    # The file depends on what it shows alone.
    "svg.hashsalt": "retrykit",
}


def draw_simulation(results: Sequence[Result], path: Path) -> None:
    """Draw load and goodput over time, a panel for each policy.

    Args:
        results: Of one scenario.
        path: Where to; its suffix says in which format.

    Raises:
        OSError: It can't be written.
    """
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]  # it wants the names as literals
        figure = Figure(figsize=(9, 1 + 1.7 * len(results)), layout="constrained")
        panels = figure.subplots(len(results), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        scenario = results[0].scenario
        for axes, result in zip(panels, results, strict=True):
            _draw_events(axes, scenario)
            _draw_result(axes, result)
        panels[0].set_xlim(0, scenario.duration)
        panels[0].set_ylim(bottom=0)
        panels[0].yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        _name_events(panels[0], scenario)
        panels[-1].set_xlabel("seconds")
        figure.supylabel("per second", fontsize=9)
        figure.legend(handles=_legend(scenario), loc="outside upper center", ncols=5, frameon=False)
        _save(figure, path)


def draw_plan(policy: RetryPolicy, waits: Sequence[Wait], path: Path) -> None:
    """Draw the waits of a policy, and when its attempts begin.

    Args:
        policy: Whose.
        waits: All of them.
        path: As of `draw_simulation`.

    Raises:
        OSError: It can't be written.
    """
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(9, 1.6 + 0.3 * policy.max_retries), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        figure.suptitle(str(policy), fontsize=10, x=0.01, ha="left")
        _draw_waits(left, waits)
        _draw_attempts(right, policy, waits)
        left.set_yticks(range(1, policy.max_retries + 1))
        left.set_ylim(policy.max_retries + 0.6, 0.4)
        left.set_ylabel("attempt")
        figure.legend(handles=_plan_legend(policy), loc="outside lower center", ncols=2, frameon=False)
        _save(figure, path)


# --- a simulation -----------------------------------------------------------------------------------------------------


def _draw_result(axes: Axes, result: Result) -> None:
    scenario = result.scenario
    count = math.ceil(round(scenario.duration / scenario.window, 9))
    edges = [number * scenario.window for number in range(count + 1)]
    load, goodput = ([n / scenario.window for n in series[:count]] for series in (result.received, result.served))
    axes.stairs(goodput, edges, fill=True, color=_LIGHT)
    axes.stairs(load, edges, baseline=None, color=_DARK, linewidth=1.3)
    axes.axhline(scenario.capacity, color=_TEXT, linewidth=0.8, linestyle=_DASHES)
    axes.set_title(result.name, fontweight="bold")
    axes.set_title(_in_words(result), loc="right")


def _in_words(result: Result) -> str:
    parts = [f"{result.requests_per_call:.2f} requests per call", f"{result.success:.0%} of the calls succeed"]
    match recovery_of(result):
        case "never":
            parts.append("never recovers")
        case "at once":
            parts.append("recovers at once")
        case seconds if result.scenario.outages:
            parts.append(f"recovers in {seconds}")
    return " · ".join(parts)


def _draw_events(axes: Axes, scenario: Scenario) -> None:
    for start, end in scenario.outages:
        axes.axvspan(start, end, facecolor=_FAINT, hatch=_HATCH, linewidth=0, zorder=0)
    for start, end, _ in scenario.overloads:
        axes.axvspan(start, end, facecolor=_FAINT, linewidth=0, zorder=0)


def _name_events(axes: Axes, scenario: Scenario) -> None:
    names = [(start, end, "outage") for start, end in scenario.outages]
    names += [(start, end, f"{factor:g}x") for start, end, factor in scenario.overloads]
    top = axes.get_xaxis_transform()
    for start, end, name in names:
        behind = _ON_HATCHES if name == "outage" else None
        axes.text((start + end) / 2, 0.95, name, transform=top, ha="center", va="top", bbox=behind)


_ON_HATCHES: dict[str, Any] = {"facecolor": _FAINT, "edgecolor": "none", "pad": 1.5}


def _legend(scenario: Scenario) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=_DARK, linewidth=1.3, label="requests received"),
        Patch(facecolor=_LIGHT, label="calls that succeeded"),
        Line2D([], [], color=_TEXT, linewidth=0.8, linestyle=_DASHES, label="capacity"),
    ]
    if scenario.outages:
        handles.append(Patch(facecolor=_FAINT, hatch=_HATCH, linewidth=0, label="outage"))
    if scenario.overloads:
        handles.append(Patch(facecolor=_FAINT, label="times as many calls"))
    return handles


# --- a plan -----------------------------------------------------------------------------------------------------------


def _draw_waits(axes: Axes, waits: Sequence[Wait]) -> None:
    axes.set_title("the wait before it")
    axes.set_xlabel("seconds")
    for wait in waits:
        _draw_span(axes, wait.attempt + 1, wait.shortest, wait.longest)
        if wait.mean is not None and wait.shortest < wait.longest:
            axes.plot(wait.mean, wait.attempt + 1, **_MEAN)
    axes.set_xlim(0, 1.35 * max((wait.longest for wait in waits), default=1.0) or 1.0)


def _draw_attempts(axes: Axes, policy: RetryPolicy, waits: Sequence[Wait]) -> None:
    axes.set_title("when it begins")
    axes.set_xlabel("seconds since the call began")
    timeout, per_attempt = policy.timeout or math.inf, policy.attempt_timeout or math.inf
    begins = [(0.0, 0.0), *((wait.earliest, wait.latest) for wait in waits)]
    ends = []
    for attempt, (earliest, latest) in enumerate(begins, 1):
        if earliest >= timeout:
            axes.annotate("never", (timeout, attempt), **_BESIDE)
            continue
        longest = min(timeout, latest)
        slowest = min(timeout, latest + (attempt - 1) * per_attempt) if attempt > 1 else 0.0
        end = longest if slowest == math.inf else slowest
        axes.barh(attempt, end - longest, left=longest, **_SLOW)
        _draw_span(axes, attempt, earliest, longest, end)
        ends.append(end)
    worst = worst_case(policy)
    if worst < math.inf:
        axes.axvline(worst, color=_DARK, linewidth=1.3)
    if worst < timeout < math.inf:
        axes.axvline(timeout, color=_TEXT, linewidth=0.8, linestyle=_DASHES)
    axes.set_xlim(0, 1.4 * max(known for known in (*ends, worst, timeout) if known < math.inf) or 1.0)


def _draw_span(axes: Axes, row: int, shortest: float, longest: float, end: float | None = None) -> None:
    """A bar from the shortest to the longest time, and beside it what it says; no time at all shows as a line."""
    if shortest < longest:
        axes.barh(row, longest - shortest, left=shortest, height=0.5, color=_LIGHT)
    else:
        axes.plot(longest, row, marker="|", color=_LIGHT, markersize=11, markeredgewidth=3)
    end = longest if end is None else end
    axes.annotate(span(shortest, end), (end, row), **_BESIDE)


_ON_LINES = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
_BESIDE: dict[str, Any] = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "bbox": _ON_LINES}
_MEAN: dict[str, Any] = {"marker": "|", "color": _DARK, "markersize": 11, "markeredgewidth": 2, "linestyle": "none"}
_SLOW: dict[str, Any] = {"facecolor": "white", "edgecolor": "#9aa1ab", "hatch": _HATCH, "height": 0.5, "linewidth": 0.6}


def _plan_legend(policy: RetryPolicy) -> list[Line2D | Patch]:
    waits = "by the waits alone" if policy.jitter == "none" else "from the shortest waits to the longest"
    handles: list[Line2D | Patch] = [Patch(facecolor=_LIGHT, label=waits)]
    if policy.jitter != "none":
        handles.append(Line2D([], [], label="on average", **_MEAN))
    worst = worst_case(policy)
    if worst < math.inf:
        slow = {name: value for name, value in _SLOW.items() if name != "height"}
        handles.append(Patch(**slow, label="and if the attempts before it take as long as they may"))
        handles.append(Line2D([], [], color=_DARK, linewidth=1.3, label=f"the end at the latest: {in_seconds(worst)}"))
    if policy.timeout is not None and worst < policy.timeout:
        handles.append(Line2D([], [], color=_TEXT, linewidth=0.8, linestyle=_DASHES, label="timeout"))
    return handles


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None} if path.suffix.lower() == ".svg" else None, dpi=150)
