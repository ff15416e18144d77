"""`python -m retrykit get URL`: the body to standard output, the attempts to standard error."""

import asyncio
import re
import shlex
import sys
from pathlib import Path
from urllib.request import getproxies_environment, proxy_bypass

import aiohttp
from yarl import URL

from retrykit.cli.endings import (
    FAILURES,
    MALFORMED,
    UNCONNECTED,
    UNRESOLVED,
    UNWRITTEN,
    Failure,
    abandon,
    say,
    shown,
    write,
)
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
        say(failure.line(where and f"GET {where}") + hint_for(given, failure))
        return failure.code
    if failed:
        say(f"GET {shown(url)} {status}, {len(body)} bytes")
    return _write(body)


def hint_for(given: str, failure: Failure) -> str:
    """What may be wrong with a URL that was given, or with what it was taken for; nothing where nothing is known."""
    if failure.code in (MALFORMED, UNRESOLVED) and _is_file(given):
        return f"; {given} is a file here: for the URLs in it, write `get - < {shlex.quote(given)}`"
    if failure.code in (UNRESOLVED, UNCONNECTED) and (variable := _proxy_variable(given)):
        return f"; {variable} is set, and get uses no proxy: a program can, by fetch_bytes(url, proxy=...)"
    return ""


def _is_file(given: str) -> bool:
    try:
        return Path(given).is_file()
    except (OSError, ValueError):  # The name of no file.
        return False


def _proxy_variable(given: str) -> str:
    """The environment variable that names a proxy for this URL, which other programs would use."""
    url = URL(with_scheme(given))
    proxies = getproxies_environment()
    name = next((name for name in (url.scheme, "all") if name in proxies), None)
    return f"{name}_proxy" if name and not proxy_bypass(url.raw_host or "") else ""


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
        say(f"retrykit: ({UNWRITTEN}) standard output is closed; send it to a file (> FILE), or give -o DIR")
        return UNWRITTEN
    try:
        write(sys.stdout, body)
    except BrokenPipeError:  # Who reads has had enough, and knows it.
        abandon(sys.stdout)
        return UNWRITTEN
    except OSError as error:
        say(f"retrykit: ({UNWRITTEN}) the body could not be written, {error.strerror}")
        abandon(sys.stdout)
        return UNWRITTEN
    return 0
