"""What the commands meet outside of the network: full disks, readers that left, names without bytes, few open files."""

import os
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from retrykit.cli.main import main
from retrykit.testing import Resumable

FULL = Path("/dev/full")
ROOT = Path(__file__).parents[2]
SHORT_SIMULATION = "simulate --duration 5 --clients 20 --rate 20"
needs_full_device = pytest.mark.skipif(not FULL.exists(), reason="needs a device that is full")


class Ran:
    """A run of the program in a shell: its exit code, and what was printed."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def lines(self):
        return self.err.splitlines()


@pytest.fixture
def run(tmp_path):
    """Runs `python -m retrykit` in an empty folder.

    What comes before and after the arguments is for the shell, and variables for the environment.
    """

    def run(arguments, *, before="", after="", **variables):
        script = f"{before} {shlex.quote(sys.executable)} -m retrykit {arguments} {after}"
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
            timeout=60,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


class TestOutput:
    @pytest.mark.parametrize("command", ["demo", "plan", SHORT_SIMULATION, "--help"])
    def test_a_reader_that_left_is_told_nothing_and_the_exit_code_is_23(self, run, command):
        ran = run(command, after="| true", PYTHONUNBUFFERED="")
        assert (ran.code, ran.err) == (23, "")

    @needs_full_device
    @pytest.mark.parametrize("command", ["--version", "get --help"])
    def test_help_that_can_not_be_written_is_an_error_like_a_table(self, run, command):
        ran = run(command, after=f"> {FULL}", PYTHONUNBUFFERED="")
        assert (ran.code, ran.err) == (23, "retrykit: the output could not be written: No space left on device\n")

    @needs_full_device
    def test_a_simulation_needs_no_standard_error(self, run):
        ran = run(SHORT_SIMULATION, after=f"2> {FULL}", PYTHONUNBUFFERED="1")
        assert (ran.code, ran.out.count("4 attempts")) == (0, 4)

    @pytest.mark.parametrize("unbuffered", ["", "1"])
    def test_a_body_is_written_whole_or_its_end_is_said(self, run, server, tmp_path, unbuffered):
        body = bytes(range(256)) * 1024
        server.script("/big", body)
        ran = run(f"get {server.url}/big", before="ulimit -f 64;", after="> big", PYTHONUNBUFFERED=unbuffered)
        assert (ran.code, ran.err) == (23, "retrykit: (23) the body could not be written, File too large\n")
        ran = run(f"get {server.url}/big", after="> big", PYTHONUNBUFFERED=unbuffered)
        assert (ran.code, (tmp_path / "big").read_bytes() == body) == (0, True)


class TestFiles:
    @pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare, to have a disk that is full")
    def test_a_full_disk_is_named_and_what_has_come_is_kept(self, run, server, tmp_path):
        body = os.urandom(3_000_000)
        server.script("/big.bin", Resumable(body))
        (tmp_path / "disk").mkdir()
        mount, grow = "mount -t tmpfs -o size=2m tmpfs disk", "mount -o remount,size=4m disk"
        alone = ["unshare", "-rm", "bash", "-c"]
        if subprocess.run([*alone, mount], cwd=tmp_path, capture_output=True, check=False).returncode:
            pytest.skip("nothing can be mounted here")
        get = f"{shlex.quote(sys.executable)} -m retrykit get -o disk {server.url}/big.bin"
        script = shlex.quote(f"{mount}; {get}; {grow}; {get}; cat disk/big.bin > big")
        ran = run("--version", before=f"{' '.join(alone)} {script};")
        assert ran.lines[0] == (
            f"retrykit: (23) GET {server.url}/big.bin: the file could not be written, No space left on device:"
            " disk/big.bin.part (make room, and do the same again: it goes on with what has come, which is kept there)"
        )
        assert (tmp_path / "big").read_bytes() == body
        assert [request.headers.get("Range") is None for request in server.requests()] == [True, False]

    def test_too_few_open_files_are_said_with_what_to_do(self, run, server):
        urls = " ".join(f"{server.url}/{number}" for number in range(30))
        for number in range(30):
            server.script(f"/{number}", "x" * 10_000)
        ran = run(f"get -o files --concurrency 30 --base-delay 0 {urls}", before="ulimit -n 18;")
        assert ran.code in {7, 23}
        assert any(
            "Too many open files" in line
            and "; allow more open files (ulimit -n), or fewer downloads at a time (--concurrency)" in line
            for line in ran.lines
        )

    def test_where_it_can_not_even_begin_that_is_said(self, run, server):
        ran = run(f"get {server.url}/a", before="ulimit -n 5;")
        assert ran.code == 2
        assert "retrykit: the command can't run: Too many open files; allow more open files (ulimit -n)" in ran.lines


class TestNames:
    @pytest.mark.parametrize("command", ["plan", "simulate"])
    def test_one_that_is_too_long_for_a_picture_is_refused(self, capsys, command):
        with pytest.raises(SystemExit) as stopped:
            main([command, "--plot", f"{'x' * 300}.png"])
        assert stopped.value.code == 2
        assert "can't be reached, File name too long; give another file" in capsys.readouterr().err

    @pytest.mark.skipif(find_spec("matplotlib") is None, reason="needs matplotlib, to draw a picture")
    def test_one_that_standard_output_has_no_bytes_for_is_shown_with_escapes(self, run, tmp_path):
        ran = run("plan --plot \N{LATIN SMALL LETTER U WITH DIAERESIS}.svg", PYTHONIOENCODING="ascii")
        assert (ran.code, ran.err) == (0, "")
        assert "The picture is in \\xfc.svg." in ran.out
        assert [path.suffix for path in tmp_path.iterdir()] == [".svg"]

    def test_what_the_system_has_no_bytes_for_is_an_underscore(self, run, server, tmp_path):
        server.script("/\N{LATIN SMALL LETTER U WITH DIAERESIS}.txt", "hello")
        ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        ran = run(f"get -o files {server.url}/%C3%BC.txt", **ascii_only)
        assert (ran.code, (tmp_path / "files" / "_.txt").read_text()) == (0, "hello")
