"""How calls end: what is said of it, and the exit codes."""

import contextlib
import os
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
MALFORMED, UNRESOLVED = 3, 6
"""Those where a URL can't be read, or its host has no address."""
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
    _Ending(aiohttp.ClientConnectorError, 7, "could not connect"),
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
        notes = [error.summary] if isinstance(error, GiveUpError) else getattr(error, "__notes__", ())
        return cls(ending.code, printable(" ".join([what, *(f"({note})" for note in notes)])))

    def line(self, what: str = "") -> str:
        """What is said of it: of what kind it is, of what, and why."""
        return f"retrykit: ({self.code}) {what}: {self.message}" if what else f"retrykit: ({self.code}) {self.message}"


def _fits(ending: _Ending, error: Exception) -> bool:
    return isinstance(error, ending.error) and isinstance(error.__cause__, ending.cause)


def _detail(error: Exception, ending: _Ending) -> str:
    """What the server, or the system, says of it."""
    if isinstance(error, ResponseError):
        return f"{error.status} {error.message}".rstrip()
    if isinstance(error, OriginPausedError):
        return str(error)
    if ending in _OF_FILES and isinstance(error, OSError):
        return error.strerror or ""
    if ending is _UNFORESEEN:  # Its text may have the URL in it.
        return type(error).__name__
    match error.__cause__:
        case ssl.SSLCertVerificationError(verify_message=str(text)):
            return text
        case ssl.SSLError(reason=str(text)) | socket.gaierror(strerror=str(text)):
            return text
        case OSError(errno=int(number)):
            return os.strerror(number)
    return ""


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


def say(line: str) -> None:
    """Print a line to standard error, as far as that takes any: where it doesn't, all else goes on."""
    if sys.stderr is not None:  # Where it is closed, print() would take to standard output.
        with contextlib.suppress(OSError):
            print(printable(line), file=sys.stderr)


def abandon(stream: TextIO | None) -> None:
    """Let what is still buffered go nowhere: at the end, Python would try again to write it, and complain."""
    if stream is not None:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
