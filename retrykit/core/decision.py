"""decide(): every rule of what follows an attempt, as one pure function.

It does no I/O, reads no clock and draws no random number: all of that is handed in. What failures mean is in the two
tables of `classify`, how long a wait is in `backoff`.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import tenacity
from aiohttp import ClientResponse, ClientResponseError, RequestInfo, hdrs
from multidict import CIMultiDict, CIMultiDictProxy

from retrykit.core import backoff, retry_after
from retrykit.core.classify import (
    MAYBE_PROCESSED,
    PERMANENT,
    SERVER_ERRORS,
    SERVER_IS_WELL,
    Kind,
    answered_by_redirect,
    kind_of_error,
    kind_of_status,
    lost_connection,
    raised_by_body,
)
from retrykit.core.errors import NotTheRestError, TryAgain
from retrykit.core.events import Reason, Request
from retrykit.core.policy import RetryPolicy


class Outcome:
    """How an attempt ended, and what the user's strategies say of it."""

    __slots__ = ("answered", "error", "result", "retry_if", "status", "wait", "wall")

    def __init__(self, result: object = None, error: Exception | None = None, wall: float = 0.0) -> None:
        self.result = result
        """What it returned, or"""
        self.error = error
        """what it raised."""
        self.answered: int | None = None
        """The status of what has answered, where `error` comes out in the place of that."""
        self.wall = wall
        """The time of day at which it ended, in seconds since the epoch."""
        self.retry_if = False
        """The answer of the policy's `retry_if`."""
        self.wait: float | None = None
        """The answer of its `wait`, in seconds."""
        value = result if error is None else error
        self.status: int | None = value.status if isinstance(value, _WITH_STATUS) else None
        """The status, if it has one."""

    @property
    def value(self) -> object:
        """What it returned or raised."""
        return self.result if self.error is None else self.error

    @property
    def source(self) -> ClientResponse | ClientResponseError | None:
        """What bears a status and headers, if anything does."""
        value = self.value
        return value if isinstance(value, _WITH_STATUS) else None

    @property
    def request(self) -> Request | None:
        """The request, as far as the outcome shows it."""
        source = self.source
        return _request_of(source.request_info) if source is not None else None

    @property
    def redirected(self) -> bool:
        """Was the request answered by a redirect before?"""
        if self.error is not None:
            return answered_by_redirect(self.error)
        return isinstance(self.result, ClientResponse) and bool(self.result.history)

    @property
    def taken_up(self) -> bool:
        """Did the request reach a server before, so that it may have been processed, whatever came then?"""
        if isinstance(self.error, tenacity.TryAgain):  # Who asks for another attempt knows better.
            return False
        return self.redirected or (self.error is not None and raised_by_body(self.error))

    @property
    def asked_delay(self) -> float | None:
        """The seconds that the server, or a `TryAgain`, asks us to wait."""
        if self.status is None:
            return self.error.after if isinstance(self.error, TryAgain) else None
        source: Any = self.result if self.error is None else self.error
        headers = source.headers
        if not isinstance(headers, CIMultiDictProxy):  # A test may have made it with a plain dict, or none.
            headers = CIMultiDict(headers or ())
        if hdrs.RETRY_AFTER not in headers:
            return None
        values = headers.getall(hdrs.RETRY_AFTER)
        return retry_after.seconds_to_wait(values, headers.get(hdrs.DATE), self.wall)


_WITH_STATUS = (ClientResponse, ClientResponseError)


class Ahead(NamedTuple):
    """What stands before the next attempt. All times are seconds from now."""

    paused: float = 0.0
    """For how long the origin is held back, and"""
    spread: float = 0.0
    """over how long its calls are let go then."""
    open_for: float = 0.0
    """For how long its circuit lets nothing through."""


@dataclass(slots=True)
class Call:
    """Where a call stands after an attempt. All times are seconds."""

    attempt: int = 1
    """The number of the attempt that just ended; 1 for the first."""
    elapsed: float = 0.0
    """Since the call began."""
    previous_delay: float = 0.0
    """The last wait before that attempt."""
    repeatable: bool = True
    """May the server process the request twice?"""
    sendable: bool = True
    """Can the request's body be sent again?"""
    resumable: bool = True
    """Can another answer resume what has come of this one's body?"""
    holds_back: bool = False
    """Is aiohttp's own repeat of a request held back, so that ours takes its place?"""
    repeated_at_once: bool = False
    """Did ours take place already? It is no wait, and no step of the backoff."""
    beside: int = 0
    """Attempts before this one that ended while another one ran: no steps of the backoff either."""
    ahead: Ahead | None = None
    """What guards have in store for the next attempt; `None` where they have nothing."""


@dataclass(slots=True)
class Accept:
    """The outcome is the call's: a success, or a failure that no other attempt would mend."""


@dataclass(slots=True)
class GiveUp:
    """The outcome is the call's, although it could have been retried."""

    reason: Reason


@dataclass(slots=True)
class Retry:
    """Another attempt follows."""

    delay: float
    """After so many seconds."""
    at_once: bool = False
    """Without a wait, because a connection was lost that may have been closed while it was idle. Once per call."""


