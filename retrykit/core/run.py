"""A call whose time is limited, or whose first attempt has failed: what it remembers, and how it goes on."""

import inspect
import sys
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import tenacity
from aiohttp import ClientResponse

from retrykit.core import clock, errors, listeners, scope
from retrykit.core.checks import name_of, shown_type
from retrykit.core.decision import ACCEPT, Accept, Call, Decision, GiveUp, Outcome, Retry, can_be_retried, decide
from retrykit.core.discard import MOST_SECONDS, drain
from retrykit.core.errors import GiveUpError, ResponseError
from retrykit.core.events import Attempt, FailedAttempt, Reason, Request, RetryEvent, calls_ended, remember
from retrykit.core.policy import BeforeRetry, RetryPolicy
from retrykit.core.scope import warn_of_stacked_retries
from retrykit.core.strategies import Strategies

Describe = Callable[..., Request]


class Plan(NamedTuple):
    """What all calls of a decorated function share."""

    fn: Callable[..., Awaitable[Any]]
    """Makes one attempt."""
    policy: RetryPolicy
    name: str
    """How its calls are named to listeners."""
    describe: Describe | None = None
    """Tells of the request, from the arguments of the call; asked only once an attempt has failed. Default: what the
    outcomes show of it."""
    returns_response: bool = False
    """What happens to a response that was given up on, where the policy's `on_give_up` does not say."""

    holds_back: bool = False
    """Is this a request whose repeat by aiohttp is held back?"""
    is_over: Callable[..., bool] | None = None
    """Tells, from the arguments of the call, whether a time has passed that something else has set for all of it; asked
    where an attempt ended in a `TimeoutError`, and after what an attempt has left was drained."""

    @property
    def place(self) -> str:
        """What is called, as a warning names it."""
        module = getattr(self.fn, "__module__", "") or ""
        return self.name if module.partition(".")[0] in ("", "retrykit") else f"{module}.{self.name}"


