"""ScriptedServer: what its scripts can say."""

import asyncio
import contextlib
import io
import socket
from datetime import timedelta

import aiohttp
import pytest
import yarl

from retrykit import stream
from retrykit.testing import (
    Disconnect,
    Raw,
    ReceivedRequest,
    Reply,
    Reset,
    Resumable,
    ScriptedServer,
    Stall,
    Truncated,
    server,
)
from tests.faults import SOON

REQUEST = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\n"
CUT = HEAD + b"Content-Length: 100\r\n\r\n01234"


class Large(bytes):
    """More than the buffers of two sockets hold, and short in the name of a test."""

    def __repr__(self):
        return "LARGE"


LARGE = Large(20_000_000)


class Client(asyncio.Protocol):
    """Keeps what came before a reset; a StreamReader would forget it."""

    def __init__(self, lost):
        self.received = b""
        self.lost = lost

    def data_received(self, data):
        self.received += data

    def connection_lost(self, error):
        self.lost.set_result(error)


async def connected(running, step):
    """Send a request by hand, and have the server at its answer."""
    running.script("/x", step)
    url = yarl.URL(running.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(REQUEST)
    async with asyncio.timeout(SOON):
        while not running.requests():
            await asyncio.sleep(0.005)
    return reader, writer


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


async def test_a_request_shows_no_secrets(session, scripted_server):
    await session.post(
        f"{scripted_server.url}/x?key=secret",
        data="secret",
        headers={"Authorization": "secret"},
        cookies={"a": "secret"},
    )
    (request,) = scripted_server.requests()
    assert repr(request) == "ReceivedRequest(method='POST', path='/x')"


async def test_bodies_may_be_large(session, scripted_server):
    scripted_server.script("/x", 200)
    await session.put(f"{scripted_server.url}/x", data=io.BytesIO(b"x" * 5_000_000))
    assert len(scripted_server.requests()[0].body) == 5_000_000


@pytest.mark.parametrize(("given", "sent"), [(7, "7"), (0.5, "0.5"), ("Sun, 06 Nov 1994 08:49:37 GMT",) * 2])
async def test_retry_after(session, scripted_server, given, sent):
    scripted_server.script("/x", Reply(429, retry_after=given))
    assert (await session.get(f"{scripted_server.url}/x")).headers["Retry-After"] == sent


@pytest.mark.parametrize("delay", [30, timedelta(seconds=30)])
async def test_a_delay_is_real(session, scripted_server, delay):
    scripted_server.script("/x", Reply(delay=delay))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await session.get(f"{scripted_server.url}/x")


@pytest.mark.parametrize("delay", [30, timedelta(seconds=30)])
async def test_a_body_may_come_later_than_its_headers(session, scripted_server, delay):
    scripted_server.script("/x", Reply(201, {"id": 1}, {"X-Key": "1"}, retry_after=7, body_delay=delay))
    async with asyncio.timeout(SOON):
        response = await session.get(f"{scripted_server.url}/x")
    assert (response.status, response.content_length) == (201, 9)
    assert (response.headers["X-Key"], response.headers["Retry-After"]) == ("1", "7")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await response.content.readany()


async def test_a_body_that_comes_later_comes_whole(session, scripted_server):
    scripted_server.script("/x", Reply(body={"id": 1}, body_delay=0.01))
    for _ in range(2):
        async with session.get(f"{scripted_server.url}/x") as response:
            assert await response.json() == {"id": 1}
    assert scripted_server.connections == 1


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


TAG = '"v1"'


@pytest.mark.parametrize(
    ("asked", "status", "body", "content_range"),
    [
        ({}, 200, b"0123456789", None),
        ({"Range": "bytes=4-"}, 206, b"456789", "bytes 4-9/10"),
        ({"Range": "bytes=4-6"}, 206, b"456", "bytes 4-6/10"),
        ({"Range": "bytes=4-60"}, 206, b"456789", "bytes 4-9/10"),
        ({"Range": "bytes=-3"}, 206, b"789", "bytes 7-9/10"),
        ({"Range": "bytes=4-", "If-Range": TAG}, 206, b"456789", "bytes 4-9/10"),
        ({"Range": "bytes=4-", "If-Range": '"old"'}, 200, b"0123456789", None),
        ({"Range": "lines=4-"}, 200, b"0123456789", None),
        ({"Range": "bytes=10-"}, 416, b"", "bytes */10"),
    ],
)
async def test_a_body_that_can_be_gone_on_with(session, scripted_server, asked, status, body, content_range):
    scripted_server.script("/x", Resumable("0123456789", etag=TAG, headers={"X-Key": "1"}))
    async with session.get(f"{scripted_server.url}/x", headers=asked) as response:
        assert (response.status, response.headers.get("Content-Range")) == (status, content_range)
        assert await response.read() == body
        assert status == 416 or (response.headers["ETag"], response.headers["X-Key"]) == (TAG, "1")


async def test_another_body_has_another_etag(session, scripted_server):
    scripted_server.script("/x", Resumable(b"one"), Resumable(b"two"), Resumable(b"one"))
    tags = []
    for _ in range(3):
        async with session.get(f"{scripted_server.url}/x") as response:
            tags.append(response.headers["ETag"])
    assert tags[0] == tags[2] != tags[1]


async def test_a_body_that_breaks_off_and_is_resumed(scripted_server, no_waits):
    scripted_server.script(
        "/x", Resumable(b"0123456789", sent=4), Resumable(b"0123456789", sent=0), Resumable(b"0123456789")
    )
    async with stream(f"{scripted_server.url}/x") as body:
        assert await body.read() == b"0123456789"
    assert [request.headers.get("Range") for request in scripted_server.requests()] == [None, "bytes=4-", "bytes=4-"]
    assert no_waits == [1.0, 2.0]


@pytest.mark.parametrize("data", [b"", b"SMTP/9.9 what?\r\n\r\n", b"HTTP/1.1 20", CUT, LARGE], ids=repr)
async def test_bytes_are_sent_as_they_are(scripted_server, data):
    reader, writer = await connected(scripted_server, Raw(data))
    async with asyncio.timeout(SOON):
        assert await reader.read() == data
    writer.close()


@pytest.mark.parametrize("data", [b"", CUT], ids=repr)
async def test_after_them_the_connection_may_be_reset(scripted_server, data):
    scripted_server.script("/x", Raw(data, after="reset"))
    url = yarl.URL(scripted_server.url)
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_connection(lambda: Client(loop.create_future()), url.host, url.port)
    transport.write(REQUEST)
    async with asyncio.timeout(SOON):
        assert isinstance(await client.lost, ConnectionResetError)
    assert client.received == data


@pytest.mark.parametrize(
    ("step", "data"), [(Raw(CUT, after="stall"), CUT), (Raw(LARGE, after="stall"), LARGE), (Stall(), b"")], ids=repr
)
async def test_an_answer_may_stall(scripted_server, step, data):
    reader, writer = await connected(scripted_server, step)
    async with asyncio.timeout(SOON):
        assert await reader.readexactly(len(data)) == data
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await reader.read(1)
    writer.close()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"SMTP/9.9 what?\r\n\r\n", aiohttp.ClientResponseError),
        (b"HTTP/1.1 20", aiohttp.ServerDisconnectedError),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n", (aiohttp.ClientResponseError, aiohttp.ClientPayloadError)),
        (HEAD + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", aiohttp.ClientPayloadError),
        (CUT, aiohttp.ClientPayloadError),
    ],
)
async def test_what_a_client_makes_of_raw_answers(session, scripted_server, data, error):
    scripted_server.script("/x", Raw(data))
    with pytest.raises(error):
        async with session.post(f"{scripted_server.url}/x") as response:
            await response.read()


