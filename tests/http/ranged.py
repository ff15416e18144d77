"""Steps of a `FaultServer` that send a body, or the part of it that is asked for, and break off in the middle."""

import asyncio
import hashlib
import itertools
import random
import re
from collections.abc import Iterable, Mapping
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


def ranged(
    content: bytes,
    headers: Mapping[str, str] | None = None,
    *,
    cut: int | None = None,
    then: str = "close",
    first: int = 0,
    sent: list[Sent] | None = None,
) -> Step:
    """A server that takes ranges, as RFC 9110 §14.2 and §13.1.5 say; its `streamed` counts bytes of bodies.

    Args:
        content: The body.
        headers: Further ones. Default: a strong ETag. `If-Range` has to be the `ETag`, or else the `Last-Modified`.
        cut: So many bytes of the answer's body are sent, if it has more. Default: all of them.
        then: What becomes of the connection after these: it is closed, reset, or left to stall.
        first: So many bytes come some time before the others.
        sent: There, each answer is written down.
    """
    named = {"ETag": '"1"'} if headers is None else dict(headers)

    async def step(connection: Connection) -> None:
        status, start = answered(connection, len(content), named)
        length = 0 if status == 416 else len(content) - start
        fields = {"Content-Length": str(length), **named}
        if status == 206:
            fields["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        elif status == 416:
            fields["Content-Range"] = f"bytes */{len(content)}"
        end = start + (length if cut is None else min(cut, length))
        if sent is not None:
            sent.append(Sent(start, end, then))
        await connection.send(head(status, fields) + content[start : min(start + first, end)])
        await asyncio.sleep(TAKEN if first else 0)
        for at in range(start + first, end, SLICE):
            await connection.send(content[at : min(at + SLICE, end)])
        connection.server.streamed += end - start
        if cut is not None and end < start + length:
            await break_off(connection, then)

    return step


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


def cut_at(
    content: bytes, cuts: Iterable[int], headers: Mapping[str, str] | None = None, sent: list[Sent] | None = None
) -> Step:
    """Breaks off each answer after as many bytes as come next, by a FIN and by a RST in turn; those after are whole."""
    following, thens = iter(cuts), itertools.cycle(["close", "reset"])

    async def step(connection: Connection) -> None:
        await ranged(content, headers, cut=next(following, None), then=next(thens), sent=sent)(connection)

    return step
