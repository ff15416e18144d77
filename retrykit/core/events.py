"""Frozen records: what is known of a request, of an attempt, and what listeners receive."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol
from urllib.parse import quote

from yarl import URL

Reason = Literal[
    "attempts", "stop", "timeout", "budget", "retry_after", "circuit_open", "not_repeatable", "body", "not_resumable"
]
"""Why a call was given up on:

`attempts`        `max_retries` attempts were made
`stop`            the policy's `stop=` strategy said so
`timeout`         the next attempt would not have begun within the call's `timeout`, or it ran out
`budget`          the policy's `budget` had not enough left for another attempt
`retry_after`     the server asked for a longer wait than `max_retry_after`
`circuit_open`    the policy's `breaker` would not have let the next attempt through
`not_repeatable`  the request may have been processed, and nothing says that it may be processed twice
`body`            the request's body can't be sent again
`not_resumable`   a part of the answer's body was handed out, and no other answer can resume it
"""


class RequestBody(Protocol):
    """A request's body, over all attempts of a call."""

    @property
    def used_up(self) -> str | None:
        """The type of what can't be sent again, by the name that a message has for it; `None` where all can."""
        ...

    @property
    def can_be_shared(self) -> bool:
        """Can several attempts send it at the same time?"""
        ...


class PartialBody(Protocol):
    """The body of an answer, of which a part has come."""

    @property
    def unresumable(self) -> str | None:
        """Why no other answer can resume it; `None` where one can."""
        ...


class Request(NamedTuple):
    """What is known of a call's request, without anything secret: no query, credentials, headers or body."""

    method: str | None = None
    origin: str | None = None
    path: str | None = None
    repeatable: bool = True
    """May the server process it twice?"""
    body: RequestBody | None = None
    """Its body, where there is one that might not be there a second time."""
    answered: PartialBody | None = None
    """What has come of the answer's body, where another attempt has to resume it."""

    @classmethod
    def to(cls, method: str, url: URL) -> "Request":
        """The request that goes by `method` to `url`."""
        # Not decoded: what is decoded could forge lines of a log. So could a path that a server has sent undecoded.
        path = url.raw_path
        if not path.isprintable():
            path = "".join(char if char.isprintable() else quote(char) for char in path)
        return cls(method, origin_of(url), path)


def origin_of(url: URL) -> str | None:
    """Scheme, host and port of a URL; `None` where it has none."""
    return str(url.origin()) if url.absolute and url.raw_host else None


def in_seconds(time: float) -> str:
    """A time as it is shown: `1 s`, `0.25 s`."""
    return f"{round(time, 3):g} s"


def from_now(delay: float) -> str:
    """When something follows: `in 1 s`, `at once`."""
    return f"in {in_seconds(delay)}" if delay else "at once"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a call, as it ended."""

    number: int
    """1 for the first that ended."""
    status: int | None
    """Of the response, or of the `ClientResponseError` that was raised."""
    exception: type[BaseException] | None
    """The class of what was raised; `asyncio.CancelledError` for an attempt that lost against one beside it."""
    elapsed: float
    """Seconds from the start of the call to the end of this attempt. A call that no option limits in time starts
    its clock when its first attempt has failed: to read it earlier would cost every call that succeeds."""
    delay: float | None
    """Seconds of the wait that followed; `None` after the last attempt, and where another one was running already."""

    def __str__(self) -> str:
        """The status, or else the name of the exception."""
        if self.status is not None:
            return str(self.status)
        return self.exception.__name__ if self.exception else "a value that retry_if refused"


Ended = tuple[int | None, type[BaseException] | None, float, float | None]
"""What is kept of an attempt while its call runs: status, exception, elapsed and delay, as those of an `Attempt`.
Hardly any call is asked for its attempts, and a tuple costs a tenth."""


def as_attempts(ended: Iterable[Ended]) -> tuple[Attempt, ...]:
    """The records of a call's attempts, from the first one on."""
    return tuple(Attempt(number, *attempt) for number, attempt in enumerate(ended, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAttempt:
    """What listeners are told of an attempt that failed: the base of `RetryEvent` and `GiveUpEvent`."""

    call: str
    """The name of the decorated coroutine."""
    method: str | None
    """Of the request, as far as it is known; so also `origin` (scheme, host and port) and `path` (without query)."""
    origin: str | None
    path: str | None
    attempt: int
    """1 for the first."""
    max_retries: int
    """Attempts in total that the policy allows."""
    status: int | None
    exception: type[Exception] | None
    elapsed: float
    """As `Attempt.elapsed`."""

    def retried(self, delay: float) -> "RetryEvent":
        """The event that another attempt follows."""
        return RetryEvent(**self._shared(), delay=delay)

    def given_up(self, reason: Reason) -> "GiveUpEvent":
        """The event that none does."""
        return GiveUpEvent(**self._shared(), reason=reason)

    def _shared(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in FailedAttempt.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryEvent(FailedAttempt):
    """An attempt failed, and another one follows after `delay` seconds."""

    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUpEvent(FailedAttempt):
    """An attempt failed, and although it could have been retried, none follows."""

    reason: Reason


Event = RetryEvent | GiveUpEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEvent:
    """A call has ended, however it did. Only a listener that has a method `call_ended` is told of it."""

    call: str
    """The name of the decorated coroutine."""
    method: str | None
    """Of the request, as far as it is known; so also `origin` (scheme, host and port) and `path` (without query)."""
    origin: str | None
    path: str | None
    attempts: int
    """How many were made, hedges among them. 0 where a guard or a deadline has refused the first, or where the body of
    a stream or a download has broken off and is not asked for again."""
    status: int | None
    """Of the response that it returned, or of the `ClientResponseError` that it raised."""
    exception: type[BaseException] | None
    """The class of what it raised; `asyncio.CancelledError` where it was cancelled, `GeneratorExit` where it was thrown
    away while it waited: that may be at any moment, since the garbage collector does so, too."""
    reason: Reason | None
    """Why it was given up on, or refused; `None` where it was not."""
