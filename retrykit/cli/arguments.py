"""The arguments of all commands."""

import re
import sys
from argparse import SUPPRESS, Action, ArgumentParser, HelpFormatter, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from retrykit.cli import values
from retrykit.cli.endings import CANT_RUN, EXIT_CODES
from retrykit.core import checks
from retrykit.core.backoff import JITTERS
from retrykit.core.policy import RetryPolicy
from retrykit.http.client import DEFAULT_TIMEOUT

CONCURRENCY = 10
"""Downloads at a time, of `get`."""

SIMULATED = RetryPolicy(max_retries=4, jitter="full", attempt_timeout=1.0)
"""The policy of `simulate`: its callers have less patience than the server has queue."""


COMMANDS = ("demo", "get", "plan", "simulate")

_PROGRAM_OPTIONS = ("-h", "--help", "--version")
_ATTEMPTS = "attempts in total, the first included; 1 never retries"
_FIRST_WAIT = "the wait before the second attempt; each later one is twice as long"
_SHOWN = (
    "The exit code is 0, or 2 where an argument is wrong, a package that it needs is not installed, or the picture"
    " can't be written, and 23 where the table can't."
)
_GET = """\
Fetch a URL. The body goes to standard output. Attempts that fail are reported
on standard error; where none does, nothing is.

With several URLs, '-', -o or --jsonl, each URL is downloaded to a file that is
called as the last segment of its path. A file that is there already is left
alone, and a part of one is gone on with: after an interruption (Ctrl-C), the
same command again goes on where it was. Each failure is reported on standard
error, and so is a summary at the end."""

_GET_EXAMPLES = """\
examples:
  python -m retrykit get https://example.com/users.json > users.json
  python -m retrykit get -o pictures https://example.com/{1,2,3}.png
  python -m retrykit get -o pictures --jsonl - < urls.txt > done.jsonl"""
_PLAN_EXAMPLE = """\
example:
  python -m retrykit plan --max-retries 5 --jitter full --timeout 30"""
_SIMULATE_EXAMPLE = """\
example:
  python -m retrykit simulate --outage 10-20 --max-retries 5 --plot storm.png"""


def parse(argv: Sequence[str] | None) -> Namespace:
    """The arguments, where the command knows all of them: argparse would refuse the others without a word on why.

    Args:
        argv: The arguments. Default: those of the process.

    Returns:
        They; `command` is its name, `refuse` ends the process with what is wrong with them, and `usage` shows them.
    """
    parser = _parser()
    given = sys.argv[1:] if argv is None else list(argv)
    if not given:
        parser.print_help(sys.stderr)
        parser.exit(CANT_RUN)
    _refuse_other_than_command(parser, given)
    arguments, unknown = parser.parse_known_args(given)
    if unknown:
        name = unknown[0].partition("=")[0]
        meant = _meant_by(name, re.findall("--([a-z-]+)", arguments.usage()))
        hint = f"did you mean {meant}?" if meant else "see --help"
        kind = "option" if name.startswith("-") else "argument"
        arguments.refuse(f"there is no {kind} {name}; {hint}")
    return arguments


def _refuse_other_than_command(parser: ArgumentParser, given: Sequence[str]) -> None:
    """Say what to write where the first argument is neither a command nor an option of the program."""
    first, *others = given
    if first in COMMANDS or first in _PROGRAM_OPTIONS:
        return
    if first.startswith("-"):
        after = next((argument for argument in others if argument in COMMANDS), None)
        meant = checks.close_to(first, _PROGRAM_OPTIONS)
        told = f"did you mean {meant}?" if meant else "see --help"
        told = f"options come after the command: {after} {first}" if after else told
        parser.error(f"there is no option {first} before the command; {told}")
    if "://" in first:
        parser.error("a URL is no command; to fetch it, write `get` before it")
    # With no less likeness than half: `gett`, `sim`, `help`.
    meant = checks.close_to(first, (*COMMANDS, *_PROGRAM_OPTIONS), 0.5)
    hint = f"did you mean {meant}?" if meant else f"the commands are {', '.join(COMMANDS)}"
    parser.error(f"there is no command {first!r}; {hint}")


def _meant_by(name: str, options: Sequence[str]) -> str | None:
    """The option that this is nearly the name of, or its name in another program; `None` where there is none."""
    if name in _KNOWN_TO_CURL:
        return _KNOWN_TO_CURL[name] if _KNOWN_TO_CURL[name][2:] in options else None
    known = [option.replace("-", "_") for option in options]
    meant = checks.meant_by(name[2:].replace("-", "_"), known) if name.startswith("--") else None
    return meant and f"--{meant.replace('_', '-')}"


