"""Whether each adapter does what is measured: so many attempts, with that outcome."""

from collections import Counter

from aiohttp import ClientResponse, ServerDisconnectedError

from benchmarks.adapters import LIBRARIES, Adapt, Call, by_hand, by_hand_in_time, with_retrykit_in_time
from benchmarks.measure import BY_HAND
from benchmarks.overhead import URL, Step, scripted
from benchmarks.server import BODY, fetched_responses, serving
from benchmarks.wire import ONCE, Get, opened

_ADAPTS: dict[str, Adapt] = {
    BY_HAND: by_hand,
    f"{BY_HAND}, with a timeout": by_hand_in_time,
    "retry_http, with a timeout": with_retrykit_in_time,
    **LIBRARIES,
}


async def check() -> None:
    """Check all adapters.

    Raises:
        AssertionError: One does something else. It says which, and what.
    """
    good, busy = await fetched_responses()
    lost = ServerDisconnectedError
    for steps in ((good,), (busy, busy, good), (lost, lost, good), (lost, busy, good), (lost, lost, lost), (OSError,)):
        for name, adapt in _ADAPTS.items():
            await _check(name, adapt, *steps)
    async with serving() as url, opened(url) as gets:
        for name, get in gets.items():
            await _check_on_the_wire(name, get)


async def _check(name: str, adapt: Adapt, *steps: Step) -> None:
    """All of the steps are made, one attempt each, and the last is the outcome."""
    made, fetch = Counter[str](), scripted(*steps)

    async def counted(url: str) -> ClientResponse:
        made[url] += 1
        return await fetch(url)

    outcome = await _outcome(adapt(counted, 0))
    expected = (len(steps), steps[-1])
    assert (made[URL], outcome) == expected, f"{name}: {made[URL]} attempts and {outcome}, not {expected}"


async def _outcome(call: Call) -> Step:
    try:
        return await call(URL)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the outcome.
        return type(error)


async def _check_on_the_wire(name: str, get: Get) -> None:
    """It gets what a server sends, and gets it also where that sends a 503 first."""
    bodies = Counter([await get(f"/flaky/{name}/{number}") for number in range(20)])
    assert bodies[BODY] == (18 if name in ONCE else 20), f"{name}: of 20 GETs, {bodies[BODY]} got what they should"
