"""FleetPause: what one process was told, all processes keep to."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiohttp.typedefs import StrOrURL

from retrykit.core import clock
from retrykit.core.protocols import Hold
from retrykit.guards.origins import keep
from retrykit.guards.pause import OriginPause
from retrykit.redis.scripts import PAUSE
from retrykit.redis.store import MOST_ORIGINS, TO_CONNECT, Courier, Store, nothing, real_wait


class FleetPause:
    """The `OriginPause` of a fleet, as `fleet.pause`.

    A pause that this process begins holds back its own calls at once, and the others are told of it in the background.
    Those that others begin arrive over a subscription. So nothing here waits for the store, and while it is away, each
    process keeps to what it was told itself.
    """

    def __init__(self, local: OriginPause) -> None:
        self.local = local
        """The pauses that this process knows of."""
        self._store: Store | None = None
        self._courier: Courier | None = None
        self._untold: dict[str | None, float] = {}

    def attach(self, store: Store) -> tuple[Courier, "Subscription"]:
        """Share pauses through this store, by a courier and a subscription that have to be run."""
        self._store, self._courier = store, Courier(store, "pause", self._deliver)
        return self._courier, Subscription(store, self.local)

    def detach(self) -> Callable[[], Awaitable[None]]:
        """Share no more; gives what delivers the rest."""
        courier, self._courier = self._courier, None
        return self._deliver if courier is not None and courier.is_up else nothing

    def begin(self, origin: str | None, seconds: float) -> None:
        """The server has asked for so long a wait. A pause that would last longer stays as it is."""
        before = self.local.hold(origin)
        self.local.begin(origin, seconds)
        held = self.local.hold(origin)
        if held is not None and held is not before:
            keep(self._untold, origin, held.end, MOST_ORIGINS)
            if self._courier is not None:
                self._courier.wake()

    def hold(self, origin: str | None) -> Hold | None:
        """How an origin is held back now; `None` where it is not."""
        return self.local.hold(origin)

    async def _deliver(self) -> None:
        """Tell of the pauses that were begun here; the server passes over what has passed."""
        assert self._store is not None
        untold, self._untold = self._untold, {}
        if not untold:
            return
        now = clock.now()
        try:
            await _tell_and_learn(self._store, {origin: end - now for origin, end in untold.items()})
        except BaseException:
            self._untold = {**untold, **self._untold}
            raise

    def end(self, origin: StrOrURL | None = None) -> None:
        """Have the pause of an origin be over in this process; the others keep to it."""
        self.local.end(origin)

    def left(self, origin: StrOrURL | None = None) -> float:
        """Seconds until the pause of an origin ends, as far as this process knows; 0 where there is none."""
        return self.local.left(origin)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.local!r}>"


class Subscription:
    """Learns of the pauses that other processes begin."""

    def __init__(self, store: Store, local: OriginPause) -> None:
        self._store, self._local = store, local
        self.has_tried = asyncio.Event()
        """Has it subscribed, or failed to, for the first time?"""

    async def run(self) -> None:
        """Listen, and begin anew after a while when that has failed."""
        while True:
            try:
                await self._subscribe()
            except Exception as error:  # noqa: BLE001 - whatever the store does, no call may fail for it.
                self._store.failed("subscription", error)
            self.has_tried.set()
            await real_wait(asyncio.Event(), self._store.cool_down)

    async def _subscribe(self) -> None:
        pubsub: Any = self._store.client.pubsub()
        try:
            await self._listen(pubsub)
        finally:
            with contextlib.suppress(Exception):
                async with clock.time_limit(TO_CONNECT):
                    await pubsub.aclose()

    async def _listen(self, pubsub: Any) -> None:
        async with clock.time_limit(TO_CONNECT):
            await pubsub.subscribe(_channel(self._store))
        is_asked = True  # It has to confirm.
        while True:
            # A connection of which nothing is heard may be one that a router has forgotten: it is made to answer.
            patience = TO_CONNECT if is_asked else self._store.cool_down
            async with clock.time_limit(patience + TO_CONNECT):
                message = await pubsub.get_message(timeout=patience)
            if message is not None:
                is_asked = False
                await self._take(message)
            elif is_asked:
                raise TimeoutError
            else:
                is_asked = True
                async with clock.time_limit(TO_CONNECT):
                    await pubsub.ping()

    async def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":
            # From here on, none is missed; and of those that were, the ones that still run are learnt now.
            self._begin(await _tell_and_learn(self._store, {}, TO_CONNECT))
            self._store.works("subscription")
            self.has_tried.set()
        elif message["type"] == "message":
            left, _, origin = _text(message["data"]).partition(" ")
            self._begin([(origin, left)])

    def _begin(self, pauses: Iterable[tuple[str, Any]]) -> None:
        for origin, left in pauses:
            # Whatever else somebody may have written there is none of ours; and it could forge lines of a log.
            with contextlib.suppress(ValueError, TypeError, OverflowError):
                if origin.isprintable():
                    self._local.begin(origin or None, int(left) / 1000)


async def _tell_and_learn(
    store: Store, begun: dict[str | None, float], limit: float | None = None
) -> list[tuple[str, Any]]:
    """Tell of pauses, by their origins and the seconds that are left; gives those that run, with their milliseconds."""
    args: list[str | float] = [_channel(store), MOST_ORIGINS]
    for origin, seconds in begun.items():
        args += [origin or "", round(seconds * 1000)]
    running = await store.run(PAUSE, [store.name("pauses")], args, limit)
    return [(_text(origin), left) for origin, left in zip(running[::2], running[1::2], strict=True)]


def _channel(store: Store) -> str:
    return store.name("pauses")


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
