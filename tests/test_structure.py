"""Holds the package to its floors (a floor imports only from floors above it), and its public names to their list."""

import ast
import configparser
import dataclasses
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

import retrykit
from retrykit.core.policy import _CHECKS, FurtherOptions, RetryOptions, RetryPolicy
from retrykit.http.send import CallOptions

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "retrykit"
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}

ROOMS = {
    "core": [
        "clock",
        "events",
        "history",
        "errors",
        "backoff",
        "retry_after",
        "classify",
        "checks",
        "protocols",
        "policy",
        "strategies",
        "decision",
        "listeners",
        "scope",
        "limits",
        "discard",
        "plan",
        "run",
        "guarded",
        "loop",
        "decorator",
    ],
    "guards": ["origins", "budget", "pause", "breaker", "hedge"],
    "http": [
        "address",
        "internals",
        "replay",
        "send",
        "middleware",
        "ranges",
        "sessions",
        "transfer",
        "stream",
        "client",
        "fetch",
        "fetch_all",
        "part",
        "download",
    ],
}
"""The floors inside, and the files on each, from the top: each imports only from what stands above it."""

DOORS = ["redis", "telemetry", "testing", "simulate", "cli"]
"""What only users open, in the same order; a door's own files may import one another as they like."""

PUBLIC_NAMES = "the public names"
FLOORS = [*ROOMS, PUBLIC_NAMES, *DOORS]

OPTIONAL_PACKAGES = {"hypothesis", "matplotlib", "opentelemetry", "prometheus_client", "pytest", "redis", "rich"}

TIME_AND_CHANCE = {
    "asyncio.sleep",
    "asyncio.timeout",
    "asyncio.timeout_at",
    "asyncio.wait_for",
    "datetime.date.today",
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
    "random",
    "secrets",
    "time",
}
"""What reads a clock, waits, or draws: modules, and functions of modules."""


# --- reading the package ----------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where a module stands: two numbers that grow downwards."""

    floor: int
    room: int


def module_name(file: str) -> str:
    """`core/clock.py` -> `retrykit.core.clock`."""
    parts = file.removesuffix(".py").split("/")
    return ".".join(["retrykit", *(part for part in parts if part != "__init__")])


MODULES = {module_name(file) for file in FILES}


def place_of(module: str) -> Place:
    """Where a module of the package stands.

    Raises:
        LookupError: It is on no list.
    """
    floor, *rooms = module.split(".")[1:] or [PUBLIC_NAMES]
    if floor == "__main__":  # It opens the door of that name, and is nothing else.
        floor = "cli"
    if floor not in FLOORS:
        raise LookupError(f"{module} is on no floor; add it to ROOMS or DOORS in tests/test_structure.py")
    if floor not in ROOMS or not rooms:
        return Place(FLOORS.index(floor), 0)
    if rooms[0] not in ROOMS[floor]:
        raise LookupError(f"{module} is on no list; add it to ROOMS[{floor!r}] in tests/test_structure.py")
    return Place(FLOORS.index(floor), ROOMS[floor].index(rooms[0]) + 1)


def may_import(importer: str, imported: str) -> bool:
    source, target = place_of(importer), place_of(imported)
    same_door = source.floor == target.floor and FLOORS[source.floor] in DOORS
    return target < source or same_door


class Import(NamedTuple):
    """One imported name."""

    path: str
    """In full, such as `asyncio.sleep`."""
    local: str
    """What it is called where it was imported."""


def imports_of(source: ast.AST, module: str) -> Iterator[Import]:
    """All that is imported, wherever it stands: also in a function, and under `if TYPE_CHECKING`."""
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, alias.asname or alias.name)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*package, *filter(None, [node.module])])
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", alias.asname or alias.name)


def modules_imported_by(source: ast.AST, module: str) -> set[str]:
    """The modules of the package among it; `from retrykit.core import clock` is `retrykit.core.clock`."""
    paths = {path for path, _ in imports_of(source, module) if path.split(".")[0] == "retrykit"}
    return {path if path in MODULES else path.rpartition(".")[0] for path in paths}


def time_and_chance_in(source: ast.AST, module: str) -> set[str]:
    """What of `TIME_AND_CHANCE` is used, under whatever name it was imported."""
    imported = {local: path for path, local in imports_of(source, module)}
    used = set(imported.values())
    for node in ast.walk(source):
        if isinstance(node, ast.Attribute):
            first, _, rest = ast.unparse(node).partition(".")
            used.add(f"{imported.get(first, first)}.{rest}")
    return {name for name in TIME_AND_CHANCE for path in used if f"{path}.".startswith(f"{name}.")}


def parse(file: str) -> ast.AST:
    return ast.parse(FILES[file].read_text(encoding="utf-8"))


SAMPLE = """
import asyncio as aio
import time as clock_of_the_machine
from datetime import datetime
from typing import TYPE_CHECKING
import retrykit.core.loop
if TYPE_CHECKING:
    from retrykit.core import clock
def function():
    from retrykit.core.policy import RetryPolicy
    from . import events
    from ..http import send as sends
    import retrykit
    aio.sleep(1), datetime.now(), aio.Timeout, clock.sleep(1)
"""


