"""What all calls of a decorated function share: what makes an attempt, under which policy, and what we know of it."""

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from retrykit.core.events import Ended, Request
from retrykit.core.limits import UNBOUNDED, TimeLimits
from retrykit.core.policy import RetryPolicy

Describe = Callable[..., Request]


class CarriedOn(NamedTuple):
    """A failure that came after a call had ended, and that counts as its last attempt: a body has broken off."""

    failure: list[Exception]
    """The failure alone."""
    started: float
    """The instant, on the clock of `clock.now`, from which the time of the call is counted."""
    ended: tuple[Ended, ...]
    """The attempts before."""

    def fail(self) -> NoReturn:
        """Raise the failure. It is not kept: its traceback leads back here, and that would be a cycle."""
        raise self.failure.pop()


@dataclass(frozen=True, slots=True)
class Traits:
    """What we know of a function that sends requests; of a user's own coroutine, it is nothing."""

    describe: Describe | None = None
    """Tells of the request, from the arguments of the call; asked only once an attempt has failed. Default: what the
    outcomes show of it."""
    is_plain: Callable[..., bool] | None = None
    """Tells, from the arguments, whether the request may be repeated and has no body: then it is described only where
    somebody is told of it, since to take a URL apart is dear. Default: it is not known."""
    returns_response: bool = False
    """What happens to a response that was given up on, where the policy's `on_give_up` does not say."""
    returns_awaitable: bool = False
    """Does it return an awaitable for sure, though it is no coroutine function?"""
    origin: Callable[..., str | None] | None = None
    """Tells the origin of a request, from the arguments of the call, to the guards. Default: it is not known."""
    holds_back: bool = False
    """Is aiohttp's own repeat of its requests held back?"""
    carried_on: Callable[..., CarriedOn | None] | None = None
    """Tells, from the arguments of a call, of what it goes on with."""
    keeps_time: bool = False
    """Does the first attempt end in time by itself, where a call has a timeout, and its attempts have none?"""
    as_raised: Callable[[Exception], Exception] | None = None
    """Tells which error counts in the place of one that was raised."""
    ended_by: Callable[..., None] | None = None
    """Told of an error that a call ends with, and of the arguments of the call."""
    is_over: Callable[..., bool] | None = None
    """Tells, from the arguments of the call, whether a time has passed that something else has set for all of it; asked
    where an attempt ended in a `TimeoutError`, and after what an attempt has left was drained."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What all calls of a decorated function share."""

    fn: Callable[..., Awaitable[Any]]
    """Makes one attempt."""
    policy: RetryPolicy
    name: str
    """How its calls are named to listeners, and"""
    place: str
    """how in a warning."""
    traits: Traits
    limits: TimeLimits | None
    """Those of its attempts."""
    is_bounded: bool = False
    """Is its time that of something around the call?"""

    @property
    def keeps_time(self) -> bool:
        """Does its first attempt need no limit?"""
        policy = self.policy
        return self.traits.keeps_time and policy.attempt_timeout is None and not policy.guards_attempts

    def within(self, seconds: float) -> "Plan":
        """The same for a single call, with no more time than so many seconds."""
        policy, limits = self.policy.for_one_call(timeout=seconds), self.limits or UNBOUNDED
        return Plan(self.fn, policy, self.name, self.place, self.traits, limits, is_bounded=True)

    def origin_of(self, args: Any, kwargs: Any) -> str | None:
        """The origin of the request that a call with these arguments makes, as far as it is known before."""
        if self.traits.origin is None:
            return None
        with contextlib.suppress(TypeError, ValueError):  # Where they don't fit, the attempt says so.
            return self.traits.origin(*args, **kwargs)
        return None
