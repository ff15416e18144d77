"""The store is slow, gone, full, or something else: no call fails for it, and none waits for long."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from retrykit import AsyncHTTPClient, GiveUpError, RetryBudget
from retrykit.redis import Fleet
from retrykit.testing import ScriptedServer
from tests.redis.server import ORIGIN, PATIENT, RedisServer, SlowWay, granted, levels, spend, until


def numbers() -> dict[str, RetryBudget]:
    """Of a hundred retries with the store, and of two without."""
    return {"budget": RetryBudget(1000, cost=10), "local": RetryBudget(20, cost=10)}


# --- while calls are running ------------------------------------------------------------------------------------------

Disturb = Callable[[RedisServer], Awaitable[Any]]


async def stop(server: RedisServer) -> None:
    await server.stop()


async def freeze(server: RedisServer) -> None:
    server.freeze()


async def thaw(server: RedisServer) -> None:
    server.thaw()


async def start(server: RedisServer) -> None:
    await server.start()


async def fill(server: RedisServer) -> None:
    await server.client.config_set("maxmemory-policy", "noeviction")
    await server.client.config_set("maxmemory", 1)


async def make_room(server: RedisServer) -> None:
    await server.client.config_set("maxmemory", 0)


async def make_read_only(server: RedisServer) -> None:
    await server.client.replicaof("127.0.0.1", 1)


async def make_writable(server: RedisServer) -> None:
    await server.client.replicaof("NO", "ONE")


async def put_something_else_there(server: RedisServer) -> None:
    keys = await server.client.keys("*budget*")
    assert keys
    async with server.client.pipeline(transaction=True) as at_once:
        for key in keys:
            await at_once.delete(key).rpush(key, "no number")
        await at_once.execute()


async def take_it_away(server: RedisServer) -> None:
    for key in await server.client.keys("*budget*"):
        await server.client.delete(key)


async def refuse_scripts(server: RedisServer) -> None:
    await server.client.acl_setuser("default", enabled=True, commands=["-evalsha", "-eval"])


async def allow_scripts(server: RedisServer) -> None:
    await server.client.acl_setuser("default", enabled=True, commands=["+evalsha", "+eval"])


@asynccontextmanager
async def calls_are_running(client: AsyncHTTPClient) -> AsyncIterator[list[float]]:
    """Calls that fail for want of a server, one after the other; gives how many seconds each took."""
    took: list[float] = []
    now = asyncio.get_running_loop().time

    async def run() -> None:
        while True:
            began = now()
            with pytest.raises(GiveUpError):  # And nothing else.
                await client.get("/down")
            took.append(now() - began)
            await asyncio.sleep(0.002)

    task = asyncio.create_task(run())
    try:
        yield took
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("disturb", "mend"),
    [
        (stop, start),
        (freeze, thaw),
        (fill, make_room),
        (make_read_only, make_writable),
        (put_something_else_there, take_it_away),
        (refuse_scripts, allow_scripts),
    ],
)
async def test_calls_go_on_while_the_store_is_away_and_share_again_when_it_is_back(
    redis_server: RedisServer,
    scripted_server: ScriptedServer,
    log: pytest.LogCaptureFixture,
    disturb: Disturb,
    mend: Disturb,
) -> None:
    scripted_server.script("/down", 503)
    async with (
        Fleet(redis_server.url, key="orders", timeout=0.5, cool_down=0.05, **numbers()) as fleet,
        AsyncHTTPClient(scripted_server.url, budget=fleet.budget, max_retries=2, base_delay=0) as client,
    ):
        async with calls_are_running(client) as took:
            await until(lambda: len(took) > 10)
            await disturb(redis_server)
            await until(lambda: levels(log) == ["WARNING"])
            await asyncio.sleep(0.2)  # It is tried again, and again.
            assert levels(log) == ["WARNING"]
            before = len(took)
            await until(lambda: len(took) > before + 10)
            await mend(redis_server)
            await until(lambda: levels(log) == ["WARNING", "INFO"])
            before = len(took)
            await until(lambda: len(took) > before + 10)
        assert max(took) < 5
        assert fleet.budget.local.left(scripted_server.url) < 20  # It was asked,
        answer = fleet.budget.spend(ORIGIN)
        assert not isinstance(answer, bool)  # and now is not.
        assert await answer
    assert levels(log) == ["WARNING", "INFO"]


async def test_a_restart_costs_no_call_its_answer(
    redis_server: RedisServer, scripted_server: ScriptedServer, log: pytest.LogCaptureFixture
) -> None:
    scripted_server.script("/down", 503)
    async with (
        Fleet(redis_server.url, key="orders", timeout=0.5, cool_down=0.1, **numbers()) as fleet,
        AsyncHTTPClient(scripted_server.url, budget=fleet.budget, max_retries=2, base_delay=0) as client,
    ):
        async with calls_are_running(client) as took:
            await until(lambda: len(took) > 10)
            await redis_server.stop()
            await redis_server.start()
            await until(lambda: levels(log) == ["WARNING", "INFO"])
        assert await granted(fleet, times=3) == 3
        assert await redis_server.client.get(f"retrykit:{{orders}}:budget:{ORIGIN}") == "970"


# --- waiting ----------------------------------------------------------------------------------------------------------


async def test_a_frozen_store_costs_one_timeout_for_each_cool_down(
    redis_server: RedisServer, scripted_server: ScriptedServer
) -> None:
    scripted_server.script("/down", 503)
    async with (
        Fleet(redis_server.url, key="orders", timeout=0.5, cool_down=60, **numbers()) as fleet,
        AsyncHTTPClient(scripted_server.url, budget=fleet.budget, max_retries=2, base_delay=0) as client,
    ):
        redis_server.freeze()
        began = asyncio.get_running_loop().time()
        for _ in range(20):
            with pytest.raises(GiveUpError):
                await client.get("/down")
        assert 0.45 < asyncio.get_running_loop().time() - began < 5  # And not 20 times 0.5.
        assert len(scripted_server.requests()) == 20 + 2
        redis_server.thaw()


async def test_a_slow_store_is_left_alone_until_it_is_quick(
    redis_server: RedisServer, log: pytest.LogCaptureFixture
) -> None:
    async with (
        SlowWay(redis_server.port) as way,
        Fleet(way.url, key="orders", timeout=0.1, cool_down=0.1, **numbers()) as fleet,
    ):
        assert levels(log) == []
        way.delay = 0.12
        assert await granted(fleet, times=3) == 2
        before = await redis_server.scripts()
        async with asyncio.timeout(20):
            while await redis_server.scripts() < before + 2:  # It is tried, and answers,
                assert fleet.budget.spend(ORIGIN) is False  # but no call waits for it.
                await asyncio.sleep(0.01)
        assert levels(log) == ["WARNING"]
        way.delay = 0
        await until(lambda: levels(log) == ["WARNING", "INFO"])


async def test_who_asks_while_an_answer_is_under_way_waits_no_longer_than_others(redis_server: RedisServer) -> None:
    async with (
        SlowWay(redis_server.port) as way,
        Fleet(way.url, key="orders", timeout=1.2, cool_down=60, **numbers()) as fleet,
    ):
        for _ in range(2):
            fleet.budget.local.spend(ORIGIN)  # There is none left.
        way.delay = 0.8
        first = asyncio.create_task(spend(fleet))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(spend(fleet))
        assert [await first, await second] == [True, False]  # It would have taken two times 0.8 s.


async def test_an_answer_that_comes_while_the_event_loop_is_busy_is_in_time(
    redis_server: RedisServer, log: pytest.LogCaptureFixture
) -> None:
    async with Fleet(redis_server.url, key="orders", timeout=0.3, cool_down=60, **numbers()) as fleet:
        for _ in range(2):
            fleet.budget.local.spend(ORIGIN)  # There is none left.
        redis_server.freeze()
        call = asyncio.create_task(spend(fleet))
        await asyncio.sleep(0.1)
        redis_server.thaw()
        time.sleep(0.4)  # noqa: ASYNC251 - this is what a busy program does.
        assert await call
        assert levels(log) == []


async def test_of_many_calls_none_waits_for_the_others(redis_server: RedisServer) -> None:
    async with Fleet(redis_server.url, key="orders", timeout=0.3, cool_down=60, **numbers()) as fleet:
        redis_server.freeze()
        began = asyncio.get_running_loop().time()
        at_first = asyncio.create_task(granted(fleet, times=50))
        await asyncio.sleep(0.1)
        later = asyncio.create_task(granted(fleet, times=50))
        async with asyncio.timeout(10):
            assert await at_first + await later == 2
        assert asyncio.get_running_loop().time() - began < 3
        redis_server.thaw()


async def test_a_client_with_the_patience_of_redis_py_keeps_no_call_waiting(redis_server: RedisServer) -> None:
    before = asyncio.all_tasks()
    async with Redis.from_url(redis_server.url, socket_timeout=30, health_check_interval=1) as client:
        async with Fleet(client, key="orders", cool_down=60, **numbers()) as fleet:
            redis_server.freeze()
            async with asyncio.timeout(5):
                assert await granted(fleet, times=5) == 2
        assert asyncio.all_tasks() == before
        redis_server.thaw()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_a_dead_store_is_tried_once_for_each_cool_down_however_many_calls_there_are(answer: bytes) -> None:
    connections = 0

    async def answer_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readline()
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(answer_nonsense, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    now = asyncio.get_running_loop().time
    began = now()
    async with server, Fleet(f"redis://127.0.0.1:{port}", key="orders", cool_down=0.1, **numbers()) as fleet:
        for _ in range(100):
            await spend(fleet)
            fleet.budget.earn(ORIGIN)
            fleet.pause.begin(ORIGIN, 30)
            await asyncio.sleep(0.005)
    intervals = (now() - began) / 0.1 + 1
    # The budget, the pause and the subscription each try for themselves.
    assert 6 <= connections <= 3 * intervals


async def test_where_there_is_no_store_all_is_local_from_the_start(
    unused_tcp_port: int, log: pytest.LogCaptureFixture
) -> None:
    async with Fleet(f"redis://127.0.0.1:{unused_tcp_port}", key="orders", **numbers()) as fleet:
        assert [fleet.budget.spend(ORIGIN) for _ in range(3)] == [True, True, False]
        fleet.pause.begin(ORIGIN, 30)
        assert fleet.pause.hold(ORIGIN)
        assert levels(log) == ["WARNING"]


@pytest.mark.parametrize("disturb", [freeze, fill, make_read_only, refuse_scripts])
async def test_a_store_that_does_not_work_is_seen_at_the_start_and_not_by_a_call(
    redis_server: RedisServer, log: pytest.LogCaptureFixture, disturb: Disturb
) -> None:
    await disturb(redis_server)
    async with asyncio.timeout(10), Fleet(redis_server.url, **PATIENT, **numbers()) as fleet:
        assert levels(log) == ["WARNING"]
        assert [fleet.budget.spend(ORIGIN) for _ in range(3)] == [True, True, False]
    redis_server.thaw()


async def test_a_store_that_is_slow_is_seen_at_the_start_and_not_by_a_call(
    redis_server: RedisServer, log: pytest.LogCaptureFixture
) -> None:
    async with SlowWay(redis_server.port) as way:
        way.delay = 0.12
        async with Fleet(way.url, key="orders", timeout=0.1, **numbers()) as fleet:
            assert levels(log) == ["WARNING"]
            assert fleet.budget.spend(ORIGIN) is True


async def test_a_store_that_is_started_later_is_found(
    tmp_path: Path, redis_server: RedisServer, log: pytest.LogCaptureFixture
) -> None:
    await redis_server.stop()
    async with Fleet(redis_server.url, **PATIENT, cool_down=0.05, **numbers()) as fleet:
        await redis_server.start()
        await until(lambda: levels(log) == ["WARNING", "INFO"])
        assert await granted(fleet, times=200) == 100


async def test_a_frozen_store_is_noticed_by_who_only_listens(
    redis_server: RedisServer, log: pytest.LogCaptureFixture
) -> None:
    async with Fleet(redis_server.url, **PATIENT, cool_down=0.1):
        await asyncio.sleep(0.3)  # It answers for a while.
        assert levels(log) == []
        redis_server.freeze()
        await until(lambda: levels(log) == ["WARNING"])
        redis_server.thaw()
        await until(lambda: levels(log) == ["WARNING", "INFO"])


# --- what is kept, and what is said -----------------------------------------------------------------------------------


async def test_what_was_earned_meanwhile_is_kept_up_to_a_full_bucket(
    redis_server: RedisServer, log: pytest.LogCaptureFixture
) -> None:
    budget, bucket = RetryBudget(100, cost=10), "retrykit:{orders}:budget:"
    async with Fleet(redis_server.url, **PATIENT, cool_down=0.1, budget=budget) as fleet:
        assert await granted(fleet, times=9) == 9
        await refuse_scripts(redis_server)
        assert await granted(fleet, times=3) == 1  # A tenth of the tokens is its own.
        for _ in range(35):
            fleet.budget.earn(ORIGIN)
        for _ in range(1000):
            fleet.budget.earn(None)
        await redis_server.client.set(bucket, -50)
        await allow_scripts(redis_server)
        await until(lambda: levels(log) == ["WARNING", "INFO"])
        assert await redis_server.client.get(bucket + ORIGIN) == "45"
        assert await redis_server.client.get(bucket) == "50"


async def test_what_may_have_been_given_back_is_not_given_back_twice(
    redis_server: RedisServer, log: pytest.LogCaptureFixture
) -> None:
    budget = RetryBudget(100, cost=10)
    async with Fleet(redis_server.url, key="orders", timeout=0.3, cool_down=0.1, budget=budget) as fleet:
        assert await granted(fleet, times=10) == 10
        redis_server.freeze()
        for _ in range(50):
            fleet.budget.earn(ORIGIN)
        await spend(fleet)  # It is sent, and works as soon as the store does.
        await until(lambda: levels(log) == ["WARNING"])
        redis_server.thaw()
        await until(lambda: levels(log) == ["WARNING", "INFO"])
        assert await granted(fleet, times=10) <= 5


async def test_successes_refill_the_local_budget_too(unused_tcp_port: int) -> None:
    async with Fleet(f"redis://127.0.0.1:{unused_tcp_port}", key="orders", **numbers()) as fleet:
        assert await granted(fleet, times=3) == 2
        for _ in range(10):
            fleet.budget.earn(ORIGIN)
        assert await granted(fleet, times=3) == 1


async def test_who_asks_while_it_fails_does_not_shorten_the_cool_down(
    redis_server: RedisServer, log: pytest.LogCaptureFixture
) -> None:
    async with Fleet(redis_server.url, key="orders", timeout=0.3, cool_down=60, **numbers()) as fleet:
        redis_server.freeze()
        first = asyncio.create_task(spend(fleet))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(spend(fleet))
        await asyncio.gather(first, second)
        redis_server.thaw()
        await asyncio.sleep(0.5)
        assert levels(log) == ["WARNING"]


async def test_a_question_that_waits_for_another_does_not_make_the_store_fail(
    redis_server: RedisServer, log: pytest.LogCaptureFixture
) -> None:
    async with Fleet(redis_server.url, key="orders", timeout=1, cool_down=60, **numbers()) as fleet:
        redis_server.freeze()
        first = asyncio.create_task(spend(fleet))
        await asyncio.sleep(0.6)
        second = asyncio.create_task(spend(fleet))
        await asyncio.sleep(0.2)
        redis_server.thaw()
        assert await first
        assert await second
        assert levels(log) == []