def test_imports_are_found_wherever_they_stand() -> None:
    assert modules_imported_by(ast.parse(SAMPLE), "retrykit.core.sample") == {
        "retrykit",
        "retrykit.core.clock",
        "retrykit.core.events",
        "retrykit.core.loop",
        "retrykit.core.policy",
        "retrykit.http.send",
    }


def test_time_and_chance_are_found_under_any_name() -> None:
    found = time_and_chance_in(ast.parse(SAMPLE), "retrykit.core.sample")
    assert found == {"asyncio.sleep", "datetime.datetime.now", "time"}


# --- floors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES)
def test_every_file_has_its_place(file: str) -> None:
    place_of(module_name(file))


@pytest.mark.parametrize("file", FILES)
def test_a_file_imports_only_from_above(file: str) -> None:
    module = module_name(file)
    wrong = {imported for imported in modules_imported_by(parse(file), module) if not may_import(module, imported)}
    assert not wrong, f"{module} imports from below itself: {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("file", [file for file in FILES if file.split("/")[0] not in {*DOORS, "__main__.py"}])
def test_nothing_inside_imports_a_door(file: str) -> None:
    module = module_name(file)
    doors = {imported for imported in modules_imported_by(parse(file), module) if imported.split(".")[1:2] in _DOORWAYS}
    assert not doors, f"{module} is inside, and imports the door {', '.join(sorted(doors))}"


_DOORWAYS = [[door] for door in DOORS]


@pytest.mark.parametrize("file", [file for file in FILES if file != "core/clock.py"])
def test_only_the_clock_knows_time_and_chance(file: str) -> None:
    # The slowness of a server for tests is real.
    allowed = {"asyncio.sleep"} if file.startswith("testing/") else set()
    used = time_and_chance_in(parse(file), module_name(file)) - allowed
    assert not used, f"{file} uses {', '.join(sorted(used))}; it has to ask retrykit.core.clock"


def test_importing_retrykit_imports_nothing_optional() -> None:
    program = "import sys, retrykit; print(*sys.modules, sep='\\n')"
    printed = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    loaded = set(printed.split())
    assert "retrykit.core.decorator" in loaded
    doors = {f"retrykit.{door}" for door in DOORS}
    assert not {name for name in loaded if name in doors or name.split(".")[0] in OPTIONAL_PACKAGES}


def test_two_runtime_dependencies() -> None:
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = settings["options"]["install_requires"].split("\n")
    names = [re.split(r"[^\w.-]", line)[0] for line in lines if line]
    assert names == ["aiohttp", "tenacity"]


# --- names ------------------------------------------------------------------------------------------------------------


def test_public_names() -> None:
    assert retrykit.__all__ == [
        "TRANSIENT_ERRORS",
        "AsyncHTTPClient",
        "Attempt",
        "BodyStream",
        "Breaker",
        "Budget",
        "CallEvent",
        "ChecksumError",
        "CircuitBreaker",
        "CircuitOpenError",
        "FetchAll",
        "Fetched",
        "GiveUpError",
        "GiveUpEvent",
        "Hold",
        "LatencyQuantile",
        "OriginPause",
        "OriginPausedError",
        "Pause",
        "ResponseError",
        "RetryBudget",
        "RetryEvent",
        "RetryMiddleware",
        "RetryOptions",
        "RetryPolicy",
        "StackedRetriesWarning",
        "TryAgain",
        "attempt_number",
        "attempts_of",
        "deadline_scope",
        "download",
        "fetch_all",
        "fetch_bytes",
        "fetch_json",
        "fetch_text",
        "get",
        "log_listener",
        "post",
        "retry_http",
        "set_listeners",
        "stream",
        "time_left",
    ]


def test_public_names_are_sorted() -> None:
    def constants_classes_functions(name: str) -> tuple[bool, bool, str]:
        return not name.isupper(), not name[0].isupper(), name

    assert retrykit.__all__ == sorted(retrykit.__all__, key=constants_classes_functions)


def test_public_names_are_complete() -> None:
    defined = {
        name for name, value in vars(retrykit).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert defined == set(retrykit.__all__)


POLICY_FIELDS = {field.name for field in dataclasses.fields(RetryPolicy)}


def test_options_are_the_fields_of_the_policy() -> None:
    assert set(RetryOptions.__annotations__) == POLICY_FIELDS
    assert not RetryOptions.__required_keys__


def test_every_option_is_checked() -> None:
    assert set(_CHECKS) == POLICY_FIELDS


def test_the_client_and_its_verbs_take_every_option() -> None:
    arguments = inspect.signature(retrykit.AsyncHTTPClient).parameters
    assert set(arguments) | set(FurtherOptions.__annotations__) >= POLICY_FIELDS
    assert set(CallOptions.__annotations__) >= POLICY_FIELDS
