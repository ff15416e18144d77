"""One call: the first attempt as a plain await, and all that follows where it failed."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, ParamSpec, TypeVar

from aiohttp import ClientResponse

from retrykit.core import clock, errors, listeners, scope
from retrykit.core.decision import Accept, Call, Decision, GiveUp, Outcome, Retry, decide
from retrykit.core.discard import drain
from retrykit.core.errors import GiveUpError, ResponseError
from retrykit.core.events import Attempt, GiveUpEvent, Reason, Request, RetryEvent, remember
from retrykit.core.policy import BeforeRetry, RetryPolicy
from retrykit.core.strategies import Strategies

P = ParamSpec("P")
R = TypeVar("R")

Describe = Callable[..., Request]
"""What is known of the request that a call with these arguments makes; asked only once an attempt has failed."""


def retrying(
    fn: Callable[P, Awaitable[R]], policy: RetryPolicy, name: str, describe: Describe | None = None
) -> Callable[P, Coroutine[Any, Any, R]]:
    """The coroutine function that calls `fn` under a policy.

    Args:
        fn: Makes one attempt.
        policy: The rules.
        name: How the call is named to listeners.
        describe: Tells of the request, from the arguments of the call. Default: what the outcomes show of it.
    """
    plan = _Plan(fn, policy, name, describe)
    timed, statuses, before_retry = policy.measures_time, policy.statuses, policy.before_retry
    any_result_can_fail = policy.retry_if is not None
    first_attempt: Callable[..., Awaitable[Any]] = fn

    async def call(*args: P.args, **kwargs: P.kwargs) -> Any:
        run = _Run(plan, args, kwargs) if timed else None
        while True:
            try:
                if run is None:  # A call without keywords is spared the packing of none.
                    outcome = await (first_attempt(*args, **kwargs) if kwargs else first_attempt(*args))
                else:
                    outcome = await run.attempt()
            except Exception as error:
                run = run or _Run(plan, args, kwargs)
                if run.ends_with_error(error):
                    raise
            else:
                if not (any_result_can_fail or (isinstance(outcome, ClientResponse) and outcome.status in statuses)):
                    if run is not None:
                        run.succeeded(outcome)
                    return outcome
                run = run or _Run(plan, args, kwargs)
                if await run.ends_with_result(outcome):
                    return outcome
                del outcome  # A call that waits holds nothing of the attempts before.
            if run.failure is not None:
                raise run.take_failure()
            await clock.sleep(run.delay)
            if before_retry is not None:
                await run.prepare(before_retry)

    return call


class _Plan(NamedTuple):
    """What all calls of a decorated function share: the arguments of `retrying`."""

    fn: Callable[..., Awaitable[Any]]
    policy: RetryPolicy
    name: str
    describe: Describe | None


class _Run:
    """A call whose time is limited, or whose first attempt has failed."""

    __slots__ = (
        "_args",
        "_attempts",
        "_event",
        "_kwargs",
        "_plan",
        "_policy",
        "_request",
        "_started",
        "_strategies",
        "delay",
        "failure",
    )

    def __init__(self, plan: _Plan, args: Any, kwargs: Any) -> None:
        self._plan, self._policy, self._args, self._kwargs = plan, plan.policy, args, kwargs
        self._started = clock.now()
        self._attempts: tuple[Attempt, ...] = ()
        self._request: Request | None = None
        self._strategies: Strategies | None = None
        self._event: RetryEvent | None = None
        self.delay = 0.0
        """Seconds to wait before the next attempt."""
        self.failure: Exception | None = None
        """What comes out in the place of the last attempt's outcome."""

    # --- what the loop asks for -----------------------------------------------------------------------------------

    async def attempt(self) -> Any:
        """Make the next attempt, within what is left of the time."""
        left, limit = self._time_left(), self._policy.attempt_timeout
        if left is not None:
            limit = left if limit is None else min(left, limit)
        outer = scope.enter(len(self._attempts) + 1, None if left is None else clock.now() + left)
        try:
            if limit is None:
                return await self._plan.fn(*self._args, **self._kwargs)
            async with clock.time_limit(limit):
                return await self._plan.fn(*self._args, **self._kwargs)
        finally:
            scope.leave(outer)

    async def prepare(self, before_retry: BeforeRetry) -> None:
        """Await the user's hook, within what is left of the time."""
        assert self._event is not None
        left = self._time_left()
        if left is None:
            await before_retry(self._event)
            return
        limit = clock.time_limit(left)
        try:
            async with limit:
                await before_retry(self._event)
        except TimeoutError as error:
            if limit.expired():
                self._mark(error, "timeout")
            raise

    def ends_with_error(self, error: Exception) -> bool:
        """Is this error what comes out of the call? If not, another attempt follows, or `failure` comes out."""
        decision = self._judge(None, error)
        if isinstance(decision, Retry):
            return False
        if isinstance(decision, Accept):
            if len(self._attempts) > 1:
                self._mark(error, None)
            return True
        final = errors.asked_for_by(error)
        if isinstance(final, ResponseError) and not isinstance(final, GiveUpError):
            self.failure = self._give_up_error(final, decision.reason).with_traceback(final.__traceback__)
            return False
        self._mark(final, decision.reason)
        if final is not error:
            self.failure = final
        return final is error

    def take_failure(self) -> Exception:
        """Hand `failure` over. It is not kept: its traceback leads back here, and that would be a cycle."""
        assert self.failure is not None
        failure, self.failure = self.failure, None
        return failure

    def succeeded(self, result: object) -> None:
        """Take in a result that needs no judging."""
        if self._attempts:
            self._record(Outcome(result), clock.now() - self._started, None)
            remember(result, self._attempts)

    async def ends_with_result(self, result: object) -> bool:
        """Is this result what the caller gets? If not, it has been disposed of, and another attempt follows.

        Raises:
            GiveUpError: The result is a response that was given up on.
        """
        response = result if isinstance(result, ClientResponse) else None
        try:
            decision = self._judge(result, None)
        except BaseException:  # One of the user's strategies failed.
            if response is not None:
                response.close()
            raise
        if isinstance(decision, Retry):
            if response is not None:
                await drain(response, self._time_left())
            return False
        if isinstance(decision, GiveUp) and response is not None and self._policy.on_give_up != "return":
            body = await drain(response, self._time_left())
            raise self._give_up_error(ResponseError.of(response, body), decision.reason)
        if isinstance(decision, GiveUp) or len(self._attempts) > 1:
            remember(result, self._attempts)
        return True

    # --- how it goes about it -------------------------------------------------------------------------------------

    def _judge(self, result: object, error: Exception | None) -> Decision:
        policy = self._policy.replace(max_retries=1) if scope.retries_disabled() else self._policy
        elapsed = clock.now() - self._started
        outcome = Outcome(result, error, clock.wall(), *self._answers(result, error, elapsed))
        draw = clock.draw() if policy.jitter != "none" else 0.0
        decision = decide(outcome, self._call(elapsed), policy, draw)
        if self._strategies is not None:
            if isinstance(decision, Retry) and self._strategies.stops(decision.delay):
                decision = GiveUp("stop")
            self._strategies.forget()
        if isinstance(decision, Retry):
            self.delay = decision.delay
        self._record(outcome, elapsed, decision.delay if isinstance(decision, Retry) else None)
        if not isinstance(decision, Accept):
            self._tell(outcome, decision, policy.max_retries)
        return decision

    def _answers(self, result: object, error: Exception | None, elapsed: float) -> tuple[bool, float | None]:
        """What the policy's `retry_if` and `wait` say."""
        if not self._policy.strategies:
            return False, None
        if self._strategies is None:
            self._strategies = Strategies(self._policy, self._plan.fn, self._args, self._kwargs, self._started)
        return self._strategies.ask(len(self._attempts) + 1, result, error, elapsed)

    def _call(self, elapsed: float) -> Call:
        if self._request is None:
            self._request = self._plan.describe(*self._args, **self._kwargs) if self._plan.describe else Request()
        repeatable, sendable = self._request.repeatable, self._request.unsendable_body is None
        if self._policy.idempotent is not None:
            repeatable = self._policy.idempotent
        return Call(len(self._attempts) + 1, elapsed, self.delay, repeatable, sendable)

    def _record(self, outcome: Outcome, elapsed: float, delay: float | None) -> None:
        raised = None if outcome.error is None else type(outcome.error)
        attempt = Attempt(len(self._attempts) + 1, outcome.status, raised, elapsed, delay)
        self._attempts = (*self._attempts, attempt)

    def _tell(self, outcome: Outcome, decision: Retry | GiveUp, max_retries: int) -> None:
        if not (listeners.get_listeners() or self._policy.before_retry):
            return
        request = outcome.request or self._request or Request()
        last = self._attempts[-1]
        known: dict[str, Any] = {
            "call": self._plan.name,
            "method": request.method,
            "origin": request.origin,
            "path": request.path,
            "attempt": last.number,
            "max_retries": max_retries,
            "status": last.status,
            "exception": last.exception,
            "elapsed": last.elapsed,
        }
        if isinstance(decision, Retry):
            self._event = RetryEvent(**known, delay=decision.delay)
            listeners.tell(self._event)
        else:
            listeners.tell(GiveUpEvent(**known, reason=decision.reason))

    def _time_left(self) -> float | None:
        if self._policy.timeout is None:
            return None
        return max(0.0, self._policy.timeout - (clock.now() - self._started))

    def _mark(self, error: Exception, reason: Reason | None) -> None:
        errors.note(error, self._summary(reason))
        remember(error, self._attempts)

    def _give_up_error(self, error: ResponseError, reason: Reason) -> GiveUpError:
        return GiveUpError.after(error, reason, self._attempts, self._summary(reason))

    def _summary(self, reason: Reason | None) -> str:
        body = self._request.unsendable_body if self._request else None
        policy = self._policy
        return errors.summary(
            self._attempts, reason, body=body, timeout=policy.timeout, max_retry_after=policy.max_retry_after
        )
