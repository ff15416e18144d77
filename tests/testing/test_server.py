"""ScriptedServer: what its scripts can say."""

import asyncio
import io

import aiohttp
import pytest

from retrykit.testing import Disconnect, ReceivedRequest, Reply, Reset, ScriptedServer, Truncated


@pytest.fixture
async def session():
    async with aiohttp.ClientSession() as session:
        yield session


async def test_steps_are_played_in_order_and_the_last_one_stays(session, scripted_server):
    scripted_server.script("/x", 503, {"id": 1}, ["a"], "text", b"bytes", Reply(201, "made", {"X-Key": "1"}))
    seen = []
    for _ in range(7):
        async with session.get(f"{scripted_server.url}/x") as response:
            seen.append((response.status, await response.read(), response.content_type))
    made = (201, b"made", "text/plain")
    assert seen == [
        (503, b"", "application/octet-stream"),
        (200, b'{"id": 1}', "application/json"),
        (200, b'["a"]', "application/json"),
        (200, b"text", "text/plain"),
        (200, b"bytes", "application/octet-stream"),
        made,
        made,
    ]
    assert response.headers["X-Key"] == "1"


async def test_scripts_can_be_for_one_method(session, scripted_server):
    scripted_server.script("/x", 200)
    scripted_server.script("/x", 201, method="post")
    assert (await session.get(f"{scripted_server.url}/x")).status == 200
    assert (await session.post(f"{scripted_server.url}/x")).status == 201


async def test_a_new_script_takes_the_place_of_the_old(session, scripted_server):
    scripted_server.script("/x", 200)
    scripted_server.script("/x", 404)
    assert (await session.get(f"{scripted_server.url}/x")).status == 404


async def test_what_has_no_script_is_not_found(session, scripted_server):
    response = await session.put(f"{scripted_server.url}/x")
    assert (response.status, await response.text()) == (404, "no script for PUT /x")


async def test_requests_are_kept(session, scripted_server):
    scripted_server.script("/a", 200)
    await session.post(f"{scripted_server.url}/a?q=1", json={"x": 1}, headers={"X-Key": "2"})
    await session.get(f"{scripted_server.url}/b")
    (request,) = scripted_server.requests("/a")
    assert isinstance(request, ReceivedRequest)
    assert (request.method, request.path, request.query["q"], request.headers["X-Key"]) == ("POST", "/a", "1", "2")
    assert (request.body, request.json()) == (b'{"x": 1}', {"x": 1})
    assert [request.path for request in scripted_server.requests()] == ["/a", "/b"]


async def test_bodies_may_be_large(session, scripted_server):
    scripted_server.script("/x", 200)
    await session.put(f"{scripted_server.url}/x", data=io.BytesIO(b"x" * 5_000_000))
    assert len(scripted_server.requests()[0].body) == 5_000_000


@pytest.mark.parametrize(("given", "sent"), [(7, "7"), (0.5, "0.5"), ("Sun, 06 Nov 1994 08:49:37 GMT",) * 2])
async def test_retry_after(session, scripted_server, given, sent):
    scripted_server.script("/x", Reply(429, retry_after=given))
    assert (await session.get(f"{scripted_server.url}/x")).headers["Retry-After"] == sent


async def test_a_delay_is_real(session, scripted_server):
    scripted_server.script("/x", Reply(delay=30))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await session.get(f"{scripted_server.url}/x")


@pytest.mark.parametrize(
    ("fault", "error"), [(Reset(), aiohttp.ClientOSError), (Disconnect(), aiohttp.ServerDisconnectedError)], ids=str
)
async def test_connections_that_break(session, scripted_server, fault, error):
    scripted_server.script("/x", fault)
    with pytest.raises(error):
        await session.post(f"{scripted_server.url}/x")


@pytest.mark.parametrize(("sent", "arrives"), [(None, b'{"id"'), (3, b'{"i'), (0, b"")])
async def test_a_body_that_breaks_off(session, scripted_server, sent, arrives):
    scripted_server.script("/x", Truncated({"id": 12}, sent=sent, headers={"X-Key": "1"}))
    got = b""
    async with session.get(f"{scripted_server.url}/x") as response:
        assert (response.headers["X-Key"], response.content_length) == ("1", 10)
        with pytest.raises(aiohttp.ClientPayloadError):
            async for chunk in response.content.iter_any():
                got += chunk
    assert got == arrives


async def test_connections_are_counted(session, scripted_server):
    scripted_server.script("/x", 200, Disconnect())
    await (await session.get(f"{scripted_server.url}/x")).read()
    assert scripted_server.connections == 1
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await session.post(f"{scripted_server.url}/x")
    await asyncio.sleep(0)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await session.post(f"{scripted_server.url}/x")
    assert scripted_server.connections == 2


async def test_it_has_no_address_before_it_runs():
    with pytest.raises(RuntimeError, match="the server is not running; write `async with"):
        ScriptedServer().url  # noqa: B018


async def test_stopping_ends_what_is_under_way(session):
    async with ScriptedServer() as server:
        server.script("/x", Reply(delay=30))
        task = asyncio.create_task(session.post(f"{server.url}/x"))
        while not server.requests():
            await asyncio.sleep(0.01)
    with pytest.raises(aiohttp.ClientError):
        await task


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        (("x", 200), ValueError, r"'x' is no path; write it from the slash on"),
        (("/x?q=1", 200), ValueError, r"without query"),
        (("/x",), ValueError, r"the script of /x has no steps; write at least one, such as 200"),
        (("/x", None), TypeError, r"None is no step of a script; write a status, a body"),
        (("/x", True), TypeError, r"True is no step"),
        (("/x", Reset), TypeError, r"is no step"),
        (("/x", 99), ValueError, r"99 is no HTTP status; write one from 100 to 599"),
    ],
)
async def test_scripts_that_make_no_sense_are_refused(scripted_server, script, error, message):
    with pytest.raises(error, match=message):
        scripted_server.script(*script)
