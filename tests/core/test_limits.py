"""Limits in time: their order, their one timer, and whose cancellation is whose."""

import asyncio
import contextvars
import gc
import threading
import weakref
from contextlib import suppress

import aiohttp
import pytest

from retrykit import AsyncHTTPClient, attempt_number, fetch_json, retry_http
from retrykit.core import clock
from retrykit.core.limits import TimeLimit, TimeLimits
from retrykit.core.scope import deadline_left, time_left

LONG = 60.0


def limit(limits, left=None, number=1):
    return TimeLimit(limits, number, clock.now(), left)


def timers():
    """Those of the loop that are still to come."""
    return [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]


async def ticks(count=8):
    for _ in range(count):
        await asyncio.sleep(0)


def expire(limit):
    """What the timer does, when a limit's time has come."""
    del limit._queue.limits[limit]
    limit.expire()


class TestItsEnd:
    async def test_what_takes_too_long_is_cancelled_and_comes_out_as_a_timeout(self):
        with pytest.raises(TimeoutError) as raised:
            with limit(TimeLimits(0.02)):
                await asyncio.sleep(LONG)
        assert isinstance(raised.value.__cause__, asyncio.CancelledError)
        assert asyncio.current_task().cancelling() == 0

    async def test_what_ends_in_time_is_left_alone(self):
        limits = TimeLimits(0.02)
        with limit(limits):
            pass
        assert not limits.queue().limits
        await asyncio.sleep(0.04)
        assert asyncio.current_task().cancelling() == 0

    async def test_an_error_in_time_comes_out_as_itself(self):
        with pytest.raises(KeyError), limit(TimeLimits(LONG)):
            raise KeyError

    async def test_one_that_is_left_when_it_has_expired_is_no_longer_cancelled(self):
        limits = TimeLimits(LONG)
        with suppress(TimeoutError), limit(limits) as _:
            asyncio.get_running_loop().call_soon(lambda: expire(next(iter(limits.queue().limits))))
            await asyncio.sleep(LONG)
        await ticks()  # Nothing comes after it.
        assert not limits.queue().limits

    def test_it_needs_a_task(self):
        @retry_http(timeout=LONG)
        async def call():
            raise AssertionError

        loop = asyncio.new_event_loop()
        failed = []

        def drive():
            try:
                call().send(None)
            except RuntimeError as error:
                failed.append(str(error))

        loop.call_soon(drive)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        assert failed == ["a time limit works only inside of a task, such as asyncio.run() makes"]


class TestOneTimerForAll:
    async def test_many_share_it(self):
        limits, before = TimeLimits(LONG), len(timers())

        async def hold():
            with limit(limits):
                await asyncio.sleep(LONG)

        tasks = [asyncio.create_task(hold()) for _ in range(5)]
        await ticks(2)
        assert len(limits.queue().limits) == 5
        assert len(timers()) == before + 1 + 5  # … and five sleeps
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not limits.queue().limits

    async def test_each_ends_in_its_own_time(self):
        loop, limits, ended = asyncio.get_running_loop(), TimeLimits(0.1), []

        async def hold(name, late):
            await asyncio.sleep(late)
            began = loop.time()
            with suppress(TimeoutError), limit(limits):
                await asyncio.sleep(LONG)
            ended.append((name, loop.time() - began))

        await asyncio.gather(*(hold(name, late) for name, late in (("c", 0.06), ("a", 0.0), ("b", 0.03))))
        assert [name for name, _ in ended] == ["a", "b", "c"]
        assert all(0.099 <= took < 0.16 for _, took in ended)

    async def test_one_whose_first_is_gone_is_armed_for_the_next(self):
        loop, limits = asyncio.get_running_loop(), TimeLimits(0.1)
        with limit(limits):
            await asyncio.sleep(0.06)
        began = loop.time()
        with pytest.raises(TimeoutError), limit(limits):
            await asyncio.sleep(LONG)
        assert 0.099 <= loop.time() - began < 0.16

    async def test_after_all_have_gone_it_is_armed_anew(self):
        limits = TimeLimits(0.02)
        with limit(limits):
            pass
        await asyncio.sleep(0.04)
        assert limits.queue().timer is None
        with pytest.raises(TimeoutError), limit(limits):
            await asyncio.sleep(LONG)

    async def test_all_whose_time_has_come_end_at_once(self):
        limits = TimeLimits(0.03)

        async def hold():
            with limit(limits):
                await asyncio.sleep(LONG)

        ended = await asyncio.gather(*(hold() for _ in range(50)), return_exceptions=True)
        assert [type(error) for error in ended] == [TimeoutError] * 50
        assert not limits.queue().limits
        assert limits.queue().timer is None


