"""A server of limited capacity, in a process of its own.

    python -m benchmarks.outage.server SCENARIO

takes a `Scenario` as JSON, prints its port, and ends with its standard input. `GET /start` has its time begin, and
`GET /tally` tells what it has received since then; every other GET is a request like any other.

It works off one request after the other, each in the same time, and keeps some waiting. One that finds the queue full
is answered with 503 at once, and so is every one in an outage. Whether a client is still there it only sees when it
answers: the work was done by then.
"""

import asyncio
import contextlib
import json
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator
from dataclasses import asdict
from random import Random
from typing import Any

from benchmarks.outage.scenarios import WINDOW, Scenario, Span
from benchmarks.process import process_with_port
from benchmarks.server import serve


def _answer(status: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(body)) + body


_OK = _answer(b"200 OK", b'{"id": 123}')
_UNAVAILABLE = _answer(b"503 Service Unavailable", b'{"error": "busy"}')


class _Server:
    """What it does with a request."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._down = scenario.outage or Span(0, 0)
        self._chance = Random(1)  # noqa: S311 - it only has to be the same every time.
        self._step = 1 / scenario.capacity
        self._loop = asyncio.get_running_loop()
        self._queue: deque[asyncio.Transport] = deque()
        self._done = 0.0
        """When the request at the head of the queue is worked off."""
        self._begun = self._loop.time()
        self._received = Counter[int]()
        self._abandoned = 0

    def get(self, path: bytes, client: asyncio.Transport) -> None:
        """Answer a GET, now or later."""
        match path:
            case b"/start":
                self._begun = self._loop.time()
                self._received.clear()
                client.write(_OK)
            case b"/tally":
                client.write(_answer(b"200 OK", json.dumps(self._tally()).encode()))
            case _:
                self._receive(client)

    def _tally(self) -> dict[str, Any]:
        windows = round(self._scenario.duration / WINDOW)
        return {"received": [self._received[window] for window in range(windows)], "abandoned": self._abandoned}

    def _receive(self, client: asyncio.Transport) -> None:
        now = self._loop.time()
        elapsed = now - self._begun
        self._received[int(elapsed / WINDOW)] += 1
        fails = self._chance.random() < self._scenario.failure_rate
        if fails or self._down.start <= elapsed < self._down.end or len(self._queue) >= self._scenario.queue:
            client.write(_UNAVAILABLE)
            return
        self._queue.append(client)
        if len(self._queue) == 1:
            self._done = now + self._step
            self._loop.call_at(self._done, self._work)

    def _work(self) -> None:
        """Finish what is done by now. A timer that comes late makes nothing later but that."""
        now = self._loop.time()
        while self._queue and self._done <= now:
            client = self._queue.popleft()
            if client.is_closing():
                self._abandoned += 1
            else:
                client.write(_OK)
            self._done += self._step
        if self._queue:
            self._loop.call_at(self._done, self._work)


async def _serve(scenario: Scenario) -> None:
    await serve(_Server(scenario).get)


@contextlib.asynccontextmanager
async def serving(scenario: Scenario) -> AsyncIterator[str]:
    """A running server: its URL."""
    async with process_with_port("-m", "benchmarks.outage.server", json.dumps(asdict(scenario))) as port:
        yield f"http://127.0.0.1:{port}"


def _read(text: str) -> Scenario:
    read = json.loads(text)
    spans = {name: Span(*read[name]) for name in ("outage", "overload") if read[name] is not None}
    return Scenario(**{**read, **spans})


if __name__ == "__main__":
    asyncio.run(_serve(_read(sys.argv[1])))
