"""FleetBudget: one bucket for each origin, for all processes."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from retrykit.core import clock
from retrykit.guards.budget import RetryBudget
from retrykit.guards.origins import keep
from retrykit.redis.store import MOST_ORIGINS, Courier, Store, nothing

_FLUSH_EVERY = 1.0
"""Seconds for which successes are collected."""

# N processes that each have a full reserve have N of them. With a tenth, ten processes without the store retry as much
# together as the whole fleet does with it.
_LOCAL_PART = 0.1


class _Question(NamedTuple):
    """Of a call that waits."""

    cost: float
    answer: "asyncio.Future[bool | None]"
    """`None`: there is none."""


# Seconds: a timer that comes so late comes after something else has held up the event loop.
_LATE = 0.01

_Questions = dict[str | None, list[_Question]]


class FleetBudget:
    """The `RetryBudget` of a fleet, as `fleet.budget`.

    What a retry takes is asked of the store, in one round trip, which calls that ask at the same time share. What
    successes give back is collected, and brought along with the next question, or after a second. While the store does
    not answer, the process goes by a budget of its own.
    """

    def __init__(self, numbers: RetryBudget, local: RetryBudget | None) -> None:
        self.numbers = numbers
        """It has those of the shared buckets: `capacity`, `cost`, `throttling_cost` and `refund`."""
        self.local = local or _part_of(numbers)
        """It answers while the store doesn't."""
        self._store: Store | None = None
        self._courier: Courier | None = None
        self._asked: _Questions = {}
        self._earned: dict[str | None, float] = {}

    def attach(self, store: Store) -> Courier:
        """Ask this store, by way of a courier that has to be run."""
        self._store = store
        self._courier = Courier(store, "budget", self._deliver, every=_FLUSH_EVERY, at_the_end=self._answer_none)
        return self._courier

    def detach(self) -> Callable[[], Awaitable[None]]:
        """Ask it no more; gives what delivers the rest."""
        courier, self._courier = self._courier, None
        return self._deliver if courier is not None and courier.is_up else nothing

    def spend(self, origin: str | None = None, *, throttled: bool = False) -> bool | Awaitable[bool]:
        """Take what a retry costs, if that much is left.

        Args:
            origin: Whose bucket.
            throttled: Was it a 429?

        Returns:
            An awaitable of the answer, which takes no longer than the fleet's `timeout`; while the store is away, the
            answer itself.
        """
        courier = self._courier
        if courier is None or not courier.is_up:
            return self.local.spend(origin, throttled=throttled)
        return self._ask(courier, origin, throttled=throttled)

    def earn(self, origin: str | None = None) -> None:
        """A call succeeded: give back what that is worth, later."""
        self.local.earn(origin)
        self._give(origin, self.numbers.refund)

    async def _ask(self, courier: Courier, origin: str | None, *, throttled: bool) -> bool:
        granted: bool | None = None
        if courier.is_up and asyncio.get_running_loop() is courier.loop:
            cost = self.numbers.throttling_cost if throttled else self.numbers.cost
            question = _Question(cost, courier.loop.create_future())
            self._asked.setdefault(origin, []).append(question)
            courier.wake()
            granted = await self._in_time(question, origin, courier)
        return self.local.spend(origin, throttled=throttled) if granted is None else granted

    async def _in_time(self, question: _Question, origin: str | None, courier: Courier) -> bool | None:
        """The answer to a question, if there is one in time, whatever is under way to the store before it."""
        loop, limit = courier.loop, courier.store.timeout
        timer = loop.call_later(limit, _let_go_on, question, loop, clock.now() + limit)
        try:
            return await question.answer
        except asyncio.CancelledError:
            if not question.answer.cancelled() and question.answer.result():
                self._give(origin, question.cost)
            raise
        finally:
            timer.cancel()

    def _give(self, origin: str | None, tokens: float) -> None:
        """Note tokens that a bucket is to be given."""
        if origin in self._earned:
            self._earned[origin] += tokens
        else:
            keep(self._earned, origin, tokens, MOST_ORIGINS)

    async def _deliver(self) -> None:
        """Give what was earned, and then take what is asked for, in one round trip."""
        assert self._store is not None
        earned, self._earned = self._earned, {}
        asked = {
            origin: [one for one in questions if not one.answer.done()] for origin, questions in self._asked.items()
        }
        self._asked = {}
        # However long it took to gather it, what was earned is no more than a bucket holds.
        changes = {
            origin: [
                min(earned.get(origin, 0.0), self.numbers.capacity),
                *(-question.cost for question in asked.get(origin, ())),
            ]
            for origin in {**earned, **asked}
            if origin in earned or asked[origin]
        }
        if not changes:
            return
        buckets = {self._store.name("budget", origin or ""): tokens for origin, tokens in changes.items()}
        try:
            made = await self._store.change(buckets, self.numbers.capacity)
            for origin, (_, *answers) in zip(changes, made, strict=True):
                self._answer(origin, asked.get(origin, ()), answers)
        except BaseException:
            self._answer_none(asked)
            self._answer_none()
            # It may have been done all the same, so nothing is given twice. That it can be done is seen next time.
            for origin in changes:
                self._give(origin, 0.0)
            raise

    def _answer(self, origin: str | None, questions: Iterable[_Question], answers: Iterable[bool]) -> None:
        for question, granted in zip(questions, answers, strict=True):
            if not question.answer.done():
                question.answer.set_result(granted)
            elif granted:  # The call was cancelled, or could wait no longer.
                self._give(origin, question.cost)

    def _answer_none(self, asked: _Questions | None = None) -> None:
        """Let calls go on without an answer: these, or all that are still to be delivered."""
        if asked is None:
            asked, self._asked = self._asked, {}
        for questions in asked.values():
            for question in questions:
                _answer_none_to(question)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.numbers!r}>"


def _let_go_on(question: _Question, loop: asyncio.AbstractEventLoop, due: float) -> None:
    """It has waited for long enough; where that is because the process was busy, the answer may be about to be read."""
    if clock.now() - due > _LATE:
        loop.call_later(_LATE, _answer_none_to, question)
    else:
        _answer_none_to(question)


def _answer_none_to(question: _Question) -> None:
    if not question.answer.done():
        question.answer.set_result(None)


def _part_of(numbers: RetryBudget) -> RetryBudget:
    """The default of `local`: the same numbers, but less in reserve; at least one retry."""
    return RetryBudget(
        max(numbers.capacity * _LOCAL_PART, numbers.cost, numbers.throttling_cost),
        cost=numbers.cost,
        throttling_cost=numbers.throttling_cost,
        refund=numbers.refund,
    )
