"""A real redis-server for tests, and what they ask of a fleet."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as NotThereError

from retrykit.redis import Fleet

NEEDED = "redis-server is not installed; install it (Debian, Ubuntu: apt-get install redis-server)"


def can_be_skipped() -> bool:
    """May the tests that need a server be skipped? Not where there is one, nor where there has to be one."""
    return shutil.which("redis-server") is None and not os.environ.get("RETRYKIT_REQUIRE_REDIS")


def find_redis_server() -> str:
    """Where it is, if there is one."""
    program = shutil.which("redis-server")
    if program is None:
        (pytest.skip if can_be_skipped() else pytest.fail)(NEEDED)
    return program


class RedisServer:
    """It can be stopped, started again with nothing in it, and frozen."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._command = [find_redis_server(), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(folder)]
        self._command += ["--save", "", "--appendonly", "no", *options]
        self._process: asyncio.subprocess.Process | None = None
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = Redis.from_url(self.url, decode_responses=True)
        """The test's own."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()
        if self._process is not None:
            await self.stop()

    async def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(*self._command, stdout=log, stderr=log)
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(NotThereError):
                    await self.client.ping()
                    return
                assert self._process.returncode is None, (self._folder / "log").read_text()
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """At once, and with all that was in it."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()
        self._process = None
        await self.client.connection_pool.disconnect()

    def freeze(self) -> None:
        """It takes connections, and what is sent, but answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def calls(self, command: str) -> int:
        """How often it was sent a command since it started, by anyone."""
        stats: Any = await self.client.info("commandstats")
        return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])

    async def scripts(self) -> int:
        """How many scripts were run."""
        return await self.calls("evalsha") + await self.calls("eval")

    async def connections(self) -> int:
        """Those of others."""
        return len(await self.client.client_list()) - 1


class SlowWay:
    """A way to a server on which answers take so many seconds, as `delay` says, more."""

    def __init__(self, port: int) -> None:
        self._port, self.delay = port, 0.0
        self._pumps: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._pumps.add(asyncio.create_task(self._pump(reader, server_writer, lambda: 0.0)))
        self._pumps.add(asyncio.create_task(self._pump(server_reader, writer, lambda: self.delay)))

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, delay: Callable[[], float]
    ) -> None:
        try:
            while data := await source.read(2**16):
                await asyncio.sleep(delay())
                target.write(data)
        except ConnectionError:
            pass
        finally:
            target.close()


async def until(is_so: Callable[[], object]) -> None:
    """Wait until something has come about."""
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0.005)


ORIGIN = "http://api.example.com"
PATIENT: dict[str, Any] = {"key": "orders", "timeout": 5}
"""Of a fleet that waits for the store, however busy this machine is."""


async def spend(fleet: Fleet, origin: str | None = ORIGIN, *, throttled: bool = False) -> bool:
    answer = fleet.budget.spend(origin, throttled=throttled)
    return answer if isinstance(answer, bool) else await answer


async def granted(*fleets: Fleet, times: int) -> int:
    """Of so many questions by each fleet, all at once, how many were granted."""
    return sum(await asyncio.gather(*(spend(fleet) for _ in range(times) for fleet in fleets)))


def levels(log: pytest.LogCaptureFixture) -> list[str]:
    """Of what fleets have said."""
    return [record.levelname for record in log.records if record.getMessage().startswith("fleet ")]
