"""RetryMiddleware: retries within a session, for `aiohttp.ClientSession(middlewares=[...])`."""

import copy
import functools
from collections.abc import Awaitable
from typing import NamedTuple, Unpack

from aiohttp import (
    ClientError,
    ClientHandlerType,
    ClientOSError,
    ClientRequest,
    ClientResponse,
    ServerDisconnectedError,
    hdrs,
)
from aiohttp.payload import Payload

from retrykit.core.classify import lost_connection
from retrykit.core.decorator import decorate, policy_of
from retrykit.core.events import Request, origin_of
from retrykit.core.plan import Traits
from retrykit.core.policy import RetryOptions, RetryPolicy
from retrykit.http.internals import body_in, has_timed_out, is_sent_as_it_is, put_body, timer_of, value_of
from retrykit.http.replay import KeptPayload, keep
from retrykit.http.send import is_idempotent, is_repeatable


class RetryMiddleware:
    """Retries the requests of an aiohttp session, by the rules of the client.

        async with aiohttp.ClientSession(middlewares=[RetryMiddleware(max_retries=3)]) as session:
            async with session.get(url) as response:
                ...

    or for one request: `session.get(url, middlewares=[RetryMiddleware()])`.

    A request is judged by its status, or by what is raised, and is sent again where its method or an `Idempotency-Key`
    header says that it may be repeated, or where it was not taken up. When it is given up on, the last response is
    handed over (`on_give_up="raise"` raises `GiveUpError`). Each hop of a redirect is a call of its own.

    Middlewares that come before it in the list see one request for a call, those that come after it one for each
    attempt.

    Args:
        policy: The options as one value. Default: `RetryPolicy()`.
        **options: Single options of a `RetryPolicy`, by name; they change the policy.

    Raises:
        TypeError: There is no such option.
        ValueError: An option has a value that can't work.

    What a middleware can't see: a body that breaks off after the response was handed over; what was set up for the
    session as a whole, such as its total timeout, which spans all attempts and waits. Cookies of a response that is
    retried are not kept.
    """

    def __init__(self, policy: RetryPolicy | None = None, *misplaced: object, **options: Unpack[RetryOptions]) -> None:
        if misplaced:  # Is it aiohttp that calls, with a request?
            raise TypeError(
                "RetryMiddleware takes one policy, and options by name; in a list of middlewares, write an instance:"
                " middlewares=[RetryMiddleware()]"
            )
        self._policy = policy_of(policy, options)
        if self._policy.hedge_after is not None:
            raise ValueError(
                "RetryMiddleware can't hedge: aiohttp hands it one request object, which can't be sent twice at a time;"
                " leave hedge_after out (policy.replace(hedge_after=None)), and use AsyncHTTPClient, a helper or"
                " @retry_http where calls are to be hedged"
            )
        self._given_up: dict[int, _GivenUp] = {}
        self._has_users_code = self._policy.before_retry is not None or self._policy.strategies
        traits = Traits(
            _describe,
            origin=_origin,
            returns_response=True,
            returns_awaitable=True,
            holds_back=True,
            as_raised=_as_raised,
            ended_by=functools.partial(_keep_for_the_repeat, self._given_up),
            is_over=_is_over,
        )
        self._call = decorate(_attempt, self._policy, type(self).__name__, traits)

    @property
    def policy(self) -> RetryPolicy:
        """The options of every call."""
        return self._policy

    def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> Awaitable[ClientResponse]:
        """What aiohttp calls."""
        if self._given_up and (ended_by := self._given_up_before(request)) is not None:
            try:
                raise ended_by
            finally:
                del ended_by  # Its traceback leads back here.
        headers = request.headers
        if hdrs.UPGRADE in headers:  # A WebSocket is no response that could be sent for again.
            return handler(request)
        if is_sent_as_it_is(request, handler) and hdrs.EXPECT not in headers:
            call = self._call(request, handler)
        else:
            original = _Original(request)
            call = self._call(request, handler, original)
            if original.body is not None:
                call = _handing_back(call, original)
        return self._watching(call, request) if self._has_users_code else call

    async def _watching(self, call: Awaitable[ClientResponse], request: ClientRequest) -> ClientResponse:
        """A call in which there is code of the user's as well; what that raises has aiohttp repeat the request, too."""
        try:
            return await call
        except (ClientOSError, ServerDisconnectedError) as error:
            _keep_for_the_repeat(self._given_up, error, request)
            raise

    def _given_up_before(self, request: ClientRequest) -> Exception | None:
        """Is this aiohttp's own repeat of a request? What that was given up on with ends it, before it is sent.

        It is another request of the same call of the session's. (Where a middleware around us sends the same request
        again, that is its business.)
        """
        timer = timer_of(request)
        last = self._given_up.pop(id(timer), None)
        return last.error if last is not None and timer is not None and last.request != id(request) else None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._policy}>"


