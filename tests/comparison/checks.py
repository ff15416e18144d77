"""What is looked at: each check does something to one library over a real socket, and says in a few words what came.

The words are those of the cells of the tables in `docs/comparison.md`.
"""

import asyncio
import contextlib
import gc
import logging
import random
import socket
import ssl
import tempfile
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from retrykit.testing import Disconnect, Reply, ScriptedServer, Stall, Step, Truncated, no_waits
from tests.comparison.subjects import PENDING, Open, Send, Setup, default_hooks_of_stamina

Outcome = bytes | BaseException
"""The body that was got, or what was raised."""

OK = b"ok"
MANY = 30
"""More attempts than any library makes by default that has a bound at all."""
CERTIFICATE = Path(__file__).parents[1] / "core" / "localhost.pem"
LARGE = b"x" * 2**20
"""More than is read ahead of whoever reads a body."""
WHOLE = b"all of it"
PATIENCE = 5.0
"""No check waits for longer."""


class Look:
    """One library, and the server that it is tried on."""

    def __init__(self, name: str, opened: Open, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name, self.server = name, server
        self._opened, self._monkeypatch = opened, monkeypatch

    def opened(self, **setup: Any) -> contextlib.AbstractAsyncContextManager[Send]:
        return self._opened(Setup(**setup))

    async def send(self, method: str = "GET", data: Any = None, url: str | None = None, **setup: Any) -> Outcome:
        """One call."""
        async with self.opened(**setup) as send:
            try:
                async with asyncio.timeout(PATIENCE):
                    return await send(method, url or f"{self.server.url}/", data)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the outcome.
                return error

    async def after(self, *steps: Step, method: str = "GET", **setup: Any) -> Outcome:
        """The outcome of a call that is answered like this."""
        self.server.script("/", *steps)
        return await self.send(method, **setup)

    @property
    def requests(self) -> int:
        return len(self.server.requests())

    def skipped_waits(
        self, draw: Callable[[float, float], float] | None = None, before: Callable[[], None] | None = None
    ) -> contextlib.AbstractContextManager[list[float]]:
        return skipped_waits(self._monkeypatch, draw, before)


@contextlib.contextmanager
def skipped_waits(
    monkeypatch: pytest.MonkeyPatch,
    draw: Callable[[float, float], float] | None = None,
    before: Callable[[], None] | None = None,
) -> Iterator[list[float]]:
    """Waits of all libraries take no time; the list of them, at the end.

    Args:
        draw: Stands for `random.uniform`.
        before: Is called before each.
    """
    waits, sleep = [], asyncio.sleep

    async def skip(seconds: float, result: Any = None) -> Any:
        waits.append(seconds)
        if before is not None:
            before()
        return await sleep(0, result)

    with monkeypatch.context() as patch, no_waits() as waits_of_retrykit:
        patch.setattr(asyncio, "sleep", skip)
        if draw is not None:
            patch.setattr(random, "uniform", draw)
        yield waits
        waits[:] = [wait for wait in [*waits, *waits_of_retrykit] if wait > 0]


Check = Callable[[Look], Awaitable[str]]
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


def yes(does: bool) -> str:
    return "yes" if does else "no"


def number(value: float) -> str:
    return f"{value:g}"


# --- without options --------------------------------------------------------------------------------------------------


@check
async def attempts(look: Look) -> str:
    await look.after(*[503] * MANY, OK, attempts=None)
    return str(look.requests) if look.requests < MANY else "no bound"


@check
async def waits(look: Look) -> str:
    with look.skipped_waits(lambda low, _: low) as shortest:
        await look.after(503, 503, OK, delay=None)
    with look.skipped_waits(lambda _, high: high) as longest:
        await look.after(503, 503, OK, delay=None)
    if not longest:
        return "0, 0"
    pairs = zip(shortest or [0.0] * len(longest), longest, strict=True)
    return ", ".join(number(low) if low == high else f"{number(low)} to {number(high)}" for low, high in pairs)


@check
async def longest_wait(look: Look) -> str:
    with look.skipped_waits(lambda _, high: high) as longest:
        await look.after(503, jitter=True)
    return yes(max(longest) <= 1)


# --- what is retried --------------------------------------------------------------------------------------------------


async def by_rule(retried: Callable[[str], Awaitable[bool]]) -> str:
    """Whether it is retried, or whether that is left to whoever uses the library."""
    usual, by_status = await retried("usual"), await retried("by status")
    return yes(usual) if usual == by_status else "your rule"


async def retries(look: Look, *steps: Step, **setup: Any) -> str:
    async def retried(rule: str) -> bool:
        return await look.after(*steps, OK, rule=rule, **setup) == OK

    return await by_rule(retried)


@check
async def busy(look: Look) -> str:
    return await retries(look, 503)


@check
async def status_429(look: Look) -> str:
    return await retries(look, 429)


@check
async def status_500(look: Look) -> str:
    return await retries(look, 500)


@check
async def status_404(look: Look) -> str:
    return await retries(look, 404)


@check
async def lost(look: Look) -> str:
    # The first two are one attempt where aiohttp repeats a request by itself.
    return await retries(look, Disconnect(), Disconnect())


@check
async def refused(look: Look) -> str:
    async def retried(rule: str) -> bool:
        return await _after_a_refusal(look, rule) == OK

    return await by_rule(retried)


async def _after_a_refusal(look: Look, rule: str) -> Outcome:
    """Nobody listens before a library has begun to wait."""
    serving: list[asyncio.Future[asyncio.Server]] = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        host, port = listener.getsockname()

        def serve() -> None:
            if not serving:
                listener.listen()
                serving.append(asyncio.ensure_future(asyncio.start_server(_answer_once, sock=listener)))

        with look.skipped_waits(before=serve):
            outcome = await look.send(url=f"http://{host}:{port}/", rule=rule)
        for server in serving:
            (await server).close()
    return outcome


async def _answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    writer.close()


@check
async def timeout(look: Look) -> str:
    return await retries(look, Stall(), read_timeout=0.1)


@check
async def cut_body(look: Look) -> str:
    if await look.after(Truncated(b"ok, but longer"), OK, whole=True) == OK and look.name == "httpx-retries":
        assert await look.after(Truncated(b"ok, but longer"), OK) != OK
        return "`aretry_request`"
    return await retries(look, Truncated(b"ok, but longer"))


@check
async def certificate(look: Look) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    connections = 0

    def connected() -> asyncio.Protocol:
        nonlocal connections
        connections += 1
        return asyncio.Protocol()

    async def retried(rule: str) -> bool:
        nonlocal connections
        connections = 0
        await look.send(url=f"https://127.0.0.1:{port}/", rule=rule)
        return connections > 1

    loop = asyncio.get_running_loop()
    async with await loop.create_server(connected, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        return await by_rule(retried)


@check
async def pending(look: Look) -> str:
    return yes(await look.after(PENDING, PENDING, OK, pending=True) == OK)


# --- what is sent twice -----------------------------------------------------------------------------------------------


@check
async def post_lost(look: Look) -> str:
    return yes(await look.after(Disconnect(), OK, method="POST", lost=True) == OK)


@check
async def post_504(look: Look) -> str:
    return yes(await look.after(504, OK, method="POST") == OK)


@check
async def post_503(look: Look) -> str:
    return yes(await look.after(503, OK, method="POST") == OK)


@check
async def wire(look: Look) -> str:
    await look.after(Disconnect(), lost=True)
    return str(look.requests)


async def _sent_again(look: Look, data: Any) -> tuple[list[bytes], Outcome]:
    """The bodies that came where the first request is answered by a 503, and the outcome."""
    look.server.script("/", 503, OK)
    outcome = await look.send("PUT", data)
    bodies = [request.body for request in look.server.requests()]
    assert WHOLE in bodies[0]
    return bodies, outcome


@check
async def file_body(look: Look) -> str:
    with tempfile.TemporaryFile() as file:
        file.write(WHOLE)
        file.seek(0)
        bodies, outcome = await _sent_again(look, file)
    # Where aiohttp has closed the file, it may be an error or an empty body that follows: it depends on the moment.
    return yes(not isinstance(outcome, Exception) and len(bodies) == 2 and WHOLE in bodies[1])


@check
async def generator_body(look: Look) -> str:
    async def lines() -> AsyncIterator[bytes]:
        yield WHOLE

    bodies, outcome = await _sent_again(look, lines())
    if bodies[1:] == [b""] and not isinstance(outcome, Exception):
        return "sent empty"
    assert len(bodies) == 1
    return "ends with the 503" if "503" in str(outcome) else f"`{type(outcome).__name__}`"


# --- time -------------------------------------------------------------------------------------------------------------


async def _honours(look: Look, retry_after: str, shortest: float) -> str:
    for given, word in ((False, "yes"), (True, "your function")):
        with look.skipped_waits() as waited:
            await look.after(Reply(503, retry_after=retry_after), OK, retry_after=given)
        if waited and waited[0] >= shortest:
            return word
    return "no"


@check
async def retry_after(look: Look) -> str:
    return await _honours(look, "7", 7)


@check
async def retry_after_date(look: Look) -> str:
    return await _honours(look, format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True), 20)


@check
async def retry_after_a_day(look: Look) -> str:
    with look.skipped_waits() as waited:
        await look.after(Reply(503, retry_after=86400), OK)
    if look.requests == 1:
        return "ends the call"
    return f"waits {number(waited[0])} s" if waited else "not looked at"


@check
async def deadline(look: Look) -> str:
    """Of 0.05 s, with attempts that take longer."""
    outcome = await look.after(Reply(503, delay=0.1), deadline=0.05, attempts=4)
    if isinstance(outcome, TimeoutError):
        return "within the attempt"
    return {1: "after it", 2: "an attempt later"}.get(look.requests, "no")


@check
async def wait_past_the_deadline(look: Look) -> str:
    """Of 1 s, where the wait is 10 s."""
    with look.skipped_waits() as waited:
        await look.after(503, OK, deadline=1, delay=10)
    if not waited:
        return "not begun"
    return "cut short" if waited[0] <= 1 else "runs past it"


# --- connections and cancellation -------------------------------------------------------------------------------------


@check
async def released(look: Look) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # It is what is looked for.
        outcome = await look.after(Reply(503, LARGE), OK, connections=1)
        gc.collect()
    return yes(outcome == OK)


async def _cancelled(look: Look, rule: str) -> str:
    look.server.script("/", Stall(), OK)
    async with look.opened(rule=rule) as send, asyncio.timeout(PATIENCE):
        call = asyncio.ensure_future(send("GET", f"{look.server.url}/"))
        while not look.requests:
            await asyncio.sleep(0.01)
        call.cancel()
        await asyncio.wait([call])
    assert call.cancelled() or call.result() == OK
    return yes(call.cancelled())


@check
async def cancelled(look: Look) -> str:
    return await _cancelled(look, "usual")


@check
async def cancelled_by_exclusion(look: Look) -> str:
    return await _cancelled(look, "anything but ValueError")


# --- what is told -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _logged() -> Iterator[list[logging.LogRecord]]:
    """The records of the library's own loggers."""
    names = "retrykit", "aiohttp_retry", "tenacity", "stamina", "backoff", "httpx_retries"
    handler = logging.Handler(logging.DEBUG)
    records: list[logging.LogRecord] = []
    handler.emit = records.append  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    with default_hooks_of_stamina():
        for logger in loggers:
            logger.addHandler(handler)
            logger.setLevel(logging.DEBUG)
        try:
            yield records
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.removeHandler(handler)
                logger.setLevel(level)


@check
async def log(look: Look) -> str:
    for asked in (False, True):
        with _logged() as records:
            await look.after(503, OK, log=asked)
        if records:
            level = logging.getLevelName(max(record.levelno for record in records))
            return "if asked" if asked else str(level)
    return "no"


@check
async def secrets(look: Look) -> str:
    look.server.script("/", 503, OK)
    with _logged() as records:
        assert await look.send(url=f"{look.server.url}/?token=secret", log=True) == OK
    assert records
    levels = [record.levelno for record in records if "secret" in f"{record.getMessage()} {vars(record)}"]
    return "at DEBUG" if levels and max(levels) == logging.DEBUG else yes(bool(levels))
