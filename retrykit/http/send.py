"""One attempt, one request: what may be sent again, how it is sent, and how the answer is read."""

import json
import math
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from functools import lru_cache
from ssl import SSLContext
from typing import Any, ParamSpec, TypeGuard, TypeVar

from aiohttp import (
    BasicAuth,
    ClientHandlerType,
    ClientMiddlewareType,
    ClientRequest,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ContentTypeError,
    Fingerprint,
    InvalidURL,
    NonHttpUrlClientError,
    RedirectClientError,
    ServerDisconnectedError,
)
from aiohttp.typedefs import LooseCookies, LooseHeaders, Query, StrOrURL
from multidict import CIMultiDict, MultiMapping
from yarl import URL

from retrykit.core import checks, clock, scope
from retrykit.core.decorator import Retried
from retrykit.core.discard import drain, what_is_here
from retrykit.core.errors import ResponseError
from retrykit.core.events import Request, origin_of
from retrykit.core.policy import RetryOptions, RetryPolicy, Seconds, UntimedOptions
from retrykit.http.internals import base_url_of, sending_once, session_middlewares
from retrykit.http.replay import Body, body_of

P = ParamSpec("P")
R = TypeVar("R")

# RFC 9110 §9.2.2; QUERY is safe by its definition (draft-ietf-httpbis-safe-method-w-body).
IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"})
# By it a server recognises a request that it has processed before (draft-ietf-httpapi-idempotency-key-header).
IDEMPOTENCY_KEY = "Idempotency-Key"
# aiohttp takes a total of 0 for none at all.
_SHORTEST_TOTAL = 0.001


class VerbOptions(UntimedOptions, total=False):
    """What every verb and helper takes by keyword: aiohttp's options of a request, and those of a `RetryPolicy`."""

    timeout: Seconds | ClientTimeout | None
    policy: RetryPolicy | None
    idempotency_key: str | bool | None
    json: Any
    params: Query
    headers: LooseHeaders | None
    cookies: LooseCookies | None
    auth: BasicAuth | None
    skip_auto_headers: Iterable[str] | None
    allow_redirects: bool
    max_redirects: int
    compress: str | bool | None
    chunked: bool | None
    expect100: bool
    read_until_eof: bool
    proxy: StrOrURL | None
    proxy_auth: BasicAuth | None
    proxy_headers: LooseHeaders | None
    ssl: SSLContext | bool | Fingerprint
    server_hostname: str | None
    trace_request_ctx: object
    read_bufsize: int | None
    auto_decompress: bool | None
    max_line_size: int | None
    max_field_size: int | None
    max_headers: int | None
    middlewares: Sequence[ClientMiddlewareType] | None
    upload_tracker: Callable[[], Any] | None


class CallOptions(VerbOptions, total=False):
    """The same with the request's body, for what has no argument of its own for that."""

    data: Any


def for_call(
    fetch: Retried[P, R], options: dict[str, Any], *, needs_key: bool = False, further: Collection[str] = ()
) -> tuple[Retried[P, R], dict[str, Any]]:
    """Part the options of one call: those of the policy change `fetch`, the others are the request's.

    A number as `timeout` bounds the call. Of a `ClientTimeout`, `total` does so; its other fields bound each attempt.
    A request that `needs_key` gets an idempotency key, unless it has one or is said to have none.
    Where a name is misspelt, the options `further` may have been meant as well.

    Raises:
        TypeError: A name is misspelt. (What is unknown otherwise is left to aiohttp, which may be newer than we are.)
        ValueError: An option has a value that can't work.
    """
    request = dict(options)
    if request:
        fetch = _under_options(fetch, request, further)
    if request or needs_key:
        _make_repeatable(request, needs_key=needs_key)
    return fetch, request


