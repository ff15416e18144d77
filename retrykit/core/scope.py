"""What the code inside a call can ask about it, and the switch that turns retries off."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import NamedTuple

from retrykit.core import clock


class Scope(NamedTuple):
    """An attempt, as it is seen from inside."""

    number: int = 1
    deadline: float | None = None
    """The instant, on the clock of `clock.now`, at which the time of the call is over."""


_OUTSIDE = Scope()
_scope: ContextVar[Scope] = ContextVar("retrykit_scope", default=_OUTSIDE)
_disabled = False


def attempt_number() -> int:
    """The number of the attempt that is running: 1 for the first, and outside of any call.

    Where calls are nested, an inner call's first attempt may show the number of the outer call's, because a first
    attempt that nothing limits in time is not marked: that costs nothing.
    """
    return _scope.get().number


def time_left() -> float | None:
    """The seconds that are left of the running call; `None` where it has no `timeout`."""
    deadline = _scope.get().deadline
    return None if deadline is None else max(0.0, deadline - clock.now())


def enter(number: int, deadline: float | None) -> Scope:
    """Mark the attempt that begins. Returns the scope around it, for `leave`."""
    outer = _scope.get()
    if outer.deadline is not None:
        deadline = outer.deadline if deadline is None else min(deadline, outer.deadline)
    _scope.set(Scope(number, deadline))
    return outer


def leave(outer: Scope) -> None:
    """Mark its end."""
    # Not by token: a coroutine that is closed from elsewhere ends in another context, and a token would not fit.
    _scope.set(outer)


def retries_disabled() -> bool:
    """Are all calls limited to one attempt?"""
    return _disabled


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Make one attempt per call, everywhere in the process, as if every policy said `max_retries=1`."""
    global _disabled
    before, _disabled = _disabled, True
    try:
        yield
    finally:
        _disabled = before
