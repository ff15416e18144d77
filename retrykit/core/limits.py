"""Time limits of one length: a single timer serves them all."""

import asyncio
from types import TracebackType
from typing import Any


class TimeLimits:
    """Limits of so many real seconds. The one that began first ends first.

    To arm a timer for each would cost more than all the rest of a call that succeeds. So one is armed for the first,
    and when its time has come, for the one that is the first by then.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._queue: _Queue | None = None

    def begin(self, left: float | None = None) -> "TimeLimit":
        """The limit that begins now, to be entered by `with`. Where it is over, it does what `asyncio.timeout` does.

        Args:
            left: Seconds that it lasts at the most. Default: those of all the others.
        """
        loop, queue = asyncio.get_running_loop(), self._queue
        if left is not None and left < self.seconds:
            return TimeLimit(_Queue(loop, is_shared=False), loop.time() + left)
        if queue is None or queue.loop is not loop:  # Limits of another loop's, in another thread, keep their queue.
            queue = self._queue = _Queue(loop)
        return TimeLimit(queue, loop.time() + self.seconds)


class _Queue:
    """The limits of one event loop, in the order in which they end."""

    __slots__ = ("_is_shared", "_limits", "_timer", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, *, is_shared: bool = True) -> None:
        self.loop = loop
        self._is_shared = is_shared
        self._limits: dict[TimeLimit, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, limit: "TimeLimit") -> None:
        self._limits[limit] = None
        if self._timer is None:
            self._timer = self.loop.call_at(limit.end, self._on_time)

    def remove(self, limit: "TimeLimit") -> None:
        self._limits.pop(limit, None)
        if self._timer is not None and not self._is_shared:  # A shared one stays, and will look for the next limit.
            self._timer.cancel()

    def _on_time(self) -> None:
        self._timer, now = None, self.loop.time()
        while self._limits:
            first = next(iter(self._limits))
            if first.end > now:
                self._timer = self.loop.call_at(first.end, self._on_time)
                return
            del self._limits[first]
            first.expire()


class TimeLimit:
    """One of them: `with` it, what runs inside is cancelled when its time is over, and `TimeoutError` is raised."""

    __slots__ = ("_cancelling", "_is_over", "_queue", "_task", "end")

    def __init__(self, queue: _Queue, end: float) -> None:
        self._queue = queue
        self.end = end
        self._is_over = False
        self._task: asyncio.Task[Any] | None = None

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit works only inside of a task, such as asyncio.run() makes")
        self._task, self._cancelling = task, task.cancelling()
        self._queue.add(self)

    def expire(self) -> None:
        """Cancel what runs inside."""
        if self._task is not None:
            self._is_over = True
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._queue.remove(self)
        task, self._task = self._task, None  # It may fail, and its error lead back here.
        # Somebody else may have cancelled it as well, and that is for somebody else to catch.
        is_ours = self._is_over and task is not None and task.uncancel() <= self._cancelling
        if is_ours and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error
