"""One run of one contender: what it did to the server, and what its calls came to."""

import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Any, Self

from aiohttp import ClientSession

from benchmarks.outage.client import Call, make_calls, session
from benchmarks.outage.contenders import CONTENDERS
from benchmarks.outage.scenarios import PATIENCE, WINDOW, Scenario, Span, starts
from benchmarks.outage.server import serving

RECOVERED = 0.95
"""Of the goodput before."""


@dataclass(frozen=True)
class Run:
    """What was counted, for each window."""

    scenario: str
    contender: str
    measured: Span
    """What the figures are about."""
    begun: tuple[int, ...]
    """Calls that were begun."""
    in_time: tuple[int, ...]
    """Of those that were begun then, calls that succeeded before patience ran out, and"""
    succeeded: tuple[int, ...]
    """that succeeded at all."""
    received: tuple[int, ...]
    """Requests that reached the server."""
    abandoned: int
    """Requests that it worked off for nobody, in all of the run."""

    @classmethod
    def of(cls, scenario: Scenario, contender: str, calls: Iterable[Call], tally: dict[str, Any]) -> Self:
        """Count what happened."""
        made = list(calls)
        ended = [(call, call.ended) for call in made if call.ended is not None]
        return cls(
            scenario.name,
            contender,
            scenario.measured,
            _by_window(scenario, made),
            _by_window(scenario, [call for call, end in ended if end - call.begun <= PATIENCE]),
            _by_window(scenario, [call for call, _ in ended]),
            tuple(tally["received"]),
            tally["abandoned"],
        )

    @classmethod
    def read(cls, saved: dict[str, Any]) -> Self:
        """What `asdict` and JSON have made of one."""
        lists = {name: tuple(value) for name, value in saved.items() if isinstance(value, list)}
        return cls(**{**saved, **lists, "measured": Span(*saved["measured"])})

    @property
    def requests_per_call(self) -> float:
        """Requests that the server received, over calls that were begun meanwhile."""
        return self._sum(self.received) / self._sum(self.begun)

    @property
    def success(self) -> float:
        """The share of calls that succeeded, however late."""
        return self._sum(self.succeeded) / self._sum(self.begun)

    @property
    def goodput(self) -> float:
        """Calls a second that succeeded in time."""
        return self._sum(self.in_time) / self.measured.length

    @property
    def recovery(self) -> float | None:
        """Seconds between the end of the trouble and the first window from which on goodput is what it was before.

        0 where that is so in the first one; `None` where it never is.
        """
        trouble = self.measured.windows
        before = self.in_time[: trouble.start]
        enough = RECOVERED * sum(before) / len(before)
        after = [good >= enough for good in self.in_time[trouble.stop :]]
        if not after[-1]:
            return None
        return WINDOW * (len(after) - after[::-1].index(False) if False in after else 0)

    def _sum(self, counted: tuple[int, ...]) -> int:
        return sum(counted[self.measured.windows])


def _by_window(scenario: Scenario, calls: Iterable[Call]) -> tuple[int, ...]:
    counted = Counter(int(call.begun / WINDOW) for call in calls)
    return tuple(counted[window] for window in range(round(scenario.duration / WINDOW)))


async def run(scenario: Scenario, name: str, seed: int) -> Run:
    """Have a contender meet what happens in a scenario."""
    async with serving(scenario) as url, session() as opened:
        get = CONTENDERS[name](opened)
        await begin(opened, url)
        planned = starts(scenario, Random(seed))  # noqa: S311 - it spreads the calls.
        calls = await make_calls(get, url, time.monotonic(), planned, scenario.duration + PATIENCE)
        return Run.of(scenario, name, calls, await tally(opened, url))


async def begin(opened: ClientSession, url: str) -> None:
    """Have the server's time begin."""
    async with opened.get(f"{url}/start"):
        pass


async def tally(opened: ClientSession, url: str) -> dict[str, Any]:
    """What the server has counted."""
    async with opened.get(f"{url}/tally") as response:
        counted: dict[str, Any] = json.loads(await response.read())
        return counted
