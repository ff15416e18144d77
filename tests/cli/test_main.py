"""The arguments, the way to the commands, and what the package's own door is."""

import importlib
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from retrykit.cli.arguments import COMMANDS
from retrykit.cli.main import main


def refused(capsys, *arguments):
    """What is said of arguments that can't be."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


def shown(capsys, *arguments):
    """What is said where only that was asked for."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert stopped.value.code == 0
    return " ".join(capsys.readouterr().out.split())


class TestHelp:
    def test_the_program_names_its_commands(self, capsys):
        text = shown(capsys, "--help")
        assert "python -m retrykit" in text
        assert "demo call a server that misbehaves" in text
        assert "get fetch a URL, or download many" in text

    def test_the_demo_says_what_its_exit_code_means(self, capsys):
        assert "0 where retrykit saved every call, else 1" in shown(capsys, "demo", "--help")

    def test_get_says_that_attempts_are_counted_in_total_and_names_the_defaults(self, capsys):
        text = shown(capsys, "get", "--help")
        assert (
            "attempts in total, the first included; 1 never retries; of a download, those in a row that bring nothing"
            " new (default: 3)" in text
        )
        assert "each later one is twice as long; of a download, the longest that these can be (default: 1)" in text
        assert "attempts and waits together; of a download, for each wait for more bytes (default: 30)" in text
        assert "downloads at a time (default: 10)" in text

    @pytest.mark.parametrize("command", ["plan", "simulate"])
    def test_what_shows_something_says_what_its_exit_code_means(self, capsys, command):
        assert "The exit code is 0, or 2 where an argument is wrong" in shown(capsys, command, "--help")

    def test_get_lists_every_exit_code(self, capsys):
        with pytest.raises(SystemExit):
            main(["get", "--help"])
        lines = capsys.readouterr().out.splitlines()
        lines = lines[lines.index("exit codes, as of curl:") + 1 :]
        codes = [int(line.split()[0]) for line in lines]
        assert codes == [0, 1, 2, 3, 6, 7, 8, 18, 22, 23, 26, 28, 35, 43, 47, 52, 56, 60, 61, 130, 143]

    @pytest.mark.parametrize("command", ["get", "plan", "simulate"])
    def test_it_ends_with_an_example_that_can_be_typed(self, capsys, command):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        lines = capsys.readouterr().out.splitlines()
        assert any(line.startswith(f"  python -m retrykit {command} ") for line in lines)

    @pytest.mark.parametrize("command", COMMANDS)
    def test_no_line_of_the_help_is_wider_than_a_terminal(self, capsys, monkeypatch, command):
        monkeypatch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


class TestVersion:
    def test_it_is_that_of_the_installed_package(self, capsys, monkeypatch, tmp_path):
        information = tmp_path / "retrykit-9.8.7.dist-info"
        information.mkdir()
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: retrykit\nVersion: 9.8.7\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        assert shown(capsys, "--version") == "retrykit 9.8.7"

    def test_a_checkout_has_none(self, capsys, monkeypatch):
        monkeypatch.setattr(sys, "path", [])
        assert shown(capsys, "--version") == "retrykit (not installed)"


