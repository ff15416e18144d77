"""The store, as one process asks it: in the background, within limits, and after a failure only after a while."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import InvalidResponse, NoScriptError, ResponseError

from retrykit.core import clock
from retrykit.core.events import in_seconds
from retrykit.core.listeners import logger
from retrykit.redis.scripts import CHANGE, Script

Client = Redis | RedisCluster

TO_CONNECT = 1.0
"""Seconds for what no call waits for: a new connection, which takes several round trips, and with TLS more of them."""

MOST_ORIGINS = 1024
"""Of which something is kept, as with other guards."""

# Nobody asks for a bucket in that time: whatever has emptied it is over.
_KEPT = 3_600_000


class Store:
    """One key's part of Redis.

    Args:
        client: Asks it.
        key: What all its names have in common.
        timeout: Seconds within which it has to answer.
        cool_down: Seconds for which it is not asked after a failure.
    """

    def __init__(self, client: Client, key: str, timeout: float, cool_down: float) -> None:
        self.client, self.timeout, self.cool_down = client, timeout, cool_down
        self._key = key
        self._failing: set[str] = set()

    def name(self, *parts: str) -> str:
        """A key or channel. What stands in braces decides where in a cluster it is: all are in the same place."""
        return ":".join((f"retrykit:{{{self._key}}}", *parts))

    async def run(
        self, script: Script, keys: Sequence[str], args: Sequence[str | float], limit: float | None = None
    ) -> list[Any]:
        """Run a script: one round trip, and one more where the server has restarted and does not know it.

        Args:
            script: Which.
            keys: Those that it touches.
            args: Its arguments.
            limit: Seconds that it may take. Default: the store's `timeout`.

        Raises:
            Exception: It failed, whatever way: it took too long, was refused, or the answer makes no sense.
        """
        asking = asyncio.create_task(self._ask(script, keys, args))
        asking.add_done_callback(_look_at)
        try:
            # Not by a `time_limit`: an answer that came while this process was busy is in time.
            if not await clock.first_of([asking], self.timeout if limit is None else limit):
                raise TimeoutError
            return asking.result()
        finally:
            if asking.cancel():  # Its connection is closed, since the answer may come yet.
                await clock.first_of([asking], TO_CONNECT)

    async def _ask(self, script: Script, keys: Sequence[str], args: Sequence[str | float]) -> list[Any]:
        try:
            answer = await self.client.evalsha(script.sha, len(keys), *keys, *args)
        except NoScriptError:
            answer = await self.client.eval(script.text, len(keys), *keys, *args)
        if not isinstance(answer, list):
            raise InvalidResponse
        return answer

    async def change(
        self, buckets: dict[str, list[float]], capacity: float, limit: float | None = None
    ) -> list[list[bool]]:
        """Change the tokens of buckets; tells of each change whether it was made.

        Raises:
            Exception: As of `run`.
        """
        args: list[str | float] = [_KEPT, repr(capacity)]
        for changes in buckets.values():
            args += [len(changes), *map(repr, changes)]
        made = await self.run(CHANGE, list(buckets), args, limit)
        if len(made) != sum(map(len, buckets.values())):
            raise InvalidResponse
        answers = iter(made)
        return [[next(answers) == 1 for _ in changes] for changes in buckets.values()]

    async def probe(self) -> None:
        """Is it there, does it take what is written, and is it quick enough? Afterwards there is a connection.

        Raises:
            Exception: It isn't.
        """
        bucket = self.name("probe")
        await self.change({bucket: [-1.0]}, 1.0, TO_CONNECT)
        await self.change({bucket: [1.0]}, 1.0)

    def failed(self, part: str, error: Exception) -> None:
        """A part of the fleet can't reach it; the first one to see that says so in the log."""
        if not self._failing:
            logger.warning(
                "fleet %r: the store failed (%s, asked for the %s); this process goes by what it knows itself, and"
                " tries the store again every %s",
                self._key,
                _named(error),
                part,
                in_seconds(self.cool_down),
            )
        self._failing.add(part)

    def works(self, part: str) -> None:
        """A part of the fleet has reached it; the last one to do so says it in the log."""
        if part in self._failing:
            self._failing.remove(part)
            if not self._failing:
                logger.info("fleet %r: the store is back", self._key)


class Courier:
    """Takes to the store what there is for it, whenever it is woken, and from time to time.

    Args:
        store: Where to.
        part: Of the fleet, for which it goes.
        deliver: What it does there.
        every: Seconds after which it goes without being woken. Default: it doesn't.
        at_the_end: What happens when it goes no more, whoever has cancelled it.
    """

    def __init__(
        self,
        store: Store,
        part: str,
        deliver: Callable[[], Awaitable[None]],
        *,
        every: float | None = None,
        at_the_end: Callable[[], None] | None = None,
    ) -> None:
        self.store, self.loop = store, asyncio.get_running_loop()
        self.is_up = False
        """Did it get through, the last time it went?"""
        self.has_tried = asyncio.Event()
        """Has it gone for the first time?"""
        self._part, self._deliver, self._every, self._at_the_end = part, deliver, every, at_the_end
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There is something to deliver. During a cool-down, it waits."""
        if self.is_up:
            self._woken.set()

    async def run(self) -> None:
        """Go again and again."""
        try:
            while True:
                self._woken.clear()
                await self._go()
                self.has_tried.set()
                if self.is_up:
                    await real_wait(self._woken, self._every)
                else:  # Whoever has asked meanwhile has an answer by now.
                    await real_wait(asyncio.Event(), self.store.cool_down)
        finally:
            self.is_up = False
            if self._at_the_end is not None:
                self._at_the_end()

    async def _go(self) -> None:
        try:
            if not self.is_up:
                await self.store.probe()
            await self._deliver()
        except Exception as error:  # noqa: BLE001 - whatever the store does, no call may fail for it.
            self.is_up = False
            self.store.failed(self._part, error)
        else:
            self.is_up = True
            self.store.works(self._part)


async def nothing() -> None:
    """Deliver nothing."""


async def real_wait(event: asyncio.Event, seconds: float | None) -> None:
    """Wait for an event, but no longer than so many seconds of real time, even where a test skips waits."""
    with contextlib.suppress(TimeoutError):
        async with clock.time_limit(seconds):
            await event.wait()


def _look_at(asking: asyncio.Task[list[Any]]) -> None:
    """See how it ended; asyncio reports failures that nobody has seen."""
    if not asking.cancelled():
        asking.exception()


def _named(error: Exception) -> str:
    """A failure without its text, which may repeat what was sent, such as a password."""
    name = type(error).__name__
    code = str(error).partition(" ")[0]
    return f"{name}: {code}" if type(error) is ResponseError and code.isalpha() and code.isupper() else name