def _parser() -> ArgumentParser:
    parser = ArgumentParser("python -m retrykit", description="Retries for aiohttp: see them at work, or use them.")
    parser.add_argument("--version", action="version", version=f"retrykit {_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    demo = commands.add_parser(
        "demo",
        help="call a server that misbehaves, without retrykit and with it",
        description="Start a server on 127.0.0.1 that misbehaves, call it without retrykit and then with it, and print"
        " every attempt. It takes a few seconds. The exit code is 0 where retrykit saved every call, else 1; 2 where it"
        " can't run, and 23 where the output can't be written.",
    )
    _set_defaults(demo)
    _add_get_arguments(
        commands.add_parser(
            "get",
            help="fetch a URL, or download many, with retries",
            description=_GET,
            epilog=f"{_GET_EXAMPLES}\n\n{_exit_codes()}",
            formatter_class=RawDescriptionHelpFormatter,
        )
    )
    _add_plan_arguments(
        commands.add_parser(
            "plan",
            help="show the waits of a policy",
            description=f"Show how long a policy waits between attempts, and how long a whole call can take. {_SHOWN}",
            epilog=_PLAN_EXAMPLE,
            formatter_class=_Help,
        )
    )
    _add_simulate_arguments(
        commands.add_parser(
            "simulate",
            help="put policies through an outage, a burst and an overload",
            description="Run many calls through an outage, a burst and an overload of a server of limited capacity, on"
            " a virtual clock: without retries, with plain ones, and with guards that keep them from making it worse."
            f" The same arguments give the same numbers. {_SHOWN}",
            epilog=_SIMULATE_EXAMPLE,
            formatter_class=_Help,
        )
    )
    return parser


