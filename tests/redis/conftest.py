"""A real redis-server, on a free port, for each test that asks for one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.redis.server import RedisServer, can_be_skipped


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is skipped is not covered, and the coverage says nothing then."""
    if can_be_skipped():
        session.config.known_args_namespace.cov_fail_under = None


@pytest.fixture
async def redis_server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with RedisServer(tmp_path) as server:
        yield server
