"""download: a body becomes a file, which is there as a whole or not at all.

Until it is whole it is in `<name>.part`, and what its rest can be asked for by is in `<name>.part.json`: so the next
call goes on where one was killed. Who writes to a part has it locked.

What blocks runs in threads, and is waited for in any case: never do two of them have the file.
"""

import asyncio
import contextlib
import errno
import hashlib
import io
import json
import os
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar, TypeVarTuple, Unpack, cast

from aiohttp import ClientSession
from aiohttp.typedefs import StrOrURL
from yarl import URL

from retrykit.core import clock
from retrykit.core.checks import shown_type
from retrykit.core.errors import ChecksumError, ResponseError
from retrykit.core.policy import RetryPolicy
from retrykit.http import ranges
from retrykit.http.internals import base_url_of
from retrykit.http.ranges import Representation, place_of
from retrykit.http.send import VerbOptions
from retrykit.http.stream import Transfer, calls, for_body, one_session

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

R = TypeVar("R")
Ts = TypeVarTuple("Ts")
Progress = Callable[[int, int | None], object]

# What is written at once. A thread is asked for each, which costs some 50 µs: from a MiB on that is lost in the rest.
_BATCH = 1024 * 1024
# Seconds that bytes wait for others before they are written: as much as is lost where the process is killed.
_LONGEST_UNWRITTEN = 0.5
# A cancellation waits until so much is hashed: some milliseconds.
_HASHED_AT_ONCE = 4 * 1024 * 1024
_VERSION = 1
_DIGEST = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)

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
    begins again. A body in a content coding that nobody asked for is decoded, and can't be gone on with, either.

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
        session: Sends the requests. Default: one is made for this file.
        sha256: The digest that the file must have, in hex. Default: none is asked for, and any file is right that has
            as many bytes as its server has announced (if that announces none: all that came until the end).
        progress: Called with the bytes that are written so far, and the size (`None` where it is not known): first
            where there is a part to go on with, and then whenever some were added. Where the body begins again, they
            become fewer. What it raises ends the call.
        **options: aiohttp's options of a request, and those of a `RetryPolicy`.

    Returns:
        The path.

    Raises:
        ResponseError: The status was none of a whole file: 400 or more, a redirect that is not followed, or 206.
            `GiveUpError` where it is one that is retried.
        aiohttp.ClientPayloadError: The body broke off once more than the policy allows, or was longer than announced.
        ChecksumError: The file has another digest. Nothing is kept of it.
        BlockingIOError: Another download, of this process or of another one, writes to the same file. Nothing was sent.
        OSError: The file can't be written: say, the disk is full. It is not retried, and the part stays.
        ValueError: `sha256` is no digest, or `headers` have a `Range`.
    """
    target, wanted = Path(path), _as_digest(sha256)
    if progress is not None and not callable(progress):
        raise TypeError(f"progress is {shown_type(progress)}, and has to be a function of two numbers")
    call, request = for_body(_CALL, cast(dict[str, Any], options))
    async with one_session(session) as open_session:
        part = _Part(target, _Source.of(open_session, url, request.get("params")), wanted)
        try:
            await _in_thread(part.open)
            await _Filling(part, progress, partial(Transfer, call, open_session, url, request)).run()
        finally:
            await _in_thread(part.close)
    return target


class _Filling:
    """A download on its way: what comes of a body goes to a part."""

    def __init__(self, part: "_Part", progress: Progress | None, transfer: Callable[..., Transfer]) -> None:
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
        if not 200 <= response.status < 300 or response.status == ranges.PARTIAL:
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


class _Part:
    """The file that a body goes to until it is whole, and what is known of it. All of its methods block.

    Args:
        target: What it becomes.
        source: Where it comes from.
        wanted: The digest that it must have.
    """

    def __init__(self, target: Path, source: "_Source", wanted: str | None) -> None:
        self._target, self._source, self._wanted = target, source, wanted
        self._path = target.with_name(f"{target.name}.part")
        self._record = target.with_name(f"{target.name}.part.json")
        self._file: io.FileIO | None = None
        self._hash = hashlib.sha256()
        """Of the bytes in it, where one is wanted."""
        self.size = 0
        """How many bytes of the body are in it."""
        self.known: Representation | None = None
        """What they are a part of, where they can be gone on with."""

    def open(self) -> None:
        """Have the file locked, and see what is in it.

        Raises:
            BlockingIOError: Somebody else has it locked.
        """
        if self._target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self._target))
        while self._file is None:
            file = _opened(self._path)
            try:
                _lock(file, self._path)
                if _is_named(file, self._path):  # Else it was finished by the one who had it locked.
                    self._file = file
            finally:
                if self._file is None:
                    file.close()
        size = os.fstat(self._file.fileno()).st_size
        self.known = self._recorded(size)
        if self.known is not None:
            self.size = size
            if self._wanted is None:
                self._file.seek(size)

    def take_up(self) -> bool:
        """Hash some of what is there already: is there more?"""
        left = self.size - self._open_file.tell()
        block = self._open_file.read(min(left, _HASHED_AT_ONCE)) if left else b""
        self._hash.update(block)
        return bool(block)

    def begin(self, known: Representation) -> None:
        """Empty it, for a body that begins."""
        self._record.unlink(missing_ok=True)  # Before anything else: it speaks of the bytes that go.
        self._open_file.truncate(0)
        self._open_file.seek(0)
        self.size, self._hash = 0, hashlib.sha256()
        if known.refusal is None:
            self._write_record(known)

    def write(self, chunks: list[bytes]) -> None:
        """Add to it."""
        data = memoryview(b"".join(chunks))
        if self._wanted is not None:
            self._hash.update(data)
        while data:
            written = self._open_file.write(data)
            self.size += written
            data = data[written:]

    def finish(self) -> None:
        """Make it the target, now that all of it is there.

        Raises:
            ChecksumError: It is not what was wanted.
            OSError: It is not what was written, either.
        """
        file = self._open_file
        if self._wanted is not None and (actual := self._hash.hexdigest()) != self._wanted:
            file.truncate(0)  # So that there is nothing to go on with.
            raise ChecksumError(str(self._target), self._wanted, actual)
        os.fsync(file.fileno())
        if os.fstat(file.fileno()).st_size != self.size or not _is_named(file, self._path):
            self._record.unlink(missing_ok=True)
            raise OSError(errno.EBUSY, "something else has changed it during the download", str(self._path))
        if sys.platform == "win32":
            file.close()  # There, what is open can't be renamed.
        self._path.replace(self._target)
        file.close()
        _sync_folder(self._target.parent)
        self._record.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of it. What is empty is of no use, and is taken away."""
        file = self._file
        if file is None or file.closed:
            return
        with contextlib.suppress(OSError):
            if os.fstat(file.fileno()).st_size == 0 and _is_named(file, self._path):
                self._record.unlink(missing_ok=True)
                self._path.unlink()
        file.close()

    @property
    def _open_file(self) -> io.FileIO:
        assert self._file is not None
        return self._file

    def _recorded(self, size: int) -> Representation | None:
        """What so many bytes are a part of, as far as it was recorded; `None` where that doesn't fit."""
        try:
            record = json.loads(self._record.read_bytes())
        except (OSError, ValueError):
            return None
        named = (record.get("version"), record.get("url")) if isinstance(record, dict) else None
        is_ours = named == (_VERSION, self._source.digest)
        return _representation_in(record, size, self._source.place) if is_ours and size else None

    def _write_record(self, known: Representation) -> None:
        record = {
            "version": _VERSION,
            "url": self._source.digest,
            "place": None if known.place == self._source.place else known.place,
            "validator": known.validator,
            "size": known.size,
        }
        new = self._record.with_name(f"{self._record.name}.new")
        with _opened(new, os.O_TRUNC, 0o600) as file:
            file.write(json.dumps(record).encode())
        new.replace(self._record)


