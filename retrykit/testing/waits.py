"""Waits that take no time."""

import asyncio
import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from retrykit.core import clock


@contextlib.contextmanager
def no_waits() -> Iterator[list[float]]:
    """Skip the waits between attempts, everywhere in the process.

    Yields the list of the waits that were skipped, in seconds, in the order in which they began:

        with no_waits() as waits:
            await get_user(session, 1)
        assert waits == [1.0, 2.0]

    To the code that waits, the time seems to have passed: a call's `timeout` counts skipped waits. Only the waits
    between attempts are skipped; a slow server is still slow.
    """
    skipping = _SkippingClock()
    _skipped.set(0.0)
    with clock.using(skipping):
        yield skipping.waits


# Each task has a time of its own, so that the waits of one call don't use up the timeout of another.
_skipped: ContextVar[float] = ContextVar("retrykit_skipped", default=0.0)


class _SkippingClock(clock.SystemClock):
    def __init__(self) -> None:
        self.waits: list[float] = []

    def now(self) -> float:
        return super().now() + _skipped.get()

    def wall(self) -> float:
        return super().wall() + _skipped.get()

    async def sleep(self, seconds: float, /) -> None:
        self.waits.append(seconds)
        _skipped.set(_skipped.get() + seconds)
        await asyncio.sleep(0)