_NOTHING_AHEAD = Ahead()
Decision = Accept | GiveUp | Retry
ACCEPT = Accept()


def decide(outcome: Outcome, call: Call, policy: RetryPolicy, draw: float) -> Decision:
    """What follows an attempt.

    Args:
        outcome: How the attempt ended.
        call: Where its call stands.
        policy: The rules.
        draw: A number in [0, 1), drawn at random.
    """
    if policy.timeout is not None and _ran_out_of_time(outcome, call, policy.timeout):
        return GiveUp("timeout")
    kind = _kind(outcome, policy)
    if kind is None or kind is PERMANENT:
        return ACCEPT
    if not call.resumable or call.attempt >= policy.max_retries:
        return GiveUp("attempts" if call.resumable else "not_resumable")
    if not call.sendable:
        return GiveUp("body")
    if not call.repeatable and (kind is MAYBE_PROCESSED or outcome.taken_up):
        return GiveUp("not_repeatable")
    if call.holds_back and not call.repeated_at_once and lost_connection(outcome.error):
        return _in_turn(Retry(0.0, at_once=True), call, policy, draw)
    asked = outcome.asked_delay
    if asked is not None and asked > policy.max_retry_after:
        return GiveUp("retry_after")
    waits = call.attempt - call.beside - call.repeated_at_once
    if policy.jitter == "none" and asked is None and outcome.wait is None:  # `_delay` comes to the same, and is slower.
        delay = backoff.ceiling(waits, policy.base_delay, policy.max_delay)
    else:
        delay = _delay(outcome, (waits, call.previous_delay, policy.base_delay, policy.max_delay), policy, draw, asked)
    if policy.timeout is None and call.ahead is None:  # `_in_turn` comes to the same.
        return Retry(delay)
    return _in_turn(Retry(delay), call, policy, draw)


def _in_turn(retry: Retry, call: Call, policy: RetryPolicy, draw: float) -> Retry | GiveUp:
    """Another attempt, once the guards of its origin let it through."""
    paused, spread, open_for = call.ahead or _NOTHING_AHEAD
    if paused > policy.max_retry_after:
        return GiveUp("retry_after")
    if paused:
        # Those that are held don't come back all at once, but each in time.
        left = math.inf if policy.timeout is None else max(0.0, policy.timeout - call.elapsed - paused)
        retry.delay = max(retry.delay, paused + draw * min(spread, left))
    if open_for > retry.delay:
        return GiveUp("circuit_open")
    return retry if _is_in_time(retry.delay, call, policy) else GiveUp("timeout")


def _is_in_time(delay: float, call: Call, policy: RetryPolicy) -> bool:
    return policy.timeout is None or call.elapsed + delay < policy.timeout


def _ran_out_of_time(outcome: Outcome, call: Call, timeout: float) -> bool:
    """Is this the `TimeoutError` by which the call's own deadline shows?"""
    return call.elapsed >= timeout and isinstance(outcome.error, TimeoutError)


# aiohttp always gives these; an error that a test has made may lack the one, and have a plain dict for the other.
def _request_of(info: RequestInfo | None) -> Request | None:
    return Request.to(info.method, info.real_url) if info is not None else None


def can_be_retried(outcome: Outcome, policy: RetryPolicy) -> bool:
    """Would another attempt follow, if attempts, time and the request allow it?"""
    return _kind(outcome, policy) not in (None, PERMANENT)


def is_success(outcome: Outcome) -> bool:
    """Is an outcome that is not retried a success? A 404 is one: the server is well, and has answered."""
    return outcome.error is None if outcome.status is None else outcome.status < SERVER_ERRORS


def server_failed(outcome: Outcome, policy: RetryPolicy) -> bool | None:
    """Does this outcome show that the server is not well? `None` where it shows nothing of it."""
    if isinstance(outcome.error, NotTheRestError):  # It has answered, and well.
        return False
    if isinstance(outcome.error, tenacity.TryAgain):
        cause = outcome.error.__cause__
        return server_failed(Outcome(None, cause), policy) if isinstance(cause, Exception) else False
    if outcome.status in SERVER_IS_WELL:
        return False
    if can_be_retried(outcome, policy):
        return True
    return False if is_success(outcome) else None


def _kind(outcome: Outcome, policy: RetryPolicy) -> Kind | None:
    kind: Kind | None = None
    if outcome.error is not None:
        kind = kind_of_error(outcome.error, policy.statuses, policy.exceptions)
    elif outcome.status in policy.statuses:
        kind = kind_of_status(outcome.status)
    return MAYBE_PROCESSED if kind is None and outcome.retry_if else kind


def _delay(
    outcome: Outcome, schedule: tuple[int, float, float, float], policy: RetryPolicy, draw: float, asked: float | None
) -> float:
    if outcome.wait is not None:
        return max(outcome.wait, asked or 0.0)
    delay = backoff.delay(policy.jitter, *schedule, draw=draw)
    if asked is None or asked <= delay:
        return delay
    # The server's word is a floor. Jitter adds to it, so that not all who were told so come back at that moment.
    shortest, longest = backoff.span(policy.jitter, *schedule)
    return asked + draw * max(0.0, min(longest - shortest, policy.max_delay - asked))
