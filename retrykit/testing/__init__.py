"""For tests of code that uses retrykit: a server that fails as told, waits that take no time, retries turned off.

`retrykit.testing.plugin` has the same as pytest fixtures.
"""

from retrykit.core.scope import disabled
from retrykit.testing.server import (
    Disconnect,
    Raw,
    ReceivedRequest,
    Reply,
    Reset,
    Resumable,
    ScriptedServer,
    Stall,
    Step,
    Truncated,
)
from retrykit.testing.waits import no_waits

__all__ = [
    "Disconnect",
    "Raw",
    "ReceivedRequest",
    "Reply",
    "Reset",
    "Resumable",
    "ScriptedServer",
    "Stall",
    "Step",
    "Truncated",
    "disabled",
    "no_waits",
]
