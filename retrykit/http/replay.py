"""Can this request body be sent again, and how?

aiohttp closes a file once it was sent, and goes on in the middle of a body that was sent in part. So what can't simply
be handed to it again is made a payload of our own, once per call, that sends all of the body each time.
"""

import asyncio
import inspect
import io
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Callable
from typing import Any

from aiohttp import FormData, MultipartWriter
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import PAYLOAD_REGISTRY, BytesPayload, IOBasePayload, LookupError, Payload  # noqa: A004

from retrykit.core.errors import UsageError
from retrykit.http.internals import value_of

# What aiohttp reads from a file at a time.
_CHUNK = 64 * 1024

_ALWAYS_THERE = (bytes, bytearray, memoryview, str)


class Body(ABC):
    """The body of a request, over all attempts of a call."""

    @property
    def used_up(self) -> str | None:
        """The type of what can't be sent again, by the name that a message has for it; `None` where all can."""
        return None

    @abstractmethod
    async def for_attempt(self) -> Any:
        """What one attempt sends."""

    def end_attempt(self) -> None:  # noqa: B027
        """Let go of what that attempt had to itself."""

    def end(self) -> None:  # noqa: B027
        """Let go of the body: the call is over. A file is closed then, as aiohttp closes it."""


def body_of(data: Any) -> Body | None:
    """The body that has to be kept over a call; `None` where `data` itself can be handed to aiohttp again and again.

    Raises:
        TypeError: aiohttp can't send it.
    """
    if data is None or isinstance(data, _ALWAYS_THERE):
        return None
    if callable(data) and not isinstance(data, FormData | AsyncIterable):
        return _Made(data)
    return _Kept(keep(_payload_of(data), type(data).__name__))


