"""What stands before an attempt, or beside it: the pause of its origin, its circuit breaker, and a hedge.

Outermost first: pause, circuit breaker, hedge, the attempt within its time. The budget is asked where another attempt
is decided on (`run`), and here for a hedge.
"""

import asyncio
import inspect
from collections.abc import Awaitable
from functools import partial
from typing import Any, cast

from aiohttp import ClientResponse

from retrykit.core import clock, scope
from retrykit.core.checks import is_number, name_of
from retrykit.core.classify import PAUSING
from retrykit.core.decision import Outcome, can_be_retried, server_failed
from retrykit.core.errors import CircuitOpenError, OriginPausedError
from retrykit.core.limits import TimeLimit
from retrykit.core.policy import RetryPolicy
from retrykit.core.protocols import HedgeAfter, Pause
from retrykit.core.run import Run
from retrykit.core.scope import Scope


class Guarded:
    """The attempts of a function whose policy has guards."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy

    async def attempt(self, run: Run) -> Any:
        """Make an attempt, or several beside one another: what the first good one returned, else what the last one did.

        Raises:
            OriginPausedError: The origin is paused for too long.
            CircuitOpenError: Its circuit is open.
        """
        with run.outside_of_attempts():
            if self._policy.pause is not None:
                await self._wait_for_its_turn(run, self._policy.pause)
            after = self._hedge_after(run)
            is_hedged = after is not None and run.may_be_hedged
            entered = self.let_through(run)
        if after is not None and is_hedged:
            return await _Race(self, run, self._policy, after).run(entered)
        number, began = run.attempts + 1, clock.now()
        try:
            result = await _within(run.limit(number), number, run)
        except Exception as error:
            self._take_in(run, entered, Outcome(None, error), began)
            raise
        except BaseException:
            self.leave(run, entered, failed=None)
            raise
        self._take_in(run, entered, Outcome(result), began)
        return result

    async def _wait_for_its_turn(self, run: Run, pause: Pause) -> None:
        """Wait while the origin is paused.

        Raises:
            OriginPausedError: It is so for longer than the call can wait.
            CircuitOpenError: Its circuit will still be open then.
        """
        end: float | None = None
        while (hold := pause.hold(run.origin)) is not None:
            held, left = max(0.0, hold.end - clock.now()), run.time_left()
            self._refuse_to_wait(run, held, left)
            # Who has waited for this end already, and woke up a moment early, is not held again.
            spread = 0.0 if hold.end == end else hold.spread if left is None else min(hold.spread, left - held)
            end = hold.end
            await clock.sleep(held + clock.draw() * spread)

    def _refuse_to_wait(self, run: Run, held: float, left: float | None) -> None:
        longest, breaker = self._policy.max_retry_after, self._policy.breaker
        if left is not None and held >= left:
            raise run.refused(OriginPausedError(run.origin, held, "timeout", left), "timeout")
        if held > longest:
            raise run.refused(OriginPausedError(run.origin, held, "retry_after", longest), "retry_after")
        if breaker is not None and (open_for := breaker.open_for(run.origin)) > held:
            raise run.refused(CircuitOpenError(run.origin, open_for), "circuit_open")

    def _hedge_after(self, run: Run) -> float | None:
        hedge_after = self._policy.hedge_after
        return _seconds_of(hedge_after, run.origin) if callable(hedge_after) else hedge_after

    def let_through(self, run: Run) -> int:
        """Ask for the one attempt without which the call ends.

        Raises:
            TimeoutError: There is no time left.
            CircuitOpenError: The circuit breaker lets none through.
        """
        run.ask_for_time()
        try:
            return self.enter(run)
        except CircuitOpenError as error:
            refusal = error
        try:
            raise run.refused(refusal, "circuit_open")
        finally:
            del refusal  # Its traceback leads back here.

    def enter(self, run: Run) -> int:
        """Ask the circuit breaker for an attempt.

        Raises:
            CircuitOpenError: It lets none through.
        """
        return 0 if self._policy.breaker is None else self._policy.breaker.enter(run.origin)

    def leave(self, run: Run, entered: int, *, failed: bool | None) -> None:
        """Tell it how the attempt ended."""
        if self._policy.breaker is not None:
            self._policy.breaker.leave(run.origin, entered, failed=failed)

    def _take_in(self, run: Run, entered: int, outcome: Outcome, began: float) -> None:
        """Take in how an attempt ended that was alone."""
        with run.outside_of_attempts():
            failed: bool | None = None
            try:
                if self._policy.hedge_after is not None and run.attempts == 0 and self.is_answer(outcome):
                    self.learn(run, clock.now() - began)
                failed = self.see(run, outcome)
            except Exception:
                _let_go(outcome.result)
                raise
            finally:
                self.leave(run, entered, failed=failed)

    def see(self, run: Run, outcome: Outcome) -> bool | None:
        """Take in how an attempt ended: did the server fail? `None` where that is not known."""
        pause, breaker = self._policy.pause, self._policy.breaker
        if pause is not None and outcome.status in PAUSING:
            outcome.wall = clock.wall()
            if asked := outcome.asked_delay:
                pause.begin(_answered_by(run, outcome), asked)
        failed = None if breaker is None else server_failed(outcome, self._policy)
        return None if failed and _answered_by(run, outcome) != run.origin else failed

    def is_answer(self, outcome: Outcome) -> bool:
        """Has the server answered, and not that it can't? A value counts as an answer, too."""
        return (outcome.error is None or outcome.status is not None) and not can_be_retried(outcome, self._policy)

    def learn(self, run: Run, seconds: float) -> None:
        """Tell who wants to know how long a first attempt took to get an answer, or at least would have taken."""
        record = getattr(self._policy.hedge_after, "record", None)
        if record is not None:
            record(run.origin, seconds)


