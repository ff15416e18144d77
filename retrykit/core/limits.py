"""Attempts that have to end in time."""

import asyncio
import contextvars
import math
import threading
from types import TracebackType
from typing import Any

from retrykit.core.scope import Scope


class TimeLimits:
    """The limits of a decorated function: all of the same length, so that the one that began first ends first.

    To arm a timer for each would cost more than all the rest of a call that succeeds. So one is armed for the first,
    and when its time has come, for the one that is the first by then.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        """Of each attempt."""
        self._here = _Here()

    def queue(self) -> "_Queue":
        """Those of the event loop that is running."""
        loop, queue = asyncio.get_running_loop(), self._here.queue
        if queue is None or queue.loop is not loop:
            queue = self._here.queue = _Queue(loop)
            self._here.owner = _Owner(queue)
        return queue


class _Here(threading.local):
    """What a thread has, since in each another loop may be running."""

    queue: "_Queue | None" = None
    owner: "_Owner | None" = None


class _Owner:
    """Goes with the function, and takes the timer along. Until then, the timer is what keeps a waiting task alive."""

    def __init__(self, queue: "_Queue") -> None:
        self.queue = queue

    def __del__(self) -> None:
        if self.queue.timer is not None and not self.queue.limits:  # Those of a loop that stands still may go on.
            self.queue.timer.cancel()


class _Queue:
    """Limits in the order in which they end."""

    __slots__ = ("_context", "limits", "loop", "timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.limits: dict[TimeLimit, None] = {}
        self.timer: asyncio.TimerHandle | None = None
        self._context = contextvars.Context()  # Not that of the first call: it would be kept alive.

    def arm(self, end: float) -> None:
        """Set the timer for the first."""
        self.timer = self.loop.call_at(end, _on_time, self, context=self._context)


def _on_time(queue: "_Queue") -> None:
    queue.timer, now = None, queue.loop.time()
    over: list[TimeLimit] = []
    for limit in queue.limits:
        if limit.real_end > now:
            queue.arm(limit.real_end)
            break
        over.append(limit)
    for limit in over:
        del queue.limits[limit]
        limit.expire()


class TimeLimit(Scope):
    """An attempt that has to end in time: `with` it, and where time is over, it does what `asyncio.timeout` does.

    Args:
        limits: Those of the function.
        number: Of the attempt.
        now: The instant, on the clock of `clock.now`.
        left: Seconds that are left of the call; `None` where it has no timeout.
    """

    __slots__ = ("_cancelling", "_is_over", "_limits", "_number", "_queue", "_seconds", "_task", "real_end")

    def __init__(self, limits: TimeLimits, number: int, now: float, left: float | None) -> None:
        self._limits, self._number, self._is_over = limits, number, False
        self._seconds = limits.seconds if left is None or left >= limits.seconds else left
        self.deadline = None if left is None else now + left
        self.end = now + self._seconds

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit works only inside of a task, such as asyncio.run() makes")
        self.enter(self._number)
        self._task: asyncio.Task[Any] | None = task
        self._cancelling = task.cancelling()
        # One that is shorter than the others is not in their order.
        is_one_of_many = self._seconds == self._limits.seconds
        self._queue = queue = self._limits.queue() if is_one_of_many else _Queue(asyncio.get_running_loop())
        self.real_end = queue.loop.time() + self._seconds
        queue.limits[self] = None
        if queue.timer is None:
            queue.arm(self.real_end)

    def expire(self) -> None:
        """Cancel what runs inside."""
        if self._task is not None:
            self._is_over = True
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()
        queue = self._queue
        queue.limits.pop(self, None)
        if self._seconds != self._limits.seconds and queue.timer is not None:
            queue.timer.cancel()
        del self._queue, self._limits  # The mark may be found for long, by what has a copy of the context.
        task, self._task = self._task, None  # It may fail, and its error lead back here.
        # Somebody else may have cancelled it as well, and that is for somebody else to catch.
        is_ours = self._is_over and task is not None and task.uncancel() <= self._cancelling
        del task  # It may keep the error that is raised here, which leads back.
        if is_ours and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error


UNBOUNDED = TimeLimits(math.inf)
"""Those of attempts that only what is left of their call limits."""
