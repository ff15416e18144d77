"""Time, sleep and randomness: the one door through which they come in.

Everything else in retrykit asks here, so that a test can replace all of it at once (`using`).
"""

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import Any, Protocol


class Clock(Protocol):
    """What can be replaced. All times are seconds."""

    def now(self) -> float:
        """A monotonic time; only differences mean something."""
        ...

    def wall(self) -> float:
        """The time of day, in seconds since the epoch."""
        ...

    def sleep(self, seconds: float, /) -> Awaitable[None]:
        """Wait."""
        ...

    def draw(self) -> float:
        """A random number in [0, 1)."""
        ...

    def key(self) -> str:
        """A text that nobody else has."""
        ...


class SystemClock:
    """The machine's own."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    # asyncio's own coroutine, with no frame of ours around it: it is held for as long as a call waits.
    sleep = staticmethod(asyncio.sleep)
    draw = staticmethod(random.random)

    @staticmethod
    def key() -> str:
        """A random UUID (RFC 9562 §5.4)."""
        return str(uuid.uuid4())


_clocks: list[Clock] = [SystemClock()]

# Not functions around the clock's: they are called several times in each retry. Only `using` sets them, so ask for them
# by the module (`clock.now()`), and never import them from it.
now: Callable[[], float] = _clocks[-1].now
"""A monotonic time in seconds."""
wall: Callable[[], float] = _clocks[-1].wall
"""The time of day, in seconds since the epoch."""
sleep: Callable[[float], Awaitable[None]] = _clocks[-1].sleep
"""Wait for so many seconds."""
draw: Callable[[], float] = _clocks[-1].draw
"""A random number in [0, 1)."""
key: Callable[[], str] = _clocks[-1].key
"""A text that nobody else has: a random UUID."""


def seeded(seed: object) -> Callable[[], float]:
    """What draws numbers in [0, 1) that are the same for the same seed, in any process."""
    return random.Random(str(seed)).random  # noqa: S311 - no secret depends on it.


def time_limit(seconds: float | None) -> asyncio.Timeout:
    """Cancel what runs inside after so many real seconds, and raise `TimeoutError` in its place; `None` never does."""
    return asyncio.timeout(seconds)


async def first_of(futures: Collection[asyncio.Future[Any]], seconds: float | None) -> bool:
    """Wait until one of them is done, or for so many real seconds: is one done?"""
    done, _ = await asyncio.wait(futures, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    return bool(done)


@contextlib.contextmanager
def using(clock: Clock) -> Iterator[None]:
    """Run on another clock, everywhere in the process; of several, on the one that came last."""
    _clocks.append(clock)
    _set(clock)
    try:
        yield
    finally:
        _clocks.remove(clock)
        _set(_clocks[-1])


def _set(clock: Clock) -> None:
    global now, wall, sleep, draw, key
    now, wall, sleep, draw, key = clock.now, clock.wall, clock.sleep, clock.draw, clock.key
