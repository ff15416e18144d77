"""Draws docs/backoff.svg: `python docs/pictures.py`. The waits in it are those of the package, drawn with a seed."""

import random
import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from retrykit import RetryPolicy
from retrykit.core import backoff

DOCS = Path(__file__).parent
PICTURE = "backoff.svg"

CLIENTS, ATTEMPTS = 1000, 5
KINDS = ("none", "equal", "full", "decorrelated")
STEP, END = 0.1, 20.0
"""Seconds: of one bar, and of the whole picture."""

# Two of the colours of M. Okabe and K. Ito ("Color Universal Design", 2008), one light and one dark.
_LIGHT, _DARK, _TEXT = "#56b4e9", "#a63c00", "#22272e"
_STYLE = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.facecolor": "white",  # It is looked at on a dark page, too.
    "font.size": 10,
    "text.color": _TEXT,
    "svg.fonttype": "none",  # Text stays text.
    "svg.hashsalt": "retrykit",
}


def retry_times(jitter: str, clients: int = CLIENTS) -> list[float]:
    """When the retries of these clients begin: seconds after the moment at which they all failed."""
    policy, generator = RetryPolicy(max_retries=ATTEMPTS, jitter=jitter), random.Random(1)  # noqa: S311 - no secret
    times = []
    for _ in range(clients):
        now = previous = 0.0
        for attempt in range(1, ATTEMPTS):
            schedule = (attempt, previous, policy.base_delay, policy.max_delay)
            previous = backoff.delay(jitter, *schedule, draw=generator.random())
            now += previous
            times.append(now)
    return times


def in_steps(times: list[float]) -> list[int]:
    """How many there are in each step of time, to the end of the picture."""
    counts = [0] * round(END / STEP)
    for time in times:
        if time < END:
            counts[int(time / STEP + 1e-9)] += 1
    return counts


def draw(path: Path) -> None:
    """Draw the picture to this file."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, 6.4), layout="constrained")
        panels = figure.subplots(len(KINDS), 1, sharex=True, sharey=True)
        for axes, jitter in zip(panels, KINDS, strict=True):
            _draw_kind(axes, jitter)
        panels[-1].set_xlabel("seconds after all of them failed")
        figure.supylabel(f"retries in each {STEP:g} s", fontsize=10)
        figure.savefig(path, metadata={"Date": None})


def _draw_kind(axes: Axes, jitter: str) -> None:
    counts = in_steps(retry_times(jitter))
    edges = [number * STEP for number in range(len(counts) + 1)]
    axes.stairs(counts, edges, fill=True, color=_DARK if jitter == "none" else _LIGHT)
    axes.set_title(f'jitter="{jitter}"', fontweight="bold")
    axes.set_title(f"at most {max(counts):,} in {STEP:g} s", loc="right")
    axes.set_xlim(0, END)
    axes.set_xticks(range(0, round(END) + 1, 2))
    # With the square root of the counts, the small ones can be seen beside those of all at once.
    axes.set_yscale("function", functions=(lambda value: abs(value) ** 0.5, lambda value: value**2))
    axes.set_ylim(0, CLIENTS * 1.05)
    axes.set_yticks([0, 100, 400, 1000])
    axes.yaxis.set_minor_locator(NullLocator())


if __name__ == "__main__":
    draw(DOCS / PICTURE if len(sys.argv) == 1 else Path(sys.argv[1]))
