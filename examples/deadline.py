"""Web services that call one another, and say in a header how long the caller still waits."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, web
from aiohttp.test_utils import TestServer
from aiohttp.typedefs import Handler
from yarl import URL

from retrykit import AsyncHTTPClient, GiveUpError, deadline_scope, time_left
from retrykit.testing import ScriptedServer, Stall

HEADER = "X-Timeout"
LONGEST = 10.0  # Seconds, also for those who ask for nothing.
PASSED_ON = 0.8  # Of what is left: so the service behind gives up first, and can say why.


@web.middleware
async def keep_deadline(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Of a web application: what a handler calls has to end while its caller waits."""
    with deadline_scope(seconds_for(request)):
        try:
            return await handler(request)
        except TimeoutError:
            return web.Response(status=504, text=f"{request.path} had no time left")
        except GiveUpError as error:
            return web.Response(status=504, body=error.body)
        except aiohttp.ClientError:
            return web.Response(status=502, text=f"what is behind {request.path} did not answer")


def seconds_for(request: web.Request) -> float:
    """What a caller asks for, and no more than this service gives."""
    try:
        seconds = float(request.headers[HEADER])
    except (KeyError, ValueError):
        return LONGEST
    return max(seconds, 0.0) if seconds <= LONGEST else LONGEST


async def send_deadline(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """Of a session: each attempt says what is left by then."""
    left = time_left()
    if left is not None:
        request.headers[HEADER] = f"{left * PASSED_ON:.3f}"
    return await handler(request)


CLIENT = web.AppKey("CLIENT", AsyncHTTPClient)


def service(path: str, behind: URL, max_retries: int) -> web.Application:
    """A service that answers one path with what the service behind it says."""

    async def answer(request: web.Request) -> web.Response:  # It knows nothing of deadlines.
        return web.json_response(await request.app[CLIENT].get(behind.path))

    async def with_client(app: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(middlewares=[send_deadline]) as session:
            app[CLIENT] = AsyncHTTPClient(
                behind.origin(),
                session=session,
                max_retries=max_retries,
                base_delay=0.1,
            )
            yield

    app = web.Application(middlewares=[keep_deadline])
    app.router.add_get(path, answer)
    app.cleanup_ctx.append(with_client)
    return app


# --- the stage: a caller -> /shop -> /order -> /stock, which stalls ---------------------------------------------------


async def main() -> None:
    """Ask the shop, with enough time, with too little, and with none."""
    told: dict[str, list[float]] = defaultdict(list)

    async def note(request: web.Request, _: web.StreamResponse) -> None:
        told[request.path].append(float(request.headers[HEADER]))

    async with ScriptedServer() as stock:
        stock.script("/stock", {"items": 3}, 503, Stall())
        order = service("/order", URL(f"{stock.url}/stock"), max_retries=3)
        order.on_response_prepare.append(note)
        async with TestServer(order) as order_server:
            # Only who is nearest to the trouble retries: retries of retries multiply.
            shop = service("/shop", order_server.make_url("/order"), max_retries=1)
            async with TestServer(shop) as shop_server, aiohttp.ClientSession() as session:
                for timeout in (5.0, 1.5, 0.0):
                    headers = {HEADER: str(timeout)}
                    async with session.get(shop_server.make_url("/shop"), headers=headers) as response:
                        print(f"a caller with {timeout} s:", response.status, await response.text())
        told["/stock"] = [float(request.headers[HEADER]) for request in stock.requests("/stock")]

    (order_1, order_2), (stock_1, stock_2, stock_3) = told["/order"], told["/stock"]
    print("each hop has less than the one before:", 5.0 > order_1 > stock_1 and 1.5 > order_2 > stock_2)
    print("a second attempt has less than the first:", stock_2 > stock_3)


if __name__ == "__main__":
    asyncio.run(main())