async def test_a_client_can_read_what_came_before_a_reset(monkeypatch, session, scripted_server):
    monkeypatch.setattr(server, "_BEFORE_RESET", 0.2)
    scripted_server.script("/x", Raw(CUT, after="reset"))
    async with session.get(f"{scripted_server.url}/x") as response:
        await asyncio.sleep(0.01)
        assert (response.status, await response.content.readany()) == (200, b"01234")
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.readany()


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


UNDER_WAY = [
    Stall(),
    Raw(CUT, after="stall"),
    Raw(LARGE, after="stall"),
    Truncated(LARGE),
    Reply(body=LARGE),
    Reply(delay=30),
    Reply(body="late", body_delay=30),
    Reply(),
]
"""What ends only with the connection, where the client doesn't read."""


@pytest.mark.parametrize("step", UNDER_WAY, ids=repr)
async def test_what_is_under_way_ends_when_the_client_goes(scripted_server, caplog, step):
    before = asyncio.all_tasks()
    _, writer = await connected(scripted_server, step)
    assert asyncio.all_tasks() > before
    writer.transport.abort()
    async with asyncio.timeout(SOON):
        while asyncio.all_tasks() != before:
            await asyncio.sleep(0.005)
    assert caplog.records == []


@pytest.mark.parametrize("step", [*UNDER_WAY, Raw(LARGE)], ids=repr)
async def test_what_is_under_way_ends_when_the_server_stops(caplog, step):
    before = asyncio.all_tasks()
    async with asyncio.timeout(SOON):
        async with ScriptedServer() as running:
            reader, writer = await connected(running, step)
        assert asyncio.all_tasks() == before
        with contextlib.suppress(ConnectionError):
            while await reader.read(2**20):
                pass
    assert caplog.records == []
    writer.close()


