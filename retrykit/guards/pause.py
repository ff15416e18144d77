"""OriginPause: what one call was told, all calls of the origin keep to."""

import logging
import math
from typing import Never

from aiohttp.typedefs import StrOrURL

from retrykit.core import checks, clock
from retrykit.core.events import in_seconds
from retrykit.core.policy import Seconds
from retrykit.core.protocols import Hold
from retrykit.guards.origins import keep, origin_named, whole

_log = logging.getLogger("retrykit")

# Seconds: many calls are told to wait at about the same time, and only the first of them is worth a line in the log.
_NEWS = 1.0


class OriginPause:
    """Holds back all calls to an origin that has answered 429 or 503 with a Retry-After, until then.

        pause = OriginPause()
        client = AsyncHTTPClient("https://api.example.com", pause=pause)

    Those that wait for a retry wait on, those that have sent nothing yet wait as well, and those that can't wait for so
    long (by their `timeout`, or `max_retry_after`) end at once. Afterwards they don't all go at the same moment, but
    each at a random one within a time that is `spread` times as long as the wait was.

    The pause of an origin (client, helpers, middleware) is its own; the calls of decorated coroutines share one. It may
    be shared by event loops, not by threads. A pause that begins is reported in the log; `end(origin)` ends one.

    Args:
        spread: A part of the wait, 0 for none. Default: 0.25, so that after 2 s they go within half a second.
        longest: Seconds (or a `timedelta`) that a pause lasts at the most, whatever the server asks for: then calls
            find out whether it still holds. Default: 3600.
        max_origins: Pauses that are kept; of more, the one that began first is forgotten. Default: 1024.

    Raises:
        ValueError: A number can't work.
        TypeError: It is no number.
    """

    def __init__(
        self, *, spread: float = 0.25, longest: Seconds = 3600.0, max_origins: int = 1024, **unknown: Never
    ) -> None:
        checks.no_others(OriginPause, unknown)
        if not checks.is_number(spread):
            raise TypeError(f"spread={spread!r} is no number; write a part of the wait, such as spread=0.25")
        if not 0 <= spread < math.inf:
            raise ValueError(f"spread={spread!r} is no part of a wait; write 0 or more, such as spread=0.25")
        self.spread = float(spread)
        self.longest = checks.positive("longest", longest)
        self._most = whole("max_origins", max_origins)
        self._holds: dict[str | None, Hold] = {}

    def begin(self, origin: str | None, seconds: float) -> None:
        """The server has asked for so long a wait. A pause that would last longer stays as it is."""
        asked, seconds = seconds, min(seconds, self.longest)
        held, now = self.hold(origin), clock.now()
        end = now + seconds
        if seconds > 0 and (held is None or held.end < end):
            keep(self._holds, origin, Hold(end, seconds * self.spread), self._most)
            if held is None or end > held.end + _NEWS:
                _log.warning(
                    "%s is paused for %s, since it has asked for %s",
                    origin or "what has no known origin",
                    in_seconds(seconds),
                    in_seconds(asked),
                )

    def end(self, origin: StrOrURL | None = None) -> None:
        """Have the pause of an origin be over. What it holds already still waits for as long as it was to."""
        self._holds.pop(origin_named(origin), None)

    def hold(self, origin: str | None) -> Hold | None:
        """How an origin is held back now; `None` where it is not."""
        held = self._holds.get(origin) if self._holds else None
        if held is not None and held.end <= clock.now():
            del self._holds[origin]
            return None
        return held

    def left(self, origin: StrOrURL | None = None) -> float:
        """Seconds until the pause of an origin ends; 0 where there is none."""
        held = self.hold(origin_named(origin))
        return 0.0 if held is None else max(0.0, held.end - clock.now())

    def __repr__(self) -> str:
        paused = sum(hold.end > clock.now() for hold in self._holds.values())
        return f"<{type(self).__name__}: {paused} paused>"
