"""AsyncHTTPClient: a base URL, a session, and verbs that are retried."""

import asyncio
import inspect
import math
from collections.abc import Callable, Coroutine, Generator, Set
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, Self, TypeVar, Unpack

from aiohttp import ClientResponse, ClientSession, ClientTimeout, JsonPayload
from aiohttp.typedefs import StrOrURL
from yarl import URL

from retrykit.core.checks import shown_type
from retrykit.core.decorator import Retried, decorate, policy_of
from retrykit.core.events import Request, origin_of
from retrykit.core.plan import Traits
from retrykit.core.policy import FurtherOptions, RetryPolicy, Seconds
from retrykit.http.address import BaseURL
from retrykit.http.internals import never_repeat
from retrykit.http.replay import is_function
from retrykit.http.send import (
    CallOptions,
    Read,
    VerbOptions,
    describe,
    fetch,
    for_call,
    is_idempotent,
    is_plain,
    read_bytes,
    read_json,
    read_text,
    refuse_other_than_session,
    send,
    until_end,
    with_total,
)
from retrykit.http.stream import BodyStream, streaming
from retrykit.http.transfer import as_whole, calls, for_body

P = ParamSpec("P")
R = TypeVar("R")

# A person still waits for that long, and three attempts with the default waits fit in.
DEFAULT_TIMEOUT = 30.0


class _Unset(Enum):
    """Not given: the policy's, or else its default."""

    UNSET = "the policy's"

    def __repr__(self) -> str:
        return self.value


UNSET = _Unset.UNSET

_UNLIMITED = ClientTimeout()


