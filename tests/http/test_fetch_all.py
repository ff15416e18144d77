"""fetch_all: many calls, a bounded number of them at once."""

import asyncio
import contextlib
import functools
import gc
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from retrykit import (
    AsyncHTTPClient,
    GiveUpError,
    attempt_number,
    download,
    fetch_all,
    fetch_bytes,
    fetch_json,
    fetch_text,
    get,
    retry_http,
    stream,
)
from retrykit.core.clock import using
from retrykit.core.errors import UsageError
from retrykit.testing import Stall
from tests.faults import SOON, STALL, STALL_IN_BODY, FaultServer, answer
from tests.guards.clock import ManualClock

ORDERS = pytest.mark.parametrize("ordered", [False, True], ids=["as they end", "ordered"])


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return number * 2


async def turns(count: int = 20) -> None:
    """Let all happen that can happen without the help of anybody else."""
    for _ in range(count):
        await asyncio.sleep(0)


def others() -> set[asyncio.Task[Any]]:
    """The tasks but for this one."""
    return asyncio.all_tasks() - {asyncio.current_task()}


class Gate:
    """Calls that wait until each is let through."""

    def __init__(self) -> None:
        self.waiting: dict[Any, asyncio.Future[Any]] = {}
        self.cancelled: list[Any] = []
        self.most = 0

    async def __call__(self, item: Any) -> Any:
        self.waiting[item] = asyncio.get_running_loop().create_future()
        self.most = max(self.most, len(self.waiting))
        try:
            return await self.waiting[item]
        except asyncio.CancelledError:
            self.cancelled.append(item)
            raise
        finally:
            del self.waiting[item]

    async def open(self, *items: Any) -> None:
        for item in items:
            self.waiting[item].set_result(f"{item}!")
            await turns()


class Counting:
    """Numbers, and how many of them were taken."""

    def __init__(self, count: int | None = None) -> None:
        self.count, self.taken = count, 0

    def plain(self) -> Iterator[int]:
        while self.taken != self.count:
            self.taken += 1
            yield self.taken - 1

    async def later(self) -> AsyncIterator[int]:
        for number in self.plain():
            await asyncio.sleep(0)
            yield number


KINDS = pytest.mark.parametrize("items_of", [Counting.plain, Counting.later], ids=["plain", "async"])


@pytest.fixture
def gate() -> Gate:
    return Gate()


# --- results ----------------------------------------------------------------------------------------------------------


async def test_each_item_has_its_result(scripted_server, no_waits):
    for path, steps in {"/a": [{"id": 1}], "/b": [503, {"id": 2}], "/c": [404], "/d": [503]}.items():
        scripted_server.script(path, *steps)
    urls = [scripted_server.url + path for path in ("/a", "/b", "/c", "/d")]
    found = {fetched.item: fetched async for fetched in fetch_all(urls)}
    assert found.keys() == set(urls)
    a, b, c, d = (found[url] for url in urls)
    assert (a.value, a.error, a.attempts, a.result()) == ({"id": 1}, None, 1, {"id": 1})
    assert (b.value, b.error, b.attempts) == ({"id": 2}, None, 2)
    assert (c.value, getattr(c.error, "status", None), c.attempts) == (None, 404, 1)
    assert isinstance(d.error, GiveUpError)
    assert d.attempts == 3
    with pytest.raises(GiveUpError) as raised:
        d.result()
    assert raised.value is d.error


async def test_elapsed_is_the_time_of_the_call_with_its_waits(scripted_server, no_waits):
    scripted_server.script("/down", 503)
    scripted_server.script("/up", {})
    urls = [f"{scripted_server.url}/{path}" for path in ("down", "up", "down")]
    down, up, again = [fetched.elapsed async for fetched in fetch_all(urls, ordered=True, concurrency=1)]
    assert 3 <= down < 4
    assert 0 < up < 1
    assert 3 <= again < 4


async def test_a_hedge_is_an_attempt(scripted_server):
    scripted_server.script("/x", Stall(), {"id": 1})
    urls, fetch = [f"{scripted_server.url}/x"], fetch_json.retry_with(hedge_after=0.05)
    async with asyncio.timeout(SOON):  # It has a connection, though all the calls that may run have one.
        assert [(f.value, f.attempts) async for f in fetch_all(urls, fetch, concurrency=1)] == [({"id": 1}, 2)]


