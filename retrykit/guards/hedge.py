"""LatencyQuantile: after what time an attempt is a slow one, learned from those before."""

from bisect import bisect_left, insort
from collections import deque
from typing import Never

from retrykit.core.checks import no_others
from retrykit.guards.origins import keep, share, whole


class LatencyQuantile:
    """The time within which so large a part of the last attempts got their answer, for `hedge_after`.

        client = AsyncHTTPClient("https://api.example.com", hedge_after=LatencyQuantile(0.95))

    With 0.95, the slowest 5 % of the attempts are hedged, so that there are about 5 % more requests. That is so however
    slow the server is: put a budget beside it, which bounds the hedges where all answers are slow.

    It learns from first attempts: of those that got an answer, the time that took; of one that lost against its hedge,
    the time until then, which is less than it would have taken, and still among the longest.

    Each origin has its own times (client, helpers, middleware); the calls of decorated coroutines share theirs. It may
    be shared by event loops, not by threads.

    Args:
        quantile: Above 0, below 1.
        window: Attempts that are remembered of each origin. Default: 1000.
        warm_up: Attempts that have to be known before the first is hedged. Default: 100.
        max_origins: Origins that are remembered; of more, the one that was used longest ago is forgotten. Default:
            1024.

    Raises:
        ValueError: A number can't work.
        TypeError: It is no number.
    """

    def __init__(
        self, quantile: float, *, window: int = 1000, warm_up: int = 100, max_origins: int = 1024, **unknown: Never
    ) -> None:
        no_others(LatencyQuantile, unknown)
        self.quantile = share("quantile", quantile, 0.95)
        if quantile == 1:
            raise ValueError("quantile=1 is the slowest of all, which none is slower than; write one such as 0.95")
        self.window, self.warm_up = whole("window", window), whole("warm_up", warm_up)
        if warm_up > window:
            raise ValueError(
                f"warm_up={warm_up} is more than window={window}, so that nothing would ever be hedged; write a larger"
                " window"
            )
        self._most = whole("max_origins", max_origins)
        self._latencies: dict[str | None, _Latencies] = {}

    def __call__(self, origin: str | None = None) -> float | None:
        """The seconds, for an origin such as `https://api.example.com`; `None` while too little is known."""
        latencies = self._latencies.get(origin)
        if latencies is None or len(latencies.in_order) < self.warm_up:
            return None
        return latencies.in_order[int(self.quantile * len(latencies.in_order))]

    def record(self, origin: str | None, seconds: float) -> None:
        """A first attempt took so long."""
        latencies = self._latencies.get(origin) or _Latencies()
        latencies.add(seconds, self.window)
        keep(self._latencies, origin, latencies, self._most)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.quantile:g} of the last {self.window}>"


class _Latencies:
    """The last ones, by age and by length."""

    __slots__ = ("by_age", "in_order")

    def __init__(self) -> None:
        self.by_age: deque[float] = deque()
        self.in_order: list[float] = []

    def add(self, seconds: float, window: int) -> None:
        if len(self.by_age) >= window:
            del self.in_order[bisect_left(self.in_order, self.by_age.popleft())]
        self.by_age.append(seconds)
        insort(self.in_order, seconds)
