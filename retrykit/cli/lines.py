"""The URLs on standard input, one by line, as somebody asks for more."""

import asyncio
import os
import select
import sys
from collections.abc import AsyncGenerator
from functools import partial

from retrykit.cli import values
from retrykit.cli.daemon import in_daemon_thread
from retrykit.cli.endings import LongLineError

_BLOCK = 65536
# Bytes of a line. Hardly a server takes a URL of more than 8,000, and what has no line ends at all is no list of them.
_LONGEST = 65536
# Characters of a longer line that are kept.
_BEGINNING = 100


class UnreadableError(Exception):
    """Standard input can't be read."""


class Lines:
    """An async iterable of the URLs; in the place of one whose line is too long comes the error that this is.

    Blank lines and comments are left out. Bytes that are no UTF-8 are percent-encoded.
    """

    def __init__(self) -> None:
        self._reading: asyncio.Future[bytes] | None = None
        self._is_stopped = False

    def stop(self) -> None:
        """Read no more, although somebody may be waiting for it: what has come is all."""
        self._is_stopped = True
        if self._reading is not None:
            self._reading.cancel()

    async def __aiter__(self) -> AsyncGenerator[str | LongLineError, None]:
        """Go over them.

        Raises:
            UnreadableError: It is closed, or broken.
        """
        if sys.stdin is None:
            raise UnreadableError("it is closed; send a file to it (< FILE), or give the URLs in the place of -")
        line = b""  # As far as it has come; of one that is too long, no more than shows that.
        while not self._is_stopped and (block := await self._read(sys.stdin.fileno())):
            *ends, rest = block.split(b"\n")
            for end in ends:
                if len(line) <= _LONGEST and (url := _url_on(line + end)):
                    yield url
                line = b""
            if len(line) <= _LONGEST:
                line += rest
                if len(line) > _LONGEST and (url := _url_on(line)):  # Its end may never come.
                    yield url
        if len(line) <= _LONGEST and (url := _url_on(line)):
            yield url

    async def _read(self, file: int) -> bytes:
        """What comes next; nothing at the end, or where it is stopped."""
        # At a terminal, nothing may ever come.
        self._reading = asyncio.ensure_future(in_daemon_thread(partial(_read, file)))
        try:
            return await self._reading
        except OSError as error:
            raise UnreadableError(error.strerror) from error
        except asyncio.CancelledError:
            if self._is_stopped:
                return b""
            raise


def _url_on(line: bytes) -> str | LongLineError | None:
    """What a line says; `None` where it is blank, or a comment."""
    text = line.decode(errors="surrogateescape").strip("\ufeff \t\r\n")  # Some editors begin with a byte order mark.
    if text.startswith("#"):
        return None
    if len(line) > _LONGEST:
        return LongLineError(values.url(text[:_BEGINNING]))
    return values.url(text) or None


def _read(file: int) -> bytes:
    while True:
        try:
            return os.read(file, _BLOCK)
        except BlockingIOError:  # Who has opened it has made it so.
            select.select([file], [], [])