class TestAShorterOne:
    async def test_it_ends_before_longer_ones_that_began_before(self):
        loop, limits, began = asyncio.get_running_loop(), TimeLimits(LONG), asyncio.get_running_loop().time()
        with limit(limits):
            with pytest.raises(TimeoutError), limit(limits, left=0.03):
                await asyncio.sleep(LONG)
            assert 0.029 <= loop.time() - began < 0.1

    async def test_it_leaves_no_timer(self):
        limits, before = TimeLimits(LONG), len(timers())
        for _ in range(3):
            with limit(limits, left=30.0):
                assert len(timers()) == before + 1
        assert len(timers()) == before

    @pytest.mark.parametrize(("left", "end"), [(None, 10), (100, 10), (10, 10), (4, 4)])
    async def test_it_is_what_is_left_where_that_is_less(self, left, end):
        with limit(TimeLimits(10), left=left):
            assert round(time_left()) == end
            assert (None if deadline_left() is None else round(deadline_left())) == left
        assert time_left() is None


class TestCancellation:
    async def drive(self, body, act):
        """Run `body` in a task, do `act(task)` while it waits, and say how it ended."""
        task = asyncio.create_task(body())
        await ticks(3)
        act(task)
        with suppress(asyncio.CancelledError, Exception):
            await task
        return asyncio.CancelledError if task.cancelled() else type(task.exception())

    @pytest.mark.parametrize("order", ["cancel, expire", "expire, cancel"])
    async def test_somebody_elses_at_the_same_moment_is_theirs(self, order):
        one = limit(TimeLimits(LONG))

        async def body():
            with one:
                await asyncio.sleep(LONG)

        def act(task):
            for step in order.split(", "):
                task.cancel() if step == "cancel" else expire(one)

        assert await self.drive(body, act) is asyncio.CancelledError

    async def test_one_from_before_is_not_counted(self):
        async def body():
            asyncio.current_task().cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            with pytest.raises(TimeoutError), limit(TimeLimits(0.01)):
                await asyncio.sleep(LONG)
            assert asyncio.current_task().cancelling() == 1
            raise KeyError

        assert await self.drive(body, lambda task: None) is KeyError

    @pytest.mark.parametrize("first", ["inner", "outer"])
    async def test_of_two_that_end_at_once_the_outer_one_counts(self, first):
        outer, inner, ended = limit(TimeLimits(LONG)), limit(TimeLimits(LONG)), []

        async def body():
            try:
                with outer:
                    try:
                        with inner:
                            await asyncio.sleep(LONG)
                    except TimeoutError:
                        ended.append("inner")
            except TimeoutError:
                ended.append("outer")
            ended.append(asyncio.current_task().cancelling())

        def act(task):
            for one in (inner, outer) if first == "inner" else (outer, inner):
                expire(one)

        await self.drive(body, act)
        assert ended == ["outer", 0]

    @pytest.mark.parametrize("nested", ["timeout inside", "timeout around"])
    async def test_beside_asyncios_own(self, nested):
        one, ended = limit(TimeLimits(LONG)), []

        async def body():
            if nested == "timeout inside":
                with pytest.raises(TimeoutError), one:
                    async with asyncio.timeout(LONG) as other:
                        ended.append(other)
                        await asyncio.sleep(LONG)
            else:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(LONG) as other:
                        ended.append(other)
                        with one:
                            await asyncio.sleep(LONG)
            ended[0] = ended[0].expired(), asyncio.current_task().cancelling()

        def act(task):
            if nested == "timeout around":
                ended[0].reschedule(0.0)  # It is called soon, and so is the other.
            asyncio.get_running_loop().call_soon(expire, one)

        await self.drive(body, act)
        assert ended == [(nested == "timeout around", 0)]

    async def test_what_swallows_it_goes_on_with_a_clean_count(self):
        one, after = limit(TimeLimits(LONG)), []

        async def body():
            with one:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(LONG)
            after.append(asyncio.current_task().cancelling())

        await self.drive(body, lambda task: expire(one))
        assert after == [0]

    async def test_what_turns_it_into_an_error_has_that_come_out_and_a_clean_count(self):
        one, after = limit(TimeLimits(LONG)), []

        async def body():
            try:
                with one:
                    try:
                        await asyncio.sleep(LONG)
                    except asyncio.CancelledError:
                        raise KeyError from None
            finally:
                after.append(asyncio.current_task().cancelling())

        assert await self.drive(body, lambda task: expire(one)) is KeyError
        assert after == [0]

    async def test_a_group_of_tasks_inside_ends_with_it(self):
        async def body():
            with limit(TimeLimits(0.02)):
                async with asyncio.TaskGroup() as group:
                    group.create_task(asyncio.sleep(LONG))

        assert await self.drive(body, lambda task: None) is TimeoutError


