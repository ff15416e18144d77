"""The time that the requests of a shared session have."""

import asyncio
import weakref
from functools import partial

import aiohttp
import pytest

from retrykit import fetch_all, fetch_json
from retrykit.http.sessions import Patience
from retrykit.testing import ScriptedServer, Stall


@pytest.fixture
def server(scripted_server: ScriptedServer) -> ScriptedServer:
    scripted_server.script("/stalls", Stall())
    scripted_server.script("/good", {"good": True})
    return scripted_server


async def read(url: str) -> object:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return await response.json()


async def test_what_comes_in_time(server):
    patience = Patience(30)
    assert await patience.within(read(f"{server.url}/good")) == {"good": True}
    with pytest.raises(aiohttp.InvalidURL):
        await patience.within(read("http://[::"))


async def test_nothing_is_left_of_it_once_it_is_closed(server):
    patience = Patience(30)
    await patience.within(read(f"{server.url}/good"))
    patience.close()
    left = weakref.ref(patience)
    del patience
    assert left() is None


async def test_what_takes_too_long(server):
    with pytest.raises(TimeoutError) as raised:
        await Patience(0.05).within(read(f"{server.url}/stalls"))
    assert isinstance(raised.value.__cause__, asyncio.CancelledError)
    assert asyncio.current_task().cancelling() == 0


async def test_each_has_its_own(server):
    patience, ended = Patience(0.2), []

    async def wait(name: str) -> None:
        with pytest.raises(TimeoutError):
            await patience.within(read(f"{server.url}/stalls"))
        ended.append((name, asyncio.get_running_loop().time()))

    async with asyncio.TaskGroup() as group:
        began = asyncio.get_running_loop().time()
        group.create_task(wait("first"))
        await asyncio.sleep(0.1)
        group.create_task(wait("second"))
        assert await patience.within(read(f"{server.url}/good")) == {"good": True}
    (first, its_end), (second, other_end) = ended
    assert (first, second) == ("first", "second")
    assert its_end - began >= 0.2
    assert other_end - began >= 0.3


async def test_who_is_cancelled_by_others_as_well_is_cancelled():
    async def slow_to_end() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(30)

    task = asyncio.ensure_future(Patience(0.02).within(slow_to_end()))
    while not task.cancelling():
        await asyncio.sleep(0.001)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_ends_well_all_the_same_is_not_cancelled():
    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "all the same"
        raise AssertionError

    assert await Patience(0.02).within(stubborn()) == "all the same"
    assert asyncio.current_task().cancelling() == 0


async def test_an_attempt_of_fetch_all_has_the_time_of_aiohttps_sessions(server, no_waits, monkeypatch):
    monkeypatch.setattr(aiohttp.client, "DEFAULT_TIMEOUT", aiohttp.ClientTimeout(total=0.1))
    urls = [f"{server.url}/stalls", f"{server.url}/good"]
    results = {fetched.item: fetched async for fetched in fetch_all(urls)}
    assert isinstance(results[urls[0]].error, TimeoutError)
    assert results[urls[0]].attempts == 3
    assert results[urls[1]].value == {"good": True}


async def test_a_timeout_of_the_request_takes_its_place(server, monkeypatch):
    monkeypatch.setattr(aiohttp.client, "DEFAULT_TIMEOUT", aiohttp.ClientTimeout(total=0.05))
    fetch = partial(fetch_json, timeout=aiohttp.ClientTimeout(sock_read=0.2), max_retries=1)
    (fetched,) = [fetched async for fetched in fetch_all([f"{server.url}/stalls"], fetch)]
    assert isinstance(fetched.error, aiohttp.SocketTimeoutError)
