"""Helpers that are retried already: `get` and `post` give a response, the `fetch_…` ones its body."""

import functools
import inspect
from collections.abc import Awaitable, Callable, Collection, Coroutine
from types import FunctionType
from typing import Any, ParamSpec, TypeVar, Unpack, cast
from weakref import WeakKeyDictionary

from aiohttp import ClientResponse, ClientSession
from aiohttp.typedefs import StrOrURL
from yarl import URL

from retrykit.core.decorator import Retried, decorate
from retrykit.core.events import Request
from retrykit.core.plan import Describe, Traits
from retrykit.core.policy import RetryOptions, RetryPolicy
from retrykit.http import send
from retrykit.http.send import CallOptions, Read
from retrykit.http.sessions import one_session, shared_in_this_context

P = ParamSpec("P")
R = TypeVar("R")


def _helper(
    describe: Describe,
    origin: Callable[..., str | None],
    *,
    is_plain: Callable[..., bool] | None = None,
    reads_body: bool = False,
) -> Callable[[Callable[P, Awaitable[R]]], Retried[P, R]]:
    """Decorate a helper with the default policy; one that reads the body has to know which statuses are retried."""
    traits = Traits(describe, is_plain, returns_awaitable=True, origin=origin, holds_back=True, ended_by=send.explain)

    def decorator(fn: Callable[P, Awaitable[R]]) -> Retried[P, R]:
        retried = decorate(fn, RetryPolicy(), traits=traits)
        return _taking_options(retried, reads_body=reads_body)

    return decorator


