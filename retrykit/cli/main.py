"""The arguments, and the way to the commands."""

import re
import signal
import sys
from argparse import SUPPRESS, Action, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata, util
from pathlib import Path
from typing import Any

from retrykit.cli import endings, get, get_many, values
from retrykit.cli.targets import STANDARD_INPUT
from retrykit.core import checks
from retrykit.core.backoff import JITTERS
from retrykit.core.policy import RetryOptions, RetryPolicy
from retrykit.http.client import DEFAULT_TIMEOUT

_CANT_RUN = 2
_CONCURRENCY = 10
_INTERRUPTED = endings.SIGNALLED + signal.SIGINT

# What `simulate` takes unless told otherwise: its callers have less patience than the server has queue.
_SIMULATED = RetryPolicy(max_retries=4, jitter="full", attempt_timeout=1.0)


_ATTEMPTS = "attempts in total, the first included; 1 never retries"
_FIRST_WAIT = "the wait before the second attempt; each later one is twice as long"
_SHOWN = (
    "The exit code is 0, or 2 where an argument is wrong, a package that it needs is not installed, or the picture"
    " can't be written."
)
_GET = """\
Fetch a URL. The body goes to standard output. Attempts that fail are reported
on standard error; where none does, nothing is.

With several URLs, '-', -o or --jsonl, each URL is downloaded to a file that is
called as the last segment of its path. A file that is there already is left
alone, and a part of one is gone on with: after an interruption (Ctrl-C), the
same command again goes on where it was. Each failure is reported on standard
error, and so is a summary at the end."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The arguments. Default: those of the process.

    Returns:
        The exit code.
    """
    try:
        return _run(_arguments(argv))
    except KeyboardInterrupt:
        return _INTERRUPTED
    finally:
        _give_up_errors()


def _arguments(argv: Sequence[str] | None) -> Namespace:
    """The arguments, where the command knows all of them: argparse would refuse the others without a word on why."""
    parser = _parser()
    if not (sys.argv[1:] if argv is None else argv):
        parser.print_help(sys.stderr)
        parser.exit(_CANT_RUN)
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        name = unknown[0].partition("=")[0]
        meant = _meant_by(name, re.findall("--([a-z-]+)", arguments.usage()))
        hint = f"did you mean {meant}?" if meant else "see --help"
        kind = "option" if name.startswith("-") else "argument"
        arguments.refuse(f"there is no {kind} {name}; {hint}")
    return arguments


def _meant_by(name: str, options: Sequence[str]) -> str | None:
    """The option that this is nearly the name of, or its name in another program; `None` where there is none."""
    if name in _KNOWN_TO_CURL:
        return _KNOWN_TO_CURL[name] if _KNOWN_TO_CURL[name][2:] in options else None
    known = [option.replace("-", "_") for option in options]
    meant = checks.meant_by(name[2:].replace("-", "_"), known) if name.startswith("--") else None
    return meant and f"--{meant.replace('_', '-')}"


