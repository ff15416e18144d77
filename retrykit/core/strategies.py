"""The user's own strategies: tenacity's `wait_*`, `stop_*` and `retry_*`, and plain callables.

Each gets what tenacity would hand it, a `RetryCallState`; only a plain callable given as `retry_if` gets the outcome.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

import tenacity
from tenacity import AsyncRetrying, RetryCallState
from tenacity.retry import retry_base

from retrykit.core.checks import is_number, name_of
from retrykit.core.policy import RetryPolicy


class Strategies:
    """What the strategies of a policy answer in one call."""

    __slots__ = ("_outcome", "_policy", "_state")

    def __init__(self, policy: RetryPolicy, fn: Callable[..., Any], args: Any, kwargs: Any, started: float) -> None:
        self._policy = policy
        self._state = RetryCallState(_retrying(policy), fn, args, kwargs)
        self._state.start_time = started

    def see(self, attempt: int, result: object, error: Exception | None, elapsed: float) -> None:
        """Take in how an attempt ended."""
        state = self._state
        state.attempt_number = attempt
        state.outcome = tenacity.Future.construct(attempt, result if error is None else error, error is not None)
        state.outcome_timestamp = state.start_time + elapsed
        self._outcome: object = result if error is None else error

    def see_running(self, attempt: int, elapsed: float) -> None:
        """Take in that an attempt runs, and so long."""
        state = self._state
        state.attempt_number, state.outcome, state.outcome_timestamp = attempt, None, state.start_time + elapsed

    def retry_if(self) -> bool:
        """What `retry_if` says of it.

        Raises:
            TypeError: It answered something that would have to be awaited.
        """
        strategy = self._policy.retry_if
        if strategy is None:
            return False
        answer: object = strategy(self._state) if isinstance(strategy, retry_base) else strategy(self._outcome)
        if inspect.iscoroutine(answer):
            answer.close()
            raise TypeError(
                f"retry_if={name_of(strategy)} answered a coroutine, and strategies are not awaited: read what has to"
                " be judged inside the wrapped coroutine, and raise TryAgain there"
            )
        return bool(answer)

    def wait(self) -> float | None:
        """What `wait` says, in seconds; `None` means the policy's own schedule.

        Raises:
            ValueError: It answered something that is no time to wait.
        """
        if self._policy.wait is None:
            return None
        answer = self._policy.wait(self._state)
        if not is_number(answer) or not 0 <= answer < math.inf:
            raise ValueError(
                f"wait={name_of(self._policy.wait)} answered {answer!r}, which is no time to wait;"
                " it must answer a finite number of seconds, 0 or more"
            )
        return float(answer)

    def stops(self, delay: float) -> bool:
        """What `stop` says, before a wait of `delay` seconds."""
        state = self._state
        state.upcoming_sleep = delay
        if self._policy.stop is not None and self._policy.stop(state):
            return True
        state.idle_for += delay
        return False

    def forget(self) -> None:
        """Let go of the outcome: a call that waits holds nothing of the attempts before."""
        self._state.outcome = self._outcome = None


def _retrying(policy: RetryPolicy) -> AsyncRetrying:
    """The object that a `RetryCallState` belongs to: strategies may look at it, though hardly any does."""
    given: dict[str, Any] = {"wait": policy.wait, "stop": policy.stop, "retry": policy.retry_if}
    return AsyncRetrying(**{name: strategy for name, strategy in given.items() if strategy is not None})
