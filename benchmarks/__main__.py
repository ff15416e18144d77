"""Run the benchmarks, or draw what they found: `python -m benchmarks --help`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import RESULTS, ROOT, report

TABLE = ROOT / "docs" / "performance-table.inc"
PICTURE = ROOT / "docs" / "performance.svg"


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
    parser = argparse.ArgumentParser("python -m benchmarks", description="What a retry costs.")
    commands = parser.add_subparsers(required=True)

    run = commands.add_parser("run", help="measure, and print and save what was found")
    run.set_defaults(command=_run)
    run.add_argument("--only", nargs="+", metavar="NAME", help="measure these alone, and save them only with --json")
    run.add_argument("--smoke", action="store_true", help="only see that everything works; nothing is saved")
    run.add_argument("--json", type=Path, metavar="FILE", help=f"save here (default: {RESULTS.relative_to(ROOT)})")
    run.add_argument("--seed", type=int, default=1, help="what the shuffling begins with (default: 1)")

    draw = commands.add_parser("draw", help="make the table and the picture of the documentation")
    draw.set_defaults(command=_draw)
    draw.add_argument("file", nargs="?", type=Path, default=RESULTS, help="what `run` has saved")
    return parser


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


def _draw(options: argparse.Namespace) -> None:
    from benchmarks.picture import draw  # noqa: PLC0415 - it needs matplotlib.

    measured = report.Report.read(options.file)
    TABLE.write_text(report.markdown(measured))
    draw(measured, PICTURE)


if __name__ == "__main__":
    main()
