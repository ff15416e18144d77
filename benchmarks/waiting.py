"""What calls cost that wait for their next attempt: the memory that they hold, and the time to cancel them.

Each case has a process of its own, so that none is measured on a heap that another one has left.

    python -m benchmarks.waiting bytes retry_http exception 10000

prints the bytes that one of so many calls holds, and `seconds` in its place how long it takes to cancel them all.
"""

import asyncio
import copy
import gc
import sys
import time
import tracemalloc
from random import Random
from typing import Any, Literal

from aiohttp import ClientResponse, ServerDisconnectedError

from benchmarks.adapters import LIBRARIES, Adapt, Call, Fetch, by_hand
from benchmarks.effort import Effort
from benchmarks.measure import BY_HAND, CONTROL, Case, Question, Values, in_rounds, ratios
from benchmarks.overhead import URL
from benchmarks.process import figure_printed_by
from benchmarks.server import fetched_responses

# As long as a wait is with any library, and longer than all of it takes.
DELAY = 60.0

SLEEPING = "sleeping task"

Quantity = Literal["bytes", "seconds"]
Failure = Literal["exception", "status"]


def _sleeping(_fetch: Fetch, delay: float) -> Any:
    """No call at all, just the wait."""
    return lambda _url: asyncio.sleep(delay)


CASES: dict[str, Adapt] = {SLEEPING: _sleeping, CONTROL: _sleeping, BY_HAND: by_hand, **LIBRARIES}


async def _failing(failure: Failure) -> Fetch:
    """What fails in every attempt. Each gets a response of its own: who keeps it, keeps all of it."""
    _, busy = await fetched_responses()

    async def fetch(_url: str) -> ClientResponse:
        if failure == "status":
            return copy.copy(busy)
        raise ServerDisconnectedError

    return fetch


async def _waiting(call: Call, count: int) -> list[asyncio.Future[Any]]:
    """So many calls, each of which has failed once, and waits."""
    tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(call(URL)) for _ in range(count)]
    for _ in range(3):
        await asyncio.sleep(0)
    for task in tasks:
        assert not task.done(), f"a call does not wait, and came to {task.exception() or task.result()!r}"
    return tasks


async def _cancel(tasks: list[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert all(task.cancelled() for task in tasks), "a call swallowed that it was cancelled"


async def _bytes(call: Call, count: int) -> float:
    await _cancel(await _waiting(call, 10))  # What is made once, on first use, is there now.
    tracemalloc.start()
    tasks = await _waiting(call, count)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await _cancel(tasks)
    return held / count


async def _seconds(call: Call, count: int) -> float:
    gc.disable()  # It would look through all that waits, time and again, and find nothing.
    tasks = await _waiting(call, count)
    started = time.process_time()
    await _cancel(tasks)
    return time.process_time() - started


def _case(quantity: Quantity, name: str, failure: Failure, count: int) -> Case:
    async def measure() -> float:
        return await figure_printed_by("-m", "benchmarks.waiting", quantity, name, failure, str(count))

    return measure


async def _compare(quantity: Quantity, failure: Failure, count: int, rounds: int, chance: Random) -> Values:
    cases = {name: _case(quantity, name, failure, count) for name in CASES}
    return ratios(await in_rounds(cases, rounds, chance), SLEEPING)


async def _memory_after_exception(effort: Effort, chance: Random) -> Values:
    return await _compare("bytes", "exception", effort.waiting, effort.waiting_rounds, chance)


async def _memory_after_status(effort: Effort, chance: Random) -> Values:
    return await _compare("bytes", "status", effort.waiting, effort.waiting_rounds, chance)


async def _cancelling(effort: Effort, chance: Random) -> Values:
    return await _compare("seconds", "exception", effort.cancelled, effort.cancelling_rounds, chance)


_TASK = f"a {SLEEPING}"

QUESTIONS = [
    Question(
        "memory",
        "Memory of a call that waits, after a lost connection",
        _TASK,
        _memory_after_exception,
        {"retry_http": 1.5},
    ),
    Question(
        "memory-503", "Memory of a call that waits, after a 503", _TASK, _memory_after_status, {"retry_http": 1.5}
    ),
    Question("cancel", "Cancelling calls that wait", _TASK, _cancelling, {"retry_http": 1.3}),
]


async def _print_figure(quantity: str, name: str, failure: Failure, count: int) -> None:
    call = CASES[name](await _failing(failure), DELAY)
    measure = {"bytes": _bytes, "seconds": _seconds}[quantity]
    sys.stdout.write(f"{await measure(call, count)}\n")


if __name__ == "__main__":
    _quantity, _name, _failure, _count = sys.argv[1:]
    asyncio.run(_print_figure(_quantity, _name, _failure, int(_count)))  # type: ignore[arg-type]
