"""The programs of `docs/migration.md` do the same before and after, but for what the page says; its options exist.

That each of them runs as it stands is a test of `tests/test_docs.py`.
"""

import ast
import dataclasses
import importlib.metadata
import inspect
import re
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp_retry
import backoff
import pytest
import stamina
import tenacity

import retrykit
from retrykit.testing import Disconnect, Reply, ScriptedServer, Step
from tests.comparison.checks import skipped_waits
from tests.comparison.table import VERSIONS

PAGE = Path(__file__).parents[2] / "docs" / "migration.md"
TEXT = PAGE.read_text()
SECTIONS = dict(re.findall(r"^## From (\w+)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))

ADDRESS = "https://api.example.com"
USER = {"id": 123, "name": "Ada"}
SERVERS: dict[str, tuple[Step, ...]] = {
    "answers 503, then 200": (503, USER),
    "answers 503 each time": (503,),
    "answers 500 each time": (500,),
    "answers 404": (404,),
    "closes each connection": (Disconnect(),),
    "answers 429 with a Retry-After of a day": (Reply(429, retry_after=86400),),
}


def cells(line: str) -> list[str]:
    r"""Of a row of a table; a `\|` is no end of a cell."""
    return [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def rows(text: str) -> list[list[str]]:
    """Of the table in it, without its head."""
    return [cells(line) for line in text.splitlines() if line.startswith("|")][2:]


SHOWN = {row[0]: dict(zip(SECTIONS, row[1:], strict=True)) for row in rows(TEXT.split("## From")[0])}


def program(library: str, which: str) -> str:
    [found] = re.findall(rf"^<!-- {which} -->\n```python\n(.*?)^```$", SECTIONS[library], re.MULTILINE | re.DOTALL)
    return found


async def run_program(source: str, server: ScriptedServer) -> tuple[int, Any]:
    """How many requests it sends, and what its function returns, or the kind and status of what that raises."""
    tree = ast.parse(source.replace(ADDRESS, server.url))
    functions = [node for node in tree.body if not isinstance(node, ast.AsyncWith | ast.Assert)]
    namespace: dict[str, Any] = {"__name__": "__page__"}
    exec(compile(ast.Module(functions, []), str(PAGE), "exec"), namespace)
    before = len(server.requests())
    async with aiohttp.ClientSession() as session:
        try:
            outcome: Any = await namespace["get_user"](session, 123)
        except aiohttp.ClientResponseError as error:
            outcome = aiohttp.ClientResponseError, error.status
        except aiohttp.ClientError as error:
            outcome = type(error)
    return len(server.requests()) - before, outcome


@pytest.mark.parametrize("answers", SERVERS)
@pytest.mark.parametrize("library", SECTIONS)
async def test_before_and_after(
    library: str, answers: str, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests, outcomes = [], []
    for which in ("before", "after"):
        scripted_server.script("/users/123", *SERVERS[answers])
        with skipped_waits(monkeypatch):
            sent, outcome = await run_program(program(library, which), scripted_server)
        requests.append(str(sent))
        outcomes.append(outcome)
    assert outcomes[0] == outcomes[1]
    assert " → ".join(requests) == SHOWN[answers][library]


def test_the_table_has_every_server() -> None:
    assert list(SHOWN) == list(SERVERS)


WAITS = {
    "aiohttp_retry": ((0.5, 1.0), (0.5, 1.0)),
    "tenacity": ((0.5, 1.0), (0.5, 1.0)),
    "stamina": ((1.1, 1.2), (1.0, 2.0)),
    "backoff": ((1.0, 2.0), (1.0, 2.0)),
}
"""The longest that can be drawn, before and after."""


@pytest.mark.parametrize("library", SECTIONS)
async def test_the_waits_are_those_of_the_page(
    library: str, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_server.script("/users/123", 503)
    for which, longest in zip(("before", "after"), WAITS[library], strict=True):
        with skipped_waits(monkeypatch, lambda _, high: high) as waits:
            await run_program(program(library, which), scripted_server)
        full = 'jitter="full"' in program(library, which)
        assert all(wait <= high for wait, high in zip(waits, longest, strict=True))
        assert full or waits == pytest.approx(longest)


# --- the options exist ------------------------------------------------------------------------------------------------

TAKERS: dict[str, tuple[Any, ...]] = {
    "aiohttp_retry": (aiohttp_retry.ExponentialRetry, aiohttp_retry.RetryClient, aiohttp_retry.RetryClient.get),
    "tenacity": (tenacity.AsyncRetrying,),
    "stamina": (stamina.retry, stamina.set_testing),
    "backoff": (backoff.on_exception, backoff.on_predicate, backoff.expo, backoff.constant, backoff.runtime),
}
POLICY = {field.name for field in dataclasses.fields(retrykit.RetryPolicy)} | {"policy", "after"}


def named(cell: str) -> set[str]:
    """The options in the code of a cell: what stands before a `=` there."""
    return {name for code in re.findall(r"`([^`]+)`", cell) for name in re.findall(r"\b(\w+)=", code)}


@pytest.mark.parametrize("library", SECTIONS)
def test_the_old_options_exist(library: str) -> None:
    if importlib.metadata.version(library) != VERSIONS[library]:
        pytest.skip(f"they are those of {library} {VERSIONS[library]}")
    known = {name for taker in TAKERS[library] for name in inspect.signature(taker).parameters}
    shown = {name for row in rows(SECTIONS[library]) for name in named(row[0])}
    assert shown
    assert shown <= known


@pytest.mark.parametrize("library", SECTIONS)
def test_the_new_options_exist(library: str) -> None:
    shown = {name for row in rows(SECTIONS[library]) for name in named(row[1])}
    assert "max_retries" in shown
    assert shown <= POLICY


def test_the_names_of_tenacity_exist() -> None:
    shown = set(re.findall(r"\b((?:wait|stop|retry_if)_\w+)", SECTIONS["tenacity"]))
    assert shown
    assert all(hasattr(tenacity, name) for name in shown)
