"""The file that a body goes to until it is whole, `<name>.part`, and the record of what it is a part of beside it.

The record, `<name>.part.json`, has what the rest can be asked for by: so a call goes on where an earlier one ended, or
was killed. Who writes to a part has it locked. All of this blocks, and is for threads.

A part is trusted only where its record speaks of this very file, and both are the user's own: in a folder that is
shared with others, anybody may put something there.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from aiohttp import ClientSession
from aiohttp.typedefs import StrOrURL
from multidict import CIMultiDict
from yarl import URL

from retrykit.core.errors import ChecksumError
from retrykit.http.internals import base_url_of
from retrykit.http.ranges import Representation, is_tag, place_of

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_VERSION = 1
# A cancellation waits until so much is hashed: some milliseconds.
_HASHED_AT_ONCE = 4 * 1024 * 1024
_LONGEST_RECORD = 64 * 1024
# What ends where there is more room: on the disk, or for the user (EDQUOT, which Windows has not).
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
# The number of a file is given to another one once it is gone. So the record has a digest of its beginning, too.
_BEGINNING = 64 * 1024
_NOTHING_KNOWN = Representation("", None, None, "it was changed")
# What opens no link, and does not wait for whoever is at the other end of a pipe.
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
# Each time, somebody else has finished the part in the moment between opening and locking it.
_MOST_TURNS = 100


class Source(NamedTuple):
    """A request, as another process can tell that something was got by it. It may be secret, and is not written."""

    url: str
    """A digest of the URL without its fragment."""
    request: str
    """The same with the headers. An ETag tells apart what they have chosen, but a date does not (RFC 9110 §8.8)."""
    place: str
    """That of a response which was not redirected."""

    @classmethod
    def of(cls, session: ClientSession, url: StrOrURL, request: Mapping[str, Any]) -> Self:
        """That of a request.

        Args:
            session: Sends it.
            url: Where to.
            request: aiohttp's options of a request.
        """
        try:
            base = base_url_of(session)
            whole = URL(url) if base is None else base.join(URL(url))
            whole = whole.with_fragment(None).extend_query(request.get("params"))
        except (TypeError, ValueError):  # It can't be sent either, and that says why.
            return cls("", "", "")
        headers = CIMultiDict(request.get("headers") or ())
        chosen = sorted((name.lower(), str(value)) for name, value in headers.items())
        return cls(_digest(str(whole)), _digest(json.dumps([str(whole), chosen])), place_of(whole))

    def behind(self, validator: str | None) -> str:
        """What a record has of it, where that is the validator."""
        return self.url if is_tag(validator) else self.request


class Part:
    """The file that a body goes to until it is whole, and what is known of it. All of its methods block.

    Args:
        target: What it becomes.
        source: Where it comes from.
        wanted: The digest that it must have.
    """

    def __init__(self, target: Path, source: Source, wanted: str | None) -> None:
        self._target, self._source, self._wanted = target, source, wanted
        self._path = target.with_name(f"{target.name}.part")
        self._record = target.with_name(f"{target.name}.part.json")
        self._new_record = target.with_name(f"{target.name}.part.json.new")
        self._file: io.FileIO | None = None
        self._known_as: list[int] | None = None
        self._recorded = _NOTHING_KNOWN
        """What the record says."""
        self._begins_with = 0
        """Of how many of the first bytes it has a digest."""
        self._hash = hashlib.sha256()
        """Of the bytes in it, where one is wanted."""
        self.size = 0
        """How many bytes of the body are in it."""
        self.known: Representation | None = None
        """What they are a part of, where they can be resumed."""

    def open(self) -> None:
        """Have the file locked, and see what is in it.

        Raises:
            BlockingIOError: Somebody else has it locked.
            FileExistsError: By its name there is something that no download has left.
        """
        folder = self._target.parent
        if not folder.is_dir():
            if folder.exists():
                raise NotADirectoryError(errno.ENOTDIR, "this is no folder; give another path", str(folder))
            raise FileNotFoundError(errno.ENOENT, "the folder is missing; make it before", str(folder))
        for path in (self._target, self._record):
            _refuse_special(path)
        self._file = _locked(self._path)
        # A crash has left it. Its name is the longest of these: where it can't be, that shows before anything is sent.
        self._new_record.unlink(missing_ok=True)
        size, record = os.fstat(self._file.fileno()).st_size, self._read_record()
        if size and record is None:
            self.close()
            raise _nobodys(self._path)
        self.known = self._known_by(record or {}, size)
        if self.known is not None:
            self.size, self._recorded = size, self.known
            self._file.seek(size if self._wanted is None else 0)

    def take_up(self) -> bool:
        """Hash some of what is there already: is there more?"""
        left = self.size - self._open_file.tell()
        block = self._open_file.read(min(left, _HASHED_AT_ONCE)) if left else b""
        self._hash.update(block)
        return bool(block)

    def begin(self, known: Representation) -> None:
        """Empty it, for a body that begins."""
        self._refuse_if_changed()
        self._open_file.truncate(0)  # Before the record changes: it speaks of the bytes that are there.
        self._open_file.seek(0)
        self.size, self._hash = 0, hashlib.sha256()
        self._recorded, self._begins_with = known, 0
        self._write_record()

    def write(self, chunks: list[bytes]) -> None:
        """Add to it."""
        data = memoryview(b"".join(chunks))
        if self._wanted is not None:
            self._hash.update(data)
        with self._named():
            while data:
                written = self._open_file.write(data)
                self.size += written
                data = data[written:]
        if self.size >= _BEGINNING:
            self._record_beginning()

    def finish(self) -> None:
        """Make it the target, now that all of it is there.

        Raises:
            ChecksumError: It is not what was wanted.
            OSError: It is not what was written, either.
        """
        file = self._open_file
        if self._wanted is not None and (actual := self._hash.hexdigest()) != self._wanted:
            file.truncate(0)  # So that there is nothing to resume.
            raise ChecksumError(str(self._target), self._wanted, actual)
        try:
            with self._named():
                os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(0)  # Some of it may be lost, and nothing would tell which.
            raise
        self._refuse_if_changed()
        if os.fstat(file.fileno()).st_size != self.size:
            self._recorded = _NOTHING_KNOWN
            self._write_record()
            raise self._changed()
        if sys.platform == "win32":
            file.close()  # There, what is open can't be renamed.
        self._path.replace(self._target)
        self._recorded = _NOTHING_KNOWN
        self._forget()
        _sync_folder(self._target.parent)

    def close(self) -> None:
        """Let go of it. What is empty is of no use, and is taken away."""
        file = self._file
        if file is None or file.closed:
            return
        with contextlib.suppress(OSError):
            if os.fstat(file.fileno()).st_size == 0 and _is_named(file, self._path):
                self._path.unlink()
                self._forget()
            self._record_beginning()
        _unlock(file)
        file.close()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Have an error of writing say of what file it is, and what becomes of it: the system tells neither."""
        try:
            yield
        except OSError as error:
            if error.filename is None:
                error.filename = str(self._path)
            if error.errno in _FULL and self._begins_with and self._recorded.refusal is None:
                error.add_note("make room, and do the same again: it goes on with what has come, which is kept there")
            raise

    @property
    def _open_file(self) -> io.FileIO:
        assert self._file is not None
        return self._file

    def _refuse_if_changed(self) -> None:
        if not _is_named(self._open_file, self._path):
            raise self._changed()

    def _changed(self) -> OSError:
        return OSError(
            errno.EBUSY,
            "something else has changed it during the download; call it again, and let nothing else write there",
            str(self._path),
        )

    # --- the record -----------------------------------------------------------------------------------------------

    def _read_record(self) -> dict[str, Any] | None:
        """What is recorded; `None` where there is no record that could be the user's own."""
        try:
            with _opened(self._record, os.O_RDONLY) as file:
                text = file.read(_LONGEST_RECORD)
        except OSError:
            return None
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            return {}
        return record if isinstance(record, dict) else {}

    def _known_by(self, record: dict[str, Any], size: int) -> Representation | None:
        """What so many bytes are a part of, by the record; `None` where it doesn't fit."""
        place, validator, whole = (record.get(name) for name in ("place", "validator", "size"))
        if not (isinstance(validator, str) and validator.isascii() and validator.isprintable()):
            return None
        if record.get("version") != _VERSION or record.get("file") != self._identity():
            return None
        if record.get("source") != self._source.behind(validator):
            return None
        if whole is not None and not (isinstance(whole, int) and size <= whole):
            return None
        if not self._begins_as_recorded(record.get("beginning"), size):
            return None
        return Representation(self._source.place if place is None else str(place), validator, whole)

    def _begins_as_recorded(self, beginning: object, size: int) -> bool:
        match beginning:
            case [int(count), str(digest)] if 0 < count <= size:
                self._begins_with = count
                return self._digest_of_first(count) == digest
        return False

    def _record_beginning(self) -> None:
        """Have it in the record, too, so that the bytes can be resumed."""
        count = min(self.size, _BEGINNING)
        if count > self._begins_with and self._recorded.refusal is None:
            self._begins_with = count
            self._write_record()

    def _digest_of_first(self, count: int) -> str:
        file = self._open_file
        before = file.tell()
        file.seek(0)
        digest = hashlib.sha256(file.read(count)).hexdigest()
        file.seek(before)
        return digest

    def _write_record(self) -> None:
        known = self._recorded
        validator = known.validator if known.refusal is None else None
        record = {
            "version": _VERSION,
            "file": self._identity(),
            "beginning": [self._begins_with, self._digest_of_first(self._begins_with)],
            "source": self._source.behind(validator),
            "place": None if known.place == self._source.place else known.place,
            "validator": validator,
            "size": known.size,
        }
        try:
            with _opened(self._new_record, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600) as file, self._named():
                file.write(json.dumps(record).encode())
            self._new_record.replace(self._record)
        except OSError:
            self._new_record.unlink(missing_ok=True)
            raise

    def _forget(self) -> None:
        """Remove the record, unless it speaks of another file: the next download may have begun already."""
        record = self._read_record()
        if record is not None and record.get("file") == self._identity():
            self._record.unlink(missing_ok=True)

    def _identity(self) -> list[int]:
        """What tells the file from another one that gets the same name."""
        if self._known_as is None:
            info = os.fstat(self._open_file.fileno())
            self._known_as = [info.st_dev, info.st_ino]
        return self._known_as


