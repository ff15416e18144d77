"""A server that is down, and what reaches it: without guards, with a budget, with a circuit breaker, with a pause."""

import asyncio
import logging
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
from retrykit.testing import Reply, ScriptedServer

POLICY = RetryPolicy(max_retries=3, base_delay=0.01)


async def outcome_of_call(client: AsyncHTTPClient) -> str:
    """Make a call; the way it ended, in a word."""
    try:
        await client.get("/users")
    except GiveUpError as error:
        return error.reason
    except (CircuitOpenError, OriginPausedError) as error:
        return f"unsent by {error.reason}"
    return "ok"


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
    """Call a server that asks the first one to wait for a second."""
    policy = POLICY.replace(pause=OriginPause(), timeout=0.3)
    async with ScriptedServer() as server, AsyncHTTPClient(server.url, policy=policy) as client:
        server.script("/users", Reply(429, retry_after=1), [{"id": 123}])
        ends = await twenty_calls(client)
        print(f"pause: {len(server.requests())} request ({ends})")
        print("pause, a call that can wait:", await client.get("/users", timeout=5))


async def main() -> None:
    """Make the same 20 calls under each guard."""
    logging.getLogger("retrykit").setLevel(logging.ERROR)
    await outage("no guard", POLICY)
    await outage("budget", POLICY.replace(budget=RetryBudget.ratio(0.1, reserve=2)))
    await outage("breaker", POLICY.replace(breaker=CircuitBreaker(min_attempts=5)))
    await rate_limit()


if __name__ == "__main__":
    asyncio.run(main())
