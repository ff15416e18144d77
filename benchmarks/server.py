"""A server in a process of its own, which does as little as it can: only the client is measured.

    python -m benchmarks.server

It prints its port, and ends with its standard input.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate

from aiohttp import ClientResponse, ClientSession

from benchmarks.process import process_with_port

BODY = b'{"id": 123, "name": "Ada"}'
BUSY = b'{"error": "busy"}'


class Tally:
    """What was asked for below `/flaky/`, where every tenth request is answered with 503.

    A path that has just failed does not fail when it is asked for again, so that three attempts are always enough.
    """

    def __init__(self) -> None:
        self.requests = self.failed = 0
        self._since_failure = 0
        self._failed_paths: set[bytes] = set()

    def fails(self, path: bytes) -> bool:
        """Is this the request that fails?"""
        self.requests += 1
        self._since_failure += 1
        if self._since_failure < 10 or path in self._failed_paths:
            return False
        self._since_failure = 0
        self.failed += 1
        self._failed_paths.add(path)
        return True

    def answer(self, path: bytes) -> bytes:
        """What is sent for a path."""
        if path == b"/tally":
            return _answer(b"200 OK", json.dumps({"requests": self.requests, "failed": self.failed}).encode())
        if path == b"/busy" or (path.startswith(b"/flaky/") and self.fails(path)):
            return _UNAVAILABLE
        return _OK


def _answer(status: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nDate: %b\r\n\r\n"
    return head % (status, len(body), formatdate(usegmt=True).encode()) + body


_OK = _answer(b"200 OK", BODY)
_UNAVAILABLE = _answer(b"503 Service Unavailable", BUSY)


class _Connection(asyncio.Protocol):
    """Knows of GETs alone: a request ends where its headers do."""

    def __init__(self, get: Callable[[bytes, asyncio.Transport], None]) -> None:
        self._get = get
        """Takes the path, and where to write the answer to."""
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *requests, self._unread = (self._unread + data).split(b"\r\n\r\n")
        for request in requests:
            self._get(request.split(b" ", 2)[1], self._transport)


async def serve(get: Callable[[bytes, asyncio.Transport], None]) -> None:
    """Serve GETs on 127.0.0.1, until the standard input ends; the port is printed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(get), "127.0.0.1", 0, backlog=1000)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


async def _serve() -> None:
    tally = Tally()
    await serve(lambda path, client: client.write(tally.answer(path)))


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[str]:
    """A running server: its URL."""
    async with process_with_port("-m", "benchmarks.server") as port:
        yield f"http://127.0.0.1:{port}"


async def fetched_responses() -> tuple[ClientResponse, ClientResponse]:
    """Two real responses, read: a 200 and a 503, for calls that are measured without a network."""
    async with serving() as url, ClientSession() as session:
        good, busy = await session.get(f"{url}/items/1"), await session.get(f"{url}/busy")
        await good.read()
        await busy.read()
    return good, busy


if __name__ == "__main__":
    asyncio.run(_serve())
