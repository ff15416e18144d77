"""The schedule of waits: (attempt, previous delay, draw) -> delay.

The jittered forms are those of M. Brooker, "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015).
"""

from typing import Literal, get_args

Jitter = Literal["none", "full", "equal", "decorrelated"]
JITTERS: tuple[Jitter, ...] = get_args(Jitter)

# 2.0**1024 overflows; any base_delay that a policy accepts has long reached any max_delay by then.
_LARGEST_EXPONENT = 1023


def ceiling(attempt: int, base_delay: float, max_delay: float) -> float:
    """The delay after this attempt (1 is the first) without jitter: 1, 2, 4 … times `base_delay`, up to `max_delay`."""
    delay = base_delay * 2.0 ** (attempt - 1 if attempt <= _LARGEST_EXPONENT else _LARGEST_EXPONENT)
    return delay if delay < max_delay else max_delay  # noqa: FURB136 - `min` would take as long as all the rest.


def span(
    jitter: Jitter, attempt: int, previous_delay: float, base_delay: float, max_delay: float
) -> tuple[float, float]:
    """The shortest and the longest delay that can follow this attempt."""
    top = ceiling(attempt, base_delay, max_delay)
    if jitter == "full":
        return 0.0, top
    if jitter == "equal":
        return top / 2, top
    if jitter == "decorrelated":
        longest = min(max_delay, 3 * max(previous_delay, base_delay))
        return min(base_delay, longest), longest
    return top, top


def delay(
    jitter: Jitter, attempt: int, previous_delay: float, base_delay: float, max_delay: float, *, draw: float
) -> float:
    """The delay that follows this attempt; `draw`, in [0, 1), says where in its span."""
    shortest, longest = span(jitter, attempt, previous_delay, base_delay, max_delay)
    return min(longest, shortest + draw * (longest - shortest))
