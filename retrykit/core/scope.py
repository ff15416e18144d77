"""What the code inside a call can ask about it, calls inside of calls, and the switch that turns retries off."""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from contextvars import ContextVar

from retrykit.core import clock
from retrykit.core.classify import response_behind
from retrykit.core.errors import StackedRetriesWarning
from retrykit.core.events import history_of


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


_reported: set[tuple[str, str]] = set()
# How far an error is followed to those that it was raised from. A chain may be a ring.
_MOST_CAUSES = 8


def warn_of_stacked_retries(outer: str, outcome: object, calls_before: int) -> None:
    """Warn, once for each pair of places, where a repeated attempt ended with a call that had repeated as well.

    Args:
        outer: The name of the call that repeats.
        outcome: What its attempt returned or raised.
        calls_before: What `calls_ended` gave before that attempt. An error may be older than the attempt.
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