async def test_none_is_a_value():
    async def nothing(item: int) -> None:
        pass

    async for fetched in fetch_all([1], nothing):
        assert (fetched.value, fetched.error) == (None, None)
        assert fetched.result() is None


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda client, session: client.get, {"id": 1}),
        (lambda client, session: lambda path: client.get_text(path, max_retries=2), '{"id": 1}'),
        (
            lambda client, session: lambda path: fetch_bytes.retry_with(max_retries=2)(client.base_url / "x"),
            b'{"id": 1}',
        ),
        (
            lambda client, session: lambda path: functools.partial(fetch_json, session=session)(client.base_url / "x"),
            {"id": 1},
        ),
        (lambda client, session: retry_http(base_delay=0)(lambda path: client.get(path, max_retries=1)), {"id": 1}),
    ],
)
async def test_whatever_is_called_and_awaited_can_fetch(scripted_server, no_waits, make, expected):
    scripted_server.script("/x", 503, {"id": 1})
    async with AsyncHTTPClient(scripted_server.url) as client, aiohttp.ClientSession() as session:
        found = [fetched async for fetched in fetch_all(["/x"], make(client, session))]
    assert [(fetched.item, fetched.value, fetched.attempts) for fetched in found] == [("/x", expected, 2)]


async def test_urls_may_be_objects(scripted_server):
    scripted_server.script("/x", "text")
    url = URL(scripted_server.url) / "x"
    assert [(f.item, f.value) async for f in fetch_all({url}, fetch_text)] == [(url, "text")]


# --- order and concurrency --------------------------------------------------------------------------------------------


async def test_results_come_as_their_calls_end(gate):
    results = fetch_all(list("wxyz"), gate)
    waiting = asyncio.create_task(anext(results))
    await turns()
    await gate.open("y", "w", "x")
    came = [await waiting, await anext(results), await anext(results)]
    assert [(fetched.item, fetched.value) for fetched in came] == [("y", "y!"), ("w", "w!"), ("x", "x!")]
    await gate.open("z")
    assert [fetched.value async for fetched in results] == ["z!"]


async def test_in_order_results_come_as_their_items_did(gate):
    results = fetch_all(list("xyz"), gate, ordered=True)
    waiting = asyncio.create_task(anext(results))
    await turns()
    await gate.open("z", "y")
    assert not waiting.done()
    await gate.open("x")
    assert [(await waiting).item, *[fetched.item async for fetched in results]] == ["x", "y", "z"]


@ORDERS
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_so_many_calls_run_and_no_more(gate, ordered, concurrency):
    async with fetch_all(range(20), gate, concurrency=concurrency, ordered=ordered) as results:
        for number in range(5):
            waiting = asyncio.create_task(anext(results))
            await turns()
            assert list(gate.waiting) == list(range(number, number + concurrency))
            await gate.open(number)
            assert (await waiting).item == number
    assert gate.most == concurrency


# --- items ------------------------------------------------------------------------------------------------------------


@ORDERS
@KINDS
async def test_items_are_taken_when_a_call_can_be_made_and_not_before(gate, items_of, ordered):
    numbers = Counting()
    async with fetch_all(items_of(numbers), gate, concurrency=3, ordered=ordered) as results:
        await turns()
        assert numbers.taken == 0
        waiting = asyncio.create_task(anext(results))
        await turns()
        assert numbers.taken == 3
        await gate.open(0)
        assert numbers.taken == 4
        await waiting


@ORDERS
@KINDS
async def test_a_slow_loop_holds_the_items_back(items_of, ordered):
    numbers = Counting()
    async with fetch_all(items_of(numbers), double, concurrency=3, ordered=ordered) as results:
        for handed_out in range(1, 6):
            await anext(results)
            await turns(40)
            assert numbers.taken == handed_out + 6  # Twice as many as there are calls.


async def test_in_order_a_slow_call_holds_the_items_back(gate):
    numbers = Counting()
    results = fetch_all(numbers.plain(), gate, concurrency=3, ordered=True)
    waiting = asyncio.create_task(anext(results))
    await turns()
    for number in range(1, 6):
        await gate.open(number)
    assert numbers.taken == 6
    assert list(gate.waiting) == [0]
    await gate.open(0)
    assert (await waiting).item == 0
    await turns()
    assert numbers.taken == 7
    await results.aclose()


@KINDS
async def test_without_items_there_are_no_results(items_of):
    assert [fetched async for fetched in fetch_all(items_of(Counting(0)), double)] == []


async def test_an_iterable_that_is_both_is_taken_for_an_async_one():
    class Both(list[int]):
        async def __aiter__(self) -> AsyncIterator[int]:
            for number in self:
                yield number + 100

    assert [fetched.item async for fetched in fetch_all(Both([1, 2]), double)] == [101, 102]


