"""A decorated coroutine, and a server that is overloaded, then breaks off, then answers."""

import asyncio
import logging
import sys
from typing import Any

import aiohttp

from retrykit import attempts_of, retry_http
from retrykit.testing import Reply, ScriptedServer, Truncated, no_waits


@retry_http(max_retries=3, base_delay=1.0)
async def get_user(session: aiohttp.ClientSession, user_id: int) -> Any:
    """The body is read inside, so that one that breaks off is retried, too."""
    async with session.get(f"/users/{user_id}") as response:
        response.raise_for_status()
        return await response.json()


@retry_http(max_retries=3, base_delay=1.0)
async def send_request(session: aiohttp.ClientSession, path: str) -> aiohttp.ClientResponse:
    """A coroutine that returns a response is judged by the response's status."""
    return await session.get(path)


async def make_calls(session: aiohttp.ClientSession) -> None:
    """Call both: what is decorated is called as before."""
    user = await get_user(session, 123)
    print("get_user:", user)

    async with await send_request(session, "/flaky") as response:
        outcomes = " then ".join(str(attempt) for attempt in attempts_of(response))
        print("send_request:", outcomes)


# --- the stage: a server that fails, and waits that take no time ------------------------------------------------------


async def main() -> None:
    """Show the calls, and what is logged of them."""
    logging.basicConfig(format="log: %(message)s", stream=sys.stdout)
    logging.getLogger("retrykit").setLevel(logging.INFO)
    user = {"id": 123, "name": "Ada"}
    async with ScriptedServer() as server, aiohttp.ClientSession(server.url) as session:
        server.script("/users/123", Reply(429, retry_after=7), Truncated(user), user)
        server.script("/flaky", 503, 200)
        with no_waits():
            await make_calls(session)


if __name__ == "__main__":
    asyncio.run(main())
