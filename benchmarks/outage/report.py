"""What is made of the figures: a file, tables on the screen, tables for the documentation."""

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Self

from benchmarks.hedging import Hedged
from benchmarks.outage.runs import Run

PACKAGES = ("retrykit", "aiohttp", "aiohttp_retry", "stamina", "redis")


@dataclass(frozen=True)
class Report:
    """All that was found, and what it was measured with."""

    date: str
    versions: dict[str, str]
    seed: int
    runs: tuple[Run, ...]
    simulated: dict[str, float]
    """Requests for each call in the outage, by policy, as the simulation has it."""
    hedged: tuple[Hedged, ...]

    @classmethod
    def of(cls, runs: Iterable[Run], simulated: Mapping[str, float], hedged: Iterable[Hedged], seed: int) -> Self:
        """A report of today, on what is installed."""
        versions = {"Python": platform.python_version()} | {name: version(name) for name in PACKAGES}
        today = datetime.now(UTC).date().isoformat()
        return cls(today, versions, seed, tuple(runs), dict(simulated), tuple(hedged))

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `write` has written."""
        saved = json.loads(path.read_text())
        runs = tuple(Run.read(run) for run in saved["runs"])
        hedged = tuple(Hedged(**way) for way in saved["hedged"])
        return cls(**{**saved, "runs": runs, "hedged": hedged})

    def write(self, path: Path) -> None:
        """Write a JSON file, with a line for each run."""
        saved = asdict(self)
        runs = ",\n    ".join(json.dumps(run) for run in saved["runs"])
        text = json.dumps({**saved, "runs": []}, indent=2)
        path.write_text(text.replace('"runs": []', f'"runs": [\n    {runs}\n  ]') + "\n")

    def run(self, scenario: str, contender: str) -> Run:
        """The one of these.

        Raises:
            LookupError: There is none.
        """
        for run in self.runs:
            if (run.scenario, run.contender) == (scenario, contender):
                return run
        raise LookupError(f"{contender} was not measured in {scenario}")
