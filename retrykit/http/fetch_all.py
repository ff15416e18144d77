"""fetch_all: many calls, a bounded number of them at once."""

import asyncio
import contextvars
import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NoReturn, Self, TypeVar, cast, overload

from aiohttp import ClientResponse
from aiohttp.typedefs import StrOrURL

from retrykit.core import checks, clock, scope
from retrykit.core.errors import UsageError
from retrykit.core.policy import RetryOptions
from retrykit.http.fetch import fetch_json, without_options
from retrykit.http.send import CallOptions
from retrykit.http.sessions import SharedSession, shared_session
from retrykit.http.stream import Opening

T = TypeVar("T")
V = TypeVar("V")
T_co = TypeVar("T_co", covariant=True)
V_co = TypeVar("V_co", covariant=True)
U = TypeVar("U", bound=StrOrURL)

Items = Iterable[T] | AsyncIterable[T]

# Items that are started and whose results were not handed out, for each call that may run: so the calls go on while
# the loop's body is busy, and what waits for it is bounded.
_STARTED_PER_CALL = 2


class Fetched(NamedTuple, Generic[T_co, V_co]):
    """What came of one item: a value, or the error that its call ended with."""

    item: T_co
    value: V_co | None
    """What the call returned; `None` where it failed. `result()` tells the two apart."""
    error: Exception | None
    """What the call raised; `None` where it returned."""
    attempts: int
    """1, and one more for each retry or hedge that was made for it."""
    elapsed: float
    """Seconds that the call took, with its attempts and the waits between them."""

    def __repr__(self) -> str:
        """All of it, but for what aiohttp tells of an error: that has the headers of the request in it."""
        error = self.error and f"{type(self.error).__name__}(...)"
        return (
            f"{type(self).__name__}(item={self.item!r}, value={self.value!r}, error={error},"
            f" attempts={self.attempts}, elapsed={self.elapsed:.3f})"
        )

    def result(self) -> V_co:
        """The value.

        Raises:
            Exception: The error, where there is one.
        """
        if self.error is not None:
            raise self.error
        return cast(V_co, self.value)


@overload
def fetch_all(items: Items[U], *, concurrency: int = 100, ordered: bool = False) -> "FetchAll[U, Any]": ...
@overload
def fetch_all(
    items: Items[T], fetch: Callable[[T], Awaitable[V]], *, concurrency: int = 100, ordered: bool = False
) -> "FetchAll[T, V]": ...
def fetch_all(
    items: Items[Any],
    fetch: Callable[[Any], Awaitable[Any]] = fetch_json,
    *,
    concurrency: int = 100,
    ordered: bool = False,
    **misplaced: object,
) -> "FetchAll[Any, Any]":
    """Make a call for each item, many at once; their results, one by one, as they come.

        async with fetch_all(urls) as results:
            async for fetched in results:
                if fetched.error is None:
                    print(fetched.item, fetched.value)

    A call that fails ends none of the others: its error is in its result.

    Args:
        items: Any iterable or async iterable, also one without end. The next item is taken when a call can be made for
            it, and not before. A plain iterable that blocks, such as a file, holds up the event loop meanwhile.
        fetch: Called with the item, and awaited: the helpers (`fetch_json`, `fetch_text.retry_with(max_retries=5)`,
            `functools.partial(fetch_json, session=session)`), a client's verb (`client.get`), a coroutine function
            decorated with `@retry_http`, or any other. Default: `fetch_json`, whose items are URLs.
        concurrency: The most calls that run at a time. Default: 100. The most items that were taken and whose results
            were not handed out yet are twice as many.
        ordered: Are the results to come in the order of the items? Default: no, as soon as they are there. In order, a
            slow call holds back the results after its own, and when these are as many as above, further calls, too.
        **misplaced: None. Those of each call go with `fetch`, as above.

    Returns:
        An async iterator of `Fetched`. Nothing is taken or called before it is iterated over.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: `concurrency` is less than 1.

    Where `items` raises an error, that comes out of the loop, after the results of the calls that run. What is no
    `Exception`, such as `CancelledError`, ends the loop at once where a call raises it; so does a `fetch` that returns
    nothing to be awaited, by a `TypeError`.

    The helpers, `stream` and `download` share one session where they are given none. Cookies last for one
    item. For credentials, cookies that all have, timeouts or a proxy, give them a session of your own, as above.
    """
    _refuse_items(items)
    _refuse_fetch(fetch)
    for name in misplaced:
        _refuse_misplaced(name, fetch)
    _refuse_concurrency(concurrency)
    return FetchAll(_Calls(items, fetch, concurrency, ordered=checks.flag("ordered", ordered)))


