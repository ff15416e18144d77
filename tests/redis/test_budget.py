"""The budget that a fleet shares, while the store is there."""

import asyncio
import random
import sys

import pytest

from retrykit import AsyncHTTPClient, GiveUpError, RetryBudget
from retrykit.redis import Fleet
from retrykit.testing import ScriptedServer
from tests.redis.server import ORIGIN, PATIENT, RedisServer, granted, levels, spend

BUCKET = f"retrykit:{{orders}}:budget:{ORIGIN}"


async def test_one_fleet_gets_the_answers_of_a_local_budget(redis_server: RedisServer) -> None:
    chance = random.Random(5)
    numbers = RetryBudget(60, cost=1 / 0.15, throttling_cost=2.5, refund=0.7)
    local = RetryBudget(60, cost=1 / 0.15, throttling_cost=2.5, refund=0.7)
    async with Fleet(redis_server.url, **PATIENT, budget=numbers) as fleet:
        for _ in range(300):
            origin = chance.choice([ORIGIN, "http://other.example.com", None])
            if chance.random() < 0.6:
                fleet.budget.earn(origin)
                local.earn(origin)
            else:
                throttled = chance.random() < 0.5
                expected = local.spend(origin, throttled=throttled)
                assert await spend(fleet, origin, throttled=throttled) is expected
        assert local.left(ORIGIN) < 60
        for origin in (ORIGIN, None):
            await spend(fleet, origin)  # Brings along what was earned.
            local.spend(origin)
        left = await redis_server.client.get(BUCKET)
        assert float(left or 60) == pytest.approx(local.left(ORIGIN))


async def test_a_bucket_is_exact_however_many_ask_at_once(redis_server: RedisServer) -> None:
    budget = RetryBudget(100, cost=10)
    async with (
        Fleet(redis_server.url, **PATIENT, budget=budget) as one,
        Fleet(redis_server.url, **PATIENT, budget=budget) as two,
        Fleet(redis_server.url, **PATIENT, budget=budget) as three,
    ):
        for _ in range(50):
            one.budget.earn(ORIGIN)  # It is full, and stays so.
        assert await granted(one, two, three, times=20) == 10
        for _ in range(34):
            one.budget.earn(ORIGIN)
        assert await granted(one, times=20) == 3
        assert await granted(two, three, times=20) == 0


async def test_a_share_of_the_calls_may_be_retried(redis_server: RedisServer) -> None:
    async with Fleet(redis_server.url, **PATIENT, budget=RetryBudget.ratio(0.1, reserve=3)) as fleet:
        assert await granted(fleet, times=10) == 3
        for _ in range(20):
            fleet.budget.earn(ORIGIN)
        assert await granted(fleet, times=10) == 2


async def test_each_origin_and_each_key_has_its_bucket(redis_server: RedisServer) -> None:
    budget = RetryBudget(10, cost=10)
    async with (
        Fleet(redis_server.url, **PATIENT, budget=budget) as orders,
        Fleet(redis_server.url, key="users", timeout=5, budget=budget) as users,
    ):
        for fleet in (orders, users):
            for origin in (ORIGIN, "http://other.example.com", None):
                assert await spend(fleet, origin)
                assert not await spend(fleet, origin)


async def test_a_full_bucket_has_no_key_and_others_have_one_that_expires(redis_server: RedisServer) -> None:
    async with Fleet(redis_server.url, **PATIENT, budget=RetryBudget(10, cost=5, refund=5)) as fleet:
        assert await redis_server.client.keys() == []
        assert await spend(fleet)
        fleet.pause.begin(ORIGIN, 60)
        await until_written(redis_server, "retrykit:{orders}:pauses")
        assert sorted(await redis_server.client.keys()) == [BUCKET, "retrykit:{orders}:pauses"]
        assert 3590 < await redis_server.client.ttl(BUCKET) <= 3600
        assert 50 < await redis_server.client.ttl("retrykit:{orders}:pauses") <= 60
        fleet.budget.earn(ORIGIN)
    assert await redis_server.client.keys() == ["retrykit:{orders}:pauses"]


async def until_written(redis_server: RedisServer, key: str) -> None:
    async with asyncio.timeout(20):
        while not await redis_server.client.exists(key):
            await asyncio.sleep(0.005)


# --- what it costs ----------------------------------------------------------------------------------------------------


async def test_a_call_that_succeeds_makes_no_round_trip(
    redis_server: RedisServer, scripted_server: ScriptedServer
) -> None:
    scripted_server.script("/users", {"id": 1})
    async with (
        Fleet(redis_server.url, **PATIENT) as fleet,
        AsyncHTTPClient(scripted_server.url, budget=fleet.budget, pause=fleet.pause) as client,
    ):
        before, began = await redis_server.scripts(), asyncio.get_running_loop().time()
        await asyncio.gather(*(client.get("/users") for _ in range(200)))
        flushes = asyncio.get_running_loop().time() - began + 1  # One a second.
        assert await redis_server.scripts() - before <= flushes


async def test_a_retry_makes_one_round_trip_at_the_most(
    redis_server: RedisServer, scripted_server: ScriptedServer
) -> None:
    scripted_server.script("/down", 503)
    async with (
        Fleet(redis_server.url, **PATIENT, budget=RetryBudget(1000, cost=1)) as fleet,
        AsyncHTTPClient(scripted_server.url, budget=fleet.budget, max_retries=2, base_delay=0) as client,
    ):
        before = await redis_server.scripts()
        for _ in range(10):
            with pytest.raises(GiveUpError):
                await client.get("/down")
        assert len(scripted_server.requests()) == 20
        assert await redis_server.scripts() - before == 10


