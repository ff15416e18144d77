"""The server: it serves one request after the other, and never knows that nobody waits for the answer any more."""

from collections.abc import Callable

from retrykit.simulate.scenario import Scenario

# Of a request, as which the rounding of times may show.
_ROUNDING = 1e-6


class Server:
    """Answers requests.

    Args:
        scenario: Says how many, and when not.
        draw: Gives a number in [0, 1), each time another.
    """

    __slots__ = ("_capacity", "_draw", "_failure_rate", "_free_at", "_outages", "_queue", "_seconds")

    def __init__(self, scenario: Scenario, draw: Callable[[], float]) -> None:
        self._capacity, self._queue = scenario.capacity, scenario.queue
        self._outages, self._failure_rate = scenario.outages, scenario.failure_rate
        self._draw = draw
        self._seconds = 1.0 / scenario.capacity
        # All that there is to know of the queue: requests are served in turn, and each takes as long.
        self._free_at = 0.0

    def receive(self, now: float) -> float | None:
        """Take in a request.

        Returns:
            The instant at which it is served; `None` where it is answered 503 at once.
        """
        for start, end in self._outages:
            if start <= now < end:
                return None
        if self._failure_rate and self._draw() < self._failure_rate:
            return None
        if self._free_at < now:
            self._free_at = now
        elif (self._free_at - now) * self._capacity > self._queue + _ROUNDING:  # The one being served counts in part.
            return None
        self._free_at += self._seconds
        return self._free_at
