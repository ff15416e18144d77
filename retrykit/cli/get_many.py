"""`python -m retrykit get URL...`: many bodies, each to a file; how it goes to standard error."""

import asyncio
import contextlib
import json
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from retrykit.cli.endings import UNREAD, UNWRITTEN, Failure, say, shown
from retrykit.cli.listening import listening
from retrykit.cli.tally import Tally, counted
from retrykit.cli.targets import Target, Targets, UnreadableError
from retrykit.core import clock
from retrykit.core.policy import RetryPolicy
from retrykit.guards.pause import OriginPause
from retrykit.http.download import download
from retrykit.http.fetch import SharedSession
from retrykit.http.fetch_all import Fetched, fetch_all

Progress = Callable[[int, int | None], object]


class Watch(Protocol):
    """What shows somebody how it goes."""

    def say(self, line: str) -> None:
        """Print a line."""
        ...

    def refresh(self) -> None:
        """The counts are others now."""
        ...

    def following(self, path: object) -> contextlib.AbstractContextManager[Progress | None]:
        """Give what a download is to tell its progress to.

        Args:
            path: Of its file; anything else where there is none.
        """
        ...


class Arrived(NamedTuple):
    """A file that is there."""

    size: int
    was_there: bool
    """Was it there already, so that nothing was sent?"""


@dataclass(frozen=True, slots=True)
class Options:
    """How to go about it."""

    policy: RetryPolicy
    concurrency: int
    overwrite: bool
    """Are files to be fetched that are there already?"""
    jsonl: bool
    """Is there to be a line of JSON for each URL?"""


def run(urls: Sequence[str], folder: Path, options: Options) -> int:
    """Download URLs to files.

    Args:
        urls: Where to. Those without a scheme get `http://`; `-` stands for those on standard input.
        folder: Of the files. It is made where there is none.
        options: How.

    Returns:
        The exit code.

    Raises:
        KeyboardInterrupt: It was interrupted, and said so.
        OSError: Standard output takes nothing more.
    """
    if (failure := _unwritable(folder, options)) is not None:
        say(failure.line())
        return failure.code
    tally, targets, began = Tally(), Targets(urls, folder), clock.now()
    with _watch(tally, targets, options) as watch, listening(lambda _: _count_retry(tally, watch)):
        work = _Work(targets, options, tally, watch).run()
        is_interrupted = asyncio.run(_heeding_ctrl_c(work))
    say(f"retrykit: {tally.summary(clock.now() - began)}")
    if is_interrupted:
        say(f"retrykit: {_how_to_go_on(tally, targets, options)}")
        raise KeyboardInterrupt
    return tally.code


def _unwritable(folder: Path, options: Options) -> Failure | None:
    """Why there can be no files, or no lines of JSON."""
    if options.jsonl and sys.stdout is None:
        return Failure(UNWRITTEN, "standard output is closed")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return Failure(UNWRITTEN, f"there is no folder {str(folder)!r}, and it can't be made, {error.strerror}")
    return None


def _count_retry(tally: Tally, watch: Watch) -> None:
    tally.retries += 1
    watch.refresh()


def _how_to_go_on(tally: Tally, targets: Targets, options: Options) -> str:
    done = tally.fetched + tally.skipped
    of_all = f"{done:,} of {counted(targets.total, 'file')}" if targets.total else counted(done, "file")
    what = "the same command again goes on with what was begun"
    again = f"{what}, and fetches the others anew" if options.overwrite else f"{what}, and leaves these alone"
    return f"interrupted with {of_all} there; {again}"


# --- the downloads ----------------------------------------------------------------------------------------------------


