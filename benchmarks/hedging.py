"""What hedging does for the slowest answers, and what it costs.

    python -m benchmarks.hedging

is the server: it prints its port, and ends with its standard input. Every hundredth answer of it takes a second, the
others some milliseconds. It does not know a hedge from another request: one of them can be slow as well.
"""

import asyncio
import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from aiohttp import ClientSession, web

from benchmarks.outage.contenders import Get, with_policy
from benchmarks.process import process_with_port
from retrykit import LatencyQuantile, RetryPolicy

AT_ONCE = 10
"""Calls that are under way at any time."""

SLOW = 1.0
FAST = (0.005, 0.015)
"""From how many seconds to how many, and all in between as often."""
EVERY = 100

NONE = "no hedging"

# The slow ones are 1 % of all. 0.98 leaves room for them, and hedges as many again that are just a little slow; 0.95
# would be at the limit of 5 % more requests, and 0.99 between the two kinds.
QUANTILE = 0.98

WAYS: dict[str, Callable[[], RetryPolicy]] = {
    NONE: RetryPolicy,
    "hedge_after=0.05": lambda: RetryPolicy(hedge_after=0.05),
    f"hedge_after=LatencyQuantile({QUANTILE})": lambda: RetryPolicy(hedge_after=LatencyQuantile(QUANTILE)),
}


@dataclass(frozen=True)
class Hedged:
    """What came of one way. Times are seconds."""

    name: str
    calls: int
    requests: int
    p50: float
    p99: float
    """One in a hundred calls took that long, or longer."""

    @property
    def requests_per_call(self) -> float:
        """1 without hedging."""
        return self.requests / self.calls


def percentile(times: list[float], share: float) -> float:
    """The time that `share` of the calls stayed below."""
    return sorted(times)[int(share * len(times))]


async def measure(name: str, calls: int) -> Hedged:
    """Make so many calls in one of the ways."""
    async with process_with_port("-m", "benchmarks.hedging") as port, ClientSession() as session:
        url = f"http://127.0.0.1:{port}"
        times = await _timed(with_policy(WAYS[name](), session), f"{url}/", calls)
        async with session.get(f"{url}/tally") as response:
            requests = int(await response.text())
    return Hedged(name, calls, requests, percentile(times, 0.5), percentile(times, 0.99))


async def _timed(get: Get, url: str, calls: int) -> list[float]:
    times: list[float] = []
    waiting = iter(range(calls))

    async def work() -> None:
        for _ in waiting:
            begun = time.perf_counter()
            async with await get(url) as response:
                await response.read()
            times.append(time.perf_counter() - begun)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return times


# --- the server -------------------------------------------------------------------------------------------------------


def _app() -> web.Application:
    received, chance = itertools.count(1), Random(1)  # noqa: S311 - it only has to be the same every time.

    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(SLOW if next(received) % EVERY == 0 else chance.uniform(*FAST))
        return web.Response(text="done")

    async def tally(_: web.Request) -> web.Response:
        return web.Response(text=str(next(received) - 1))

    app = web.Application()
    app.router.add_get("/", answer)
    app.router.add_get("/tally", tally)
    return app


async def _serve() -> None:
    runner = web.AppRunner(_app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_serve())
