"""The testing helpers as pytest fixtures. In your `conftest.py`: `pytest_plugins = ["retrykit.testing.plugin"]`.

It needs pytest-asyncio, and is not an entry point of pytest: that would import aiohttp at every start of it.
"""

from collections.abc import AsyncIterator, Iterator

try:
    import pytest
    import pytest_asyncio
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "retrykit.testing.plugin needs pytest and pytest-asyncio; install them: pip install pytest pytest-asyncio",
        name=error.name,
    ) from error

from retrykit import testing


@pytest_asyncio.fixture
async def scripted_server() -> AsyncIterator[testing.ScriptedServer]:
    """A running `ScriptedServer`."""
    async with testing.ScriptedServer() as server:
        yield server


@pytest.fixture
def no_waits() -> Iterator[list[float]]:
    """Waits between attempts take no time; the value is the list of those that were skipped."""
    with testing.no_waits() as waits:
        yield waits


@pytest.fixture
def retries_disabled() -> Iterator[None]:
    """Each call makes one attempt."""
    with testing.disabled():
        yield
