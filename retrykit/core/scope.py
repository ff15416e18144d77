"""What the code inside a call can ask about it, deadlines around calls, and the switch that turns retries off."""

import contextlib
import math
import sys
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NoReturn, Self

from retrykit.core import checks, clock
from retrykit.core.classify import response_behind
from retrykit.core.errors import StackedRetriesWarning
from retrykit.core.history import history_of


class Scope:
    """A call, as it is seen from inside of its attempts."""

    __slots__ = ("deadline", "end", "outer", "running")

    def __init__(self) -> None:
        self.deadline: float | None = None
        """The instant, on the clock of `clock.now`, at which its time is over, and"""
        self.end: float | None = None
        """that at which the time of the running attempt is. Those of a call around it may come before."""
        self.running = 0
        """The number of the attempt that is running; 0 where none is."""
        self.outer: _Mark | None = None

    def enter(self, number: int) -> None:
        """Mark the attempt that begins."""
        if self.deadline is not None:
            deadlines.add(self)
        self.running = number
        outer = _mark.get()
        while outer is not None and outer[0].running != outer[1]:
            outer = outer[0].outer
        self.outer = outer
        # What has ended is left out here as well: where each task starts the next one, there would be ever more of it.
        while outer is not None and (further := outer[0].outer) is not None and further[0].running != further[1]:
            outer[0].outer = further[0].outer
        _mark.set((self, number))

    def leave(self) -> None:
        """Mark that it has ended."""
        self.running = 0
        deadlines.discard(self)


_Mark = tuple[Scope, int]
# A mark is left where it is when its attempt is over: a task that was started inside keeps its context anyway, and a
# coroutine that is closed from elsewhere ends in another one.
_mark: ContextVar[_Mark | None] = ContextVar("retrykit_attempt", default=None)
_disabled = 0


in_an_attempt = _mark.get
"""Something, where a call that marks its attempts has ever been around; asked first, since it costs next to nothing."""

deadlines: set[Scope] = set()
"""Those of the process that are running. Where there is none, no call has to look for its own."""


def attempt_number() -> int:
    """The number of the attempt that is running: 1 for the first, and outside of any call.

    Where calls are nested, an inner call's first attempt may show the number of the outer call's, because a first
    attempt that nothing limits in time is not marked: that costs nothing.
    """
    mark = _mark.get()
    while mark is not None and mark[0].running != mark[1]:
        mark = mark[0].outer
    return 1 if mark is None else mark[1]


def time_left() -> float | None:
    """The seconds that are left here, of all that bounds it: scopes, calls, and the attempt that this runs in.

    Send it on, so that a server that is called stops when nobody waits any more:
    `headers={"X-Timeout": f"{time_left():.3f}"}`. There is no standard header for it; what you send is between your
    services.

    Returns:
        Seconds, 0 where the time is over; `None` where nothing bounds it. The first attempt of a call of a client that
        has made its own session is bounded by aiohttp, and is not known here: a `deadline_scope` is.
    """
    return _until("end")


def deadline_left() -> float | None:
    """The same, but for what limits single attempts: what is left of the calls and scopes themselves."""
    return _until("deadline")


def _until(name: Literal["deadline", "end"]) -> float | None:
    """The seconds until the first of these, of all the calls that we are in."""
    mark, first = _mark.get(), math.inf
    while mark is not None:
        scope, number = mark
        instant: float | None = getattr(scope, name) if scope.running == number else None
        if instant is not None and instant < first:
            first = instant
        mark = scope.outer
    return None if first == math.inf else max(0.0, first - clock.now())


