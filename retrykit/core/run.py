"""A call that has guards, or whose first attempt has failed: what it remembers, and how it goes on."""

import contextlib
import inspect
import sys
from collections.abc import Awaitable, Iterator
from typing import Any

import tenacity
from aiohttp import ClientResponse

from retrykit.core import clock, errors, listeners, scope
from retrykit.core.checks import name_of, shown_type
from retrykit.core.classify import THROTTLED
from retrykit.core.decision import (
    ACCEPT,
    Accept,
    Ahead,
    Call,
    Decision,
    GiveUp,
    Outcome,
    Retry,
    can_be_retried,
    decide,
    is_success,
)
from retrykit.core.discard import MOST_SECONDS, drain
from retrykit.core.errors import GiveUpError, NotTheRestError, ResponseError
from retrykit.core.events import (
    CallEvent,
    Ended,
    FailedAttempt,
    Reason,
    Request,
    RetryEvent,
    as_attempts,
)
from retrykit.core.history import calls, remember
from retrykit.core.limits import TimeLimit
from retrykit.core.plan import CarriedOn, Plan
from retrykit.core.policy import BeforeRetry, RetryPolicy
from retrykit.core.protocols import Budget
from retrykit.core.scope import Scope, warn_of_stacked_retries
from retrykit.core.strategies import Strategies


class _Asked:
    """A retry that a budget was asked for."""

    __slots__ = ("answer", "decision")

    def __init__(self, answer: Awaitable[bool], decision: Retry) -> None:
        self.answer = answer
        self.decision: Retry | GiveUp = decision


_UNKNOWN = Request()
_counter = scope.counter.get  # It is asked in each retry.


