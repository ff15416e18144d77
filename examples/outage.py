"""What reaches a server that is down: without guards, with a budget, a breaker, or a pause."""

import asyncio
from collections import Counter

from retrykit import (
    AsyncHTTPClient,
    CircuitBreaker,
    CircuitOpenError,
    GiveUpError,
    OriginPause,
    OriginPausedError,
    RetryBudget,
    RetryPolicy,
)
from retrykit.testing import Reply, ScriptedServer, no_waits

# In production, with jitter="full".
POLICY = RetryPolicy(max_retries=3, timeout=10)
WITH_BUDGET = POLICY.replace(budget=RetryBudget.ratio(0.1, reserve=2))
WITH_BREAKER = POLICY.replace(breaker=CircuitBreaker(min_attempts=5))
WITH_PAUSE = POLICY.replace(pause=OriginPause(), timeout=5)


async def outcome_of_call(client: AsyncHTTPClient) -> str:
    """Make a call; the way it ended, in a word."""
    try:
        await client.get("/users")
    except GiveUpError as error:
        return f"gave up: {error.reason}"
    except (CircuitOpenError, OriginPausedError) as error:
        return f"not sent: {error.reason}"
    return "ok"


# --- the stage: a server that fails, and waits that take no time ------------------------------------------------------


async def twenty_calls(client: AsyncHTTPClient) -> str:
    """Make them, one after the other; how they ended."""
    ends = Counter([await outcome_of_call(client) for _ in range(20)])
    return ", ".join(f"{count} {end}" for end, count in ends.items())


async def outage(title: str, policy: RetryPolicy) -> None:
    """Call a server that is down."""
    async with ScriptedServer() as server, AsyncHTTPClient(server.url, policy=policy) as client:
        server.script("/users", 503)
        ends = await twenty_calls(client)
        print(f"{title}: {len(server.requests())} requests ({ends})")


async def rate_limit() -> None:
    """Call a server that asks the first one to come back in 7 seconds, which is longer than a call can wait."""
    async with ScriptedServer() as server, AsyncHTTPClient(server.url, policy=WITH_PAUSE) as client:
        server.script("/users", Reply(429, retry_after=7), [{"id": 123}])
        ends = await twenty_calls(client)
        print(f"pause: {len(server.requests())} request ({ends})")
        print("pause, a call that can wait:", await client.get("/users", timeout=20))


async def main() -> None:
    """Make the same 20 calls under each guard."""
    with no_waits():
        await outage("no guard", POLICY)
        await outage("budget", WITH_BUDGET)
        await outage("breaker", WITH_BREAKER)
        await rate_limit()


if __name__ == "__main__":
    asyncio.run(main())
