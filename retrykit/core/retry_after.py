"""Retry-After: a header -> seconds, or nothing (RFC 9110 §10.2.3)."""

import re
import sys
from collections.abc import Iterable
from datetime import UTC
from email.utils import parsedate_to_datetime

# RFC 9110 knows whole seconds only; some servers send fractions, and to come back a little late is polite.
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?", re.ASCII)


def seconds_to_wait(values: Iterable[str], date: str | None, wall: float) -> float | None:
    """How long the server asks us to wait, in seconds; `None` where it says nothing that can be read.

    Args:
        values: All Retry-After headers of a response. Where there are several, the longest wait counts.
        date: Its Date header. An HTTP-date is measured against it, so that a skewed clock does no harm.
        wall: The time of day, in seconds since the epoch; it stands in for a missing or unreadable Date.
    """
    waits = [wait for value in values if (wait := _wait(value.strip(), date, wall)) is not None]
    return max(waits, default=None)


def _wait(value: str, date: str | None, wall: float) -> float | None:
    if _SECONDS.fullmatch(value):
        # So many digits that they overflow still mean "much longer than you would wait".
        return min(float(value), sys.float_info.max)
    until = timestamp(value)
    if until is None:
        return None
    sent = timestamp(date) if date is not None else None
    wait = until - (wall if sent is None else sent)
    return wait if wait >= 0 else None


def timestamp(http_date: str) -> float | None:
    """Seconds since the epoch; `None` where it can't be read."""
    try:
        parsed = parsedate_to_datetime(http_date)
        # All three formats of RFC 9110 §5.6.7 are in GMT; asctime's just doesn't say so.
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
