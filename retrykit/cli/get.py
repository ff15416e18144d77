"""`python -m retrykit get URL`: the body to standard output, the attempts to standard error."""

import asyncio
import re
import shlex
import sys
from pathlib import Path

import aiohttp

from retrykit.cli.endings import FAILURES, MALFORMED, UNRESOLVED, UNWRITTEN, Failure, abandon, say, shown
from retrykit.cli.listening import listening, outcome
from retrykit.core.events import RetryEvent, from_now
from retrykit.core.policy import RetryPolicy
from retrykit.http.fetch import fetch_bytes

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def run(url: str, policy: RetryPolicy) -> int:
    """Fetch a URL.

    Args:
        url: Where to. One without a scheme gets `http://`.
        policy: How often, and for how long.

    Returns:
        The exit code.
    """
    given, url = url, with_scheme(url)
    failed: list[RetryEvent] = []

    def report(event: RetryEvent) -> None:
        failed.append(event)
        word = outcome(event.status, event.exception)
        say(f"GET {shown(url)} {word}, next attempt {from_now(event.delay)}")

    try:
        with listening(report):
            status, body = asyncio.run(_fetch(url, policy))
    except FAILURES as error:
        failure, where = Failure.by(error), shown(url)
        say(failure.line(where and f"GET {where}") + file_hint(given, failure))
        return failure.code
    if failed:
        say(f"GET {shown(url)} {status}, {len(body)} bytes")
    return _write(body)


def file_hint(given: str, failure: Failure) -> str:
    """What to write for the URLs in a file, where a name of one was given in the place of a URL."""
    try:
        is_file = failure.code in (MALFORMED, UNRESOLVED) and Path(given).is_file()
    except (OSError, ValueError):  # The name of no file.
        return ""
    return f"; {given} is a file here: for the URLs in it, write `get - < {shlex.quote(given)}`" if is_file else ""


def with_scheme(url: str) -> str:
    """The same URL, with `http://` where it has no scheme."""
    return url if _SCHEME.match(url) else f"http://{url}"


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


def _write(body: bytes) -> int:
    """Write the body to standard output; the exit code."""
    if sys.stdout is None:
        say(f"retrykit: ({UNWRITTEN}) standard output is closed")
        return UNWRITTEN
    try:
        sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # Who reads has had enough, and knows it.
        abandon(sys.stdout)
        return UNWRITTEN
    except OSError as error:
        say(f"retrykit: ({UNWRITTEN}) the body could not be written, {error.strerror}")
        abandon(sys.stdout)
        return UNWRITTEN
    return 0
