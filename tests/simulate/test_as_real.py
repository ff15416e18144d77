"""The simulation is what real calls do: the same calls, run by the real loop in an event loop on virtual time."""

import asyncio
import selectors
from collections import Counter

import aiohttp
import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from retrykit import CircuitBreaker, GiveUpEvent, OriginPause, RetryBudget, RetryPolicy, retry_http, set_listeners
from retrykit.core import clock
from retrykit.simulate import Scenario, simulate
from retrykit.simulate.server import Server
from retrykit.simulate.world import numbers

SEED = 3


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that doesn't wait: where there is nothing to do now, it is later at once."""

    def __init__(self):
        super().__init__(_Impatient(self))
        self.virtual = 0.0

    def time(self):
        return self.virtual


class _Impatient(selectors.DefaultSelector):
    def __init__(self, loop):
        super().__init__()
        self._loop = loop

    def select(self, timeout=None):
        assert timeout is not None, "nothing will ever happen again"
        self._loop.virtual += timeout
        return super().select(0)


class LoopClock(clock.SystemClock):
    """The time of a loop, and the draws of the simulation."""

    def __init__(self, loop):
        self.now = self.wall = loop.time
        self.draw = numbers(SEED, "waits")


def unavailable(retry_after):
    headers = CIMultiDictProxy(CIMultiDict({} if retry_after is None else {"Retry-After": str(retry_after)}))
    url = URL("https://api.example.com")
    return aiohttp.ClientResponseError(aiohttp.RequestInfo(url, "GET", headers, url), (), status=503, headers=headers)


def really(scenario, policy):
    """Requests and successes in each second, how many calls sent how many requests, and why they ended."""
    received, served, sent, reasons = Counter(), Counter(), Counter(), Counter()
    told = {}
    server = Server(scenario, numbers(SEED, "failures"))

    @retry_http(policy=policy)
    async def request(requests):
        now = asyncio.get_running_loop().time()
        requests.append(now)
        received[int(now)] += 1
        answered = server.receive(now)
        if answered is None:
            raise unavailable(scenario.retry_after)
        await asyncio.sleep(answered - now)

    async def call(begins):
        loop, requests = asyncio.get_running_loop(), []
        await asyncio.sleep(begins - loop.time())
        try:
            await request(requests)
        except (aiohttp.ClientError, TimeoutError) as error:
            reasons[told.get(asyncio.current_task()) or getattr(error, "reason", "not_retried")] += 1
        else:
            served[int(loop.time())] += 1
            reasons["success"] += 1
        sent[len(requests)] += 1

    def tell(event):
        if isinstance(event, GiveUpEvent):
            told[asyncio.current_task()] = event.reason

    async def run():
        await asyncio.gather(*(call(begins) for begins in scenario.arrivals(numbers(SEED, "arrivals"))))

    set_listeners(tell)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner, clock.using(LoopClock(runner.get_loop())):
        runner.run(run())
    return received, served, sent, reasons


def counted(series):
    return Counter({second: count for second, count in enumerate(series) if count})


POLICIES = {
    "no retry": lambda: RetryPolicy(max_retries=1, attempt_timeout=1),
    "exponential": lambda: RetryPolicy(max_retries=4, attempt_timeout=1),
    "full jitter": lambda: RetryPolicy(max_retries=4, attempt_timeout=1, jitter="full"),
    "decorrelated jitter": lambda: RetryPolicy(max_retries=4, attempt_timeout=1, jitter="decorrelated"),
    "timeout": lambda: RetryPolicy(max_retries=9, timeout=4, jitter="equal"),
    "no timeout": lambda: RetryPolicy(base_delay=0.3),
    "not repeatable": lambda: RetryPolicy(max_retries=4, attempt_timeout=1, idempotent=False),
    "not retried": lambda: RetryPolicy(statuses={502}, exceptions=(), attempt_timeout=1),
    "not so long": lambda: RetryPolicy(attempt_timeout=1, max_retry_after=1, pause=OriginPause()),
    "budget": lambda: RetryPolicy(max_retries=4, attempt_timeout=1, jitter="full", budget=RetryBudget()),
    "breaker": lambda: RetryPolicy(max_retries=4, attempt_timeout=1, breaker=CircuitBreaker(open_for=1)),
    "breaker, not retried": lambda: RetryPolicy(
        statuses={502}, attempt_timeout=1, breaker=CircuitBreaker(failure_rate=0.9, window=1, min_attempts=5)
    ),
    "pause": lambda: RetryPolicy(max_retries=4, attempt_timeout=1, pause=OriginPause()),
    "pause and breaker": lambda: RetryPolicy(
        attempt_timeout=1, pause=OriginPause(), breaker=CircuitBreaker(failure_rate=0.3, window=0.1, min_attempts=1)
    ),
    "all": lambda: RetryPolicy(
        max_retries=4,
        attempt_timeout=1,
        timeout=6,
        jitter="full",
        budget=RetryBudget(),
        breaker=CircuitBreaker(min_attempts=5, open_for=3),
        pause=OriginPause(),
    ),
}


@pytest.mark.parametrize("retry_after", [None, 2])
@pytest.mark.parametrize("make", POLICIES.values(), ids=POLICIES)
def test_an_outage_and_an_overload(make, retry_after):
    scenario = Scenario(
        rate=30,
        capacity=50,
        queue=60,
        duration=15,
        outages=((2, 4),),
        overloads=((8, 10, 3),),
        failure_rate=0.02,
        retry_after=retry_after,
    )
    [foretold] = simulate(scenario, {"policy": make}, SEED)
    received, served, sent, reasons = really(scenario, make())
    assert foretold.requests > 100
    assert (counted(foretold.received), counted(foretold.served)) == (received, served)
    assert (foretold.sent, foretold.reasons) == (sent, reasons)
