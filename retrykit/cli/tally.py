"""What a run of many downloads has come to."""

from dataclasses import dataclass

from retrykit.cli.endings import Failure


@dataclass
class Tally:
    """The counts, and the exit code that follows from them."""

    fetched: int = 0
    """Files that have come in this run."""
    size: int = 0
    """Bytes of them."""
    skipped: int = 0
    """Files that were there already."""
    failed: int = 0
    retries: int = 0
    _first_failed: tuple[int, int] | None = None
    """The number of the failed URL that was given first, and its exit code."""

    @property
    def ended(self) -> int:
        """How many URLs of this run are done with; of files that were there already, there was nothing to do."""
        return self.fetched + self.failed

    @property
    def code(self) -> int:
        """The exit code."""
        return 0 if self._first_failed is None else self._first_failed[1]

    def add(self, size: int, *, was_there: bool) -> None:
        """Count a file of so many bytes that is there."""
        if was_there:
            self.skipped += 1
        else:
            self.fetched += 1
            self.size += size

    def fail(self, number: int, failure: Failure) -> None:
        """Count a URL, by its number, that could not be fetched."""
        self.failed += 1
        first, failed = self._first_failed, (number, failure.code)
        self._first_failed = failed if first is None else min(first, failed)

    def summary(self, seconds: float) -> str:
        """All of it in one line.

        Args:
            seconds: That it took.
        """
        parts = [
            f"{counted(self.fetched, 'file')}, {in_bytes(self.size)} in {seconds:.1f} s",
            f"{self.skipped:,} there already" if self.skipped else "",
            f"{self.failed:,} failed",
            counted(self.retries, "retry", "retries"),
        ]
        return ", ".join(filter(None, parts))


def counted(number: int, one: str, several: str = "") -> str:
    """A number of things, such as `1 file`, `1,000 files`."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def in_bytes(number: float) -> str:
    """A number of bytes, as it is shown: `5 bytes`, `1.2 MB`."""
    if number < 1000:
        return counted(round(number), "byte")
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if number < 999.95:
            return f"{number:.1f} {unit}"
    return f"{number / 1000:.1f} TB"
