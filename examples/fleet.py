"""A fleet: its processes share a retry budget and the pauses of servers.

It needs redis-py: `pip install redis`. Here two clients stand for two processes. The
example starts a redis-server of its own, and is skipped (exit code 77) where there is none.
"""

import asyncio
import contextlib
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as NotThereError

from retrykit import AsyncHTTPClient, GiveUpError, OriginPausedError, RetryBudget, RetryPolicy
from retrykit.redis import Fleet
from retrykit.testing import Reply, ScriptedServer, no_waits

# Retries of all processes together: 3 in an outage, and one with every ten calls that succeed.
BUDGET = RetryBudget.ratio(0.1, reserve=3)


@contextlib.asynccontextmanager
async def process_of_a_fleet(store: str, base_url: str) -> AsyncIterator[AsyncHTTPClient]:
    """What each process does, for as long as it runs."""
    # A retry waits for the store no longer than timeout=. In production, keep the default of 50 ms.
    async with Fleet(store, key="orders", budget=BUDGET, timeout=5) as fleet:
        policy = RetryPolicy(jitter="full", timeout=20, budget=fleet.budget, pause=fleet.pause)
        async with AsyncHTTPClient(base_url, policy=policy) as client:
            yield client


async def outcome_of_call(client: AsyncHTTPClient, path: str) -> str:
    """Make a call; how it ended."""
    try:
        return f"got {await client.get(path)}"
    except GiveUpError as error:
        return f"{', '.join(map(str, error.attempts))}; gave up: {error.reason}"
    except OriginPausedError as error:
        return f"not sent: {error.reason}"


# --- the stage: a Redis, a server that fails, and waits that take no time ---------------------------------------------


@contextlib.asynccontextmanager
async def redis_server() -> AsyncIterator[str]:
    """A redis-server on a free port, with nothing in it; its URL."""
    program = shutil.which("redis-server")
    if program is None:
        print("skipped: redis-server is not installed (Debian, Ubuntu: apt-get install redis-server)", file=sys.stderr)
        sys.exit(77)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        options = ["--bind", "127.0.0.1", "--port", port, "--dir", folder, "--save", "", "--logfile", "log"]
        process = await asyncio.create_subprocess_exec(program, *options)
        try:
            await until_it_answers(f"redis://127.0.0.1:{port}/0")
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.kill()
            await process.wait()


async def until_it_answers(url: str) -> None:
    """Wait for a Redis that was just started."""
    async with asyncio.timeout(10), Redis.from_url(url) as redis:
        while True:
            with contextlib.suppress(NotThereError):
                await redis.ping()
                return
            await asyncio.sleep(0.01)


async def main() -> None:
    """Let two processes meet an outage, and then a rate limit."""
    async with (
        redis_server() as store,
        ScriptedServer() as server,
        process_of_a_fleet(store, server.url) as one,
        process_of_a_fleet(store, server.url) as two,
    ):
        server.script("/down", 503)
        server.script("/busy", Reply(429, retry_after=40), {"id": 1})
        with no_waits():
            print("one, in an outage:", await outcome_of_call(one, "/down"))
            print("two, in an outage:", await outcome_of_call(two, "/down"))
            print("two, once more:   ", await outcome_of_call(two, "/down"))

            print("one, told to wait for 40 s:", await outcome_of_call(one, "/busy"))
            await until_it_is_told(two)
            print("two, which one has told:   ", await outcome_of_call(two, "/busy"))
            print(f"requests for /busy: {len(server.requests('/busy'))}")


async def until_it_is_told(client: AsyncHTTPClient) -> None:
    """Wait until a pause of another process is known: that is a message."""
    fleet_pause = client.policy.pause
    assert fleet_pause is not None
    async with asyncio.timeout(10):
        while fleet_pause.hold(str(client.base_url.origin())) is None:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(main())
