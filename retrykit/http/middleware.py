"""RetryMiddleware: retries within a session, for `aiohttp.ClientSession(middlewares=[...])`."""

from contextvars import ContextVar
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
from retrykit.core.events import Request
from retrykit.core.policy import RetryOptions, RetryPolicy
from retrykit.http.internals import put_body, timer_of, value_of
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

    def __init__(self, policy: RetryPolicy | None = None, **options: Unpack[RetryOptions]) -> None:
        self._policy = policy_of(policy, options)
        self._call = decorate(_attempt, self._policy, type(self).__name__, _describe, returns_response=True)

    @property
    def policy(self) -> RetryPolicy:
        """The options of every call."""
        return self._policy

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """What aiohttp calls."""
        if (ended_by := _given_up_before(request)) is not None:
            try:
                raise ended_by
            finally:
                del ended_by  # Its traceback leads back here.
        if hdrs.UPGRADE in request.headers:  # A WebSocket is no response that could be sent for again.
            return await handler(request)
        body = _held_body(request)
        try:
            return await self._call(request, handler)
        except (ClientOSError, ServerDisconnectedError) as error:
            if lost_connection(error) and is_idempotent(request.method):  # Others aiohttp would not repeat.
                _given_up.set(_GivenUp(timer_of(request), request, error))
            raise
        finally:
            if body is not None:
                body.hand_back()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._policy}>"


async def _attempt(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    if hdrs.EXPECT in request.headers:
        request.update_expect_continue()  # An answer that is waited for in vain can't be waited for again.
    try:
        return await handler(request)
    except ClientError:
        raise
    except OSError as error:  # As aiohttp itself does it, though only outside of all middlewares.
        if error.errno is None and isinstance(error, TimeoutError):
            raise
        raise ClientOSError(*error.args) from error


def _describe(request: ClientRequest, _: ClientHandlerType) -> Request:
    body = request.body
    return Request.to(request.method, request.url)._replace(
        repeatable=is_repeatable(request.method, request.headers),
        body=body if isinstance(body, KeptPayload) else None,
    )


def _held_body(request: ClientRequest) -> KeptPayload | None:
    """The body of a request, made one that can be sent for each attempt; `None` where it is one already."""
    body = request.body
    if not body or not isinstance(body, Payload):
        return None
    kept = keep(body, type(value_of(body) or body).__name__)
    if not isinstance(kept, KeptPayload):
        return None
    kept.hold()
    if kept is not body:
        put_body(request, kept)
    return kept


class _GivenUp(NamedTuple):
    """A connection that was lost, and given up on."""

    timer: object
    request: ClientRequest
    error: ClientOSError | ServerDisconnectedError


# A call of a session's runs in one task from its beginning to its end.
_given_up: ContextVar[_GivenUp | None] = ContextVar("retrykit_given_up", default=None)


def _given_up_before(request: ClientRequest) -> Exception | None:
    """Is this aiohttp's own repeat of a request that was given up on? What ended that one ends it, before it is sent.

    It is another request of the same call of the session's. (Where a middleware around us sends the same request again,
    that is its business.)
    """
    last = _given_up.get()
    if last is None:
        return None
    _given_up.set(None)
    is_repeat = last.timer is not None and last.timer is timer_of(request) and last.request is not request
    return last.error if is_repeat else None
