"""`simulate`: the table, what the arguments change in it, and the picture."""

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from retrykit import RetryPolicy
from retrykit.cli.main import main
from retrykit.cli.simulate import compared
from retrykit.simulate import Scenario, simulate

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
SMALL = ("--rate", "60", "--duration", "20", "--processes", "1")
NAMES = ["no retry", "exponential", "full jitter", "budget", "budget + breaker + pause"]


@pytest.fixture(scope="module")
def run():
    """Runs it, and keeps what was printed."""
    printed = {}

    def run(capsys, *arguments):
        if arguments not in printed:
            assert main(["simulate", *SMALL, *arguments]) == 0
            printed[arguments] = capsys.readouterr()
        return printed[arguments].out

    return run


def table(text):
    """The numbers of each row, by the policy."""
    lines = [line.strip() for line in text.splitlines()]
    start = next(index for index, line in enumerate(lines) if "───" in line) + 1
    end = lines.index("", start)
    found = {}
    for line in lines[start:end]:
        name, *cells = re.split(r"  +", line)
        if cells:
            found[name] = cells
            last = name
        else:  # The name goes on.
            found[f"{last} {name}"] = found.pop(last)
            last = f"{last} {name}"
    return found


def texts(path):
    """All that is written in a picture."""
    elements = [element for element in ET.parse(path).iter() if element.tag.endswith("}text")]
    return ["".join(element.itertext()).strip() for element in elements]


def unwrapped(text):
    return " ".join(text.split())


def test_it_says_what_happens_and_has_a_row_for_each_policy(capsys, run):
    text = run(capsys)
    assert "1,000 callers in 1 process: 60 calls/s for 20 s" in text
    assert "a server of 100 requests/s, with a queue of 120; Retry-After: 1 s" in text
    assert "outage 10 to 15 s, seed 1" in text  # What begins later is left out.
    assert list(table(text)) == NAMES
    assert "exponential: 4 attempts, waits 1 s + 2 s + 4 s, 1 s per attempt" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text


def test_its_numbers_are_those_of_the_simulation(capsys, run):
    scenario = Scenario(rate=60, duration=20, capacity=100, queue=120, outages=((10, 15),), retry_after=1)
    results = simulate(scenario, compared(RetryPolicy(max_retries=4, jitter="full", attempt_timeout=1)))
    for result, cells in zip(results, table(run(capsys)).values(), strict=True):
        assert cells[:2] == [f"{result.requests_per_call:.2f}", f"{result.requests_per_call_in(10, 15):.2f}"]
        assert cells[2:4] == [f"{result.goodput:,.0f}", f"{result.success:.1%}"]


def test_without_retries_there_is_one_request_per_call(capsys, run):
    assert table(run(capsys))["no retry"][:2] == ["1.00", "1.00"]
    assert table(run(capsys))["no retry"][-1] == "at once"


def test_the_same_arguments_print_the_same(capsys, run):
    assert main(["simulate", *SMALL]) == 0
    assert capsys.readouterr().out == run(capsys)


def test_another_seed_prints_another(capsys, run):
    assert table(run(capsys, "--seed", "2")) != table(run(capsys))


def test_outages_and_overloads_are_as_given(capsys, run):
    text = run(capsys, "--outage", "2-4", "12-13.5", "--overload", "6-8x2.5", "--overload", "9-10x4")
    assert "outage 2 to 4 s, outage 12 to 13.5 s, 2.5x the calls 6 to 8 s, 4x the calls 9 to 10 s, seed 1" in unwrapped(
        text
    )
    assert len(table(text)["budget"]) == 1 + 4 + 3


def test_where_an_overload_is_given_there_is_no_outage(capsys, run):
    text = run(capsys, "--overload", "6-8x1.5")
    assert "no outage, 1.5x the calls 6 to 8 s" in unwrapped(text)
    assert {cells[-1] for cells in table(text).values()} == {"-"}


def test_the_policy_is_as_given(capsys, run):
    text = run(capsys, "--max-retries", "2", "--base-delay", "100", "--jitter", "equal", "--timeout", "300")
    assert "equal jitter: 2 attempts, waits 50 to 100 s, timeout 300 s, 1 s per attempt" in unwrapped(text)
    assert "exponential: 2 attempts, waits 100 s, timeout 300 s, 1 s per attempt" in unwrapped(text)


def test_a_short_timeout_shortens_that_of_the_attempts(capsys, run):
    assert "no retry: 1 attempt, no retries, timeout 0.5 s\n" in run(capsys, "--timeout", "0.5")


