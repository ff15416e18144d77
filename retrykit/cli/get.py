"""`python -m retrykit get URL`: the body to standard output, the attempts to standard error."""

import asyncio
import os
import re
import socket
import ssl
import sys
from pathlib import Path
from typing import NamedTuple

import aiohttp
from aiohttp import http_exceptions

from retrykit.cli.listening import listening, outcome
from retrykit.core.errors import GiveUpError, ResponseError
from retrykit.core.events import RetryEvent, from_now
from retrykit.core.policy import RetryPolicy
from retrykit.http.fetch import fetch_bytes
from retrykit.http.send import describe

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
UNWRITTEN = 23
"""The exit code where standard output takes nothing more."""


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
    _Ending(aiohttp.InvalidUrlRedirectClientError, 3, "a redirect to a malformed URL"),
    _Ending(aiohttp.InvalidURL, 3, "malformed URL"),
    _Ending(aiohttp.ClientConnectorDNSError, 6, "could not resolve the host's name"),
    _Ending(UnicodeError, 6, "could not resolve the host's name"),  # It has a label that no name can have.
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
_FAILURES = tuple({ending.error for ending in _ENDINGS})

EXIT_CODES = {
    0: "the body was written",
    UNWRITTEN: "the body could not be written",
    **{ending.code: ending.meaning for ending in _ENDINGS},
}
"""What the exit codes mean; they are curl's."""


def run(url: str, policy: RetryPolicy) -> int:
    """Fetch a URL.

    Args:
        url: Where to. One without a scheme gets `http://`.
        policy: How often, and for how long.

    Returns:
        The exit code.
    """
    url = url if _SCHEME.match(url) else f"http://{url}"
    failed: list[RetryEvent] = []

    def report(event: RetryEvent) -> None:
        failed.append(event)
        word = outcome(event.status, event.exception)
        _say(f"GET {event.origin}{event.path} {word}, next attempt {from_now(event.delay)}")

    try:
        with listening(report):
            status, body = asyncio.run(_fetch(url, policy))
    except _FAILURES as error:
        return _explain(error, url)
    if failed:
        _say(f"GET {_shown(url)} {status}, {len(body)} bytes")
    return _write(body)


async def _fetch(url: str, policy: RetryPolicy) -> tuple[int, bytes]:
    """The status, which `fetch_bytes` keeps to itself, and the body."""
    statuses: list[int] = []

    async def note(_session: object, _context: object, end: aiohttp.TraceRequestEndParams) -> None:
        statuses.append(end.response.status)

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(note)
    async with aiohttp.ClientSession(trace_configs=[trace]) as session:
        body = await fetch_bytes(url, session=session, policy=policy)
    return statuses[-1], body


def _explain(error: Exception, url: str) -> int:
    """Say what happened; the exit code."""
    ending = next(row for row in _ENDINGS if isinstance(error, row.error) and isinstance(error.__cause__, row.cause))
    what = ", ".join(filter(None, [ending.meaning, _detail(error)]))
    where = _shown(url)
    notes = [error.summary] if isinstance(error, GiveUpError) else getattr(error, "__notes__", ())
    line = f"GET {where}: {what}" if where else what
    _say(" ".join([f"retrykit: ({ending.code}) {line}", *(f"({note})" for note in notes)]))
    return ending.code


def _detail(error: Exception) -> str:
    """What the server, or the system, says of it."""
    if isinstance(error, ResponseError):
        return f"{error.status} {error.message}".rstrip()
    match error.__cause__:
        case ssl.SSLCertVerificationError(verify_message=str(text)):
            return text
        case ssl.SSLError(reason=str(text)) | socket.gaierror(strerror=str(text)):
            return text
        case OSError(errno=int(number)):
            return os.strerror(number)
    return ""


def _shown(url: str) -> str:
    """A URL as it may be shown: without its credentials and query; nothing where it can't be read."""
    request = describe("GET", url, {})
    return f"{request.origin}{request.path}" if request.origin else ""


def _say(line: str) -> None:
    """Print a line to standard error. What a server had a say in could hold the terminal's control sequences."""
    if sys.stderr is not None:  # Where it is closed, print() would take to standard output.
        print("".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line), file=sys.stderr)


def _write(body: bytes) -> int:
    """Write the body to standard output; the exit code."""
    if sys.stdout is None:
        _say(f"retrykit: ({UNWRITTEN}) standard output is closed")
        return UNWRITTEN
    try:
        sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # Who reads has had enough, and knows it.
        abandon_output()
        return UNWRITTEN
    except OSError as error:
        _say(f"retrykit: ({UNWRITTEN}) the body could not be written, {error.strerror}")
        abandon_output()
        return UNWRITTEN
    return 0


def abandon_output() -> None:
    """Let what is still buffered go nowhere: at the end, Python would try again to write it, and complain."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
