"""The documentation runs: every Python block of README.md and docs/*.md.

The blocks of a page run in order, in one namespace and one event loop, with `await` allowed at the top. The server that
they call `https://api.example.com` is a real one, scripted in `SCRIPTS` afresh for each block, and waits are skipped.
What they call `redis://localhost:6379/0` is a real redis-server.
An invisible comment before a block says what else it is:

`<!-- pytest -->`    a test module, which is written to a file and run by pytest
`<!-- conftest -->`  the conftest.py of the test modules that follow on the page
`<!-- run -->`       (of a `shell` block) commands that begin with `python`, which are run
`<!-- output -->`    (of a `text` block) what the block before it printed or logged
"""

import ast
import asyncio
import contextlib
import gc
import inspect
import io
import logging
import os
import re
import shlex
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from sybil import Document
from sybil.example import Example
from sybil.parsers.markdown import CodeBlockParser

import retrykit
from retrykit import RetryPolicy, log_listener, redis, set_listeners, simulate, testing
from retrykit.cli.endings import EXIT_CODES
from retrykit.core.listeners import get_listeners, logger
from retrykit.telemetry import opentelemetry, prometheus
from retrykit.testing import Disconnect, Raw, Reply, Resumable, ScriptedServer, Truncated
from tests.redis.server import RedisServer

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]

PACKAGE_FOLDER = str(Path(retrykit.__file__).parent.parent)

ADDRESS = "https://api.example.com"
STORE = '"redis://localhost:6379/0"'
USER = {"id": 123, "name": "Ada"}
LOG = b"".join(b"%03d,ok\n" % number for number in range(1000))
V1 = '"v1"'
ISO = b"0123456789" * 1000
ISO_HALF = b'HTTP/1.1 200 OK\r\nETag: "v1"\r\nContent-Length: 10000\r\n\r\n' + ISO[:5000]
# Nearly every path fails once, so that the examples do retry.
SCRIPTS: dict[tuple[str, str | None], tuple[testing.Step, ...]] = {
    ("/users/123", None): (Reply(503, {"error": "busy"}), USER),
    ("/v1/users/123", None): (503, USER),
    ("/users/123/avatar", None): (503, b"\x89PNG"),
    ("/users", "GET"): (503, [USER]),
    ("/users", "POST"): (503, {"id": 124}),
    ("/orders", "POST"): (504, 504, {"id": 7}),
    ("/imports", None): (503, {"lines": 2}),
    ("/restarting", None): (Disconnect(), 503, USER),
    ("/robots.txt", None): (Truncated("User-agent: *"), "User-agent: *"),
    ("/busy", None): (Reply(429, retry_after=7), USER),
    ("/closed", None): (Reply(503, "Back tomorrow.", retry_after=86400),),
    ("/down", None): (503,),
    ("/me", None): (401, USER),
    ("/job", None): ({"state": "pending"}, {"state": "pending"}, {"state": "done"}),
    ("/slow", None): (Reply(body=USER, delay=0.3),),
    ("/search", None): (Reply(body=USER, delay=0.3), USER),
    ("/log.csv", None): (Resumable(LOG, sent=3500, etag=V1), Resumable(LOG, etag=V1)),
    ("/report", None): (Truncated(b"all that"),),
    ("/big.iso", None): (Resumable(ISO, sent=4000), Resumable(ISO, sent=1), Resumable(ISO)),
    ("/huge.iso", None): (Raw(ISO_HALF, after="stall"), Resumable(ISO, etag=V1)),
    **{(f"/items/{number}", None): (503, {"price": 5}) for number in range(200) if number != 13},
}


class Settings:
    """How a page has set up logging and the listeners: at first as in a new process."""

    def __init__(self) -> None:
        self._loggers = {logging.getLogger(): ([], logging.WARNING, True), logger: (logger.handlers[:], 0, True)}
        self._listeners: tuple[Any, ...] = (log_listener,)

    def swap(self) -> None:
        """Exchange the page's with those outside of it."""
        for one, (handlers, level, propagate) in self._loggers.items():
            self._loggers[one] = one.handlers, one.level, one.propagate
            one.handlers, one.propagate = handlers, propagate
            one.setLevel(level)
        before = get_listeners()
        set_listeners(*self._listeners)
        self._listeners = before


