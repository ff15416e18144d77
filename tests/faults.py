"""A raw server on 127.0.0.1 that fails as told, and records every connection and request that it saw.

`ScriptedServer` is what users have; this one can break what no HTTP server would.
"""

import asyncio
import contextlib
import gzip
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from multidict import CIMultiDict

# No test waits longer for anything that should come at once.
SOON = 5.0


@dataclass
class Seen:
    """A request as it came in."""

    method: str
    path: str
    headers: CIMultiDict[str]
    body: bytes = b""
    connection: int = 0
    """Of which connection; 1 for the first."""
    complete: bool = True
    """Did all of its body come?"""


@dataclass
class Connection:
    """A connection, and what can be done with it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int
    server: "FaultServer"
    request: Seen = field(default_factory=lambda: Seen("", "", CIMultiDict()))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def read_body(self) -> None:
        """Read the body of the request."""
        headers, seen = self.request.headers, self.request
        try:
            if "Content-Length" in headers:
                seen.body = await self.reader.readexactly(int(headers["Content-Length"]))
            elif headers.get("Transfer-Encoding", "").lower() == "chunked":
                while size := int(await self.reader.readline(), 16):
                    seen.body += (await self.reader.readexactly(size + 2))[:-2]
                await self.reader.readline()
        except (asyncio.IncompleteReadError, ConnectionError, ValueError) as error:
            seen.complete = False
            seen.body += getattr(error, "partial", b"")

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Close with a TCP RST."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def closed_by_peer(self) -> None:
        """Wait until the other side has gone."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(64 * 1024):
                pass


Step = Callable[[Connection], Awaitable[None]]


def head(status: int, headers: Mapping[str, str] | None = None) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return f"HTTP/1.1 {status} Because\r\n{lines}\r\n".encode()


def answer(status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None, late: float = 0) -> Step:
    """A whole answer; the body may come `late`, that many seconds after the headers."""

    async def step(connection: Connection) -> None:
        await connection.read_body()
        await connection.send(head(status, {"Content-Length": str(len(body)), **(headers or {})}))
        await asyncio.sleep(late)
        await connection.send(body)

    return step


def raw(data: bytes, then: str = "close") -> Step:
    """These very bytes; then the connection is closed, reset, kept or left to stall."""

    async def step(connection: Connection) -> None:
        await connection.read_body()
        await connection.send(data)
        match then:
            case "close":
                connection.close()
            case "reset":
                await asyncio.sleep(0.02)
                connection.reset()
            case "stall":
                await connection.closed_by_peer()

    return step


def redirect(to: str, status: int = 303) -> Step:
    return answer(status, b"", {"Location": to})


def truncated(body: bytes, sent: int) -> Step:
    return raw(head(200, {"Content-Length": str(len(body))}) + body[:sent])


def dripping(status: int = 503, every: float = 0.05) -> Step:
    """A body that comes byte by byte, and never ends."""

    async def step(connection: Connection) -> None:
        await connection.read_body()
        await connection.send(head(status, {"Content-Length": "1000000"}))
        while not connection.reader.at_eof() and not connection.writer.is_closing():
            await connection.send(b"x")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await connection.closed_by_peer()
                    return

    return step


def streaming(status: int, size: int, headers: Mapping[str, str] | None = None) -> Step:
    """A body of so many bytes, as fast as it is taken; `server.streamed` counts what was."""

    async def step(connection: Connection) -> None:
        await connection.read_body()
        await connection.send(head(status, {"Content-Length": str(size), **(headers or {})}))
        chunk = b"e" * 16384
        for _ in range(size // len(chunk)):
            if connection.writer.is_closing():
                return
            await connection.send(chunk)
            connection.server.streamed += len(chunk)

    return step


def gzip_bomb(status: int, unpacked: int) -> Step:
    packed = gzip.compress(bytes(unpacked))
    return answer(status, packed, {"Content-Encoding": "gzip"})


def before_body(step: Step) -> Step:
    """Answer without having read the body of the request."""

    async def early(connection: Connection) -> None:
        connection.request.complete = False
        connection.request.headers = CIMultiDict(
            (name, value)
            for name, value in connection.request.headers.items()
            if name.lower() not in ("content-length", "transfer-encoding")
        )
        await step(connection)
        connection.close()

    return early


async def go_on(connection: Connection) -> None:
    """`100 Continue`, then 200."""
    await connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    await answer(200, b"thanks")(connection)


RESET = raw(b"", "reset")
CLOSE = raw(b"")
STALL = raw(b"", "stall")
RESET_AFTER_HEADERS = raw(head(200, {"Content-Length": "100"}), "reset")
TRUNCATED = truncated(b"0123456789" * 10, 50)
BROKEN_CHUNK = raw(head(200, {"Transfer-Encoding": "chunked"}) + b"5\r\nhello\r\nZZ\r\n", "stall")
GARBAGE = raw(b"SMTP/9.9 what?\r\n\r\n")
STALL_IN_BODY = raw(head(200, {"Content-Length": "100"}) + b"01234", "stall")
TOO_LONG = raw(head(200, {"Content-Length": "5"}) + b"hello, and more than it said")
INVALID_GZIP = answer(200, b"this is no gzip", {"Content-Encoding": "gzip"})


class FaultServer:
    """Answers each path as its script says: the first request by the first step, and so on; the last step stays."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.requests: list[Seen] = []
        self.connections = 0
        self.open = 0
        """Connections that are open now."""
        self.streamed = 0
        self.resets_on_accept = 0
        """So many of the next connections are reset before anything is read."""
        self._scripts: dict[str, list[Step]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def script(self, path: str, *steps: Step | int) -> str:
        """Say what a path answers; gives its URL."""
        self._scripts[path] = [answer(step) if isinstance(step, int) else step for step in steps]
        return self.url + path

    def seen(self, path: str) -> list[Seen]:
        return [request for request in self.requests if request.path.partition("?")[0] == path]

    async def all_closed(self) -> None:
        """Wait until no connection is open any more."""
        await self.all_but(0)

    async def all_but(self, count: int) -> None:
        """Wait until no more than so many connections are open."""
        async with asyncio.timeout(SOON):
            while self.open > count:
                await asyncio.sleep(0.005)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        host, port = self._server.sockets[0].getsockname()
        self.url = f"{'https' if self._tls else 'http'}://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        connection = Connection(reader, writer, self.connections, self)
        try:
            if self.resets_on_accept:
                self.resets_on_accept -= 1
                connection.reset()
                return
            while not writer.is_closing() and await self._one(connection):
                pass
        except asyncio.CancelledError:
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()

    async def _one(self, connection: Connection) -> bool:
        try:
            lines = (await connection.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return False
        method, path, _ = lines[0].split(" ")
        headers = CIMultiDict(tuple(line.split(": ", 1)) for line in lines[1:] if line)
        connection.request = Seen(method, path, headers, connection=connection.number)
        self.requests.append(connection.request)
        script = self._scripts.get(path.partition("?")[0], [answer(404)])
        await (script.pop(0) if len(script) > 1 else script[0])(connection)
        return True