# --- files ------------------------------------------------------------------------------------------------------------


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


def _opened(path: Path, flags: int = 0, mode: int = 0o666) -> io.FileIO:
    """A file to read and to write, which is made where there is none. Links are not followed."""
    if path.is_symlink():  # Not all systems have O_NOFOLLOW.
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS | flags, mode), "r+b", buffering=0)


def _lock(file: io.FileIO, path: Path) -> None:
    """Have it alone, until it is closed.

    Raises:
        BlockingIOError: Somebody else has it.
    """
    try:
        if sys.platform == "win32":
            file.seek(_LOCKED_AT)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            file.seek(0)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            raise
        raise BlockingIOError(
            errno.EAGAIN,
            "another download writes to this file now; wait until that has ended, or give another path",
            str(path),
        ) from None


# Of Windows, a byte far from the start: a lock keeps others from reading what it is on. The C library can't go further.
_LOCKED_AT = 0x7FFF_FFFE


def _is_named(file: io.FileIO, path: Path) -> bool:
    """Is this file the one of that name?"""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    """Have the names in it on the disk, where the system can do that."""
    if hasattr(os, "O_DIRECTORY"):
        with contextlib.suppress(OSError):  # The file is where it belongs already.
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


# --- what is recorded, and given --------------------------------------------------------------------------------------


class _Source(NamedTuple):
    """A URL, as what was got from it can be told to be so by another process. It may be secret, and is not written."""

    digest: str
    """Of all of it but its fragment."""
    place: str
    """That of a response which was not redirected."""

    @classmethod
    def of(cls, session: ClientSession, url: StrOrURL, params: Any) -> Self:
        """That of a request."""
        try:
            base = base_url_of(session)
            whole = URL(url) if base is None else base.join(URL(url))
            whole = whole.with_fragment(None).extend_query(params)
            return cls(hashlib.sha256(str(whole).encode()).hexdigest(), place_of(whole))
        except (TypeError, ValueError):  # It can't be sent either, and that says why.
            return cls("", "")


def _representation_in(record: dict[str, Any], size: int, own_place: str) -> Representation | None:
    """What was recorded, where it can be what so many bytes are a part of."""
    place, validator, whole = (record.get(name) for name in ("place", "validator", "size"))
    if not (isinstance(validator, str) and validator.isascii() and validator.isprintable()):
        return None
    if whole is not None and not (isinstance(whole, int) and size <= whole):
        return None
    return Representation(own_place if place is None else str(place), validator, whole)


def _as_digest(sha256: str | None) -> str | None:
    if sha256 is None:
        return None
    if not isinstance(sha256, str):
        raise TypeError(f"sha256 is {shown_type(sha256)}; write the digest as a str of 64 hex digits")
    if not _DIGEST.fullmatch(sha256):
        raise ValueError(f"sha256={sha256!r} is no SHA-256 digest; write its 64 hex digits, as sha256sum prints them")
    return sha256.lower()
