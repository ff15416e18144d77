"""The names of aiohttp's that it keeps to itself, and that we have to read: each in one function.

Where a version of aiohttp doesn't have one, the function says so, and what needs it is left to aiohttp. The tests run
them against each version that we know.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import (
    ClientHandlerType,
    ClientMiddlewareType,
    ClientRequest,
    ClientResponse,
    ClientSession,
    StreamReader,
)
from aiohttp.payload import Payload
from yarl import URL


def session_middlewares(session: ClientSession) -> Sequence[ClientMiddlewareType] | None:
    """The middlewares of a session, which those of a request take the place of; `None` where they can't be seen."""
    middlewares = getattr(session, "_middlewares", None)
    return middlewares if isinstance(middlewares, Sequence) else None


def base_url_of(session: ClientSession) -> URL | None:
    """What the relative addresses of a session are below; `None` where it has none, or it can't be seen."""
    base = getattr(session, "_base_url", None)
    return base if isinstance(base, URL) else None


def never_repeat(session: ClientSession) -> None:
    """Have a session send each request once, where its version can (the test client of aiohttp's does so).

    That goes for whoever else sends by it, too.
    """
    if hasattr(session, "_retry_connection"):
        session._retry_connection = False  # noqa: SLF001


def sending_once(session: ClientSession) -> Callable[..., Awaitable[ClientResponse]] | None:
    """What sends a request of a session that was told never to repeat it, and in time; `None` where that is not sure.

    It is the coroutine function behind `session.request`, which makes an object for `async with` around each.
    """
    if getattr(session, "_retry_connection", True) is not False:
        return None
    send: Any = getattr(session, "_request", None) or session.request
    is_aiohttps = getattr(send, "__func__", None) is _SEND and type(session).request is _REQUEST
    return send if is_aiohttps else None


# Where something else stands in its place, a test has replaced it by a mock, which may not know of a request's timeout.
_SEND = getattr(ClientSession, "_request", ClientSession.request)
_REQUEST = ClientSession.request


def unread_in(content: StreamReader) -> bytes:
    """What of a body has come before it failed, and that nobody has read; nothing where that can't be seen.

    aiohttp raises the failure at once, and what had come before is not to be had any more.
    """
    read_nowait: Callable[[int], bytes] | None = getattr(content, "_read_nowait", None)
    return b"" if read_nowait is None or content.at_eof() else read_nowait(-1)


def timer_of(request: ClientRequest) -> object | None:
    """An object that all the requests share which one call of a session's makes: its hops, and its repeat."""
    timer: object | None = getattr(request, "_timer", None)
    return timer


def has_timed_out(request: ClientRequest) -> bool:
    """Has the total time passed that a call of a session's has for all of its requests?"""
    timer: Any = timer_of(request)
    try:
        timer.assert_timeout()
    except TimeoutError:
        return True
    except AttributeError:
        pass
    return False


def start_of(payload: Payload) -> int | None:
    """Where a file stood before somebody read it by its payload; `None` where nobody has."""
    return getattr(payload, "_start_position", None)


def value_of(payload: Payload) -> Any:
    """What a payload was made from; `None` where it can't be seen."""
    return getattr(payload, "_value", None)


def is_sent_as_it_is(request: ClientRequest, handler: ClientHandlerType) -> bool:
    """Has it no body, and does the handler send it, with no other middleware in between?"""
    return not getattr(request, _BODY) and getattr(handler, "__name__", None) == "_connect_and_send_request"


def body_in(request: ClientRequest) -> Any:
    """The body of a request, or what aiohttp has in the place of none."""
    return getattr(request, _BODY)


def put_body(request: ClientRequest, body: Any) -> None:
    """Give a request another body of the same length and type, and leave the present one open."""
    setattr(request, _BODY, body)


# In aiohttp 3.12.0, it is a plain attribute.
_BODY = "_body" if hasattr(ClientRequest, "_body") else "body"
