"""Many processes of few calls each, in an outage: with a budget for each of them, and with one that they share."""

import asyncio
import contextlib
import itertools
import multiprocessing
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from multiprocessing.connection import Connection
from random import Random

from benchmarks.outage.client import Call, make_calls, session
from benchmarks.outage.contenders import FULL_JITTER, POLICIES, with_policy
from benchmarks.outage.runs import Run, begin, tally
from benchmarks.outage.scenarios import Scenario, starts
from benchmarks.outage.server import serving
from retrykit import Budget, RetryBudget
from retrykit.redis import Fleet

EACH = "a budget for each process"
SHARED = "one budget, in Redis"

RESERVE = 30
"""Of a budget: under a tenth of the calls in the outage, of which there are 350."""


async def run(scenario: Scenario, name: str, processes: int, seed: int) -> Run:
    """Have all processes meet the outage: with budgets of their own or, if that is the name, with a shared one.

    Raises:
        LookupError: There is no Redis.
    """
    planned = starts(scenario, Random(seed))  # noqa: S311 - it spreads the calls.
    shares = [planned[number::processes] for number in range(processes)]
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(_redis()) if name == SHARED else None
        url = await stack.enter_async_context(serving(scenario))
        opened = await stack.enter_async_context(session())
        ends = stack.enter_context(_ready(url, store, shares, scenario.duration))
        await begin(opened, url)
        calls = await asyncio.to_thread(_made, ends, time.monotonic())
        return Run.of(scenario, name, calls, await tally(opened, url))


@contextlib.contextmanager
def _ready(url: str, store: str | None, shares: Sequence[Sequence[float]], until: float) -> Iterator[list[Connection]]:
    """A process for each of the shares, ready to begin; what comes out are the ends of their pipes.

    They are forked of one that has imported everything, or that alone would keep the machine busy for a while. One is
    ready before the next one starts, so that no connection is slow because of the others.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with contextlib.ExitStack() as stack:
        ends = []
        for share in shares:
            end, other = context.Pipe()
            process = context.Process(target=_process, args=(other, url, store, share, until), daemon=True)
            process.start()
            stack.callback(process.join)
            stack.callback(process.terminate)
            other.close()
            end.recv()
            ends.append(end)
        yield ends


def _made(ends: Sequence[Connection], started: float) -> list[Call]:
    """Have all of them begin: their calls."""
    for end in ends:
        end.send(started)  # The clock is the same for all processes of a machine.
    return list(itertools.chain.from_iterable(end.recv() for end in ends))


# --- in such a process ------------------------------------------------------------------------------------------------


def _process(end: Connection, url: str, store: str | None, share: Sequence[float], until: float) -> None:
    end.send(asyncio.run(_calls(end, url, store, share, until)))


async def _calls(end: Connection, url: str, store: str | None, share: Sequence[float], until: float) -> list[Call]:
    async with session() as opened, _budget(store) as budget:
        get = with_policy(POLICIES[FULL_JITTER]().replace(budget=budget), opened)
        end.send("ready")
        started = await asyncio.to_thread(end.recv)
        return await make_calls(get, url, started, share, until)


@contextlib.asynccontextmanager
async def _budget(store: str | None) -> AsyncIterator[Budget]:
    numbers = RetryBudget.ratio(0.1, reserve=RESERVE)
    if store is None:
        yield numbers
    else:
        async with Fleet(store, key="benchmark", budget=numbers) as fleet:
            yield fleet.budget


# --- the store --------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _redis() -> AsyncIterator[str]:
    """A running Redis that keeps nothing: its URL."""
    program = shutil.which("redis-server")
    if program is None:
        raise LookupError("redis-server is not installed; the fleet needs it: apt-get install redis-server")
    port = _free_port()
    with tempfile.TemporaryDirectory() as directory:
        process = await asyncio.create_subprocess_exec(
            program,
            *("--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"),
            cwd=directory,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                if b"Ready to accept connections" in line:
                    break
            yield f"redis://127.0.0.1:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.communicate()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