class FetchAll(AsyncIterator[Fetched[T_co, V_co]]):
    """The results of `fetch_all`: an async iterator.

    At the end of `async with`, all that still runs was cancelled, and has ended. A loop that is left without that
    cancels it, too, but can't wait for it. An async generator that the items come from is closed then.

    It is iterated over once: another loop goes on where the last one stopped, and ends at once where all is over. While
    one task waits for a result, no other can.
    """

    def __init__(self, calls: "_Calls[T_co, V_co]") -> None:
        self._calls = calls
        self._driver: asyncio.Task[None] | None = None
        self._is_waiting = False
        self._is_over = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._calls}>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Fetched[T_co, V_co]:
        if self._is_over:
            raise StopAsyncIteration
        if self._is_waiting:
            raise RuntimeError(
                "two tasks wait for the next result of one fetch_all; iterate in one of them, and hand the results on"
            )
        driver = self._driver = self._driver or self._calls.start()
        while (fetched := self._calls.take()) is None:
            if driver.done():
                self._end(driver)
                raise StopAsyncIteration
            await self._news()
        return fetched

    async def _news(self) -> None:
        """Wait until there may be a result. Who is cancelled meanwhile wants no more of them."""
        self._is_waiting = True
        try:
            await self._calls.news()
        except asyncio.CancelledError:
            self._calls.give_up()
            await self.aclose()
            raise
        finally:
            self._is_waiting = False

    def _end(self, driver: asyncio.Task[None]) -> None:
        """Raise what the calls ended with, if it was an error, and they were not closed."""
        was_over, self._is_over = self._is_over, True
        if was_over:
            return
        error = self._calls.take_error()
        if error is None:
            driver.result()
            return
        try:
            if not driver.cancelled() and (other := driver.exception()) is not None:
                error.add_note(f"and then, while the items were closed, there was a {type(other).__name__}")
                del other
            raise error
        finally:
            del error  # Its traceback leads back here.

    async def aclose(self) -> None:
        """Cancel what runs, and wait until it has ended. The results that are left are thrown away.

        Raises:
            Exception: An async generator that the items came from has raised it when it was closed.
        """
        was_over, self._is_over = self._is_over, True
        if self._driver is None:
            return
        self._calls.stop()
        try:
            await asyncio.wait([self._driver])
        except asyncio.CancelledError:  # What closes the items takes too long for who waits for it.
            self._driver.cancel()
            raise
        if not was_over and not self._driver.cancelled():
            self._driver.result()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    if not TYPE_CHECKING:  # Type checkers refuse them where they are missing.

        def _refuse(self, *_: object) -> NoReturn:
            raise TypeError(
                "the results of fetch_all come one by one; write `async with fetch_all(items) as results:`, and inside"
                " of it `async for fetched in results:`"
            )

        __await__ = __iter__ = __enter__ = _refuse

        def __exit__(self, *_: object) -> None:
            """Python looks for it before it enters."""

    def __del__(self) -> None:
        if self._driver is None or self._is_over:
            return
        loop = self._driver.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._calls.stop)  # The garbage collector runs in any thread.


