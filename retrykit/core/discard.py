"""Drain or release a response nobody will read, so that its connection serves the next attempt."""

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from retrykit.core import clock

# Enough for any error page that a person wrote, and cheaper to read than a new TLS connection to open.
MOST_BYTES = 64 * 1024
# A few round trips: what has not come by then is not worth waiting for.
MOST_SECONDS = 0.25


async def drain(response: aiohttp.ClientResponse, seconds: float | None = None) -> bytes:
    """Read what is left of a response, at most 64 KiB of it and for at most 0.25 s; then let its connection go.

    The connection goes back to the pool where the body ended within these limits, and is closed where it did not.
    It is read in chunks, since `response.read()` would unpack 60 kB of gzip to 60 MB.

    Args:
        response: The response. Afterwards it is closed.
        seconds: How long it may take at the most, where that is less than 0.25.

    Returns:
        What was read.
    """
    if (here := what_is_here(response)) is not None:
        return here
    content, body = response.content, b""
    try:
        async with clock.time_limit(MOST_SECONDS if seconds is None else min(MOST_SECONDS, seconds)):
            if content.at_eof():  # the caller has read it, and aiohttp has kept what was read
                body = (await response.read())[:MOST_BYTES]
            while len(body) < MOST_BYTES and (chunk := await content.read(MOST_BYTES - len(body))):
                body += chunk
    except (aiohttp.ClientError, HttpProcessingError, TimeoutError, OSError):
        pass  # the start of a body is enough, and the connection is not
    finally:
        response.close()  # Where the body has ended, its connection is back in the pool already.
    return body


def what_is_here(response: aiohttp.ClientResponse) -> bytes | None:
    """The same where there is nothing to wait for, since all of the body has come; else `None`."""
    content = response.content
    if response.closed and content.at_eof() and not content.total_bytes:
        return b""  # There was none.
    if response.closed and content.is_eof() and not content.at_eof() and content.exception() is None:
        return content.read_nowait(MOST_BYTES)
    return None