class AsyncHTTPClient:
    """Requests to one service, under one policy.

        async with AsyncHTTPClient("https://api.example.com") as client:
            user = await client.get("/users/123")

    A verb gives the parsed JSON body, and `None` where the body is empty; `get_text` and `get_bytes` give it as it is.
    A status of 400 or more raises `ResponseError`, and where it was given up on, its subclass `GiveUpError`. Each verb
    takes aiohttp's request options by keyword (`params`, `headers`, …), and the options of a `RetryPolicy` for this
    one call.

    Args:
        base_url: Scheme, host, and maybe a path that all paths are under (`https://api.example.com/v1`).
        max_retries: Attempts in total, the first included. Default: 3.
        base_delay: Seconds before the second attempt; each later wait is twice as long. Default: 1.
        timeout: Seconds that bound a whole call: attempts, waits and reading the body; `None` for no bound. Of an
            `aiohttp.ClientTimeout`, `total` does so, and its other fields bound each attempt. Default: 30.
        session: A session to use. It is never closed here. Default: one is made on first use, and closed by `close()`,
            or at the end of `async with`.
        policy: All options as one value.
        idempotency_key: `True` sends an `Idempotency-Key` with each request whose method is not idempotent by itself
            (POST, PATCH): one key for each call, the same on every attempt. So the request may be repeated, and a
            server that knows the header processes it once. A server that doesn't would process it twice. Default:
            none is sent; a call can ask for one.
        **options: Further options of a `RetryPolicy`, by name.

    Raises:
        ValueError: `base_url` is no absolute URL of http or https, or an option has a value that can't work.
        TypeError: There is no such option.

    A client belongs to one event loop.
    """

    def __init__(
        self,
        base_url: StrOrURL,
        max_retries: int | _Unset = UNSET,
        base_delay: Seconds | _Unset = UNSET,
        timeout: Seconds | ClientTimeout | _Unset | None = UNSET,
        *,
        session: ClientSession | None = None,
        policy: RetryPolicy | None = None,
        idempotency_key: bool = False,
        **options: Unpack[FurtherOptions],
    ) -> None:
        self._base = BaseURL(base_url)
        _refuse_session_options(options.keys())
        _refuse_without_name(max_retries)
        if session is not None:
            refuse_other_than_session(session)
        self._per_attempt = with_total(None, timeout) if isinstance(timeout, ClientTimeout) else None
        named: dict[str, Any] = {
            "max_retries": max_retries,
            "base_delay": base_delay,
            "timeout": timeout.total or None if isinstance(timeout, ClientTimeout) else timeout,
        }
        given = {name: value for name, value in named.items() if value is not UNSET}
        self._policy = policy_of(policy, {**given, **options})  # type: ignore[typeddict-item]
        if timeout is UNSET and self._policy.timeout is None:
            self._policy = _with_default_timeout(self._policy, DEFAULT_TIMEOUT, "a client's default")
        if not isinstance(idempotency_key, bool):
            raise TypeError(
                "idempotency_key of a client is True or False, since a key is for one call; give your own with the"
                " call: client.post(path, data, idempotency_key=...)"
            )
        self._sends_keys = idempotency_key
        self._session = session
        self._owns_session = session is None
        self._loop: asyncio.AbstractEventLoop | None = None
        """That of an open session of our own."""
        self._usual_request = self._request(self._policy, self._per_attempt)
        name = type(self).__name__
        origin = origin_of(self._base.url)  # All addresses are on it.
        known = Traits(
            _describe, _is_plain, origin=lambda *_, **__: origin, holds_back=True, keeps_time=self._owns_session
        )
        self._fetch = decorate(fetch, self._policy, name, known)
        self._stream = calls(self._policy, name)
        self._send = decorate(send, self._policy, name, replace(known, returns_response=True, returns_awaitable=True))

    @property
    def base_url(self) -> URL:
        """What all paths are under."""
        return self._base.url

    @property
    def policy(self) -> RetryPolicy:
        """The options of every call."""
        return self._policy

    @property
    def timeout(self) -> ClientTimeout:
        """The bounds of a call: `total` is for all of it, the other fields are for each attempt."""
        return with_total(self._policy.timeout, self._per_attempt or _UNLIMITED)

    @property
    def session(self) -> ClientSession | None:
        """The session: the one that was handed in, or the client's own; `None` before that is first used."""
        return self._session

    async def get(self, path: StrOrURL, **options: Unpack[CallOptions]) -> Any:
        """GET; the parsed JSON body."""
        return await self._call("GET", path, read_json, options)

    async def get_text(self, path: StrOrURL, **options: Unpack[CallOptions]) -> str:
        """GET; the body as text."""
        return await self._call("GET", path, read_text, options)

    async def get_bytes(self, path: StrOrURL, **options: Unpack[CallOptions]) -> bytes:
        """GET; the body as it is."""
        return await self._call("GET", path, read_bytes, options)

    async def post(self, path: StrOrURL, data: Any = None, **options: Unpack[VerbOptions]) -> Any:
        """POST; the parsed JSON body of the answer.

        Args:
            path: Below the base URL.
            data: The body to send. A dict or list goes as JSON; bytes, str, an `aiohttp.FormData` or a file as it is.
                A function makes the body anew for each attempt (`data=lambda: open(path, "rb")`). What can be sent
                only once, such as a generator, ends the call with its first failure. A file is closed afterwards.
            **options: aiohttp's options of a request, and those of a `RetryPolicy`.

        A POST is not idempotent: it is sent again where it was not taken up (no connection, or a status of 408, 425,
        429 or 503), and elsewhere only with `idempotency_key=True` (or a key of your own) or `idempotent=True`. The
        same goes for PATCH.
        """
        return await self._call("POST", path, read_json, {**options, "data": data})

    async def put(self, path: StrOrURL, data: Any = None, **options: Unpack[VerbOptions]) -> Any:
        """PUT; the parsed JSON body of the answer. `data` as for `post`."""
        return await self._call("PUT", path, read_json, {**options, "data": data})

    async def patch(self, path: StrOrURL, data: Any = None, **options: Unpack[VerbOptions]) -> Any:
        """PATCH; the parsed JSON body of the answer. `data`, and what is said of repeating, as for `post`."""
        return await self._call("PATCH", path, read_json, {**options, "data": data})

    async def delete(self, path: StrOrURL, **options: Unpack[CallOptions]) -> Any:
        """DELETE; the parsed JSON body of the answer."""
        return await self._call("DELETE", path, read_json, options)

    async def head(self, path: StrOrURL, **options: Unpack[CallOptions]) -> None:
        """HEAD; raises where the status is 400 or more. For the headers, use `request("HEAD", path)`."""
        await self._call("HEAD", path, read_bytes, options)

    async def options(self, path: StrOrURL, **options: Unpack[CallOptions]) -> Any:
        """OPTIONS; the parsed JSON body of the answer."""
        return await self._call("OPTIONS", path, read_json, options)

    def request(self, method: str, path: StrOrURL, **options: Unpack[CallOptions]) -> "ResponseContext":
        """Any method; the response, whatever its status, as aiohttp would hand it over.

            async with client.request("GET", "/big") as response:
                ...

        or `response = await client.request(...)`. It is retried like the verbs; when it is given up on, the last
        response is handed over, unless `on_give_up="raise"`.
        """
        url = self._base.join(path)
        send, request = self._send, self._usual_request
        if options or self._sends_keys:
            send, request = self._for_call(send, method, options)
        session = self._opened()
        if "data" in request:
            return ResponseContext(until_end(send, request, session, method, url, request))
        return ResponseContext(send(session, method, url, request))

    def stream(self, path: StrOrURL, **options: Unpack[VerbOptions]) -> AbstractAsyncContextManager[BodyStream]:
        """GET; the body, piece by piece. Where its connection breaks, it goes on where it was.

            async with client.stream("/big.csv") as body:
                async for chunk in body:
                    ...

        As `retrykit.stream`, which says when a body can be resumed. The `timeout` bounds each wait for more of the
        body, not the whole.
        """
        url, session = self._base.join(path), self._opened()
        if not options:
            return streaming(self._stream, session, url, as_whole(self._usual_request))
        call, request = for_body(self._stream, self._completed(options))
        return streaming(call, session, url, self._timed(call.policy, request, options))

    async def close(self) -> None:
        """Close the client's own session. One that was handed in stays open."""
        if self._session is not None and self._owns_session:
            self._loop = None
            await self._session.close()

    async def __aenter__(self) -> Self:
        if self._owns_session and self._session is not None and self._session.closed:
            self._session = None
        self._opened()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    if not TYPE_CHECKING:  # Type checkers refuse it where it is missing.

        def __enter__(self) -> NoReturn:
            raise TypeError(f"{type(self).__name__} is closed by awaiting; write `async with` in place of `with`")

        def __exit__(self, *_: object) -> None:
            """Python looks for it before it enters."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._base.url.with_user(None)}: {self._policy}>"

    async def _call(self, method: str, path: StrOrURL, read: Read[R], options: Any) -> R:
        url = self._base.join(path)
        fetch, request = self._fetch, self._usual_request
        if options or self._sends_keys:
            fetch, request = self._for_call(fetch, method, options)
            request["raise_for_status"] = False
        session, statuses = self._opened(), fetch.policy.statuses
        result: R = await until_end(fetch, request, session, method, url, request, read, statuses=statuses)
        return result

    def _for_call(self, fetch: Retried[P, R], method: str, options: Any) -> tuple[Retried[P, R], dict[str, Any]]:
        needs_key = self._sends_keys and not is_idempotent(method)
        fetch, request = for_call(fetch, self._completed(options), needs_key=needs_key)
        return fetch, self._timed(fetch.policy, request, options)

    def _timed(self, policy: RetryPolicy, request: dict[str, Any], options: Any) -> dict[str, Any]:
        """The options of a request, with those that each has."""
        bounds = request.pop("timeout", None) if "timeout" in options else self._per_attempt
        return self._request(policy, bounds) | request

    def _request(self, policy: RetryPolicy, bounds: ClientTimeout | None) -> dict[str, Any]:
        """The options that each request has."""
        # A session that was handed in may raise by itself, and would leave the body behind.
        request: dict[str, Any] = {"raise_for_status": False}
        if self._owns_session:  # Nobody else's code runs in it, so aiohttp can keep the call in time, and exactly.
            request["timeout"] = with_total(policy.timeout, bounds or _UNLIMITED, math.inf)
        elif bounds is not None:
            request["timeout"] = bounds
        return request

    def _completed(self, options: Any) -> Any:
        """The options of a call, with what the client adds to them."""
        policy = options.get("policy")
        if isinstance(policy, RetryPolicy) and policy.timeout is None and "timeout" not in options:
            options = {**options, "policy": _with_default_timeout(policy, self._policy.timeout, "the client's")}
        data = options.get("data")
        if isinstance(data, dict | list):
            options = _as_json(options)
        elif is_function(data):
            options = {**options, "data": _making_json(data, self._opened())}
        return options

    def _opened(self) -> ClientSession:
        """The session, which is made where there is none."""
        if self._session is not None:
            if not self._owns_session or self._loop is asyncio.get_running_loop():
                return self._session
            if self._loop is None:
                raise RuntimeError("Session is closed; make the calls inside of `async with`, or before close()")
            raise RuntimeError("this client belongs to another event loop; make one inside of each asyncio.run()")
        self._loop = asyncio.get_running_loop()
        self._session = ClientSession(timeout=_UNLIMITED)  # A call's time is the policy's to limit.
        never_repeat(self._session)
        return self._session


class ResponseContext(Coroutine[Any, Any, ClientResponse]):
    """A request that is sent when it is awaited, or entered with `async with`, which also releases its response."""

    __slots__ = ("_coroutine", "_response")

    def __init__(self, response: Coroutine[Any, Any, ClientResponse]) -> None:
        self._coroutine = response

    def __repr__(self) -> str:
        return "<a request, to be sent by `await` or `async with`>"

    def send(self, value: Any, /) -> Any:
        """As of any coroutine; so also `throw` and `close`."""
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:  # noqa: D102
        return self._coroutine.throw(*error)

    def close(self) -> None:  # noqa: D102
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, ClientResponse]:
        return self._coroutine.__await__()

    if not TYPE_CHECKING:  # Type checkers know what there is.

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(
                f"a request that was not awaited has no {name}; write `response = await client.request(...)`, or"
                " `async with client.request(...) as response:`",
                name=name,
                obj=self,
            )

    async def __aenter__(self) -> ClientResponse:
        self._response = await self._coroutine
        return await self._response.__aenter__()

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Coroutine[Any, Any, None]:
        return self._response.__aexit__(kind, error, traceback)


def _with_default_timeout(policy: RetryPolicy, timeout: float | None, whose: str) -> RetryPolicy:
    """A policy that has no timeout, with this one.

    Raises:
        ValueError: It is shorter than what the policy has for a single attempt.
    """
    if timeout is not None and policy.attempt_timeout is not None and policy.attempt_timeout > timeout:
        raise ValueError(
            f"attempt_timeout={policy.attempt_timeout:g} is longer than {whose} timeout={timeout:g}, which bounds the"
            " whole call; write a timeout as well, or timeout=None"
        )
    if timeout is not None and isinstance(policy.hedge_after, float) and policy.hedge_after >= timeout:
        raise ValueError(
            f"hedge_after={policy.hedge_after:g} never comes within {whose} timeout={timeout:g}, which bounds the whole"
            " call; write a timeout as well, or timeout=None"
        )
    return policy.replace(timeout=timeout)


def _describe(
    _: ClientSession, method: str, url: StrOrURL, request: dict[str, Any], *_read: object, **_statuses: object
) -> Request:
    return describe(method, url, request)


def _is_plain(
    _: ClientSession, method: str, __: StrOrURL, request: dict[str, Any], *_read: object, **_statuses: object
) -> bool:
    return is_plain(method, request)


def _as_json(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a request whose `data` is to be sent as JSON."""
    if options.get("json") is not None:
        raise ValueError("data= and json= were both given, and a dict or list in data= is sent as JSON; leave one out")
    return {**{name: value for name, value in options.items() if name != "data"}, "json": options["data"]}


def _making_json(make: Callable[[], Any], session: ClientSession) -> Callable[[], Any]:
    """A function that makes a body, of which a dict or list is sent as JSON as well."""

    async def made() -> Any:
        data = make()
        if inspect.isawaitable(data):
            data = await data
        return JsonPayload(data, dumps=session.json_serialize) if isinstance(data, dict | list) else data

    return made


def _refuse_without_name(second: object) -> None:
    """Say of a session or a policy that was given second that it goes by name."""
    for name, is_it in (("session", hasattr(second, "request")), ("policy", isinstance(second, RetryPolicy))):
        if is_it:
            raise TypeError(f"the second argument is {shown_type(second)}, and a {name} goes by name: {name}={name}")


def _refuse_session_options(options: Set[str]) -> None:
    """Say of an option that only a session has where it belongs."""
    for name in options & inspect.signature(ClientSession).parameters.keys():
        raise TypeError(
            f"{name}= belongs to the session: AsyncHTTPClient(url, session=aiohttp.ClientSession({name}=...)); what a"
            " request can have goes with each call, too"
        )
