"""RetryBudget: how many retries there may be, measured by what succeeds."""

import contextlib
from typing import Never, Self

from aiohttp.typedefs import StrOrURL

from retrykit.core import checks
from retrykit.core.checks import is_number
from retrykit.guards.origins import origin_named, share, whole

# Of a token: a third, three times, is a little less than one.
_ROUNDING = 1e-6


class RetryBudget:
    """A bucket of tokens for each origin, from which retries take, and into which successes give back.

        budget = RetryBudget()

        @retry_http(budget=budget)
        async def get_user(session, user_id): ...

    While a server is well, the bucket is full, and all is retried. In an outage nothing is given back, so that after
    `capacity / cost` retries there are no more until the server answers again: each call makes a single attempt, and
    gives up at once with the reason `budget`. A first attempt is never refused.

    The default numbers are those of the AWS SDKs' retry behaviour 2.1, of 2026: 500 tokens, 14 for a retry, 5 where the
    server asked us to slow down (429), and 1 back for a success. Full, that is 35 retries; refilled, one retry for 14
    successes. (The SDKs give back what a retry took that succeeds. Here that is worth as much as any other success, so
    that retries stay a share of the successes.)

    Where the origin of a request is known (client, helpers, middleware), each has a bucket of its own; the calls of
    decorated coroutines share one. Share the object: of two budgets, each would be spent.

    There is no clock in it, no lock and no chance: the same calls get the same answers. It may be shared by any number
    of event loops. It may be shared by threads, too: in CPython with its global lock, no other thread comes in between
    its steps; without that lock, a token may be lost or counted twice.

    Args:
        capacity: Tokens in a full bucket; each begins with it. Default: 500.
        cost: Tokens that a retry takes. Default: 14.
        throttling_cost: Those that it takes after a 429. Default: 5, or `cost` where that is less.
        refund: Those that a success gives back. Default: 1.
        max_origins: Buckets that are kept; of more, the one that was used longest ago is forgotten, and so is full
            again. Full ones take no room. Default: 1024.

    Raises:
        ValueError: A number can't work.
        TypeError: It is no number.
    """

    def __init__(
        self,
        capacity: float = 500,
        *,
        cost: float = 14,
        throttling_cost: float | None = None,
        refund: float = 1,
        max_origins: int = 1024,
        **unknown: Never,
    ) -> None:
        if "ratio" in unknown:
            raise TypeError("there is no option ratio=; for a share of the calls, write RetryBudget.ratio(0.1)")
        checks.no_others(RetryBudget, unknown)
        self.capacity = _tokens("capacity", capacity)
        self.cost = _tokens("cost", cost)
        self.throttling_cost = min(5, cost) if throttling_cost is None else _tokens("throttling_cost", throttling_cost)
        self.refund = _tokens("refund", refund)
        for name in ("cost", "throttling_cost"):
            if getattr(self, name) > capacity:
                raise ValueError(
                    f"{name}={getattr(self, name):g} is more than capacity={capacity:g}, so that nothing would ever be"
                    " retried; write a larger capacity, or, for a share of the calls, RetryBudget.ratio(0.1)"
                )
        if self.refund > min(self.cost, self.throttling_cost):
            raise ValueError(
                f"refund={refund:g} is more than a retry costs, so that each success would pay for several, and nothing"
                " be bounded; write a smaller refund"
            )
        self._most = whole("max_origins", max_origins)
        # Only of the buckets that are not full. The one used last stands last.
        self._left: dict[str | None, float] = {}

    @classmethod
    def ratio(cls, ratio: float = 0.1, *, reserve: float = 10, max_origins: int = 1024, **unknown: Never) -> Self:
        """The same bucket, by the share of retries.

        Args:
            ratio: Retries for each call that succeeds: with 0.1, retries are at most a tenth of the successes, but for
                the reserve. A throttled one costs as much as any other. Default: 0.1.
            reserve: Retries that a full bucket is good for. In an outage, the calls of a client make
                `1 + reserve / calls` requests on average. Default: 10.
            max_origins: As of the class.
            **unknown: None.
        """
        checks.no_others(RetryBudget.ratio, unknown)
        cost = 1 / share("ratio", ratio, 0.1)
        if is_number(reserve) and reserve < 1:
            raise ValueError(
                f"reserve={reserve!r} is less than a single retry, so that nothing would ever be retried; write 1 or"
                " more, or leave the budget out and set max_retries=1"
            )
        return cls(_tokens("reserve", reserve) * cost, cost=cost, throttling_cost=cost, max_origins=max_origins)

    def spend(self, origin: str | None = None, *, throttled: bool = False) -> bool:
        """Take what a retry costs, if that much is left.

        Args:
            origin: Whose bucket.
            throttled: Was it a 429?
        """
        buckets, cost = self._left, self.throttling_cost if throttled else self.cost
        if origin not in buckets:
            self._make_room(origin)
        # From here on nothing is called: that is where another thread could come in between.
        if origin not in buckets:  # Another thread has filled it up.
            buckets[origin] = self.capacity
        left = buckets[origin]
        if left < cost - _ROUNDING:
            return False
        del buckets[origin]
        buckets[origin] = left - cost
        return True

    def earn(self, origin: str | None = None) -> None:
        """A call succeeded: give back what that is worth."""
        buckets = self._left
        if origin in buckets:  # Else it is full. Nothing is called here either.
            left = buckets[origin] + self.refund
            del buckets[origin]
            if left < self.capacity:
                buckets[origin] = left

    def left(self, origin: StrOrURL | None = None) -> float:
        """The tokens in a bucket."""
        return max(0.0, self._left.get(origin_named(origin), self.capacity))

    def lowest(self) -> float:
        """What is left in the emptiest bucket, as a share of a full one: from 0 to 1."""
        return max(0.0, min(list(self._left.values()), default=self.capacity) / self.capacity)

    def _make_room(self, origin: str | None) -> None:
        """Have a full bucket for one more origin."""
        while len(self._left) >= self._most:
            with contextlib.suppress(StopIteration, RuntimeError):  # Another thread makes room, too.
                self._left.pop(next(iter(self._left)), None)
        self._left.setdefault(origin, self.capacity)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__}: {self.capacity:g} tokens, {self.cost:g} for a retry,"
            f" {self.throttling_cost:g} after a 429, {self.refund:g} back for a success>"
        )


def _tokens(name: str, value: object) -> float:
    if not is_number(value):
        raise TypeError(f"{name}={value!r} is no number of tokens; write one such as {name}=10")
    assert isinstance(value, int | float)
    if not 0 < value < float("inf"):
        raise ValueError(f"{name}={value!r} is no number of tokens that could be counted; write one above 0")
    return value
