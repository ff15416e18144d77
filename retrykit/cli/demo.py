"""`python -m retrykit demo`: what retries do to calls of a server that misbehaves."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from retrykit.cli.console import Output
from retrykit.cli.listening import listening, outcome
from retrykit.core import clock
from retrykit.core.decorator import retry_http
from retrykit.core.events import RetryEvent, from_now
from retrykit.core.policy import RetryPolicy
from retrykit.http.client import AsyncHTTPClient
from retrykit.testing import Reply, Reset, ScriptedServer, Step, Truncated

# Short waits, since somebody is watching.
_POLICY = RetryPolicy(base_delay=0.2, attempt_timeout=1.0)


@dataclass(frozen=True, slots=True)
class _Call:
    method: str
    path: str
    faults: tuple[Step, ...]
    """What the server does before it answers."""
    headers: Mapping[str, str] = field(default_factory=dict)


_ANSWER = Reply(body={"id": 123})
_TOO_SLOW = Reply(delay=2.0)
_DECORATED = (
    _Call("GET", "/users/123", (503, 503)),
    _Call("GET", "/report", (_TOO_SLOW,)),
    _Call("GET", "/feed", (Truncated({"items": [1, 2, 3]}),)),
)
_CLIENT = (
    _Call("GET", "/search", (Reply(429, retry_after=1),)),
    _Call("POST", "/orders", (503,)),
    # A POST, because aiohttp itself repeats a GET whose connection broke, and there would be nothing to see.
    _Call("POST", "/payments", (Reset(),), {"Idempotency-Key": "6f2c"}),
)
_Send = Callable[[_Call], Awaitable[Any]]


def run(policy: RetryPolicy = _POLICY) -> int:
    """Show it.

    Args:
        policy: What the calls are retried under. Its `attempt_timeout` bounds the calls without retries, too.

    Returns:
        The exit code: 0 where every call was saved.
    """
    return asyncio.run(_demonstrate(Output(), policy))


async def _demonstrate(console: Console, policy: RetryPolicy) -> int:
    patience = aiohttp.ClientTimeout(total=policy.attempt_timeout)
    async with (
        ScriptedServer() as server,
        aiohttp.ClientSession(server.url, timeout=patience) as session,
        AsyncHTTPClient(server.url, policy=policy) as client,
    ):
        verbs: dict[str, Callable[..., Awaitable[Any]]] = {"GET": client.get, "POST": client.post}

        async def send(call: _Call) -> Any:
            async with session.request(call.method, call.path, headers=call.headers) as response:
                response.raise_for_status()
                return await response.json()

        async def send_by_client(call: _Call) -> Any:
            return await verbs[call.method](call.path, headers=call.headers)

        started = clock.now()
        alone, helped = _Side(console, server, started), _Side(console, server, started)
        _introduce(console, server.url)
        for side, how, calls, title, what in (
            (alone, send, _DECORATED + _CLIENT, "aiohttp alone", "one attempt per call"),
            (helped, retry_http(policy=policy)(send), _DECORATED, "@retry_http", str(policy)),
            (helped, send_by_client, _CLIENT, "AsyncHTTPClient", "repeats a POST where that is safe: 503, or a key"),
        ):
            console.print(Text.assemble("\n", (title, "bold"), "  ", (what, "dim")))
            await side.make(how, calls)
        _sum_up(console, alone, helped)
    return 1 if helped.failures else 0


class _Side:
    """One side of the comparison: makes the calls, prints their attempts, and counts."""

    def __init__(self, console: Console, server: ScriptedServer, started: float) -> None:
        self._console, self._server, self._started = console, server, started
        self.calls = self.requests = self.retries = self.failures = 0

    async def make(self, send: _Send, calls: tuple[_Call, ...]) -> None:
        """Make the calls, one after the other, each with the server's faults all before it."""
        requests_before = len(self._server.requests())
        for call in calls:
            self._server.script(call.path, *call.faults, _ANSWER)
            await self._make(send, call)
        self.requests += len(self._server.requests()) - requests_before

    async def _make(self, send: _Send, call: _Call) -> None:
        def report(event: RetryEvent) -> None:
            self.retries += 1
            again = f"again {from_now(event.delay)}"
            self._print(call, outcome(event.status, event.exception), "yellow", again)

        self.calls += 1
        try:
            with listening(report):
                await send(call)
        except (aiohttp.ClientError, OSError) as error:
            self.failures += 1
            self._print(call, outcome(getattr(error, "status", None), type(error)), "red", "failed")
        else:
            self._print(call, str(_ANSWER.status), "green", "saved")

    def _print(self, call: _Call, word: str, colour: str, next_: str) -> None:
        seconds = clock.now() - self._started
        self._console.print(_row(f"{seconds:.2f} s", call.method, call.path, Text(word, colour), next_))


def _introduce(console: Console, url: str) -> None:
    console.print(f"{len(_DECORATED + _CLIENT)} calls to a server that misbehaves, {url}:")
    console.print("first by aiohttp alone, then with retrykit.\n")
    console.print(_row("time", "method", "path", Text("outcome"), "what follows"), style="dim")


def _row(time: str, method: str, path: str, word: Text, next_: str) -> Text:
    word.pad_right(22 - len(word))
    return Text.assemble(f"{time:>8}  {method:<6}  {path:<10}  ", word, next_)


def _sum_up(console: Console, alone: _Side, helped: _Side) -> None:
    table = Table(box=SIMPLE_HEAD)
    table.add_column()
    table.add_column("without retrykit", justify="right")
    table.add_column("with retrykit", justify="right")
    for what in ("calls", "requests", "retries", "failures"):
        counts = (str(getattr(side, what)) for side in (alone, helped))
        table.add_row(what, *counts, style="bold" if what == "failures" else None)
    console.print(table)
    if helped.failures:
        console.print(f"retrykit could not save {helped.failures} of {helped.calls} calls.", style="bold red")
    else:
        console.print(f"retrykit saved all {helped.calls} calls.", style="bold green")
