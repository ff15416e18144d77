"""A fleet is entered and left, and what it is given."""

import asyncio
import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.asyncio import Redis, RedisCluster

from retrykit import RetryBudget, RetryPolicy
from retrykit.redis import Fleet
from tests.redis.server import ORIGIN, PATIENT, RedisServer, granted, levels, spend, until

# --- leaving nothing --------------------------------------------------------------------------------------------------


async def until_alone(server: RedisServer) -> None:
    """Wait until only the test itself is connected."""
    async with asyncio.timeout(20):
        while await server.connections():
            await asyncio.sleep(0.005)


async def use(fleet: Fleet) -> None:
    await granted(fleet, times=3)
    fleet.budget.earn(ORIGIN)
    fleet.pause.begin(ORIGIN, 30)


async def test_it_leaves_no_task_and_no_connection(redis_server: RedisServer) -> None:
    before = asyncio.all_tasks()
    async with Fleet(redis_server.url, key="orders") as fleet:
        await use(fleet)
    assert asyncio.all_tasks() == before
    gc.collect()  # What was left open would be reported here.
    await until_alone(redis_server)


@pytest.mark.parametrize("state", ["frozen", "frozen while calls wait", "gone"])
async def test_it_leaves_nothing_where_the_store_is_away(redis_server: RedisServer, state: str) -> None:
    before = asyncio.all_tasks()
    fleet = Fleet(redis_server.url, key="orders", timeout=0.5 if "wait" in state else 0.05)
    await fleet.start()
    if state == "gone":
        await redis_server.stop()
    else:
        redis_server.freeze()
    call = asyncio.create_task(use(fleet))
    await asyncio.sleep(0.1)
    async with asyncio.timeout(10):
        await fleet.aclose()
        await call
    assert asyncio.all_tasks() == before
    gc.collect()
    if state != "gone":
        redis_server.thaw()
        await until_alone(redis_server)


async def test_it_leaves_nothing_where_it_is_cancelled_at_the_start(redis_server: RedisServer) -> None:
    redis_server.freeze()
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            async with Fleet(redis_server.url, key="orders"):
                pass
    assert asyncio.all_tasks() == before
    gc.collect()
    redis_server.thaw()
    await until_alone(redis_server)


async def test_what_was_collected_is_brought_along_at_the_end(redis_server: RedisServer) -> None:
    async with Fleet(redis_server.url, **PATIENT, budget=RetryBudget(100, cost=50)) as fleet:
        await spend(fleet)
        for _ in range(5):
            fleet.budget.earn(ORIGIN)
        fleet.pause.begin(ORIGIN, 30)
    assert await redis_server.client.get(f"retrykit:{{orders}}:budget:{ORIGIN}") == "55"
    assert await redis_server.client.exists("retrykit:{orders}:pauses")


# --- being entered ----------------------------------------------------------------------------------------------------


async def test_before_and_after_all_is_local(redis_server: RedisServer) -> None:
    fleet = Fleet(redis_server.url, **PATIENT, budget=RetryBudget(100, cost=10), local=RetryBudget(20, cost=20))
    assert RetryPolicy(budget=fleet.budget, pause=fleet.pause).budget is fleet.budget
    assert fleet.budget.spend(ORIGIN) is True
    assert fleet.budget.spend(ORIGIN) is False
    fleet.pause.begin(ORIGIN, 30)
    assert fleet.pause.hold(ORIGIN)
    assert repr(fleet) == "<Fleet 'orders', not running>"
    async with fleet:
        assert repr(fleet) == "<Fleet 'orders', running>"
        assert await granted(fleet, times=20) == 10
        await until_told(redis_server)
    assert fleet.budget.spend(ORIGIN) is False


async def until_told(redis_server: RedisServer) -> None:
    async with asyncio.timeout(20):
        while not await redis_server.client.exists("retrykit:{orders}:pauses"):
            await asyncio.sleep(0.005)


async def test_it_can_be_entered_again_but_not_twice(redis_server: RedisServer) -> None:
    fleet = Fleet(redis_server.url, **PATIENT, budget=RetryBudget(100, cost=10))
    async with fleet:
        assert await granted(fleet, times=20) == 10
        with pytest.raises(RuntimeError, match="'orders' is running already"):
            await fleet.start()
        fleet.budget.earn(ORIGIN)
    async with fleet:
        assert await granted(fleet, times=20) == 0
    await fleet.aclose()


