"""What the simulation says of the same outage."""

from collections.abc import Callable

from benchmarks.outage.contenders import POLICIES
from benchmarks.outage.scenarios import ATTEMPT_TIMEOUT, WINDOW, Scenario
from retrykit import RetryPolicy, simulate


def requests_per_call(scenario: Scenario, seed: int) -> dict[str, float]:
    """Requests for each call during the outage, by policy."""
    assert scenario.outage is not None
    same = simulate.Scenario(
        rate=scenario.rate,
        duration=scenario.duration,
        capacity=scenario.capacity,
        queue=scenario.queue,
        outages=(scenario.outage,),
        window=WINDOW,
    )
    results = simulate.simulate(same, {name: _in_time(make) for name, make in POLICIES.items()}, seed)
    return {result.name: result.requests_per_call_in(*scenario.outage) for result in results}


def _in_time(make: Callable[[], RetryPolicy]) -> Callable[[], RetryPolicy]:
    """With the attempt timeout that the clients' sessions have."""
    return lambda: make().replace(attempt_timeout=ATTEMPT_TIMEOUT)
