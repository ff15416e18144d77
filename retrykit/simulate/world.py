"""What takes the place of the machine's clock: a time that is set, and numbers that follow from a seed."""

import itertools
from collections.abc import Awaitable, Callable

from retrykit.core import clock


def numbers(seed: int, purpose: str) -> Callable[[], float]:
    """Numbers in [0, 1) that are the same for the same seed and purpose.

    Each purpose has its own, so that one that is drawn more for a policy changes nothing else for it.
    """
    return clock.seeded(f"{purpose} {seed}")


class VirtualClock:
    """A clock (`retrykit.core.clock.Clock`) whose time is set from outside."""

    __slots__ = ("_draw", "_keys", "time")

    def __init__(self, draw: Callable[[], float]) -> None:
        self.time = 0.0
        self._draw = draw
        self._keys = itertools.count()

    def now(self) -> float:
        """The time."""
        return self.time

    def wall(self) -> float:
        """The same."""
        return self.time

    def sleep(self, seconds: float, /) -> Awaitable[None]:
        """Nobody waits on this clock: it is told when something goes on."""
        raise RuntimeError(
            f"something would sleep for {seconds:g} s inside of a simulation, where nobody waits; leave out what"
            " sleeps, such as a guard of your own that does"
        )

    def draw(self) -> float:
        """A number in [0, 1), each time another."""
        return self._draw()

    def key(self) -> str:
        """A text that nobody else has."""
        return str(next(self._keys))