def test_each_event_loop_enters_it_anew(tmp_path: Path) -> None:
    async def main() -> int:
        async with server, fleet:
            return await granted(fleet, times=3)

    server = RedisServer(tmp_path)
    fleet = Fleet(server.url, **PATIENT, budget=RetryBudget(20, cost=10))
    assert [asyncio.run(main()) for _ in range(2)] == [2, 2]


async def test_from_another_event_loop_it_is_local(redis_server: RedisServer) -> None:
    numbers = {"budget": RetryBudget(100, cost=10), "local": RetryBudget(20, cost=10)}
    async with Fleet(redis_server.url, key="orders", **numbers) as fleet:
        assert await asyncio.to_thread(lambda: asyncio.run(granted(fleet, times=5))) == 2
        assert await redis_server.client.keys() == []


# --- clients that are handed in ---------------------------------------------------------------------------------------


async def received_connections(server: RedisServer) -> int:
    return int((await server.client.info("stats"))["total_connections_received"])


@pytest.mark.parametrize("options", [{}, {"decode_responses": True}, {"protocol": 2}, {"protocol": 3}])
async def test_a_client_that_is_handed_in_is_used_and_not_closed(
    redis_server: RedisServer, options: dict[str, Any]
) -> None:
    async with Redis.from_url(redis_server.url, **options) as client:
        async with (
            Fleet(client, **PATIENT, budget=RetryBudget(100, cost=10)) as one,
            Fleet(client, **PATIENT) as two,
        ):
            assert await granted(one, times=4) == 4
            one.pause.begin(ORIGIN, 30)
            await until(lambda: two.pause.hold(ORIGIN))
        async with asyncio.timeout(20):
            while (await redis_server.client.pubsub_numsub("retrykit:{orders}:pauses"))[0][1]:
                await asyncio.sleep(0.005)
        assert await redis_server.connections() > 0
        assert await client.ping()


async def test_the_password_of_the_url_is_used_and_never_logged(
    redis_server: RedisServer, log: pytest.LogCaptureFixture
) -> None:
    await redis_server.client.config_set("requirepass", "right-secret")
    address = redis_server.url.removeprefix("redis://")
    async with Fleet(f"redis://:right-secret@{address}", **PATIENT) as fleet:
        assert await granted(fleet, times=1) == 1
        assert await redis_server.client.exists(f"retrykit:{{orders}}:budget:{ORIGIN}")
    assert levels(log) == []
    async with Fleet(f"redis://:wrong-secret@{address}", key="orders"):
        assert levels(log) == ["WARNING"]
    assert "secret" not in log.text