class _Signal:
    """What one task waits for: an `asyncio.Event` does more for many, and there are two for each item."""

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None

    def next(self) -> asyncio.Future[None]:
        """The next time that it is set."""
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        return waiter

    def set(self) -> None:
        """Let who waits go on."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Calls(Generic[T, V]):
    """The calls that run, and the results that wait to be handed out."""

    def __init__(
        self, items: Items[T], fetch: Callable[[Any], Awaitable[V]], concurrency: int, *, ordered: bool
    ) -> None:
        self._items, self._fetch = items, without_options(fetch)
        self._concurrency, self._ordered = concurrency, ordered
        self._session = SharedSession()
        self._running: set[asyncio.Task[None]] = set()
        self._new: list[asyncio.Task[None]] = []
        """Those of which it is not known yet that they have begun, and"""
        self._newest: list[asyncio.Task[None]] = []
        """those which were started since that was last seen to."""
        self._results: dict[int, Fetched[T, V]] = {}
        """By the places at which they come."""
        self._started = self._ended = self._handed_out = 0
        """How many."""
        self._room, self._news = _Signal(), _Signal()
        self._error: BaseException | None = None
        self._is_stopped = False
        self._driver: asyncio.Task[None] | None = None

    def __str__(self) -> str:
        return f"{self._started} calls begun, {self._handed_out} results given"

    def start(self) -> asyncio.Task[None]:
        """Start the task that takes the items and starts the calls, and at the end closes what it has opened."""
        driver = self._driver = asyncio.create_task(self._drive(), name="retrykit.fetch_all")
        driver.add_done_callback(self._driver_ended)
        return driver

    def _driver_ended(self, _: object) -> None:
        self._driver = None  # How it was cancelled leads back here.
        self._news.set()

    def take(self) -> Fetched[T, V] | None:
        """The next result, if it is there."""
        result = self._results.pop(self._handed_out, None)
        if result is not None:
            self._handed_out += 1
            if self._has_room():
                self._room.set()
        return result

    def take_error(self) -> BaseException | None:
        """What has ended the calls."""
        error, self._error = self._error, None
        return error

    async def news(self) -> None:
        """Wait until the next result is there, or all is over."""
        await self._news.next()

    def stop(self, error: BaseException | None = None) -> None:
        """Cancel all calls, and throw the results away."""
        self._error = error
        while self._results:
            _, result = self._results.popitem()
            _throw_away(result)
        if not self._is_stopped and self._driver is not None:
            self._is_stopped = True
            self._driver.cancel()

    def give_up(self) -> None:
        """Cancel what is done at the end, if that is where it is."""
        if self._is_stopped and self._driver is not None:
            self._driver.cancel()

    async def _drive(self) -> None:
        items = self._items
        source = aiter(items) if isinstance(items, AsyncIterable) else _one_by_one(items)
        try:
            try:
                await self._start_calls(source)
            except Exception as error:  # noqa: BLE001 - it is the items' own, and comes out of the loop.
                self._error = error
            while self._running and not self._is_stopped:
                await self._change()
        finally:  # Each, whatever happens to another.
            try:
                await self._cancel_calls()
            finally:
                await self._close(source)

    async def _close(self, source: AsyncIterator[T]) -> None:
        try:
            if (close := getattr(source, "aclose", None)) is not None:
                await close()
        finally:
            await self._session.close()

    async def _start_calls(self, source: AsyncIterator[T]) -> None:
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()
        context.run(shared_session.set, self._session)
        async for item in source:
            if self._is_stopped:  # A generator may have swallowed that it was cancelled.
                return
            place = self._started if self._ordered else None
            self._started += 1
            call = loop.create_task(self._call(item, place), context=context.copy())
            if not call.done():  # A loop with eager tasks has begun it already, and maybe ended it.
                self._running.add(call)
                if not self._new and not self._newest:
                    loop.call_soon(self._see_who_has_begun, loop)
                self._newest.append(call)
            while not self._has_room():
                await self._change()

    def _has_room(self) -> bool:
        """May another call be started?"""
        return (
            len(self._running) < self._concurrency
            and self._started - self._handed_out < self._concurrency * _STARTED_PER_CALL
        )

    async def _change(self) -> None:
        """Wait until a call has ended, or a result was handed out."""
        await self._room.next()

    async def _call(self, item: T, place: int | None) -> None:
        """One call, in a task of its own. What it leaves in its context is gone with that.

        Args:
            item: The argument.
            place: That of its result; `None` where it is known only when the call has ended.
        """
        task: Any = asyncio.current_task()
        counter = scope.Counter(scope.counter.get())
        scope.counter.set(counter)
        began = clock.now()
        try:
            awaitable: Any = self._fetch(item)
            if not inspect.isawaitable(awaitable) or isinstance(awaitable, Opening):
                self._fail(self._unawaitable(awaitable))
                return
            value = await awaitable
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the result.
            self._keep(Fetched(item, None, error, 1 + counter.further, clock.now() - began), place)
        except BaseException:
            task.add_done_callback(self._broke_off)
            raise
        else:
            self._keep(Fetched(item, value, None, 1 + counter.further, clock.now() - began), place)
        self._running.discard(task)
        self._room.set()

    def _see_who_has_begun(self, loop: asyncio.AbstractEventLoop) -> None:
        """A call that somebody cancels before it has begun can't tell that it ended.

        A callback of each task's would tell, and cost more than all else that is done here for a call.
        """
        for call in self._new:  # They were to begin before this, since they were started before it was asked for.
            if call.cancelled():
                self._broke_off(call)
        self._new, self._newest = self._newest, []
        if self._new:
            loop.call_soon(self._see_who_has_begun, loop)

    def _broke_off(self, call: asyncio.Task[None]) -> None:
        """A call has ended with neither a value nor an error of its item's."""
        self._running.discard(call)
        error = asyncio.CancelledError() if call.cancelled() else call.exception()
        assert error is not None
        self._fail(error)

    def _keep(self, result: Fetched[T, V], place: int | None) -> None:
        if self._is_stopped:
            _throw_away(result)
            return
        place = self._ended if place is None else place
        self._ended += 1
        self._results[place] = result
        if place == self._handed_out:
            self._news.set()

    def _fail(self, error: BaseException) -> None:
        """End all, unless this is how it ends."""
        if not self._is_stopped:
            self.stop(error)

    def _unawaitable(self, value: object) -> UsageError:
        """It is the caller's mistake, and would be so for each item."""
        return UsageError(
            f"fetch_all: {checks.name_of(self._fetch)}() returned {checks.shown_type(value)}, which can't be awaited;"
            " give a coroutine function, or a function that returns what one returned"
        )

    async def _cancel_calls(self) -> None:
        self._is_stopped = True
        for call in self._running:
            call.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


