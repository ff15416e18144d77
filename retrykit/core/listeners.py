"""Who is told of retries and give-ups: the application's listeners, and by default the log."""

import contextlib
import inspect
import logging
import sys
from collections.abc import Callable, Iterable
from typing import Any

from retrykit.core.checks import name_of
from retrykit.core.events import CallEvent, Event, FailedAttempt, RetryEvent, from_now

Listener = Callable[[Event], object]

logger = logging.getLogger("retrykit")
logger.addHandler(logging.NullHandler())


def log_listener(event: Event) -> None:
    """Log on the logger `retrykit`: a retry at INFO, a give-up at WARNING, each on one line.

    The fields of the event are attributes of the log record (`extra`), under their own names.
    """
    level = logging.INFO if isinstance(event, RetryEvent) else logging.WARNING
    if logger.isEnabledFor(level):
        logger.log(level, "%s", describe(event), extra=_fields(event))


def describe(event: Event) -> str:
    """The event as one short line."""
    where = f" {event.method} {event.origin or ''}{event.path or ''}" if event.method else ""
    outcome = event.status or (event.exception.__name__ if event.exception else "refused by retry_if")
    line = f"{event.call}:{where} attempt {event.attempt} of {event.max_retries}: {outcome}"
    if isinstance(event, RetryEvent):
        return f"{line}, next {from_now(event.delay)}"
    return f"{line}, gave up ({event.reason})"


def _fields(event: Event) -> dict[str, object]:
    shared = {name: getattr(event, name) for name in FailedAttempt.__slots__}
    shared["exception"] = event.exception.__name__ if event.exception else None
    if isinstance(event, RetryEvent):
        return {**shared, "delay": event.delay}
    return {**shared, "reason": event.reason}


told: tuple[Listener, ...] = (log_listener,)
"""Those of the process; only `set_listeners` changes them."""


told_of_calls: tuple[Callable[[CallEvent], object], ...] = ()
"""The methods of those of them who hear of each call that ends."""


_LOG_ALONE = (log_listener,)


def hears_retries() -> bool:
    """Is there anybody who takes note of a retry? The log does by its level, and then no event has to be made."""
    return logger.isEnabledFor(logging.INFO) if told == _LOG_ALONE else bool(told)


def set_listeners(*listeners: Listener) -> None:
    """Choose who is told of every retry and give-up in this process, in the place of those who were told before.

    A listener is called with one frozen record, a `RetryEvent` or a `GiveUpEvent`, in the task of the call and before
    the wait; it should be quick. One that raises never changes a call: the error is logged. The default is
    `set_listeners(log_listener)`; `set_listeners()` tells nobody.

    A listener that has a method `call_ended` is told by that of each call that ends, also of one that succeeds at once,
    with a `CallEvent`.

    This belongs to the application; a library that uses retrykit leaves it alone.

    Raises:
        TypeError: A listener can't be called, or would have to be awaited.
    """
    for listener in listeners:
        _refuse_other_than_listener(listener)
    global told, told_of_calls
    told = listeners
    hearing = (getattr(listener, "call_ended", None) for listener in listeners)
    told_of_calls = tuple(call_ended for call_ended in hearing if call_ended is not None)


def _refuse_other_than_listener(listener: Any) -> None:
    if isinstance(listener, type):
        raise TypeError(f"{listener.__name__} is a class; write an object of it: set_listeners({listener.__name__}())")
    if not callable(listener) and isinstance(listener, list | tuple):
        raise TypeError("set_listeners takes the listeners one by one, and no list; write set_listeners(*listeners)")
    if not callable(listener):
        raise TypeError(f"{listener!r} can't be called; a listener is a function of one argument, the event")
    if _is_asynchronous(listener):
        raise TypeError(f"{name_of(listener)} is a coroutine function, and a listener is not awaited; write `def`")
    call_ended = getattr(listener, "call_ended", None)
    if call_ended is not None and (not callable(call_ended) or _is_asynchronous(call_ended)):
        raise TypeError(
            f"call_ended of {name_of(listener)} has to be a method of one argument, the CallEvent, that is not awaited;"
            " write `def call_ended(self, event)`"
        )


def _is_asynchronous(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def get_listeners() -> tuple[Listener, ...]:
    """Who is told at present."""
    return told


def tell(event: Event) -> None:
    """Hand the event to every listener."""
    _hand_to(told, event)


def tell_of_call(event: CallEvent) -> None:
    """Hand the event to every listener that hears of calls."""
    _hand_to(told_of_calls, event)


def _hand_to(those: Iterable[Callable[[Any], object]], event: object) -> None:
    handled = sys.exception()
    for listener in those:
        try:
            listener(event)
        except Exception as failure:
            _cut_off(failure, handled)
            with contextlib.suppress(Exception):  # It may be the log itself that fails.
                logger.exception("the listener %s failed, and was passed over", name_of(listener))


def _cut_off(failure: BaseException, handled: BaseException | None) -> None:
    """Take what the call is handling out of the chain of a failure: aiohttp's texts have the query in them."""
    seen: set[int] = set()  # A chain may be a ring.
    step: BaseException | None = failure
    while step is not None and id(step) not in seen:
        seen.add(id(step))
        if step.__context__ is handled:
            step.__context__ = None
        step = step.__cause__ or step.__context__
