"""What all tests share."""

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from unittest.mock import Mock

import aiohttp
import aioresponses.core
import pytest

import retrykit
from retrykit.core.listeners import get_listeners
from tests.faults import FaultServer

pytest_plugins = ["retrykit.testing.plugin"]


class _BridgedResponse(aiohttp.ClientResponse):
    """aioresponses 0.7.9 makes responses without the `stream_writer` that aiohttp wants from 3.14 on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, stream_writer=Mock(output_size=0), **kwargs)


@pytest.fixture(autouse=True)
def _bridge_aioresponses(monkeypatch: pytest.MonkeyPatch) -> None:
    if "stream_writer" in inspect.signature(aiohttp.ClientResponse.__init__).parameters:
        monkeypatch.setattr(aioresponses.core, "ClientResponse", _BridgedResponse)


@pytest.fixture(autouse=True)
def _give_back_the_listeners() -> Iterator[None]:
    before = get_listeners()
    yield
    retrykit.set_listeners(*before)


@pytest.fixture
def events() -> list[retrykit.RetryEvent | retrykit.GiveUpEvent]:
    """All events from now on."""
    told: list[retrykit.RetryEvent | retrykit.GiveUpEvent] = []
    retrykit.set_listeners(told.append)
    return told


@pytest.fixture
async def faults() -> AsyncIterator[FaultServer]:
    """A running `FaultServer`."""
    async with FaultServer() as server:
        yield server


@pytest.fixture
async def stalling() -> AsyncIterator[Callable[[bytes], Awaitable[tuple[str, list[asyncio.StreamWriter]]]]]:
    """Starts a server whose every answer stops in the middle: its URL, and the connections that have got an answer."""
    servers: list[asyncio.Server] = []
    writers: list[asyncio.StreamWriter] = []

    async def start(answer: bytes) -> tuple[str, list[asyncio.StreamWriter]]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writers.append(writer)
            writer.write(answer)

        servers.append(await asyncio.start_server(serve, "127.0.0.1", 0))
        host, port = servers[-1].sockets[0].getsockname()
        return f"http://{host}:{port}/", writers

    yield start
    for server in servers:
        server.close()
    for writer in writers:
        writer.close()
    for server in servers:
        await server.wait_closed()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The records of the logger `retrykit`."""
    caplog.set_level(logging.INFO, "retrykit")
    return caplog
