"""CircuitBreaker: an origin that fails is left alone for a while, and then tried with a few attempts."""

import logging
from enum import Enum
from typing import Never

from aiohttp.typedefs import StrOrURL

from retrykit.core import checks, clock
from retrykit.core.errors import CircuitOpenError
from retrykit.core.events import in_seconds
from retrykit.core.policy import Seconds
from retrykit.guards.origins import keep, origin_named, share, whole

_log = logging.getLogger("retrykit")


class State(Enum):
    """Of a circuit."""

    CLOSED = "closed"
    """All attempts are let through, and counted."""
    OPEN = "open"
    """None is."""
    HALF_OPEN = "half-open"
    """A few are, as probes."""


class Turn(Enum):
    """What changes the state."""

    FAILURES = "of enough attempts, too many failed"
    TIME = "it was open for long enough"
    PROBE_FAILED = "a probe failed"
    PROBES_SUCCEEDED = "all probes succeeded"


TRANSITIONS: dict[tuple[State, Turn], State] = {
    (State.CLOSED, Turn.FAILURES): State.OPEN,
    (State.OPEN, Turn.TIME): State.HALF_OPEN,
    (State.HALF_OPEN, Turn.PROBE_FAILED): State.OPEN,
    (State.HALF_OPEN, Turn.PROBES_SUCCEEDED): State.CLOSED,
}
"""All changes that there are."""

# Into how many parts the window is cut: what is older goes a part at a time.
_SLICES = 10