def _under_options(fetch: Retried[P, R], request: dict[str, Any], further: Collection[str]) -> Retried[P, R]:
    """`fetch` changed by the options of a policy, which are taken out of the request's."""
    changes = {name: request.pop(name) for name in _POLICY_OPTIONS & request.keys()}
    policy = request.pop("policy", None)
    for name in request.keys() - CallOptions.__annotations__.keys():
        checks.refuse_misspelt(name, (*CallOptions.__annotations__, *further))
    if "session" in request:
        raise TypeError("the session is fixed here; give it to the client: AsyncHTTPClient(base_url, session=session)")
    if "method" in request:
        raise TypeError("the method is fixed here; for any method there is AsyncHTTPClient.request(method, path)")
    timeout = changes.get("timeout")
    if isinstance(timeout, ClientTimeout):
        changes["timeout"], request["timeout"] = timeout.total or None, with_total(None, timeout)
    return fetch.retry_with(policy=policy, **changes) if changes or policy is not None else fetch


_POLICY_OPTIONS = RetryOptions.__annotations__.keys()
_SENT_WITH_EACH_ATTEMPT = frozenset(
    {"cookies", "headers", "middlewares", "params", "proxy_headers", "skip_auto_headers"}
)


def _make_repeatable(request: dict[str, Any], *, needs_key: bool) -> None:
    """Have the options of a request be there for each attempt."""
    for name in _SENT_WITH_EACH_ATTEMPT & request.keys():
        if isinstance(request[name], Iterator):  # It would be used up by the first.
            request[name] = tuple(request[name])
    if needs_key or "idempotency_key" in request:
        headers = CIMultiDict(request.get("headers") or ())
        key = request.pop("idempotency_key", not has_key(headers))
        if key is not None and key is not False:
            request["headers"] = _with_key(headers, key)
    tracker = request.get("upload_tracker")
    if tracker is not None and not callable(tracker):
        raise TypeError(
            f"upload_tracker={type(tracker).__name__}() follows a single request, and each attempt is one; give a"
            f" function that makes one for each, such as the class itself: upload_tracker={type(tracker).__name__}, or"
            " one that keeps what it made"
        )
    if (body := body_of(request.get("data"))) is not None:
        request["data"] = body


def _with_key(headers: CIMultiDict[str], key: object) -> CIMultiDict[str]:
    """The headers with an idempotency key: the caller's own, or for `True` a new one.

    Raises:
        TypeError: It is neither text nor `True`.
        ValueError: It can't be the value of a header, or there is one already.
    """
    if key is not True and not isinstance(key, str):
        raise TypeError(
            f"idempotency_key is {checks.shown_type(key)}; write True to have one made for the call, or your own"
            " as a str"
        )
    if isinstance(key, str) and not (key.isascii() and key.isprintable() and key.strip()):
        raise ValueError("idempotency_key must be visible ASCII text, such as str(uuid.uuid4()), to go in a header")
    if has_key(headers):
        raise ValueError(f"idempotency_key= and the header {IDEMPOTENCY_KEY} were both given; leave one out")
    headers[IDEMPOTENCY_KEY] = clock.key() if key is True else key
    return headers


def until_end(
    fetch: Callable[P, Coroutine[Any, Any, R]], request: dict[str, Any], *args: P.args, **kwargs: P.kwargs
) -> Coroutine[Any, Any, R]:
    """Make a call; when it is over, let go of the request's body."""
    body = request.get("data")
    return (
        fetch(*args, **kwargs) if body is None or not isinstance(body, Body) else _ending(body, fetch, *args, **kwargs)
    )


