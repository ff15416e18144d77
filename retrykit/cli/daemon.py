"""What may block for ever, in a thread that nobody has to wait for."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

R = TypeVar("R")


async def in_daemon_thread(function: Callable[[], R]) -> R:
    """What a function returns or raises. Where this is cancelled the thread is left alone, and ends with the process.

    `asyncio.run` would wait for a thread of the event loop's own.
    """
    done: Future[R] = Future()
    done.set_running_or_notify_cancel()  # From here on it is not cancelled, and takes a result in any case.

    def run() -> None:
        try:
            done.set_result(function())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited.
            done.set_exception(error)

    threading.Thread(target=run, name="retrykit.cli", daemon=True).start()
    return await asyncio.wrap_future(done)