def _run(arguments: Namespace) -> int:
    try:
        code: int = arguments.run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:  # Each command takes care of its own, but for what it prints.
        endings.abandon(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            endings.say(f"retrykit: the output could not be written: {error.strerror}")
        return endings.UNWRITTEN
    return code


def _give_up_errors() -> None:
    """Let what standard error has not taken go nowhere: else Python would have an exit code of its own for it."""
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        endings.abandon(sys.stderr)


def _parser() -> ArgumentParser:
    parser = ArgumentParser("python -m retrykit", description="Retries for aiohttp: see them at work, or use them.")
    parser.add_argument("--version", action="version", version=f"retrykit {_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    demo = commands.add_parser(
        "demo",
        help="call a server that misbehaves, without retrykit and with it",
        description="Start a server on 127.0.0.1 that misbehaves, call it without retrykit and then with it, and print"
        " every attempt. It takes a few seconds. The exit code is 0 where retrykit saved every call, else 1.",
    )
    _set_command(demo, _demo)
    _add_get_arguments(
        commands.add_parser(
            "get",
            help="fetch a URL, or download many, with retries",
            description=_GET,
            epilog=_exit_codes(),
            formatter_class=RawDescriptionHelpFormatter,
        )
    )
    _add_plan_arguments(
        commands.add_parser(
            "plan",
            help="show the waits of a policy",
            description=f"Show how long a policy waits between attempts, and how long a whole call can take. {_SHOWN}",
        )
    )
    _add_simulate_arguments(
        commands.add_parser(
            "simulate",
            help="put policies through an outage, a burst and an overload",
            description="Run many calls through an outage, a burst and an overload of a server of limited capacity, on"
            " a virtual clock: without retries, with plain ones, and with guards that keep them from making it worse."
            f" The same arguments give the same numbers. {_SHOWN}",
        )
    )
    return parser


def _exit_codes() -> str:
    meanings = {**endings.EXIT_CODES, _CANT_RUN: "wrong arguments", _INTERRUPTED: "interrupted"}
    return "exit codes, as of curl:\n" + "\n".join(f"  {code:<5}{meanings[code]}" for code in sorted(meanings))


def _version() -> str:
    try:
        return metadata.version("retrykit")
    except metadata.PackageNotFoundError:
        return "(not installed)"


# --- arguments --------------------------------------------------------------------------------------------------------


def _add_get_arguments(parser: ArgumentParser) -> None:
    what = (
        "where to; without a scheme, http:// is put before it. '-' reads URLs from standard input, one per line; blank"
        " lines and those that begin with # are left out"
    )
    parser.add_argument("urls", nargs="+", type=values.url, metavar="URL", help=what)
    what = "the folder to download to, which is made where there is none (default: the current one)"
    parser.add_argument("-o", dest="folder", type=Path, metavar="DIR", help=what)
    _add(parser, "--concurrency N", values.count, "downloads at a time", _CONCURRENCY)
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
    _set_command(parser, _get)


def _set_command(parser: ArgumentParser, run: Callable[[Namespace], int]) -> None:
    parser.set_defaults(run=run, refuse=parser.error, usage=parser.format_usage)


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
    _set_command(parser, _plan)


def _add_simulate_arguments(parser: ArgumentParser) -> None:
    _add(parser, "--clients N", values.count, "callers", 1000)
    _add(parser, "--processes N", values.count, "that they are spread over, each with guards of its own", 10)
    _add(parser, "--rate N", values.per_second, "calls per second, of all callers together", 600)
    _add(parser, "--capacity N", values.per_second, "requests per second of the server", "the rate / 0.6")
    _add(parser, "--queue N", values.whole, "requests that may wait there", "what it serves in 1.2 s")
    _add(parser, "--duration SECONDS", values.limit, "of the simulation", 60)
    several: dict[str, Any] = {"nargs": "+", "action": "extend"}
    what = "when all requests are answered 503"
    _add(parser, "--outage START-END", values.outage, what, "10-15", **several)
    what = "when there are F times as many calls; where one of these two is given, the other has no default"
    _add(parser, "--overload START-ENDxF", values.overload, what, "30-31x4 40-45x2.5", **several)
    _add(parser, "--failure-rate SHARE", values.share, "of the requests, at random, that are answered 503", 0)
    _add(parser, "--retry-after SECONDS", values.seconds, "that the server sends with each 503; 0 is none", 1)
    _add_schedule(parser, _SIMULATED, values.attempts)
    _add_jitter_and_limits(parser, _SIMULATED)
    _add(parser, "--seed N", values.whole, "of the random numbers", 1)
    _add_plot(parser, "load and goodput over time")
    _set_command(parser, _simulate)


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


# --- commands ---------------------------------------------------------------------------------------------------------


def _demo(_: Namespace) -> int:
    if not _is_there("rich", "the demo prints with rich", "cli"):
        return _CANT_RUN
    from retrykit.cli import demo  # noqa: PLC0415 - it needs rich, and `get` has to work without

    return demo.run()


def _get(arguments: Namespace) -> int:
    policy = RetryPolicy(timeout=DEFAULT_TIMEOUT).replace(**_given(arguments))
    urls, folder = arguments.urls, arguments.folder
    if len(urls) > 1 or STANDARD_INPUT in urls or folder is not None or arguments.jsonl:
        concurrency = arguments.concurrency or _CONCURRENCY
        options = get_many.Options(policy, concurrency, overwrite=arguments.overwrite, jsonl=arguments.jsonl)
        return get_many.run(urls, folder or Path(), options)
    for name in ("overwrite", "concurrency"):
        if getattr(arguments, name):
            arguments.refuse(f"--{name} is of no use where the body goes to standard output; add -o DIR to have a file")
    return get.run(urls[0], policy)


def _plan(arguments: Namespace) -> int:
    if not _can_show(arguments):
        return _CANT_RUN
    from retrykit.cli import plan  # noqa: PLC0415 - as above

    policy = _policy(arguments, RetryPolicy())
    code = 0
    if arguments.plot is not None:
        from retrykit.cli import plot  # noqa: PLC0415 - it needs matplotlib

        code = _save(partial(plot.draw_plan, policy, plan.waits_of(policy)), arguments.plot)
    plan.run(policy)
    return code


def _simulate(arguments: Namespace) -> int:
    if not _can_show(arguments):
        return _CANT_RUN
    from retrykit.cli import simulate  # noqa: PLC0415 - as above

    policies = simulate.compared(_policy(arguments, _SIMULATED))
    try:
        scenario = simulate.scenario_of(arguments)
    except ValueError as error:
        arguments.refuse(_as_arguments(str(error)))
        raise
    results = simulate.run(scenario, policies, 1 if arguments.seed is None else arguments.seed)
    if arguments.plot is None:
        return 0
    from retrykit.cli import plot  # noqa: PLC0415 - as above

    return _save(partial(plot.draw_simulation, results), arguments.plot)


def _policy(arguments: Namespace, default: RetryPolicy) -> RetryPolicy:
    try:
        return default.replace(**_given(arguments))
    except ValueError as error:
        arguments.refuse(_as_arguments(str(error)))
        raise


def _as_arguments(text: str) -> str:
    """What is said of options, said of arguments: of `--timeout 2`, and not of `timeout=2`."""
    return _OPTION.sub(lambda found: f"--{found[1].replace('_', '-')}{' ' if found[2] else ''}", text)


# In what is said, words with an underscore, or before an equals sign, are options.
_OPTION = re.compile(r"\b([a-z]+(?:_[a-z]+)+|[a-z]+(?==))(=?)")


def _given(arguments: Namespace) -> RetryOptions:
    """The options of a policy that were given. Where that is a long first wait, later ones may be as long."""
    given: Any = {name: value for name, value in vars(arguments).items() if name in RetryOptions.__annotations__}
    options: Any = {name: value for name, value in given.items() if value is not None}
    if "base_delay" in options:
        options.setdefault("max_delay", max(RetryPolicy.max_delay, options["base_delay"]))
    chosen: RetryOptions = options
    return chosen


def _is_there(module: str, what: str, extra: str) -> bool:
    """Is a module of an extra installed? If not, say how to get it."""
    if util.find_spec(module) is None:
        endings.say(f"retrykit: {what}; install it: pip install 'retrykit[{extra}]'")
        return False
    return True


def _can_show(arguments: Namespace) -> bool:
    return _is_there("rich", "the table is printed with rich", "cli") and (
        arguments.plot is None or _is_there("matplotlib", "the picture is drawn with matplotlib", "plot")
    )


def _save(draw: Callable[[Path], None], path: Path) -> int:
    """Draw a picture; the exit code."""
    try:
        draw(path)
    except OSError as error:
        endings.say(f"retrykit: the picture could not be written to {path}: {error.strerror}")
        return _CANT_RUN
    print(f"The picture is in {path}.")
    return 0
