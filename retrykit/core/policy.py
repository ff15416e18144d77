"""RetryPolicy: every option, its default, and the reason for it."""

from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from typing import Any, Literal, Self, TypedDict, Unpack, get_args

from tenacity import RetryCallState
from tenacity.retry import retry_base
from tenacity.stop import stop_after_attempt, stop_base
from tenacity.wait import wait_base

from retrykit.core import backoff, checks
from retrykit.core.backoff import JITTERS, Jitter
from retrykit.core.classify import TRANSIENT_ERRORS
from retrykit.core.events import RetryEvent, in_seconds
from retrykit.core.protocols import Breaker, Budget, HedgeAfter, Pause

Seconds = float | timedelta
OnGiveUp = Literal["raise", "return"]
BeforeRetry = Callable[[RetryEvent], Awaitable[object]]
RetryIf = retry_base | Callable[[Any], bool]
Wait = wait_base | Callable[[RetryCallState], float]
Stop = stop_base | Callable[[RetryCallState], bool]


class FurtherOptions(TypedDict, total=False):
    """The options of a `RetryPolicy` but for those that `AsyncHTTPClient` has as arguments of its own."""

    max_delay: Seconds
    jitter: Jitter
    wait: Wait | None
    stop: Stop | None
    statuses: Iterable[int]
    exceptions: Iterable[type[Exception]]
    retry_if: RetryIf | None
    max_retry_after: Seconds
    attempt_timeout: Seconds | None
    before_retry: BeforeRetry | None
    on_give_up: OnGiveUp | None
    idempotent: bool | None
    budget: Budget | None
    pause: Pause | None
    breaker: Breaker | None
    hedge_after: Seconds | HedgeAfter | None


class UntimedOptions(FurtherOptions, total=False):
    """The options of a `RetryPolicy` but for `timeout`, which a request has a wider notion of."""

    max_retries: int
    base_delay: Seconds


class RetryOptions(UntimedOptions, total=False):
    """The options of a `RetryPolicy`, as keyword arguments."""

    timeout: Seconds | None


