"""Ctrl-C and SIGTERM, while there are parts of files to leave in order."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from retrykit.core import clock

_HEEDED = (signal.SIGINT, signal.SIGTERM)
# Seconds in which a further signal changes nothing: what is being written is written. Who asks again after that has
# waited for something that doesn't end.
_PATIENCE = 2.0


class Interruption:
    """Heeds the first Ctrl-C or SIGTERM; one that comes more than 2 s later ends the process at once.

    A signal that is ignored stays so: what a shell starts in the background doesn't heed Ctrl-C. Where there was one,
    all are ignored afterwards, since the process is about to end. Python gives signals to the main thread, and in
    another one nothing is heeded.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """Of the signal that came."""
        self._came = 0.0
        self._tell: Callable[[], object] = lambda: None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _HEEDED:
                if signal.getsignal(number) not in (None, signal.SIG_IGN):
                    self._before[number] = signal.signal(number, self._heed)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before if self.number is None else signal.SIG_IGN)

    def awaited(self) -> asyncio.Future[None]:
        """What is done when a signal comes."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # The loop is closed, and there is nothing left to end.
                loop.call_soon_threadsafe(done.set_result, None)

        self._tell = tell
        if self.number is not None:
            tell()
        return done

    def _heed(self, number: int, _: FrameType | None) -> None:
        if self.number is None:
            self.number, self._came = number, clock.now()
            self._tell()
        elif clock.now() - self._came > _PATIENCE:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
