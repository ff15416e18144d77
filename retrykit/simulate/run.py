"""simulate(): a discrete-event simulation of calls that are retried as `retrykit.core.loop` retries them.

What stands before an attempt, what a guard is told after it, and what follows are the real objects: `RetryPolicy`,
`decide`, budget, pause and breaker. Only the order in which they are asked is written here once more, since the real
loop waits, and here a wait is an entry in a list of what happens when.
"""

import contextlib
import heapq
import inspect
import itertools
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from aiohttp import ClientResponseError, RequestInfo, hdrs
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from retrykit.core import clock
from retrykit.core.decision import Ahead, Call, GiveUp, Outcome, Retry, decide, server_failed
from retrykit.core.errors import CircuitOpenError
from retrykit.core.policy import RetryPolicy
from retrykit.core.protocols import Budget, Pause
from retrykit.simulate.result import Result
from retrykit.simulate.scenario import Scenario
from retrykit.simulate.server import Server
from retrykit.simulate.world import VirtualClock, numbers

_ORIGIN = "https://api.example.com"
_SUCCESS = Outcome()
_TIMED_OUT = Outcome(error=TimeoutError())
# Options that would have to be awaited, or that could do anything at all.
_NOT_SIMULATED = ("hedge_after", "wait", "stop", "retry_if", "before_retry")


def simulate(scenario: Scenario, policies: Mapping[str, Callable[[], RetryPolicy]], seed: int = 1) -> list[Result]:
    """Run calls through a scenario, once for each policy.

    It is exactly repeatable: the same arguments give the same results. All policies meet the same calls, and the same
    random failures.

    Meanwhile all of retrykit is on the virtual clock, in the whole process, and it logs nothing. So this is for a
    process, or a moment, in which it makes no real calls.

    Args:
        scenario: What happens.
        policies: By a name of your own, each as a function that makes it. It is called once for each process of the
            scenario: guards that it makes are each process's own, and those that it has from elsewhere are shared.
        seed: What all random numbers follow from. Default: 1.

    Returns:
        What came of each policy, in their order.

    Raises:
        ValueError: A policy has an option that is not simulated: `hedge_after`, `wait`, `stop`, `retry_if` or
            `before_retry`.
        TypeError: A policy is given as it is, and not as a function, or its budget has to ask elsewhere.
    """
    return [_Simulation(name, scenario, make, seed).run() for name, make in policies.items()]


class _Call:
    """A call that has begun."""

    __slots__ = ("entered", "policy", "sent", "standing", "started")

    def __init__(self, policy: RetryPolicy, started: float) -> None:
        self.policy, self.started = policy, started
        self.sent = self.entered = 0
        # Most calls succeed at once, and never need it.
        self.standing: Call | None = None


class _Series:
    """What is counted in windows, of which the last is the current one."""

    __slots__ = ("_window", "begun", "received", "served", "until")

    def __init__(self, window: float) -> None:
        self._window = self.until = window
        self.begun, self.received, self.served = [0], [0], [0]

    def move_to(self, instant: float) -> None:
        """Begin the window that this is in."""
        while instant >= self.until:
            for series in (self.begun, self.received, self.served):
                series.append(0)
            self.until = len(self.begun) * self._window


