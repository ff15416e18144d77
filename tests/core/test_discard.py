"""Responses nobody will read: drained or closed before the wait, and their connections with them."""

import asyncio
import contextlib

import aiohttp
import pytest

from retrykit import GiveUpError, retry_http
from retrykit.core.discard import MOST_BYTES, drain
from retrykit.testing import Reply


@pytest.fixture
async def session():
    async with aiohttp.ClientSession() as session:
        yield session


@contextlib.asynccontextmanager
async def raw_server(*chunks, then_close=False):
    """A server that answers every request with these bytes, with a pause between them."""
    writers = []

    async def serve(reader, writer):
        writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                for chunk in chunks:
                    writer.write(chunk)
                    await writer.drain()
                    await asyncio.sleep(0.01)
                if then_close:
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", writers
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


def head(length):
    return b"HTTP/1.1 503 Busy\r\nContent-Length: %d\r\n\r\n" % length


@pytest.mark.parametrize("body", ["", "a small page", "x" * 60_000], ids=len)
async def test_small_bodies_leave_the_connection_for_the_next_attempt(session, scripted_server, no_waits, body):
    scripted_server.script("/flaky", Reply(503, body), Reply(503, body), 200)
    response = await retry_http()(session.get)(scripted_server.url + "/flaky")
    assert response.status == 200
    assert scripted_server.connections == 1


async def test_a_body_that_comes_after_the_headers_is_waited_for(session):
    async with raw_server(head(4), b"busy") as (url, writers):
        with pytest.raises(GiveUpError) as raised:
            await retry_http(base_delay=0)(session.get)(url)
        assert raised.value.body == b"busy"
        assert len(writers) == 1


async def test_a_large_body_is_not_read(session, scripted_server, no_waits):
    scripted_server.script("/flaky", Reply(503, b"x" * 5_000_000))
    with pytest.raises(GiveUpError) as raised:
        await retry_http()(session.get)(scripted_server.url + "/flaky")
    assert raised.value.body == b"x" * MOST_BYTES
    assert scripted_server.connections == 3


async def test_of_one_that_has_come_already_no_more_is_kept(session):
    async with raw_server(head(MOST_BYTES + 1000) + b"x" * (MOST_BYTES + 1000)) as (url, _):
        response = await session.get(url)
        async with asyncio.timeout(5):
            while not response.content.is_eof():
                await asyncio.sleep(0.001)
        assert await drain(response) == b"x" * MOST_BYTES


async def test_a_body_that_never_ends_does_not_hold_the_call_up(session):
    async with raw_server(head(100), b"drip") as (url, writers):
        with pytest.raises(GiveUpError) as raised:
            await retry_http(max_retries=2, base_delay=0)(session.get)(url)
        assert raised.value.body == b"drip"
        assert len(writers) == 2


async def test_a_body_that_breaks_off_gives_what_came(session):
    async with raw_server(head(100), b"only this", then_close=True) as (url, _):
        with pytest.raises(GiveUpError) as raised:
            await retry_http(max_retries=1)(session.get)(url)
        assert raised.value.body == b"only this"


async def test_a_pool_of_one_connection_never_deadlocks(scripted_server, no_waits):
    scripted_server.script("/flaky", Reply(503, b"x" * 1_000_000), Reply(503, "busy"), 200)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        response = await retry_http()(session.get)(scripted_server.url + "/flaky")
        assert response.status == 200


async def test_what_the_caller_has_read_is_the_body(session, scripted_server, no_waits):
    scripted_server.script("/down", Reply(503, "busy"))

    @retry_http(max_retries=2)
    async def read_and_return():
        response = await session.get(scripted_server.url + "/down")
        await response.read()
        return response

    with pytest.raises(GiveUpError) as raised:
        await read_and_return()
    assert raised.value.body == b"busy"


async def test_a_response_that_the_caller_released_has_no_body(session, scripted_server, no_waits):
    scripted_server.script("/down", Reply(503, "busy"))

    @retry_http(max_retries=2)
    async def released():
        async with session.get(scripted_server.url + "/down") as response:
            return response

    with pytest.raises(GiveUpError) as raised:
        await released()
    assert raised.value.body == b""


async def test_cancellation_closes_the_response(session):
    async with raw_server(head(100), b"drip") as (url, _):
        response = await session.get(url)
        task = asyncio.create_task(drain(response))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert response.closed
        assert not session.connector._acquired
        assert not session.connector._conns


async def test_draining_ends_with_the_call(session):
    async with raw_server(head(100), *[b"."] * 50) as (url, _):
        response = await session.get(url)
        assert len(await drain(response, seconds=0.0)) < 5
        assert response.closed
