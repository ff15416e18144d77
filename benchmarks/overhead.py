"""What a call costs that needs no network: what is retried returns a response, or raises, at once."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import NamedTuple

from aiohttp import ClientResponse, ServerDisconnectedError

import retrykit
from benchmarks.adapters import (
    LIBRARIES,
    Adapt,
    Call,
    Fetch,
    by_hand,
    by_hand_in_time,
    with_retrykit,
    with_retrykit_and_budget,
    with_retrykit_in_time,
)
from benchmarks.effort import Effort
from benchmarks.measure import BY_HAND, CONTROL, Case, Question, Values, cpu_time, in_rounds, ratios
from benchmarks.server import fetched_responses

URL = "https://api.example.com/users/123"

Listener = Callable[[retrykit.RetryEvent | retrykit.GiveUpEvent], object]

Step = ClientResponse | type[Exception]
"""What one attempt returns or raises."""


def always(response: ClientResponse) -> Fetch:
    """A coroutine function that does nothing but return this."""

    async def fetch(_url: str) -> ClientResponse:
        return response

    return fetch


def scripted(*steps: Step) -> Fetch:
    """A coroutine function that does one of these steps after the other, and then begins again."""
    turns = itertools.cycle(steps)

    async def fetch(_url: str) -> ClientResponse:
        step = next(turns)
        if isinstance(step, ClientResponse):
            return step
        raise step

    return fetch


@contextlib.contextmanager
def listening(*listeners: Listener) -> Iterator[None]:
    """Have these listeners, and afterwards the default again."""
    retrykit.set_listeners(*listeners)
    try:
        yield
    finally:
        retrykit.set_listeners(retrykit.log_listener)


async def _make(call: Call, calls: int) -> None:
    """So many calls, one after the other; what they have left to the event loop is tidied up at the end."""
    for _ in range(calls):
        try:  # noqa: SIM105 - where nothing is raised it costs nothing, and `suppress` would.
            await call(URL)
        except ServerDisconnectedError:
            pass
    await asyncio.sleep(0)


async def _case(adapt: Adapt, fetch: Callable[[], Fetch], delay: float, stretch: float) -> Case:
    """A case whose stretches are about that long.

    Each has functions of its own, since where they happen to lie in memory makes a difference of some percent.
    """
    calls = await _calls_within(adapt(fetch(), delay), stretch)

    async def spend() -> float:
        call = adapt(fetch(), delay)
        await _make(call, 1)
        return await cpu_time(_make(call, calls)) / calls

    return spend


async def _calls_within(call: Call, stretch: float) -> int:
    """How many calls take so many seconds."""
    calls = 1
    while True:
        started = time.process_time()
        await _make(call, calls)
        taken = time.process_time() - started
        if taken > stretch / 2:
            return max(1, round(calls * stretch / taken))
        calls *= 2


class _Overhead(NamedTuple):
    """What is compared, and in what."""

    fetch: Callable[[ClientResponse, ClientResponse], Fetch]
    """Makes what is retried of a good and a busy response."""
    adapts: Mapping[str, Adapt]
    """The first is the baseline."""
    delay: float = 0
    listeners: tuple[Listener, ...] = ()

    async def measure(self, effort: Effort, chance: Random) -> Values:
        """The others over the baseline."""
        good, busy = await fetched_responses()
        with listening(*self.listeners):
            cases = {
                name: await _case(adapt, lambda: self.fetch(good, busy), self.delay, effort.stretch)
                for name, adapt in self.adapts.items()
            }
            return ratios(await in_rounds(cases, effort.rounds, chance), next(iter(self.adapts)))


def _bare(fetch: Fetch, _delay: float) -> Call:
    return fetch


_LOG = retrykit.log_listener
_LOST = ServerDisconnectedError
_ALL = {BY_HAND: by_hand, CONTROL: by_hand, **LIBRARIES}
_RETRYKIT = {BY_HAND: by_hand, CONTROL: by_hand, "retry_http": with_retrykit}
_WITH_BUDGET = {BY_HAND: by_hand, CONTROL: by_hand, "retry_http": with_retrykit_and_budget}
_IN_TIME = {BY_HAND: by_hand_in_time, CONTROL: by_hand_in_time, "retry_http": with_retrykit_in_time}

# A delay of 1 s and the log are retrykit's defaults.
_success = _Overhead(lambda good, _: always(good), {**_ALL, "no retry at all": _bare}, 1, (_LOG,))
_success_heard = _Overhead(lambda good, _: always(good), _RETRYKIT, 1, (_LOG, lambda _: None))
_success_budgeted = _Overhead(lambda good, _: always(good), _WITH_BUDGET, 1, (_LOG, lambda _: None))
_success_in_time = _Overhead(lambda good, _: always(good), _IN_TIME, 1, (_LOG,))
_third_by_status = _Overhead(lambda good, busy: scripted(busy, busy, good), _ALL)
_third_by_exception = _Overhead(lambda good, _: scripted(_LOST, _LOST, good), _ALL)
_giving_up = _Overhead(lambda *_: scripted(_LOST), _ALL)

_LOOP = f"a {BY_HAND}"

QUESTIONS = [
    Question("success", "A call that succeeds", _LOOP, _success.measure, {"retry_http": 1.0}),
    Question("listener", "A call that succeeds, with a listener", _LOOP, _success_heard.measure, {"retry_http": 1.1}),
    Question(
        "budget",
        "A call that succeeds, with a budget and a listener",
        _LOOP,
        _success_budgeted.measure,
        {"retry_http": 1.6},
    ),
    Question(
        "timeout",
        "A call that succeeds, with a timeout",
        f"{_LOOP} in `asyncio.timeout`",
        _success_in_time.measure,
        {"retry_http": 1.2},
    ),
    Question("statuses", "503 twice, then success", _LOOP, _third_by_status.measure, {"retry_http": 2.0}),
    Question(
        "exceptions", "Connection lost twice, then success", _LOOP, _third_by_exception.measure, {"retry_http": 2.0}
    ),
    Question("giving-up", "Connection lost three times", _LOOP, _giving_up.measure, {"retry_http": 4.0}),
]
