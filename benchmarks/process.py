"""Python in a process of its own, where nothing that ran before counts."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

from benchmarks import ROOT


async def figure_printed_by(*arguments: str) -> float:
    """Run Python with these arguments: the number that it prints.

    Raises:
        RuntimeError: It failed. What it said of that is on standard error.
    """
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} failed")
    return float(output)


@contextlib.asynccontextmanager
async def process_with_port(*arguments: str) -> AsyncIterator[int]:
    """Python with these arguments, which prints a port and ends with its standard input."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=pipe, stdout=pipe, cwd=ROOT)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        process.stdin.close()
        await process.wait()
