"""The user's own strategies: tenacity's `wait_*`, `stop_*` and `retry_*`, and plain callables.

Each gets what tenacity would hand it, a `RetryCallState`; only a plain callable given as `retry_if` gets the outcome.
"""

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

    __slots__ = ("_policy", "_state")

    def __init__(self, policy: RetryPolicy, fn: Callable[..., Any], args: Any, kwargs: Any, started: float) -> None:
        self._policy = policy
        self._state = RetryCallState(_retrying(policy), fn, args, kwargs)
        self._state.start_time = started

    def ask(self, attempt: int, result: object, error: Exception | None, elapsed: float) -> tuple[bool, float | None]:
        """What `retry_if` and `wait` say of how an attempt ended; no `wait` means the policy's own schedule.

        Raises:
            ValueError: `wait` answered something that is no time to wait.
        """
        state = self._state
        state.attempt_number = attempt
        state.outcome = tenacity.Future.construct(attempt, result if error is None else error, error is not None)
        state.outcome_timestamp = state.start_time + elapsed
        return self._retry(result if error is None else error), self._wait()

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
        self._state.outcome = None

    def _retry(self, outcome: object) -> bool:
        strategy = self._policy.retry_if
        if strategy is None:
            return False
        if isinstance(strategy, retry_base):
            return bool(strategy(self._state))
        return bool(strategy(outcome))

    def _wait(self) -> float | None:
        if self._policy.wait is None:
            return None
        answer = self._policy.wait(self._state)
        if not is_number(answer) or not 0 <= answer < math.inf:
            raise ValueError(
                f"wait={name_of(self._policy.wait)} answered {answer!r}, which is no time to wait;"
                " it must answer a finite number of seconds, 0 or more"
            )
        return float(answer)


def _retrying(policy: RetryPolicy) -> AsyncRetrying:
    """The object that a `RetryCallState` belongs to: strategies may look at it, though hardly any does."""
    given: dict[str, Any] = {"wait": policy.wait, "stop": policy.stop, "retry": policy.retry_if}
    return AsyncRetrying(**{name: strategy for name, strategy in given.items() if strategy is not None})
