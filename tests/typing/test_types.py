"""mypy and pyright read `cases.py`, what they must accept and as what, and `refusals.py`, what they must refuse."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path("tests", "typing")

# Long enough for the first start of pyright, which fetches itself.
_PATIENCE = 300


def run(*module: str | Path) -> tuple[int, str]:
    """Run a module from the root of the project; its exit status, and what it printed."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", *module],
            cwd=ROOT,
            env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return -1, f"no end after {_PATIENCE} seconds"
    return done.returncode, done.stdout + done.stderr


@functools.cache
def why_pyright_does_not_start() -> str | None:
    status, output = run("pyright", "--version")
    return None if status == 0 else output


def need_pyright() -> None:
    """Skip where pyright can't be started, for want of node or a network; fail where CI says that all is there."""
    why = why_pyright_does_not_start()
    if why is not None and not os.environ.get("CI"):
        pytest.skip(f"pyright can't be started: {why.strip()[-200:]}")
    assert why is None, why


def test_mypy_sees_what_it_must() -> None:
    status, output = run("mypy", "--strict", HERE / "cases.py", HERE / "refusals.py")
    assert status == 0, output


def test_pyright_sees_what_it_must() -> None:
    need_pyright()
    status, output = run("pyright", "-p", HERE / "pyrightconfig.json", "--pythonpath", sys.executable)
    assert status == 0, output


def test_every_refusal_is_expected_of_both_checkers() -> None:
    """A line that only one of them refuses would be a hole in the other's half of the file."""
    lines = (ROOT / HERE / "refusals.py").read_text().splitlines()
    one_sided = [line for line in lines if ("# type: ignore[" in line) != ("# pyright: ignore[" in line)]
    assert not one_sided