@dataclass(frozen=True, init=False, eq=True)
class RetryPolicy:
    """When to try again, how long to wait before, and when to stop: one frozen value, checked when it is made.

    All times are seconds; a `timedelta` is accepted wherever one is given. `policy.replace(max_retries=5)` is the
    same policy but for what is named. `str(policy)` says it in a few words.

    Raises:
        ValueError: An option has a value that can't work, or two options contradict one another.
        TypeError: An option has a value of the wrong kind, or there is no such option.
    """

    max_retries: int = 3
    """Attempts in total, the first included: 3 tries at most three times, and 1 never retries.
    Three get past a restarting server or a broken connection; many more make an outage worse."""

    base_delay: float = 1.0
    """The first delay; each later one is twice as long: 1, 2, 4 … seconds. A second is about what a server needs
    to be back from a restart, and longer than most queues take to drain."""

    max_delay: float = 60.0
    """The longest single delay, jitter included: longer, and a person would have given up."""

    jitter: Jitter = "none"
    """The randomness of the delays, so that many clients don't come back at the same moment: `"full"` (from 0 to the
    delay), `"equal"` (from half of it to all of it) or `"decorrelated"` (from `base_delay` to three times the
    previous delay). `"none"` is the default because a schedule that can be foretold is easier to test and to read."""

    wait: Wait | None = None
    """A tenacity `wait_*` strategy, or a callable of a `RetryCallState`, in the place of `base_delay`, `max_delay` and
    `jitter`."""

    stop: Stop | None = None
    """A tenacity `stop_*` strategy, or a callable of a `RetryCallState`; it only stops earlier than `max_retries`.
    Before an attempt beside one that still runs, it is asked with no outcome."""

    statuses: frozenset[int] = frozenset({408, 425, 429, 502, 503, 504})
    """The response statuses that are retried: those by which a server or gateway says "not now". 500 and 501 say "not
    at all", and are retried only where they are named. An empty set means none."""

    exceptions: tuple[type[Exception], ...] = TRANSIENT_ERRORS
    """The exceptions that are retried. The default are the failures of a connection, which another one may not meet,
    and what is named replaces it: `TRANSIENT_ERRORS + (MyError,)` adds to it. An exception of your own is never
    retried unless named, because only you know what it means."""

    retry_if: RetryIf | None = None
    """A further reason to retry: a callable of the outcome (the response, value or exception), or a tenacity `retry_*`
    strategy. It adds to `statuses` and `exceptions`, and never overrides what is permanent."""

    max_retry_after: float = 60.0
    """A Retry-After that is longer ends the call at once: we neither sleep for hours nor come back too early."""

    timeout: float | None = None
    """Bounds the whole call: attempts, waits, and what runs between them. When it has passed, `TimeoutError` is
    raised; a wait that would end after it is not begun, and the outcome at hand comes out at once. Default: none,
    because only the caller knows how long is too long; a client's is 30 s."""

    attempt_timeout: float | None = None
    """Bounds each attempt; one that takes longer is cancelled, and counts as a `TimeoutError`. Default: none, because
    aiohttp has limits of its own (300 s for a request)."""

    before_retry: BeforeRetry | None = None
    """A coroutine function that is awaited before each further attempt that follows a failure, with the `RetryEvent` of
    that; say, to refresh a token after a 401 named in `statuses`. What it raises ends the call."""

    on_give_up: OnGiveUp | None = None
    """`"raise"`: a response that was given up on is raised as `GiveUpError`. `"return"`: it is returned, open and
    unread. Default: `"return"` in `AsyncHTTPClient.request` and `RetryMiddleware`, which stand where aiohttp itself
    would hand over a response, and `"raise"` everywhere else."""

    idempotent: bool | None = None
    """May the server process the request twice? Default: for a decorated coroutine yes, that is what decorating it
    says; for a request whose method can be seen (client, helpers, middleware) only where RFC 9110 §9.2.2 says so, or
    where it carries an `Idempotency-Key`. What was never taken up is sent again in any case."""

    budget: Budget | None = None
    """Bounds the retries and hedges of all calls that share it, such as `RetryBudget()`. Where it has not enough left,
    a call ends with the outcome at hand, and the reason `budget`. A first attempt is never refused."""

    pause: Pause | None = None
    """`OriginPause()`: a Retry-After on a 429 or 503 holds back all calls to that origin until then. One that can't
    wait for so long, by its `timeout` or `max_retry_after`, ends at once, and one that has sent nothing yet with
    `OriginPausedError`."""

    breaker: Breaker | None = None
    """Stops the calls to an origin that fails, such as `CircuitBreaker()`: where its circuit is open, they end at once
    with `CircuitOpenError`. A call that is to be retried ends with the outcome at hand, and the reason `circuit_open`,
    where the circuit would still be open after the wait."""

    hedge_after: float | HedgeAfter | None = None
    """Seconds after which a second attempt is started beside one that has not ended, where the request may be repeated
    and its body can be; or what tells them, such as `LatencyQuantile(0.95)`. The first good answer counts, and the
    other attempt is cancelled. Both count towards `max_retries`, and the second one takes from the budget. At most two
    run at a time (J. Dean and L. A. Barroso, "The Tail at Scale", CACM 56(2), 2013)."""

    def __init__(self, **options: Unpack[RetryOptions]) -> None:
        for name, value in {**_DEFAULTS, **_checked(options)}.items():
            object.__setattr__(self, name, value)
        _refuse_contradictions(self, options)

    def replace(self, **options: Unpack[RetryOptions]) -> Self:
        """The same policy but for the named options.

        What would contradict a named option gives way to it: a `wait` takes the place of `base_delay`, `max_delay` and
        `jitter`, one of those that of a `wait`, a `timeout` that of a longer `attempt_timeout`, and either of these, or
        `max_retries=1`, that of a `hedge_after` that it doesn't leave room for; a `base_delay` above the old
        `max_delay` raises that, and a `max_delay` below the old `base_delay` lowers that.
        """
        new = _checked(options)
        kept = {name: value for name, value in self._named().items() if not _gives_way(name, value, new)}
        if "stop" in kept:
            kept.setdefault("max_retries", self.max_retries)  # As it was, it was no contradiction.
        if "max_delay" in kept and "base_delay" in new:
            kept["max_delay"] = max(kept["max_delay"], new["base_delay"])
        if "base_delay" in kept and "max_delay" in new:
            kept["base_delay"] = min(kept["base_delay"], new["max_delay"])
        merged: dict[str, Any] = {**kept, **options}
        return type(self)(**merged)

    def for_one_call(self, **values: float) -> Self:
        """The same policy with these values, which something around a call has set: nothing is checked again.

        A hedge, say, that was to come within the `timeout` may never come now, and does no harm.
        """
        changed = object.__new__(type(self))
        kept = {name: value for name, value in vars(self).items() if name not in _FOUND_ONCE}
        vars(changed).update(kept, **values)
        return changed

    def _named(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        return {name: getattr(self, name) for name, default in _DEFAULTS.items() if getattr(self, name) != default}

    @cached_property
    def strategies(self) -> bool:
        """Does the policy have strategies of the user's own?"""
        return not (self.wait is None and self.stop is None and self.retry_if is None)

    @cached_property
    def guards_attempts(self) -> bool:
        """Does something stand before each attempt, or beside it?"""
        return self.pause is not None or self.breaker is not None or self.hedge_after is not None

    @cached_property
    def has_guards(self) -> bool:
        """Is there any guard?"""
        return self.budget is not None or self.guards_attempts

    @cached_property
    def longest_attempt(self) -> float | None:
        """Seconds that an attempt can take at the most; `None` where nothing limits it."""
        return min((limit for limit in (self.attempt_timeout, self.timeout) if limit is not None), default=None)

    @cached_property
    def measures_time(self) -> bool:
        """Is a call's time measured from its start? Where nothing asks for that, it isn't: it costs every success."""
        return self.strategies or self.timeout is not None or self.attempt_timeout is not None

    def __str__(self) -> str:
        """In a few words, such as `3 attempts, waits 1 s + 2 s`."""
        parts = [self._attempts(), self._waits()]
        if self.timeout is not None:
            parts.append(f"timeout {in_seconds(self.timeout)}")
        if self.attempt_timeout is not None:
            parts.append(f"{in_seconds(self.attempt_timeout)} per attempt")
        if self.hedge_after is not None:
            parts.append(f"hedged after {self._hedged_after()}")
        guards = [name for name in ("budget", "pause", "breaker") if getattr(self, name) is not None]
        if guards:
            parts.append(f"with {' and '.join(guards)}")
        return ", ".join(parts)

    def _hedged_after(self) -> str:
        if callable(self.hedge_after):
            return f"what {checks.name_of(self.hedge_after)} says"
        return in_seconds(self.hedge_after or 0.0)

    def _attempts(self) -> str:
        return "1 attempt" if self.max_retries == 1 else f"{self.max_retries} attempts"

    def _waits(self) -> str:
        if self.max_retries == 1:
            return "no retries"
        if self.wait is not None:
            return f"waits as {checks.name_of(self.wait)} says"
        count = self.max_retries - 1
        waits = [self._span(attempt) for attempt in range(1, min(count, 4) + 1)]
        if count > 5:
            waits.append("…")
        if count > 4:
            waits.append(self._span(count))
        return "waits " + " + ".join(waits)

    def _span(self, attempt: int) -> str:
        # The longest possible previous delay, so that the whole span of a decorrelated wait is shown.
        longest_before = self.base_delay * 3.0 ** min(attempt - 1, 600) if attempt > 1 else 0.0
        low, high = backoff.span(self.jitter, attempt, longest_before, self.base_delay, self.max_delay)
        return in_seconds(high) if low == high else f"{low:g} to {in_seconds(high)}"


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "max_retries": checks.attempts,
    "base_delay": checks.seconds,
    "max_delay": checks.seconds,
    "jitter": partial(checks.one_of, JITTERS),
    "wait": partial(checks.strategy, "tenacity.wait_fixed(2)"),
    "stop": partial(checks.strategy, "tenacity.stop_after_delay(30)"),
    "statuses": checks.statuses,
    "exceptions": checks.exceptions,
    "retry_if": partial(checks.strategy, "tenacity.retry_if_result(is_pending)"),
    "max_retry_after": checks.seconds,
    "timeout": checks.limit,
    "attempt_timeout": checks.limit,
    "before_retry": checks.hook,
    "on_give_up": partial(checks.one_of, get_args(OnGiveUp)),
    "idempotent": checks.flag,
    "budget": partial(checks.guard, "RetryBudget()", ("spend", "earn")),
    "pause": partial(checks.guard, "OriginPause()", ("begin", "hold")),
    "breaker": partial(checks.guard, "CircuitBreaker()", ("enter", "leave", "open_for")),
    "hedge_after": checks.hedge_after,
}

