"""What a call leaves to the garbage collector: objects in reference cycles, which nothing else frees."""

import contextlib
import gc
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import aiohttp
import tenacity
from aiohttp import ServerDisconnectedError

from benchmarks.adapters import LIBRARIES, Adapt, Call, Fetch, by_hand
from benchmarks.effort import Effort
from benchmarks.measure import BY_HAND, Question, Values
from benchmarks.overhead import URL, Step, scripted
from benchmarks.server import fetched_responses

_ADAPTS: dict[str, Adapt] = {BY_HAND: by_hand, **LIBRARIES}


async def _call(call: Call, times: int) -> None:
    for _ in range(times):
        with contextlib.suppress(aiohttp.ClientError, tenacity.RetryError):
            await call(URL)


async def _found_after(call: Call, times: int) -> float:
    """Objects that the collector finds, for each call."""
    await _call(call, 2)  # What is made once, on first use, is there now.
    gc.collect()
    gc.disable()
    try:
        await _call(call, times)
        return gc.collect() / times
    finally:
        gc.enable()


async def _found(fetch: Callable[[], Fetch], effort: Effort) -> Values:
    return {name: [await _found_after(adapt(fetch(), 0), effort.collected)] for name, adapt in _ADAPTS.items()}


def _after(steps: Callable[[Step, Step], Fetch]) -> Callable[[Effort, Random], Coroutine[Any, Any, Values]]:
    """Calls whose attempts go by these steps, of which a good and a busy response can be two."""

    async def measure(effort: Effort, _chance: Random) -> Values:
        good, busy = await fetched_responses()
        return await _found(lambda: steps(good, busy), effort)

    return measure


_NONE = {"retry_http": 0.0}
_LOST = ServerDisconnectedError

QUESTIONS = [
    Question("cycles", "Objects in cycles: success", "", _after(lambda good, _: scripted(good)), _NONE),
    Question(
        "cycles-retried",
        "Objects in cycles: connection lost, 503, success",
        "",
        _after(lambda good, busy: scripted(_LOST, busy, good)),
        _NONE,
    ),
    Question(
        "cycles-giving-up",
        "Objects in cycles: connection lost three times",
        "",
        _after(lambda *_: scripted(_LOST)),
        _NONE,
    ),
    Question("cycles-503", "Objects in cycles: 503 three times", "", _after(lambda _, busy: scripted(busy)), _NONE),
]
