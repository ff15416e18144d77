"""Result: what a simulation has counted."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from retrykit.simulate.scenario import Scenario

_RECOVERED = 0.95


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a scenario under one policy.

    The series have a number for each window of the scenario (`Scenario.window`, one second), from the start on. They go
    on past its end for as long as calls were under way.
    """

    name: str
    """Of the policy, as it was given, and"""
    policy: str
    """in a few words."""
    scenario: Scenario
    begun: tuple[int, ...]
    """Calls that began, for each window."""
    received: tuple[int, ...]
    """Requests that the server received: its load."""
    served: tuple[int, ...]
    """Calls that ended with a success: the goodput."""
    reasons: Counter[str]
    """How many calls ended why: with `"success"`, or with the reason that `GiveUpError`, `CircuitOpenError` and
    `OriginPausedError` have; `"not_retried"` where the policy takes a failure for permanent."""
    sent: Counter[int]
    """How many calls sent how many requests; a call that a guard held back from all of them sent 0."""

    @property
    def calls(self) -> int:
        """That began."""
        return sum(self.begun)

    @property
    def requests(self) -> int:
        """That the server received."""
        return sum(self.received)

    @property
    def succeeded(self) -> int:
        """Calls that ended with a success."""
        return sum(self.served)

    @property
    def requests_per_call(self) -> float:
        """Of the whole run; `nan` where there was no call."""
        return _ratio(self.requests, self.calls)

    @property
    def goodput(self) -> float:
        """Calls that succeeded, per second of the scenario."""
        return self.succeeded / self.scenario.duration

    @property
    def success(self) -> float:
        """The share of calls that ended with a success; `nan` where there was no call."""
        return _ratio(self.succeeded, self.calls)

    @property
    def recovery(self) -> float | None:
        """Seconds from the end of the outage until the goodput is back, and stays so.

        It is back in a window with 95 % of the successes that there would have been without the outage: of the calls
        that began in it, as large a part as before the outage, as far as the capacity allows. It has to stay so until
        the next outage or overload begins, or the run ends. So a server that serves its queue first, and then
        breaks down under what else comes, has not recovered.

        0 means in the window that begins with the end of the outage. Of several outages, the one after which it took
        longest counts. `None`: after one of them it did not come back, or there was no whole window to see it in.
        """
        recoveries = [self._recovery(start, end) for start, end in self.scenario.outages]
        known = [seconds for seconds in recoveries if seconds is not None]
        return max(known, default=0.0) if len(known) == len(recoveries) else None

    def requests_per_call_in(self, start: float, end: float) -> float:
        """Requests received from `start` to `end`, over calls begun then; `nan` where there were none.

        Args:
            start: In seconds, as `end`. The windows that lie between them as a whole are counted.
            end: Not included.
        """
        windows = self._windows(start, end)
        return _ratio(_in(windows, self.received), _in(windows, self.begun))

    def goodput_in(self, start: float, end: float) -> float:
        """Calls that succeeded from `start` to `end`, per second; the arguments are those of `requests_per_call_in`."""
        windows = self._windows(start, end)
        return _ratio(_in(windows, self.served), len(windows) * self.scenario.window)

    def _recovery(self, start: float, end: float) -> float | None:
        scenario = self.scenario
        before = [self._share(window) for window in self._windows(0.0, start)]
        share = min(1.0, statistics.median(before or [1.0]))
        after = self._windows(end, scenario.next_disturbance(end))
        most = scenario.capacity * scenario.window
        back: int | None = None
        for window in after:
            if self.served[window] < _RECOVERED * share * min(self.begun[window], most):
                back = None
            elif back is None:
                back = window
        return None if back is None else back * scenario.window - end

    def _windows(self, start: float, end: float) -> range:
        """The windows that lie between these instants, as far as they were counted."""
        # The quotient of two floats may be a rounding error off a whole number.
        first, after_last = (round(instant / self.scenario.window, 9) for instant in (start, end))
        return range(math.ceil(first), min(math.floor(after_last), len(self.begun)))

    def _share(self, window: int) -> float:
        """Successes over calls begun, in a window."""
        return self.served[window] / self.begun[window] if self.begun[window] else 1.0


def _in(windows: range, series: Sequence[int]) -> int:
    return sum(series[window] for window in windows)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
