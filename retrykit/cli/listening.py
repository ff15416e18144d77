"""What the commands share: being told of each attempt that another one follows."""

import contextlib
from collections.abc import Callable, Iterator

from retrykit.core.events import Event, RetryEvent
from retrykit.core.listeners import get_listeners, set_listeners


@contextlib.contextmanager
def listening(listener: Callable[[RetryEvent], object]) -> Iterator[None]:
    """Tell `listener` of every retry, and nobody else; of a give-up nobody, since the caller sees how a call ends."""

    def tell(event: Event) -> None:
        if isinstance(event, RetryEvent):
            listener(event)

    before = get_listeners()
    set_listeners(tell)
    try:
        yield
    finally:
        set_listeners(*before)


def outcome(status: int | None, error: type[Exception] | None) -> str:
    """How an attempt ended, in one word: the status, or else the name of the exception."""
    return str(status) if status is not None else getattr(error, "__name__", "")
