"""`python -m retrykit plan`: the waits of a policy, their range, and the worst case of a whole call."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table

from retrykit.cli.console import Output
from retrykit.core import backoff
from retrykit.core.events import in_seconds
from retrykit.core.policy import RetryPolicy


@dataclass(frozen=True, slots=True)
class Wait:
    """Before a retry. All times are seconds."""

    attempt: int
    """The one that failed before it; 1 is the first."""
    shortest: float
    longest: float
    mean: float | None
    """`None` where it can't be said: of a decorrelated wait that `max_delay` may have cut."""
    earliest: float
    """All waits up to this one, where each is as short as it can be, and"""
    latest: float
    """where each is as long. That is when the next attempt begins, if the attempts themselves take no time."""


def waits_of(policy: RetryPolicy) -> list[Wait]:
    """All waits of a policy, in their order."""
    return list(_waits(policy))


def _waits(policy: RetryPolicy) -> Iterator[Wait]:
    shortest = longest = earliest = latest = 0.0
    mean: float | None = 0.0
    for attempt in range(1, policy.max_retries):
        # A decorrelated wait has no upper end but max_delay, and follows from the one before.
        uncut = policy.jitter != "decorrelated" or 3 * max(longest, policy.base_delay) <= policy.max_delay
        shortest, _ = _span(policy, attempt, shortest)
        _, longest = _span(policy, attempt, longest)
        # In the middle of the span after the mean of the waits before, since the ends of the span grow with those.
        mean = sum(_span(policy, attempt, mean)) / 2 if uncut and mean is not None else None
        earliest, latest = earliest + shortest, latest + longest
        yield Wait(attempt, shortest, longest, mean, earliest, latest)


def _span(policy: RetryPolicy, attempt: int, previous_delay: float) -> tuple[float, float]:
    return backoff.span(policy.jitter, attempt, previous_delay, policy.base_delay, policy.max_delay)


def worst_case(policy: RetryPolicy) -> float:
    """The longest that a whole call can take, in seconds; infinite where nothing limits its attempts.

    A wait that would end after the call's `timeout` is not begun, so it can be less than that.
    """
    timeout = math.inf if policy.timeout is None else policy.timeout
    per_attempt = math.inf if policy.attempt_timeout is None else policy.attempt_timeout
    # The last attempt that begins may be any that can begin before the timeout.
    earliest, latest = [0.0], [0.0]
    for wait in _waits(policy):
        earliest.append(wait.earliest)
        latest.append(wait.latest)
    return max(
        min(timeout, late + number * per_attempt)
        for number, (early, late) in enumerate(zip(earliest, latest, strict=True), 1)
        if early < timeout
    )


def run(policy: RetryPolicy) -> list[Wait]:
    """Print the table, and what follows from it.

    Args:
        policy: Whose waits; it follows its own schedule.

    Returns:
        The waits, for a picture.
    """
    console, waits = Output(), waits_of(policy)
    console.print(str(policy), style="bold")
    if waits:
        console.print(_table(policy, waits))
    for line in _conclusions(policy, waits):
        console.print(line)
    return waits


def _table(policy: RetryPolicy, waits: Sequence[Wait]) -> Table:
    table = Table(box=SIMPLE_HEAD)
    for title in ("after\nattempt", "wait\n", "on\naverage", "waits\nso far"):
        table.add_column(title, justify="right")
    if policy.timeout is not None:
        table.add_column("next attempt\nin time")
    for wait in waits:
        row = [
            str(wait.attempt),
            span(wait.shortest, wait.longest),
            "-" if wait.mean is None else in_seconds(wait.mean),
            span(wait.earliest, wait.latest),
        ]
        table.add_row(*row, *([] if policy.timeout is None else [_fits(wait, policy.timeout)]))
    return table


def span(shortest: float, longest: float) -> str:
    """From the shortest to the longest: `1 s`, `0 to 1 s`."""
    return in_seconds(longest) if shortest == longest else f"{round(shortest, 3):g} to {in_seconds(longest)}"


def _fits(wait: Wait, timeout: float) -> str:
    """Does another attempt follow this wait, if the attempts take no time?"""
    if wait.latest < timeout:
        return "yes"
    return "if waits are short" if wait.earliest < timeout else "no"


def _conclusions(policy: RetryPolicy, waits: Sequence[Wait]) -> Iterator[str]:
    if waits:
        means = [wait.mean for wait in waits if wait.mean is not None]
        average = (
            f", {in_seconds(sum(means))} on average" if policy.jitter != "none" and len(means) == len(waits) else ""
        )
        yield f"All waits together: {span(waits[-1].earliest, waits[-1].latest)}{average}."
    yield f"The whole call: {_worst_in_words(policy, waits[-1].latest if waits else 0.0)}."


def _worst_in_words(policy: RetryPolicy, waiting: float) -> str:
    worst, attempts = worst_case(policy), policy.max_retries
    if worst == math.inf:
        return "without a bound, since nothing limits its attempts; give --attempt-timeout or --timeout"
    per_attempt = math.inf if policy.attempt_timeout is None else policy.attempt_timeout
    total = waiting + attempts * per_attempt
    if total == worst:
        before = f"{in_seconds(waiting)} of waits, and " if waiting else ""
        count = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        return f"{in_seconds(worst)} at the most: {before}{count} of up to {in_seconds(per_attempt)}"
    assert policy.timeout is not None
    if worst < policy.timeout:
        return (
            f"{in_seconds(worst)} at the most, since no wait is begun that would end after the timeout of"
            f" {in_seconds(policy.timeout)}"
        )
    without = "" if total == math.inf else f"; without that, {in_seconds(total)}"
    return f"{in_seconds(worst)} at the most, by its timeout{without}"
