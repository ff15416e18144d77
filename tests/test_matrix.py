"""`.ci/matrix`, with Pythons that only pretend: which pairs it runs, how, and what it says at the end."""

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PATH = os.environ.get("PATH", "")

pytestmark = pytest.mark.skipif(not (shutil.which("bash") and shutil.which("git")), reason="it needs bash and git")

# It answers what it is asked for its version, and writes down what it is told to install and to test.
PYTHON = """#!/bin/sh
case "$*" in
    -c*) echo {version} ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    *" pip "*) echo "install {version}: ${{*##*\\[test\\] }}" >>"$TOLD"; [ {version} != "$BAD_INSTALL" ] ;;
    *" pytest "*) echo "test {version}: ${{RETRYKIT_NEWEST_AIOHTTP-unset}}" >>"$TOLD"; [ {version} != "$BAD_TESTS" ] ;;
esac
"""
BROKEN = "#!/bin/sh\necho 'pyenv: command not found' >&2\nexit 127\n"


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


class Machine:
    """One where no Python runs, but those that are added."""

    def __init__(self, home: Path) -> None:
        self.project = home / "project"
        shutil.copytree(ROOT / ".ci", self.project / ".ci")
        subprocess.run(["git", "init", "--quiet", self.project], check=True)
        self.programs = home / "programs"
        for name in ("python", "python3", "python3.11", "python3.12", "python3.13"):
            executable(self.programs / name, BROKEN)
        self.versions = home / "pyenv" / "versions"
        executable(self.programs / "pyenv", f"#!/bin/sh\necho {home}/pyenv\n")
        self.told = home / "told"
        self.temporary = home / "temporary"
        self.temporary.mkdir()

    def add(self, *versions: str) -> None:
        for version in versions:
            executable(self.programs / f"python{version}", PYTHON.format(version=version))

    def matrix(self, *names: str, **settings: str) -> tuple[int, str]:
        """Run it: the exit status, and what was printed."""
        foreign = re.compile("PYTHON.*|RETRYKIT_.*")
        environment = {name: value for name, value in os.environ.items() if not foreign.fullmatch(name)}
        environment |= {
            "PATH": f"{self.programs}{os.pathsep}{PATH}",
            "TMPDIR": str(self.temporary),
            "TOLD": str(self.told),
            "BAD_INSTALL": "",
            "BAD_TESTS": "",
        }
        done = subprocess.run(
            [self.project / ".ci" / "matrix", *names],
            env=environment | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert not list(self.temporary.iterdir())
        return done.returncode, done.stdout

    def what_was_done(self) -> list[str]:
        return self.told.read_text().splitlines() if self.told.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def verdicts(printed: str) -> list[str]:
    return re.findall(r"^(?:passed|failed)  \S+", printed, re.MULTILINE)


def test_all_nine(machine):
    versions = ("3.11", "3.12", "3.13")
    machine.add(*versions)
    status, printed = machine.matrix(RETRYKIT_NEWEST_AIOHTTP="1")
    assert status == 0, printed
    assert verdicts(printed) == [f"passed  {x}:{y}" for x in versions for y in ("3.12", "3.13", "newest")]
    assert machine.what_was_done() == [
        line
        for version in versions
        for line in (
            f"install {version}: aiohttp==3.12.0 tenacity==9.0.0",
            f"test {version}: unset",
            f"install {version}: aiohttp==3.13.*",
            f"test {version}: unset",
            f"install {version}: --upgrade aiohttp",
            f"test {version}: 1",
        )
    ]


def test_oldest_and_newest_are_of_what_is_there(machine):
    machine.add("3.12")
    status, printed = machine.matrix("oldest", "newest")
    assert status == 0, printed
    assert "oldest is 3.12:3.12" in printed
    assert "newest is 3.12:newest" in printed
    assert verdicts(printed) == ["passed  3.12:3.12", "passed  3.12:newest"]


def test_it_goes_on_after_a_failure(machine):
    machine.add("3.11", "3.12")
    status, printed = machine.matrix(
        "3.11:3.13", "3.12:3.13", "3.13:3.13", "oldest", BAD_INSTALL="3.12", BAD_TESTS="3.11"
    )
    assert status == 1
    assert verdicts(printed) == ["failed  3.11:3.13", "failed  3.12:3.13", "failed  3.13:3.13", "failed  3.11:3.12"]
    assert "could not be installed" in printed
    assert "PYTHON3_13=/path/to/python .ci/matrix" in printed
    assert "4 of 4 failed" in printed


def test_pythons_of_pyenv_are_found(machine):
    executable(machine.versions / "3.13.0" / "bin" / "python", PYTHON.format(version="3.13"))
    status, printed = machine.matrix("newest")
    assert (status, verdicts(printed)) == (0, ["passed  3.13:newest"])


def test_a_python_that_is_given_goes_first(machine, tmp_path):
    machine.add("3.12")
    program = PYTHON.format(version="3.12").replace("install 3.12", "install with the given")
    given = executable(tmp_path / "given", program)
    status, printed = machine.matrix("3.12:3.13", PYTHON3_12=str(given))
    assert status == 0, printed
    assert machine.what_was_done()[0] == "install with the given: aiohttp==3.13.*"


@pytest.mark.parametrize(
    ("arguments", "settings", "complaint"),
    [
        (["3.12"], {}, "there is no pair '3.12'; see .ci/matrix --help"),
        (["3.10:3.13"], {}, "there is no pair '3.10:3.13'"),
        (["newest"], {}, "none of Python 3.13 3.12 3.11 is found here"),
        (["newest"], {"PYTHON3_11": "/bin/false"}, "PYTHON3_11 is /bin/false, which is no Python 3.11"),
    ],
)
def test_what_can_not_be_run_is_refused_at_once(machine, arguments, settings, complaint):
    status, printed = machine.matrix(*arguments, **settings)
    assert status == 1
    assert complaint in printed
    assert machine.what_was_done() == []


def test_the_oldest_are_those_of_setup_cfg():
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    lowest = re.findall(r"(\w+)>=([\d.]+)", settings["options"]["install_requires"])
    exactly = [f"'{name}=={'.'.join([*number.split('.'), '0', '0'][:3])}'" for name, number in lowest]
    assert " ".join(exactly) in (ROOT / ".ci" / "matrix").read_text(encoding="utf-8")
