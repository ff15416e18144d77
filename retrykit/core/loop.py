"""The loop: a first attempt as a plain await, and all that follows where it failed."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from aiohttp import ClientResponse

from retrykit.core import clock, listeners, scope
from retrykit.core.classify import SERVER_ERRORS
from retrykit.core.errors import UsageError
from retrykit.core.guarded import Guarded
from retrykit.core.limits import TimeLimit
from retrykit.core.plan import CarriedOn, Plan
from retrykit.core.run import Run
from retrykit.core.scope import deadlines, in_an_attempt

P = ParamSpec("P")
R = TypeVar("R")


def retrying(fn: Callable[P, Awaitable[R]], plan: Plan) -> Callable[P, Coroutine[Any, Any, R]]:  # noqa: C901, PLR0915
    """The coroutine function that calls `fn` under a plan."""
    policy = plan.policy
    timeout, statuses, before_retry = policy.timeout, policy.statuses, policy.before_retry
    measures_time, any_result_can_fail = policy.measures_time, policy.retry_if is not None
    limits_of_first = None if plan.keeps_time else plan.limits
    guarded = Guarded(policy) if policy.guards_attempts else None
    budget, origin_of = policy.budget, None if plan.traits.origin is None else plan.origin_of
    carried_on = plan.traits.carried_on
    is_bare = guarded is None and limits_of_first is None
    attempt: Callable[..., Awaitable[Any]] = fn

    async def call(*args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: C901, PLR0912, PLR0915 - no easier in pieces.
        run: Run | None = None
        started = clock.now() if measures_time else 0.0
        before = None if carried_on is None else carried_on(*args, **kwargs)
        if deadlines and in_an_attempt() and (bounded := _within_deadlines(fn, plan, before)) is not None:
            return await bounded(*args, **kwargs)
        if before is not None:
            run = Run(plan, args, kwargs, started, before)
        try:
            while True:
                try:
                    if run is None and is_bare:  # A call without keywords is spared the packing of none.
                        outcome = await (attempt(*args, **kwargs) if kwargs else attempt(*args))
                    elif before is not None and before.failure:
                        before.fail()
                    elif guarded is not None:
                        run = run or Run(plan, args, kwargs, started)
                        outcome = await guarded.attempt(run)
                    else:
                        if run is not None:
                            limit = run.begin_attempt()
                        else:
                            limit = None if limits_of_first is None else TimeLimit(limits_of_first, 1, started, timeout)
                        if limit is None:
                            outcome = await attempt(*args, **kwargs)
                        else:
                            with limit:
                                outcome = await attempt(*args, **kwargs)
                except Exception as error:
                    run = run or Run(plan, args, kwargs, started)
                    ends = run.ends_with_error(error)
                    if ends is None:
                        await run.ask_budget(None)
                        ends = run.ends_with_error(error)
                    if ends:
                        raise
                else:
                    is_response = isinstance(outcome, ClientResponse)
                    acceptable = outcome.status not in statuses if is_response else _is_value(outcome, plan.name)
                    if acceptable and not any_result_can_fail:
                        if run is not None:
                            run.succeeded(outcome)
                        if budget is not None and not (is_response and outcome.status >= SERVER_ERRORS):
                            budget.earn(None if origin_of is None else origin_of(args, kwargs))
                        if listeners.told_of_calls:
                            (run or Run(plan, args, kwargs, started)).tell_of_end(outcome, None)
                        return outcome
                    run = run or Run(plan, args, kwargs, started)
                    ends = run.ends_with_result(outcome)
                    if ends is None:
                        await run.ask_budget(outcome)
                        ends = run.ends_with_result(outcome)
                    if ends:
                        if listeners.told_of_calls:
                            run.tell_of_end(outcome, None)
                        return outcome
                    del outcome  # A call that waits holds nothing of the attempts before.
                if run.unsettled is not None:
                    await run.settle()
                await clock.sleep(run.delay)
                if before_retry is not None:
                    await run.prepare(before_retry)
        except BaseException as error:
            if listeners.told_of_calls:
                (run or Run(plan, args, kwargs, started)).tell_of_end(None, error)
            raise
        finally:
            if run is not None and run.scope is not None:
                run.scope.running = 0

    return call


def _within_deadlines(
    fn: Callable[P, Awaitable[R]], plan: Plan, before: CarriedOn | None
) -> Callable[P, Coroutine[Any, Any, R]] | None:
    """What makes the call in the time that is left of what is around it; `None` where that leaves it all that it has.

    Args:
        fn: As of `retrying`.
        plan: The same.
        before: What the call goes on with. Its time is counted from there.
    """
    left = None if plan.is_bounded else scope.deadline_left()
    if left is None:
        return None
    if left == 0 and before is None:
        return _too_late(plan)
    time = left if before is None else left + clock.now() - before.started
    timeout = plan.policy.timeout
    return retrying(fn, plan.within(time)) if timeout is None or time < timeout else None


def _too_late(plan: Plan) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        error = TimeoutError("the deadline around this call has passed, and nothing was sent")
        if listeners.told_of_calls:
            run = Run(plan, args, kwargs, 0.0)
            run.refused(error, "timeout")
            run.tell_of_end(None, error)
        try:
            raise error
        finally:
            del error  # Its traceback leads back here.

    return call


def _is_value(result: object, name: str) -> bool:
    """Is this what a coroutine should return? A request that it has made but not awaited would be sent unseen.

    Raises:
        UsageError: It is a coroutine.
    """
    if hasattr(type(result), "send") and isinstance(result, Coroutine):  # The former is quick to say no.
        result.close()
        raise UsageError(
            f"retry_http: {name}() returned a request or coroutine that it did not await, so that no attempt would see"
            " how it ends; write `return await …`"
        )
    return True