async def test_the_results_of_one_may_be_the_items_of_another():
    async with fetch_all(range(5), double) as doubled:
        fetch_items = (fetched.result() async for fetched in doubled)
        assert sorted([fetched.result() async for fetched in fetch_all(fetch_items, double)]) == [0, 4, 8, 12, 16]


class BrokenError(Exception):
    """Of the items."""


def broken(after: int) -> Iterator[int]:
    yield from range(after)
    raise BrokenError


async def broken_later(after: int) -> AsyncIterator[int]:
    for number in broken(after):
        yield number


class NotEvenBegun:
    """An iterable that can't be iterated over."""

    def __iter__(self) -> Iterator[int]:
        raise BrokenError


class NotEvenBegunLater:
    """The same, asynchronous."""

    def __aiter__(self) -> AsyncIterator[int]:
        raise BrokenError


@ORDERS
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (NotEvenBegun, 0),
        (NotEvenBegunLater, 0),
        (lambda: broken(0), 0),
        (lambda: broken_later(0), 0),
        (lambda: broken(7), 7),
        (lambda: broken_later(7), 7),
    ],
)
async def test_an_error_of_the_items_comes_out_after_the_results_of_those_before(make, expected, ordered):
    came: list[int] = []
    results = fetch_all(make(), double, concurrency=3, ordered=ordered)
    with pytest.raises(BrokenError):
        async for fetched in results:
            came += [fetched.item]
    assert sorted(came) == list(range(expected))
    assert others() == set()
    with pytest.raises(StopAsyncIteration):
        await anext(results)


async def test_an_error_in_the_cleanup_of_the_items_comes_out_of_the_end():
    async def items() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            raise BrokenError

    with pytest.raises(BrokenError):
        async with fetch_all(items(), double) as results:
            await anext(results)
    assert others() == set()


async def test_items_that_swallow_their_cancellation_end_nevertheless(gate):
    entered = asyncio.Event()

    async def stubborn() -> AsyncIterator[int]:
        yield -1
        for number in range(1000):
            try:
                entered.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                yield number

    async with asyncio.timeout(SOON), fetch_all(stubborn(), gate) as results:
        waiting = asyncio.create_task(anext(results))
        await entered.wait()
    with pytest.raises(StopAsyncIteration):
        await waiting
    assert gate.waiting == {}


# --- failures ---------------------------------------------------------------------------------------------------------


@ORDERS
@pytest.mark.parametrize("fails", [lambda number: number == 3, lambda number: True], ids=["one", "all"])
async def test_a_failure_ends_none_of_the_others(fails, ordered):
    async def fetch(number: int) -> int:
        await asyncio.sleep(0)
        if fails(number):
            raise ValueError(number)
        return number

    found = {f.item: f async for f in fetch_all(range(20), fetch, concurrency=4, ordered=ordered)}
    for number in range(20):
        if fails(number):
            assert isinstance(found[number].error, ValueError)
            assert found[number].error.args == (number,)
        else:
            assert found[number].result() == number
    assert len(found) == 20


async def test_what_fails_before_there_is_anything_to_await_is_a_failure_as_well():
    def fetch(number: int) -> Awaitable[int]:
        return double(10 // number)

    found = {f.item: f async for f in fetch_all([0, 1], fetch)}
    assert isinstance(found[0].error, ZeroDivisionError)
    assert found[1].value == 20


@pytest.mark.parametrize("fetch", [lambda number: number, lambda number: None, str], ids=["int", "None", "str"])
async def test_a_fetch_that_cannot_be_awaited_ends_the_loop(fetch):
    numbers = Counting()
    with pytest.raises(TypeError, match=r"fetch_all: .*\(\) returned .*, which can't be awaited; give a coroutine"):
        async for _ in fetch_all(numbers.plain(), fetch, concurrency=3):
            pytest.fail("there is no result")
    assert numbers.taken == 3
    assert others() == set()


async def test_what_is_no_async_iteration_says_how_it_is_done(scripted_server):
    for use in (iter, lambda results: results.__await__(), lambda results: results.__enter__()):
        with pytest.raises(TypeError, match="inside of it `async for fetched in results:`"):
            use(fetch_all([scripted_server.url]))
    assert not scripted_server.requests()


async def test_a_stream_that_is_not_opened_ends_the_loop(scripted_server):
    urls = [scripted_server.url] * 3
    with pytest.raises(TypeError, match=r"fetch_all: stream\(\) returned .*, which can't be awaited"):
        async for _ in fetch_all(urls, stream):
            pytest.fail("there is no result")
    assert not scripted_server.requests()


async def test_a_call_that_somebody_cancels_before_it_has_begun_ends_all(gate):
    def items() -> Iterator[int]:
        yield 0
        for task in asyncio.all_tasks():
            if "_call" in repr(task.get_coro()):
                task.cancel()
        yield 1

    async with asyncio.timeout(SOON):
        with pytest.raises(asyncio.CancelledError):
            await anext(fetch_all(items(), gate))
    await turns()
    assert others() == set()


async def test_what_takes_long_to_close_does_not_hold_up_who_has_a_deadline():
    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(3600)

    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), fetch_all(items(), lambda item: item, concurrency=1) as results:
            await anext(results)
    assert loop.time() - began < SOON
    await turns()
    assert others() == set()


