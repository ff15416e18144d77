"""The examples run, and print what their page in the documentation shows.

Each runs in a process of its own, where warnings are errors. What it prints is in examples/output; after a change, look
at it, and write it anew: `python examples/NAME.py > examples/output/NAME.txt 2>&1`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.redis.server import find_redis_server

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
PAGE = ROOT / "docs" / "examples.md"
STAGE = "# --- the stage"


def run_example(name: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it as in an empty terminal of 80 columns; what it printed, errors included, is its `stdout`."""
    inherited = {key: value for key, value in os.environ.items() if key not in {"FORCE_COLOR", "TTY_COMPATIBLE"}}
    environment = {**inherited, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "COLUMNS": "80", **variables}
    command = [sys.executable, "-X", "dev", "-W", "error", str(EXAMPLES / f"{name}.py")]
    return subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=30,
        check=False,
    )


def steady(output: str) -> list[str]:
    """The lines, but for the ports of servers, and what asyncio's debug mode says on a machine that is busy."""
    lines = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:…", output).splitlines()
    return [line for line in lines if not re.search(r"Executing <.* took [\d.]+ seconds$", line)]


@pytest.mark.parametrize("name", NAMES)
def test_an_example_prints_what_is_shown(name: str) -> None:
    if name == "fleet":
        find_redis_server()
    run = run_example(name)
    assert steady(run.stdout) == steady((EXAMPLES / "output" / f"{name}.txt").read_text(encoding="utf-8"))
    assert run.returncode == 0


def test_the_fleet_is_skipped_where_there_is_no_redis_server(tmp_path: Path) -> None:
    run = run_example("fleet", PATH=str(tmp_path))
    assert steady(run.stdout) == [
        "skipped: redis-server is not installed (Debian, Ubuntu: apt-get install redis-server)"
    ]
    assert run.returncode == 77


def test_every_output_is_of_an_example() -> None:
    assert sorted(path.stem for path in (EXAMPLES / "output").iterdir()) == NAMES


def test_the_page_shows_every_example_and_its_output() -> None:
    shown = re.findall(r"^~~~\{literalinclude\} \.\./examples/(\S+)$", PAGE.read_text(), re.MULTILINE)
    assert len(NAMES) >= 9
    assert sorted(shown) == sorted(file for name in NAMES for file in (f"{name}.py", f"output/{name}.txt"))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_to_be_copied_stands_before_the_stage(name: str) -> None:
    before, *stage = (EXAMPLES / f"{name}.py").read_text().split(STAGE)
    assert len(stage) == 1
    assert max(map(len, before.splitlines())) <= 100, "the page has no room for longer lines"
    copied = before.partition("\n\n\n")[2]  # What follows the imports.
    assert not re.search(r"\b(ScriptedServer|TestServer|no_waits|asyncio\.run)\b", copied)