class TestLoopsAndThreads:
    def test_a_loop_after_another(self):
        @retry_http(attempt_timeout=0.02, max_retries=1)
        async def hang():
            await asyncio.sleep(LONG)

        @retry_http(attempt_timeout=LONG)
        async def soon():
            pass

        for _ in range(2):  # The first loop is closed with a timer to come.
            asyncio.run(soon())
            with pytest.raises(TimeoutError):
                asyncio.run(hang())

    def test_threads_at_once(self):
        @retry_http(attempt_timeout=0.05, max_retries=2, base_delay=0)
        async def hang():
            await asyncio.sleep(LONG)

        ended = []

        async def many():
            ended.extend(await asyncio.gather(*(hang() for _ in range(10)), return_exceptions=True))

        threads = [threading.Thread(target=asyncio.run, args=(many(),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
        assert [type(error) for error in ended] == [TimeoutError] * 30


class TestMarks:
    async def test_the_first_attempt_is_marked_where_it_is_limited(self):
        numbers = []

        @retry_http(base_delay=0)
        async def outer():
            numbers.append(attempt_number())
            await retry_http(timeout=LONG)(inner)()
            numbers.append(attempt_number())
            if len(numbers) < 6:
                raise TimeoutError

        async def inner():
            numbers.append(attempt_number())

        await outer()
        assert numbers == [1, 1, 1, 2, 1, 2]
        assert attempt_number() == 1

    async def test_a_call_that_was_cancelled_leaves_none(self):
        seen = []

        @retry_http(timeout=LONG)
        async def wait():
            await asyncio.sleep(LONG)

        async def caller():
            task = asyncio.current_task()
            asyncio.get_running_loop().call_soon(task.cancel)
            with suppress(asyncio.CancelledError):
                await wait()
            seen.append((deadline_left(), time_left(), attempt_number()))

        await asyncio.create_task(caller())
        assert seen == [(None, None, 1)]

    async def test_many_calls_in_one_task_leave_no_chain(self):
        @retry_http(timeout=LONG)
        async def call():
            pass

        def alive():
            gc.collect()
            return len([each for each in gc.get_objects() if isinstance(each, TimeLimit)])

        await call()
        before = alive()
        for _ in range(20):
            await call()
        assert alive() <= before


class TestNothingIsLeft:
    async def test_no_cycles_where_attempts_end_by_it(self):
        @retry_http(attempt_timeout=0.005, max_retries=2, base_delay=0)
        async def hang():
            await asyncio.sleep(LONG)

        left = []
        gc.disable()
        try:
            for _ in range(4):
                with suppress(TimeoutError):
                    await hang()
                await ticks(3)
                left.append(gc.collect())
        finally:
            gc.enable()
        assert left[-1] == 0

    async def test_a_task_that_fails_inside_of_one_is_no_cycle(self):
        @retry_http(timeout=LONG)
        async def fail():
            raise KeyError

        async def in_a_task():
            with suppress(KeyError):
                await asyncio.create_task(fail())

        left = []
        gc.disable()
        try:
            for _ in range(4):
                await in_a_task()
                await ticks(3)
                left.append(gc.collect())
        finally:
            gc.enable()
        assert left[-1] == 0

    async def test_a_call_that_is_closed_leaves_no_limit(self):
        function = retry_http(timeout=LONG)(asyncio.sleep)
        call = function(LONG)
        call.send(None)
        limits = [each for each in gc.get_objects() if isinstance(each, TimeLimits) and each.seconds == LONG]
        assert any(each._here.queue is not None and each._here.queue.limits for each in limits)
        call.close()
        assert not any(each._here.queue is not None and each._here.queue.limits for each in limits)


async def test_a_function_that_is_gone_leaves_no_timer():
    before = len(timers())
    for _ in range(20):
        await retry_http(timeout=LONG)(asyncio.sleep)(0)
    gc.collect()
    assert len(timers()) <= before + 2


async def test_options_of_a_call_leave_no_timer(scripted_server):
    scripted_server.script("/ok", {})
    async with aiohttp.ClientSession() as session:
        client = AsyncHTTPClient(scripted_server.url, session=session)
        await client.get("/ok", timeout=LONG)
        await fetch_json(scripted_server.url + "/ok", session=session, timeout=LONG)
        before = len(timers())
        for _ in range(10):
            await client.get("/ok", timeout=LONG)
            await fetch_json(scripted_server.url + "/ok", session=session, timeout=LONG)
        assert len(timers()) <= before + 2


def test_threads_that_take_turns_have_one_timer_each():
    call, counts, turn = retry_http(timeout=LONG)(asyncio.sleep), [], threading.Barrier(2)

    async def work():
        for _ in range(10):
            await call(0)
            turn.wait(5)
        counts.append(len(timers()))

    threads = [threading.Thread(target=asyncio.run, args=(work(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert max(counts) <= 1


async def test_the_timer_does_not_keep_what_the_first_call_had_around_it():
    class Mine:
        pass

    mine, call = contextvars.ContextVar("mine"), retry_http(timeout=LONG)(asyncio.sleep)

    async def first():
        mine.set(value := Mine())
        await call(0)
        return weakref.ref(value)

    kept = await asyncio.create_task(first())
    await asyncio.sleep(0)
    gc.collect()
    assert kept() is None


def test_they_go_by_the_clock_of_the_loop():
    class Loop(asyncio.SelectorEventLoop):
        """Its time jumps to the next timer, as in `looptime`."""

        now, rounds = 0.0, 0

        def time(self):
            return self.now

        def _run_once(self):
            self.rounds += 1
            if self.rounds > 100:
                raise AssertionError("it goes round and round")
            if not self._ready and self._scheduled:
                self.now = max(self.now, self._scheduled[0]._when)
            super()._run_once()

    @retry_http(attempt_timeout=0.2, max_retries=1)
    async def hang():
        await asyncio.Event().wait()

    loop = Loop()
    task = loop.create_task(hang())
    try:
        with pytest.raises(TimeoutError):
            loop.run_until_complete(task)
        assert round(loop.now, 3) == 0.2
    finally:
        task.cancel()
        loop.rounds = -1000
        loop.run_until_complete(asyncio.wait([task]))
        loop.close()


@pytest.mark.parametrize("attempt", [1, 2])
async def test_a_task_that_nobody_holds_ends_by_its_limit(attempt):
    ended, begun = [], []

    async def hang():
        begun.append(1)
        if len(begun) < attempt:
            raise TimeoutError
        await asyncio.Event().wait()

    async def background():
        try:
            await retry_http(timeout=0.05, base_delay=0)(hang)()
        except BaseException as error:
            ended.append(type(error))
            raise

    asyncio.create_task(background()).add_done_callback(lambda task: task.cancelled() or task.exception())
    await asyncio.sleep(0.01)
    gc.collect()
    await asyncio.sleep(0.08)
    assert ended == [TimeoutError]


async def test_what_can_not_be_limited_is_not_marked():
    failed = []

    @retry_http(timeout=LONG)
    async def call():
        raise AssertionError

    def drive():
        with pytest.raises(RuntimeError):
            call().send(None)
        failed.append(deadline_left())

    asyncio.get_running_loop().call_soon(drive)
    await asyncio.sleep(0.01)
    assert failed == [None]
