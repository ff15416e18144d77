"""The progress bar of many downloads: a single line, below what is said meanwhile."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

from retrykit.cli.endings import printable
from retrykit.cli.tally import Tally, counted, in_bytes
from retrykit.cli.targets import Targets

# So that all of it fits a terminal of 80 columns.
_WIDTH = 16
# A file is counted in parts of it, and these as whole numbers, which add up.
_PARTS = 1000


class Bar:
    """Shows a tally as it grows, how fast bytes come, and how much time is left where that is known.

    A file counts by how much of it has come. What was there before, a file or a part of one, is no work that was done:
    with it, the time that is left would be wrong.

    Args:
        tally: The counts.
        targets: How many there are.
    """

    def __init__(self, tally: Tally, targets: Targets) -> None:
        self._tally, self._targets = tally, targets
        columns = BarColumn(_WIDTH), _Says(self._counts), _Says(self._speed), TimeRemainingColumn(compact=True)
        console = Console(file=cast(TextIO, _Lossy(sys.stderr)))
        # What goes to standard output is not for a terminal, where this is shown.
        self._progress = Progress(*columns, console=console, transient=True, redirect_stdout=False)
        self._files, self._bytes = self._progress.add_task(""), self._progress.add_task("", visible=False)
        self.refresh()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(Text(printable(line)), soft_wrap=True)

    def refresh(self) -> None:
        """The counts are others now, which are shown with the next picture. Maybe so is how many there are."""
        total = self._targets.total
        self._task(self._files).total = None if total is None else _PARTS * (total - self._tally.skipped)

    @contextlib.contextmanager
    def following(self, path: object) -> Iterator[Callable[[int, int | None], None]]:
        """Give what a download is to tell its progress to.

        Args:
            path: Of its file; anything else where there is none.
        """
        file = FileProgress(_size_of_part(path), self._advance)
        try:
            yield file.tell
        finally:
            file.end()

    def _advance(self, parts: int, size: int) -> None:
        self._progress.advance(self._files, parts)
        self._progress.advance(self._bytes, size)

    def _counts(self) -> str:
        tally, total = self._tally, self._targets.total
        files = counted(tally.ended, "file") if total is None else f"{tally.ended:,}/{total - tally.skipped:,} files"
        failed = f"{tally.failed:,} failed" if tally.failed else ""
        return ", ".join(filter(None, [files, failed, f"{tally.retries:,} retried" if tally.retries else ""]))

    def _speed(self) -> str:
        return f"{in_bytes(self._task(self._bytes).speed or 0)}/s"

    def _task(self, number: int) -> Task:
        return self._progress.tasks[number]


class _Lossy:
    """A stream; what it doesn't take is lost, and nothing else is."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        """Write."""
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        """Write what is still buffered."""
        with contextlib.suppress(OSError):
            self._stream.flush()


class _Says(ProgressColumn):
    """What a function says when it is asked."""

    def __init__(self, ask: Callable[[], str]) -> None:
        super().__init__()
        self._ask = ask

    def render(self, task: Task) -> Text:  # noqa: ARG002
        return Text(self._ask(), no_wrap=True)


class FileProgress:
    """How much of one file has come, in this run.

    Args:
        had: The bytes of its part.
        advance: Is told of what has come since it was told last: in parts of the file, and in bytes.
    """

    def __init__(self, had: int, advance: Callable[[int, int], None]) -> None:
        self._start = self._last = had
        self._parts = 0
        self._advance = advance

    def tell(self, so_far: int, size: int | None) -> None:
        """So many bytes are there."""
        if so_far < self._last:  # It has begun anew.
            self._start = self._last = 0
        came, self._last = so_far - self._last, so_far
        parts = 0 if size is None or size <= self._start else _PARTS * (so_far - self._start) // (size - self._start)
        self._add(parts, came)

    def end(self) -> None:
        """There is no more to come."""
        self._add(_PARTS, 0)

    def _add(self, parts: int, size: int) -> None:
        grown, self._parts = parts - self._parts, parts
        self._advance(grown, size)


def _size_of_part(path: object) -> int:
    """Of what an earlier run has left; 0 where it is not there."""
    try:
        return Path(f"{path}.part").stat().st_size if isinstance(path, Path) else 0
    except OSError:
        return 0
