"""download: a body becomes a file, which is there as a whole or not at all.

What blocks runs in threads, and is waited for in any case: never do two of them have the file.
"""

import asyncio
import contextlib
import inspect
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple, Unpack, cast

from aiohttp import ClientSession
from aiohttp.typedefs import StrOrURL

from retrykit.core import clock
from retrykit.core.checks import name_of, shown_type
from retrykit.core.errors import ResponseError
from retrykit.core.policy import RetryPolicy
from retrykit.http.part import Part, Source
from retrykit.http.ranges import Representation
from retrykit.http.send import VerbOptions
from retrykit.http.sessions import one_session
from retrykit.http.transfer import Transfer, calls, for_body

R = TypeVar("R")
Ts = TypeVarTuple("Ts")
Progress = Callable[[int, int | None], object]

# What is written at once. A thread is asked for each, which costs some 100 µs of CPU: less than a MiB to read does.
_BATCH = 1024 * 1024
# Seconds after which what has come is written with the next bytes, so that a slow download shows, and survives a kill.
_LONGEST_UNWRITTEN = 0.5
# What has the body of a file; 203 is a 200 that a proxy has changed (RFC 9110 §15.3.4).
_WHOLE = frozenset({200, 203})
_DIGEST = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)

_CALL = calls(RetryPolicy(), "download")


async def download(
    url: StrOrURL,
    path: str | os.PathLike[str],
    *,
    session: ClientSession | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
    **options: Unpack[VerbOptions],
) -> Path:
    """GET; the body, as a file. It gets its name once it is whole: what had that name before stays until then.

        await download("https://example.com/big.iso", "big.iso")

    Where its connection breaks it goes on where it was, as `stream` does, and under the same policy. Where it can't,
    because the server takes no ranges, names no validator that is strong enough, or has something else by now, it
    begins again. A body in a content coding that nobody asked for is decoded, and can't be resumed, either.

    Bytes go to `<name>.part` in the same folder. Where the call ends before all of them are there, by an error, a
    cancellation or with its process, that stays, and so does `<name>.part.json`: with them, the next call for the same
    URL goes on. It has no more of the URL than a digest. A part of which nothing is left to ask for is confirmed by the
    server, and not sent again. After a power failure a part may have the right length and wrong bytes, as the system
    writes them when it likes: where that can happen, give `sha256`.

    The whole file is on the disk (`fsync`) before it is renamed. Its mode is that of any new file. A symbolic link by
    its name is replaced, and not followed.

    Args:
        url: Where to.
        path: Of the file. Its folder has to be there.
        session: Sends the requests. Default: one is made for this file; in `fetch_all`, one is shared.
        sha256: The digest that the file must have, in hex. Default: none is asked for, and any file is right that has
            as many bytes as its server has announced (if that announces none: all that came until the end).
        progress: Called with the bytes that are written so far, and the size (`None` where it is not known): first
            where there is a part to resume, and then whenever some were added. Where the body begins again, they
            become fewer. What it raises ends the call.
        **options: aiohttp's options of a request, and those of a `RetryPolicy`.

    Returns:
        The path.

    Raises:
        ResponseError: The status was none of a file, which are 200 and 203. `GiveUpError` where it is one that is
            retried.
        aiohttp.ClientPayloadError: The body broke off once more than the policy allows, or was longer than announced.
        ChecksumError: The file has another digest. Nothing is kept of it.
        BlockingIOError: Another download, of this process or of another one, writes to the same file. Nothing was sent.
        FileExistsError: By the name of the part, or of its record, there is something that no download of yours has
            left. Nothing was sent.
        OSError: The file can't be written: say, the disk is full. It is not retried, and the part stays.
        ValueError: `sha256` is no digest, or `headers` have a `Range`.
    """
    target, wanted = _as_path(path), _as_digest(sha256)
    if not target.name:
        raise ValueError(f"path={str(path)!r} names no file; write its name as well, such as 'big.iso'")
    if progress is not None:
        _refuse_other_than_function(progress)
    call, request = for_body(_CALL, cast(dict[str, Any], options), further=("sha256", "progress"))
    async with one_session(session) as open_session:
        part = Part(target, Source.of(open_session, url, request), wanted)
        try:
            await _in_thread(part.open)
            await _Filling(part, progress, partial(Transfer, call, open_session, url, request)).run()
        finally:
            await _in_thread(part.close)
    return target


