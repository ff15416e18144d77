"""stream: a body piece by piece. Each byte comes once and in order, over as many responses as that takes."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Never, NoReturn, Self, Unpack, cast

from aiohttp import ClientSession
from aiohttp.typedefs import StrOrURL
from multidict import CIMultiDictProxy

from retrykit.core.errors import UsageError
from retrykit.core.policy import RetryPolicy
from retrykit.http.send import VerbOptions
from retrykit.http.sessions import one_session
from retrykit.http.transfer import Call, Transfer, calls, for_body


class BodyStream:
    """A body, as `stream` gives it: `async for chunk in body`. Each byte comes once, and in order.

    Not to be made by hand.
    """

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer

    @property
    def status(self) -> int:
        """Of the response that the body began with."""
        return self._transfer.status

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """Of that response. Those that resume the body have others."""
        return self._transfer.headers

    @property
    def size(self) -> int | None:
        """Bytes of the whole body; `None` where the server has not told it, or has coded the body."""
        return None if self._transfer.known is None else self._transfer.known.size

    async def read(self, *size: Never) -> bytes:
        """All of the body that was not read yet, in memory."""
        if size:
            raise TypeError(
                f"{type(self).__name__}.read() takes no number of bytes, and gives all that was not read yet; for"
                " pieces, write `async for chunk in body`, which gives them as they come"
            )
        return b"".join([chunk async for chunk in self])

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Some bytes: as many as have come, up to some hundred kilobytes.

        Raises:
            aiohttp.ClientPayloadError: The body broke off, and could not be resumed. Its note says why.
            ResponseError: The request for the rest was answered with a status that ends the call.
            RuntimeError: The body is closed.
        """
        chunk = await self._transfer.read()
        if not chunk:
            raise StopAsyncIteration
        return chunk

    if not TYPE_CHECKING:  # Type checkers know what there is.

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(
                f"a {type(self).__name__} has no {name}; it has status, headers, size and read(), which gives all of"
                " the body, and `async for chunk in body` gives it piece by piece",
                name=name,
                obj=self,
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._transfer.offset} of {self.size} bytes>"


class Opening(AbstractAsyncContextManager[BodyStream]):
    """A body that is opened by `async with`; who tries it otherwise is told so.

    Args:
        opening: Opens it, and closes it at the end.
    """

    def __init__(self, opening: AbstractAsyncContextManager[BodyStream]) -> None:
        self._opening = opening

    def __repr__(self) -> str:
        return "<a stream, to be opened by `async with`>"

    async def __aenter__(self) -> BodyStream:
        return await self._opening.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._opening.__aexit__(kind, error, traceback)

    if not TYPE_CHECKING:  # Type checkers refuse them where they are missing.

        def _refuse(self, *_: object) -> NoReturn:
            raise UsageError(
                "a stream was not opened; write `async with stream(url) as body:`, and inside of it"
                " `async for chunk in body:`"
            )

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(
                f"a stream that was not opened has no {name}; write `async with stream(url) as body:`, and inside of it"
                f" `body.{name}`",
                name=name,
                obj=self,
            )

        __await__ = __aiter__ = __enter__ = _refuse

        def __exit__(self, *_: object) -> None:
            """Python looks for it before it enters."""


def streaming(
    call: Call, session: ClientSession, url: StrOrURL, request: dict[str, Any]
) -> AbstractAsyncContextManager[BodyStream]:
    """An open body, which is closed at the end."""
    return Opening(_streaming(call, session, url, request))


@contextlib.asynccontextmanager
async def _streaming(
    call: Call, session: ClientSession, url: StrOrURL, request: dict[str, Any]
) -> AsyncIterator[BodyStream]:
    transfer = Transfer(call, session, url, request)
    try:
        await transfer.open()
        yield BodyStream(transfer)
    finally:
        transfer.close()


_CALL = calls(RetryPolicy(), "stream")


def stream(
    url: StrOrURL, *, session: ClientSession | None = None, **options: Unpack[VerbOptions]
) -> AbstractAsyncContextManager[BodyStream]:
    """GET; the body, piece by piece. Where its connection breaks, it goes on where it was, and nobody notices.

        async with stream("https://example.com/big.csv") as body:
            async for chunk in body:
                ...

    It goes on by a request for the rest (`Range` with `If-Range`, RFC 9110 §13.1.5), where the response has a strong
    ETag, or a Last-Modified that is at least a minute older than its Date, and no content coding; so the request has
    `Accept-Encoding: identity`, unless `headers` have another one. Where the body can't be resumed, it begins
    again if nothing of it was handed out; else the error that it broke off with comes out, and its note says why.

    The policy is that of each wait for more of the body, not of the whole: `max_retries` attempts or `timeout` seconds
    without a new byte end it, and `attempt_timeout` seconds without one end an attempt. Where neither is given, the
    `total` of the session's timeout (aiohttp's default: 300 s) takes the place of `attempt_timeout`, and is no bound of
    the whole, either. Streams are not hedged. To bound the whole, use `asyncio.timeout`.

    Args:
        url: Where to.
        session: Sends the requests. Default: one is made for this body; in `fetch_all`, one is shared.
        **options: aiohttp's options of a request, and those of a `RetryPolicy`.

    Raises:
        ResponseError: The status was 400 or more, or 206 though nobody has asked for a part; `GiveUpError` where it is
            one that is retried.
        ValueError: `headers` have a `Range`: for a part of a body, use `get`.
        TypeError: A body was given to send.
    """
    call, request = for_body(_CALL, cast(dict[str, Any], options))
    return Opening(_streaming_by(session, call, url, request))


@contextlib.asynccontextmanager
async def _streaming_by(
    session: ClientSession | None, call: Call, url: StrOrURL, request: dict[str, Any]
) -> AsyncIterator[BodyStream]:
    async with one_session(session) as open_session, _streaming(call, open_session, url, request) as body:
        yield body