class Page:
    """A page, and where its blocks run."""

    def __init__(self, path: Path) -> None:
        self.name = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
        run_as = {"python": self._run_python, "shell": self._run_shell, "text": self._compare_output}
        self.document = Document.parse(str(path), *(CodeBlockParser(name, run) for name, run in run_as.items()))
        examples = sorted(self.document.examples(), key=lambda example: example.start)
        self.examples: list[Example] = [example for example in examples if _is_run(example)]

    @contextlib.contextmanager
    def opened(self, folder: Path) -> Iterator[None]:
        """Have an event loop with a server in it, and a folder for test modules."""
        self._folder, self._done = folder, 0
        self._namespace: dict[str, Any] = {"__name__": "__page__"}
        self._output = io.StringIO()
        self._settings = Settings()
        self.waits: list[float] = []
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            self._loop, self._server = runner, ScriptedServer()
            self._store = RedisServer(folder) if STORE in self.document.text else None
            runner.run(self._server.__aenter__())
            try:
                if self._store is not None:
                    runner.run(self._store.__aenter__())
                yield
            finally:
                self._namespace.clear()
                gc.collect()  # What an example left open is reported here.
                if self._store is not None:
                    runner.run(self._store.__aexit__())
                runner.run(self._server.__aexit__())

    def run(self, index: int) -> None:
        """Run a block, after those before it."""
        while self._done <= index:
            example, self._done = self.examples[self._done], self._done + 1
            try:
                example.evaluate()
            except Exception:
                if self._done <= index:
                    pytest.fail(f"{self.name}:{example.line}, which comes before, failed", pytrace=False)
                raise

    def _run_python(self, example: Example) -> None:
        if _comment_before(example) in ("pytest", "conftest"):
            self._run_pytest(example)
            return
        self._forget_output()
        self._loop.run(self._write_scripts())
        source = example.parsed.replace(ADDRESS, self._server.url)
        if self._store is not None:  # However busy this machine is, it is waited for.
            source = source.replace(STORE, f'"{self._store.url}", timeout=5')
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        tree = compile(source, example.path, "exec", flags | ast.PyCF_ONLY_AST, dont_inherit=True)
        # The traceback of an error names the lines of the page.
        code = compile(ast.increment_lineno(tree, example.line), example.path, "exec", flags, dont_inherit=True)
        with self._surroundings(), testing.no_waits() as waits:
            # A block that awaits nothing runs outside of the loop, and may have one of its own: asyncio.run(main()).
            coroutine = eval(code, self._namespace)
            if inspect.iscoroutine(coroutine):
                self._loop.run(coroutine)
        self.waits += waits

    def _forget_output(self) -> None:
        self._output.seek(0)
        self._output.truncate()

    def _run_shell(self, example: Example) -> None:
        self._forget_output()
        for command in example.parsed.splitlines():
            program, *arguments = shlex.split(command)
            assert program == "python", "a command that is run must be one of Python's"
            run = run_python(*arguments, folder=self._folder)
            assert run.returncode == 0, run.stderr
            self._output.write(run.stdout)

    async def _write_scripts(self) -> None:
        for (path, method), steps in SCRIPTS.items():
            self._server.script(path, *steps, method=method)

    @contextlib.contextmanager
    def _surroundings(self) -> Iterator[None]:
        """What is printed and logged is caught; logging and the listeners are set up for this page alone."""
        self._settings.swap()
        try:
            with (
                contextlib.chdir(self._folder),
                contextlib.redirect_stdout(self._output),
                contextlib.redirect_stderr(self._output),
            ):
                yield
        finally:
            self._settings.swap()
            sys.stdout.write(self._output.getvalue())

    def _run_pytest(self, example: Example) -> None:
        if _comment_before(example) == "conftest":
            (self._folder / "conftest.py").write_text(example.parsed)
            return
        (self._folder / "test_block.py").write_text(example.parsed)
        options = ["-p", "no:cacheprovider", "-W", "error", "--no-cov", "-o", "asyncio_mode=auto"]
        options += ["-o", "asyncio_default_fixture_loop_scope=function"]
        run = run_python("-m", "pytest", *options, "test_block.py", folder=self._folder)
        assert run.returncode == 0, run.stdout + run.stderr

    def _compare_output(self, example: Example) -> None:
        assert _comment_before(example) == "output", "output that is shown must be that of the block before it"
        assert _steady(self._output.getvalue().replace(self._server.url, ADDRESS)) == _steady(example.parsed)


def _is_run(example: Example) -> bool:
    """Most commands are shown only: they install something, or take long."""
    return not example.document.text.startswith("```shell", example.start) or _comment_before(example) == "run"


def _comment_before(example: Example) -> str | None:
    found = re.search(r"<!-- (\w+) -->\s*\Z", example.document.text[: example.start])
    return found and found[1]


