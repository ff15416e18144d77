"""What many calls cost by `fetch_all`: the client's CPU time for small URLs, and the memory for ever more items.

    python -m benchmarks.crawl 10000

prints the bytes that were in use at the peak, over so many items. A million requests to the server of the other
question would take some three minutes, and more than ten where each allocation is counted. So these calls fetch
nothing: each lets the others go on once, and every tenth fails.
"""

import asyncio
import itertools
import sys
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import Any

from aiohttp import ClientSession, TCPConnector

from benchmarks.adapters import STATUSES, TRANSIENT
from benchmarks.effort import Effort
from benchmarks.measure import CONTROL, Case, Question, Values, cpu_time, in_rounds, ratios
from benchmarks.process import figure_printed_by
from benchmarks.server import serving
from retrykit import fetch_all, fetch_json, retry_http

AT_ONCE = 100
BY_HAND = "gather with a semaphore"
OURS = "retrykit"
MIB = 2**20

Crawl = Callable[[list[str]], Awaitable[int]]
"""Fetches JSON from all of these URLs: how many gave some."""


async def _by_hand(urls: list[str]) -> int:
    """What a careful user writes without a library."""
    room = asyncio.Semaphore(AT_ONCE)
    async with ClientSession(connector=TCPConnector(limit=AT_ONCE)) as session:

        async def fetch(url: str) -> Any:
            async with room:
                for attempt in range(1, 4):
                    try:
                        async with session.get(url) as response:
                            if response.status not in STATUSES or attempt == 3:
                                response.raise_for_status()
                                return await response.json()
                    except TRANSIENT:
                        if attempt == 3:
                            raise
                    await asyncio.sleep(0)
                raise AssertionError("the last attempt returns or raises")

        results = await asyncio.gather(*map(fetch, urls), return_exceptions=True)
    return sum(not isinstance(result, BaseException) for result in results)


async def _by_fetch_all(urls: list[str]) -> int:
    """The same by `fetch_all`, with the session that it makes."""
    fetch = fetch_json.retry_with(base_delay=0)
    good = 0
    async for fetched in fetch_all(urls, fetch, concurrency=AT_ONCE):
        good += fetched.error is None
    return good


CASES: dict[str, Crawl] = {BY_HAND: _by_hand, CONTROL: _by_hand, OURS: _by_fetch_all}


async def _time(effort: Effort, chance: Random) -> Values:
    async with serving() as server:
        urls = (f"{server}/flaky/{number}" for number in itertools.count())
        cases = {name: _timed(name, crawl, urls, server, effort.crawled) for name, crawl in CASES.items()}
        return ratios(await in_rounds(cases, effort.crawl_rounds, chance), BY_HAND)


def _timed(name: str, crawl: Crawl, urls: Iterator[str], server: str, count: int) -> Case:
    """Crawl so many URLs that were never asked for before."""

    async def spend() -> float:
        before, taken = await fetch_json(f"{server}/tally"), list(itertools.islice(urls, count))
        good = 0

        async def stretch() -> None:
            nonlocal good
            good = await crawl(taken)

        seconds = await cpu_time(stretch())
        after = await fetch_json(f"{server}/tally")
        requests, failed = (int(after[what] - before[what]) for what in ("requests", "failed"))
        assert (good, requests) == (count, count + failed), f"{name}: {good} of {count} URLs, by {requests} requests"
        return seconds / requests

    return spend


async def _memory(effort: Effort, _chance: Random) -> Values:
    few, many = [await _peak(count) for count in (effort.few_items, effort.many_items)]
    return {OURS: [(many - few) / MIB]}


async def _peak(count: int) -> float:
    return await figure_printed_by("-m", "benchmarks.crawl", str(count))


QUESTIONS = [
    Question("crawl", "Many small URLs, with 503 as every tenth answer", BY_HAND, _time, {OURS: 1.10}),
    Question("crawl-memory", "MiB more, at the peak, for a million items", "ten thousand items", _memory, {OURS: 20.0}),
]


@retry_http(max_retries=1)
async def _number(number: int) -> dict[str, int]:
    await asyncio.sleep(0)
    if number % 10 == 0:
        raise ConnectionError
    return {"number": number}


async def _print_peak(count: int) -> None:
    tracemalloc.start()
    failed = 0
    async for fetched in fetch_all(range(count), _number):
        failed += fetched.error is not None
    assert failed == -(-count // 10), f"{failed} of {count} calls failed"
    _, peak = tracemalloc.get_traced_memory()
    sys.stdout.write(f"{peak}\n")


if __name__ == "__main__":
    asyncio.run(_print_peak(int(sys.argv[1])))
