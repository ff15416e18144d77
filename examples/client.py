"""A client, and what comes out of its calls: a body, an error that is an answer, or a give-up."""

import asyncio

from retrykit import AsyncHTTPClient, GiveUpError, ResponseError
from retrykit.testing import Reply, ScriptedServer, no_waits


async def make_calls(base_url: str) -> None:
    """Make five calls to one service."""
    async with AsyncHTTPClient(base_url, max_retries=4, timeout=20) as client:
        print("GET /users:", await client.get("/users"))

        try:
            await client.get("/nobody")
        except ResponseError as error:  # a status of 400 or more
            print("GET /nobody:", error.status)

        try:
            await client.get("/closed")
        except GiveUpError as error:  # one that could have been retried
            print("GET /closed:", error.status, error.reason, repr(error.body.decode()))

        try:  # A gateway's 504: it may have been processed, and a POST is not repeated unasked.
            await client.post("/orders", {"item": 1})
        except GiveUpError as error:
            print("POST /orders:", error.status, error.reason)

        # The server can tell by the key that both requests are for one order.
        order = await client.post("/orders", {"item": 1}, idempotency_key=True)
        print("POST /orders, with a key:", order)


# --- the stage: a server that fails, and waits that take no time ------------------------------------------------------


async def main() -> None:
    """Show the calls."""
    async with ScriptedServer() as server:
        server.script("/users", 503, [{"id": 123}])
        server.script("/closed", Reply(503, "Back tomorrow.", retry_after=86400))
        server.script("/orders", 504, 504, {"id": 7})
        with no_waits():
            await make_calls(server.url)


if __name__ == "__main__":
    asyncio.run(main())