async def test_a_chain_is_closed_as_a_whole(gate):
    async with fetch_all(range(10), gate, concurrency=2) as inner:
        fetched = fetch_all(inner, double, concurrency=1)
        waiting = asyncio.create_task(anext(fetched))
        await turns()
        assert list(gate.waiting) == [0, 1]
        waiting.cancel()
        await asyncio.wait([waiting])
        assert sorted(gate.cancelled) == [0, 1]
        assert others() == set()


async def test_a_mistake_in_one_that_is_inside_of_a_call_ends_that_call_alone():
    async def inside(number: int) -> Any:
        fetch = (lambda item: item) if number == 1 else double
        return [fetched.value async for fetched in fetch_all([number], fetch)]

    async with fetch_all(range(3), inside, ordered=True) as results:
        ends = [type(fetched.error) if fetched.error else fetched.value async for fetched in results]
    assert ends == [[0], UsageError, [4]]


async def test_attempts_inside_of_a_call_are_those_of_the_call(no_waits: list[float]):
    tries: list[int] = []

    @retry_http
    async def second_time(number: int) -> int:
        tries.append(number)
        if tries.count(number) < 2:
            raise ConnectionError
        return number

    async def inside(number: int) -> list[int]:
        return [fetched.attempts async for fetched in fetch_all([number, number + 10], second_time, ordered=True)]

    async with fetch_all([1], inside) as results:
        assert [(fetched.value, fetched.attempts) async for fetched in results] == [([2, 2], 3)]


async def test_an_attempt_that_is_refused_is_none():
    async def hook(_: object) -> None:
        await asyncio.sleep(0)
        clock.time += 10

    @retry_http(timeout=5, base_delay=0, before_retry=hook)
    async def fail(_: int) -> None:
        raise ConnectionError

    clock = ManualClock()
    with using(clock):
        async with fetch_all([1], fail) as results:
            assert [fetched.attempts async for fetched in results] == [1]


async def test_two_errors_at_the_end():
    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            raise BrokenError

    with pytest.raises(UsageError) as raised:
        await anext(fetch_all(items(), lambda item: item, concurrency=1))
    assert raised.value.__notes__ == ["and then, while the items were closed, there was a BrokenError"]


async def test_what_ended_the_loop_comes_out_and_not_what_came_of_that(gate):
    def fetch(number: int) -> Any:
        return gate(number) if number != 2 else number

    with pytest.raises(TypeError, match="can't be awaited"):
        async for _ in fetch_all(range(5), fetch):
            pytest.fail("there is no result")
    assert sorted(gate.cancelled) == [0, 1, 3, 4]


async def test_a_call_that_is_cancelled_from_within_ends_the_loop(gate):
    async def fetch(number: int) -> object:
        if number == 2:
            raise asyncio.CancelledError
        return await gate(number)

    results = fetch_all(Counting().plain(), fetch, concurrency=5)
    with pytest.raises(asyncio.CancelledError):
        async for _ in results:
            pytest.fail("there is no result")
    assert gate.waiting == {}
    assert {0, 1} <= set(gate.cancelled)
    assert others() == set()
    assert [fetched async for fetched in results] == []


def test_a_keyboard_interrupt_in_a_call_ends_the_program(gate):
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            for number in range(100):
                yield number
        finally:
            closed.append(True)

    async def fetch(number: int) -> object:
        if number == 2:
            raise KeyboardInterrupt
        return await gate(number)

    async def main() -> None:
        async for _ in fetch_all(items(), fetch, concurrency=5):
            pytest.fail("there is no result")

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert closed == [True]
    assert gate.waiting == {}


# --- the end ----------------------------------------------------------------------------------------------------------


