"""The demo: a line per attempt, the table, and an exit code that says whether every call was saved."""

import contextlib
import io
import re
import subprocess
import sys

import pytest

from retrykit import RetryPolicy
from retrykit.cli import demo
from retrykit.cli.main import main
from retrykit.core.listeners import get_listeners

LINE = re.compile(r" +(\d+\.\d\d) s  (GET|POST) +(/\S+) +(\S+) +(.+)")
SECTIONS = ["aiohttp alone", "@retry_http", "AsyncHTTPClient"]


class Shown:
    """What a run of the demo printed, taken apart."""

    def __init__(self, run):
        before = get_listeners()
        with contextlib.redirect_stdout(io.StringIO()) as output:
            self.code = run()
        self.listeners_given_back = get_listeners() == before
        self.text = output.getvalue()
        self.lines = self.text.splitlines()

    def attempts(self, section):
        """Method, path, outcome and what follows, of each line of a section."""
        start = next(number for number, line in enumerate(self.lines) if line.startswith(section))
        found = [LINE.fullmatch(line.rstrip()) for line in self.lines[start + 1 :]]
        end = next((number for number, line in enumerate(found) if not line), len(found))
        return [line.groups()[1:] for line in found[:end]]

    def count(self, what):
        """A row of the table: without retrykit, with it."""
        return tuple(map(int, re.search(rf"^ +{what} +(\d+) +(\d+) *$", self.text, re.MULTILINE).groups()))


@pytest.fixture(scope="module")
def shown():
    return Shown(lambda: main(["demo"]))


@pytest.fixture(scope="module")
def shown_without_retries():
    return Shown(lambda: demo.run(RetryPolicy(max_retries=1, attempt_timeout=1.0)))


class TestAllSaved:
    def test_the_exit_code_is_0(self, shown):
        assert shown.code == 0
        assert "retrykit saved all 6 calls." in shown.text

    def test_aiohttp_alone_fails_each_call(self, shown):
        assert shown.attempts("aiohttp alone") == [
            ("GET", "/users/123", "503", "failed"),
            ("GET", "/report", "TimeoutError", "failed"),
            ("GET", "/feed", "ClientPayloadError", "failed"),
            ("GET", "/search", "429", "failed"),
            ("POST", "/orders", "503", "failed"),
            ("POST", "/payments", "ClientOSError", "failed"),
        ]

    def test_the_decorator_saves_its_calls(self, shown):
        assert shown.attempts("@retry_http") == [
            ("GET", "/users/123", "503", "again in 0.2 s"),
            ("GET", "/users/123", "503", "again in 0.4 s"),
            ("GET", "/users/123", "200", "saved"),
            ("GET", "/report", "TimeoutError", "again in 0.2 s"),
            ("GET", "/report", "200", "saved"),
            ("GET", "/feed", "ClientPayloadError", "again in 0.2 s"),
            ("GET", "/feed", "200", "saved"),
        ]

    def test_the_client_saves_its_calls_and_a_post_is_among_them(self, shown):
        assert shown.attempts("AsyncHTTPClient") == [
            ("GET", "/search", "429", "again in 1 s"),
            ("GET", "/search", "200", "saved"),
            ("POST", "/orders", "503", "again in 0.2 s"),
            ("POST", "/orders", "200", "saved"),
            ("POST", "/payments", "ClientOSError", "again at once"),
            ("POST", "/payments", "200", "saved"),
        ]

    def test_the_table_adds_up(self, shown):
        with_retrykit = shown.attempts("@retry_http") + shown.attempts("AsyncHTTPClient")
        assert shown.count("calls") == (6, 6)
        assert shown.count("requests") == (6, len(with_retrykit))
        assert shown.count("retries") == (0, len(with_retrykit) - 6)
        assert shown.count("failures") == (6, 0)

    def test_the_time_goes_forward(self, shown):
        times = [float(found[1]) for line in shown.lines if (found := LINE.match(line))]
        assert times == sorted(times)

    def test_it_fits_a_terminal_and_has_colour_only_there(self, shown):
        assert max(map(len, shown.lines)) <= 80
        assert "\x1b" not in shown.text

    def test_the_listeners_are_given_back(self, shown):
        assert shown.listeners_given_back


class TestNotSaved:
    """With a single attempt, the calls fail with retrykit as they do without."""

    def test_the_exit_code_is_1(self, shown_without_retries):
        assert shown_without_retries.code == 1
        assert "retrykit could not save 6 of 6 calls." in shown_without_retries.text

    def test_the_lines_say_so(self, shown_without_retries):
        alone, decorated, client = map(shown_without_retries.attempts, SECTIONS)
        assert decorated + client == alone

    def test_so_does_the_table(self, shown_without_retries):
        assert shown_without_retries.count("requests") == (6, 6)
        assert shown_without_retries.count("retries") == (0, 0)
        assert shown_without_retries.count("failures") == (6, 6)

    def test_the_listeners_are_given_back(self, shown_without_retries):
        assert shown_without_retries.listeners_given_back


def test_it_runs_as_a_program_and_prints_each_line_as_it_happens():
    command = [sys.executable, "-W", "error", "-m", "retrykit", "demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        first = next(line for line in running.stdout if LINE.match(line))
        still_running = running.poll() is None
        rest, errors = running.communicate(timeout=60)
    assert "/users/123" in first
    assert still_running
    assert "retrykit saved all 6 calls." in rest
    assert (running.returncode, errors) == (0, "")
