"""The pauses that a fleet shares."""

import asyncio
import subprocess
import sys

import pytest

from retrykit import AsyncHTTPClient, GiveUpError, OriginPause, OriginPausedError, retry_http
from retrykit.redis import Fleet
from retrykit.testing import Reply, ScriptedServer, no_waits
from tests.redis.server import ORIGIN, PATIENT, RedisServer, until

PAUSES = "retrykit:{orders}:pauses"
"""A key, and a channel."""


def left(fleet: Fleet, origin: str | None = ORIGIN) -> float:
    """Seconds until the pause ends that a fleet knows of."""
    return fleet.pause.local.left(origin)


async def test_a_pause_holds_the_calls_of_other_processes(
    redis_server: RedisServer, scripted_server: ScriptedServer
) -> None:
    scripted_server.script("/busy", Reply(429, retry_after=30))
    scripted_server.script("/users", {"id": 1})
    async with (
        Fleet(redis_server.url, **PATIENT) as one,
        Fleet(redis_server.url, **PATIENT) as two,
        AsyncHTTPClient(scripted_server.url, pause=one.pause) as client_of_one,
        AsyncHTTPClient(scripted_server.url, pause=two.pause) as client_of_two,
    ):
        with pytest.raises(GiveUpError):
            await client_of_one.get("/busy", max_retries=1)
        await until(lambda: two.pause.hold(scripted_server.url))

        with pytest.raises(OriginPausedError):
            await client_of_two.get("/users", timeout=5)
        with no_waits() as waits:
            assert await client_of_two.get("/users", timeout=None) == {"id": 1}
        assert 25 < waits[0] <= 30 * 1.25
        assert len(scripted_server.requests("/users")) == 1


async def test_decorated_coroutines_share_a_pause_too(
    redis_server: RedisServer, scripted_server: ScriptedServer
) -> None:
    scripted_server.script("/busy", Reply(503, retry_after=30))
    async with Fleet(redis_server.url, **PATIENT) as one, Fleet(redis_server.url, **PATIENT) as two:

        @retry_http(pause=one.pause, max_retries=1)
        async def call() -> None:
            async with AsyncHTTPClient(scripted_server.url, max_retries=1) as client:
                await client.get("/busy")

        with pytest.raises(GiveUpError):
            await call()
        await until(lambda: two.pause.hold(None))
        assert 25 < left(two, None) <= 30
        assert left(two, ORIGIN) == 0


async def test_a_pause_that_runs_is_learnt_at_the_start(redis_server: RedisServer) -> None:
    async with Fleet(redis_server.url, **PATIENT) as one:
        one.pause.begin(ORIGIN, 30)
        one.pause.begin(None, 20)
    async with Fleet(redis_server.url, **PATIENT) as late:
        assert 25 < left(late) <= 30
        assert 15 < left(late, None) <= 20
    async with Fleet(redis_server.url, key="users") as other:
        assert left(other) == 0


async def test_the_longer_pause_counts(redis_server: RedisServer) -> None:
    async with Fleet(redis_server.url, **PATIENT) as one, Fleet(redis_server.url, **PATIENT) as two:
        one.pause.begin(ORIGIN, 20)
        await until(lambda: left(two) > 15)
        two.pause.begin(ORIGIN, 10)
        two.pause.begin(ORIGIN, 40)
        await until(lambda: left(one) > 30)
        two.pause.begin(None, 10)
        await until(lambda: left(one, None))
        assert 35 < left(one) <= 40


async def test_each_process_has_its_own_longest_and_its_own_spread(redis_server: RedisServer) -> None:
    async with (
        Fleet(redis_server.url, **PATIENT) as one,
        Fleet(redis_server.url, **PATIENT, pause=OriginPause(longest=5, spread=0)) as two,
    ):
        one.pause.begin(ORIGIN, 100)
        await until(lambda: left(two))
        assert left(two) <= 5
        hold = two.pause.hold(ORIGIN)
        assert hold is not None
        assert hold.spread == 0


async def test_many_calls_that_are_told_the_same_tell_it_once(redis_server: RedisServer) -> None:
    async with Fleet(redis_server.url, **PATIENT) as one, Fleet(redis_server.url, **PATIENT) as two:
        before = await redis_server.scripts()
        for _ in range(100):
            one.pause.begin(ORIGIN, 30)
            one.pause.hold(ORIGIN)
        await until(lambda: left(two))
        assert await redis_server.scripts() - before == 1
        two.pause.begin(ORIGIN, 29)  # That is not longer.
        two.pause.begin(None, 30)
        await until(lambda: left(one, None))
        assert await redis_server.calls("publish") == 2
        before = await redis_server.scripts()
        one.pause.begin(ORIGIN, 10)  # That is nothing new.
        await asyncio.sleep(0.05)
        assert await redis_server.scripts() == before


