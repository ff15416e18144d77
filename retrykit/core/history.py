"""What an exception or a response remembers of the call that it came out of, for `attempts_of`."""

from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import ClientResponse

from retrykit.core.events import Attempt, Ended, as_attempts

_HISTORY = "_retrykit_history"
_REMEMBERING = (BaseException, ClientResponse)


class _Calls:
    """How many calls have left a history in this process. Of threads that end theirs at once, not all may count."""

    ended = 0


calls = _Calls()


@dataclass(slots=True)
class History:
    """What an exception or response remembers of the call that it came out of."""

    attempts: Sequence[Ended]
    place: str
    """The name of what was called."""
    gave_up: bool
    """Could its last attempt have been retried?"""
    ended: int
    """What `calls.ended` was then."""


def remember(outcome: object, attempts: Sequence[Ended], place: str, *, gave_up: bool) -> None:
    """Let `attempts_of(outcome)` be these. Only exceptions and responses are marked; a value is the caller's own."""
    if isinstance(outcome, _REMEMBERING):
        calls.ended += 1
        vars(outcome)[_HISTORY] = History(attempts, place, gave_up, calls.ended)


def pass_on_history(response: object, error: BaseException) -> None:
    """Let an error remember what the response did that it is made from."""
    if (history := history_of(response)) is not None:
        vars(error)[_HISTORY] = history


def history_of(outcome: object) -> History | None:
    """What an outcome remembers."""
    return vars(outcome).get(_HISTORY) if isinstance(outcome, _REMEMBERING) else None


def attempts_of(outcome: object) -> tuple[Attempt, ...]:
    """The attempts of the call that raised this exception or returned this response.

    Empty where its first attempt was the only one and was not given up on, and for anything that no call of
    retrykit raised or returned.
    """
    history = history_of(outcome)
    return as_attempts(history.attempts) if history is not None else ()