class TestWrongArguments:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["fetch"], "there is no command 'fetch'; did you mean get?"),
            (["gett"], "there is no command 'gett'; did you mean get?"),
            (["sim"], "there is no command 'sim'; did you mean simulate?"),
            (["help"], "there is no command 'help'; did you mean --help?"),
            (["download"], "there is no command 'download'; the commands are demo, get, plan, simulate"),
            (["http://user:secret@localhost/"], "a URL is no command; to fetch it, write `get` before it"),
            (["--verison"], "there is no option --verison before the command; did you mean --version?"),
            (["--quiet"], "there is no option --quiet before the command; see --help"),
            (["--jsonl", "get", "localhost"], "options come after the command: get --jsonl"),
            (["get", "-k", "localhost"], "there is no option -k; certificates are always verified; to trust another"),
            (["get", "-x", "localhost:1", "localhost"], "there is no option -x; get uses no proxy"),
            (["get", "-sSL", "localhost"], "there is no option -s; an error status is a failure, and nothing is"),
            (["get", "-L", "localhost"], "there is no option -L; redirects are followed in any case"),
            (["get", "-C", "-", "localhost"], "there is no option -C; a download goes on where it was in any case"),
            (["get"], "required: URL"),
            (["get", "-H"], "there is no option -H; get sends no headers of its own"),
            (["get", "--header=A: b", "localhost"], "there is no option --header; get sends no headers of its own"),
            (["get", "-X", "POST", "localhost"], "there is no option -X; get sends a GET without a body"),
            (["get", "-O", "localhost"], "there is no option -O; to download to a file"),
            (["get", "localhost", "--retries", "3"], "there is no option --retries; did you mean --max-retries?"),
            (["get", "localhost", "-z"], "there is no option -z; see --help"),
            (["get", "localhost", "--folder", "x"], "there is no option --folder; to download to a file"),
            (["get", "localhost", "--urls", "x"], "there is no option --urls; see --help"),
            (
                ["get", "localhost", "-u", "user"],
                "there is no option -u; get sends no credentials but those of the URL",
            ),
            (["get", "localhost", "--max-time", "3"], "there is no option --max-time; did you mean --timeout?"),
            (["plan", "--attempts", "3"], "there is no option --attempts; did you mean --max-retries?"),
            (["plan", "--parallel-max", "3"], "there is no option --parallel-max; see --help"),
            (["plan", "--plt", "x.png"], "there is no option --plt; did you mean --plot?"),
            (["plan", "5"], "there is no argument 5; see --help"),
            (["demo", "--slow"], "there is no option --slow; see --help"),
            (["get", "localhost", "--max-retries", "many"], "--max-retries: 'many' is no number of attempts"),
            (
                ["get", "localhost", "--max-retries", "0"],
                "'0' is no number of attempts; 1 is a single one, without retries",
            ),
            (["get", "localhost", "--base-delay", "-1"], "'-1' is no time; give a number of seconds"),
            (["get", "localhost", "--base-delay", "nan"], "'nan' is no time"),
            (["get", "localhost", "--base-delay", "long"], "'long' is no time"),
            (
                ["get", "localhost", "--timeout", "0"],
                "'0' leaves no time for an attempt; give a number of seconds above 0",
            ),
            (["get", "localhost", "--concurrency", "0"], "'0' is no whole number of 1 or more; give one such as 10"),
            (["get", "localhost", "--overwrite"], "--overwrite is of no use where the body goes to standard output"),
            (["get", "localhost", "--concurrency", "5"], "--concurrency is of no use where the body goes to standard"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_they_are_refused_with_a_reason(self, capsys, arguments, message):
        error = refused(capsys, *arguments)
        command = " ".join(["python -m retrykit", *(name for name in arguments[:1] if name in COMMANDS)])
        assert error.startswith(f"usage: {command} ")
        assert message in error

    def test_what_is_secret_in_a_url_is_not_told_again(self, capsys):
        assert "secret" not in refused(capsys, "http://user:secret@localhost/?key=secret")

    def test_where_there_are_none_the_commands_are_shown(self, capsys):
        error = refused(capsys)
        assert error.startswith("usage: python -m retrykit [-h]")
        assert "download many, with retries" in error


class TestWithoutRich:
    """`rich` is an extra: the demo says how to get it, and everything else works."""

    @staticmethod
    def run(*arguments):
        """Run `python -m retrykit` where rich can't be imported."""
        code = "import runpy, sys; sys.modules['rich'] = None; runpy.run_module('retrykit', run_name='__main__')"
        return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=False, timeout=60)

    def test_the_demo_names_the_command_that_installs_it(self):
        done = self.run("demo")
        assert done.returncode == 2
        assert done.stdout == b""
        assert done.stderr == b"retrykit: the demo prints with rich; install it: pip install rich\n"

    def test_the_demo_names_it_in_this_process_too(self, monkeypatch, capsys):
        monkeypatch.setitem(sys.modules, "rich", None)
        assert main(["demo"]) == 2
        assert "pip install rich" in capsys.readouterr().err

    def test_get_works(self, server):
        server.script("/hello", "hello")
        done = self.run("get", f"{server.url}/hello")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"hello", b"")


class TestOldPackages:
    def test_of_aiohttp_the_version_is_named_that_is_needed(self, tmp_path):
        (tmp_path / "aiohttp.py").write_text("__version__ = '3.11.18'\n")
        environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"}
        done = subprocess.run(
            [sys.executable, "-m", "retrykit", "get", "localhost"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.stderr.splitlines()[-1] == (
            "ImportError: retrykit needs aiohttp 3.12 or newer, and this is 3.11.18; install it: pip install"
            " 'aiohttp>=3.12'"
        )


class TestModule:
    def test_to_import_it_runs_nothing(self):
        assert importlib.import_module("retrykit.__main__").main is main

    def test_it_runs_as_a_program(self, server):
        server.script("/hello", "hello")
        command = [sys.executable, "-W", "error", "-m", "retrykit", "get", f"{server.url}/hello"]
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"hello", b"")

    def test_its_exit_code_is_that_of_the_command(self, monkeypatch, unused_address):
        monkeypatch.delitem(sys.modules, "retrykit.__main__", raising=False)
        monkeypatch.setattr(sys, "argv", ["retrykit", "get", unused_address, "--max-retries", "1"])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_module("retrykit", run_name="__main__")
        assert stopped.value.code == 7


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize("command", ["plan", "plan --plot waits.svg"])
def test_what_can_not_be_printed_is_said_and_the_picture_is_there(command, tmp_path):
    script = f"{sys.executable} -m retrykit {command} >/dev/full"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 23
    assert done.stderr == "retrykit: the output could not be written: No space left on device\n"
    assert (tmp_path / "waits.svg").exists() == ("--plot" in command)


def test_a_reader_who_has_had_enough_is_told_nothing():
    script = f"{sys.executable} -m retrykit plan | true"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