class _Work:
    """All downloads."""

    def __init__(self, targets: Targets, options: Options, tally: Tally, watch: Watch) -> None:
        self._targets, self._options, self._tally, self._watch = targets, options, tally, watch
        self._policy = options.policy.replace(jitter="full", pause=OriginPause())
        self._session = SharedSession(options.concurrency)

    async def run(self) -> None:
        """Have all of them end."""
        try:
            async with fetch_all(self._targets, self._fetch, concurrency=self._options.concurrency) as results:
                async for fetched in results:
                    await self._take(fetched)
        except UnreadableError as error:
            failure = Failure(UNREAD, f"standard input could not be read, {error}")
            self._tally.fail(self._targets.taken + 1, failure)
            self._watch.say(failure.line())
        finally:
            await self._session.close()

    async def _fetch(self, target: Target) -> Arrived:
        path = target.path
        if isinstance(path, Path) and path.is_file() and not self._options.overwrite:
            return Arrived(path.stat().st_size, was_there=True)
        with self._watch.following(path) as progress:
            if not isinstance(path, Path):
                raise path
            await download(target.url, path, session=self._session.opened(), policy=self._policy, progress=progress)
        return Arrived(path.stat().st_size, was_there=False)

    async def _take(self, fetched: Fetched[Target, Arrived]) -> None:
        """Count a result, and say what came of it."""
        target, arrived, failure = fetched.item, fetched.value, None
        if fetched.error is not None:
            failure = Failure.by(fetched.error)
            self._tally.fail(target.number, failure)
            where = shown(target.url)  # A malformed URL can't be shown without what is secret in it.
            self._watch.say(failure.line(f"GET {where}" if where else f"URL {target.number}"))
        elif arrived is not None:
            self._tally.add(arrived.size, was_there=arrived.was_there)
        self._watch.refresh()
        if self._options.jsonl:
            # In a thread, since who reads this may take the time that the downloads need.
            await asyncio.to_thread(_print_line, _as_json(fetched, failure))


def _as_json(fetched: Fetched[Target, Arrived], failure: Failure | None) -> str:
    target, arrived = fetched.item, fetched.value
    has_sent = isinstance(target.path, Path) and (arrived is None or not arrived.was_there)
    return json.dumps(
        {
            "url": target.given,
            "file": str(target.path) if isinstance(target.path, Path) else None,
            "bytes": arrived and arrived.size,
            "attempts": fetched.attempts if has_sent else 0,
            "elapsed": round(fetched.elapsed, 3),
            "skipped": arrived is not None and arrived.was_there,
            "error": failure and failure._asdict(),
        }
    )


def _print_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


async def _heeding_ctrl_c(work: Coroutine[Any, Any, None]) -> bool:
    """Do it, until it is done or Ctrl-C is pressed: was it?

    Once it was, the process is about to end, and pressing it again changes nothing: what is being written is written.
    """
    loop, doing, is_pressed = asyncio.get_running_loop(), asyncio.ensure_future(work), False

    def stop(*_: object) -> None:
        nonlocal is_pressed
        is_pressed = True
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        loop.call_soon_threadsafe(doing.cancel)

    before = signal.getsignal(signal.SIGINT)
    is_heeded = threading.current_thread() is threading.main_thread() and before is not signal.SIG_IGN
    if is_heeded:
        signal.signal(signal.SIGINT, stop)
    try:
        await doing
    except asyncio.CancelledError:
        if not is_pressed:
            raise
    finally:
        if is_heeded and not is_pressed:
            signal.signal(signal.SIGINT, before)
    return is_pressed


# --- who watches ------------------------------------------------------------------------------------------------------


class _Unwatched:
    """Says what it is told to, and else nothing."""

    say = staticmethod(say)

    def refresh(self) -> None:
        """Nobody sees the counts."""

    @contextlib.contextmanager
    def following(self, path: object) -> Iterator[None]:  # noqa: ARG002
        """Nobody sees the bytes."""
        yield


def _watch(tally: Tally, targets: Targets, options: Options) -> contextlib.AbstractContextManager[Watch]:
    """A bar where somebody sees it, and where it is not in the way of what goes to standard output."""
    is_seen = sys.stderr is not None and sys.stderr.isatty() and not (options.jsonl and sys.stdout.isatty())
    if not is_seen or util.find_spec("rich") is None:
        return contextlib.nullcontext(_Unwatched())
    from retrykit.cli.bar import Bar  # noqa: PLC0415 - it needs rich, and all else has to work without

    return Bar(tally, targets)
