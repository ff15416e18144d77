"""What stands before an attempt, or beside it: the pause of its origin, its circuit breaker, and a hedge.

Outermost first: pause, circuit breaker, hedge, the attempt within its time. The budget is asked where another attempt
is decided on (`run`), and here for a hedge.
"""

import asyncio
import contextlib
from collections.abc import Awaitable
from functools import partial
from typing import Any, cast

import tenacity
from aiohttp import ClientResponse

from retrykit.core import clock
from retrykit.core.checks import is_number, name_of
from retrykit.core.classify import UNSENT, kind_of_status
from retrykit.core.decision import Outcome, can_be_retried
from retrykit.core.errors import CircuitOpenError, OriginPausedError
from retrykit.core.limits import TimeLimit
from retrykit.core.policy import RetryPolicy
from retrykit.core.protocols import HedgeAfter, Pause
from retrykit.core.run import Run
from retrykit.core.scope import Scope

# The answers whose Retry-After is about the server, and not about what was asked for (RFC 9110 §15.6.4, RFC 6585 §4).
_PAUSING = frozenset({429, 503})
_SERVER_IS_WELL = frozenset(status for status in range(400, 500) if kind_of_status(status) is not UNSENT)


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
        pause, hedge_after = self._policy.pause, self._policy.hedge_after
        if pause is not None:
            await self._wait_for_its_turn(run, pause)
        if hedge_after is not None:
            after = _seconds_of(hedge_after, run.origin) if callable(hedge_after) else hedge_after
            return await _Race(self, run, self._policy, after).run()
        entered, number = self.let_through(run), run.attempts + 1
        failed: bool | None = None
        try:
            result = await _within(run.limit(number), number, run)
        except Exception as error:
            failed = self.see(run, Outcome(None, error))
            raise
        else:
            failed = self.see(run, Outcome(result))
            return result
        finally:
            self.leave(run, entered, failed=failed)

    async def _wait_for_its_turn(self, run: Run, pause: Pause) -> None:
        """Wait while the origin is paused.

        Raises:
            OriginPausedError: It is so for longer than the call can wait.
        """
        end: float | None = None
        while (hold := pause.hold(run.origin)) is not None:
            held, left, longest = max(0.0, hold.end - clock.now()), run.time_left(), self._policy.max_retry_after
            if left is not None and held >= left:
                raise run.refused(OriginPausedError(run.origin, held, "timeout"), "timeout")
            if held > longest:
                raise run.refused(OriginPausedError(run.origin, held, "retry_after"), "retry_after")
            # Who has waited for this end already, and woke up a moment early, is not held again.
            spread = 0.0 if hold.end == end else hold.spread if left is None else min(hold.spread, left - held)
            end = hold.end
            await clock.sleep(held + clock.draw() * spread)

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
        raise run.refused(refusal, "circuit_open")

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

    def see(self, run: Run, outcome: Outcome) -> bool | None:
        """Take in how an attempt ended: did the server fail? `None` where that is not known."""
        if self._policy.pause is not None and outcome.status in _PAUSING:
            outcome.wall = clock.wall()
            if asked := outcome.asked_delay:
                self._policy.pause.begin(run.origin, asked)
        if isinstance(outcome.error, tenacity.TryAgain):
            return False
        if outcome.status in _SERVER_IS_WELL:
            return False
        if can_be_retried(outcome, self._policy):
            return True
        return False if outcome.error is None or outcome.status is not None else None


async def _within(limit: TimeLimit | None, number: int, run: Run) -> Any:
    """An attempt, marked, and within its time."""
    if limit is not None:
        with limit:
            return await run.make_attempt()
    if number == 1:
        return await run.make_attempt()
    scope = Scope()
    scope.enter(number)
    try:
        return await run.make_attempt()
    finally:
        scope.running = 0


def _seconds_of(hedge_after: HedgeAfter, origin: str | None) -> float | None:
    seconds = hedge_after(origin)
    if seconds is not None and not (is_number(seconds) and seconds >= 0):
        raise TypeError(
            f"hedge_after={name_of(hedge_after)} returned {seconds!r}; it has to return seconds, 0 or more, or None for"
            " no second attempt"
        )
    return seconds


