"""A client that begins calls at a steady rate, whatever becomes of them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

import aiohttp
from aiohttp import ClientSession, ClientTimeout, TCPConnector

from benchmarks.outage.contenders import Get
from benchmarks.outage.scenarios import ATTEMPT_TIMEOUT


class Call(NamedTuple):
    """One of its calls."""

    begun: float
    """Seconds after the start, as is"""
    ended: float | None
    """when it succeeded. `None` where it failed, or had not ended when the run did."""


@contextlib.asynccontextmanager
async def session() -> AsyncIterator[ClientSession]:
    """One that never waits for a connection of its own, and goes away after the attempt timeout."""
    timeout = ClientTimeout(total=ATTEMPT_TIMEOUT)
    async with ClientSession(connector=TCPConnector(limit=0), timeout=timeout) as opened:
        yield opened


async def make_calls(get: Get, url: str, started: float, starts: Iterable[float], until: float) -> list[Call]:
    """Begin a call at each of these instants, and cancel what has not ended in the end.

    Args:
        get: Makes a call.
        url: What is asked for.
        started: When the time began, on the clock of `time.monotonic`.
        starts: In seconds after that, as is
        until: The end, if there is so much to do.
    """
    calls: list[Call] = []

    async def make() -> None:
        begun, ended = time.monotonic() - started, None
        try:
            if await _succeeds(get, url):
                ended = time.monotonic() - started
        finally:
            calls.append(Call(begun, ended))

    tasks: list[asyncio.Task[None]] = []
    for start in starts:
        await asyncio.sleep(started + start - time.monotonic())
        tasks.append(asyncio.create_task(make()))
    _, unfinished = await asyncio.wait(tasks, timeout=max(0.0, started + until - time.monotonic()))
    for task in unfinished:
        task.cancel()
    await asyncio.gather(*unfinished, return_exceptions=True)
    for task in tasks:
        if not task.cancelled():
            task.result()  # A mistake in here comes out.
    return calls


async def _succeeds(get: Get, url: str) -> bool:
    try:
        async with await get(url) as response:
            await response.read()
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
