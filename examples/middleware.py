"""A session that retries by itself, with a middleware of your own on each side of that."""

import asyncio

import aiohttp
from aiohttp import ClientHandlerType, ClientMiddlewareType, ClientRequest, ClientResponse

from retrykit import RetryMiddleware
from retrykit.testing import Disconnect, ScriptedServer, no_waits

seen = {"calls": 0, "attempts": 0}


async def count_calls(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """What stands before `RetryMiddleware` sees one request for each call."""
    seen["calls"] += 1
    return await handler(request)


async def count_attempts(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """What stands after it sees each attempt."""
    seen["attempts"] += 1
    return await handler(request)


async def make_calls(base_url: str) -> None:
    """Send three requests by such a session, as by any other."""
    retries = RetryMiddleware(max_retries=3)
    middlewares: list[ClientMiddlewareType] = [count_calls, retries, count_attempts]
    async with aiohttp.ClientSession(base_url, middlewares=middlewares) as session:
        async with session.get("/users/123") as response:
            user = await response.json()
        print(f"GET /users/123: {user}, by {seen['calls']} call and {seen['attempts']} attempts")

        # A gateway's 504: it may have been processed, and a POST is not repeated unasked.
        async with session.post("/orders", json={"item": 1}) as response:
            print("POST /orders:", response.status)

        # The server can tell by the key that both requests are for one order.
        key = {"Idempotency-Key": "5f0c2a9e"}
        async with session.post("/orders", json={"item": 1}, headers=key) as response:
            print("POST /orders, with a key:", response.status)


# --- the stage: a server that fails, and waits that take no time ------------------------------------------------------


async def main() -> None:
    """Show the calls, and the requests that they became."""
    async with ScriptedServer() as server:
        server.script("/users/123", Disconnect(), 503, {"id": 123, "name": "Ada"})
        server.script("/orders", 504, 504, {"id": 7})
        with no_waits():
            await make_calls(server.url)
        keys = [request.headers.get("Idempotency-Key") for request in server.requests("/orders")]
        print("The server has seen", len(server.requests("/users/123")), "GETs, and POSTs with the keys", keys)


if __name__ == "__main__":
    asyncio.run(main())
