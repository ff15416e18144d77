"""no_waits, disabled, and the same as fixtures."""

import asyncio
import re
import subprocess
import sys
from datetime import UTC, datetime
from email.utils import format_datetime

import aiohttp
import pytest

from retrykit import GiveUpError, retry_http
from retrykit.core import clock
from retrykit.core.scope import retries_disabled
from retrykit.testing import Reply, disabled, no_waits

pytest_plugins = ["pytester"]


@retry_http
async def fail():
    raise TimeoutError


async def test_waits_are_recorded_and_skipped():
    with no_waits() as waits, pytest.raises(TimeoutError):
        await fail()
    assert waits == [1.0, 2.0]


async def test_afterwards_they_are_real_again():
    with no_waits() as waits:
        pass
    with pytest.raises(TimeoutError):
        await fail.retry_with(max_retries=2, base_delay=0.01)()
    assert waits == []


async def test_a_timeout_counts_what_was_skipped():
    with no_waits() as waits, pytest.raises(TimeoutError) as raised:
        await fail.retry_with(max_retries=9, timeout=10)()
    assert waits == [1.0, 2.0, 4.0]
    assert "gave up after 4 attempts in 7.0 s" in raised.value.__notes__[0]


async def test_calls_side_by_side_dont_use_up_one_anothers_time():
    patient = fail.retry_with(timeout=4)
    with no_waits() as waits:
        results = await asyncio.gather(*(patient() for _ in range(50)), return_exceptions=True)
    assert sorted(waits) == [1.0] * 50 + [2.0] * 50
    assert all(re.search(r"after 3 attempts in 3\.\d s", error.__notes__[0]) for error in results)


async def test_the_time_of_day_moves_along(scripted_server):
    before = datetime.now(UTC)
    with no_waits():
        await clock.sleep(3600)
        assert clock.wall() >= before.timestamp() + 3600


async def test_a_date_in_retry_after(scripted_server):
    soon = format_datetime(datetime(2026, 1, 1, 0, 0, 9, tzinfo=UTC), usegmt=True)
    now = format_datetime(datetime(2026, 1, 1, 0, 0, 2, tzinfo=UTC), usegmt=True)
    scripted_server.script("/x", Reply(503, headers={"Date": now}, retry_after=soon), 200)
    async with aiohttp.ClientSession() as session:
        with no_waits() as waits:
            await retry_http()(session.get)(f"{scripted_server.url}/x")
    assert waits == [7.0]


async def test_disabled_makes_one_attempt_per_call(scripted_server):
    scripted_server.script("/x", 503)
    async with aiohttp.ClientSession() as session:
        get = retry_http(base_delay=0)(session.get)
        with disabled(), pytest.raises(GiveUpError) as raised:
            await get(f"{scripted_server.url}/x")
        assert len(raised.value.attempts) == 1
        with pytest.raises(GiveUpError) as raised:
            await get(f"{scripted_server.url}/x")
        assert len(raised.value.attempts) == 3


async def test_they_may_overlap():
    first, second = no_waits(), no_waits()
    one, two = disabled(), disabled()
    for manager in (first, second, one, two):
        manager.__enter__()
    first.__exit__(None, None, None)
    one.__exit__(None, None, None)
    assert retries_disabled()
    second.__exit__(None, None, None)
    two.__exit__(None, None, None)
    assert not retries_disabled()
    assert abs(clock.wall() - datetime.now(UTC).timestamp()) < 60


def test_the_fixtures(pytester):
    pytester.makeconftest('pytest_plugins = ["retrykit.testing.plugin"]')
    pytester.makepyfile(
        """
        import aiohttp
        import pytest
        from retrykit import GiveUpError, retry_http

        pytestmark = pytest.mark.asyncio

        async def test_waits(scripted_server, no_waits):
            scripted_server.script("/flaky", 503, 503, 200)
            async with aiohttp.ClientSession() as session:
                response = await retry_http()(session.get)(f"{scripted_server.url}/flaky")
            assert response.status == 200
            assert no_waits == [1.0, 2.0]

        async def test_disabled(scripted_server, retries_disabled):
            scripted_server.script("/down", 503)
            async with aiohttp.ClientSession() as session:
                with pytest.raises(GiveUpError):
                    await retry_http()(session.get)(f"{scripted_server.url}/down")
            assert len(scripted_server.requests()) == 1
        """
    )
    options = ("-W", "error", "-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function")
    pytester.runpytest_subprocess(*options).assert_outcomes(passed=2)


@pytest.mark.parametrize("missing", ["pytest", "pytest_asyncio"])
def test_the_plugin_says_what_it_needs(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; import retrykit.testing.plugin"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: retrykit.testing.plugin needs pytest and pytest-asyncio; install them: pip install pytest"
        " pytest-asyncio"
    )
