"""`python -m retrykit get URL...`: many bodies, each to a file; how it goes to standard error."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import util
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from yarl import URL

from retrykit.cli.daemon import in_daemon_thread
from retrykit.cli.endings import SIGNALLED, UNREAD, UNWRITTEN, Failure, say, shown, write
from retrykit.cli.get import hint_for
from retrykit.cli.interruption import Interruption
from retrykit.cli.lines import UnreadableError
from retrykit.cli.listening import listening
from retrykit.cli.tally import Tally, counted
from retrykit.cli.targets import Target, Targets
from retrykit.core import clock
from retrykit.core.events import origin_of
from retrykit.core.policy import RetryPolicy
from retrykit.guards.pause import OriginPause
from retrykit.http.download import download
from retrykit.http.fetch_all import Fetched, fetch_all
from retrykit.http.sessions import SharedSession

Progress = Callable[[int, int | None], object]

# Seconds that the lines of JSON may take once it was interrupted.
_LONGEST_END = 1.0


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
        OSError: Standard output takes nothing more.
    """
    if (failure := _unwritable(folder, options)) is not None:
        say(failure.line())
        return failure.code
    tally, targets, began = Tally(), Targets(urls, folder), clock.now()
    with Interruption() as interruption:
        with _watch(tally, targets, options) as watch, listening(lambda _: _count_retry(tally, watch)):
            asyncio.run(_Work(targets, options, tally, watch).run(interruption))
        say(f"retrykit: {tally.summary(clock.now() - began)}")
        if interruption.number is None:
            return tally.code
        say(f"retrykit: {_how_to_go_on(tally, targets, options)}")
        return SIGNALLED + interruption.number


def _unwritable(folder: Path, options: Options) -> Failure | None:
    """Why there can be no files, or no lines of JSON."""
    if options.jsonl and sys.stdout is None:
        return Failure(UNWRITTEN, "standard output is closed; send it to a file (> FILE), or leave --jsonl out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        return Failure(UNWRITTEN, f"{str(folder)!r} is a file, and has to be a folder; give another one to -o")
    except OSError as error:
        return Failure(UNWRITTEN, f"the folder {str(folder)!r} can't be made, {error.strerror}; give another one to -o")
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


class _StoppedError(Exception):
    """A download was stopped, or never begun."""


class _Work:
    """All downloads."""

    def __init__(self, targets: Targets, options: Options, tally: Tally, watch: Watch) -> None:
        self._targets, self._options, self._tally, self._watch = targets, options, tally, watch
        self._pause = OriginPause()
        self._policy = options.policy.replace(jitter="full", pause=self._pause)
        self._session = SharedSession()
        self._running: set[asyncio.Task[Any]] = set()
        self._is_stopped = False

    async def run(self, interruption: Interruption) -> None:
        """Have all of them end, or stop them where it is interrupted."""
        try:
            taking = asyncio.ensure_future(self._take_all())
            await clock.first_of([taking, interruption.awaited()], None)
            if interruption.number is None:
                taking.result()
                return
            self._stop()
            # Whoever reads the lines may be paused, or was ended by the same Ctrl-C.
            with contextlib.suppress(OSError):
                async with clock.time_limit(_LONGEST_END):
                    await taking
        finally:
            await self._session.close()

    def _stop(self) -> None:
        """Have what was done be all: so it is counted, and has its lines of JSON."""
        self._is_stopped = True
        self._targets.stop()
        for task in self._running:
            task.cancel()

    async def _take_all(self) -> None:
        try:
            async with fetch_all(self._targets, self._fetch, concurrency=self._options.concurrency) as results:
                async for fetched in results:
                    if self._options.jsonl and not isinstance(fetched.error, _StoppedError):
                        # In a thread, since who reads this may take the time that the downloads need.
                        await in_daemon_thread(partial(write, sys.stdout, f"{_as_json(fetched)}\n".encode()))
        except UnreadableError as error:
            failure = Failure(UNREAD, f"standard input could not be read, {error}")
            self._tally.fail(self._targets.taken + 1, failure)
            self._watch.say(failure.line())

    async def _fetch(self, target: Target) -> Arrived:
        """Have a target's file be there, unless all is stopped, and count what comes of it."""
        if self._is_stopped:
            raise _StoppedError
        task = cast(asyncio.Task[Any], asyncio.current_task())
        self._running.add(task)
        try:
            arrived = await self._arrival(target)
        except asyncio.CancelledError:
            if self._is_stopped:
                raise _StoppedError from None
            raise
        except Exception as error:
            self._count_failure(target, error)
            raise
        finally:
            self._running.discard(task)
        self._tally.add(arrived.size, was_there=arrived.was_there)
        self._watch.refresh()
        return arrived

    async def _arrival(self, target: Target) -> Arrived:
        path = target.path
        if isinstance(path, Path) and path.is_file() and not self._options.overwrite:
            return Arrived(path.stat().st_size, was_there=True)
        with self._watch.following(path) as progress:
            if not isinstance(path, Path):
                raise path
            await self._wait_while_paused(target.url)
            try:
                shared = self._session.opened()
                session = None if shared is None else shared.session
                await download(target.url, path, session=session, policy=self._policy, progress=progress)
            except asyncio.CancelledError:
                if self._options.overwrite or not path.is_file():  # Else it was whole when it was stopped.
                    raise
        return Arrived(path.stat().st_size, was_there=False)

    async def _wait_while_paused(self, url: str) -> None:
        """Wait for the end of a pause, so that it takes nothing from the timeout of what has asked for nothing yet."""
        origin, patience_ends = _origin(url), clock.now() + self._policy.max_retry_after
        # Where it is paused for longer, or again and again, the download says so.
        while (hold := self._pause.hold(origin)) is not None and hold.end <= patience_ends:
            await clock.sleep(max(0.0, hold.end - clock.now()) + clock.draw() * hold.spread)

    def _count_failure(self, target: Target, error: Exception) -> None:
        failure, where = Failure.by(error), shown(target.url)
        self._tally.fail(target.number, failure)
        # A malformed URL can't be shown without what is secret in it.
        line = failure.line(f"GET {where}" if where else f"URL {target.number}")
        self._watch.say(line + hint_for(target.given, failure))
        self._watch.refresh()


def _origin(url: str) -> str | None:
    try:
        return origin_of(URL(url))
    except ValueError:  # The name of its host is none.
        return None


def _as_json(fetched: Fetched[Target, Arrived]) -> str:
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
            "error": fetched.error and Failure.by(fetched.error)._asdict(),
        }
    )


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
