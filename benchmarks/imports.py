"""What an import costs after that of aiohttp, over the latter, in fresh interpreters."""

from random import Random

from benchmarks.effort import Effort
from benchmarks.measure import Case, Question, Values, in_rounds
from benchmarks.process import figure_printed_by

_TIMED = """
import time
started = time.perf_counter()
import aiohttp
between = time.perf_counter()
import {module}
print((time.perf_counter() - between) / (between - started))
"""

_MODULES = ("retrykit", "backoff", "aiohttp_retry", "stamina", "tenacity")


def _case(module: str) -> Case:
    async def share() -> float:
        return await figure_printed_by("-c", _TIMED.format(module=module))

    return share


async def _shares(effort: Effort, chance: Random) -> Values:
    cases = {name: _case(name) for name in _MODULES}
    await in_rounds(cases, 1, chance)  # Now all is compiled.
    return await in_rounds(cases, effort.import_rounds, chance)


QUESTIONS = [Question("import", "Import, after that of aiohttp", "the import of aiohttp", _shares, {"retrykit": 0.05})]
