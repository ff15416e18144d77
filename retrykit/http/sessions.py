"""Sessions for what is given none: one for each call, or one that many share."""

import asyncio
import contextlib
import inspect
import math
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextvars import Context, ContextVar
from http.cookies import BaseCookie
from typing import Any, NamedTuple, TypeVar, cast
from weakref import WeakKeyDictionary

from aiohttp import ClientSession, ClientTimeout, CookieJar, DummyCookieJar, TCPConnector
from aiohttp.typedefs import LooseCookies
from yarl import URL

from retrykit.core import scope
from retrykit.http import send
from retrykit.http.internals import never_repeat

R = TypeVar("R")

# Seconds that a connection is kept for which there is nothing to do: for the first wait of the usual policy, and a
# little longer. Where each call goes to another server, aiohttp's 15 s would be thousands of open connections.
_KEPT_FOR = 1.5
# Before aiohttp 3.13.4, the addresses of all hosts are kept (CVE-2026-34513).
_KEEPS_FEW_ADDRESSES = "dns_cache_max_size" in inspect.signature(TCPConnector).parameters


class _CookiesOfCall(DummyCookieJar):
    """The cookies of each call: they last for its redirects and attempts, and no other call has them.

    What stands for a call is what counts its attempts. A jar goes with it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._jars: WeakKeyDictionary[scope.Counter, CookieJar] | None = None  # Most servers set no cookies.

    def update_cookies(self, cookies: LooseCookies, response_url: URL = URL()) -> None:  # noqa: B008 - as aiohttp's.
        """Keep them."""
        if (call := scope.counter.get()) is not None:
            self._jar_of(call).update_cookies(cookies, response_url)

    def update_cookies_from_headers(self, headers: Sequence[str], response_url: URL) -> None:
        """The same, where aiohttp is new enough to ask for it."""
        if (call := scope.counter.get()) is not None:
            self._jar_of(call).update_cookies_from_headers(headers, response_url)

    def filter_cookies(self, request_url: URL) -> "BaseCookie[str]":
        """Those that go with a request."""
        call = scope.counter.get()
        jar = None if call is None or self._jars is None else self._jars.get(call)
        return super().filter_cookies(request_url) if jar is None else jar.filter_cookies(request_url)

    def _jar_of(self, call: scope.Counter) -> CookieJar:
        if self._jars is None:
            self._jars = WeakKeyDictionary()
        return self._jars.setdefault(call, CookieJar())


class OpenSession(NamedTuple):
    """A session that is shared, and open."""

    session: ClientSession
    patience: "Patience"
    """The total time that it has for a request and its answer."""
    untimed: ClientTimeout
    """Its timeout but for that."""


class Patience:
    """The time that many requests have, each by itself: by one timer for all, since one for each is dear.

    All have as much, so that the one that began first is over first. A task waits for one at a time.

    Args:
        seconds: Of each.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends: dict[asyncio.Task[Any], float] = {}
        """The instants at which the time is over of what these tasks wait for, on the clock of the loop."""
        self._timer: asyncio.TimerHandle | None = None

    async def within(self, request: Awaitable[R]) -> R:
        """Wait for a request and its answer.

        Raises:
            TimeoutError: Its time is over.
        """
        loop, task = asyncio.get_running_loop(), cast(asyncio.Task[Any], asyncio.current_task())
        cancelling, end = task.cancelling(), loop.time() + self._seconds
        self._ends[task] = end
        if self._timer is None:
            self._timer = loop.call_at(end, self._on_time, loop, context=Context())
        try:
            result = await request
        except BaseException as error:
            if self._has_ended(task, cancelling) and isinstance(error, asyncio.CancelledError):
                raise TimeoutError from error
            raise
        self._has_ended(task, cancelling)
        return result

    def _has_ended(self, task: asyncio.Task[Any], cancelling: int) -> bool:
        """Was the task cancelled from here, and from nowhere else?"""
        return self._ends.pop(task, None) is None and task.uncancel() <= cancelling

    def _on_time(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer, now = None, loop.time()
        for task, end in list(self._ends.items()):
            if end > now:
                self._timer = loop.call_at(end, self._on_time, loop, context=Context())
                break
            del self._ends[task]
            task.cancel()

    def close(self) -> None:
        """Nothing is waited for any more."""
        if self._timer is not None:
            self._timer.cancel()


class SharedSession:
    """A session for what is given none, made on first use; what it keeps does not grow with its use.

    It has as many connections as are asked for: who shares it bounds that, and who holds some waits for none.
    """

    def __init__(self) -> None:
        self._open: OpenSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    def opened(self) -> OpenSession | None:
        """The session; `None` where it was closed, or belongs to another event loop."""
        if self._open is None and not self._is_closed:
            self._loop, self._open = asyncio.get_running_loop(), _opened()
        return self._open if self._loop is asyncio.get_running_loop() and not self._is_closed else None

    async def close(self) -> None:
        """Close it."""
        self._is_closed = True
        if self._open is not None:
            self._open.patience.close()
            await self._open.session.close()


def _opened() -> OpenSession:
    connector = TCPConnector(limit=0, keepalive_timeout=_KEPT_FOR, use_dns_cache=_KEEPS_FEW_ADDRESSES)
    session = ClientSession(connector=connector, cookie_jar=_CookiesOfCall())
    never_repeat(session)
    return OpenSession(session, Patience(session.timeout.total or math.inf), send.with_total(None, session.timeout))


shared_session: ContextVar[SharedSession | None] = ContextVar("retrykit_session", default=None)
"""What the helpers use in this context that are given no session."""


def shared_in_this_context() -> OpenSession | None:
    """The session that is shared here; `None` where none is."""
    shared = shared_session.get()
    return None if shared is None else shared.opened()


@contextlib.asynccontextmanager
async def one_session(session: ClientSession | None) -> AsyncIterator[ClientSession]:
    """The session that was handed in, else the one that is shared here, else one that is closed at the end."""
    if session is not None:
        send.refuse_other_than_session(session)
        yield session
        return
    if (shared := shared_in_this_context()) is not None:
        yield shared.session
        return
    async with ClientSession() as own:
        never_repeat(own)
        yield own