# --- files ------------------------------------------------------------------------------------------------------------


def _refuse_special(path: Path) -> None:
    """Raise where the name is that of a folder, or of a device or pipe, which would be gone."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "this is a folder; write the name of a file in it as well", str(path))
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise FileExistsError(
            errno.EEXIST, "this is no regular file, and is not replaced; give another path", str(path)
        )


def _locked(path: Path) -> io.FileIO:
    """The file of that name, made where there is none; nobody else has it."""
    for _ in range(_MOST_TURNS):
        with contextlib.ExitStack() as closing:
            file = closing.enter_context(_opened(path, os.O_RDWR | os.O_CREAT))
            _lock(file, path)
            if _is_named(file, path):  # Else it was finished by the one who had it locked.
                closing.pop_all()
                return file
    raise OSError(
        errno.EBUSY, "other downloads finish this file again and again; wait until they have ended", str(path)
    )


def _opened(path: Path, flags: int, mode: int = 0o666) -> io.FileIO:
    """A file, if it can be the user's own: no link is followed, and nothing else is opened than a file.

    Raises:
        FileExistsError: It is somebody else's, or has another name as well.
    """
    if path.is_symlink():  # Not all systems have O_NOFOLLOW.
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    file = os.fdopen(os.open(path, flags | _FLAGS, mode), "rb" if flags == os.O_RDONLY else "r+b", buffering=0)
    info = os.fstat(file.fileno())
    if stat.S_ISREG(info.st_mode) and info.st_nlink == 1 and _is_trusted(info.st_uid, path):
        return file
    file.close()
    raise _nobodys(path)


def _is_trusted(owner: int, path: Path) -> bool:
    """Is it the user, or whose folder it is? Where all files get the same owner, that is so for the folder, too."""
    return sys.platform == "win32" or owner in (os.geteuid(), path.parent.stat().st_uid)


def _nobodys(path: Path) -> FileExistsError:
    return FileExistsError(
        errno.EEXIST,
        "this name is needed for the part of a download, and what has it was left by none of yours; move it away, or"
        " give another path",
        str(path),
    )


def _lock(file: io.FileIO, path: Path) -> None:
    """Have it alone, until it is unlocked, where the file system can do that.

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
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            raise BlockingIOError(
                errno.EAGAIN,
                "another download writes to this file now; wait until that has ended, or give another path",
                str(path),
            ) from None
        if error.errno not in _NO_LOCKS:
            raise


# Of Windows, a byte far from the start: a lock keeps others from reading what it is on. The C library can't go further.
_LOCKED_AT = 0x7FFF_FFFE
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


def _unlock(file: io.FileIO) -> None:
    """Let others have it. To close it is not enough, where a process that was forked meanwhile has it, too."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)


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


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
