"""stream: a body whose bytes come once and in order, over as many responses as that takes.

A body that breaks off is what a retry of its request can't mend: a part of it was handed out already. So the rest is
asked for, by `Range` and `If-Range` (RFC 9110 §13.1.5 and §14.2), and a server that has something else by now says so.

Where a body breaks off, a new call begins whose first attempt is what has failed, so that all that a policy has to say
is said of it. The count of attempts, and the time, begin anew with each byte that is new.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Never, NoReturn, Self, Unpack, cast

from aiohttp import ClientPayloadError, ClientResponse, ClientSession, hdrs
from aiohttp.typedefs import StrOrURL
from multidict import CIMultiDict, CIMultiDictProxy

from retrykit.core import clock, scope
from retrykit.core.decorator import Retried, decorate
from retrykit.core.discard import MOST_SECONDS
from retrykit.core.errors import NotTheRestError, ResponseError, UsageError
from retrykit.core.events import Ended, Request, history_of
from retrykit.core.plan import CarriedOn, Traits
from retrykit.core.policy import RetryPolicy
from retrykit.http import ranges, send
from retrykit.http.internals import unread_in
from retrykit.http.ranges import Representation
from retrykit.http.send import VerbOptions
from retrykit.http.sessions import one_session

Begins = Callable[[Representation], Awaitable[None]]


class Transfer:
    """A body on its way. `open` it, and `read` gives its bytes.

    Args:
        call: Makes a call for a response, under its policy.
        session: Sends the requests.
        url: Where to.
        request: aiohttp's options of a request.
        begins: Awaited whenever the body begins, so that what had come before is thrown away. Default: nothing can be
            thrown away, and a body of which something was handed out never begins again.
    """

    def __init__(
        self,
        call: "Call",
        session: ClientSession,
        url: StrOrURL,
        request: dict[str, Any],
        begins: Begins | None = None,
    ) -> None:
        self._call, self._session, self._url, self._begins = call, session, url, begins
        timeout = request.get("timeout", session.timeout)
        self._request = {**request, "timeout": send.with_total(None, timeout), "raise_for_status": False}
        # A body takes as long as it takes: each attempt to get more of it is bounded. To aiohttp, 0 is no bound.
        self._patience: float | None = call.policy.longest_attempt or timeout.total or None
        self._response: ClientResponse | None = None
        self.status = 0
        """Of the response that the body began with."""
        self.headers: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())
        """The same."""
        self.offset = 0
        """How many bytes have come."""
        self.known: Representation | None = None
        """What the body is a part of."""
        self._until: int | None = None
        """The offset at which the body of the present response ends; `None` where it is not known."""
        self._is_over = False
        """Has a server said that there is no more?"""
        self._not_the_rest: str | None = None
        """Why an answer could not be resumed."""
        self._failed: list[Exception] = []
        """What the present response has broken off with, until a call begins for the next one."""
        self._broken: Exception | None = None
        """The same, while that runs."""
        self._furthest = 0
        """The most bytes that there ever were, and"""
        self._furthest_of: str | None = None
        """of what: its validator."""
        self._ended: tuple[Ended, ...] = ()
        """The attempts since there were more than ever."""
        self._waited = 0.0
        """Seconds that were waited for the next byte, not counting what its owner did meanwhile, and"""
        self._tried = 0.0
        """those of them that the present attempt has taken."""
        self._is_reading = self._is_closed = False

    # --- what a call asks for -------------------------------------------------------------------------------------

    @property
    def unresumable(self) -> str | None:
        """Why no other response can resume the body; `None` where one can, or where it may begin again."""
        if self.offset == 0 or self._begins is not None:
            return None
        return self._not_the_rest or self._so_far.refusal

    def described(self) -> Request:
        """The request, and what has come in answer to it."""
        return send.describe("GET", self._url, self._request)._replace(answered=self)

    def origin(self) -> str | None:
        """Of the request."""
        return send.origin_behind(self._session, self._url)

    def carried_on(self) -> CarriedOn | None:
        """The failure that the call goes on with."""
        if self._broken is None:
            return None
        return CarriedOn([self._broken], clock.now() - self._waited, self._ended)

    async def attempt(self) -> ClientResponse:
        """Ask for the body, or for the rest of it.

        Raises:
            ResponseError: The status is 400 or more, one that is retried, or that of a part that nobody has asked for.
            NotTheRestError: What has come is not the rest.
        """
        asks_for_rest, began = self._can_go_on, clock.now()
        request = self._for_rest() if asks_for_rest else self._request
        async with clock.time_limit(None if self._call.policy.longest_attempt else self._patience):
            response = await send.send(self._session, "GET", self._url, request, bounds_body=False)
        self._tried = clock.now() - began
        if asks_for_rest and response.status == ranges.UNSATISFIABLE:
            self._refuse_other_than_rest(response)
            return response
        if response.status >= 400 or response.status in self._call.policy.statuses:
            raise await send.error_of(response, request, began)
        if asks_for_rest:
            self._refuse_other_than_rest(response)
        elif response.status == ranges.PARTIAL:
            response.close()
            error = ResponseError.of(response, b"")
            error.add_note("its server was asked for the whole body, and has sent a part")
            raise error
        return response

    def _refuse_other_than_rest(self, response: ClientResponse) -> None:
        if self._begins is None and not self._says_over(response):
            why = ranges.why_not_the_rest(response, self.offset, self._so_far)
            if why is not None:
                response.close()
                self._not_the_rest = why
                failure = self._broken or _ended_early(self.offset, self._so_far.size)
                raise NotTheRestError(failure, response.status)

    # --- what its owner asks for ----------------------------------------------------------------------------------

    @property
    def response(self) -> ClientResponse:
        """The response that the next bytes come from."""
        assert self._response is not None
        return self._response

    def go_on_from(self, offset: int, known: Representation) -> None:
        """Have so many bytes already, of what this was."""
        self.offset = self._furthest = offset
        self.known, self._furthest_of = known, known.validator

    async def open(self) -> None:
        """Have a response that goes on with the body, or begins it."""
        while not await self._takes(await self._responded()):
            pass

    async def read(self) -> bytes:
        """The next bytes; none at the end.

        Raises:
            Exception: What ended the call for them.
            RuntimeError: The body is closed, or another task is reading it.
        """
        self._refuse_if_closed()
        if self._is_reading:
            raise RuntimeError("another task is reading this body; read it in one, and hand the bytes on")
        self._is_reading = True
        try:
            return await self._read()
        finally:
            self._is_reading = False

    def close(self) -> None:
        """Let go of the response: its connection is closed, unless the body has come to its end."""
        self._is_closed = True
        self._failed.clear()
        if self._response is not None:
            self._response.release()

    # --- how it goes about it -------------------------------------------------------------------------------------

    @property
    def _so_far(self) -> Representation:
        assert self.known is not None
        return self.known

    @property
    def _can_go_on(self) -> bool:
        """Is there something to resume, so that only the rest has to be asked for?"""
        return self.offset > 0 and self._so_far.refusal is None

    def _for_rest(self) -> dict[str, Any]:
        headers = CIMultiDict(self._request["headers"])
        headers[hdrs.RANGE] = f"bytes={self.offset}-"
        headers[hdrs.IF_RANGE] = self._so_far.validator or ""
        return {**self._request, "headers": headers}

    def _says_over(self, response: ClientResponse) -> bool:
        return ranges.is_whole(response, self.offset, self._so_far)

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise RuntimeError("the body is closed; read it inside of its `async with`")

    async def _read(self) -> bytes:
        while True:
            chunk = b"" if self._failed else await self._next()
            if chunk:
                return self._taken(chunk)
            if not self._failed and self._is_at_end():
                return b""
            await self.open()

    async def _responded(self) -> ClientResponse:
        """Make a call for a response."""
        goes_on, began = bool(self._failed), clock.now()
        if goes_on:
            self._broken = self._failed.pop()
        try:
            response = await self._call(self)
        except asyncio.CancelledError:
            if self._broken is not None:  # Who reads on all the same goes on from here.
                self._failed.append(self._broken)
            raise
        finally:
            self._broken = None  # Its traceback leads back here.
            self._waited += clock.now() - began
        history = history_of(response)
        made = () if history is None else tuple(history.attempts[:-1])
        self._ended = made if goes_on else self._ended + made
        return response

    async def _takes(self, response: ClientResponse) -> bool:
        """Go on with this response; `False` where it is of no use, and the body has to begin again."""
        if self._is_closed:
            response.close()
            self._refuse_if_closed()
        if self._can_go_on:
            if self._says_over(response):
                response.release()
                self._response, self._is_over = response, True
                self.known = self._so_far.as_known_from(ranges.Part(0, self.offset, self.offset))
                return True
            part = ranges.part_of(response)
            if part is not None and ranges.why_not_the_rest(response, self.offset, self._so_far) is None:
                self._response, self._until = response, part.end
                self.known = self._so_far.as_known_from(part)
                if self._furthest_of != self.known.validator:  # It has begun again, and now it gets on.
                    self._furthest = self.offset
                return True
            self.offset = 0
            if response.status in (ranges.PARTIAL, ranges.UNSATISFIABLE):
                response.close()
                return False
        self.offset, self._response = 0, response
        self.status, self.headers = response.status, response.headers
        self.known = ranges.representation_of(response)
        self._until = self.known.size
        if self._begins is not None:
            await self._begins(self.known)
        return True

    async def _next(self) -> bytes:
        """What comes next of the present response. What it has broken off with is in `_failed` then."""
        if self._is_over:
            return b""
        response, content, began = self.response, self.response.content, clock.now()
        try:
            chunk = content.read_nowait()
            if not chunk and not content.at_eof():
                async with clock.time_limit(self._time_to_wait()):
                    chunk = await content.readany()
            if not chunk and self._until is not None and self.offset < self._until:
                raise _ended_early(self.offset, self._until)  # noqa: TRY301 - as aiohttp does where it can see it.
        except Exception as error:  # noqa: BLE001 - what it means is the policy's to say.
            chunk = unread_in(content)
            response.close()
            if self._until is None or self.offset + len(chunk) < self._until:
                self._failed.append(error)
        spent = clock.now() - began
        self._waited, self._tried = self._waited + spent, self._tried + spent
        return chunk

    def _time_to_wait(self) -> float | None:
        """The seconds that there are for the next bytes."""
        if self.offset == self._until:  # All are there. What may come is the end.
            return MOST_SECONDS
        timeout = self._call.policy.timeout
        left = math.inf if self._patience is None else self._patience - self._tried
        if timeout is not None:
            left = min(left, timeout - self._waited)
        if (around := scope.time_left()) is not None:
            left = min(left, around)
        return None if left == math.inf else max(0.0, left)

    def _taken(self, chunk: bytes) -> bytes:
        if self._until is not None and self.offset + len(chunk) > self._until:
            self.response.close()
            raise ClientPayloadError(f"more bytes came than the server has announced, which were {self._until}")
        self.offset += len(chunk)
        self._waited = self._tried = 0.0
        if self.offset > self._furthest:
            self._furthest, self._furthest_of, self._ended = self.offset, self._so_far.validator, ()
        return chunk

    def _is_at_end(self) -> bool:
        """Is this all, now that the present response has ended? A part of a body may be followed by another one."""
        size = self._so_far.size
        return self._is_over or (self._until is None if size is None else self.offset == size)


def _counted(error: Exception) -> Exception:
    return error.failure if isinstance(error, NotTheRestError) else error


def _ended_early(offset: int, size: int | None) -> ClientPayloadError:
    return ClientPayloadError(f"the body ended after {offset} of {'some' if size is None else size} bytes")


Call = Retried[[Transfer], ClientResponse]
_TRAITS = Traits(
    Transfer.described,
    origin=Transfer.origin,
    holds_back=True,
    as_raised=_counted,
    carried_on=Transfer.carried_on,
)


def calls(policy: RetryPolicy, name: str) -> Call:
    """The calls for the responses of a body.

    Args:
        policy: That of each wait for more of the body. They are not hedged: a body is read from one response.
        name: How they are named to listeners.
    """
    return _unhedged(decorate(Transfer.attempt, policy, name, _TRAITS))


def for_body(call: Call, options: dict[str, Any], further: Collection[str] = ()) -> tuple[Call, dict[str, Any]]:
    """Part the options of a call for a body: those of the policy change the calls, the others are the request's.

    Raises:
        TypeError, ValueError: As `send.for_call`, and where a header or body is given that there can't be.
    """
    for name in ("data", "json"):
        if options.get(name) is not None:
            raise TypeError(
                f"{name}= was given, and a request whose body may have to be resumed has none; leave it out, or send"
                " the request by post() or AsyncHTTPClient.request()"
            )
    call, request = send.for_call(call, options, further=further)
    return _unhedged(call), as_whole(request)


def as_whole(request: dict[str, Any]) -> dict[str, Any]:
    """The options of a request for a whole body, as it is, unless its caller wants it coded.

    Raises:
        ValueError: It asks for a part.
    """
    headers = CIMultiDict(request.get("headers") or ())
    for name in (hdrs.RANGE, hdrs.IF_RANGE):
        if name in headers:
            raise ValueError(
                f"the header {name} was given, and is set here to resume a body that breaks off; for a part of a"
                " body, use get() or AsyncHTTPClient.request()"
            )
    headers.setdefault(hdrs.ACCEPT_ENCODING, "identity")
    return {**request, "headers": headers}


def _unhedged(call: Call) -> Call:
    return call if call.policy.hedge_after is None else call.retry_with(hedge_after=None)


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
