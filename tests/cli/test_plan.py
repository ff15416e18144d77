"""`plan`: the waits of a policy, their ranges, the worst case of a call, and the picture of it."""

import itertools
import math
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retrykit import RetryPolicy
from retrykit.cli.main import main
from retrykit.cli.plan import waits_of, worst_case
from retrykit.core import backoff
from retrykit.core.backoff import JITTERS
from retrykit.core.decision import Call, Outcome, Retry, decide

PNG = b"\x89PNG\r\n\x1a\n"


def shown(capsys, *arguments):
    """What `plan` prints."""
    assert main(["plan", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert max(map(len, out.splitlines())) <= 80
    return out


def rows(text):
    """The cells of the rows of its table."""
    return [re.split(r"  +", line.strip()) for line in text.splitlines() if re.match(r" +\d+ ", line)]


class TestTable:
    def test_without_jitter(self, capsys):
        text = shown(capsys, "--max-retries", "5")
        assert text.startswith("5 attempts, waits 1 s + 2 s + 4 s + 8 s\n")
        assert rows(text) == [
            ["1", "1 s", "1 s", "1 s"],
            ["2", "2 s", "2 s", "3 s"],
            ["3", "4 s", "4 s", "7 s"],
            ["4", "8 s", "8 s", "15 s"],
        ]
        assert "All waits together: 15 s.\n" in text

    def test_with_full_jitter(self, capsys):
        text = shown(capsys, "--max-retries", "5", "--base-delay", "1", "--jitter", "full")
        assert rows(text) == [
            ["1", "0 to 1 s", "0.5 s", "0 to 1 s"],
            ["2", "0 to 2 s", "1 s", "0 to 3 s"],
            ["3", "0 to 4 s", "2 s", "0 to 7 s"],
            ["4", "0 to 8 s", "4 s", "0 to 15 s"],
        ]
        assert "All waits together: 0 to 15 s, 7.5 s on average.\n" in text

    def test_a_mean_that_can_t_be_said_is_left_out(self, capsys):
        text = shown(capsys, "--max-retries", "5", "--jitter", "decorrelated", "--max-delay", "20")
        assert [row[:3] for row in rows(text)] == [
            ["1", "1 to 3 s", "2 s"],
            ["2", "1 to 9 s", "3.5 s"],
            ["3", "1 to 20 s", "-"],
            ["4", "1 to 20 s", "-"],
        ]
        assert "All waits together: 4 to 52 s.\n" in text

    def test_max_delay_cuts_the_waits(self, capsys):
        assert [row[1] for row in rows(shown(capsys, "--max-retries", "4", "--max-delay", "2"))] == [
            "1 s",
            "2 s",
            "2 s",
        ]

    def test_a_long_first_wait_raises_max_delay(self, capsys):
        assert [row[1] for row in rows(shown(capsys, "--base-delay", "100"))] == ["100 s", "100 s"]

    def test_a_timeout_says_which_attempts_there_will_be(self, capsys):
        text = shown(capsys, "--max-retries", "6", "--jitter", "equal", "--timeout", "10")
        assert [row[-1] for row in rows(text)] == ["yes", "yes", "yes", "if waits are short", "no"]

    def test_a_single_attempt_has_no_waits(self, capsys):
        text = shown(capsys, "--max-retries", "1", "--attempt-timeout", "3")
        assert text == (
            "1 attempt, no retries, 3 s per attempt\nThe whole call: 3 s at the most: 1 attempt of up to 3 s.\n"
        )


@pytest.mark.parametrize(
    ("arguments", "conclusion"),
    [
        ("--max-retries 5", "without a bound, since nothing limits its attempts; give --attempt-timeout or --timeout"),
        ("--max-retries 5 --attempt-timeout 2", "25 s at the most: 15 s of waits, and 5 attempts of up to 2 s"),
        ("--max-retries 5 --timeout 20", "20 s at the most, by its timeout"),
        (
            "--max-retries 5 --timeout 20 --attempt-timeout 2",
            "20 s at the most, by its timeout; without that, 25 s",
        ),
        (
            "--max-retries 5 --timeout 30 --attempt-timeout 2",
            "25 s at the most: 15 s of waits, and 5 attempts of up to 2 s",
        ),
        (
            "--max-retries 5 --timeout 5 --attempt-timeout 0.1",
            "3.3 s at the most, since no wait is begun that would end after the timeout of 5 s",
        ),
        ("--max-retries 3 --base-delay 0 --attempt-timeout 2", "6 s at the most: 3 attempts of up to 2 s"),
    ],
)
def test_the_worst_case(capsys, arguments, conclusion):
    text = shown(capsys, *arguments.split())
    assert f"The whole call: {conclusion}." in " ".join(text.split())


# --- what is shown is what the schedule does --------------------------------------------------------------------------

TIMES = st.floats(0.01, 50)
POLICIES = st.fixed_dictionaries(
    {"max_retries": st.integers(1, 7), "jitter": st.sampled_from(JITTERS), "base_delay": TIMES},
    optional={"timeout": TIMES.map(lambda time: time + 20), "attempt_timeout": st.floats(0.01, 20)},
).map(lambda options: RetryPolicy(max_delay=60, **options))
DRAWS = st.lists(st.floats(0, 1, exclude_max=True), min_size=7, max_size=7)


@given(policy=POLICIES, draws=DRAWS)
def test_no_wait_is_out_of_its_range(policy, draws):
    previous = total = 0.0
    for wait, draw in zip(waits_of(policy), draws, strict=False):
        schedule = (wait.attempt, previous, policy.base_delay, policy.max_delay)
        previous = backoff.delay(policy.jitter, *schedule, draw=draw)
        total += previous
        assert wait.shortest - 1e-9 <= previous <= wait.longest + 1e-9
        assert wait.earliest - 1e-9 <= total <= wait.latest + 1e-9


@pytest.mark.parametrize("draw", [0.0, 1.0])
@pytest.mark.parametrize("jitter", JITTERS)
def test_the_ends_of_the_ranges_are_reached(jitter, draw):
    previous = total = 0.0
    for wait in waits_of(RetryPolicy(max_retries=6, jitter=jitter, max_delay=20)):
        previous = backoff.delay(jitter, wait.attempt, previous, 1.0, 20.0, draw=draw)
        total += previous
        assert (previous, total) == ((wait.longest, wait.latest) if draw else (wait.shortest, wait.earliest))


@pytest.mark.parametrize("jitter", JITTERS)
def test_the_mean_is_that_of_all_draws(jitter):
    waits = waits_of(RetryPolicy(max_retries=4, jitter=jitter))
    draws = [(number + 0.5) / 12 for number in range(12)]
    delays = []
    for three in itertools.product(draws, repeat=3):
        previous, last = 0.0, []
        for attempt, draw in enumerate(three, 1):
            previous = backoff.delay(jitter, attempt, previous, 1.0, 60.0, draw=draw)
            last.append(previous)
        delays.append(last)
    assert [wait.mean for wait in waits] == pytest.approx(
        [sum(column) / len(delays) for column in zip(*delays, strict=True)]
    )


FAILED = Outcome(error=TimeoutError())


def duration(policy, draws, attempts):
    """How long a call takes whose attempts all fail, after such parts of what they may take."""
    timeout = math.inf if policy.timeout is None else policy.timeout
    call, now = Call(0), 0.0
    for draw, part in zip(draws, attempts, strict=True):
        now = min(timeout, now + part * (policy.attempt_timeout or timeout))
        call.attempt, call.elapsed = call.attempt + 1, now
        decision = decide(FAILED, call, policy, draw)
        if not isinstance(decision, Retry):
            break
        call.previous_delay = decision.delay
        now += decision.delay
    return now


@given(policy=POLICIES, draws=DRAWS, attempts=st.lists(st.floats(0, 1), min_size=7, max_size=7))
@example(RetryPolicy(max_retries=5, timeout=5, attempt_timeout=0.1), [0.0] * 7, [1.0] * 7)
@example(RetryPolicy(max_retries=5, timeout=20, attempt_timeout=2), [0.0] * 7, [1.0] * 7)
def test_no_call_takes_longer_than_the_worst_case(policy, draws, attempts):
    if policy.timeout is None and policy.attempt_timeout is None:
        assert worst_case(policy) == math.inf
    else:
        assert duration(policy, draws, attempts) <= worst_case(policy) + 1e-9


@pytest.mark.parametrize(
    "options",
    [
        {"attempt_timeout": 2},
        {"attempt_timeout": 2, "jitter": "full"},
        {"attempt_timeout": 0.1, "timeout": 5},
        {"timeout": 6},
        {"attempt_timeout": 1, "timeout": 30, "jitter": "decorrelated"},
    ],
)
def test_the_worst_case_can_happen(options):
    policy = RetryPolicy(max_retries=5, **options)
    draws = [number / 20 for number in range(20)] + [1 - 1e-12]
    slowest = max(duration(policy, [draw] * 7, [first, *[1.0] * 6]) for draw in draws for first in (0.0, 1.0))
    assert slowest == pytest.approx(worst_case(policy))


# --- the picture ------------------------------------------------------------------------------------------------------


@pytest.fixture
def draw(capsys, monkeypatch, tmp_path):
    """Draws a picture, in a folder of its own; gives its path."""
    monkeypatch.chdir(tmp_path)

    def draw(name, *arguments):
        assert f"The picture is in {name}.\n" in shown(capsys, *arguments, "--plot", name)
        return tmp_path / name

    return draw


def texts(path):
    """All that is written in a picture."""
    elements = [element for element in ET.parse(path).iter() if element.tag.endswith("}text")]
    return ["".join(element.itertext()).strip() for element in elements]


def test_it_is_drawn_as_its_suffix_says(draw):
    assert draw("plan.PNG").read_bytes().startswith(PNG)
    assert ET.parse(draw("plan.svg")).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_it_says_what_the_table_says(draw):
    arguments = "--max-retries 5 --jitter equal --attempt-timeout 2 --timeout 20"
    found = texts(draw("plan.svg", *arguments.split()))
    assert {"0.5 to 1 s", "1 to 2 s", "2 to 4 s", "4 to 8 s"} <= set(found)  # the waits
    assert {"0.5 to 3 s", "1.5 to 7 s", "3.5 to 13 s", "7.5 to 20 s"} <= set(found)  # when the attempts begin
    assert "the end at the latest: 20 s" in found


def test_an_attempt_that_the_timeout_leaves_no_time_for_is_marked(draw):
    found = texts(draw("plan.svg", *["--max-retries", "5", "--timeout", "5", "--attempt-timeout", "0.1"]))
    assert found.count("never") == 2
    assert "timeout" in found


@pytest.mark.parametrize("arguments", ["--max-retries 1", "--base-delay 0", "--max-retries 40 --jitter decorrelated"])
def test_any_plan_can_be_drawn(draw, arguments):
    assert "when it begins" in texts(draw("plan.svg", *arguments.split()))


def test_the_same_plan_gives_the_same_file(draw):
    assert draw("one.svg").read_bytes() == draw("two.svg").read_bytes()


# --- what can't be ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--plot plan.pdf", "'plan.pdf' is no name of a picture that can be drawn; end it with .png or .svg"),
        ("--plot plan", "end it with .png or .svg"),
        ("--plot nowhere/plan.png", "there is no folder 'nowhere'; give the name of a file in a folder that there is"),
        ("--max-retries 101", "101 attempts are more than can be shown; give 100 or fewer"),
        ("--max-retries 0", "'0' is no number of attempts"),
        ("--jitter some", "invalid choice: 'some'"),
        (
            "--max-delay 1 --base-delay 2",
            "--base-delay 2 is longer than --max-delay 1, so that no delay could grow; write a longer --max-delay",
        ),
        ("--timeout 1 --attempt-timeout 2", "--attempt-timeout 2 is longer than --timeout 1"),
    ],
)
def test_it_is_refused_with_a_reason(capsys, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["plan", *arguments.split()])
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


