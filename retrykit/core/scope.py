"""What the code inside a call can ask about it, and the switch that turns retries off."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from retrykit.core import clock


class Scope:
    """An attempt, as it is seen from inside."""

    __slots__ = ("deadline", "end", "number", "outer", "over")

    def __init__(self, number: int, deadline: float | None, end: float | None, outer: "Scope | None") -> None:
        self.number = number
        self.deadline = deadline
        """The instant, on the clock of `clock.now`, at which the time of the call is over, and"""
        self.end = end
        """that at which the time of the attempt is."""
        self.outer = outer
        self.over = False
        """A task that was started inside an attempt keeps its context, and may outlive it."""


_scope: ContextVar[Scope | None] = ContextVar("retrykit_scope", default=None)
_disabled = 0


def _running() -> Scope | None:
    scope = _scope.get()
    while scope is not None and scope.over:
        scope = scope.outer
    return scope


def attempt_number() -> int:
    """The number of the attempt that is running: 1 for the first, and outside of any call.

    Where calls are nested, an inner call's first attempt may show the number of the outer call's, because a first
    attempt that nothing limits in time is not marked: that costs nothing.
    """
    scope = _running()
    return scope.number if scope is not None else 1


def time_left() -> float | None:
    """The seconds that are left of the running call; `None` where it has no `timeout`."""
    scope = _running()
    return None if scope is None else _until(scope.deadline)


def attempt_time_left() -> float | None:
    """The seconds that are left of the running attempt; `None` where nothing limits it."""
    scope = _running()
    return None if scope is None else _until(scope.end)


def enter(number: int, call_time: float | None, attempt_time: float | None) -> Scope:
    """Mark the attempt that begins, and the seconds that its call and it have. A call around it may leave them less."""
    outer, now = _running(), clock.now()
    scope = Scope(
        number,
        _earliest(None if call_time is None else now + call_time, None if outer is None else outer.deadline),
        _earliest(None if attempt_time is None else now + attempt_time, None if outer is None else outer.end),
        outer,
    )
    _scope.set(scope)
    return scope


def leave(scope: Scope) -> None:
    """Mark its end."""
    scope.over = True
    # Not by token: a coroutine that is closed from elsewhere ends in another context, where this is none of ours.
    if _scope.get() is scope:
        _scope.set(scope.outer)


def _until(instant: float | None) -> float | None:
    return None if instant is None else max(0.0, instant - clock.now())


def _earliest(*instants: float | None) -> float | None:
    return min((instant for instant in instants if instant is not None), default=None)


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
