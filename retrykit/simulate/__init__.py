"""The real policy and guards under a virtual clock, against a server of limited capacity.

scenario = Scenario(rate=400, capacity=500, outages=((10, 15),))
policies = {"no retry": lambda: RetryPolicy(max_retries=1), "budget": lambda: RetryPolicy(budget=RetryBudget())}
for result in simulate(scenario, policies):
    print(result.name, result.requests_per_call, result.success)
"""

from retrykit.simulate.result import Result
from retrykit.simulate.run import simulate
from retrykit.simulate.scenario import Scenario

__all__ = ["Result", "Scenario", "simulate"]
