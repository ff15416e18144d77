"""A decorated coroutine, and a server that is overloaded, then breaks off, then answers."""

import asyncio
import logging
from typing import Any

import aiohttp

from retrykit import attempts_of, retry_http
from retrykit.testing import Reply, ScriptedServer, Truncated

USER = {"id": 123, "name": "Ada"}


@retry_http(max_retries=3, base_delay=0.05, jitter="full")
async def get_user(session: aiohttp.ClientSession, user_id: int) -> Any:
    """The body is read inside, so that one that breaks off is retried, too."""
    async with session.get(f"/users/{user_id}") as response:
        response.raise_for_status()
        return await response.json()


@retry_http(max_retries=3, base_delay=0.05)
async def send_request(session: aiohttp.ClientSession, path: str) -> aiohttp.ClientResponse:
    """A coroutine that returns a response is judged by the response's status."""
    return await session.get(path)


async def main() -> None:
    """Make two calls."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    async with ScriptedServer() as server, aiohttp.ClientSession(server.url) as session:
        server.script("/users/123", Reply(429, retry_after=0), Truncated(USER), USER)
        user = await get_user(session, 123)
        print(f"{user['name']} came after {len(server.requests('/users/123'))} requests")

        server.script("/flaky", 503, 200)
        async with await send_request(session, "/flaky") as response:
            outcomes = " then ".join(str(attempt) for attempt in attempts_of(response))
            print(f"/flaky answered {outcomes}")


if __name__ == "__main__":
    asyncio.run(main())
