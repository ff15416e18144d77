"""The commands, and the way to them."""

import re
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from importlib import util
from pathlib import Path
from typing import Any

from retrykit.cli import endings, get, get_many
from retrykit.cli.arguments import CONCURRENCY, SIMULATED, parse
from retrykit.cli.endings import CANT_RUN, INTERRUPTED
from retrykit.cli.targets import STANDARD_INPUT
from retrykit.core.policy import RetryOptions, RetryPolicy
from retrykit.http.client import DEFAULT_TIMEOUT


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The arguments. Default: those of the process.

    Returns:
        The exit code.
    """
    try:
        return _run(argv)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        _give_up_errors()


def _run(argv: Sequence[str] | None) -> int:
    try:
        try:
            arguments = parse(argv)
            code = _COMMANDS[arguments.command](arguments)
        except SystemExit:  # The help was shown, or an argument refused.
            _flush_output()
            raise
        _flush_output()
    except OSError as error:  # Each command takes care of its own, but for what it prints.
        endings.abandon(sys.stdout)
        if endings.has_too_many_open(error):
            endings.say(f"retrykit: the command can't run: {error.strerror}; allow more open files (ulimit -n)")
            return CANT_RUN
        if not isinstance(error, BrokenPipeError):
            endings.say(f"retrykit: the output could not be written: {error.strerror}")
        return endings.UNWRITTEN
    return code


def _flush_output() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _give_up_errors() -> None:
    """Let what standard error has not taken go nowhere: else Python would have an exit code of its own for it."""
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        endings.abandon(sys.stderr)


# --- commands ---------------------------------------------------------------------------------------------------------


def _demo(_: Namespace) -> int:
    if not _is_there("rich", "the demo prints with rich"):
        return CANT_RUN
    from retrykit.cli import demo  # noqa: PLC0415 - it needs rich, and `get` has to work without

    return demo.run()


def _get(arguments: Namespace) -> int:
    policy = RetryPolicy(timeout=DEFAULT_TIMEOUT).replace(**_given(arguments))
    urls, folder = arguments.urls, arguments.folder
    if len(urls) > 1 or STANDARD_INPUT in urls or folder is not None or arguments.jsonl:
        concurrency = arguments.concurrency or CONCURRENCY
        options = get_many.Options(policy, concurrency, overwrite=arguments.overwrite, jsonl=arguments.jsonl)
        return get_many.run(urls, folder or Path(), options)
    for name in ("overwrite", "concurrency"):
        if getattr(arguments, name):
            arguments.refuse(f"--{name} is of no use where the body goes to standard output; add -o DIR to have a file")
    return get.run(urls[0], policy)


def _plan(arguments: Namespace) -> int:
    if not _can_show(arguments):
        return CANT_RUN
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
        return CANT_RUN
    from retrykit.cli import simulate  # noqa: PLC0415 - as above

    policies = simulate.compared(_policy(arguments, SIMULATED))
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


_COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "demo": _demo,
    "get": _get,
    "plan": _plan,
    "simulate": _simulate,
}


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


def _is_there(module: str, what: str) -> bool:
    """Is a package of an extra installed? If not, say how to get it."""
    if util.find_spec(module) is None:
        endings.say(f"retrykit: {what}; install it: pip install {module}")
        return False
    return True


def _can_show(arguments: Namespace) -> bool:
    return _is_there("rich", "the table is printed with rich") and (
        arguments.plot is None or _is_there("matplotlib", "the picture is drawn with matplotlib")
    )


def _save(draw: Callable[[Path], None], path: Path) -> int:
    """Draw a picture; the exit code."""
    try:
        draw(path)
    except OSError as error:
        endings.say(f"retrykit: the picture could not be written to {path}: {error.strerror}")
        return CANT_RUN
    print(endings.encodable(f"The picture is in {path}.", sys.stdout))
    return 0