class _Race:
    """An attempt, and where it is slow, another one beside it. At most two run at a time."""

    def __init__(self, guarded: Guarded, run: Run, policy: RetryPolicy, after: float | None) -> None:
        self._guarded, self._run, self._policy = guarded, run, policy
        self._after = after
        self._running: dict[asyncio.Task[Any], None] = {}
        """Those that have not ended yet, or not been looked at since."""
        self._asking: asyncio.Task[bool] | None = None
        """A budget that has to ask elsewhere."""

    async def run(self) -> Any:
        """Return or raise what the first good answer is, else the last failure."""
        winner: asyncio.Task[Any] | None = None
        try:
            winner = await self._first_answer()
            await self._call_off([task for task in self._running if task is not winner])
            del self._running[winner]
            return winner.result()
        finally:
            await self._call_off(list(self._running))  # The call was cancelled.
            del winner  # Its error leads back here.

    async def _first_answer(self) -> asyncio.Task[Any]:
        wait = self._after if self._run.may_be_hedged else None
        began, first = clock.now(), self._begin(self._guarded.let_through(self._run))
        while True:
            tasks: list[asyncio.Task[Any]] = (
                [*self._running] if self._asking is None else [*self._running, self._asking]
            )
            done = await clock.first_of(tasks, wait)
            if not done:
                wait = None
                self._begin_another()
            if self._asking is not None and self._asking in done:
                granted, self._asking = self._asking.result(), None
                if granted:
                    self._begin_granted()
            for task in [task for task in self._running if task in done]:
                if self._counts(task):
                    self._learn(first, task, clock.now() - began)
                    return task

    def _counts(self, task: asyncio.Task[Any]) -> bool:
        """Is this how the round ends? If not, the attempt failed while another one runs; the next begins at once."""
        if len(self._running) == 1 or task.cancelled():
            return True
        error = task.exception()
        if error is not None and not isinstance(error, Exception):
            return True
        outcome = Outcome(task.result() if error is None else None, error)
        if self._run.is_answer(outcome):
            return True
        del self._running[task]
        self._run.failed_beside(outcome)
        _let_go(outcome.result)
        if outcome.asked_delay is None:  # Else the server has just asked for less.
            self._begin_another()
        return False

    def _begin(self, entered: int) -> asyncio.Task[Any]:
        number = self._run.attempts + len(self._running) + 1
        task = asyncio.create_task(_within(self._run.limit(number), number, self._run))
        # Not in the task: it may be cancelled before it has begun.
        task.add_done_callback(partial(self._ended, entered))
        self._running[task] = None
        return task

    def _ended(self, entered: int, task: asyncio.Task[Any]) -> None:
        failed: bool | None = None
        if not task.cancelled():
            error = task.exception()
            if error is None or isinstance(error, Exception):
                failed = self._guarded.see(self._run, Outcome(task.result() if error is None else None, error))
        self._guarded.leave(self._run, entered, failed=failed)

    def _begin_another(self) -> None:
        """Begin an attempt beside the one that runs, if there may be one, and the budget has enough for it."""
        if self._asking is not None or not self._may_begin():
            return
        granted = True if self._policy.budget is None else self._policy.budget.spend(self._run.origin, throttled=False)
        if isinstance(granted, bool):
            if granted:
                self._begin_granted()
        else:
            self._asking = asyncio.create_task(_answer(granted))

    def _begin_granted(self) -> None:
        if self._may_begin():
            # A circuit that is half-open may have let its probes through already.
            with contextlib.suppress(CircuitOpenError):
                self._begin(self._guarded.enter(self._run))

    def _may_begin(self) -> bool:
        run, pause, breaker = self._run, self._policy.pause, self._policy.breaker
        return (
            len(self._running) == 1
            and run.attempts + 1 < run.most_attempts
            and run.time_left() != 0
            and (pause is None or pause.hold(run.origin) is None)
            and (breaker is None or breaker.open_for(run.origin) == 0)
        )

    def _learn(self, first: asyncio.Task[Any], counting: asyncio.Task[Any], seconds: float) -> None:
        """Tell who wants to know how long the first attempt took to get an answer, or at least would have taken."""
        record = getattr(self._policy.hedge_after, "record", None)
        if record is None or first not in self._running:
            return
        if first is counting and (first.cancelled() or not self._is_answer(first)):
            return
        record(self._run.origin, seconds)

    def _is_answer(self, ended: asyncio.Task[Any]) -> bool:
        """Has the server answered, and not that it can't?"""
        error = ended.exception()
        outcome = Outcome(ended.result()) if error is None else Outcome(None, cast(Exception, error))
        return (error is None or outcome.status is not None) and not can_be_retried(outcome, self._policy)

    async def _call_off(self, tasks: list[asyncio.Task[Any]]) -> None:
        """Cancel, wait until that is done, and let go of what they have come to all the same."""
        asking, self._asking = self._asking, None
        awaited: list[asyncio.Task[Any]] = tasks if asking is None else [*tasks, asking]
        for task in awaited:
            task.cancel()
        if awaited:
            # Where the call is cancelled meanwhile, `gather` goes on waiting, and says so then.
            await asyncio.gather(*awaited, return_exceptions=True)
        for task in tasks:
            del self._running[task]
            if task.cancelled():
                self._run.ended_beside(None, asyncio.CancelledError)
            elif (error := task.exception()) is not None:
                self._run.ended_beside(getattr(error, "status", None), type(error))
            else:
                self._run.ended_beside(getattr(task.result(), "status", None), None)
                _let_go(task.result())


async def _answer(asked: Awaitable[bool]) -> bool:
    return await asked


def _let_go(result: object) -> None:
    """Free the connection of a response that nobody gets; where its body has not come as a whole, it is closed."""
    if isinstance(result, ClientResponse):
        result.release()