def test_a_folder_is_no_picture(capsys, tmp_path):
    folder = tmp_path / "folder.png"
    folder.mkdir()
    with pytest.raises(SystemExit):
        main(["plan", "--plot", str(folder)])
    assert "folder.png' is a folder; give the name of a file" in capsys.readouterr().err


def test_a_file_that_can_t_be_written_is_named_after_the_table(capsys, tmp_path):
    path = tmp_path / "plan.svg"
    path.symlink_to(tmp_path / "nowhere" / "plan.svg")
    assert main(["plan", "--plot", str(path)]) == 2
    out, err = capsys.readouterr()
    assert "All waits together" in out
    assert err == f"retrykit: the picture could not be written to {path}: No such file or directory\n"


class TestWithoutExtras:
    @staticmethod
    def run(missing, *arguments):
        code = f"import runpy, sys; sys.modules['{missing}'] = None; runpy.run_module('retrykit', run_name='__main__')"
        command = [sys.executable, "-W", "error", "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    @pytest.mark.parametrize("command", ["plan", "simulate"])
    def test_without_rich(self, command):
        done = self.run("rich", command)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "retrykit: the table is printed with rich; install it: pip install rich\n"

    @pytest.mark.parametrize("command", ["plan", "simulate"])
    def test_without_matplotlib(self, command, tmp_path):
        done = self.run("matplotlib", command, "--plot", str(tmp_path / "picture.png"))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == ("retrykit: the picture is drawn with matplotlib; install it: pip install matplotlib\n")

    def test_the_table_needs_no_matplotlib(self):
        done = self.run("matplotlib", "plan")
        assert (done.returncode, done.stderr) == (0, "")
        assert "All waits together: 3 s." in done.stdout


def test_the_page_shows_what_the_command_prints(capsys):
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    command = re.search(r"^python -m retrykit (plan .*)$", page, re.MULTILINE)
    block = re.compile(r"^~~~\{code-block\} text\n(.*?)^~~~$", re.MULTILINE | re.DOTALL).search(page, command.end())
    assert main(command[1].split()) == 0
    assert "".join(f"{line.rstrip()}\n" for line in capsys.readouterr().out.splitlines()) == block[1]
