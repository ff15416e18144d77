"""The picture for the documentation: what reaches the server in an outage, and what comes of it."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from benchmarks.outage.contenders import CONTENDERS
from benchmarks.outage.report import Report
from benchmarks.outage.runs import Run
from benchmarks.outage.scenarios import CAPACITY, WINDOW
from benchmarks.picture import STYLE

COLUMNS = {
    "outage": "An outage of 5 s",
    "long-queue": "The same, with a queue longer than clients wait",
}
"""The scenarios that are drawn, beside one another."""

# Two that can be told apart whatever colours one sees (M. Okabe and K. Ito, "Color Universal Design", 2008).
_LOAD_COLOR, _GOOD_COLOR, _TEXT_COLOR = "#d55e00", "#0072b2", "#22272e"


def draw(report: Report, path: Path) -> None:
    """Write the picture, in the format that the path's suffix says."""
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]  # it wants the names as literals
        canvas = Canvas(figsize=(9, 11), layout="constrained")
        grid = canvas.subplots(len(CONTENDERS), len(COLUMNS), sharex=True, sharey=True)
        for row, name in zip(grid, CONTENDERS, strict=True):
            for axes, scenario in zip(row, COLUMNS, strict=True):
                _draw_panel(axes, report.run(scenario, name))
                axes.set_title(name)
        handles, labels = grid[0][0].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
        for axes, title in zip(grid[0], COLUMNS.values(), strict=True):
            axes.set_title(f"{title}\n\n{axes.get_title(loc='left')}")
        grid[0][0].set_ylim(bottom=0)  # Of all, now that the highest is known.
        canvas.supxlabel("seconds")
        canvas.supylabel("per second")
        canvas.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_panel(axes: Axes, run: Run) -> None:
    edges = WINDOW * np.arange(len(run.received) + 1)
    load, good = np.array(run.received) / WINDOW, np.array(run.in_time) / WINDOW
    axes.axvspan(*run.measured, color="0.9", linewidth=0, label="outage")
    axes.axhline(CAPACITY, color=_TEXT_COLOR, linewidth=1, linestyle=(0, (4, 2)), label="capacity of the server")
    axes.stairs(good, edges, fill=True, color=_GOOD_COLOR, alpha=0.55, label="calls that succeed within 2 s")
    axes.stairs(load, edges, color=_LOAD_COLOR, linewidth=1.6, baseline=None, label="requests that reach the server")
    axes.set_xlim(0, edges[-1])