def test_without_jitter_there_is_no_row_for_it(capsys, run):
    assert list(table(run(capsys, "--jitter", "none"))) == [name for name in NAMES if name != "full jitter"]


def test_the_server_is_as_given(capsys, run):
    options = ("--capacity", "1000", "--queue", "7", "--retry-after", "0", "--failure-rate", "0.1", "--clients", "50")
    text = run(capsys, *options, "--outage", "18-19")
    assert "50 callers in 1 process" in text
    assert "a server of 1,000 requests/s, with a queue of 7; Retry-After: none" in text
    assert "0.1 of the requests fail at random" in text
    assert float(table(text)["exponential"][0]) > 1.09


def test_as_a_program_it_prints_and_draws_what_the_documentation_shows(tmp_path):
    """It runs as a whole, in a process of its own: the numbers are exactly repeatable."""
    command = ["-W", "error", "-m", "retrykit", "simulate", "--plot", "load.svg"]
    options = {"cwd": tmp_path, "env": ENVIRONMENT, "capture_output": True, "text": True, "timeout": 100}
    done = subprocess.run([sys.executable, *command], check=False, **options)
    assert (done.returncode, done.stderr) == (0, "")
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    block = re.compile(r"^~~~\{code-block\} text\n(.*?)^~~~$", re.MULTILINE | re.DOTALL)
    shown = block.search(page, page.index(" ".join(command[2:])))[1] + "The picture is in load.svg.\n"
    assert "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines()) == shown
    assert texts(tmp_path / "load.svg") == texts(DOCS / "simulation.svg")


class TestPicture:
    @staticmethod
    def draw(capsys, path, *arguments):
        assert main(["simulate", *SMALL, *arguments, "--plot", str(path)]) == 0
        assert f"The picture is in {path}." in capsys.readouterr().out
        return path

    def test_as_png(self, capsys, tmp_path):
        assert self.draw(capsys, tmp_path / "load.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")

    def test_as_svg_with_a_panel_for_each_policy(self, capsys, tmp_path):
        path = self.draw(capsys, tmp_path / "load.svg", "--outage", "5-9", "--overload", "12-14x3")
        found = [
            "".join(element.itertext()).strip() for element in ET.parse(path).iter() if element.tag.endswith("}text")
        ]
        assert [text for text in found if text in NAMES] == NAMES
        assert {"requests received", "calls that succeeded", "capacity", "times as many calls", "3x"} <= set(found)
        assert found.count("outage") == 2  # in the legend, and beside the first
        assert sum("requests per call" in text for text in found) == len(NAMES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--outage 10", "'10' does not say from when to when; give two numbers of seconds, such as 10-15"),
        ("--outage 15-10", "'15-10' does not begin before it ends; give the earlier second first"),
        ("--outage 50-80", "the outage 50-80 goes on to the end, --duration 60"),
        ("--overload 70-80x2", "begins after the end, --duration 60; write a longer duration"),
        ("--overload 10-15", "'10-15' does not say from when to when there are how many times as many calls"),
        ("--overload 10-15x0", "the factor in --overloads 0.0 can't be simulated"),
        ("--clients 5 --processes 6", "--processes 6 are more than --clients 5"),
        ("--rate 0", "'0' is no number per second; give one above 0, such as 600"),
        ("--rate many", "'many' is no number per second"),
        ("--clients 0", "'0' is no whole number of 1 or more; give one such as 10"),
        ("--queue -1", "--queue"),
        ("--queue 1.5", "'1.5' is no whole number"),
        ("--failure-rate 2", "'2' is no share of 1; give a number from 0 to 1"),
        ("--retry-after soon", "'soon' is no time"),
        ("--plot load.gif", "end it with .png or .svg"),
    ],
)
def test_what_can_t_be_is_refused_with_a_reason(capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        main(["simulate", *arguments.split()])
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


def test_a_run_of_less_than_a_window_can_be_drawn(capsys, tmp_path):
    path = tmp_path / "load.svg"
    assert main(["simulate", "--rate", "10", "--duration", "0.4", "--plot", str(path)]) == 0
    assert "requests received" in texts(path)


def test_few_clients_are_in_as_few_processes(capsys):
    assert main(["simulate", "--rate", "10", "--duration", "2", "--clients", "3"]) == 0
    assert "3 callers in 3 processes" in capsys.readouterr().out