class Run:
    """One call."""

    __slots__ = (
        "_args",
        "_attempts",
        "_calls_before",
        "_event",
        "_is_overdue",
        "_kwargs",
        "_plan",
        "_policy",
        "_previous_delay",
        "_reason",
        "_redirected",
        "_repeated_at_once",
        "_request",
        "_started",
        "_strategies",
        "delay",
        "failure",
    )

    def __init__(self, plan: Plan, args: Any, kwargs: Any) -> None:
        self._plan, self._policy, self._args, self._kwargs = plan, plan.policy, args, kwargs
        self._started = clock.now()
        self._attempts: tuple[Attempt, ...] = ()
        self._request: Request | None = None
        self._strategies: Strategies | None = None
        self._event: RetryEvent | None = None
        self._reason: Reason = "attempts"
        self._is_overdue = False
        self._redirected = False
        self._repeated_at_once = False
        self._previous_delay = 0.0
        self._calls_before: int | None = None
        self.delay = 0.0
        """Seconds to wait before the next attempt."""
        self.failure: Exception | None = None
        """What the call ends with, where that is not simply raised on; `take_failure` makes of it what comes out."""

    # --- what the loop asks for -----------------------------------------------------------------------------------

    async def attempt(self) -> Any:
        """Make the next attempt, within what is left of the time."""
        left, limit = self._time_left(), self._policy.attempt_timeout
        if left == 0 and self._attempts:
            raise self._overdue()  # It would still get as far as its first await, and that may be a request sent.
        if left is not None:
            limit = left if limit is None else min(left, limit)
        attempt = scope.enter(len(self._attempts) + 1, left, limit)
        try:
            async with clock.time_limit(limit):
                return await self._plan.fn(*self._args, **self._kwargs)
        finally:
            scope.leave(attempt)

    async def prepare(self, before_retry: BeforeRetry) -> None:
        """Await the user's hook, within what is left of the time."""
        assert self._event is not None
        limit = clock.time_limit(self._time_left())
        try:
            async with limit:
                await _awaitable(before_retry(self._event), before_retry)
        except Exception as error:
            timed_out = isinstance(error, TimeoutError) and limit.expired()
            if timed_out:
                listeners.tell(self._event.given_up("timeout"))
            self._mark(error, "timeout" if timed_out else None)
            raise

    def ends_with_error(self, error: Exception) -> bool:
        """Is this error what comes out of the call? If not, another attempt follows, or `failure` is set."""
        if self._is_overdue:
            return True
        decision = self._judge(Outcome(None, error, clock.wall()))
        if isinstance(decision, Retry):
            return False
        if isinstance(decision, Accept):
            if len(self._attempts) > 1:
                self._mark(error, None)
            return True
        self._reason = decision.reason
        if type(error) is ResponseError or isinstance(error, tenacity.TryAgain):
            self.failure = error
            return False
        self._mark(error, decision.reason)
        return True

    def take_failure(self) -> Exception:
        """What comes out in the place of `failure`: a `GiveUpError`, or what a `TryAgain` was raised from.

        It is made outside of the handler of the error, so that it keeps a context of its own; and it is not kept here,
        because its traceback leads back here, and that would be a cycle.
        """
        failure, self.failure = self.failure, None
        assert failure is not None
        if isinstance(failure, tenacity.TryAgain):
            failure = errors.asked_for_by(failure, sys.exception())
        if type(failure) is ResponseError:
            return self._give_up_error(failure, self._reason)
        self._mark(failure, self._reason)
        return failure

    def succeeded(self, result: object) -> None:
        """Take in a result that needs no judging."""
        if self._attempts:
            self._record(Outcome(result), clock.now() - self._started, None)
            self._remember(result, gave_up=False)

    async def ends_with_result(self, result: object) -> bool:
        """Is this result what the caller gets? If not, it has been disposed of, and another attempt follows.

        Raises:
            GiveUpError: The result is a response that was given up on.
        """
        response = result if isinstance(result, ClientResponse) else None
        try:
            decision = self._judge(Outcome(result, None, clock.wall()))
        except BaseException:  # One of the user's strategies failed.
            if response is not None:
                response.close()
            raise
        if isinstance(decision, Retry):
            if response is not None:
                await drain(response, self._time_to_spare(decision.delay))
                if self._is_over():
                    error = TimeoutError()
                    self._mark(error, None)
                    raise error
            return False
        if isinstance(decision, GiveUp) and response is not None and not self._hands_back_responses():
            body = await drain(response, self._time_left())
            raise self._give_up_error(ResponseError.of(response, body), decision.reason)
        if isinstance(decision, GiveUp) or len(self._attempts) > 1:
            self._remember(result, gave_up=isinstance(decision, GiveUp))
        return True

    # --- how it goes about it -------------------------------------------------------------------------------------

    def _judge(self, outcome: Outcome) -> Decision:
        policy = self._policy.replace(max_retries=1) if scope.retries_disabled() else self._policy
        elapsed = clock.now() - self._started
        over = isinstance(outcome.error, TimeoutError) and self._is_over()
        decision = ACCEPT if over else self._decide(outcome, elapsed, policy)
        self._warn_if_stacked(outcome)
        if isinstance(decision, Retry):
            self._take(decision)
        elif decision == GiveUp("not_repeatable"):
            self._redirected = outcome.redirected
        self._record(outcome, elapsed, decision.delay if isinstance(decision, Retry) else None)
        if not isinstance(decision, Accept):
            self._tell(outcome, decision, policy.max_retries)
        return decision

    def _take(self, decision: Retry) -> None:
        """Go by the decision to try again."""
        self.delay = decision.delay
        if decision.at_once:
            self._repeated_at_once = True
        else:
            self._previous_delay = decision.delay
        self._calls_before = calls_ended()

    def _warn_if_stacked(self, outcome: Outcome) -> None:
        """Warn where an attempt that was itself a repetition ended in a call that had repeated, too, and given up."""
        if self._calls_before is not None:
            warn_of_stacked_retries(self._plan.place, outcome.value, self._calls_before)

    def _decide(self, outcome: Outcome, elapsed: float, policy: RetryPolicy) -> Decision:
        """What follows, with the answers of the user's strategies, where there are any."""
        call, draw = self._call(elapsed), clock.draw() if policy.jitter != "none" else 0.0
        if not policy.strategies:
            return decide(outcome, call, policy, draw)
        if self._strategies is None:
            self._strategies = Strategies(policy, self._plan.fn, self._args, self._kwargs, self._started)
        strategies = self._strategies
        strategies.see(call.attempt, outcome.result, outcome.error, elapsed)
        try:
            outcome = outcome._replace(retry_if=strategies.retry_if())
            if can_be_retried(outcome, policy):
                outcome = outcome._replace(wait=strategies.wait())
            decision = decide(outcome, call, policy, draw)
            if isinstance(decision, Retry) and strategies.stops(decision.delay):
                return GiveUp("stop")
            return decision
        finally:
            strategies.forget()

    def _overdue(self) -> TimeoutError:
        """The end of a call whose time was over before its next attempt could begin."""
        self._is_overdue = True
        if self._event is not None:
            listeners.tell(self._event.given_up("timeout"))
        error = TimeoutError()
        self._mark(error, "timeout")
        return error

    def _call(self, elapsed: float) -> Call:
        if self._request is None:
            self._request = self._described()
        repeatable = self._policy.idempotent
        return Call(
            attempt=len(self._attempts) + 1,
            elapsed=elapsed,
            previous_delay=self._previous_delay,
            repeatable=self._request.repeatable if repeatable is None else repeatable,
            sendable=self._used_up_body() is None,
            holds_back=self._plan.holds_back,
            repeated_at_once=self._repeated_at_once,
        )

    def _used_up_body(self) -> str | None:
        body = self._request.body if self._request else None
        return body.used_up if body is not None else None

    def _described(self) -> Request:
        if self._plan.describe is None:
            return Request()
        try:
            return self._plan.describe(*self._args, **self._kwargs)
        except TypeError:  # The arguments don't fit, and the error at hand says so.
            return Request()

    def _record(self, outcome: Outcome, elapsed: float, delay: float | None) -> None:
        raised = None if outcome.error is None else type(outcome.error)
        attempt = Attempt(len(self._attempts) + 1, outcome.status, raised, elapsed, delay)
        self._attempts = (*self._attempts, attempt)

    def _tell(self, outcome: Outcome, decision: Retry | GiveUp, max_retries: int) -> None:
        if not (listeners.get_listeners() or self._policy.before_retry):
            return
        request = outcome.request or self._request or Request()
        last = self._attempts[-1]
        failed = FailedAttempt(
            call=self._plan.name,
            method=request.method,
            origin=request.origin,
            path=request.path,
            attempt=last.number,
            max_retries=max_retries,
            status=last.status,
            exception=last.exception,
            elapsed=last.elapsed,
        )
        if isinstance(decision, Retry):
            self._event = failed.retried(decision.delay)
            listeners.tell(self._event)
        else:
            listeners.tell(failed.given_up(decision.reason))

    def _time_left(self) -> float | None:
        if self._policy.timeout is None:
            return None
        return max(0.0, self._policy.timeout - (clock.now() - self._started))

    def _time_to_spare(self, delay: float) -> float:
        """How long may be spent before a wait of `delay` seconds without pushing that past the end of the call."""
        left = self._time_left()
        return MOST_SECONDS if left is None or left - delay > MOST_SECONDS else 0.0

    def _hands_back_responses(self) -> bool:
        if self._policy.on_give_up is None:
            return self._plan.returns_response
        return self._policy.on_give_up == "return"

    def _mark(self, error: Exception, reason: Reason | None) -> None:
        request = self._request
        where = f" ({request.method} {request.origin or ''}{request.path})" if request and request.path else ""
        errors.note(error, self._summary(reason) + where)
        if not isinstance(error, GiveUpError):  # It tells of the call inside that gave up.
            self._remember(error, gave_up=reason is not None)

    def _give_up_error(self, error: ResponseError, reason: Reason) -> GiveUpError:
        made = GiveUpError.after(error, reason, self._attempts, self._summary(reason))
        self._remember(made, gave_up=True)
        return made

    def _remember(self, outcome: object, *, gave_up: bool) -> None:
        remember(outcome, self._attempts, self._plan.place, gave_up=gave_up)

    def _is_over(self) -> bool:
        return self._plan.is_over is not None and self._plan.is_over(*self._args, **self._kwargs)

    def _summary(self, reason: Reason | None) -> str:
        policy = self._policy
        return errors.summary(
            self._attempts,
            reason,
            measured=policy.measures_time,
            body=self._used_up_body(),
            redirected=self._redirected,
            timeout=policy.timeout,
            max_retry_after=policy.max_retry_after,
        )


def _awaitable(result: Any, hook: BeforeRetry) -> Awaitable[object]:
    if not inspect.isawaitable(result):
        raise TypeError(
            f"before_retry={name_of(hook)} returned {shown_type(result)}, which can't be awaited; write a coroutine"
            " function: `async def`"
        )
    return result
