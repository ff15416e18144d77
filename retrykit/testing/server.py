"""ScriptedServer: a real HTTP server on 127.0.0.1 that answers, and fails, as a script says."""

import asyncio
import hashlib
import json
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, Self

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from retrykit.core import checks

# SO_LINGER on, for 0 seconds: closing then sends a reset instead of a goodbye.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_MOST_BODY_BYTES = 1024**3
# Seconds for the client to read what was sent: once the connection is reset, it may never see it.
_BEFORE_RESET = 0.05
_ALL = slice(None, None, 1)
# Turns of the loop in which all that was under way on a connection ends with it: it takes 3.
_TURNS_TO_END = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedRequest:
    """A request as the server got it.

    Its `repr` shows method and path only: query, headers and body may be secret.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(repr=False)
    headers: CIMultiDictProxy[str] = field(repr=False)
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.

    Args:
        status: Default: 200.
        body: A `dict` or `list` goes as JSON, `str` as UTF-8 text. Default: empty.
        headers: Further headers.
        retry_after: The value of a Retry-After header: seconds, or an HTTP-date.
        delay: Seconds of real time (or a `timedelta`) before the answer begins. Default: 0.
        body_delay: Seconds of real time (or a `timedelta`) between the headers and the body. Default: 0.
    """

    status: int = 200
    body: bytes | str | dict[str, Any] | list[Any] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_after: float | str | None = None
    delay: float | timedelta = 0.0
    body_delay: float | timedelta = 0.0

    def __post_init__(self) -> None:
        if self.status not in range(100, 600):
            raise ValueError(f"{self.status!r} is no HTTP status; write one from 100 to 599")
        checks.seconds("delay", self.delay)
        checks.seconds("body_delay", self.body_delay)

    async def play(self, request: web.BaseRequest) -> web.StreamResponse:
        """Send it."""
        await asyncio.sleep(checks.seconds("delay", self.delay))
        response = web.Response(status=self.status, body=_encoded(self.body), headers=_headers(self.body, self.headers))
        if self.retry_after is not None:
            response.headers["Retry-After"] = str(self.retry_after)
        if self.body_delay:
            await response.prepare(request)
            request.writer.send_headers()
            await asyncio.sleep(checks.seconds("body_delay", self.body_delay))
        return response


