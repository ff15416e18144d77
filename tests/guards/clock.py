"""A clock that tests set."""

from retrykit.core.clock import SystemClock


class ManualClock(SystemClock):
    """Stands still until it is told to go on; draws what it is told to."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.drawn = 0.0

    def now(self) -> float:
        return self.time

    def draw(self) -> float:
        return self.drawn

    async def sleep(self, seconds: float, /) -> None:
        self.time += seconds