# aiohttp 3.12.0 leaves it to a body to close itself once it was sent.
_AIOHTTP_CLOSES_BODIES = hasattr(Payload, "close")
# The redirects by which it is sent again.
_WITH_THE_SAME_BODY = frozenset({301, 302, 307, 308})


class _Original:
    """A request as it came: what middlewares that come after us do to it, they do in each attempt anew."""

    __slots__ = ("_body", "_chunked", "_request", "_was_sent", "body", "headers")

    def __init__(self, request: ClientRequest) -> None:
        self._request = request
        self._was_sent = False
        self.body = _held_body(request)
        self._body = body_in(request)
        self._chunked = request.chunked
        self.headers = request.headers.copy()

    async def restore(self) -> None:
        """Have the request be as it came."""
        request = self._request
        if self._was_sent:
            other = body_in(request)
            if other is not self._body:
                put_body(request, self._body)
                if hasattr(other, "close"):
                    await other.close()
            request.chunked = self._chunked
            request.headers.clear()
            request.headers.extend(self.headers)
        self._was_sent = True
        if hdrs.EXPECT in request.headers:
            request.update_expect_continue()  # An answer that is waited for in vain can't be waited for again.

    async def hand_back(self, response: ClientResponse | None) -> None:
        """The call is over: with this response, or none."""
        if self.body is None:
            return
        await self.body.hand_back()
        # Where there is no response, aiohttp may repeat the request, and makes that of the body before it asks us.
        if not _AIOHTTP_CLOSES_BODIES and response is not None and response.status not in _WITH_THE_SAME_BODY:
            await self.body.let_go()


def _attempt(
    request: ClientRequest, handler: ClientHandlerType, original: _Original | None = None
) -> Awaitable[ClientResponse]:
    if original is None:  # With no coroutine around it: that would cost every request.
        return handler(request)
    return _restored(request, handler, original)


async def _restored(request: ClientRequest, handler: ClientHandlerType, original: _Original) -> ClientResponse:
    await original.restore()
    return await handler(request)


async def _handing_back(call: Awaitable[ClientResponse], original: _Original) -> ClientResponse:
    response: ClientResponse | None = None
    try:
        response = await call
        return response
    finally:
        await original.hand_back(response)


def _describe(request: ClientRequest, _handler: ClientHandlerType, original: _Original | None = None) -> Request:
    headers = request.headers if original is None else original.headers
    body = None if original is None else original.body
    known = Request.to(request.method, request.url)
    return known._replace(repeatable=is_repeatable(request.method, headers), body=body)


def _origin(request: ClientRequest, *_: object) -> str | None:
    return origin_of(request.url)


def _is_over(request: ClientRequest, *_: object) -> bool:
    return has_timed_out(request)


def _as_raised(error: Exception) -> Exception:
    """What aiohttp makes of an error, though only outside of all middlewares."""
    is_builtin = isinstance(error, OSError) and not isinstance(error, ClientError)
    if not is_builtin or (isinstance(error, TimeoutError) and error.errno is None):
        return error
    made = ClientOSError(*error.args)
    made.__cause__ = error
    return made


def _held_body(request: ClientRequest) -> KeptPayload | None:
    """The body of a request, made one that can be sent for each attempt; `None` where it is one already."""
    body = body_in(request)
    if not isinstance(body, Payload):
        return None
    kept = keep(body, type(value_of(body) or body).__name__)
    if not isinstance(kept, KeptPayload):
        return None
    kept.hold()
    put_body(request, kept)
    return kept


def _keep_for_the_repeat(given_up: dict[int, "_GivenUp"], error: Exception, request: ClientRequest, *_: object) -> None:
    """Remember what a request was given up on with, where aiohttp may repeat it."""
    if not (lost_connection(error) and is_idempotent(request.method)):
        return
    timer = timer_of(request)
    while len(given_up) >= _MOST_GIVEN_UP:
        del given_up[next(iter(given_up))]
    given_up[id(timer)] = _GivenUp(timer, id(request), _without_traceback(error))


# Each is small; those that aiohttp didn't repeat after all go in time.
_MOST_GIVEN_UP = 64


class _GivenUp(NamedTuple):
    """A connection that was lost, and given up on."""

    timer: object
    request: int
    """Its identity. aiohttp makes the request that repeats it before it lets go of it."""
    error: Exception


def _without_traceback(error: Exception) -> Exception:
    """The same error once more. The traceback would keep alive whatever the caller has."""
    try:
        twin = copy.copy(error)
    except TypeError:  # A class of somebody's own that can't be made from its `args`.
        return error
    twin.__cause__, twin.__suppress_context__ = error.__cause__, True
    return twin
