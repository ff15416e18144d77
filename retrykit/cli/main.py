"""The arguments, and the way to the commands."""

import math
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib import metadata, util

from retrykit.cli import get
from retrykit.core.policy import RetryPolicy
from retrykit.http.client import DEFAULT_TIMEOUT

_CANT_RUN = 2
# What a shell reports of a command that SIGINT ended: 128 + 2.
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The arguments. Default: those of the process.

    Returns:
        The exit code.
    """
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except KeyboardInterrupt:
        return _INTERRUPTED
    return code


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
    demo.set_defaults(run=_demo)
    _add_get_arguments(
        commands.add_parser(
            "get",
            help="fetch a URL, with retries",
            description="Fetch a URL. The body goes to standard output. Attempts that fail are reported\n"
            "on standard error; where none does, nothing is.",
            epilog=_exit_codes(),
            formatter_class=RawDescriptionHelpFormatter,
        )
    )
    return parser


def _exit_codes() -> str:
    meanings = {**get.EXIT_CODES, _CANT_RUN: "wrong arguments", _INTERRUPTED: "interrupted"}
    return "exit codes, as of curl:\n" + "\n".join(f"  {code:<5}{meanings[code]}" for code in sorted(meanings))


def _version() -> str:
    try:
        return metadata.version("retrykit")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _add_get_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="where to; without a scheme, http:// is put before it")
    parser.add_argument(
        "--max-retries",
        type=_attempts,
        metavar="N",
        default=RetryPolicy.max_retries,
        help="attempts in total, the first included; 1 never retries (default: %(default)s)",
    )
    parser.add_argument(
        "--base-delay",
        type=_seconds,
        metavar="SECONDS",
        default=RetryPolicy.base_delay,
        help="the wait before the second attempt; each later one is twice as long (default: %(default)g)",
    )
    parser.add_argument(
        "--timeout",
        type=_limit,
        metavar="SECONDS",
        default=DEFAULT_TIMEOUT,
        help="for the whole call, attempts and waits together (default: %(default)g)",
    )
    parser.set_defaults(run=_get)


def _demo(_: Namespace) -> int:
    if util.find_spec("rich") is None:
        print("retrykit: the demo prints with rich; install it: pip install 'retrykit[cli]'", file=sys.stderr)
        return _CANT_RUN
    from retrykit.cli import demo  # noqa: PLC0415 - it needs rich, and `get` has to work without

    return demo.run()


def _get(arguments: Namespace) -> int:
    policy = RetryPolicy(
        max_retries=arguments.max_retries,
        base_delay=arguments.base_delay,
        max_delay=max(RetryPolicy.max_delay, arguments.base_delay),
        timeout=arguments.timeout,
    )
    return get.run(arguments.url, policy)


def _attempts(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no number of attempts; 1 is a single one, without retries")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ArgumentTypeError(f"{text!r} is no time; give a number of seconds, such as 2.5")
    return seconds


def _limit(text: str) -> float:
    seconds = _seconds(text)
    if seconds == 0:
        raise ArgumentTypeError(f"{text!r} leaves no time for an attempt; give a number of seconds above 0")
    return seconds
