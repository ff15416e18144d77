"""Run the benchmarks, or draw what they found: `python -m benchmarks --help`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import RESULTS, ROOT, outage, report

DOCS = ROOT / "docs"
TABLE, PICTURE = DOCS / "performance-table.inc", DOCS / "performance.svg"
OUTAGE_TABLE, OUTAGE_PICTURE = DOCS / "outage-table.inc", DOCS / "storm.svg"


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except ModuleNotFoundError as missing:
        sys.exit(f"{missing.name} is not installed; all that the benchmarks need comes with: pip install -e '.[bench]'")
    except LookupError as unknown:
        sys.exit(str(unknown))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description="What retries cost, and what they do.")
    commands = parser.add_subparsers(required=True)

    run = commands.add_parser("run", help="measure what a retry costs, and print and save what was found")
    run.set_defaults(command=_run)
    _add_options(run, RESULTS)

    outages = commands.add_parser("outage", help="the same for outages, overload and hedging")
    outages.set_defaults(command=_outage)
    _add_options(outages, outage.RESULTS)

    draw = commands.add_parser("draw", help="make the tables and the pictures of the documentation")
    draw.set_defaults(command=_draw)
    draw.add_argument("file", nargs="?", type=Path, default=RESULTS, help="what `run` has saved")
    draw.add_argument("outage", nargs="?", type=Path, default=outage.RESULTS, help="what `outage` has saved")
    return parser


def _add_options(command: argparse.ArgumentParser, results: Path) -> None:
    command.add_argument(
        "--only", nargs="+", metavar="NAME", help="measure these alone, and save them only with --json"
    )
    command.add_argument("--smoke", action="store_true", help="only see that everything works; nothing is saved")
    command.add_argument("--json", type=Path, metavar="FILE", help=f"save here (default: {results.relative_to(ROOT)})")
    command.add_argument("--seed", type=int, default=1, help="what chance begins with (default: 1)")


def _run(options: argparse.Namespace) -> None:
    from rich.console import Console  # noqa: PLC0415 - comes with the extra, as do the libraries that `run` needs.

    from benchmarks.effort import FULL, SMOKE  # noqa: PLC0415
    from benchmarks.run import answers, chosen  # noqa: PLC0415

    console, figures = Console(), []
    for figure in answers(chosen(options.only), SMOKE if options.smoke else FULL, options.seed):
        console.print(report.table([figure]))
        figures.append(figure)
    path = options.json or (None if options.only else RESULTS)
    if path is not None and not options.smoke:
        report.Report.of(figures, options.seed).write(path)
        console.print(f"saved in {path}")


def _outage(options: argparse.Namespace) -> None:
    from rich.console import Console  # noqa: PLC0415

    from benchmarks.outage import measure, scenarios, tables  # noqa: PLC0415

    console = Console()
    effort = scenarios.SMOKE if options.smoke else scenarios.FULL
    found = measure.measure(measure.chosen(options.only), effort, options.seed, console.print)
    is_whole = not (options.only or options.smoke)
    for table in (*tables.tables(found), *([tables.goals(found)] if is_whole else [])):
        console.print(table.rich())
    path = options.json or (outage.RESULTS if is_whole else None)
    if path is not None and not options.smoke:
        found.write(path)
        console.print(f"saved in {path}")


def _draw(options: argparse.Namespace) -> None:
    from benchmarks.outage import picture as storm  # noqa: PLC0415 - it needs matplotlib, as does the other one.
    from benchmarks.outage import report as outage_report  # noqa: PLC0415
    from benchmarks.outage import tables  # noqa: PLC0415
    from benchmarks.picture import draw  # noqa: PLC0415

    measured = report.Report.read(options.file)
    TABLE.write_text(report.markdown(measured))
    draw(measured, PICTURE)

    in_outage = outage_report.Report.read(options.outage)
    OUTAGE_TABLE.write_text(tables.markdown(in_outage))
    storm.draw(in_outage, OUTAGE_PICTURE)


if __name__ == "__main__":
    main()