async def test_a_refusal_that_repeats_the_password_is_not_logged_with_it(log: pytest.LogCaptureFixture) -> None:
    async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received = await reader.readuntil(b"secret")
        writer.write(b"-NOTHELLO what is this: " + received.replace(b"\r\n", b" ") + b"\r\n")
        writer.close()

    listener = await asyncio.start_server(repeat, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener, Fleet(f"redis://:secret@127.0.0.1:{port}", key="orders"):
        assert levels(log) == ["WARNING"]
    assert "NOTHELLO" in log.text
    assert "secret" not in log.text


async def test_a_user_who_may_touch_nothing_else_will_do(
    redis_server: RedisServer, log: pytest.LogCaptureFixture
) -> None:
    patterns = "resetchannels ~retrykit:{orders}:* &retrykit:{orders}:*"
    commands = "+@connection +@scripting +@string +@sortedset +@pubsub +del +pexpireat +time"
    await redis_server.client.execute_command(f"ACL SETUSER retrykit on >secret {patterns} {commands}")
    url = redis_server.url.replace("://", "://retrykit:secret@")
    async with Fleet(url, **PATIENT) as one, Fleet(url, **PATIENT) as two:
        assert await granted(one, two, times=1) == 2
        one.pause.begin(ORIGIN, 30)
        await until(lambda: two.pause.hold(ORIGIN))
        assert levels(log) == []
    async with Fleet(url, key="users"):
        assert levels(log) == ["WARNING"]


@pytest.fixture
async def cluster(tmp_path: Path) -> Any:
    """A cluster of one node, which refuses a script whose keys are not in the same place."""
    async with RedisServer(tmp_path, "--cluster-enabled", "yes") as server:
        await server.client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        async with asyncio.timeout(20):
            while "cluster_state:ok" not in await server.client.execute_command("CLUSTER", "INFO"):
                await asyncio.sleep(0.01)
        yield server


async def test_in_a_cluster_all_keys_are_in_one_place(cluster: RedisServer) -> None:
    clients: list[Redis | RedisCluster] = [Redis(host="127.0.0.1", port=cluster.port)]
    clients.append(RedisCluster(host="127.0.0.1", port=cluster.port))
    for client in clients:
        async with client:
            if not hasattr(client, "pubsub"):
                with pytest.raises(TypeError, match="RedisCluster of this redis-py can't subscribe"):
                    Fleet(client, key="orders")
                continue
            budget = RetryBudget(100, cost=10)
            async with (
                Fleet(client, **PATIENT, budget=budget) as one,
                Fleet(client, **PATIENT, budget=budget) as two,
            ):
                origins = [f"http://{number}.example.com" for number in range(20)]
                assert all(await asyncio.gather(*(spend(one, origin) for origin in origins)))
                one.pause.begin(ORIGIN, 30)
                await until(lambda: two.pause.hold(ORIGIN))
                assert await granted(one, two, times=20) == 10
        keys = await cluster.client.keys()
        assert await cluster.client.exists(*keys) == len(keys) == 22  # Refused, if they were not.
        assert all(key.startswith("retrykit:{orders}:") for key in keys)
        await cluster.client.flushall()


# --- arguments --------------------------------------------------------------------------------------------------------

URL = "redis://localhost:6379/0"


@pytest.mark.parametrize(
    ("client", "options", "error", "message"),
    [
        (redis.Redis(), {}, TypeError, "Redis is no asyncio client of redis-py; write a URL"),
        (None, {}, TypeError, "NoneType is no asyncio client of redis-py"),
        ("http://localhost", {}, ValueError, "redis://"),
        (URL, {"key": None}, TypeError, "key=None is no text"),
        (URL, {"key": ""}, ValueError, "key='' can't be put between braces"),
        (URL, {"key": "a}b"}, ValueError, "key='a}b' can't be put between braces"),
        (URL, {"timeout": 0}, ValueError, "timeout=0 is no length of time"),
        (URL, {"timeout": None}, TypeError, "timeout=None is no time"),
        (URL, {"cool_down": -1}, ValueError, "cool_down=-1 is no length of time"),
        (URL, {"budget": 500}, TypeError, r"budget=500 is no RetryBudget; write budget=RetryBudget\(\)"),
        (URL, {"local": Fleet(URL, key="a").budget}, TypeError, "local=<FleetBudget of .*> is no RetryBudget"),
        (URL, {"pause": 2}, TypeError, "pause=2 is no OriginPause"),
    ],
)
def test_what_can_not_work_is_refused(
    client: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Fleet(client, **{"key": "orders", **options})


def test_without_redis_py_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['redis'] = None; import retrykit.redis"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "retrykit.redis needs redis-py; install it: pip install redis" in done.stderr


@pytest.mark.parametrize(
    ("budget", "retries"),
    [
        (RetryBudget(), 3),
        (RetryBudget.ratio(0.1, reserve=50), 5),
        (RetryBudget.ratio(0.1, reserve=2), 1),
        (RetryBudget(10, cost=1, throttling_cost=8), 8),
    ],
)
def test_the_local_budget_is_a_tenth_but_at_least_a_retry(budget: RetryBudget, retries: int) -> None:
    fleet = Fleet(URL, key="orders", budget=budget)
    assert [fleet.budget.spend(ORIGIN) for _ in range(50)].count(True) == retries
    assert fleet.budget.spend("http://other.example.com", throttled=True)


def test_one_that_was_not_closed_can_be_started_in_another_event_loop(unused_tcp_port: int) -> None:
    fleet = Fleet(f"redis://127.0.0.1:{unused_tcp_port}", key="orders")  # Nobody is there: nothing stays open.

    async def start() -> None:
        await fleet.start()
        with pytest.raises(RuntimeError, match="is running already"):
            await fleet.start()

    async def start_and_close() -> None:
        await fleet.start()
        await fleet.aclose()

    asyncio.run(start())
    asyncio.run(start_and_close())
    asyncio.run(start())
    asyncio.run(fleet.aclose())
    assert repr(fleet) == "<Fleet 'orders', not running>"
