"""What a call asks of its guards: three small protocols, and what a moment for hedging is.

The origin is scheme, host and port; `None` where it is not known, as with a decorated coroutine.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol


class Budget(Protocol):
    """Bounds the retries of many calls."""

    def spend(self, origin: str | None, *, throttled: bool) -> bool | Awaitable[bool]:
        """Take what a retry, or a hedge, costs.

        Args:
            origin: Of the request.
            throttled: Was it a 429 that asks for it? The server is well then, and only wants less.

        Returns:
            Is there enough? If not, nothing is taken. A budget that has to ask elsewhere gives an awaitable of that.
        """
        ...

    def earn(self, origin: str | None) -> None:
        """Give some back: a call ended with a value, or an answer below 500 that is not retried."""
        ...


class Hold(NamedTuple):
    """How an origin is held back."""

    end: float
    """The instant until which nothing is sent, on the clock of `clock.now`."""
    spread: float
    """Seconds over which those that are held are let go then."""


class Pause(Protocol):
    """Holds a whole origin back."""

    def begin(self, origin: str | None, seconds: float) -> None:
        """The server has asked for so long a wait."""
        ...

    def hold(self, origin: str | None) -> Hold | None:
        """How it is held back now; `None` where it is not."""
        ...


class Breaker(Protocol):
    """Stops the calls of an origin that fails."""

    def enter(self, origin: str | None) -> int:
        """Let an attempt through.

        Returns:
            What `leave` has to be given.

        Raises:
            CircuitOpenError: The circuit is open.
        """
        ...

    def leave(self, origin: str | None, entered: int, *, failed: bool | None) -> None:
        """An attempt that was let through has ended.

        Args:
            origin: As for `enter`.
            entered: What that returned.
            failed: Was it a transient failure? `None` where the attempt says nothing of the server.
        """
        ...

    def open_for(self, origin: str | None) -> float:
        """Seconds until the circuit lets an attempt through again; 0 where it does so now, or may at any moment."""
        ...


HedgeAfter = Callable[[str | None], float | None]
"""Seconds after which a second attempt is started beside one to this origin; `None` for none. Where it has a method
`record(origin, seconds)`, it is told how long first attempts took: of one that lost, at least so long."""