class _Help(HelpFormatter):
    """Leaves the lines of an example as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("example"):
            return text
        return super()._fill_text(text, width, indent)


def _exit_codes() -> str:
    return "exit codes, as of curl:\n" + "\n".join(f"  {code:<5}{EXIT_CODES[code]}" for code in sorted(EXIT_CODES))


def _version() -> str:
    try:
        return metadata.version("retrykit")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _add_get_arguments(parser: ArgumentParser) -> None:
    what = (
        "where to; without a scheme, http:// is put before it. '-' reads URLs from standard input, one per line; blank"
        " lines and those that begin with # are left out"
    )
    parser.add_argument("urls", nargs="+", type=values.url, metavar="URL", help=what)
    what = "the folder to download to, which is made where there is none (default: the current one)"
    parser.add_argument("-o", dest="folder", type=Path, metavar="DIR", help=what)
    _add(parser, "--concurrency N", values.count, "downloads at a time", CONCURRENCY)
    parser.add_argument("--overwrite", action="store_true", help="download also what is there already")
    what = "print a line of JSON to standard output for each URL that is done with"
    parser.add_argument("--jsonl", action="store_true", help=what)
    policy = RetryPolicy()
    what = f"{_ATTEMPTS}; of a download, those in a row that bring nothing new"
    _add(parser, "--max-retries N", values.attempts, what, policy.max_retries)
    what = f"{_FIRST_WAIT}; of a download, the longest that these can be"
    _add(parser, "--base-delay SECONDS", values.seconds, what, policy.base_delay)
    what = "for the whole call, attempts and waits together; of a download, for each wait for more bytes"
    _add(parser, "--timeout SECONDS", values.limit, what, DEFAULT_TIMEOUT)
    for names, instead in _ELSEWHERE.items():
        parser.add_argument(*names.split(), nargs="?", action=_Refused, dest="elsewhere", help=SUPPRESS, const=instead)
    _set_defaults(parser)


def _set_defaults(parser: ArgumentParser) -> None:
    parser.set_defaults(refuse=parser.error, usage=parser.format_usage)


class _Refused(Action):
    """An option that other programs have: its `const` says what to do instead."""

    def __call__(self, parser: ArgumentParser, _: object, __: object, name: str | None = None) -> None:
        parser.error(f"there is no option {name}; {self.const}")


# Those of curl, where one thing has the place of another.
_ELSEWHERE = {
    "-H --header": "get sends no headers of its own; for a request with headers, write a program with fetch_bytes(url,"
    " headers=...)",
    "-X --request -d --data": "get sends a GET without a body; for other requests, write a program with"
    " AsyncHTTPClient",
    "-u --user": "get sends no credentials but those of the URL; for others, write a program with fetch_bytes(url,"
    " headers=...)",
    "-k --insecure --cacert": "certificates are always verified; to trust another one, give its file in the"
    " environment: SSL_CERT_FILE=FILE",
    "-x --proxy": "get uses no proxy; to use one, write a program with fetch_bytes(url, proxy=...)",
    "-L --location": "redirects are followed in any case; leave it out",
    "-f --fail -s --silent": "an error status is a failure, and nothing is reported without one, in any case; leave it"
    " out",
    "-C --continue-at -c --continue": "a download goes on where it was in any case; leave it out, and give -o DIR",
    "-O --remote-name --output --output-dir --folder": "to download to a file that is called as the URL, give -o and a"
    " folder, such as -o .",
}
# Those that are called otherwise here.
_KNOWN_TO_CURL = {
    "--retry": "--max-retries",
    "--retry-delay": "--base-delay",
    "--max-time": "--timeout",
    "-m": "--timeout",
    "--parallel-max": "--concurrency",
}


def _add_plan_arguments(parser: ArgumentParser) -> None:
    policy = RetryPolicy()
    _add_schedule(parser, policy, values.few_attempts)
    _add(parser, "--max-delay SECONDS", values.seconds, "the longest single wait", policy.max_delay)
    _add_jitter_and_limits(parser, policy)
    _add_plot(parser, "the waits, and when the attempts begin")
    _set_defaults(parser)


def _add_simulate_arguments(parser: ArgumentParser) -> None:
    _add(parser, "--clients N", values.count, "callers", 1000)
    _add(parser, "--processes N", values.count, "that these are spread over, each with guards of its own", 10)
    _add(parser, "--rate N", values.per_second, "calls per second, of all callers together", 600)
    _add(parser, "--capacity N", values.per_second, "requests per second of the server", "the rate / 0.6")
    _add(parser, "--queue N", values.whole, "requests that may wait there", "what it serves in 1.2 s")
    _add(parser, "--duration SECONDS", values.limit, "that the simulation runs", 60)
    several: dict[str, Any] = {"nargs": "+", "action": "extend"}
    what = "when all requests are answered 503"
    _add(parser, "--outage START-END", values.outage, what, "10-15", **several)
    what = "when there are F times as many calls; where one of these two is given, the other has no default"
    _add(parser, "--overload START-ENDxF", values.overload, what, "30-31x4 40-45x2.5", **several)
    what = "of the requests, chosen at random, that are answered 503"
    _add(parser, "--failure-rate SHARE", values.share, what, 0)
    what = "the Retry-After that the server sends with each 503; 0 is none"
    _add(parser, "--retry-after SECONDS", values.seconds, what, 1)
    _add_schedule(parser, SIMULATED, values.attempts)
    _add_jitter_and_limits(parser, SIMULATED)
    _add(parser, "--seed N", values.whole, "what the random numbers follow from", 1)
    _add_plot(parser, "load and goodput over time")
    _set_defaults(parser)


def _add_schedule(parser: ArgumentParser, policy: RetryPolicy, attempts: Callable[[str], int]) -> None:
    _add(parser, "--max-retries N", attempts, _ATTEMPTS, policy.max_retries)
    _add(parser, "--base-delay SECONDS", values.seconds, _FIRST_WAIT, policy.base_delay)


def _add_jitter_and_limits(parser: ArgumentParser, policy: RetryPolicy) -> None:
    what = (
        "the randomness of the waits: none; full, from 0 to the whole; equal, from half to the whole; decorrelated,"
        " from the first wait to three times the one before"
    )
    _add(parser, "--jitter KIND", str, what, policy.jitter, choices=JITTERS)
    _add(
        parser,
        "--timeout SECONDS",
        values.limit,
        "for the whole call, attempts and waits together",
        policy.timeout or "none",
    )
    _add(parser, "--attempt-timeout SECONDS", values.limit, "for each attempt", policy.attempt_timeout or "none")


def _add_plot(parser: ArgumentParser, what: str) -> None:
    parser.add_argument("--plot", type=values.picture, metavar="FILE", help=f"draw {what}, to FILE.png or FILE.svg")


def _add(
    parser: ArgumentParser, usage: str, kind: Callable[[str], Any], what: str, default: float | str, **more: Any
) -> None:
    """Add an option, which is `None` where it is not given: the default is only shown."""
    name, metavar = usage.split()
    shown = default if isinstance(default, str) else f"{default:g}"
    parser.add_argument(name, type=kind, metavar=metavar, help=f"{what} (default: {shown})", **more)