class Leaving:
    """Ways out of a loop after its first result, while other calls run."""

    @staticmethod
    async def by_break(items: Any, fetch: Any) -> None:
        async with fetch_all(items, fetch, concurrency=3) as results:
            async for _ in results:
                break

    @staticmethod
    async def by_error(items: Any, fetch: Any) -> None:
        with pytest.raises(BrokenError):
            async with fetch_all(items, fetch, concurrency=3) as results:
                async for _ in results:
                    raise BrokenError

    @staticmethod
    async def by_aclose(items: Any, fetch: Any) -> None:
        results = fetch_all(items, fetch, concurrency=3)
        await anext(results)
        await results.aclose()
        await results.aclose()
        assert [fetched async for fetched in results] == []

    @staticmethod
    async def cancelled_while_it_waits(items: Any, fetch: Any) -> None:
        await Leaving._cancelled(items, fetch, busy=False)

    @staticmethod
    async def cancelled_in_its_body(items: Any, fetch: Any) -> None:
        await Leaving._cancelled(items, fetch, busy=True)

    @staticmethod
    async def _cancelled(items: Any, fetch: Any, *, busy: bool) -> None:
        has_begun = asyncio.Event()

        async def loop() -> None:
            results = fetch_all(items, fetch, concurrency=3)
            async for _ in results:
                has_begun.set()
                if busy:
                    async with results:
                        await asyncio.Event().wait()

        task = asyncio.create_task(loop())
        await has_begun.wait()
        await turns()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    @staticmethod
    async def by_plain_break(items: Any, fetch: Any) -> None:
        async for _ in fetch_all(items, fetch, concurrency=3):
            break

    @staticmethod
    async def by_plain_error(items: Any, fetch: Any) -> None:
        with pytest.raises(BrokenError):
            async for _ in fetch_all(items, fetch, concurrency=3):
                raise BrokenError


Leave = Callable[[Any, Any], Awaitable[None]]
SURE = [
    Leaving.by_break,
    Leaving.by_error,
    Leaving.by_aclose,
    Leaving.cancelled_while_it_waits,
    Leaving.cancelled_in_its_body,
]
PLAIN = [Leaving.by_plain_break, Leaving.by_plain_error]


class Closing:
    """Items that never end; and a call each, of which only the first ends by itself."""

    def __init__(self) -> None:
        self.are_closed = False
        self.gate = Gate()

    async def items(self) -> AsyncIterator[int]:
        try:
            for number in range(1000):
                yield number
        finally:
            await asyncio.sleep(0)
            self.are_closed = True

    async def fetch(self, number: int) -> int:
        try:
            return await self.gate(number) if number else number
        finally:
            await turns(5)  # Who is cancelled may need some more.


@pytest.mark.parametrize("leave", [*SURE, *PLAIN], ids=lambda leave: leave.__name__)
async def test_who_leaves_early_leaves_nothing_behind(leave: Leave):
    closing = Closing()
    await leave(closing.items(), closing.fetch)
    if leave in PLAIN:  # It can't wait for the end, which comes by itself.
        assert others()
        await turns()
    assert others() == set()
    assert closing.are_closed
    assert closing.gate.waiting == {}
    assert len(closing.gate.cancelled) >= 2


@pytest.mark.parametrize("leave", [*SURE, *PLAIN], ids=lambda leave: leave.__name__)
def test_the_event_loop_may_be_closed_right_afterwards(leave: Leave, caplog):
    closing = Closing()

    async def main() -> None:
        await leave(closing.items(), closing.fetch)

    asyncio.run(main())
    gc.collect()
    assert closing.are_closed
    assert closing.gate.waiting == {}
    assert caplog.records == []


@pytest.mark.parametrize("leave", [*SURE, *PLAIN], ids=lambda leave: leave.__name__)
async def test_who_leaves_early_closes_the_connections(faults: FaultServer, leave: Leave):
    faults.script("/quick", answer(200, b"{}"))
    faults.script("/slow", STALL)
    await leave([f"{faults.url}/quick", *[f"{faults.url}/slow"] * 10], fetch_json)
    await faults.all_closed()
    await turns()
    assert others() == set()


def test_it_may_outlive_its_event_loop():
    async def main() -> Any:
        results = fetch_all(range(9), double, concurrency=3)
        await anext(results)
        return results

    results = asyncio.run(main())
    assert results is not None
    del results
    gc.collect()


async def test_a_response_that_comes_after_the_end_is_closed(faults: FaultServer):
    url = faults.script("/x", STALL_IN_BODY)
    has_come = asyncio.Event()

    async def stubborn(session: aiohttp.ClientSession) -> aiohttp.ClientResponse:
        response = await get(session, url)
        try:
            has_come.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        return response

    async with aiohttp.ClientSession() as session:
        results = fetch_all([session], stubborn)
        waiting = asyncio.create_task(anext(results))
        await has_come.wait()
        await results.aclose()
        await faults.all_closed()
        await asyncio.wait([waiting])
        assert others() == set()
    gc.collect()


