"""What the listeners share: labels with a bounded number of values, and the guards that are watched."""

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

from retrykit.core import checks
from retrykit.core.events import CallEvent, FailedAttempt
from retrykit.core.policy import RetryPolicy
from retrykit.guards.breaker import CircuitBreaker
from retrykit.guards.budget import RetryBudget

OTHER = "other"
"""In the place of a value for which there is no more room."""
UNKNOWN = "unknown"

GAVE_UP = "gave_up"
"""The outcome of a call that was given up on, or refused."""

MOST_CALLS, MOST_ORIGINS, MOST_CAUSES = 50, 20, 30

WAIT_BUCKETS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Seconds. The first is of retries that follow at once; the default schedule waits 1 to 60 s."""


class Label:
    """The values of a label: the first so many are kept, and any other one is `other`, for as long as the process runs.

    Args:
        most: How many.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, value: str | None) -> str:
        """What stands for a value."""
        if value is None:
            return UNKNOWN
        if value not in self._known:
            if len(self._known) >= self._most:
                return OTHER
            self._known.add(value)
        return value


class Labels:
    """The labels of the metrics.

    Args:
        max_origins: How many origins have series of their own.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is less than 0.
    """

    def __init__(self, max_origins: int) -> None:
        self.call, self.origin, self.cause = Label(MOST_CALLS), Label(_most_origins(max_origins)), Label(MOST_CAUSES)


def _most_origins(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"max_origins={value!r} is no whole number; write one such as max_origins={MOST_ORIGINS}")
    if value < 0:
        raise ValueError(
            f"max_origins={value} is less than none; write a whole number such as max_origins={MOST_ORIGINS}, or 0 to"
            " have all origins be one"
        )
    return value


def cause_of(event: FailedAttempt | CallEvent) -> str:
    """Why an attempt failed, or a call: the status, else the class of what was raised, else `result`, a value."""
    if event.status is not None:
        return str(event.status)
    return "result" if event.exception is None else event.exception.__qualname__


def outcome_of(event: CallEvent) -> str:
    """How a call ended, in one word."""
    if event.exception is not None and not issubclass(event.exception, Exception):
        return "cancelled" if event.exception is asyncio.CancelledError else "ended"
    if event.reason is not None:
        return GAVE_UP
    return "success" if event.exception is None else "error"


def was_thrown_away(event: CallEvent) -> bool:
    """Was it closed where it waited?

    The garbage collector does so at any moment, also while this thread holds a lock of the library that counts: who
    counts then waits for ever.
    """
    return event.exception is GeneratorExit


class Watched(NamedTuple):
    """Guards whose state is told."""

    policy: str
    """The name that was given to them."""
    budget: RetryBudget | None
    breaker: CircuitBreaker | None


class Watch:
    """The guards that are watched, by the name of their policy. They live as long as this does."""

    def __init__(self) -> None:
        self._watched: dict[str, Watched] = {}

    def add(self, name: str, policy: RetryPolicy) -> None:
        """Tell of the budget and the breaker of a policy, as far as they can be seen from here.

        Raises:
            TypeError: It is no policy, or the name is no text.
            ValueError: It has nothing that can be watched, or the name is taken.
        """
        if not isinstance(name, str):
            raise TypeError(
                f"watch() was given {checks.shown_type(name)} as the name; write a word first, and then the policy:"
                " watch('api', client.policy)"
            )
        if not isinstance(policy, RetryPolicy):
            raise TypeError(
                f"watch({name!r}, ...) was given {checks.shown_type(policy)}; give a RetryPolicy, such as that of a"
                " client or a decorated function: client.policy, get_user.policy"
            )
        budget = policy.budget if isinstance(policy.budget, RetryBudget) else None
        breaker = policy.breaker if isinstance(policy.breaker, CircuitBreaker) else None
        if budget is None and breaker is None:
            raise ValueError(
                f"watch({name!r}, ...) was given a policy with neither a RetryBudget nor a CircuitBreaker, so that"
                " there is nothing to be seen: the budget of a Fleet is in its store, and one of your own is not known;"
                " watch a policy that has one of the two"
            )
        known = self._watched.get(name)
        watched = Watched(name, budget, breaker)
        if known is not None and known != watched:
            raise ValueError(
                f"watch({name!r}, ...) was called before, with other guards; give each policy its own name"
            )
        self._watched[name] = watched

    def budgets(self) -> Iterator[tuple[str, float]]:
        """Names, and what is left in the emptiest bucket, from 0 to 1."""
        for policy, budget, _ in list(self._watched.values()):
            if budget is not None:
                yield policy, budget.lowest()

    def circuits(self) -> Iterator[tuple[str, str, int]]:
        """Names, states, and how many circuits are in them."""
        for policy, _, breaker in list(self._watched.values()):
            if breaker is not None:
                for state, count in breaker.states().items():
                    yield policy, state.value, count
