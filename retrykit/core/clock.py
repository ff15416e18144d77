"""Time, sleep and randomness: the one door through which they come in.

Everything else in retrykit asks here, so that a test can replace all of it at once (`using`).
"""

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import Awaitable, Iterator
from typing import Protocol


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
_clock = _clocks[-1]


def now() -> float:
    """A monotonic time in seconds."""
    return _clock.now()


def wall() -> float:
    """The time of day, in seconds since the epoch."""
    return _clock.wall()


def sleep(seconds: float) -> Awaitable[None]:
    """Wait for so many seconds."""
    return _clock.sleep(seconds)


def draw() -> float:
    """A random number in [0, 1)."""
    return _clock.draw()


def key() -> str:
    """A text that nobody else has: a random UUID."""
    return _clock.key()


def time_limit(seconds: float | None) -> asyncio.Timeout:
    """Cancel what runs inside after so many real seconds, and raise `TimeoutError` in its place; `None` never does."""
    return asyncio.timeout(seconds)


@contextlib.contextmanager
def using(clock: Clock) -> Iterator[None]:
    """Run on another clock, everywhere in the process; of several, on the one that came last."""
    global _clock
    _clocks.append(clock)
    _clock = clock
    try:
        yield
    finally:
        _clocks.remove(clock)
        _clock = _clocks[-1]
