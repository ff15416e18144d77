"""What the tests of both listeners share."""

from collections.abc import AsyncIterator

import pytest

from retrykit import AsyncHTTPClient, CircuitBreaker, RetryBudget, RetryPolicy
from retrykit.testing import ScriptedServer


@pytest.fixture
async def client(scripted_server: ScriptedServer) -> AsyncIterator[AsyncHTTPClient]:
    policy = RetryPolicy(budget=RetryBudget(70), breaker=CircuitBreaker(min_attempts=4, failure_rate=1))
    async with AsyncHTTPClient(scripted_server.url, policy=policy) as client:
        yield client
