"""Python in a process of its own, where nothing that ran before counts."""

import asyncio
import sys

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
