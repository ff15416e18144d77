"""Fleet: what the processes that use the same key share."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Self, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from retrykit.core import checks, clock
from retrykit.core.policy import Seconds
from retrykit.guards.budget import RetryBudget
from retrykit.guards.pause import OriginPause
from retrykit.redis.budget import FleetBudget
from retrykit.redis.pause import FleetPause
from retrykit.redis.store import TO_CONNECT, Client, Store

# To connect and to answer, one after the other, and a little for what runs beside.
_TO_START = 2 * TO_CONNECT

T = TypeVar("T")


class Fleet:
    """One retry budget, and the pauses of origins, for all processes that use the same key of a Redis, or Valkey.

        async with Fleet("redis://localhost:6379/0", key="orders") as fleet:
            policy = RetryPolicy(budget=fleet.budget, pause=fleet.pause)

    A call that succeeds makes no round trip. A retry makes one at the most (and one more after the server has
    restarted), for which it waits no longer than `timeout`. Where the store does not answer by then, refuses, or is
    gone, the process goes by what it knows itself, and no call asks the store again before it has proved, in the
    background and after `cool_down`, that it is back. The log says both once. So no call fails because of the store.

    A `Fleet` belongs to the event loop that has entered it, and its budget and pause to the calls of that loop; from
    elsewhere, and before it is entered, they go by what is local. It must not be shared by threads.

    Args:
        client: The URL of the store, such as `"redis://localhost:6379/0"` (`rediss://` for TLS), or an asyncio client
            of redis-py. A client that you hand in is never closed; its timeouts and retries don't matter, since all
            waits are limited here.
        key: Names what is shared: processes with the same key share it, and others don't. All its names in the store
            begin with `retrykit:{key}:`.
        budget: A budget that has the numbers of the shared buckets; each origin's begins full. Default:
            `RetryBudget()`.
        local: The budget of this process while the store is away. Default: the numbers of `budget` with a tenth of its
            capacity, but at least one retry, because N processes that each have a full reserve have N reserves.
        pause: Has the `spread` and the `longest` of the pauses. Default: `OriginPause()`.
        timeout: Seconds (or a `timedelta`) that a retry waits for the store at the most. Default: 0.05.
        cool_down: Seconds (or a `timedelta`) for which the store is not asked after it has failed. Default: 5.

    Raises:
        ValueError: The URL, the key or a time can't work.
        TypeError: An argument is something else.
    """

    def __init__(
        self,
        client: Client | str,
        *,
        key: str,
        budget: RetryBudget | None = None,
        local: RetryBudget | None = None,
        pause: OriginPause | None = None,
        timeout: Seconds = 0.05,
        cool_down: Seconds = 5.0,
    ) -> None:
        self._make_client = _client_maker(client)
        self._is_ours = isinstance(client, str)
        self.key = _text_without_braces(key)
        self.timeout, self.cool_down = checks.positive("timeout", timeout), checks.positive("cool_down", cool_down)
        self.budget = FleetBudget(
            _instance(RetryBudget, "budget", budget) or RetryBudget(), _instance(RetryBudget, "local", local)
        )
        """For `RetryPolicy(budget=…)`."""
        self.pause = FleetPause(_instance(OriginPause, "pause", pause) or OriginPause())
        """For `RetryPolicy(pause=…)`."""
        self._client: Client | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Connect, learn which pauses are running, and share from now on.

        It waits for that, but no longer than 2 s, and does not fail where the store is away.

        Raises:
            RuntimeError: It is running already.
        """
        if self._loop is not None and self._loop.is_closed():
            self._forget()  # Nobody has closed it while that loop ran.
        if self._client is not None:
            raise RuntimeError(f"the fleet {self.key!r} is running already; start it once, and share the object")
        self._loop = asyncio.get_running_loop()
        self._client = self._make_client()
        store = Store(self._client, self.key, self.timeout, self.cool_down)
        runners = (self.budget.attach(store), *self.pause.attach(store))
        self._tasks = [asyncio.create_task(runner.run(), name=f"retrykit fleet {self.key}") for runner in runners]
        try:
            with contextlib.suppress(TimeoutError):
                async with clock.time_limit(_TO_START):
                    for runner in runners:
                        await runner.has_tried.wait()
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Bring what was collected to the store, if it is there, and leave it; afterwards, all is local.

        Where the event loop that it was started in is closed already, it is only left.
        """
        if self._loop is not asyncio.get_running_loop():
            self._forget()
            return
        tasks, self._tasks = self._tasks, []
        client, self._client = self._client, None
        deliveries = (self.budget.detach(), self.pause.detach())
        for task in tasks:
            task.cancel()
        try:
            await _within_limit(asyncio.gather(*tasks, return_exceptions=True))
            await _within_limit(asyncio.gather(*(deliver() for deliver in deliveries), return_exceptions=True))
        finally:
            if client is not None and self._is_ours:
                await _within_limit(client.aclose())

    def _forget(self) -> None:
        self._tasks, self._client, self._loop = [], None, None
        self.budget.detach()
        self.pause.detach()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key!r}, {'running' if self._client is not None else 'not running'}>"


def _client_maker(client: object) -> Callable[[], Client]:
    """What gives the client: each start of the fleet makes one of its own, where a URL was given."""
    if isinstance(client, str):
        make = partial(
            Redis.from_url,
            client,
            # Nothing is tried twice, and nothing takes long: redis-py's own defaults may add up to a minute.
            retry=Retry(NoBackoff(), 0),
            socket_timeout=TO_CONNECT,
            socket_connect_timeout=TO_CONNECT,
        )
        make()  # It connects to nothing yet, and refuses a URL that can't work.
        return make
    if not isinstance(client, Client):
        raise TypeError(
            f"{type(client).__name__} is no asyncio client of redis-py; write a URL such as 'redis://localhost:6379/0',"
            " or hand in a redis.asyncio.Redis"
        )
    if not hasattr(client, "pubsub"):
        raise TypeError(
            f"the {type(client).__name__} of this redis-py can't subscribe, so that no pause could be shared; install a"
            " newer redis-py"
        )
    return lambda: client


def _text_without_braces(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"key={key!r} is no text; write what the processes have in common, such as key='orders'")
    if not key or "{" in key or "}" in key:
        raise ValueError(
            f"key={key!r} can't be put between braces in the names of the store; write a word, such as key='orders'"
        )
    return key


def _instance(kind: type[T], name: str, value: object) -> T | None:
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name}={value!r} is no {kind.__name__}; write {name}={kind.__name__}()")
    return value


async def _within_limit(ending: Awaitable[object]) -> None:
    """Wait until something has ended; what has not after that time is left, and so is what is wrong with it."""
    with contextlib.suppress(Exception):
        async with clock.time_limit(TO_CONNECT):
            await ending
