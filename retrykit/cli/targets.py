"""What there is to fetch: the URLs, as they were given or come from standard input, and the file that each goes to."""

import contextlib
import hashlib
import itertools
from collections.abc import AsyncGenerator, Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

import aiohttp
from yarl import URL

from retrykit.cli.endings import LongLineError
from retrykit.cli.get import with_scheme
from retrykit.cli.lines import Lines
from retrykit.cli.names import name_of

STANDARD_INPUT = "-"
_DIGITS = 8


class Target(NamedTuple):
    """A URL, and where its body goes."""

    number: int
    """Of the URL, as they were given: 1 for the first."""
    given: str
    """The URL as it was given; of a line that is too long, its beginning."""
    url: str
    """The same with a scheme; empty where there is none."""
    path: Path | aiohttp.ClientError
    """The file; or why the URL can't be fetched."""


class Targets:
    """An async iterable, to be gone over once. It takes a URL from standard input when it is asked for one.

    Of those before it keeps a number each, and of their names: so each URL comes once, and each name as well. The same
    URLs in the same order have the same names.

    Args:
        given: URLs. In the place of a `-` come those from standard input.
        folder: Of the files.
    """

    def __init__(self, given: Sequence[str], folder: Path) -> None:
        self._given, self._folder = given, folder
        # Hashes: of a million URLs they take 150 MiB, and the texts would take twice that.
        self._urls: set[int] = set()
        self._names: set[int] = set()
        self._lines = Lines()
        self._is_stopped = False
        self.taken = 0
        """How many of those given were looked at."""
        self.total = None if STANDARD_INPUT in given else len({_as_sent(with_scheme(url)) for url in given})
        """How many there are; `None` as long as that is not known."""

    async def __aiter__(self) -> AsyncGenerator[Target, None]:
        count = 0
        async with contextlib.aclosing(self._all_given()) as all_given:
            async for given in all_given:
                if self._is_stopped:
                    return
                self.taken += 1
                if (target := self._target(given)) is not None:
                    count += 1
                    yield target
        if not self._is_stopped:
            self.total = count

    def stop(self) -> None:
        """Have no more come, although somebody may be waiting for the next one."""
        self._is_stopped = True
        self._lines.stop()

    async def _all_given(self) -> AsyncGenerator[str | LongLineError, None]:
        for given in self._given:
            if given != STANDARD_INPUT:
                yield given
                continue
            async with contextlib.aclosing(aiter(self._lines)) as lines:
                async for line in lines:
                    yield line

    def _target(self, given: str | LongLineError) -> Target | None:
        """What a URL is to become; `None` where it came before."""
        if isinstance(given, LongLineError):
            return Target(self.taken, f"{given.url}…", "", given)
        url = with_scheme(given)
        sent = _as_sent(url)
        return Target(self.taken, given, url, self._path(sent)) if _is_new(sent, self._urls) else None

    def _path(self, url: URL | str) -> Path | aiohttp.ClientError:
        if isinstance(url, str):
            return aiohttp.InvalidURL(url)
        if url.scheme not in ("http", "https"):
            return aiohttp.NonHttpUrlClientError(url)
        if not url.raw_host:
            return aiohttp.InvalidURL(url)
        return self._folder / self._free_name(url)

    def _free_name(self, url: URL) -> str:
        """A name that no other URL has: where another has its own, there is a digest in it."""
        name = name_of(url)
        for turn in itertools.count():
            # Many file systems don't tell a capital letter from a small one.
            if _is_new(name.casefold(), self._names):
                break
            digest = hashlib.sha256(f"{turn} {url}".encode()).hexdigest()
            name = name_of(url, digest[:_DIGITS])
        return name


def _is_new(value: Hashable, known: set[int]) -> bool:
    """Is it none of those known? From now on, it is."""
    count = len(known)
    known.add(hash(value))
    return len(known) > count


def _as_sent(url: str) -> URL | str:
    """What is sent of a URL, by which two are the same or not; the text where it can't be read."""
    try:
        return URL(url).with_fragment(None)
    except ValueError:
        return url
