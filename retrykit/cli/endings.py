"""How calls end: what is said of it, and the exit codes."""

import contextlib
import errno
import os
import select
import signal
import socket
import ssl
import sys
from pathlib import Path
from typing import NamedTuple, TextIO

import aiohttp
from aiohttp import http_exceptions
from yarl import URL

from retrykit.core.errors import GiveUpError, OriginPausedError, ResponseError

UNWRITTEN = 23
"""The exit code where standard output, or a file, takes nothing more."""
MALFORMED, UNRESOLVED, UNCONNECTED = 3, 6, 7
"""Those where a URL can't be read, its host has no address, or there is nobody at that."""
SIGNALLED = 128
"""What a shell adds to the number of a signal that has ended a command."""
INTERRUPTED = SIGNALLED + signal.SIGINT
CANT_RUN = 2
"""That of argparse."""
UNREAD = 26
"""That where there is no more to be had of standard input, although it has not ended."""


class LongLineError(aiohttp.InvalidURL):
    """A line of standard input is too long for a URL."""


class _Ending(NamedTuple):
    """How a call can fail."""

    error: type[Exception]
    code: int
    """curl's exit code for it."""
    meaning: str
    cause: type = object
    """Only where this caused the error."""


# The first that fits. aiohttp's classes overlap: a wrong certificate is also a connection that could not be made.
_ENDINGS = (
    _Ending(aiohttp.NonHttpUrlClientError, 1, "neither http nor https"),
    _Ending(aiohttp.InvalidUrlRedirectClientError, MALFORMED, "a redirect to a malformed URL"),
    _Ending(LongLineError, MALFORMED, "the line is too long for a URL"),
    _Ending(aiohttp.InvalidURL, MALFORMED, "malformed URL"),
    _Ending(aiohttp.ClientConnectorDNSError, UNRESOLVED, "could not resolve the host's name"),
    _Ending(UnicodeError, UNRESOLVED, "could not resolve the host's name"),  # It has a label that no name can have.
    _Ending(aiohttp.ClientConnectorCertificateError, 60, "the certificate is not trusted"),
    _Ending(aiohttp.ClientSSLError, 35, "TLS failure"),
    # Only a connection that was made can be reset, and then it is TLS that was being agreed on.
    _Ending(aiohttp.ClientConnectorError, 35, "TLS failure", cause=ConnectionResetError),
    _Ending(aiohttp.ClientConnectorError, UNCONNECTED, "could not connect"),
    _Ending(aiohttp.TooManyRedirects, 47, "too many redirects"),
    _Ending(aiohttp.ClientResponseError, 8, "the answer is not HTTP", cause=http_exceptions.HttpProcessingError),
    _Ending(aiohttp.ClientResponseError, 22, "an error status"),
    _Ending(TimeoutError, 28, "timeout"),
    _Ending(aiohttp.ServerDisconnectedError, 52, "the server closed the connection without an answer"),
    _Ending(aiohttp.ClientPayloadError, 61, "the body can't be decoded", cause=http_exceptions.ContentEncodingError),
    _Ending(aiohttp.ClientPayloadError, 18, "the body was cut short"),
    _Ending(aiohttp.ClientError, 56, "the connection broke"),
)
FAILURES = tuple({ending.error for ending in _ENDINGS})
"""What a call can fail with whose body goes to no file."""

# Those of a file. They come last, since some of aiohttp's errors are an OSError, too.
_OF_FILES = (_Ending(OSError, UNWRITTEN, "the file could not be written"),)
# What nobody has foreseen is not to end the calls beside it.
_UNFORESEEN = _Ending(Exception, 43, "an error that was not foreseen")

EXIT_CODES = {
    0: "the body was written, or all files are there",
    CANT_RUN: "wrong arguments",
    UNWRITTEN: "a file, or the output, could not be written",
    UNREAD: "standard input could not be read",
    _UNFORESEEN.code: _UNFORESEEN.meaning,
    INTERRUPTED: "interrupted",
    SIGNALLED + signal.SIGTERM: "terminated",
    **{ending.code: ending.meaning for ending in _ENDINGS},
}
"""What the exit codes mean; they are curl's, but for that of SIGTERM."""