class Run:
    """One call."""

    __slots__ = (
        "_args",
        "_asked",
        "_call",
        "_calls_before",
        "_ended",
        "_event",
        "_is_refused",
        "_kwargs",
        "_made",
        "_not_before",
        "_origin",
        "_plan",
        "_policy",
        "_reason",
        "_redirected",
        "_request",
        "_shown",
        "_started",
        "_strategies",
        "delay",
        "scope",
        "unsettled",
    )

    def __init__(self, plan: Plan, args: Any, kwargs: Any, started: float, carried_on: CarriedOn | None = None) -> None:
        self._plan, self._args, self._kwargs = plan, args, kwargs
        self._policy = plan.policy.for_one_call(max_retries=1) if scope.retries_disabled() else plan.policy
        self._started = started if self._policy.measures_time else clock.now()
        self._ended: tuple[Ended, ...] = ()
        """The attempts so far."""
        self._made = 0 if carried_on is not None or plan.policy.guards_attempts else 1
        """Attempts that were made. Without guards, it is the first that has ended where there is a run."""
        if carried_on is not None:
            self._started, self._ended = carried_on.started, carried_on.ended
        self._call: Call | None = None
        self._request = self._shown = _UNKNOWN
        self.scope: Scope | None = None
        """What marks its attempts, where no limit does; at the end of the call, none is `running`."""
        self._strategies: Strategies | None = None
        self._event: RetryEvent | None = None
        self._reason: Reason | None = None
        """Why it was given up on."""
        self._is_refused = False
        """Was the next attempt refused, so that there was none?"""
        self._asked: _Asked | None = None
        """A budget that has to ask elsewhere."""
        self._not_before = 0.0
        """The instant until which the server has asked an attempt to wait that failed beside another one."""
        self._redirected = False
        self._calls_before: int | None = None
        self.delay = 0.0
        """Seconds to wait before the next attempt."""
        self.unsettled: ClientResponse | Exception | None = None
        """An open response that nobody gets, or an error in whose place another comes out; `settle` is for it."""

    # --- what the loop asks for -----------------------------------------------------------------------------------

    def begin_attempt(self) -> TimeLimit | None:
        """Mark the next attempt, or give what limits and marks it.

        Raises:
            TimeoutError: There is no time left.
        """
        number = len(self._ended) + 1
        if self._plan.limits is None:
            self._made += 1
            if _counter() is not None:
                scope.count_attempt()
            self.scope = self.scope or Scope()
            self.scope.enter(number)
            return None
        self.ask_for_time()
        self._made += 1
        scope.count_attempt()
        return self.limit(number)

    def ask_for_time(self) -> None:
        """Is there time for another attempt? It would get as far as its first await, and that may be a request sent.

        Raises:
            TimeoutError: There is none.
        """
        if self.time_left() == 0:
            raise self.refused(TimeoutError(), "timeout")

    def limit(self, number: int) -> TimeLimit | None:
        """What limits and marks an attempt; `None` where nothing limits it."""
        limits = self._plan.limits
        return None if limits is None else TimeLimit(limits, number, clock.now(), self.time_left())

    async def prepare(self, before_retry: BeforeRetry) -> None:
        """Await the user's hook, within what is left of the time."""
        assert self._event is not None
        left = self.time_left()
        limit = clock.time_limit(left)
        try:
            with scope.deadline_scope(left):  # Calls in it know how long they have.
                async with limit:
                    await _awaitable(before_retry(self._event), before_retry)
        except Exception as error:
            timed_out = isinstance(error, TimeoutError) and limit.expired()
            if timed_out:
                self._reason = "timeout"
                listeners.tell(self._event.given_up("timeout"))
            self._marked(error, self._reason)
            raise

    def ends_with_error(self, error: Exception) -> bool | None:
        """Is this error what comes out of the call? If not, another attempt follows, unless it is `unsettled`.

        `None` where the budget has to be asked first (`ask_budget`), and then this again.
        """
        if self._is_refused:
            return True
        as_raised = self._plan.traits.as_raised
        counted = error if as_raised is None else as_raised(error)
        outcome = Outcome(None, counted)
        if counted is not error and isinstance(error, NotTheRestError):
            outcome.answered = error.status
        decision = self._judge(outcome)
        if decision is None:
            return None
        if outcome.answered is not None:  # It is recorded as the answer that it was.
            *_, elapsed, delay = self._ended[-1]
            self._ended = (*self._ended[:-1], (outcome.answered, None, elapsed, delay))
        if isinstance(decision, Retry):
            return False
        is_stand_in = type(error) is ResponseError or isinstance(error, tenacity.TryAgain)
        if counted is not error or (is_stand_in and self._reason is not None):
            self.unsettled = counted
            return False
        self._ended_by(error)
        return True

    def succeeded(self, result: object) -> None:
        """Take in a result that needs no judging."""
        if self._ended and isinstance(result, ClientResponse):
            last = (result.status, None, clock.now() - self._started, None)
            remember(result, (*self._ended, last), self._plan.place, gave_up=False)

    def ends_with_result(self, result: object) -> bool | None:
        """Is this result what the caller gets? If not, another attempt follows, once it is settled.

        `None` as of `ends_with_error`.
        """
        response = result if isinstance(result, ClientResponse) else None
        try:
            decision = self._judge(Outcome(result))
        except BaseException:  # One of the user's strategies failed.
            if response is not None:
                response.close()
            raise
        if decision is None:
            return None
        if isinstance(decision, Retry):
            if response is not None and not response.closed:  # Else all of it came, and its connection is free.
                self.unsettled = response
            return False
        if isinstance(decision, GiveUp) and response is not None and not self._hands_back_responses():
            self.unsettled = response
            return False
        if isinstance(decision, GiveUp) or len(self._ended) > 1:
            self._remember(result, gave_up=isinstance(decision, GiveUp))
        return True

    async def ask_budget(self, outcome: object) -> None:
        """Wait for what the budget answers to an attempt that ended so."""
        asked = self._asked
        assert asked is not None
        limit = clock.time_limit(self.time_left())
        try:
            try:
                async with limit:
                    granted = await asked.answer
            except TimeoutError:
                if not limit.expired():
                    raise
                asked.decision = GiveUp("timeout")
            else:
                if not granted:
                    asked.decision = GiveUp("budget")
                elif isinstance(asked.decision, Retry) and not self._has_time_for(asked.decision.delay):
                    asked.decision = GiveUp("timeout")
        except BaseException:
            if isinstance(outcome, ClientResponse):
                outcome.close()
            raise

    async def settle(self) -> None:
        """Let go of an open response, or raise what comes out in the place of an error.

        An error is made outside of the handler of that one, so that it keeps a context of its own. It is kept neither
        in the run nor in a variable: its traceback leads back to both, and that would be a cycle.

        Raises:
            GiveUpError: The response, or the error that was made of one, was given up on.
            TimeoutError: The time is over that something else has set for the call.
        """
        if not isinstance(self.unsettled, ClientResponse):
            raise self._what_comes_out()
        response, self.unsettled = self.unsettled, None
        if self._reason is not None:
            body = await drain(response, self.time_left())
            raise self._give_up_error(ResponseError.of(response, body), self._reason)
        await drain(response, self._time_to_spare(self.delay))
        if self._is_over():
            raise self._marked(TimeoutError(), None)

    def tell_of_end(self, result: object, error: BaseException | None) -> None:
        """The call has ended: with this error, else with this result."""
        outcome = Outcome(result, error if isinstance(error, Exception) else None)
        request = outcome.request or self._described()
        if request is _UNKNOWN:  # An attempt before may have shown it.
            request = self._shown
        listeners.tell_of_call(
            CallEvent(
                call=self._plan.name,
                method=request.method,
                origin=request.origin,
                path=request.path,
                attempts=self._made,
                status=outcome.status,
                exception=None if error is None else type(error),
                reason=self._reason,
            )
        )

    # --- what guards ask for --------------------------------------------------------------------------------------

    @property
    def origin(self) -> str | None:
        """Of the request, as far as it is known."""
        try:
            return self._origin
        except AttributeError:  # The first to ask finds it; a call without guards is spared that.
            self._origin: str | None = self._plan.origin_of(self._args, self._kwargs)
            return self._origin

    @property
    def attempts(self) -> int:
        """Those that have ended."""
        return len(self._ended)

    @property
    def most_attempts(self) -> int:
        """Those that there may be."""
        return self._policy.max_retries

    @property
    def may_be_hedged(self) -> bool:
        """Can its request be sent a second time while it is under way?"""
        call, body = self._call or self._call_as_described(), self._request.body
        return call.repeatable and (body is None or body.can_be_shared)

    def make_attempt(self) -> Awaitable[Any]:
        """Run the function."""
        self._made += 1
        return self._plan.fn(*self._args, **self._kwargs)

    def time_left(self) -> float | None:
        """The seconds that are left of the call; `None` where it has no timeout."""
        if self._policy.timeout is None:
            return None
        return max(0.0, self._policy.timeout - (clock.now() - self._started))

    @contextlib.contextmanager
    def outside_of_attempts(self) -> Iterator[None]:
        """What is raised inside is no failure of an attempt: it comes out of the call."""
        try:
            yield
        except Exception:
            self._is_refused = True
            raise

    def refused(self, error: Exception, reason: Reason) -> Exception:
        """The end of a call whose next attempt was refused: it tells of those before, if there were any."""
        self._is_refused, self._reason = True, reason
        if not self._ended:
            self._made = 0
            return error
        if self._event is not None:
            listeners.tell(self._event.given_up(reason))
        return self._marked(error, reason)

    def is_answer(self, outcome: Outcome) -> bool:
        """Is this how the call ends, whatever other attempts come to?"""
        if self._policy.retry_if is not None:
            strategies = self._seen(outcome, len(self._ended) + 1, clock.now() - self._started)
            try:
                outcome.retry_if = strategies.retry_if()
            finally:
                strategies.forget()
        return not can_be_retried(outcome, self._policy)

    def stops_with(self, attempts: int) -> bool:
        """Does the policy's `stop` allow no more than these, of which one still runs?"""
        if self._policy.stop is None:
            return False
        strategies = self._strategies or self._new_strategies()
        strategies.see_running(attempts, clock.now() - self._started)
        return strategies.stops(0.0)

    def failed_beside(self, outcome: Outcome) -> None:
        """An attempt failed while another one runs, on which it depends what follows."""
        self.ended_beside(outcome.status, None if outcome.error is None else type(outcome.error))
        if self._calls_before is not None and self._calls_before != calls.ended:
            warn_of_stacked_retries(self._plan.place, outcome.value, self._calls_before)
        self._calls_before = calls.ended
        if (asked := outcome.asked_delay) is not None:
            self._not_before = max(self._not_before, clock.now() + asked)

    def tell_that_the_next_begins(self, failed: Outcome) -> None:
        """Another attempt follows at once on one that failed beside the one that runs."""
        if listeners.told:
            self._tell(failed, Retry(0.0), self._policy.max_retries)

    def ended_beside(self, status: int | None, raised: type[BaseException] | None) -> None:
        """An attempt ended, and it is not the one that counts."""
        call = self._call or self._call_as_described()
        call.attempt += 1
        call.beside += 1
        self._ended += ((status, raised, clock.now() - self._started, None),)

    # --- how it goes about it -------------------------------------------------------------------------------------

    def _judge(self, outcome: Outcome) -> Decision | None:  # noqa: C901, PLR0912 - each step is small, a call is dear.
        if self.scope is not None:
            self.scope.running = 0
        policy, call = self._policy, self._call or self._call_as_described()
        call.attempt += 1
        if outcome.status is not None:  # Only an answer can name a time of day.
            outcome.wall = clock.wall()
        call.elapsed = clock.now() - self._started
        if self._request is not _UNKNOWN:
            self._see_request(call, self._request)
        asked = self._look_ahead(call, policy) if policy.has_guards else None
        if asked is not None:
            decision: Decision = asked.decision
        elif self._plan.traits.is_over is not None and isinstance(outcome.error, TimeoutError) and self._is_over():
            decision = ACCEPT
        elif policy.strategies:
            decision = self._decide_with_strategies(outcome, call, policy)
        else:
            draws = policy.jitter != "none" or call.ahead is not None
            decision = decide(outcome, call, policy, clock.draw() if draws else 0.0)
        if policy.budget is not None and asked is None:
            decision = self._as_budgeted(outcome, decision, policy.budget)
            if self._asked is not None:
                return None
        if self._calls_before is not None and self._calls_before != calls.ended:
            # A repetition ended, and calls ended meanwhile. Was one of them a part of it, had repeated, and given up?
            warn_of_stacked_retries(self._plan.place, outcome.value, self._calls_before)
        raised = None if outcome.error is None else type(outcome.error)
        if isinstance(decision, Retry):
            self.delay = decision.delay
            self._calls_before = calls.ended
            if decision.at_once:
                call.repeated_at_once = True
            else:
                call.previous_delay = decision.delay
            self._ended += ((outcome.status, raised, call.elapsed, decision.delay),)
        else:
            self._ended += ((outcome.status, raised, call.elapsed, None),)
            if isinstance(decision, Accept):
                return decision
            self._reason = decision.reason
            self._redirected = decision.reason == "not_repeatable" and outcome.redirected
        if listeners.told or policy.before_retry:
            self._tell(outcome, decision, policy.max_retries)
        return decision

    @staticmethod
    def _see_request(call: Call, request: Request) -> None:
        """Can its body be sent again, and what has come of the answer's be resumed?"""
        if request.body is not None:
            call.sendable = request.body.used_up is None
        if request.answered is not None:
            call.resumable = request.answered.unresumable is None

    def _as_budgeted(self, outcome: Outcome, decision: Decision, budget: Budget) -> Decision:
        """What follows, as far as the budget allows it; where it has to ask elsewhere, that is not known yet."""
        if isinstance(decision, Accept):
            if is_success(outcome):
                budget.earn(self.origin)
        elif isinstance(decision, Retry):
            granted = budget.spend(self.origin, throttled=outcome.status == THROTTLED)
            if not inspect.isawaitable(granted):
                return decision if granted else GiveUp("budget")
            self._asked = _Asked(granted, decision)
        return decision

    def _look_ahead(self, call: Call, policy: RetryPolicy) -> "_Asked | None":
        """See what the next attempt would have to wait for; where the budget was asked for it, there it is."""
        if (asked := self._asked) is not None:
            self._asked = None
            call.attempt -= 1  # It was counted before the budget was asked.
        elif policy.guards_attempts:
            now, spread, until = clock.now(), 0.0, self._not_before
            if policy.pause is not None and (hold := policy.pause.hold(self.origin)) is not None:
                spread, until = hold.spread, max(until, hold.end)
            open_for = 0.0 if policy.breaker is None else policy.breaker.open_for(self.origin)
            call.ahead = Ahead(until - now, spread, open_for) if until > now else Ahead(0.0, 0.0, open_for)
        return asked

    def _seen(self, outcome: Outcome, attempt: int, elapsed: float) -> Strategies:
        """The user's strategies, which have seen how an attempt ended."""
        strategies = self._strategies or self._new_strategies()
        strategies.see(attempt, outcome.result, outcome.error, elapsed)
        return strategies

    def _new_strategies(self) -> Strategies:
        self._strategies = Strategies(self._policy, self._plan.fn, self._args, self._kwargs, self._started)
        return self._strategies

    def _decide_with_strategies(self, outcome: Outcome, call: Call, policy: RetryPolicy) -> Decision:
        """What follows, with the answers of the user's strategies."""
        strategies = self._seen(outcome, call.attempt, call.elapsed)
        try:
            outcome.retry_if = strategies.retry_if()
            if can_be_retried(outcome, policy):
                outcome.wait = strategies.wait()
            draws = policy.jitter != "none" or call.ahead is not None
            decision = decide(outcome, call, policy, clock.draw() if draws else 0.0)
            if isinstance(decision, Retry) and strategies.stops(decision.delay):
                return GiveUp("stop")
            return decision
        finally:
            strategies.forget()

    def _what_comes_out(self) -> Exception:
        """A `GiveUpError` in the place of a `ResponseError`, or what a `TryAgain` was raised from."""
        error, self.unsettled = self.unsettled, None
        assert isinstance(error, Exception)
        if isinstance(error, tenacity.TryAgain):
            error = errors.asked_for_by(error, sys.exception())
        if type(error) is ResponseError and self._reason is not None:
            return self._give_up_error(error, self._reason)
        return self._ended_by(error)

    def _ended_by(self, error: Exception) -> Exception:
        """The error that the last attempt ended with: it tells of the call, if that was more than this attempt."""
        if self._reason is not None or len(self._ended) > 1:
            self._marked(error, self._reason)
        if self._plan.traits.ended_by is not None:
            self._plan.traits.ended_by(error, *self._args)
        return error

    def _described(self) -> Request:
        """The request, as far as it is known from the arguments."""
        if self._request is _UNKNOWN and self._plan.traits.describe is not None:
            # Where the arguments don't fit, the error at hand says so.
            with contextlib.suppress(TypeError):
                self._request = self._plan.traits.describe(*self._args, **self._kwargs)
        return self._request

    def _call_as_described(self) -> Call:
        """The call, before its first attempt has ended."""
        traits, idempotent = self._plan.traits, self._policy.idempotent
        if traits.is_plain is None or not traits.is_plain(*self._args, **self._kwargs):
            self._described()
        repeatable = self._request.repeatable if idempotent is None else idempotent
        call = self._call = Call(0, 0.0, 0.0, repeatable, holds_back=traits.holds_back)
        if self._ended:
            self._carry_on(call)
        return call

    def _carry_on(self, call: Call) -> None:
        """Have a call stand where the attempts before have left it."""
        delays = [delay for *_, delay in self._ended if delay is not None]
        waits = [delay for delay in delays if delay]
        call.attempt = len(self._ended)
        call.previous_delay = waits[-1] if waits else 0.0
        # Only a repetition at once has a delay of 0, or all have: then it doesn't matter.
        call.repeated_at_once = call.holds_back and len(waits) < len(delays)

    def _tell(self, outcome: Outcome, decision: Retry | GiveUp, max_retries: int) -> None:
        policy = self._policy
        # By it, a refusal of the next attempt is told.
        is_kept = policy.before_retry is not None or policy.timeout is not None or policy.guards_attempts
        if isinstance(decision, Retry) and not is_kept and not listeners.hears_retries():
            return
        request = self._shown = outcome.request or self._described()
        _, _, elapsed, _ = self._ended[-1]
        status, raised = outcome.status, None if outcome.error is None else type(outcome.error)
        if outcome.answered is not None:
            status, raised = outcome.answered, None
        failed = FailedAttempt(
            call=self._plan.name,
            method=request.method,
            origin=request.origin,
            path=request.path,
            attempt=len(self._ended),
            max_retries=max_retries,
            status=status,
            exception=raised,
            elapsed=elapsed,
        )
        if isinstance(decision, Retry):
            event = failed.retried(decision.delay)
            if is_kept:
                self._event = event
            listeners.tell(event)
        else:
            listeners.tell(failed.given_up(decision.reason))

    def _has_time_for(self, delay: float) -> bool:
        left = self.time_left()
        return left is None or delay < left

    def _time_to_spare(self, delay: float) -> float:
        """How long may be spent before a wait of `delay` seconds without pushing that past the end of the call."""
        left = self.time_left()
        return MOST_SECONDS if left is None or left - delay > MOST_SECONDS else 0.0

    def _hands_back_responses(self) -> bool:
        if self._policy.on_give_up is None:
            return self._plan.traits.returns_response
        return self._policy.on_give_up == "return"

    def _marked(self, error: Exception, reason: Reason | None) -> Exception:
        """An error that a call ends with, and that tells of it."""
        request = self._described()
        where = f" ({request.method} {request.origin or ''}{request.path})" if request.path else ""
        errors.note(error, self._summary(reason) + where)
        if not isinstance(error, GiveUpError):  # It tells of the call inside that gave up.
            self._remember(error, gave_up=reason is not None)
        return error

    def _give_up_error(self, error: ResponseError, reason: Reason) -> GiveUpError:
        made = GiveUpError.after(error, reason, as_attempts(self._ended), self._summary(reason))
        self._remember(made, gave_up=True)
        return made

    def _remember(self, outcome: object, *, gave_up: bool) -> None:
        remember(outcome, self._ended, self._plan.place, gave_up=gave_up)

    def _is_over(self) -> bool:
        is_over = self._plan.traits.is_over
        return is_over is not None and is_over(*self._args, **self._kwargs)

    def _summary(self, reason: Reason | None) -> str:
        policy, body, answered = self._policy, self._request.body, self._request.answered
        return errors.summary(
            as_attempts(self._ended),
            reason,
            measured=policy.measures_time,
            body=None if body is None else body.used_up,
            unresumable=None if answered is None else answered.unresumable,
            redirected=self._redirected,
            idempotent=policy.idempotent,
            timeout=None if self._plan.is_bounded else policy.timeout,
            max_retry_after=policy.max_retry_after,
        )


def _awaitable(result: Any, hook: BeforeRetry) -> Awaitable[object]:
    if not inspect.isawaitable(result):
        raise TypeError(
            f"before_retry={name_of(hook)} returned {shown_type(result)}, which can't be awaited; write a coroutine"
            " function: `async def`"
        )
    return result
