"""A session that retries by itself, with a middleware of your own on each side of that."""

import asyncio

import aiohttp

from retrykit import RetryMiddleware
from retrykit.testing import Disconnect, ScriptedServer

seen = {"calls": 0, "attempts": 0}


async def count_calls(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """What stands before `RetryMiddleware` sees one request for each call."""
    seen["calls"] += 1
    return await handler(request)


async def count_attempts(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """What stands after it sees each attempt."""
    seen["attempts"] += 1
    return await handler(request)


async def main() -> None:
    """Make three calls."""
    retries = RetryMiddleware(max_retries=3, base_delay=0.05)
    async with (
        ScriptedServer() as server,
        aiohttp.ClientSession(server.url, middlewares=[count_calls, retries, count_attempts]) as session,
    ):
        server.script("/users/123", Disconnect(), 503, {"id": 123, "name": "Ada"})
        async with session.get("/users/123") as response:
            user = await response.json()
        requests = len(server.requests("/users/123"))
        print(f"{user['name']} came after {seen['calls']} call, {seen['attempts']} attempts and {requests} requests")

        # A gateway's 504: the request may have been processed, and a POST is not repeated unasked.
        server.script("/orders", 504, 504, {"id": 7})
        async with session.post("/orders", json={"item": 1}) as response:
            print(f"POST /orders answered {response.status} after {len(server.requests('/orders'))} request")

        # The server can tell by the key that both requests are for one order.
        async with session.post("/orders", json={"item": 1}, headers={"Idempotency-Key": "5f0c2a9e"}) as response:
            keys = [request.headers.get("Idempotency-Key") for request in server.requests("/orders")[1:]]
            print(f"POST /orders answered {response.status} after {len(keys)} requests with {len(set(keys))} key")


if __name__ == "__main__":
    asyncio.run(main())
