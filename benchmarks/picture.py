"""The picture for the documentation: what a call costs with each library, over code that has none in it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from benchmarks.measure import BY_HAND, Figure, Row
from benchmarks.report import OURS, PEERS, Report, shown

PANELS = ("success", "statuses", "exceptions", "giving-up", "wire", "wire-503", "memory", "cancel")
"""The figures that are drawn, two in a row. Those in a row have the same scale."""

WIDE = {"success", "statuses", "exceptions", "giving-up"}
"""Those where the libraries are so far apart that the scale is logarithmic."""

_OUR_COLOR, _OTHER_COLOR, _TEXT_COLOR = "#1d6fb8", "#b3b9c2", "#22272e"

STYLE: dict[str, Any] = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "figure.facecolor": "white",  # It is looked at on a dark page, too.
    "font.size": 9,
    "text.color": _TEXT_COLOR,
    "svg.fonttype": "none",  # Text stays text.
    # The file depends on the figures alone.
    "svg.hashsalt": "retrykit",
}


def draw(report: Report, path: Path) -> None:
    """Write the picture, in the format that the path's suffix says."""
    figures = {figure.name: figure for figure in report.figures}
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]  # it wants the names as literals
        canvas = Canvas(figsize=(9, 10.5), layout="constrained")
        grid = canvas.subplots(len(PANELS) // 2, 2, sharex="row")
        for axes, name in zip(grid.flat, PANELS, strict=True):
            _draw_panel(axes, figures[name])
        canvas.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_panel(axes: Axes, figure: Figure) -> None:
    rows = list(_drawn(figure.rows))
    axes.set_title(f"{figure.title}\nover {figure.over}")
    is_wide = figure.name in WIDE
    axes.set_xscale("log" if is_wide else "linear")
    start = 1 if is_wide else 0  # A logarithmic scale has no zero, and the baseline is at 1.
    for place, row in enumerate(rows):
        axes.barh(place, row.median - start, left=start, color=_OUR_COLOR if row.name in OURS else _OTHER_COLOR)
        end = (max(row.median, 1), place)
        axes.annotate(shown(row.median), end, (4, 0), textcoords="offset points", va="center")
    axes.axvline(1, color=_TEXT_COLOR, linewidth=1)
    axes.tick_params(axis="y", length=0)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter("")


def _drawn(rows: Iterable[Row]) -> Iterable[Row]:
    """The rows of all libraries, ours first."""
    found = {row.name: row for row in rows}
    return (found[name] for name in (*OURS, BY_HAND, *PEERS) if name in found)