async def test_a_pause_is_gone_when_it_has_passed(redis_server: RedisServer) -> None:
    async with Fleet(redis_server.url, **PATIENT) as one, Fleet(redis_server.url, **PATIENT) as two:
        one.pause.begin(None, 30)
        one.pause.begin(ORIGIN, 0.2)
        await until(lambda: left(two))
        await until(lambda: not left(one) and not left(two))
        one.pause.begin("http://other.example.com", 40)
        await until(lambda: left(two, "http://other.example.com"))
        assert await redis_server.client.zrange(PAUSES, 0, -1) == ["", "http://other.example.com"]


async def test_a_bounded_number_of_pauses_is_kept(redis_server: RedisServer) -> None:
    async with Fleet(redis_server.url, **PATIENT) as one, Fleet(redis_server.url, **PATIENT) as two:
        for number in range(2000):
            one.pause.begin(f"http://{number}.example.com", 30)
            two.pause.begin(f"http://{number}.example.org", 40)
    assert await redis_server.client.zcard(PAUSES) == 1024
    assert not await redis_server.client.zscore(PAUSES, "http://1999.example.com")  # It would have passed first.
    assert await redis_server.client.zscore(PAUSES, "http://1999.example.org")


async def test_a_message_that_makes_no_sense_is_passed_over(redis_server: RedisServer) -> None:
    messages = ["", f"soon {ORIGIN}", "1e400", f"{'9' * 400} {ORIGIN}", b"\xff\xfe", f"-5 {ORIGIN}"]
    messages.append(f"30000 {ORIGIN}\nforged")
    async with Fleet(redis_server.url, **PATIENT) as fleet:
        for message in messages:
            await redis_server.client.publish(PAUSES, message)
        await redis_server.client.publish(PAUSES, "30000 ")
        await until(lambda: left(fleet, None))
        assert repr(fleet.pause.local) == "<OriginPause: 1 paused>"


async def test_pauses_are_learnt_after_the_connection_was_lost(redis_server: RedisServer) -> None:
    async with (
        Fleet(redis_server.url, **PATIENT, cool_down=0.3) as one,
        Fleet(redis_server.url, **PATIENT, cool_down=0.05) as two,
    ):
        await redis_server.client.client_kill_filter(_type="pubsub")
        await until_subscribed(redis_server, 1)
        two.pause.begin(ORIGIN, 30)
        await until(lambda: left(one))
        assert 25 < left(one) <= 30


async def until_subscribed(redis_server: RedisServer, number: int) -> None:
    async with asyncio.timeout(20):
        while dict(await redis_server.client.pubsub_numsub(PAUSES))[PAUSES] < number:
            await asyncio.sleep(0.005)


async def test_a_pause_begun_while_the_store_is_away_holds_at_once_and_is_told_later(
    redis_server: RedisServer,
) -> None:
    async with Fleet(redis_server.url, **PATIENT, cool_down=0.1) as one:
        await redis_server.stop()
        one.pause.begin(ORIGIN, 30)
        assert 25 < left(one) <= 30
        one.pause.begin(None, 0.05)
        await asyncio.sleep(0.2)
        await redis_server.start()
        async with asyncio.timeout(20):
            while await redis_server.client.zrange(PAUSES, 0, -1) != [ORIGIN]:
                await asyncio.sleep(0.01)


PROCESS = """
import asyncio, sys
from retrykit.redis import Fleet

async def main(store):
    async with Fleet(store, key="orders") as fleet:
        print("listening", flush=True)
        while not fleet.pause.hold("http://api.example.com"):
            await asyncio.sleep(0.01)
        print(fleet.pause.local.left("http://api.example.com"))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_pause_reaches_another_process(redis_server: RedisServer) -> None:
    command = [sys.executable, "-W", "error", "-c", PROCESS, redis_server.url]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    async with Fleet(redis_server.url, **PATIENT) as fleet:
        assert await process.stdout.readline() == b"listening\n"
        fleet.pause.begin(ORIGIN, 30)
        output, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0
    assert 20 < float(output) <= 30
