"""Sessions for what is given none: one for each call, or one that many share."""

import contextlib
import inspect
from collections.abc import AsyncIterator
from contextvars import ContextVar

from aiohttp import ClientSession, DummyCookieJar, TCPConnector

from retrykit.http import send
from retrykit.http.internals import never_repeat

# Seconds that a connection is kept for which there is nothing to do. Where all calls go to a few servers, it is always
# taken at once; where each goes to another, aiohttp's 15 s would be thousands of open connections.
_KEPT_FOR = 1.0
# Before aiohttp 3.13.4, the addresses of all hosts are kept (CVE-2026-34513).
_KEEPS_FEW_ADDRESSES = "dns_cache_max_size" in inspect.signature(TCPConnector).parameters


class SharedSession:
    """A session for the helpers that are given none, made on first use; what it keeps does not grow with its use.

    Args:
        limit: The most connections that are in use at a time.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._session: ClientSession | None = None
        self._is_closed = False

    def opened(self) -> ClientSession | None:
        """The session; `None` where it was closed."""
        if self._session is None and not self._is_closed:
            connector = TCPConnector(limit=self._limit, keepalive_timeout=_KEPT_FOR, use_dns_cache=_KEEPS_FEW_ADDRESSES)
            self._session = ClientSession(connector=connector, cookie_jar=DummyCookieJar())
            never_repeat(self._session)
        return None if self._is_closed else self._session

    async def close(self) -> None:
        """Close it."""
        self._is_closed = True
        if self._session is not None:
            await self._session.close()


shared_session: ContextVar[SharedSession | None] = ContextVar("retrykit_session", default=None)
"""What the helpers use in this context that are given no session."""


def shared_in_this_context() -> ClientSession | None:
    """The session that is shared here; `None` where none is."""
    shared = shared_session.get()
    return None if shared is None else shared.opened()


@contextlib.asynccontextmanager
async def one_session(session: ClientSession | None) -> AsyncIterator[ClientSession]:
    """The session that was handed in, else the one that is shared here, else one that is closed at the end."""
    if session is None:
        session = shared_in_this_context()
    else:
        send.refuse_other_than_session(session)
    if session is not None:
        yield session
        return
    async with ClientSession() as own:
        never_repeat(own)
        yield own