class _Simulation:
    """Of one policy."""

    def __init__(self, name: str, scenario: Scenario, make: Callable[[], RetryPolicy], seed: int) -> None:
        self._name, self._scenario, self._make, self._seed = name, scenario, make, seed
        self._clock = VirtualClock(numbers(seed, "waits"))
        self._server = Server(scenario, numbers(seed, "failures"))
        self._unavailable = Outcome(error=_unavailable(scenario.retry_after))
        self._asked = self._unavailable.asked_delay
        self._series = _Series(scenario.window)
        self._reasons: Counter[str] = Counter()
        self._sent: Counter[int] = Counter()
        # When, the how manieth (so that nothing else is compared), which call, and how its attempt has ended: where
        # that is None, it is its turn to make one.
        self._agenda: list[tuple[float, int, _Call, Outcome | None]] = []
        self._counter = itertools.count()

    def run(self) -> Result:
        """Go through it from the start to the end of the last call."""
        with clock.using(self._clock), _nothing_logged():
            policies = [_made(self._name, self._make) for _ in range(self._scenario.processes)]
            choose = numbers(self._seed, "clients")
            for arrival in self._scenario.arrivals(numbers(self._seed, "arrivals")):
                self._go_on_until(arrival)
                self._series.begun[-1] += 1
                client = int(choose() * self._scenario.clients)
                self._attempt(_Call(policies[client % len(policies)], arrival))
            self._go_on_until(self._scenario.duration)
            self._go_on_until(math.inf)
        return Result(
            name=self._name,
            policy=str(policies[0]),
            scenario=self._scenario,
            begun=tuple(self._series.begun),
            received=tuple(self._series.received),
            served=tuple(self._series.served),
            reasons=self._reasons,
            sent=self._sent,
        )

    def _go_on_until(self, instant: float) -> None:
        """Do what is on the agenda up to this instant."""
        agenda = self._agenda
        while agenda and agenda[0][0] <= instant:
            time, _, call, outcome = heapq.heappop(agenda)
            self._set_time(time)
            if outcome is None:
                self._attempt(call)
            else:
                self._attempt_ended(call, outcome)
        if instant < math.inf:
            self._set_time(instant)

    def _set_time(self, instant: float) -> None:
        self._clock.time = instant
        if instant >= self._series.until:
            self._series.move_to(instant)

    def _later(self, instant: float, call: _Call, outcome: Outcome | None) -> None:
        heapq.heappush(self._agenda, (instant, next(self._counter), call, outcome))

    # --- as `retrykit.core.guarded` does it -------------------------------------------------------------------------

    def _attempt(self, call: _Call) -> None:
        """It is the call's turn: send a request, unless a guard or the time is against it."""
        policy, now = call.policy, self._clock.time
        left = math.inf if policy.timeout is None else max(0.0, policy.timeout - (now - call.started))
        if policy.pause is not None and self._is_held(call, policy.pause, left):
            return
        if policy.breaker is not None:
            try:
                call.entered = policy.breaker.enter(_ORIGIN)
            except CircuitOpenError as error:
                self._end(call, error.reason)
                return
        call.sent += 1
        self._series.received[-1] += 1
        served = self._server.receive(now)
        if served is None:
            self._attempt_ended(call, self._unavailable)
            return
        limit = now + (left if policy.attempt_timeout is None else min(left, policy.attempt_timeout))
        if served > limit:  # The caller is gone by then. The server works for it all the same.
            self._later(limit, call, _TIMED_OUT)
        else:
            self._later(served, call, _SUCCESS)

    def _is_held(self, call: _Call, pause: Pause, left: float) -> bool:
        """Does the call wait for the end of a pause, or has it ended, since that is too far off?"""
        hold = pause.hold(_ORIGIN)
        if hold is None:
            return False
        held, breaker = hold.end - self._clock.time, call.policy.breaker
        if held >= left:
            self._end(call, "timeout")
        elif held > call.policy.max_retry_after:
            self._end(call, "retry_after")
        elif breaker is not None and breaker.open_for(_ORIGIN) > held:
            self._end(call, "circuit_open")
        else:
            self._later(hold.end + self._clock.draw() * min(hold.spread, left - held), call, None)
        return True

    def _attempt_ended(self, call: _Call, outcome: Outcome) -> None:
        """Tell the guards; then end the call, or put its next attempt on the agenda."""
        policy = call.policy
        if policy.pause is not None and outcome.status is not None and self._asked:
            policy.pause.begin(_ORIGIN, self._asked)
        if policy.breaker is not None:
            policy.breaker.leave(_ORIGIN, call.entered, failed=server_failed(outcome, policy))
        if outcome is _SUCCESS:
            self._series.served[-1] += 1
            if policy.budget is not None:
                policy.budget.earn(_ORIGIN)
            self._end(call, "success")
            return
        self._decide(call, outcome, policy)

    # --- as `retrykit.core.run` does it -----------------------------------------------------------------------------

    def _decide(self, call: _Call, outcome: Outcome, policy: RetryPolicy) -> None:
        standing = call.standing
        if standing is None:
            standing = call.standing = Call(0, repeatable=policy.idempotent is not False)
        standing.attempt += 1
        standing.elapsed = self._clock.time - call.started
        if policy.timeout is not None and math.isclose(standing.elapsed, policy.timeout):
            standing.elapsed = policy.timeout  # What ended at the deadline did not end a rounding error before it.
        if policy.guards_attempts:
            standing.ahead = self._ahead(policy)
        draws = policy.jitter != "none" or standing.ahead is not None
        decision = decide(outcome, standing, policy, self._clock.draw() if draws else 0.0)
        if not isinstance(decision, Retry):
            self._end(call, decision.reason if isinstance(decision, GiveUp) else "not_retried")
        elif policy.budget is None or _grants(policy.budget):
            standing.previous_delay = decision.delay
            self._later(self._clock.time + decision.delay, call, None)
        else:
            self._end(call, "budget")

    def _ahead(self, policy: RetryPolicy) -> Ahead:
        """What the next attempt would have to wait for."""
        hold = None if policy.pause is None else policy.pause.hold(_ORIGIN)
        paused, spread = (0.0, 0.0) if hold is None else (hold.end - self._clock.time, hold.spread)
        return Ahead(paused, spread, 0.0 if policy.breaker is None else policy.breaker.open_for(_ORIGIN))

    def _end(self, call: _Call, reason: str) -> None:
        self._reasons[reason] += 1
        self._sent[call.sent] += 1