async def test_what_was_kept_of_the_results_keeps_nothing_running(gate):
    async def fetch(number: int) -> object:
        if number == 0:
            raise ValueError
        return await gate(number)

    kept = []
    async for fetched in fetch_all(range(9), fetch, concurrency=3):
        kept.append(fetched)  # Its error has a traceback.
        break
    await turns()
    assert isinstance(kept[0].error, ValueError)
    assert others() == set()


async def test_responses_that_nobody_took_are_closed(faults: FaultServer):
    url = faults.script("/x", STALL_IN_BODY)
    async with aiohttp.ClientSession() as session:
        async with fetch_all([url] * 4, functools.partial(get, session)) as results:
            first = (await anext(results)).result()
            async with asyncio.timeout(SOON):
                while len(faults.requests) < 4:
                    await asyncio.sleep(0.001)
        await faults.all_but(1)
        assert not first.closed
        first.close()
    gc.collect()


async def test_what_is_never_iterated_over_does_nothing():
    closing = Closing()
    fetch_all(closing.items(), closing.fetch)
    async with fetch_all(closing.items(), closing.fetch):
        await turns()
    assert others() == set()


async def test_a_second_loop_goes_on_where_the_first_one_stopped():
    async with fetch_all(range(5), double, ordered=True) as results:
        async for fetched in results:
            if fetched.item == 1:
                break
        assert [fetched.item async for fetched in results] == [2, 3, 4]
        assert [fetched.item async for fetched in results] == []


async def test_two_tasks_cannot_wait_at_once(gate):
    async with fetch_all(range(5), gate) as results:
        waiting = asyncio.create_task(anext(results))
        await turns()
        with pytest.raises(RuntimeError, match="two tasks wait for the next result of one fetch_all; iterate in one"):
            await anext(results)
        await gate.open(3)
        assert (await waiting).item == 3


async def test_another_task_can_end_a_loop(gate):
    results = fetch_all(range(5), gate)
    waiting = asyncio.create_task(anext(results))
    await turns()
    await results.aclose()
    with pytest.raises(StopAsyncIteration):
        await waiting


async def test_nothing_is_left_to_the_garbage_collector():
    async def fail(number: int) -> None:
        await asyncio.sleep(0)
        raise ValueError(number)

    async def run() -> None:
        async for fetched in fetch_all(range(50), fail, concurrency=5):
            assert fetched.error is not None

    await run()
    gc.collect()
    gc.disable()
    try:
        await run()
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="Python 3.12 has it")
@ORDERS
async def test_tasks_may_be_eager(ordered):
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)

    async def at_once(number: int) -> int:
        return number

    for fetch in (at_once, double):
        found = [f.item async for f in fetch_all(range(20), fetch, concurrency=3, ordered=ordered)]
        assert sorted(found) == list(range(20))


# --- what the calls share ---------------------------------------------------------------------------------------------


async def test_the_helpers_share_a_session(faults: FaultServer):
    urls = [faults.script(f"/{number}", answer(503), answer(200, b"{}")) for number in range(20)]
    async with fetch_all(urls, fetch_json.retry_with(base_delay=0), concurrency=3) as results:
        assert all([fetched.error is None async for fetched in results])
        assert len(faults.requests) == 40
        assert faults.connections <= 3
    await faults.all_closed()


async def test_a_function_that_looks_like_a_helper_is_called_itself(faults: FaultServer):
    url = faults.script("/x", answer(200, b"{}"))

    @functools.wraps(fetch_json)
    async def with_a_number(url: str) -> Any:
        return 1, await fetch_json(url)

    async with fetch_all([url], with_a_number) as results:
        assert [fetched.result() async for fetched in results] == [(1, {})]


async def test_streams_and_downloads_share_it_too(faults: FaultServer, tmp_path: Path):
    url = faults.script("/x", answer(200, b"body"))

    async def read(number: int) -> bytes:
        if number % 2:
            return (await download(url, tmp_path / str(number))).read_bytes()
        async with stream(url) as body:
            return await body.read()

    async with fetch_all(range(6), read, concurrency=1) as results:
        assert [fetched.result() async for fetched in results] == [b"body"] * 6
    assert faults.connections == 1


async def test_the_session_is_closed_when_the_last_result_is_there(faults: FaultServer):
    url = faults.script("/x", answer(200, b"{}"))
    assert len([fetched async for fetched in fetch_all([url] * 3)]) == 3
    await faults.all_closed()