class _Made(Body):
    """Made anew for each attempt by a function of the user's."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._data: Any = None
        self._payload: KeptPayload | None = None

    async def for_attempt(self) -> Any:
        data = self._make()
        if inspect.isawaitable(data):
            data = await data
        if data is None or isinstance(data, _ALWAYS_THERE):
            return data
        if data is self._data:
            raise UsageError(
                f"the function in data= gave the same {type(data).__name__} again, which was sent before; write one"
                " that makes it anew for each attempt, such as data=lambda: open(path, 'rb')"
            )
        payload = keep(_payload_of(data), type(data).__name__)
        if not isinstance(payload, KeptPayload):
            return payload
        self._data, self._payload = data, payload
        return payload

    def end_attempt(self) -> None:
        if self._payload is not None:
            self._payload.let_go()


class _Kept(Body):
    """Made a payload once."""

    def __init__(self, payload: Payload) -> None:
        self._payload = payload
        if isinstance(payload, KeptPayload):
            payload.hold()

    @property
    def used_up(self) -> str | None:
        return self._payload.used_up if isinstance(self._payload, KeptPayload) else None

    async def for_attempt(self) -> Any:
        return self._payload

    def end(self) -> None:
        if isinstance(self._payload, KeptPayload):
            self._payload.let_go()


def _payload_of(data: Any) -> Payload:
    """The payload that aiohttp makes of it."""
    if isinstance(data, FormData):
        return data()
    try:
        return PAYLOAD_REGISTRY.get(data, disposition=None)
    except LookupError:
        return FormData(data)()


# --- payloads ---------------------------------------------------------------------------------------------------------


def keep(payload: Payload, name: str) -> Payload:
    """A payload that does as this one, but can be handed to aiohttp again and again, which can't close it.

    Args:
        payload: Of aiohttp's.
        name: How messages name what it was made from.
    """
    if isinstance(payload, BytesPayload | KeptPayload):
        return payload
    if isinstance(payload, MultipartWriter):
        return _KeptForm(payload, name)
    if isinstance(payload, IOBasePayload) and isinstance(value_of(payload), io.IOBase):
        return _KeptFile(payload, name)
    return KeptPayload(payload, name)


class KeptPayload(Payload):
    """Sends what another payload has, at most once: what that was made from is used up by it."""

    _autoclose = True  # aiohttp need not warn of it: it is closed with `let_go`

    def __init__(self, inner: Payload, name: str) -> None:
        super().__init__(
            inner,
            headers=inner.headers,
            content_type=inner.content_type,
            filename=inner.filename,
            encoding=inner.encoding,
        )
        self._inner = inner
        self._name = name
        self._size = inner.size
        self._begun = False
        self._holders = 0

    @property
    def used_up(self) -> str | None:
        """As `Body.used_up`."""
        return self._name if self._begun else None

    @property
    def consumed(self) -> bool:
        """What aiohttp asks before it sends a payload again, where a redirect wants that."""
        return self.used_up is not None

    def hold(self) -> None:
        """A call has it: aiohttp's `close` closes nothing."""
        self._holders += 1

    def hand_back(self) -> None:
        """The call is over: where no other one has it, aiohttp's `close` closes it."""
        self._holders -= 1

    def let_go(self) -> None:
        """Close it, as soon as nothing of it is being sent."""

    async def close(self) -> None:
        """What aiohttp calls when a request is over, of which a call may have several."""
        if not self._holders:
            self.let_go()

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """As text."""
        return self._inner.decode(encoding, errors)

    async def as_bytes(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """All of it, for a middleware that signs it."""
        return await self._inner.as_bytes(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send it as a part of a form."""
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Send it, or so many bytes of it."""
        self._begin()
        await self._inner.write_with_length(writer, content_length)

    def _begin(self) -> None:
        if self.used_up:
            raise UsageError(f"a body of type {self.used_up} was sent before, and what is left of it is not the body")
        self._begun = True


class _KeptForm(KeptPayload):
    """A multipart body, each part of which is kept."""

    def __init__(self, inner: MultipartWriter, name: str) -> None:
        subtype = inner.content_type.partition(";")[0].partition("/")[2]
        form = MultipartWriter(subtype, inner.boundary)
        self._parts = [keep(part, type(value_of(part)).__name__) for part, _, _ in inner]
        for part in self._parts:
            form.append_payload(part)
        form.headers.update(inner.headers)
        super().__init__(form, name)

    @property
    def used_up(self) -> str | None:
        return next((part.used_up for part in self._parts if isinstance(part, KeptPayload) and part.used_up), None)

    def let_go(self) -> None:
        for part in self._parts:
            if isinstance(part, KeptPayload):
                part.let_go()


class _KeptFile(KeptPayload):
    """An open file. Where it can be rewound, it is sent from where it stood."""

    def __init__(self, inner: IOBasePayload, name: str) -> None:
        self._file: Any = value_of(inner)
        self._start: Any = self._file.tell() if _can_be_rewound(self._file) else None
        self._lock = threading.Lock()
        self._writing = 0
        self._over = False
        super().__init__(inner, name)

    @property
    def used_up(self) -> str | None:
        return super().used_up if self._start is None else None

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self._begin()
        self._writing += 1
        try:
            position, left = self._start, content_length
            while left is None or left > 0:
                chunk, position = await self._chunk(position)
                if not chunk:
                    break
                await writer.write(chunk if left is None else chunk[:left])
                left = None if left is None else left - len(chunk)
        finally:
            self._writing -= 1
            self._close_if_over()

    def let_go(self) -> None:
        self._over = True
        self._close_if_over()

    async def as_bytes(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:  # noqa: ARG002
        chunks: list[bytes] = []
        position = self._start
        while True:
            chunk, position = await self._chunk(position)
            if not chunk:
                return b"".join(chunks)
            chunks.append(chunk)

    async def _chunk(self, position: Any) -> tuple[bytes, Any]:
        if isinstance(self._file, io.BytesIO):
            with self._file.getbuffer() as buffer:
                return bytes(buffer[position : position + _CHUNK]), position + _CHUNK
        return await asyncio.get_running_loop().run_in_executor(None, self._read, position)

    def _read(self, position: Any) -> tuple[bytes, Any]:
        """Read from there, and leave the file where it stood: an attempt that was broken off may still be reading."""
        with self._lock:
            if position is not None:
                self._file.seek(position)
            chunk = self._file.read(_CHUNK)
            if position is not None:
                position = self._file.tell()
                self._file.seek(self._start)
        return chunk.encode(self.encoding or "utf-8") if isinstance(chunk, str) else chunk, position

    def _close_if_over(self) -> None:
        if not self._over or self._writing or isinstance(self._file, io.BytesIO):
            return
        if self._lock.acquire(blocking=False):
            self._lock.release()
            self._file.close()
        else:  # It is being read for an attempt that was broken off.
            asyncio.get_running_loop().run_in_executor(None, self._close_behind_the_reader)

    def _close_behind_the_reader(self) -> None:
        with self._lock:
            self._file.close()


def _can_be_rewound(file: Any) -> bool:
    try:
        return bool(file.seekable())
    except (AttributeError, ValueError, OSError):  # ValueError: it is closed, and fails when it is sent.
        return False