@dataclass(frozen=True, slots=True)
class Truncated:
    """An answer of status 200 that breaks off: the connection is closed after `sent` bytes of the body.

    Args:
        body: As for `Reply`.
        sent: How many bytes of it arrive. Default: half.
        headers: Further headers.
    """

    body: bytes | str | dict[str, Any] | list[Any] = b"a body that breaks off"
    sent: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    async def play(self, request: web.BaseRequest) -> web.StreamResponse:
        """Send it."""
        body = _encoded(self.body)
        response = web.StreamResponse(headers=_headers(self.body, self.headers))
        response.content_length = len(body)
        await response.prepare(request)
        await response.write(body[: len(body) // 2 if self.sent is None else self.sent])
        _close(request)
        return response


@dataclass(frozen=True, slots=True)
class Resumable:
    """An answer with a strong ETag, of which the rest can be asked for (RFC 9110 §14), and that may break off.

    A request with a `Range` gets that part with 206, or 416 where there is none; one whose `If-Range` is another ETag
    gets all of it.

    Args:
        body: As for `Reply`.
        sent: How many bytes of this answer arrive before the connection is closed. Default: all that were asked for.
        etag: The body's, in its quotes. Default: one that is made from the body, so that another body has another one.
        headers: Further headers.
    """

    body: bytes | str | dict[str, Any] | list[Any] = b"a body that can be resumed"
    sent: int | None = None
    etag: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    async def play(self, request: web.BaseRequest) -> web.StreamResponse:
        """Send it."""
        body = _encoded(self.body)
        etag = self.etag or f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        asked = _asked_of(request, etag)
        start, end, _ = asked.indices(len(body))
        if asked != _ALL and start >= end:
            return web.Response(status=416, headers={"ETag": etag, "Content-Range": f"bytes */{len(body)}"})
        response = web.StreamResponse(headers=_headers(self.body, {"ETag": etag, **self.headers}))
        if asked != _ALL:
            response.set_status(206)
            response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(body)}"
        response.content_length = end - start
        await response.prepare(request)
        await response.write(body[start:end][: self.sent])
        if self.sent is not None and self.sent < end - start:
            _close(request)
        return response


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes that are sent as they are, for answers that no HTTP server would give.

    Args:
        data: All of the answer, from its status line on.
        after: What becomes of the connection then. Default: `"close"`. With `"reset"`, it is reset (TCP RST); with
            `"stall"`, it stays open and nothing more comes, until the client goes away or the server stops.
    """

    data: bytes
    after: Literal["close", "reset", "stall"] = "close"

    def __post_init__(self) -> None:
        if not isinstance(self.data, bytes):
            raise TypeError(f"{self.data!r} is not bytes, and Raw sends bytes as they are; write Raw(b'...')")
        checks.one_of(("close", "reset", "stall"), "after", self.after)

    async def play(self, request: web.BaseRequest) -> web.StreamResponse:
        """Send it."""
        assert request.transport is not None
        request.transport.write(self.data)
        if self.after == "stall":
            return await _nothing()
        if self.after == "reset":
            await asyncio.sleep(_BEFORE_RESET)
            return _reset(request)
        return _close(request)


@dataclass(frozen=True, slots=True)
class Stall:
    """No answer comes: the connection stays open until the client goes away or the server stops."""

    async def play(self, _request: web.BaseRequest) -> web.StreamResponse:
        """Do it."""
        return await _nothing()


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The connection is closed without an answer."""

    async def play(self, request: web.BaseRequest) -> web.StreamResponse:
        """Do it."""
        return _close(request)


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset (TCP RST) without an answer."""

    async def play(self, request: web.BaseRequest) -> web.StreamResponse:
        """Do it."""
        return _reset(request)


_Played = Reply | Truncated | Resumable | Raw | Disconnect | Reset | Stall
Step = _Played | int | str | bytes | dict[str, Any] | list[Any]


class ScriptedServer:
    """A real HTTP server on 127.0.0.1, on a free port, that answers each path as its script says.

        async with ScriptedServer() as server:
            server.script("/flaky", 503, 503, {"id": 1})
            ... f"{server.url}/flaky" ...
            assert len(server.requests("/flaky")) == 3

    What a path has no script for is answered with 404.
    """

    def __init__(self) -> None:
        self._scripts: dict[tuple[str, str | None], list[_Played]] = {}
        self._requests: list[ReceivedRequest] = []
        self._connections = 0
        self._listener: asyncio.Server | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url if self._sockets else 'that is not running'}>"

    @property
    def url(self) -> str:
        """Where it listens, such as `http://127.0.0.1:40913`."""
        if not self._sockets:
            raise RuntimeError("the server is not running; write `async with ScriptedServer() as server:`")
        host, port = self._sockets[0].getsockname()
        return f"http://{host}:{port}"

    @property
    def _sockets(self) -> Sequence[Any]:
        """None where it is not running: neither before `async with`, nor after it."""
        return () if self._listener is None else self._listener.sockets

    @property
    def connections(self) -> int:
        """How many connections were made to it so far."""
        return self._connections

    def script(self, path: str, *steps: Step, method: str | None = None) -> None:
        """Say how the requests for a path are answered: the first by the first step, and so on; the last step stays.

        Args:
            path: The path, without query.
            *steps: A status, a body (`dict` and `list` go as JSON, also a list of numbers; `str`; `bytes`), a `Reply`,
                a `Resumable(body)`, or a failure: `Disconnect()`, `Reset()`, `Stall()`, `Truncated(body)`,
                `Raw(data)`.
            method: Only requests by this method. Default: all that have no script of their own.

        Raises:
            TypeError: A step is none of these.
            ValueError: There are no steps, or the path can't be requested.
        """
        if not path.startswith("/") or "?" in path:
            raise ValueError(f"{path!r} is no path; write it from the slash on and without query, such as '/users/1'")
        if not steps:
            raise ValueError(f"the script of {path} has no steps; write at least one, such as 200")
        self._scripts[path, method and method.upper()] = [_step(step) for step in steps]

    def requests(self, path: str | None = None) -> list[ReceivedRequest]:
        """The requests that came so far, in order; for one path, or for all."""
        return [request for request in self._requests if path is None or request.path == path]

    async def __aenter__(self) -> Self:
        # With handler_cancellation, an answer under way ends when its connection does.
        self._server = web.Server(
            self._answer, request_factory=self._request, access_log=None, handler_cancellation=True
        )
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listener is not None
        self._listener.close()
        await asyncio.sleep(0)  # A connection that was just accepted is known one turn later.
        for transport in filter(None, [connection.transport for connection in self._server.connections]):
            transport.abort()  # To close it would wait for a client that doesn't read.
        for _turn in range(_TURNS_TO_END):
            await asyncio.sleep(0)

    def _connected(self) -> asyncio.Protocol:
        self._connections += 1
        return self._server()

    def _request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_MOST_BODY_BYTES)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        self._requests.append(
            ReceivedRequest(
                method=request.method, path=request.path, query=request.query, headers=request.headers, body=body
            )
        )
        script = self._scripts.get((request.path, request.method)) or self._scripts.get((request.path, None))
        if script is None:
            return web.Response(status=404, text=f"no script for {request.method} {request.path}")
        step = script.pop(0) if len(script) > 1 else script[0]
        return await step.play(request)


def _step(step: Step) -> _Played:
    if isinstance(step, _Played):
        return step
    if isinstance(step, int) and not isinstance(step, bool):
        return Reply(step)
    if isinstance(step, str | bytes | dict | list):
        return Reply(body=step)
    raise TypeError(
        f"{step!r} is no step of a script; write a status, a body (dict, list, str or bytes), Reply(...),"
        " Truncated(...), Resumable(...), Raw(...), Disconnect(), Reset() or Stall()"
    )


def _encoded(body: bytes | str | dict[str, Any] | list[Any]) -> bytes:
    if isinstance(body, bytes):
        return body
    return (body if isinstance(body, str) else json.dumps(body)).encode()


def _headers(body: object, headers: Mapping[str, str]) -> CIMultiDict[str]:
    made: CIMultiDict[str] = CIMultiDict()
    if isinstance(body, dict | list):
        made["Content-Type"] = "application/json"
    elif isinstance(body, str):
        made["Content-Type"] = "text/plain; charset=utf-8"
    made.update(headers)
    return made


def _asked_of(request: web.BaseRequest, etag: str) -> slice:
    """What of a body a request has asked for."""
    if request.method != "GET" or request.headers.get("If-Range", etag) != etag:
        return _ALL
    try:
        return request.http_range
    except ValueError:  # What can't be read counts as none (RFC 9110 §14.2).
        return _ALL


def _close(request: web.BaseRequest) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()  # It goes nowhere.


def _reset(request: web.BaseRequest) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    request.transport.abort()
    return web.Response()


async def _nothing() -> web.StreamResponse:
    """Wait to be cancelled, as an answer is when its connection ends."""
    never: asyncio.Future[web.StreamResponse] = asyncio.get_running_loop().create_future()
    return await never