async def test_no_cookie_goes_from_one_call_to_another(faults: FaultServer):
    url = faults.script("/x", answer(200, b"{}", {"Set-Cookie": "who=me"}))
    url = url.replace("127.0.0.1", "localhost")  # A number has no cookies anyway.
    assert all([fetched.error is None async for fetched in fetch_all([url] * 3, concurrency=1)])
    assert [request.headers.get("Cookie") for request in faults.requests] == [None] * 3


async def test_but_within_a_call_they_last(faults: FaultServer):
    seen = answer(303, b"", {"Set-Cookie": "who=me", "Location": "/x"})
    url = faults.script("/x", seen, answer(503), answer(200, b"{}")).replace("127.0.0.1", "localhost")
    async with fetch_all([url], fetch_json.retry_with(base_delay=0)) as results:
        assert [fetched.result() async for fetched in results] == [{}]
    assert [request.headers.get("Cookie") for request in faults.requests] == [None, "who=me", "who=me"]


async def test_a_call_may_hold_as_many_connections_as_it_likes(faults: FaultServer):
    urls = [faults.script(f"/{number}", STALL_IN_BODY) for number in range(4)]

    async def hold_all(_: int) -> int:
        async with contextlib.AsyncExitStack() as held:
            for url in urls:
                await held.enter_async_context(stream(url))
            return len(faults.requests)

    async with asyncio.timeout(SOON), fetch_all(range(2), hold_all, concurrency=1) as results:
        assert [fetched.result() async for fetched in results] == [4, 8]


async def test_a_thread_with_a_loop_of_its_own_has_a_session_of_its_own(faults: FaultServer):
    url = faults.script("/x", answer(200, b"{}"))

    async def in_a_thread(url: str) -> Any:
        return await fetch_json(url), await asyncio.to_thread(asyncio.run, fetch_json(url))

    async with fetch_all([url], in_a_thread) as results:
        assert [fetched.result() async for fetched in results] == [({}, {})]


async def test_a_session_of_ones_own_is_used_and_stays_open(faults: FaultServer):
    url = faults.script("/x", answer(200, b"{}"))
    async with aiohttp.ClientSession(headers={"X-Key": "1"}) as session:
        async for fetched in fetch_all([url] * 3, functools.partial(fetch_json, session=session), concurrency=1):
            assert fetched.result() == {}
        assert {request.headers["X-Key"] for request in faults.requests} == {"1"}
        await session.get(url)
        assert faults.connections == 1


async def test_only_the_calls_share_it(faults: FaultServer):
    url = faults.script("/x", answer(200, b"{}"))
    in_the_background: list[asyncio.Task[Any]] = []
    may_go_on = asyncio.Event()

    async def items() -> AsyncIterator[str]:
        yield url
        await fetch_json(url)

    async def fetch(url: str) -> None:
        async def after_the_end() -> Any:
            await may_go_on.wait()
            return await fetch_json(url)

        await fetch_json(url)
        in_the_background.append(asyncio.create_task(after_the_end()))

    async for _ in fetch_all(items(), fetch):
        await fetch_json(url)
    may_go_on.set()
    assert await in_the_background[0] == {}
    assert faults.connections == len(faults.requests) == 4


variable: ContextVar[int] = ContextVar("variable", default=0)


async def test_a_context_is_for_one_call():
    async def fetch(_item: int) -> int:
        before = variable.get()
        variable.set(before + 1)
        return before

    variable.set(7)
    assert [fetched.value async for fetched in fetch_all(range(5), fetch, concurrency=2)] == [7] * 5


async def test_an_attempt_is_one_of_its_own_call(no_waits):
    @retry_http
    async def fetch(item: int) -> int:
        if item == 0 and attempt_number() < 3:
            raise ConnectionError
        return attempt_number()

    found = [(f.value, f.attempts) async for f in fetch_all([0, 1, 0], fetch, concurrency=1, ordered=True)]
    assert found == [(3, 3), (1, 1), (3, 3)]


async def test_the_time_of_a_call_around_it_bounds_the_calls(scripted_server):
    scripted_server.script("/slow", Stall())

    @retry_http(timeout=0.2, max_retries=1)
    async def crawl() -> None:
        async for _ in fetch_all([f"{scripted_server.url}/slow"]):
            pytest.fail("there is no result")

    with pytest.raises(TimeoutError):
        await crawl()


# --- mistakes ---------------------------------------------------------------------------------------------------------


