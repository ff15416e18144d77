"""What there is to fetch: the URLs, as they were given or come from standard input, and the file that each goes to."""

import asyncio
import contextlib
import hashlib
import itertools
import os
import sys
import threading
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import aiohttp
from yarl import URL

from retrykit.cli.get import with_scheme
from retrykit.cli.names import name_of

STANDARD_INPUT = "-"
_BLOCK = 65536
_DIGITS = 8


class Target(NamedTuple):
    """A URL, and where its body goes."""

    number: int
    """Of the URL, as they were given: 1 for the first."""
    given: str
    """The URL as it was given."""
    url: str
    """The same with a scheme."""
    path: Path | aiohttp.ClientError
    """The file; or why the URL can't be fetched."""


class UnreadableError(Exception):
    """Standard input can't be read."""


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
        self.taken = 0
        """How many of those given were looked at."""
        self.total = None if STANDARD_INPUT in given else len({_without_fragment(with_scheme(url)) for url in given})
        """How many there are; `None` as long as that is not known."""

    async def __aiter__(self) -> AsyncGenerator[Target, None]:
        async with contextlib.aclosing(self._all_given()) as all_given:
            async for given in all_given:
                self.taken += 1
                url = with_scheme(given)
                if _is_new(_without_fragment(url), self._urls):
                    yield Target(self.taken, given, url, self._path(url))
        self.total = len(self._urls)

    async def _all_given(self) -> AsyncGenerator[str, None]:
        for given in self._given:
            if given != STANDARD_INPUT:
                yield given
                continue
            async with contextlib.aclosing(_lines_of_standard_input()) as lines:
                async for line in lines:
                    text = line.strip("\ufeff \t\r\n")  # A byte order mark is what some editors begin with.
                    if text and not text.startswith("#"):
                        yield text

    def _path(self, url: str) -> Path | aiohttp.ClientError:
        try:
            parsed = URL(url)
        except ValueError:
            return aiohttp.InvalidURL(url)
        if parsed.scheme not in ("http", "https"):
            return aiohttp.NonHttpUrlClientError(url)
        if not parsed.host:
            return aiohttp.InvalidURL(url)
        return self._folder / self._free_name(parsed, _without_fragment(url))

    def _free_name(self, parsed: URL, url: str) -> str:
        """A name that no other URL has: where another has its own, there is a digest in it."""
        name = name_of(parsed)
        for turn in itertools.count():
            # Many file systems don't tell a capital letter from a small one.
            if _is_new(name.casefold(), self._names):
                break
            digest = hashlib.sha256(f"{turn} {url}".encode(errors="surrogateescape")).hexdigest()
            name = name_of(parsed, digest[:_DIGITS])
        return name


def _is_new(text: str, known: set[int]) -> bool:
    """Is it none of those known? From now on, it is."""
    count = len(known)
    known.add(hash(text))
    return len(known) > count


def _without_fragment(url: str) -> str:
    """What is sent of a URL."""
    return url.partition("#")[0]


async def _lines_of_standard_input() -> AsyncGenerator[str, None]:
    """Line by line, as they come.

    Raises:
        UnreadableError: It is closed, or broken.
    """
    if sys.stdin is None:
        raise UnreadableError("it is closed")
    rest = b""
    try:
        while block := await _read(sys.stdin.fileno()):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                yield os.fsdecode(line)
    except OSError as error:
        raise UnreadableError(error.strerror) from error
    yield os.fsdecode(rest)


async def _read(file: int) -> bytes:
    """What comes next, read by a thread that nobody has to wait for: at a terminal, nothing may ever come."""
    done: Future[bytes] = Future()
    done.set_running_or_notify_cancel()  # From here on it is not cancelled, and takes a result in any case.

    def read() -> None:
        try:
            done.set_result(os.read(file, _BLOCK))
        except OSError as error:
            done.set_exception(error)

    threading.Thread(target=read, name="retrykit.stdin", daemon=True).start()
    return await asyncio.wrap_future(done)