class _Filling:
    """A download on its way: what comes of a body goes to a part."""

    def __init__(self, part: "Part", progress: Progress | None, transfer: Callable[..., Transfer]) -> None:
        self._part, self._progress = part, progress
        self._transfer = transfer(begins=self._begin)
        self._unwritten: list[bytes] = []
        self._due = 0.0
        """The instant from which on they are not to wait any longer."""

    async def run(self) -> None:
        """Have the whole file."""
        part, transfer = self._part, self._transfer
        if part.known is not None:
            while await _in_thread(part.take_up):
                pass
            transfer.go_on_from(part.size, part.known)
            self._tell()
        try:
            await self._receive()
        except (Exception, asyncio.CancelledError):
            with contextlib.suppress(OSError):  # What has ended the download counts.
                await self._write()
            raise
        finally:
            transfer.close()
        await _in_thread(part.finish)

    async def _receive(self) -> None:
        await self._transfer.open()
        unwritten = 0
        while chunk := await self._transfer.read():
            self._unwritten.append(chunk)
            unwritten += len(chunk)
            if unwritten >= _BATCH or clock.now() >= self._due:
                await self._write()
                unwritten = 0
                self._tell()
                self._due = clock.now() + _LONGEST_UNWRITTEN
        if self._unwritten:
            await self._write()
            self._tell()

    async def _begin(self, known: Representation) -> None:
        """Throw away what there is: the body begins.

        Raises:
            ResponseError: It is none of a whole file.
        """
        response = self._transfer.response
        if response.status not in _WHOLE:
            error = ResponseError.of(response, b"")
            error.add_note("a download takes no such answer, since its body is no whole file")
            raise error
        self._unwritten.clear()
        await _in_thread(self._part.begin, known)

    async def _write(self) -> None:
        if self._unwritten:
            chunks, self._unwritten = self._unwritten, []
            await _in_thread(self._part.write, chunks)

    def _tell(self) -> None:
        if self._progress is not None:
            known = self._transfer.known
            self._progress(self._part.size, None if known is None else known.size)


async def _in_thread(function: Callable[[*Ts], R], *args: *Ts) -> R:
    """Run a function in a thread. Its end is waited for in any case, and a cancellation comes out after it."""
    # No asyncio.to_thread: in a task, asyncio.run would cancel it by itself, and the thread would be left alone.
    running = asyncio.get_running_loop().run_in_executor(None, function, *args)
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return running.result()
    running.exception()  # Else asyncio would report it as lost.
    try:
        raise cancelled
    finally:
        cancelled = None  # Its traceback leads back here.


def _refuse_other_than_function(progress: object) -> None:
    if not callable(progress):
        raise TypeError(
            f"progress is {shown_type(progress)}, and has to be a function of two numbers: def progress(so_far, size)"
        )
    if inspect.iscoroutinefunction(progress):
        raise TypeError(
            f"progress is the coroutine function {name_of(progress)}, and is called and not awaited; write `def`"
        )


def _as_path(path: object) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path is {shown_type(path)}; write the name of the file as a str or a pathlib.Path")
    if str(path).lower().startswith(("http://", "https://")):
        raise ValueError("path is a URL, and has to be the name of a file; the URL comes first: download(url, path)")
    return Path(path)


def _as_digest(sha256: str | None) -> str | None:
    if sha256 is None:
        return None
    if not isinstance(sha256, str):
        raise TypeError(f"sha256 is {shown_type(sha256)}; write the digest as a str of 64 hex digits")
    if not _DIGEST.fullmatch(sha256):
        raise ValueError(f"sha256={sha256!r} is no SHA-256 digest; write its 64 hex digits, as sha256sum prints them")
    return sha256.lower()