async def _one_by_one(items: Iterable[T]) -> AsyncGenerator[T, None]:
    for item in items:
        yield item


def _throw_away(result: Fetched[Any, Any]) -> None:
    """Close a response that nobody will read."""
    if isinstance(result.value, ClientResponse):
        result.value.close()


def _refuse_items(items: object) -> None:
    if isinstance(items, str | bytes):
        raise TypeError(
            f"items is {checks.shown_type(items)}, and would be taken apart; give a list of what to fetch, such as"
            " fetch_all([url])"
        )
    if inspect.isfunction(items):
        raise TypeError("items is a function; the items come first, and then what is called with each: (urls, fetch)")
    if not isinstance(items, AsyncIterable | Iterable):
        raise TypeError(
            f"items is {checks.shown_type(items)}, which can't be iterated over; give a list, a generator, an async"
            " generator, or another iterable of what to fetch"
        )


def _refuse_fetch(fetch: object) -> None:
    if inspect.iscoroutine(fetch):
        fetch.close()
        raise TypeError(
            f"fetch is the coroutine {fetch.__qualname__}(...), which runs only once; give the function, which is"
            " called with each item"
        )
    if not callable(fetch):
        raise TypeError(
            f"fetch is {checks.shown_type(fetch)}, which can't be called; give a coroutine function of one argument,"
            " such as fetch_json"
        )


def _refuse_misplaced(name: str, fetch: object) -> None:
    """Say where an option belongs that each call has."""
    checks.refuse_misspelt(name, ("concurrency", "ordered"))
    option, called = checks.meant_by(name, _EACH_CALLS) or name, checks.name_of(fetch)
    if option in RetryOptions.__annotations__ and hasattr(fetch, "retry_with"):
        instead = f"{called}.retry_with({option}=...)"
    else:
        instead = f"functools.partial({called}, {option}=...)"
    raise TypeError(
        f"fetch_all has no option {name}=, and has concurrency= and ordered=; what is for each call goes with the"
        f" function: fetch_all(items, {instead})"
    )


_EACH_CALLS = (*CallOptions.__annotations__, "session")


def _refuse_concurrency(concurrency: object) -> None:
    if not isinstance(concurrency, int) or isinstance(concurrency, bool):
        raise TypeError(
            f"concurrency={concurrency!r} is no number of calls; write a whole number such as concurrency=100"
        )
    if concurrency < 1:
        raise ValueError(
            f"concurrency={concurrency} would never make a call; write concurrency=1 for one call at a time"
        )