async def _ending(body: Body, fetch: Callable[P, Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs) -> R:
    try:
        return await fetch(*args, **kwargs)
    finally:
        await body.end()


def _is_kept(body: object) -> TypeGuard[Body]:
    return body is not None and isinstance(body, Body)


@lru_cache(maxsize=128)
def with_total(total: float | None, timeout: ClientTimeout, ceil_threshold: float | None = None) -> ClientTimeout:
    """The same timeout with another `total`, and maybe another `ceil_threshold`: from there on it is rounded up."""
    return ClientTimeout(
        total=total,
        connect=timeout.connect,
        sock_connect=timeout.sock_connect,
        sock_read=timeout.sock_read,
        ceil_threshold=timeout.ceil_threshold if ceil_threshold is None else ceil_threshold,
    )


def describe(method: str, url: StrOrURL, request: dict[str, Any]) -> Request:
    """What is known of a request before it is sent."""
    try:
        known = Request.to(method.upper(), URL(url))
    except ValueError:  # It can't be sent either, and aiohttp says why.
        return Request(method.upper())
    body = request.get("data")
    return known._replace(
        repeatable=is_repeatable(method, CIMultiDict(request.get("headers") or ())),
        body=body if _is_kept(body) else None,
    )


def origin_behind(session: ClientSession | None, url: StrOrURL) -> str | None:
    """The origin that an address leads to, for the guards; `None` where it has none."""
    base = None if session is None else base_url_of(session)
    return origin_of(URL(url) if base is None else base.join(URL(url)))


def is_idempotent(method: str) -> bool:
    """Does a second request by this method do no more than the first?"""
    return method.upper() in IDEMPOTENT_METHODS


def has_key(headers: MultiMapping[str]) -> bool:
    """Do they have an idempotency key? One that is blank is none."""
    return bool(headers.get(IDEMPOTENCY_KEY, "").strip())


def is_plain(method: str, request: dict[str, Any]) -> bool:
    """May it be repeated, and has it no body?"""
    return request.get("data") is None and method in IDEMPOTENT_METHODS


def is_repeatable(method: str, headers: MultiMapping[str]) -> bool:
    """May the server process it twice, for all that the request says?"""
    return is_idempotent(method) or has_key(headers)


_URLS = (str, URL)


def send(
    session: ClientSession, method: str, url: StrOrURL, request: dict[str, Any], *, bounds_body: bool = True
) -> Awaitable[ClientResponse]:
    """Send a request, within what is left of the call's time; reading the body of its response counts, too.

    Args:
        session: Sends it.
        method: Of the request.
        url: Where to.
        request: aiohttp's options of a request.
        bounds_body: Has the body to come within that time? What outlives the call is for the caller to bound.
    """
    if not isinstance(url, _URLS):
        raise TypeError(
            f"{type(url).__name__} is no URL; give the URL as a str or yarl.URL, and the session as `session`"
        )
    send_once = sending_once(session)
    if send_once is None:
        refuse_other_than_session(session)
    left = scope.deadline_left() if bounds_body and scope.in_an_attempt() else None
    options = request if left is None else {**request, "timeout": _within(left, session, request)}
    if send_once is None or "data" in request or "upload_tracker" in request:
        return _send_once(session, method, url, {**options})
    return send_once(method, url, **options)  # With no coroutine around it: that would cost every request.


def refuse_other_than_session(session: object) -> None:
    """Raise a TypeError where it is no session."""
    if isinstance(session, type):
        raise TypeError(
            f"session={session.__name__} is a class; write an object of it, which is closed at the end:"
            " `async with aiohttp.ClientSession() as session:`"
        )
    if not hasattr(session, "request"):
        raise TypeError(f"{type(session).__name__} is no session; give an aiohttp.ClientSession as `session`")
    if not hasattr(session, "timeout"):  # Such as the client of aiohttp's test server.
        own = ", such as its own: session=client.session" if hasattr(session, "session") else ""
        raise TypeError(f"{type(session).__name__} is no aiohttp.ClientSession; give one as `session`{own}")


async def _send_once(session: ClientSession, method: str, url: StrOrURL, options: dict[str, Any]) -> ClientResponse:
    """Send a request with what belongs to one attempt."""
    if (make_tracker := options.get("upload_tracker")) is not None:
        options["upload_tracker"] = make_tracker()
    first_only = _FirstOnly()
    is_bounded = sending_once(session) is not None or scope.deadline_left() is not None
    if sending_once(session) is None:
        middlewares = options.get("middlewares")
        if middlewares is None:
            middlewares = session_middlewares(session)
        if middlewares is not None:
            options["middlewares"] = (first_only, *middlewares)
    body, data = options.get("data"), None
    try:
        if _is_kept(body):
            bounds = options.get("timeout", session.timeout)
            data, options["timeout"] = await _made_within(bounds, body.for_attempt())
            options["data"] = data
        bounds = options.get("timeout", session.timeout)
        total = bounds.total if isinstance(bounds, ClientTimeout) and not is_bounded else None
        async with clock.time_limit(total or None):
            return await session.request(method, url, **options)
    finally:
        first_only.error = None  # Its traceback leads back here.
        if _is_kept(body):
            await body.end_attempt(data)


async def _made_within(bounds: Any, body: Coroutine[Any, Any, R]) -> tuple[R, Any]:
    """The body, made within the bounds of its request, and those that are left."""
    if not isinstance(bounds, ClientTimeout) or not bounds.total:  # To aiohttp, 0 is none.
        return await body, bounds
    began = clock.now()
    async with clock.time_limit(bounds.total):
        made = await body
    return made, with_total(max(_SHORTEST_TOTAL, bounds.total - (clock.now() - began)), bounds)


class _FirstOnly:
    """The outermost middleware of one attempt, which holds back aiohttp's own repeat of it.

    aiohttp offers no switch. Where a connection breaks, it sends an idempotent request again at once, through the
    middlewares: what ended the first one ends the second, before it is sent.
    """

    __slots__ = ("error",)

    def __init__(self) -> None:
        self.error: OSError | ServerDisconnectedError | None = None

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        if self.error is not None:
            raise self.error
        try:
            return await handler(request)
        except (OSError, ServerDisconnectedError) as error:
            self.error = error
            raise


def _within(left: float, session: ClientSession, request: dict[str, Any]) -> ClientTimeout:
    given: ClientTimeout = request["timeout"] if "timeout" in request else session.timeout  # noqa: SIM401
    # To a millisecond: so the first attempts of all calls have the same timeout, which is not made anew for each.
    total = max(_SHORTEST_TOTAL, math.ceil(left * 1000) / 1000)
    return with_total(min(total, given.total or total), given)


Read = Callable[[ClientResponse], Awaitable[R]]


async def fetch(
    session: ClientSession,
    method: str,
    url: StrOrURL,
    request: dict[str, Any],
    read: Read[R],
    *,
    statuses: Collection[int],
) -> R:
    """Send a request and read its response.

    Args:
        session: Sends it.
        method: Of the request.
        url: Where to.
        request: aiohttp's options of a request; of them, `raise_for_status` has to be false.
        read: Reads the body.
        statuses: Those that are retried: none of them is a success.

    Raises:
        ResponseError: The status is 400 or more, or one that is retried.
    """
    began = clock.now()
    async with await send(session, method, url, request) as response:
        if response.status >= 400 or response.status in statuses:
            raise await error_of(response, request, began)
        return await read(response)


async def error_of(response: ClientResponse, request: dict[str, Any], began: float) -> ResponseError:
    """The error that a response is, with the start of its body; the response is closed.

    Args:
        response: The response.
        request: aiohttp's options of the request.
        began: The instant at which that was sent.
    """
    body = what_is_here(response)
    if body is None:
        # Half of what is left, so that the status comes out even where the body doesn't.
        left = scope.time_left()
        if left is None and (bounds := request.get("timeout")) is not None and bounds.total:
            left = max(0.0, bounds.total - (clock.now() - began))
        body = await drain(response, left and left / 2)
    return ResponseError.of(response, body)


def explain(error: Exception, *_: object) -> None:
    """Say of a URL that can't be sent to what one looks like: aiohttp says no more than the URL."""
    if isinstance(error, InvalidURL | NonHttpUrlClientError) and not isinstance(error, RedirectClientError):
        error.add_note(
            "this is no URL of http; write it whole, with scheme and host, such as https://example.com/users"
        )


async def read_bytes(response: ClientResponse) -> bytes:
    """The body as it is."""
    return await response.read()


async def read_text(response: ClientResponse) -> str:
    """The body as text, by the charset that the response names, else UTF-8."""
    return await response.text()


async def read_json(response: ClientResponse) -> Any:
    """The body parsed as JSON, whatever its content type; `None` where it is empty.

    Raises:
        aiohttp.ContentTypeError: It is no JSON, and doesn't say that it is.
        ValueError: It says that it is JSON, and is not.
    """
    body = await response.read()
    if not body or body.isspace():
        return None
    try:
        return json.loads(body.decode(response.get_encoding()))
    except ValueError as error:
        if response.content_type.endswith("json"):
            error.add_note(f"in the body of {response.method} {origin_of(response.url)}{response.url.raw_path}")
            raise
        raise ContentTypeError(
            response.request_info,
            response.history,
            status=response.status,
            message=f"The body is no JSON, and its content type is {response.content_type}; for a body that is none,"
            " use fetch_text or get_text",
            headers=response.headers,
        ) from error
