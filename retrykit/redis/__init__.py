"""What a fleet of processes shares through Redis, or Valkey: one retry budget, and the pauses of origins.

It needs redis-py, which is called `redis`.
"""

try:
    import redis.asyncio as _  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "retrykit.redis needs redis-py; install it: pip install redis", name=error.name
    ) from error

from retrykit.redis.budget import FleetBudget
from retrykit.redis.fleet import Fleet
from retrykit.redis.pause import FleetPause

__all__ = ["Fleet", "FleetBudget", "FleetPause"]