class Failure(NamedTuple):
    """How a call failed."""

    code: int
    """The exit code for it."""
    message: str

    @classmethod
    def by(cls, error: Exception) -> "Failure":
        """What an error means."""
        ending = next((row for row in (*_ENDINGS, *_OF_FILES) if _fits(row, error)), _UNFORESEEN)
        what = ", ".join(filter(None, [ending.meaning, _detail(error, ending)]))
        if has_too_many_open(error):
            what += "; allow more open files (ulimit -n), or fewer downloads at a time (--concurrency)"
        notes = [error.summary] if isinstance(error, GiveUpError) else getattr(error, "__notes__", ())
        return cls(ending.code, printable(" ".join([what, *(f"({note})" for note in notes)])))

    def line(self, what: str = "") -> str:
        """What is said of it: of what kind it is, of what, and why. What it is of is said once."""
        if not what:
            return f"retrykit: ({self.code}) {self.message}"
        return f"retrykit: ({self.code}) {what}: {self.message.replace(f' ({what})', '')}"


def _fits(ending: _Ending, error: Exception) -> bool:
    return isinstance(error, ending.error) and isinstance(error.__cause__, ending.cause)


def _detail(error: Exception, ending: _Ending) -> str:
    """What the server, or the system, says of it."""
    if isinstance(error, ResponseError):
        return f"{error.status} {error.message}".rstrip()
    if isinstance(error, OriginPausedError):
        return str(error)
    if ending in _OF_FILES and isinstance(error, OSError):
        return ": ".join(filter(None, [error.strerror, str(error.filename or "")]))
    if ending is _UNFORESEEN:  # Its text may have the URL in it.
        return type(error).__name__
    return _detail_of_cause(error.__cause__)


def _detail_of_cause(cause: BaseException | None) -> str:
    match cause:
        case ssl.SSLCertVerificationError(verify_code=code, verify_message=str(text)) if code in _UNKNOWN_ISSUERS:
            return f"{text}; to trust it, give the file of its certificate in the environment: SSL_CERT_FILE=FILE"
        case ssl.SSLCertVerificationError(verify_message=str(text)):
            return text
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER" | "RECORD_LAYER_FAILURE" as text):
            return f"{text}; a server that speaks no TLS has a URL that begins with http://"
        case ssl.SSLError(reason=str(text)) | socket.gaierror(strerror=str(text)):
            return text
        case OSError(errno=int(number)):
            return os.strerror(number)
    return ""


# Of OpenSSL: a certificate that is its own issuer, one that ends with such a one, and one whose issuer is not there.
_UNKNOWN_ISSUERS = {18, 19, 20}


def has_too_many_open(error: BaseException) -> bool:
    """Has it come from there being as many files and connections open as there may be?"""
    return not _TOO_MANY_OPEN.isdisjoint(getattr(one, "errno", None) for one in (error, error.__cause__))


_TOO_MANY_OPEN = {errno.EMFILE, errno.ENFILE}


def shown(url: str) -> str:
    """A URL as it may be shown: without its credentials and query; nothing where it can't be read."""
    try:
        parsed = URL(url)
    except ValueError:
        return ""
    return f"{parsed.origin()}{parsed.raw_path}" if parsed.raw_host else ""


def printable(text: str) -> str:
    """The same without what a terminal would obey. What a server had a say in could hold its control sequences."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def encodable(text: str, stream: TextIO | None) -> str:
    """The same with escapes for what a stream's encoding has no bytes for, such as an umlaut in ASCII."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def say(line: str) -> None:
    """Print a line to standard error, as far as that takes any: where it doesn't, all else goes on."""
    if sys.stderr is not None:  # Where it is closed, print() would take to standard output.
        with contextlib.suppress(OSError):
            print(printable(line), file=sys.stderr)


def write(stream: TextIO, data: bytes) -> None:
    """Write all of it, past the buffer.

    At the end, Python waits for the lock of a buffer, which who is paused would still have. And without buffers
    (`PYTHONUNBUFFERED`) a write takes what fits, and says how much that was.

    Raises:
        OSError: It takes nothing more.
    """
    output = getattr(stream.buffer, "raw", stream.buffer)
    left = memoryview(data)
    while left:
        written = output.write(left)
        if written is None:  # It is not to block, as who has opened it has set.
            select.select([], [output], [])
        left = left[written or 0 :]


def abandon(stream: TextIO | None) -> None:
    """Let what is still buffered go nowhere: at the end, Python would try again to write it, and complain."""
    if stream is not None:
        # No file may be left to be opened for it.
        with contextlib.suppress(OSError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
