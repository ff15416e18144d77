"""The file that a body goes to until it is whole, `<name>.part`, and the record of what it is a part of beside it.

The record, `<name>.part.json`, has what the rest can be asked for by: so a call goes on where an earlier one ended, or
was killed. Who writes to a part has it locked. All of this blocks, and is for threads.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple, Self

from aiohttp import ClientSession
from aiohttp.typedefs import StrOrURL
from yarl import URL

from retrykit.core.errors import ChecksumError
from retrykit.http.internals import base_url_of
from retrykit.http.ranges import Representation, place_of

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_VERSION = 1
# A cancellation waits until so much is hashed: some milliseconds.
_HASHED_AT_ONCE = 4 * 1024 * 1024
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class Source(NamedTuple):
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


class Part:
    """The file that a body goes to until it is whole, and what is known of it. All of its methods block.

    Args:
        target: What it becomes.
        source: Where it comes from.
        wanted: The digest that it must have.
    """

    def __init__(self, target: Path, source: "Source", wanted: str | None) -> None:
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
