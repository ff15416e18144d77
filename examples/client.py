"""A client, and what comes out of its calls: a body, an answer that is an error, a call that was given up on."""

import asyncio

from retrykit import AsyncHTTPClient, GiveUpError, ResponseError
from retrykit.testing import Reply, ScriptedServer


async def main() -> None:
    """Make four calls."""
    async with ScriptedServer() as server:
        server.script("/users", 503, [{"id": 123}], method="GET")
        server.script("/users", 504, {"id": 124}, method="POST")
        server.script("/closed", Reply(503, "Back tomorrow.", retry_after=86400))

        async with AsyncHTTPClient(server.url, max_retries=4, base_delay=0.05) as client:
            print("GET /users:", await client.get("/users"))

            try:
                await client.get("/nobody")
            except ResponseError as error:
                print("GET /nobody:", error.status)

            try:  # A gateway's 504: the request may have been processed, and a POST is not repeated unasked.
                await client.post("/users", {"name": "Grace"})
            except GiveUpError as error:
                print("POST /users:", error.status, error.reason)

            try:
                await client.get("/closed")
            except GiveUpError as error:
                print("GET /closed:", error.status, error.reason, error.body.decode())


if __name__ == "__main__":
    asyncio.run(main())
