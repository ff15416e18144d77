"""Transfer: a body on its way, for `stream` and `download`. Its bytes come in order, from as many responses as need be.

A body that breaks off is what a retry of its request can't mend: a part of it was handed out already. So the rest is
asked for, by `Range` and `If-Range` (RFC 9110 §13.1.5 and §14.2), and a server that has something else by now says so.

Where a body breaks off, a new call begins whose first attempt is what has failed, so that all that a policy has to say
is said of it. The count of attempts, and the time, begin anew with each byte that is new.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from aiohttp import ClientPayloadError, ClientResponse, ClientSession, hdrs
from aiohttp.typedefs import StrOrURL
from multidict import CIMultiDict, CIMultiDictProxy

from retrykit.core import clock, scope
from retrykit.core.decorator import Retried, decorate
from retrykit.core.discard import MOST_SECONDS
from retrykit.core.errors import NotTheRestError, ResponseError
from retrykit.core.events import Ended, Request
from retrykit.core.history import history_of
from retrykit.core.plan import CarriedOn, Traits
from retrykit.core.policy import RetryPolicy
from retrykit.http import ranges, send
from retrykit.http.internals import unread_in
from retrykit.http.ranges import Representation

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
        if (around := scope.deadline_left()) is not None:
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
    ended_by=send.explain,
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
