"""Steps of a `FaultServer` that send a body, or the part of it that is asked for, and break off in the middle."""

import asyncio
import hashlib
import itertools
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tests.faults import Connection, Step, head

SLICE = 64 * 1024
# Long enough for a client to take what was sent.
TAKEN = 0.02


def seeded(size: int, seed: int = 1) -> bytes:
    """The same bytes each time."""
    return random.Random(seed).randbytes(size)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Sent(NamedTuple):
    """What an answer had of a body: the bytes from `start` up to, and without, `end`."""

    start: int
    end: int
    then: str


class Ranged:
    """A step that takes ranges, as RFC 9110 §14.2 and §13.1.5 say; the server's `streamed` counts bytes of bodies.

    Args:
        content: The body.
        headers: Further ones. Default: a strong ETag. `If-Range` has to be the `ETag`, or else the `Last-Modified`.
        cuts: After so many bytes of its body the first answer breaks off, the second, and so on, if it has more, or an
            end of its own (`chunked`); `None` and those after them are whole.
        ends: What becomes of the connection then, in turn: it is closed, reset, or left to stall.
        chunked: Is the length not told before?
        first: So many bytes come some time before the others.
        sent: There, each answer is written down.
    """

    def __init__(
        self,
        content: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        cuts: Iterable[int | None] = (),
        ends: Sequence[str] = ("close",),
        chunked: bool = False,
        first: int = 0,
        sent: list[Sent] | None = None,
    ) -> None:
        self.content, self.first, self.chunked, self.sent = content, first, chunked, sent
        self.named = {"ETag": '"1"'} if headers is None else dict(headers)
        self.cuts = iter(cuts)
        self._ends = itertools.cycle(ends)

    async def __call__(self, connection: Connection) -> None:
        await connection.read_body()
        content, cut, then = self.content, next(self.cuts, None), next(self._ends)
        status, start = answered(connection, len(content), self.named)
        length = 0 if status == 416 else len(content) - start
        end = start + (length if cut is None else min(cut, length))
        is_cut = cut is not None and (self.chunked or end < start + length)
        if self.sent is not None:
            self.sent.append(Sent(start, end, then))
        early = min(start + self.first, end)
        await connection.send(head(status, self._fields(status, start, length)) + self._framed(content[start:early]))
        await asyncio.sleep(TAKEN if self.first else 0)
        for at in range(early, end, SLICE):
            await connection.send(self._framed(content[at : min(at + SLICE, end)]))
        if self.chunked and not is_cut:
            await connection.send(b"0\r\n\r\n")
        connection.server.streamed += end - start
        if is_cut:
            await break_off(connection, then)

    def _fields(self, status: int, start: int, length: int) -> dict[str, str]:
        fields = {"Transfer-Encoding": "chunked"} if self.chunked else {"Content-Length": str(length)}
        size = len(self.content)
        if status == 206:
            fields["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        elif status == 416:
            fields["Content-Range"] = f"bytes */{size}"
        return {**fields, **self.named}

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self.chunked and data else data


def ranged(
    content: bytes,
    headers: Mapping[str, str] | None = None,
    *,
    cut: int | None = None,
    then: str = "close",
    first: int = 0,
) -> Step:
    """The same, where each answer breaks off after as many bytes."""
    return Ranged(content, headers, cuts=itertools.repeat(cut), ends=[then], first=first)


def cut_at(
    content: bytes, cuts: Iterable[int], headers: Mapping[str, str] | None = None, sent: list[Sent] | None = None
) -> Step:
    """The same, where the answers break off by a FIN and by a RST in turn."""
    return Ranged(content, headers, cuts=cuts, ends=("close", "reset"), sent=sent)


def answered(connection: Connection, size: int, named: Mapping[str, str]) -> tuple[int, int]:
    """The status that fits, and where the body of the answer starts."""
    asked = connection.request.headers
    wanted = re.fullmatch(r"bytes=(\d+)-", asked.get("Range", ""))
    validator = named.get("ETag", named.get("Last-Modified"))
    if wanted is None or asked.get("If-Range", validator) != validator:
        return 200, 0
    start = int(wanted[1])
    return (206, start) if start < size else (416, size)


async def break_off(connection: Connection, then: str) -> None:
    match then:
        case "close":
            connection.close()
        case "reset":
            await asyncio.sleep(TAKEN)
            if not connection.writer.is_closing():
                connection.reset()
        case "stall":
            await connection.closed_by_peer()