def _answered_by(run: Run, outcome: Outcome) -> str | None:
    """The origin that failed: behind a redirect, that may be another one. `None` where it isn't known."""
    if run.origin is None or not outcome.redirected:
        return run.origin
    request = outcome.request
    return None if request is None else request.origin


async def _within(limit: TimeLimit | None, number: int, run: Run) -> Any:
    """An attempt, marked, and within its time."""
    if number > 1:
        scope.count_attempt()
    if limit is not None:
        with limit:
            return await run.make_attempt()
    if number == 1:
        return await run.make_attempt()
    mark = Scope()
    mark.enter(number)
    try:
        return await run.make_attempt()
    finally:
        mark.running = 0


def _seconds_of(hedge_after: HedgeAfter, origin: str | None) -> float | None:
    seconds = hedge_after(origin)
    if seconds is not None and not (is_number(seconds) and seconds >= 0):
        wrong = ValueError if is_number(seconds) else TypeError
        raise wrong(
            f"hedge_after={name_of(hedge_after)} returned {seconds!r}; it has to return seconds, 0 or more, or None for"
            " no second attempt"
        )
    return seconds


class _Race:
    """An attempt, and where it is slow, another one beside it. At most two run at a time."""

    def __init__(self, guarded: Guarded, run: Run, policy: RetryPolicy, after: float) -> None:
        self._guarded, self._run, self._policy = guarded, run, policy
        self._after: float | None = after
        self._running: dict[asyncio.Task[Any], None] = {}
        """Those that have not ended yet, or not been looked at since."""
        self._asked: _Asked | None = None
        """A budget that has to ask elsewhere."""
        self._replaced = False
        """Has one that failed been replaced at once? Others are not: the backoff is there for that."""
        self._raised: Exception | None = None
        """What a guard has raised when it was told how an attempt ended."""

    async def run(self, entered: int) -> Any:
        """Return or raise what the first good answer is, else the last failure.

        Args:
            entered: Of the first attempt, which the circuit breaker has let through.
        """
        winner: asyncio.Task[Any] | None = None
        try:
            with self._run.outside_of_attempts():
                winner = await self._first_answer(entered)
                await self._call_off([task for task in self._running if task is not winner])
            del self._running[winner]
            return winner.result()
        except GeneratorExit:  # The call is thrown away, and can't wait for anything any more.
            for task in self._running:
                task.cancel()
            self._running.clear()
            if self._asked is not None:
                self._asked.answer.cancel()
                self._guarded.leave(self._run, self._asked.entered, failed=None)
                self._asked = None
            raise
        finally:
            await self._call_off(list(self._running))  # The call was cancelled.
            del winner  # Its error leads back here.

    async def _first_answer(self, entered: int) -> asyncio.Task[Any]:
        is_first, began, first = self._run.attempts == 0, clock.now(), self._begin(entered)
        while True:
            is_slow = not await self._something_ended()
            self._raise_what_guards_raised()
            ended = [task for task in self._running if task.done()]
            counting = self._counting(ended)
            if counting is not None:
                if is_first and first in self._running and (not first.done() or self._has_answer(first)):
                    self._guarded.learn(self._run, clock.now() - began)
                return counting
            if self._asked is not None and self._asked.answer.done():
                self._take_answer()
            failed = [self._failed_beside(task) for task in ended]
            if failed:
                self._replace(failed[-1])
            elif is_slow:
                self._after = None
                self._begin_another(None)

    async def _something_ended(self) -> bool:
        """Wait for that, or until it is time for a hedge."""
        asking = [] if self._asked is None else [self._asked.answer]
        return await clock.first_of([*self._running, *asking], self._after)

    def _counting(self, ended: list[asyncio.Task[Any]]) -> asyncio.Task[Any] | None:
        """The one by which the round ends: an answer, else the last one that failed, where no other one runs."""
        for task in ended:
            error = None if task.cancelled() else task.exception()
            if task.cancelled() or (error is not None and not isinstance(error, Exception)):
                return task
            if self._run.is_answer(_outcome_of(task)):
                return task
        if len(ended) < len(self._running):
            return None
        for task in ended[:-1]:
            self._failed_beside(task)
        return ended[-1]

    def _failed_beside(self, task: asyncio.Task[Any]) -> Outcome:
        """An attempt failed, and another one runs."""
        del self._running[task]
        outcome = _outcome_of(task)
        self._run.failed_beside(outcome)
        _let_go(outcome.result)
        return outcome

    def _replace(self, failed: Outcome) -> None:
        """Begin another one at once in the place of one that failed, unless something has to happen before that."""
        told_to_wait = bool(failed.asked_delay)
        if not self._replaced and not told_to_wait and self._policy.before_retry is None:
            self._replaced = True
            self._begin_another(failed)

    def _begin_another(self, failed: Outcome | None) -> None:
        """Begin an attempt beside the only one that runs, if there may be one, and the budget has enough for it.

        Args:
            failed: In whose place.
        """
        if not self._may_begin():
            return
        try:
            entered = self._guarded.enter(self._run)
        except CircuitOpenError:  # It is half-open, and its probes are under way.
            return
        granted: bool | Awaitable[bool] = False
        try:
            budget = self._policy.budget
            granted = True if budget is None else budget.spend(self._run.origin, throttled=False)
        finally:
            if not granted:
                self._guarded.leave(self._run, entered, failed=None)
        if inspect.isawaitable(granted):
            self._asked = _Asked(asyncio.ensure_future(granted), entered, failed)
        elif granted:
            self._begin_for(entered, failed)

    def _take_answer(self) -> None:
        """Begin the attempt that a budget was asked for, if it has enough, and there may still be one."""
        asked, self._asked = self._asked, None
        assert asked is not None
        entered, failed, granted = asked.entered, asked.failed, False
        try:
            granted = asked.answer.result() and self._may_begin()
        finally:
            del asked  # What it raises leads back here.
            if not granted:
                self._guarded.leave(self._run, entered, failed=None)
        if granted:
            self._begin_for(entered, failed)

    def _raise_what_guards_raised(self) -> None:
        if self._raised is not None:
            raised, self._raised = self._raised, None
            try:
                raise raised
            finally:
                del raised  # Its traceback leads back here.

    def _begin_for(self, entered: int, failed: Outcome | None) -> None:
        if failed is not None:
            self._run.tell_that_the_next_begins(failed)
        self._begin(entered)

    def _begin(self, entered: int) -> asyncio.Task[Any]:
        number = self._run.attempts + len(self._running) + 1
        task = asyncio.create_task(_within(self._run.limit(number), number, self._run))
        # Not in the task: it may be cancelled before it has begun.
        task.add_done_callback(partial(self._ended, entered))
        self._running[task] = None
        return task

    def _ended(self, entered: int, task: asyncio.Task[Any]) -> None:
        failed: bool | None = None
        try:
            try:
                if not task.cancelled() and isinstance(task.exception(), Exception | None):
                    failed = self._guarded.see(self._run, _outcome_of(task))
            finally:
                self._guarded.leave(self._run, entered, failed=failed)
        except Exception as error:  # noqa: BLE001 - it is raised where it comes out of the call.
            self._raised = error

    def _may_begin(self) -> bool:
        run, pause, attempts = self._run, self._policy.pause, self._run.attempts + 1
        return (
            attempts < run.most_attempts
            and (pause is None or pause.hold(run.origin) is None)
            and not run.stops_with(attempts)
            and run.time_left() != 0
        )

    def _has_answer(self, task: asyncio.Task[Any]) -> bool:
        return not task.cancelled() and self._guarded.is_answer(_outcome_of(task))

    async def _call_off(self, tasks: list[asyncio.Task[Any]]) -> None:
        """Cancel, wait until that is done, and let go of what they have come to all the same."""
        awaited: list[asyncio.Future[Any]] = list(tasks)
        asked = self._asked
        if asked is not None:
            self._asked = None
            awaited.append(asked.answer)
            self._guarded.leave(self._run, asked.entered, failed=None)
        for task in awaited:
            task.cancel()
        try:
            if awaited:  # Where the call is cancelled meanwhile, `gather` goes on waiting, and says so then.
                await asyncio.gather(*awaited, return_exceptions=True)
        finally:
            for task in tasks:
                del self._running[task]
                self._record(task)

    def _record(self, task: asyncio.Task[Any]) -> None:
        """Have an attempt that lost be among those of the call."""
        if not task.done():
            return
        if task.cancelled():
            self._run.ended_beside(None, asyncio.CancelledError)
        else:
            outcome = _outcome_of(task)
            self._run.ended_beside(outcome.status, None if outcome.error is None else type(outcome.error))
            _let_go(outcome.result)


class _Asked:
    """A hedge that a budget was asked for."""

    __slots__ = ("answer", "entered", "failed")

    def __init__(self, answer: asyncio.Future[bool], entered: int, failed: Outcome | None) -> None:
        self.answer, self.entered, self.failed = answer, entered, failed


def _outcome_of(task: asyncio.Task[Any]) -> Outcome:
    error = task.exception()
    outcome = Outcome(task.result()) if error is None else Outcome(None, cast(Exception, error))
    outcome.wall = clock.wall()
    return outcome


def _let_go(result: object) -> None:
    """Free the connection of a response that nobody gets; where its body has not come as a whole, it is closed."""
    if isinstance(result, ClientResponse):
        result.release()