def _steady(output: str) -> str:
    """The same but for the time that a call really took, the port of a server, and blanks at the ends of lines."""
    lines = [line.rstrip() for line in output.strip().splitlines()]
    output = re.sub(r" in \d+\.\d s", " in … s", "\n".join(lines))
    return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:…", output)


def run_python(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": PACKAGE_FOLDER, "COLUMNS": "80"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def _blocks() -> list[Any]:
    pages = [Page(path) for path in PAGES]
    return [
        pytest.param(page, index, id=f"{page.name}:{example.line}")
        for page in pages
        for index, example in enumerate(page.examples)
    ]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Page], contextlib.ExitStack]]:
    """Open a page, and close the one before."""
    last: list[Page] = []
    with contextlib.ExitStack() as stack:

        def open_page(page: Page) -> contextlib.ExitStack:
            if last != [page]:
                stack.close()
                stack.enter_context(page.opened(tmp_path_factory.mktemp("page")))
                last[:] = [page]
            return stack

        yield open_page


@pytest.mark.parametrize(("page", "index"), _blocks())
def test_a_block_runs(page: Page, index: int, opened: Callable[[Page], contextlib.ExitStack]) -> None:
    stack = opened(page)
    page.run(index)
    if index == len(page.examples) - 1:
        stack.close()  # What the page left open makes this test fail.


def test_the_first_example_of_the_readme_retries(tmp_path: Path) -> None:
    page = Page(README)
    with page.opened(tmp_path):
        page.run(0)
        assert page.waits == [1.0]


# --- the tests of the documentation can fail --------------------------------------------------------------------------


@pytest.fixture
def run_page(tmp_path: Path) -> Callable[[str], Page]:
    """Run a page with this text, up to and with its last block."""

    def run(text: str) -> Page:
        path = tmp_path / "page.md"
        path.write_text(text)
        page = Page(path)
        with page.opened(tmp_path):
            page.run(len(page.examples) - 1)
        return page

    return run


def test_a_wrong_example_fails_at_its_line(run_page: Callable[[str], Page]) -> None:
    with pytest.raises(AssertionError) as error:
        run_page("# Title\n\n```python\nx = 1\nassert x == 2\n```\n")
    assert traceback.extract_tb(error.value.__traceback__)[-1].lineno == 5


def test_what_follows_a_wrong_example_fails(run_page: Callable[[str], Page]) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"page\.md:1, which comes before, failed"):
        run_page("```python\n1 / 0\n```\n\n```python\nx = 1\n```\n")


def test_examples_share_a_page_and_do_retry(run_page: Callable[[str], Page]) -> None:
    page = run_page(
        "```python\nfrom retrykit import fetch_json\n```\n"
        "```python\nuser = await fetch_json('https://api.example.com/users/123')\n```\n"
        "```python\nassert user['name'] == 'Ada'\n```\n"
    )
    assert page.waits == [1.0]


def test_a_wrong_output_fails(run_page: Callable[[str], Page]) -> None:
    run_page("```python\nprint(1)\n```\n<!-- output -->\n```text\n1\n```\n")
    with pytest.raises(AssertionError):
        run_page("```python\nprint(1)\n```\n<!-- output -->\n```text\n2\n```\n")


def test_an_output_that_is_not_compared_fails(run_page: Callable[[str], Page]) -> None:
    with pytest.raises(AssertionError, match="must be that of the block before it"):
        run_page("```python\nprint(1)\n```\n```text\n1\n```\n")


def test_a_command_is_run_where_it_says_so(run_page: Callable[[str], Page]) -> None:
    shown = "```shell\npython -m retrykit plan\n```\n<!-- output -->\n```text\nnot this\n```\n"
    with pytest.raises(AssertionError, match="3 attempts, waits 1 s"):
        run_page("<!-- run -->\n" + shown)
    with pytest.raises(AssertionError, match="must be one of Python's"):
        run_page("<!-- run -->\n```shell\nrm -r .\n```\n")
    assert len(run_page("```shell\nrm -r .\n```\n```python\n1 + 1\n```\n").examples) == 1