@pytest.mark.parametrize("turns", range(6))
async def test_the_client_may_go_while_the_server_stops(caplog, turns):
    before = asyncio.all_tasks()
    async with asyncio.timeout(SOON), ScriptedServer() as running:
        _, writer = await connected(running, Stall())
        writer.transport.abort()
        for _ in range(turns):  # In one of them, the connection is lost, and its answer not over yet.
            await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert caplog.records == []


async def test_a_connection_that_was_just_accepted_ends_when_the_server_stops():
    async with asyncio.timeout(SOON), ScriptedServer() as running:
        url = yarl.URL(running.url)
        client = socket.create_connection((url.host, url.port))
        for _ in range(3):  # It is accepted in the first turn of the loop, and the server gets it in the third.
            await asyncio.sleep(0)
    client.setblocking(False)
    async with asyncio.timeout(SOON):
        assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
    client.close()


async def test_it_has_no_address_before_it_runs():
    with pytest.raises(RuntimeError, match="the server is not running; write `async with"):
        ScriptedServer().url  # noqa: B018


async def test_stopping_ends_what_is_under_way(session):
    async with ScriptedServer() as running:
        running.script("/x", Reply(delay=30))
        task = asyncio.create_task(session.post(f"{running.url}/x"))
        while not running.requests():
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
        (("/x", Stall), TypeError, r"is no step of a script; .* Raw\(\.\.\.\), Disconnect\(\), Reset\(\) or Stall\(\)"),
        (("/x", 99), ValueError, r"99 is no HTTP status; write one from 100 to 599"),
    ],
)
async def test_scripts_that_make_no_sense_are_refused(scripted_server, script, error, message):
    with pytest.raises(error, match=message):
        scripted_server.script(*script)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Raw("text"), TypeError, r"^'text' is not bytes, and Raw sends bytes as they are; write Raw\(b'...'\)"),
        (lambda: Raw(b"", after="end"), ValueError, r"after='end' is unknown; write one of 'close', 'reset', 'stall'"),
        (lambda: Raw(b"", after=None), ValueError, r"after=None is unknown"),
        (lambda: Reply(delay=-1), ValueError, r"^delay=-1 is no time to wait; write a finite number of seconds, 0 or"),
        (lambda: Reply(delay="1"), TypeError, r"^delay='1' is no time; write seconds as a number, such as delay=2.5"),
        (lambda: Reply(body_delay=float("inf")), ValueError, r"^body_delay=inf is no time to wait"),
        (lambda: Reply(body_delay=None), TypeError, r"^body_delay=None is no time; write seconds"),
    ],
)
def test_steps_that_make_no_sense_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


async def test_it_shows_where_it_listens():
    server = ScriptedServer()
    assert repr(server) == "<ScriptedServer that is not running>"
    async with server:
        assert repr(server) == f"<ScriptedServer {server.url}>"
    assert repr(server) == "<ScriptedServer that is not running>"
    with pytest.raises(RuntimeError, match="the server is not running; write `async with"):
        _ = server.url
