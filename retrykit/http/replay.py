"""Can this request body be sent again, and how?

aiohttp closes a file once it was sent, and goes on in the middle of a body that was sent in part. So what can't simply
be handed to it again is made a payload of our own, once per call, that sends all of the body each time.
"""

import asyncio
import inspect
import io
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Callable, Iterator, Mapping
from typing import Any

from aiohttp import FormData, MultipartWriter
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import (
    PAYLOAD_REGISTRY,
    AsyncIterablePayload,
    BufferedReaderPayload,
    BytesIOPayload,
    BytesPayload,
    IOBasePayload,
    LookupError,  # noqa: A004
    Payload,
    TextIOPayload,
)

from retrykit.core.errors import UsageError
from retrykit.http.internals import start_of, value_of

# What aiohttp reads from a file at a time.
_CHUNK = 64 * 1024

_ALWAYS_THERE = (bytes, bytearray, memoryview, str)


class Body(ABC):
    """The body of a request, over all attempts of a call."""

    @property
    def used_up(self) -> str | None:
        """The type of what can't be sent again, by the name that a message has for it; `None` where all can."""
        return None

    @property
    @abstractmethod
    def can_be_shared(self) -> bool:
        """Can several attempts send it at the same time?"""

    @abstractmethod
    async def for_attempt(self) -> Any:
        """What one attempt sends."""

    async def end_attempt(self, data: Any) -> None:  # noqa: B027
        """Let go of what an attempt had to itself, which sent this."""

    async def end(self) -> None:  # noqa: B027
        """Let go of the body: the call is over. A file is closed then, as aiohttp closes it."""


def body_of(data: Any) -> Body | None:
    """The body that has to be kept over a call; `None` where `data` itself can be handed to aiohttp again and again.

    Raises:
        TypeError: aiohttp can't send it.
    """
    if data is None or isinstance(data, _ALWAYS_THERE) or _is_plain_form(data):
        return None
    return _Made(data) if is_function(data) else _Kept(keep(_payload_of(data), type(data).__name__))


def is_function(data: Any) -> bool:
    """Is it a function that makes a body, and not a body that can be called?"""
    return callable(data) and not isinstance(data, FormData | AsyncIterable)


def _is_plain_form(data: Any) -> bool:
    """Is it a mapping or pairs, of whose values none is used up?"""
    pairs = data.values() if isinstance(data, Mapping) else data if isinstance(data, list | tuple) else ((None,),)
    values = (value for pair in pairs for value in (pair if isinstance(pair, tuple) else (pair,)))
    return all(isinstance(value, (*_ALWAYS_THERE, int, float)) for value in values)


class _Made(Body):
    """Made anew for each attempt by a function of the user's."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._source: Any = None
        self._own: list[KeptPayload] = []
        """Those of the attempts that run."""

    @property
    def can_be_shared(self) -> bool:
        return True  # Each has its own.

    async def for_attempt(self) -> Any:
        data = self._make()
        if inspect.isawaitable(data):
            data = await data
        if data is None or isinstance(data, _ALWAYS_THERE) or _is_plain_form(data):
            return data
        if data is self._source:
            raise UsageError(
                f"the function in data= gave the same {type(data).__name__} again, which was sent before; write one"
                " that makes it anew for each attempt, such as data=lambda: open(path, 'rb')"
            )
        payload = keep(_payload_of(data), type(data).__name__)
        if isinstance(payload, KeptPayload) or isinstance(data, io.IOBase):
            self._source = data
        if isinstance(payload, KeptPayload):
            self._own.append(payload)
        return payload

    async def end_attempt(self, data: Any) -> None:
        if isinstance(data, KeptPayload) and data in self._own:
            self._own.remove(data)
            await data.let_go()


class _Kept(Body):
    """Made a payload once."""

    def __init__(self, payload: Payload) -> None:
        self._payload = payload
        if isinstance(payload, KeptPayload):
            payload.hold()

    @property
    def used_up(self) -> str | None:
        return self._payload.used_up if isinstance(self._payload, KeptPayload) else None

    @property
    def can_be_shared(self) -> bool:
        return not isinstance(self._payload, KeptPayload) or self._payload.can_be_shared

    async def for_attempt(self) -> Any:
        return self._payload

    async def end(self) -> None:
        if isinstance(self._payload, KeptPayload):
            await self._payload.let_go()


def _payload_of(data: Any) -> Payload:
    """The payload that aiohttp makes of it."""
    if isinstance(data, FormData):
        return data()
    try:
        return PAYLOAD_REGISTRY.get(data, disposition=None)
    except LookupError:
        if isinstance(data, Iterator):
            raise TypeError(
                f"a {type(data).__name__} in data= can't be sent: a generator has to be asynchronous (async def), or"
                " its parts be joined, such as data=b''.join(parts)"
            ) from None
        return FormData(data)()


# --- payloads ---------------------------------------------------------------------------------------------------------


# Of aiohttp's own payloads it is known how they make bytes of what they have; of a subclass it isn't.
_FILE_PAYLOADS = frozenset({BufferedReaderPayload, BytesIOPayload, IOBasePayload, TextIOPayload})


def keep(payload: Payload, name: str) -> Payload:
    """A payload that does as this one, but can be handed to aiohttp again and again, which can't close it.

    Args:
        payload: What aiohttp has made, or a user.
        name: How messages name what it was made from.
    """
    if isinstance(payload, BytesPayload | KeptPayload):
        return payload
    if type(payload) is MultipartWriter:
        return _KeptForm(payload, name)
    if type(payload) in _FILE_PAYLOADS and isinstance(value_of(payload), io.IOBase):
        return _KeptFile(payload, name)
    return KeptPayload(payload, name)


class KeptPayload(Payload):
    """Sends what another payload has, in one attempt at most: nobody knows whether it could do so again."""

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
        self._to_be_closed = False

    @property
    def used_up(self) -> str | None:
        """As `Body.used_up`."""
        return self._name if self._begun else None

    @property
    def can_be_shared(self) -> bool:
        """As `Body.can_be_shared`."""
        return False

    @property
    def consumed(self) -> bool:
        """What aiohttp asks before it sends a payload again, where a redirect wants that."""
        if isinstance(self._inner, AsyncIterablePayload):
            return self._begun
        return bool(getattr(self._inner, "consumed", False))

    def hold(self) -> None:
        """A call has it: aiohttp's `close` closes nothing yet."""
        self._holders += 1

    async def hand_back(self) -> None:
        """The call is over: where no other one has it, aiohttp's `close` closes it."""
        self._holders -= 1
        if self._to_be_closed:
            await self.close()

    async def let_go(self) -> None:
        """Close it, as soon as nothing of it is being sent."""
        if hasattr(self._inner, "close"):  # aiohttp 3.12.0 leaves that to the writing.
            await self._inner.close()

    async def close(self) -> None:
        """What aiohttp calls when a request is over, of which a call may have several."""
        self._to_be_closed = True
        if not self._holders:
            await self.let_go()

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
        if self._begun and self.consumed:
            raise UsageError(
                f"a body of type {self._name} was sent before, and what is left of it is not the body; give bytes, or a"
                " function that makes it anew for each attempt"
            )
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

    @property
    def can_be_shared(self) -> bool:
        return all(part.can_be_shared for part in self._parts if isinstance(part, KeptPayload))

    @property
    def consumed(self) -> bool:
        return any(isinstance(part, KeptPayload) and part.consumed for part in self._parts)

    async def let_go(self) -> None:
        for part in self._parts:
            if isinstance(part, KeptPayload):
                await part.let_go()