def _grants(budget: Budget) -> bool:
    granted = budget.spend(_ORIGIN, throttled=False)
    if not inspect.isawaitable(granted):
        return granted
    if inspect.iscoroutine(granted):
        granted.close()
    raise TypeError(
        f"budget={budget!r} has to ask elsewhere, and a simulation waits for nobody; write RetryBudget(), made once"
        " outside of the function that makes the policy, so that all processes share it"
    )


def _made(name: str, make: object) -> RetryPolicy:
    """The policy of a process, if all that it has can be simulated."""
    policy: object = make() if callable(make) else None
    if not isinstance(policy, RetryPolicy):
        raise TypeError(
            f"the policy {name!r} is no function that makes a RetryPolicy; write lambda: RetryPolicy(...), with all of"
            " its guards inside"
        )
    for option in _NOT_SIMULATED:
        if getattr(policy, option) is not None:
            raise ValueError(
                f"the policy {name!r} has {option}=, which is not simulated; leave it out, or take"
                f" policy.replace({option}=None)"
            )
    return policy


def _unavailable(retry_after: float | None) -> ClientResponseError:
    """The 503 that all requests get which are not served."""
    headers = CIMultiDict[str]() if retry_after is None else CIMultiDict({hdrs.RETRY_AFTER: f"{retry_after:f}"})
    proxy = CIMultiDictProxy(headers)
    request = RequestInfo(URL(_ORIGIN), hdrs.METH_GET, proxy, URL(_ORIGIN))
    return ClientResponseError(request, (), status=503, message="Service Unavailable", headers=proxy)


@contextlib.contextmanager
def _nothing_logged() -> Iterator[None]:
    """A circuit that opens here is no news."""
    logger = logging.getLogger("retrykit")
    logger.addFilter(_no_record)
    try:
        yield
    finally:
        logger.removeFilter(_no_record)


def _no_record(_: logging.LogRecord) -> bool:
    return False