_DEFAULTS: dict[str, Any] = {name: getattr(RetryPolicy, name) for name in _CHECKS}
_SCHEDULE = ("base_delay", "max_delay", "jitter")


_FOUND_ONCE = {name for name, value in vars(RetryPolicy).items() if isinstance(value, cached_property)}


def _checked(options: RetryOptions) -> dict[str, Any]:
    """The named options as a policy keeps them."""
    checks.known_names(options, _CHECKS)
    return {name: value if value is _DEFAULTS[name] else _CHECKS[name](name, value) for name, value in options.items()}


def _refuse_contradictions(policy: RetryPolicy, given: Collection[str]) -> None:
    scheduled = [name for name in _SCHEDULE if name in given]
    if policy.wait is not None and scheduled:
        raise ValueError(
            f"wait= and {scheduled[0]}= contradict one another, since wait= is the whole schedule; leave one out"
            " (tenacity's strategies add up: wait_exponential(max=60) + wait_random(0, 1))"
        )
    if "base_delay" in given and policy.base_delay > policy.max_delay:
        raise ValueError(
            f"base_delay={policy.base_delay:g} is longer than max_delay={policy.max_delay:g}, so that no delay could"
            " grow; write a longer max_delay as well"
        )
    if isinstance(policy.stop, stop_after_attempt) and "max_retries" not in given:
        most = policy.stop.max_attempt_number
        if most > policy.max_retries:
            raise ValueError(
                f"stop=stop_after_attempt({most}) never comes, since stop= only stops earlier than"
                f" max_retries={policy.max_retries}; write max_retries={most} in its place"
            )
    if policy.timeout is not None and policy.attempt_timeout is not None and policy.attempt_timeout > policy.timeout:
        raise ValueError(
            f"attempt_timeout={policy.attempt_timeout:g} is longer than timeout={policy.timeout:g}, which bounds the"
            " whole call; write a shorter attempt_timeout, or leave it out"
        )
    if policy.hedge_after is not None and policy.max_retries == 1:
        raise ValueError(
            "hedge_after= and max_retries=1 contradict one another, since a hedge is a second attempt; leave one of"
            " them out, or write max_retries=2"
        )
    longest = policy.longest_attempt
    if isinstance(policy.hedge_after, float) and longest is not None and policy.hedge_after >= longest:
        raise ValueError(
            f"hedge_after={policy.hedge_after:g} never comes, since an attempt ends after {longest:g} s by timeout or"
            " attempt_timeout; write a shorter hedge_after, or leave it out"
        )


def _gives_way(name: str, value: Any, new: dict[str, Any]) -> bool:
    """Does an option lose its place to one that is newly given?"""
    match name:
        case "wait":
            return any(option in new for option in _SCHEDULE)
        case "attempt_timeout":
            return new.get("timeout") is not None and value > new["timeout"]
        case "hedge_after":
            limits = (new.get("timeout"), new.get("attempt_timeout"))
            comes_too_late = any(isinstance(value, float) and limit is not None and value >= limit for limit in limits)
            return comes_too_late or new.get("max_retries") == 1
        case _:
            return name in _SCHEDULE and new.get("wait") is not None
