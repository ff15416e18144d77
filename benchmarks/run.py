"""All questions, and the run that answers them."""

import asyncio
from collections.abc import Collection, Iterator, Sequence
from random import Random

from benchmarks import crawl, cycles, imports, overhead, waiting, wire
from benchmarks.checks import check
from benchmarks.effort import Effort
from benchmarks.measure import Figure, Question

QUESTIONS = [question for part in (overhead, wire, crawl, waiting, imports, cycles) for question in part.QUESTIONS]


def chosen(names: Collection[str] | None) -> list[Question]:
    """The questions with these names; all of them, where no names are given.

    Raises:
        LookupError: There is no such question.
    """
    known = [question.name for question in QUESTIONS]
    if unknown := set(names or ()) - set(known):
        raise LookupError(
            f"there is nothing to measure named {', '.join(sorted(unknown))}; there is {', '.join(known)}"
        )
    return [question for question in QUESTIONS if names is None or question.name in names]


def answers(questions: Sequence[Question], effort: Effort, seed: int) -> Iterator[Figure]:
    """One figure after the other, once it is clear that every adapter does what it should.

    Each has an event loop of its own, and an order of its own to shuffle, so that it is the same when it is alone.
    """
    asyncio.run(check())
    for question in questions:
        yield asyncio.run(_answer(question, effort, seed))


async def _answer(question: Question, effort: Effort, seed: int) -> Figure:
    return Figure.of(question, await question.measure(effort, Random(seed)))  # noqa: S311 - it shuffles.