class deadline_scope:  # noqa: N801 - as contextlib has it.
    """Bounds every call of retrykit's that is made inside: all of them together have so much time.

        with deadline_scope(2.5) as deadline:
            user = await client.get("/users/123")
            headers = {"X-Timeout": str(deadline.left())}
            orders = await client.get(f"/orders?user={user['id']}", headers=headers)

    A call inside has the smaller of its own `timeout` and what is left here: no wait runs past it, and where it has
    passed, a call raises `TimeoutError` at once and sends nothing. Of nested scopes, the one that ends first counts.
    It holds for the tasks that are started inside as well, as long as the scope is not left. A body that is read
    outside of a call (of `get`, or `client.request`) is bounded by what was left when its request was sent; that of a
    response which `RetryMiddleware` or a coroutine of your own hands over is not.

    What is not retrykit's is not bounded: for that there is `asyncio.timeout`, which cancels.

    Args:
        seconds: How long from `with` on (or a `timedelta`); `None` for no bound. What is 0 or less has passed already,
            as that of a caller who waits no more.

    Raises:
        TypeError: It is no number.
        ValueError: It is NaN.
    """

    __slots__ = ("_end", "_scope", "_seconds")

    def __init__(self, seconds: float | timedelta | None) -> None:
        self._seconds = _time_from_now(seconds)
        self._end: float | None = None
        self._scope: Scope | None = None

    def left(self) -> float | None:
        """The seconds that are left, 0 where it has passed; `None` where nothing bounds it."""
        if self._scope is None:
            return self._seconds
        return None if self._end is None else max(0.0, self._end - clock.now())

    def __enter__(self) -> Self:
        if self._scope is not None:
            raise RuntimeError("this deadline_scope was entered before; make one for each: `with deadline_scope(2.5):`")
        around = deadline_left()
        seconds = min((time for time in (self._seconds, around) if time is not None), default=None)
        self._scope = Scope()
        if seconds is not None:
            self._end = self._scope.deadline = self._scope.end = clock.now() + seconds
            self._scope.enter(attempt_number())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._scope is not None
        self._scope.leave()

    if not TYPE_CHECKING:  # Type checkers refuse it where it is missing.

        async def __aenter__(self) -> NoReturn:
            raise TypeError("a deadline_scope waits for nothing; write `with` in place of `async with`")

        async def __aexit__(self, *_: object) -> None:
            """Python looks for it before it enters."""


def _time_from_now(seconds: float | timedelta | None) -> float | None:
    if seconds is None:
        return None
    time = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
    if not checks.is_number(time):
        raise TypeError(
            f"deadline_scope({seconds!r}) is no time; give seconds as a number, such as deadline_scope(2.5): a header's"
            " text has to be converted by float()"
        )
    if math.isnan(time):
        raise ValueError("deadline_scope(nan) is no time; give seconds from now, or None for no bound")
    return None if time == math.inf else max(0.0, float(time))


_reported: set[tuple[str, str]] = set()
# How far an error is followed to those that it was raised from. A chain may be a ring.
_MOST_CAUSES = 8


def warn_of_stacked_retries(outer: str, outcome: object, calls_before: int) -> None:
    """Warn, once for each pair of places, where a repeated attempt ended with a call that had repeated as well.

    Args:
        outer: The name of the call that repeats.
        outcome: What its attempt returned or raised.
        calls_before: What `calls.ended` was before that attempt. An error may be older than the attempt.
    """
    cause: object = outcome
    for _ in range(_MOST_CAUSES):
        history = history_of(cause) or (history_of(response_behind(cause)) if isinstance(cause, Exception) else None)
        if history is not None and history.gave_up and len(history.attempts) > 1 and history.ended > calls_before:
            _warn_once(outer, history.place, len(history.attempts))
            return
        cause = getattr(cause, "__cause__", None) or getattr(cause, "__context__", None)


def _warn_once(outer: str, inner: str, attempts: int) -> None:
    if (outer, inner) not in _reported:
        _reported.add((outer, inner))
        warnings.warn(
            f"{outer} retries {inner}, which had made {attempts} attempts by itself, so that their attempts multiply;"
            " retry in one place only: take one of them away, or set max_retries=1 on it",
            StackedRetriesWarning,
            stacklevel=_levels_to_the_caller(),
        )


def _levels_to_the_caller() -> int:
    """How many frames below the warning there is code that is neither ours nor aiohttp's."""
    levels, frame = 0, sys._getframe(1)  # noqa: SLF001
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(("retrykit.", "aiohttp.")):
        levels, frame = levels + 1, frame.f_back
    return levels + 1


class Counter:
    """Counts the attempts that follow a first one.

    Args:
        outer: Counts them, too.
    """

    __slots__ = ("__weakref__", "further", "outer")

    def __init__(self, outer: "Counter | None") -> None:
        self.further, self.outer = 0, outer


counter: ContextVar[Counter | None] = ContextVar("retrykit_counter", default=None)
"""Where those are counted that begin in this context, or in a task that was started in it."""


def count_attempt() -> None:
    """An attempt begins that is not the first of its call."""
    counts = counter.get()
    while counts is not None:
        counts.further += 1
        counts = counts.outer


def retries_disabled() -> bool:
    """Are all calls limited to one attempt?"""
    return _disabled > 0


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Make one attempt per call, everywhere in the process, as if every policy said `max_retries=1`."""
    global _disabled
    _disabled += 1
    try:
        yield
    finally:
        _disabled -= 1
