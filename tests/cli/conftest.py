"""Real servers beside the command, which has an event loop of its own: theirs runs in a thread."""

import asyncio
import signal
import socket
import threading

import pytest

from retrykit.testing import ScriptedServer


@pytest.fixture
def elsewhere():
    """Runs a coroutine in the event loop of the servers, and gives its result."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def server(elsewhere):
    """A running `ScriptedServer`."""
    server = ScriptedServer()
    elsewhere(server.__aenter__())
    yield server
    elsewhere(server.__aexit__(None, None, None))


@pytest.fixture
def listen(elsewhere):
    """Starts a server that hands reader and writer of each connection to a coroutine function; gives its address."""
    servers = []

    def listen(handler, **options):
        started = elsewhere(asyncio.start_server(handler, "127.0.0.1", 0, **options))
        servers.append(started)
        return "{}:{}".format(*started.sockets[0].getsockname())

    yield listen

    async def close():
        for started in servers:
            started.close()

    elsewhere(close())


@pytest.fixture
def unused_address():
    """A host and port at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return "{}:{}".format(*free.getsockname())


@pytest.fixture
def heeds_ctrl_c():
    """What a shell starts in the background ignores Ctrl-C, and so does all that it starts; SIGTERM is given back."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler), signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGTERM, before[1])