def without_options(fetch: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """What a helper calls where it is given no options; of anything else, itself. It is for who makes many calls."""
    return _usual.get(fetch, fetch) if isinstance(fetch, FunctionType) else fetch


# Not an attribute of the helper: `functools.wraps` would hand it on to what somebody puts around that.
_usual: WeakKeyDictionary[Callable[..., Any], Callable[..., Any]] = WeakKeyDictionary()


def _taking_options(retried: Retried[P, R], *, reads_body: bool) -> Retried[P, R]:
    """Let the options of a policy be given with a call, too: `fetch_json(url, max_retries=5)`."""
    arguments = inspect.signature(retried).parameters.keys() - {"options"}
    usual = cast(Callable[..., Coroutine[Any, Any, R]], retried)
    usual_request = {"statuses": retried.policy.statuses} if reads_body else {}
    in_order = "url" if reads_body else "session, url"

    @functools.wraps(cast(Callable[P, Awaitable[R]], retried))
    async def call(*args: Any, **options: Any) -> R:
        if not options:  # Most calls have none, and are spared what is to be done with them.
            try:
                return await usual(*args, **usual_request)
            except TypeError:
                _refuse_order(retried.__name__, in_order, args)
                raise
        _refuse_order(retried.__name__, in_order, args)
        named = {name: options.pop(name) for name in arguments & options.keys()}
        chosen, request = send.for_call(retried, options)
        if reads_body:
            request["statuses"] = chosen.policy.statuses
        fetch = cast(Callable[..., Coroutine[Any, Any, R]], chosen)
        return await send.until_end(fetch, request, *args, **named, **request)

    def retry_with(*, policy: RetryPolicy | None = None, **options: Unpack[RetryOptions]) -> Retried[P, R]:
        return _taking_options(retried.retry_with(policy=policy, **options), reads_body=reads_body)

    vars(call).update(retry_with=retry_with, __wrapped__=retried.__wrapped__)
    _usual[call] = functools.partial(usual, **usual_request)
    return cast(Retried[P, R], call)


def _refuse_order(name: str, in_order: str, args: tuple[Any, ...]) -> None:
    """Say what comes first, where that is not what was given."""
    is_url_first = bool(args) and isinstance(args[0], str | URL)
    if in_order == "url" and (len(args) > 1 or (args and hasattr(args[0], "request"))):
        raise TypeError(f"{name} takes the URL, and all else by name; write {name}(url, session=session)") from None
    if in_order != "url" and len(args) > 2 and not is_url_first:
        raise TypeError(
            f"{name} takes the session and the URL, and all else by name; write {name}(session, url, data=data)"
        ) from None
    if in_order != "url" and is_url_first:
        raise TypeError(f"{name} takes the session first, and then the URL; write {name}(session, url)") from None


def _describe_get(session: ClientSession, url: StrOrURL, **request: Any) -> Request:  # noqa: ARG001
    return send.describe("GET", url, request)


def _describe_post(session: ClientSession, url: StrOrURL, **request: Any) -> Request:  # noqa: ARG001
    return send.describe("POST", url, request)


def _describe_fetch(url: StrOrURL, *, session: ClientSession | None = None, **request: Any) -> Request:  # noqa: ARG001
    return send.describe("GET", url, request)


def _is_plain(*_: object, **request: Any) -> bool:
    return send.is_plain("GET", request)


def _origin(session: ClientSession, url: StrOrURL, **_: Any) -> str | None:
    return send.origin_behind(session, url)


def _origin_of_fetch(url: StrOrURL, *, session: ClientSession | None = None, **_: Any) -> str | None:
    return send.origin_behind(session, url)


@_helper(_describe_get, _origin, is_plain=_is_plain)
async def get(session: ClientSession, url: StrOrURL, **options: Unpack[CallOptions]) -> ClientResponse:
    """GET; the response, open and unread, whatever its status but for those that are retried.

    Args:
        session: Sends the request.
        url: Where to.
        **options: aiohttp's options of a request, and those of a `RetryPolicy`.

    Raises:
        GiveUpError: The last response had a status that is retried.
    """
    return await send.send(session, "GET", url, cast(dict[str, Any], options))


@_helper(_describe_post, _origin)
async def post(session: ClientSession, url: StrOrURL, **options: Unpack[CallOptions]) -> ClientResponse:
    """POST; otherwise as `get`.

    A POST is not idempotent: it is sent again where it was not taken up (no connection, or a status of 408, 425, 429 or
    503), and elsewhere only with `idempotency_key=True` (or a key of your own) or `idempotent=True`.
    """
    return await send.send(session, "POST", url, cast(dict[str, Any], options))


@_helper(_describe_fetch, _origin_of_fetch, is_plain=_is_plain, reads_body=True)
def fetch_json(
    url: StrOrURL, *, session: ClientSession | None = None, **options: Unpack[CallOptions]
) -> Coroutine[Any, Any, Any]:
    """GET; the parsed JSON body, `None` where it is empty. The body is read inside the retried call.

    Args:
        url: Where to.
        session: Sends the request. Default: one is made for each attempt; for more than a few requests, hand one in.
            In `fetch_all`, they share one.
        **options: aiohttp's options of a request, and those of a `RetryPolicy`.

    Raises:
        ResponseError: The status was 400 or more; `GiveUpError` where it is one that is retried.
    """
    return _fetch(url, session, cast(dict[str, Any], options), send.read_json)


@_helper(_describe_fetch, _origin_of_fetch, is_plain=_is_plain, reads_body=True)
def fetch_text(
    url: StrOrURL, *, session: ClientSession | None = None, **options: Unpack[CallOptions]
) -> Coroutine[Any, Any, str]:
    """GET; the body as text, by the charset that the response names, else UTF-8. Otherwise as `fetch_json`."""
    return _fetch(url, session, cast(dict[str, Any], options), send.read_text)


@_helper(_describe_fetch, _origin_of_fetch, is_plain=_is_plain, reads_body=True)
def fetch_bytes(
    url: StrOrURL, *, session: ClientSession | None = None, **options: Unpack[CallOptions]
) -> Coroutine[Any, Any, bytes]:
    """GET; the body as it is. Otherwise as `fetch_json`."""
    return _fetch(url, session, cast(dict[str, Any], options), send.read_bytes)


def _fetch(
    url: StrOrURL, session: ClientSession | None, request: dict[str, Any], read: Read[R]
) -> Coroutine[Any, Any, R]:
    statuses = request.pop("statuses")
    request["raise_for_status"] = False  # A session may raise by itself, and would leave the body behind.
    if session is not None:
        return send.fetch(session, "GET", url, request, read, statuses=statuses)
    shared = shared_in_this_context()
    if shared is None:
        return _fetch_alone(url, request, read, statuses)
    if "timeout" in request:
        return send.fetch(shared.session, "GET", url, request, read, statuses=statuses)
    request["timeout"] = shared.untimed
    return shared.patience.within(send.fetch(shared.session, "GET", url, request, read, statuses=statuses))


async def _fetch_alone(url: StrOrURL, request: dict[str, Any], read: Read[R], statuses: Collection[int]) -> R:
    async with one_session(None) as own:
        return await send.fetch(own, "GET", url, request, read, statuses=statuses)