class CircuitBreaker:
    """Stops the calls to an origin most of whose attempts fail.

        breaker = CircuitBreaker()
        client = AsyncHTTPClient("https://api.example.com", breaker=breaker)

    While the circuit is *closed*, each attempt goes through, and its end is counted. Once `failure_rate` of those of
    the last `window` seconds have failed, and there were `min_attempts`, it is *open*: `CircuitOpenError` is raised at
    once, and nothing is sent. After `open_for` seconds it is *half-open*: so many attempts as `probes` says are let
    through. Where they all succeed it is closed, with nothing counted; where one fails it is open again; where they
    take longer than `open_for`, so many more are let through.

    What counts as failed is what would be retried, and says that the server is not well: connections that fail,
    timeouts, 408, 425, 429, 502, 503, 504. An answer below 500, such as a 404, is that of a healthy server, and so is a
    value, also one that `retry_if` refuses, and a `TryAgain` that was not raised from a failure. A 500 that is not
    retried says nothing, and is not counted; nor is what ended for another reason, such as a cancelled call. A server
    that never answers is noticed where there is an `attempt_timeout` or `timeout`.

    Each origin has its circuit (client, helpers, middleware); the calls of decorated coroutines share one. A circuit
    that opens or closes is reported in the log. It may be shared by event loops, not by threads.

    Source: M. Nygard, "Release It!", 2nd ed., ch. 5.

    Args:
        failure_rate: The share of failed attempts at which it opens. Default: 0.5.
        window: Seconds (or a `timedelta`) that attempts are counted for, to a tenth of it. Default: 10.
        min_attempts: Attempts in the window below which it never opens. Default: 20.
        open_for: Seconds (or a `timedelta`) before it is half-open. Default: 5.
        probes: Attempts that decide then. Default: 1.
        name: How the log calls the circuit of what has no known origin. Default: `"decorated functions"`.
        max_origins: Circuits that are kept; of more, the one that was used longest ago is forgotten. Default: 1024.

    Raises:
        ValueError: A number can't work.
        TypeError: It is no number.
    """

    def __init__(
        self,
        *,
        failure_rate: float = 0.5,
        window: Seconds = 10.0,
        min_attempts: int = 20,
        open_for: Seconds = 5.0,
        probes: int = 1,
        name: str = "decorated functions",
        max_origins: int = 1024,
        **unknown: Never,
    ) -> None:
        checks.no_others(CircuitBreaker, unknown)
        self.failure_rate = share("failure_rate", failure_rate, 0.5)
        self.window = checks.positive("window", window)
        self.min_attempts = whole("min_attempts", min_attempts)
        self.cooling = checks.positive("open_for", open_for)
        self.probes = whole("probes", probes)
        self.name = name
        self._most = whole("max_origins", max_origins)
        self._circuits: dict[str | None, _Circuit] = {}

    def enter(self, origin: str | None = None) -> int:
        """Let an attempt through.

        Returns:
            What `leave` has to be given.

        Raises:
            CircuitOpenError: The circuit is open, or its probes are under way.
        """
        circuit = self._circuits.get(origin) or _Circuit()
        keep(self._circuits, origin, circuit, self._most)
        if circuit.state is not State.CLOSED:
            self._let_time_pass(origin, circuit)
            left = self._time_left(circuit)
            if circuit.probing >= self.probes and clock.now() - circuit.since >= self.cooling:
                circuit.enter(State.HALF_OPEN)  # Once more: those that hang count no more.
            if left > 0 or circuit.probing >= self.probes:
                raise CircuitOpenError(origin, left)
            if circuit.probing == 0:
                circuit.since = clock.now()
            circuit.probing += 1
        return circuit.turns

    def leave(self, origin: str | None, entered: int, *, failed: bool | None) -> None:
        """An attempt that was let through has ended.

        Args:
            origin: As for `enter`.
            entered: What that returned. What began before the circuit last changed its state counts no more.
            failed: Was it a transient failure? `None` where it says nothing of the server.
        """
        circuit = self._circuits.get(origin)
        if circuit is None or circuit.turns != entered:
            return
        if circuit.state is State.HALF_OPEN:
            if failed is None:
                circuit.probing -= 1  # Another may take its place.
            elif failed:
                self._turn(origin, circuit, Turn.PROBE_FAILED)
            else:
                circuit.succeeded += 1
                if circuit.succeeded >= self.probes:
                    self._turn(origin, circuit, Turn.PROBES_SUCCEEDED)
        elif failed is not None:
            attempts, failures = circuit.count(int(clock.now() / self.window * _SLICES), failed=failed)
            if failed and attempts >= self.min_attempts and failures >= self.failure_rate * attempts:
                counted = f" ({failures} of {attempts} attempts failed in {in_seconds(self.window)})"
                self._turn(origin, circuit, Turn.FAILURES, counted)

    def open_for(self, origin: str | None = None) -> float:
        """Seconds until the circuit is half-open; 0 where it is not open."""
        circuit = self._circuits.get(origin)
        return 0.0 if circuit is None else self._time_left(circuit)

    def state(self, origin: StrOrURL | None = None) -> State:
        """Of the circuit of an origin; its `value` is `"closed"`, `"open"` or `"half-open"`."""
        named = origin_named(origin)
        circuit = self._circuits.get(named)
        if circuit is None:
            return State.CLOSED
        self._let_time_pass(named, circuit)
        return circuit.state

    def states(self) -> dict[State, int]:
        """How many circuits are in each state. An origin that was never called has none."""
        counts = dict.fromkeys(State, 0)
        for circuit in list(self._circuits.values()):
            is_over = circuit.state is State.OPEN and self._time_left(circuit) == 0
            counts[State.HALF_OPEN if is_over else circuit.state] += 1
        return counts

    def close(self, origin: StrOrURL | None = None) -> None:
        """Have the circuit of an origin be closed, with nothing counted."""
        self._circuits.pop(origin_named(origin), None)

    def __repr__(self) -> str:
        count = sum(circuit.state is not State.CLOSED for circuit in self._circuits.values())
        return f"<{type(self).__name__}: {count} not closed>"

    def _time_left(self, circuit: "_Circuit") -> float:
        if circuit.state is not State.OPEN:
            return 0.0
        return max(0.0, circuit.since + self.cooling - clock.now())

    def _let_time_pass(self, origin: str | None, circuit: "_Circuit") -> None:
        if circuit.state is State.OPEN and self._time_left(circuit) == 0:
            self._turn(origin, circuit, Turn.TIME)

    def _turn(self, origin: str | None, circuit: "_Circuit", turn: Turn, counted: str = "") -> None:
        """Change the state, and have what was counted be over."""
        circuit.enter(TRANSITIONS[circuit.state, turn])
        opened = circuit.state is State.OPEN
        until = f"; in {in_seconds(self.cooling)} it is tried again" if opened else ""
        level = logging.WARNING if opened else logging.INFO
        state = circuit.state.value
        _log.log(level, "the circuit of %s is %s: %s%s%s", origin or self.name, state, turn.value, counted, until)


class _Circuit:
    """Of one origin."""

    __slots__ = ("_failures", "_newest", "_slices", "probing", "since", "state", "succeeded", "turns")

    def __init__(self) -> None:
        self.turns = -1
        self.enter(State.CLOSED)

    def enter(self, state: State) -> None:
        """Begin anew, in that state."""
        self.state = state
        self.since = clock.now()
        """When that was, or when the first of its probes was let through."""
        self.turns += 1
        """How often that was; what began before counts no more."""
        self.probing = self.succeeded = 0
        """Probes that were let through, and that succeeded."""
        self._slices = [0] * _SLICES
        self._failures = [0] * _SLICES
        self._newest = 0

    def count(self, now: int, *, failed: bool) -> tuple[int, int]:
        """Count an attempt that ended in this slice of time: attempts and failures in the window."""
        for old in range(max(self._newest, now - _SLICES) + 1, now + 1):
            self._slices[old % _SLICES] = self._failures[old % _SLICES] = 0
        self._newest = max(self._newest, now)
        self._slices[now % _SLICES] += 1
        self._failures[now % _SLICES] += failed
        return sum(self._slices), sum(self._failures)
