"""Every cell of the tables in `docs/comparison.md`: what a test can run is run, what was read is read again.

To see what a page should say: `python -c "from tests.comparison.table import tables; print(*tables().values())"`
"""

import importlib.metadata
import importlib.util
import re
from pathlib import Path

import pytest

from retrykit.testing import ScriptedServer
from tests.comparison import table
from tests.comparison.checks import CHECKS, Look
from tests.comparison.subjects import SUBJECTS
from tests.comparison.table import BEHAVIOUR, FEATURES, OTHERS, VERSIONS, Absent, FeatureRow, Read, Run

PAGE = Path(__file__).parents[2] / "docs" / "comparison.md"
TEXT = PAGE.read_text()

ROWS = {name: row for rows in BEHAVIOUR.values() for name, row in rows.items()}
CELLS = [
    pytest.param(subject, name, text, id=f"{name}-{subject}")
    for name, row in ROWS.items()
    for subject, text in zip(SUBJECTS, row.cells, strict=True)
]
FEATURE_ROWS = {name: row for rows in FEATURES.values() for name, row in rows.items()}
FEATURE_CELLS = [
    pytest.param(library, cell, id=f"{name}-{library}")
    for name, row in FEATURE_ROWS.items()
    for library, cell in zip(("retrykit", *OTHERS), (row.retrykit, *row.others), strict=True)
    if not isinstance(cell, Run)
]


@pytest.mark.parametrize(("subject", "name", "text"), CELLS)
async def test_behaves(
    subject: str, name: str, text: str, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Look(subject, SUBJECTS[subject], scripted_server, monkeypatch)
    assert await CHECKS[name](look) == text


@pytest.mark.parametrize("name", [name for name, row in FEATURE_ROWS.items() if isinstance(row.retrykit, Run)])
async def test_retrykit_has(name: str, scripted_server: ScriptedServer) -> None:
    await _run_of(FEATURE_ROWS[name]).feature(scripted_server)


def _run_of(row: FeatureRow) -> Run:
    assert isinstance(row.retrykit, Run)
    return row.retrykit


@pytest.mark.parametrize(("library", "cell"), FEATURE_CELLS)
def test_reads(library: str, cell: Read | Absent) -> None:
    if library in VERSIONS and importlib.metadata.version(library) != VERSIONS[library]:
        pytest.skip(f"it was read in {library} {VERSIONS[library]}")
    if isinstance(cell, Read):
        assert cell.says in _source(cell.module).read_text()
    else:
        assert _found(library, cell.words) == []


def _source(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


def _found(library: str, words: tuple[str, ...]) -> list[str]:
    """The words that a library has somewhere, in whatever case."""
    files = sorted(_source(library.replace("-", "_")).parent.rglob("*.py"))
    text = "\n".join(path.read_text() for path in files).lower()
    assert "retry" in text
    return [word for word in words if word.lower() in text]


def test_a_word_that_is_there_is_found() -> None:
    assert _found("stamina", ("hook", "no such word")) == ["hook"]


def test_every_check_is_a_row() -> None:
    assert set(CHECKS) == set(ROWS)


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "shown"), table.tables().items(), ids=list(table.tables()))
def test_the_page_has_the_table(name: str, shown: str) -> None:
    assert shown in TEXT, f"docs/comparison.md should have this table, named {name!r}:\n\n{shown}"


def test_the_page_has_no_other_table() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("|")]
    assert rows == [line for shown in _in_order() for line in shown.splitlines()]


def _in_order() -> list[str]:
    return sorted(table.tables().values(), key=TEXT.find)


def test_every_cell_says_how_it_was_checked() -> None:
    for shown in table.tables().values():
        for line in shown.splitlines()[2:]:
            assert all(cell.endswith((table.RUN, table.READ, table.COST)) for cell in line[2:-2].split(" | ")[1:])


def test_the_page_names_the_versions() -> None:
    named = dict(re.findall(r"^- (\S+) (\d[\d.]*\d)$", TEXT, re.MULTILINE))
    assert named == VERSIONS


@pytest.mark.parametrize("library", ["aiohttp_retry", "stamina", "backoff", "httpx-retries", "httpx"])
def test_these_versions_are_tested(library: str) -> None:
    # Those of aiohttp and tenacity are many, in `.ci/matrix`.
    assert importlib.metadata.version(library) == VERSIONS[library]