class _KeptFile(KeptPayload):
    """An open file. Where it can be rewound, it is sent from where it stood."""

    def __init__(self, inner: Payload, name: str) -> None:
        self._file: Any = value_of(inner)
        self._start: Any = _position_of(self._file)
        read_before = start_of(inner)
        if self._start is not None and read_before is not None:
            self._start = read_before
        self._lock = threading.Lock()
        self._writing = 0
        self._over = False
        super().__init__(inner, name)

    @property
    def used_up(self) -> str | None:
        return super().used_up if self._start is None else None

    @property
    def can_be_shared(self) -> bool:
        return self._start is not None  # Each reads at positions of its own.

    @property
    def consumed(self) -> bool:
        return self.used_up is not None

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
            self._put_back()
        if left is not None and left > 0:
            raise UsageError(
                f"the {self._name} in data= ended {left} bytes before its length; don't change it while it is sent, and"
                " open a text file in binary mode"
            )

    async def let_go(self) -> None:
        self._over = True
        self._put_back()

    async def as_bytes(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:  # noqa: ARG002
        chunks: list[bytes] = []
        position = self._start
        while True:
            chunk, position = await self._chunk(position)
            if not chunk:
                return b"".join(chunks)
            chunks.append(chunk)

    async def _chunk(self, position: Any) -> tuple[bytes, Any]:
        if type(self._file) is io.BytesIO:
            with self._file.getbuffer() as buffer:
                return bytes(buffer[position : position + _CHUNK]), position + _CHUNK
        return await asyncio.get_running_loop().run_in_executor(None, self._read, position)

    def _read(self, position: Any) -> tuple[bytes, Any]:
        """Read from there, wherever the file stands: an attempt that was broken off may still be reading."""
        with self._lock:
            if position is not None and self._file.tell() != position:
                self._file.seek(position)
            chunk = self._file.read(_CHUNK)
            position = None if position is None else self._file.tell()
        return chunk.encode(self.encoding or "utf-8") if isinstance(chunk, str) else chunk, position

    def _put_back(self) -> None:
        """Leave the file as it was where nothing of it is being sent, or closed where the call is over."""
        if self._writing:
            return
        if self._lock.acquire(blocking=False):
            try:
                self._rewind_or_close()
            finally:
                self._lock.release()
        elif self._over:  # It is being read for an attempt that was broken off.
            asyncio.get_running_loop().run_in_executor(None, self._close_behind_the_reader)

    def _close_behind_the_reader(self) -> None:
        with self._lock:
            self._rewind_or_close()

    def _rewind_or_close(self) -> None:
        if self._file.closed:
            return
        if self._over and not isinstance(self._file, io.BytesIO):
            self._file.close()
        elif self._start is not None:
            self._file.seek(self._start)


def _position_of(file: Any) -> Any:
    """Where a file stands; `None` where it can't be brought back there."""
    try:
        return file.tell() if file.seekable() else None
    except (AttributeError, ValueError, OSError):  # ValueError: it is closed, and fails when it is sent.
        return None