@pytest.mark.parametrize(
    ("module", "message"), [("def test():\n    assert 1 == 2", "1 failed"), ("x = 1", "no tests ran")]
)
def test_a_test_module_that_fails_or_has_no_tests_fails(
    run_page: Callable[[str], Page], module: str, message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        run_page(f"<!-- pytest -->\n```python\n{module}\n```\n")


# --- what a page shows, and what is true ------------------------------------------------------------------------------


def code_blocks(path: Path) -> list[tuple[str, str]]:
    """The code blocks of a page: the language and the text of each."""
    return re.findall(r"^```(\S*)\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_code_is_python_or_is_no_code(path: Path) -> None:
    known = {"python", "text", "shell"}
    languages = {language for language, _ in code_blocks(path) if not language.startswith("{")}
    assert languages <= known


def test_the_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text())
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_first_shell_blocks_of_the_readme_are_the_two_commands() -> None:
    shell = [text for language, text in code_blocks(README) if language == "shell"]
    assert shell[:2] == [
        "pip install '.[cli]'\npython -m retrykit demo\n",
        "pip install -e '.[test]'\npython -m pytest\n",
    ]


def defaults_shown(text: str) -> dict[str, object]:
    """The names and values of the table whose first two columns are headed "option" and "default"."""
    table = re.search(r"^\| *option *\| *default *\|.*\n\|[-| ]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table is not None, "there is no table of defaults"
    rows = [re.match(r"\| *`(\w+)` *\| *`([^`]+)`", row) for row in table[1].splitlines()]
    return {row[1]: eval(row[2], {**vars(retrykit)}) for row in rows if row is not None}


def real_defaults() -> dict[str, object]:
    policy = RetryPolicy()
    return {field.name: getattr(policy, field.name) for field in fields(policy)}


def test_the_table_of_defaults_of_the_policy_page_is_true() -> None:
    shown = defaults_shown((ROOT / "docs" / "policy.md").read_text())
    assert shown == real_defaults()
    assert list(shown) == list(real_defaults())


def test_the_table_of_defaults_of_the_readme_is_true() -> None:
    shown = defaults_shown(README.read_text())
    assert set(shown) >= {name for name, value in real_defaults().items() if value is not None}
    assert shown == {name: real_defaults()[name] for name in shown}


def test_a_wrong_default_is_seen() -> None:
    text = README.read_text()
    assert defaults_shown(text.replace("| `max_delay` | `60.0` |", "| `max_delay` | `61.0` |")) != defaults_shown(text)


@pytest.mark.parametrize(
    "module", [retrykit, testing, simulate, redis, prometheus, opentelemetry], ids=lambda module: module.__name__
)
def test_the_reference_has_every_public_name(module: Any) -> None:
    reference = (ROOT / "docs" / "reference.md").read_text()
    shown = re.findall(
        r"^\.\. (?:auto\w+|py:\w+):: " + re.escape(module.__name__) + r"\.(\w+)\b(?!\.)", reference, re.MULTILINE
    )
    assert sorted(shown) == sorted(module.__all__)


def written_in(picture: Path) -> list[str]:
    elements = [element for element in ET.parse(picture).iter() if element.tag.endswith("}text")]
    return ["".join(element.itertext()).strip() for element in elements]


def test_the_picture_of_the_backoff_is_true(tmp_path: Path) -> None:
    docs, drawn = ROOT / "docs", tmp_path / "backoff.svg"
    run = run_python(str(docs / "pictures.py"), str(drawn), folder=ROOT)
    assert run.returncode == 0, run.stderr
    assert "at most 1,000 in 0.1 s" in written_in(drawn)
    assert written_in(drawn) == written_in(docs / "backoff.svg")


def test_every_page_is_in_the_table_of_contents() -> None:
    trees = re.findall(r"```\{toctree\}\n(.*?)```", (ROOT / "docs" / "index.md").read_text(), re.DOTALL)
    listed = [line for tree in trees for line in tree.splitlines() if re.fullmatch(r"[\w-]+", line)]
    assert sorted([*listed, "index"]) == sorted(page.stem for page in PAGES if page != README)


# --- the command line -------------------------------------------------------------------------------------------------

CLI = ROOT / "docs" / "cli.md"


def test_the_exit_codes_of_the_page_are_all_there_are() -> None:
    shown = re.findall(r"^\| (\d+) \|", CLI.read_text(), re.MULTILINE)
    assert [int(code) for code in shown] == sorted(EXIT_CODES)


async def test_the_command_of_the_page_fetches(scripted_server: ScriptedServer) -> None:
    scripted_server.script("/users/123", {"id": 123})
    [command] = [text for language, text in code_blocks(CLI) if language == "shell" and "retrykit get" in text]
    assert command.startswith("python -m ")
    arguments = command.replace(ADDRESS, scripted_server.url).split()[1:]
    environment = {**os.environ, "PYTHONPATH": PACKAGE_FOLDER}
    run = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=subprocess.PIPE, env=environment)
    output, _ = await run.communicate()
    assert (run.returncode, output) == (0, b'{"id": 123}')