async def test_those_who_ask_at_the_same_time_share_a_round_trip_and_a_connection(redis_server: RedisServer) -> None:
    async with Fleet(redis_server.url, **PATIENT, budget=RetryBudget(1000, cost=1)) as fleet:
        before = await redis_server.scripts()
        assert await granted(fleet, times=500) == 500
        assert await redis_server.scripts() - before <= 2
        assert await redis_server.connections() <= 4


async def test_what_was_earned_is_given_back_within_a_second_or_two(redis_server: RedisServer) -> None:
    async with Fleet(redis_server.url, **PATIENT, budget=RetryBudget(100, cost=50)) as fleet:
        assert await granted(fleet, times=2) == 2
        before = await redis_server.scripts()
        for _ in range(30):
            fleet.budget.earn(ORIGIN)
        async with asyncio.timeout(20):
            while await redis_server.client.get(BUCKET) != "30":
                await asyncio.sleep(0.05)
        assert await redis_server.scripts() - before == 1


async def test_an_idle_fleet_asks_nothing_and_stays_connected(
    redis_server: RedisServer, log: pytest.LogCaptureFixture
) -> None:
    async with Fleet(redis_server.url, **PATIENT, cool_down=0.05):
        before = await redis_server.scripts()
        await asyncio.sleep(1.2)
        assert await redis_server.scripts() == before
        assert levels(log) == []


# --- cancellation -----------------------------------------------------------------------------------------------------


async def test_a_cancelled_call_leaves_the_store_usable_and_its_tokens_there(redis_server: RedisServer) -> None:
    async with Fleet(redis_server.url, **PATIENT, budget=RetryBudget(100, cost=10)) as fleet:
        redis_server.freeze()
        calls = [asyncio.create_task(spend(fleet)) for _ in range(5)]
        await asyncio.sleep(0.05)  # They are sent.
        calls += [asyncio.create_task(spend(fleet)) for _ in range(5)]
        await asyncio.sleep(0)  # They are not.
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert all(call.cancelled() for call in calls)
        redis_server.thaw()
        assert await granted(fleet, times=1) == 1
        assert await granted(fleet, times=20) == 9
        assert await redis_server.connections() <= 4


@pytest.mark.parametrize("is_sent", [True, False])
async def test_a_call_gets_an_answer_whoever_ends_the_background_tasks(
    redis_server: RedisServer, is_sent: bool
) -> None:
    before = asyncio.all_tasks()
    async with Fleet(redis_server.url, **PATIENT, local=RetryBudget(10, cost=10)) as fleet:
        redis_server.freeze()
        background = asyncio.all_tasks() - before
        calls = [asyncio.create_task(spend(fleet)) for _ in range(4)]
        await asyncio.sleep(0.05 if is_sent else 0)
        not_awaited_yet = fleet.budget.spend(ORIGIN)
        for task in background:
            task.cancel()
        async with asyncio.timeout(4):
            assert sorted(await asyncio.gather(*calls)) == [False, False, False, True]
            assert not isinstance(not_awaited_yet, bool)
            assert await not_awaited_yet is False
        assert fleet.budget.spend(ORIGIN) is False
        redis_server.thaw()


# --- processes --------------------------------------------------------------------------------------------------------

PROCESS = """
import asyncio, sys
from retrykit import AsyncHTTPClient, GiveUpError, RetryBudget
from retrykit.redis import Fleet

async def main(store, server):
    async with (
        Fleet(store, key="orders", timeout=5, budget=RetryBudget(100, cost=10)) as fleet,
        AsyncHTTPClient(server, budget=fleet.budget, base_delay=0) as client,
    ):
        results = await asyncio.gather(*(client.get("/down") for _ in range(20)), return_exceptions=True)
        assert all(isinstance(result, GiveUpError) for result in results), results

asyncio.run(main(*sys.argv[1:]))
"""


async def test_processes_share_a_bucket(redis_server: RedisServer, scripted_server: ScriptedServer) -> None:
    scripted_server.script("/down", 503)
    command = [sys.executable, "-W", "error", "-c", PROCESS, redis_server.url, scripted_server.url]
    processes = [await asyncio.create_subprocess_exec(*command) for _ in range(3)]
    assert [await process.wait() for process in processes] == [0, 0, 0]
    assert len(scripted_server.requests("/down")) == 3 * 20 + 10


async def test_the_reserve_of_a_ratio_is_there_to_the_last(redis_server: RedisServer) -> None:
    async with Fleet(redis_server.url, **PATIENT, budget=RetryBudget.ratio(0.03, reserve=3)) as fleet:
        assert [await spend(fleet) for _ in range(4)] == [True, True, True, False]


async def test_a_question_that_nobody_waits_for_any_more_is_not_asked(redis_server: RedisServer) -> None:
    async with Fleet(redis_server.url, **PATIENT, budget=RetryBudget(10, cost=10)) as fleet:
        cancelled = asyncio.create_task(spend(fleet))
        await asyncio.sleep(0)
        cancelled.cancel()
        assert await spend(fleet)
        assert not await spend(fleet)