async def coroutine() -> None:
    """It is not called."""


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fetch_all("http://a.example"), TypeError, r"items is a str, .*; give a list .* fetch_all\(\[url\]\)"),
        (lambda: fetch_all(b"http://a.example"), TypeError, "items is a bytes, and would be taken apart"),
        (lambda: fetch_all(URL("http://a.example")), TypeError, "items is an? URL, which can't be iterated over"),
        (lambda: fetch_all(None), TypeError, "items is None, which can't be iterated over; give a list, a generator"),
        (lambda: fetch_all([], None), TypeError, "fetch is None, which can't be called; give a coroutine function of"),
        (lambda: fetch_all([], coroutine()), TypeError, r"fetch is the coroutine coroutine\(...\), which runs only"),
        (lambda: fetch_all([], double, concurrency=0), ValueError, "concurrency=0 would never make a call; write"),
        (lambda: fetch_all([], double, concurrency=2.5), TypeError, "concurrency=2.5 is no number of calls; write a"),
        (lambda: fetch_all([], double, concurrency=True), TypeError, "concurrency=True is no number of calls"),
        (lambda: fetch_all([], double, ordered=1), TypeError, "ordered=1 is neither True nor False"),
        (lambda: fetch_all(double, []), TypeError, "items is a function; the items come first"),
        (lambda: fetch_all([], double, concurency=3), TypeError, r"no option concurency=; did you mean concurrency=\?"),
        (
            lambda: fetch_all([], max_retries=5),
            TypeError,
            r"fetch_all has no option max_retries=, .*: fetch_all\(items, fetch_json.retry_with\(max_retries=...\)\)",
        ),
        (lambda: fetch_all([], workers=5), TypeError, r"no option workers=; did you mean concurrency=\?"),
        (lambda: fetch_all([], retries=5), TypeError, r"fetch_json.retry_with\(max_retries=...\)"),
        (lambda: fetch_all([], session=3), TypeError, r"\(items, functools.partial\(fetch_json, session=...\)\)"),
        (lambda: fetch_all([], double, max_retries=5), TypeError, r"functools.partial\(double, max_retries=...\)"),
    ],
)
def test_mistakes_are_told_at_once(call, error, message):
    with pytest.raises(error, match=message):
        call()


# --- whatever comes ---------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    ends=st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=30),
    concurrency=st.integers(1, 12),
    ordered=st.booleans(),
    later=st.booleans(),
    pauses=st.integers(0, 4),
)
def test_each_item_comes_out_once(
    ends: list[tuple[int, bool]], concurrency: int, ordered: bool, later: bool, pauses: int
) -> None:
    """Whatever the calls come to, and after how many turns of the event loop."""
    running = most = 0

    async def fetch(number: int) -> int:
        nonlocal running, most
        needed, fails = ends[number]
        running += 1
        most = max(most, running)
        await turns(needed)
        running -= 1
        if fails:
            raise ValueError(number)
        return number * 2

    async def main() -> list[tuple[int, int | None, Any]]:
        numbers = Counting(len(ends))
        items: Iterable[int] | AsyncIterator[int] = numbers.later() if later else numbers.plain()
        came = []
        async for fetched in fetch_all(items, fetch, concurrency=concurrency, ordered=ordered):
            came.append((fetched.item, fetched.value, getattr(fetched.error, "args", None)))
            assert numbers.taken <= len(came) + 2 * concurrency
            await turns(pauses)
        assert others() == set()
        return came

    came = asyncio.run(main())
    expected = [(n, None, (n,)) if fails else (n, n * 2, None) for n, (_, fails) in enumerate(ends)]
    assert (came if ordered else sorted(came, key=lambda one: one[0])) == expected
    assert most <= concurrency


async def test_what_is_shown_of_a_result_has_nothing_of_its_request_but_the_item(scripted_server):
    scripted_server.script("/a", {"id": 1})
    scripted_server.script("/b", "no JSON")
    headers = {"Authorization": "Bearer s3cret"}
    async with aiohttp.ClientSession(scripted_server.url, headers=headers) as session:
        fetch = functools.partial(fetch_json, session=session)
        results = [fetched async for fetched in fetch_all(["/a", "/b"], fetch, ordered=True)]
    a, b = (re.sub(r"elapsed=\d+\.\d{3}\)", "elapsed=...)", repr(fetched)) for fetched in results)
    assert a == "Fetched(item='/a', value={'id': 1}, error=None, attempts=1, elapsed=...)"
    assert b == "Fetched(item='/b', value=None, error=ContentTypeError(...), attempts=1, elapsed=...)"


async def test_it_shows_how_far_it_has_come(scripted_server):
    scripted_server.script("/a", {"id": 1})
    async with fetch_all([f"{scripted_server.url}/a"]) as results:
        assert repr(results) == "<FetchAll: 0 calls begun, 0 results given>"
        await anext(results)
        assert repr(results) == "<FetchAll: 1 calls begun, 1 results given>"
