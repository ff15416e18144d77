"""retry_http: what can be decorated, and what comes of it."""

import asyncio
import contextlib
import functools
import inspect
import types

import aiohttp
import pytest

from retrykit import RetryPolicy, retry_http


class Service:
    """A service whose every method fails twice, and then answers with its arguments."""

    def __init__(self):
        self.failures = 2

    def fail_twice(self):
        if self.failures:
            self.failures -= 1
            raise TimeoutError

    @retry_http
    async def method(self, word, *, suffix=""):
        """A method."""
        self.fail_twice()
        return self, word + suffix

    @classmethod
    @retry_http
    async def class_method(cls, word):
        return cls, word

    @staticmethod
    @retry_http
    async def static_method(word):
        return word

    @retry_http
    @staticmethod
    async def static_method_outside(word):
        return word

    @retry_http(max_retries=2)
    @classmethod
    async def class_method_outside(cls, word):
        return cls, word

    async def __call__(self, word):
        self.fail_twice()
        return word


async def answer(word="hello", *more, end="."):
    """The docstring."""
    return " ".join((word, *more)) + end


class TestWhatCanBeDecorated:
    async def test_methods(self, no_waits):
        service = Service()
        assert await service.method("a", suffix="b") == (service, "ab")
        assert no_waits == [1.0, 2.0]
        assert await Service.method(service, "a") == (service, "a")

    async def test_class_and_static_methods_with_the_decorator_inside_or_outside(self):
        assert await Service.class_method("a") == (Service, "a")
        assert await Service().class_method_outside("a") == (Service, "a")
        assert await Service.static_method("a") == "a"
        assert await Service().static_method_outside("a") == "a"

    async def test_partials(self, no_waits):
        service = Service()
        assert await retry_http()(functools.partial(service.method, suffix="!"))("a") == (service, "a!")

    async def test_callable_objects(self, no_waits):
        service = Service()
        assert await retry_http(service)("a") == "a"
        assert no_waits == [1.0, 2.0]

    async def test_what_merely_returns_an_awaitable(self, scripted_server, no_waits):
        scripted_server.script("/flaky", 503, {"id": 1})
        async with aiohttp.ClientSession() as session:
            response = await retry_http()(session.get)(f"{scripted_server.url}/flaky")
            assert await response.json() == {"id": 1}

    async def test_lambdas(self):
        assert await retry_http(lambda word: answer(word, end="!"))("hi") == "hi!"


class TestWhatIsKept:
    def test_it_is_a_coroutine_function_with_the_same_face(self):
        decorated = retry_http(max_retries=5)(answer)
        assert inspect.iscoroutinefunction(decorated)
        assert inspect.signature(decorated) == inspect.signature(answer)
        assert (decorated.__name__, decorated.__doc__) == ("answer", "The docstring.")
        assert decorated.__wrapped__ is answer

    async def test_arguments_go_through(self):
        assert await retry_http(answer)("hello", "world", end="!") == "hello world!"


class TestOptions:
    async def test_all_ways_to_give_them(self):
        policy = RetryPolicy(max_retries=7, timeout=9)
        assert retry_http(answer).policy == RetryPolicy()
        assert retry_http()(answer).policy == RetryPolicy()
        assert retry_http(max_retries=3, base_delay=1.0)(answer).policy == RetryPolicy()
        assert retry_http(policy=policy)(answer).policy is policy
        assert retry_http(policy=policy, max_retries=5)(answer).policy == RetryPolicy(max_retries=5, timeout=9)

    async def test_retry_with_gives_the_same_function_under_changed_options(self, no_waits):
        calls = []

        @retry_http(max_retries=2, timeout=60)
        async def fail():
            """Always."""
            calls.append(1)
            raise TimeoutError

        patient = fail.retry_with(max_retries=4, base_delay=0.5)
        assert patient.policy == RetryPolicy(max_retries=4, timeout=60, base_delay=0.5)
        assert fail.policy == RetryPolicy(max_retries=2, timeout=60)
        assert (patient.__name__, patient.__doc__) == ("fail", "Always.")
        with pytest.raises(TimeoutError):
            await patient()
        assert len(calls) == 4
        assert patient.retry_with(policy=RetryPolicy()).policy == RetryPolicy()
        assert patient.retry_with(policy=RetryPolicy(), max_retries=9).policy == RetryPolicy(max_retries=9)

    async def test_retry_with_on_a_method_is_given_the_instance(self, no_waits):
        service = Service()
        service.failures = 4
        assert await Service.method.retry_with(max_retries=5)(service, "a") == (service, "a")

    def test_mistakes_are_told(self):
        with pytest.raises(TypeError, match=r"policy=3 is no RetryPolicy; write policy=RetryPolicy\("):
            retry_http(policy=3)
        with pytest.raises(TypeError, match=r"there is no option max_attempts=; did you mean max_retries=\?"):
            retry_http(max_attempts=3)
        with pytest.raises(TypeError, match="retry_http was given 3, which is no coroutine function"):
            retry_http(3)
        with pytest.raises(TypeError, match="retry_http was given a str, which is no coroutine function"):
            retry_http("https://ada:secret@example.com/?token=secret")
        with pytest.raises(ValueError, match="max_retries=0"):
            retry_http(answer).retry_with(max_retries=0)
        with pytest.raises(TypeError, match=r"policy=\{\} is no RetryPolicy"):
            retry_http(answer).retry_with(policy={})
        with pytest.raises(TypeError, match=r"policy=RetryPolicy is a class; write an object of it"):
            retry_http(policy=RetryPolicy)


class TestWhatIsRefused:
    @pytest.mark.parametrize("given", [3, "fast", RetryPolicy(), None.__class__], ids=repr)
    def test_what_is_no_function(self, given):
        with pytest.raises(TypeError, match=r"retry_http (was given|can't decorate)"):
            retry_http(given)

    def test_options_without_their_names_are_shown_how(self):
        with pytest.raises(TypeError, match=r"options go by name: @retry_http\(max_retries=3\)"):
            retry_http(3)

    def test_a_policy_without_its_name(self):
        with pytest.raises(TypeError, match=r"given a policy, which goes by name; write @retry_http\(policy=policy\)"):
            retry_http(RetryPolicy())

    async def test_a_request(self):
        async with aiohttp.ClientSession() as session:
            with pytest.raises(
                TypeError, match=r"given a request, which is sent only once; .*retry_http\(\)\(session.get"
            ):
                retry_http(session.get("http://127.0.0.1/"))

    async def test_a_session(self):
        async with aiohttp.ClientSession() as session:
            with pytest.raises(
                TypeError, match=r"was given a ClientSession, .*; decorate the `async def` function that"
            ):
                retry_http(session)

    def test_a_class(self):
        with pytest.raises(TypeError, match=r"can't decorate the class Service; decorate its methods"):
            retry_http(Service)

    def test_generators(self):
        def generate():
            yield 1

        async def generate_later():
            yield 1

        for generator in (generate, generate_later):
            with pytest.raises(TypeError, match=r"can't decorate the generator .*generate"):
                retry_http(generator)

    def test_a_coroutine_that_was_called_already(self):
        with pytest.raises(
            TypeError, match=r"the coroutine answer\(\.\.\.\), which runs only once; decorate the function"
        ):
            retry_http(answer())

    async def test_a_refusal_is_not_retried_whatever_is_named(self, no_waits):
        calls = []
        with pytest.raises(TypeError, match="can't be awaited"):
            await retry_http(exceptions=(Exception,))(lambda: calls.append(1))()
        assert calls == [1]

    async def test_but_not_what_can_be_awaited_after_all(self):
        class Answer:
            def __init__(self, word):
                self.word = word

            def __await__(self):
                yield from ()
                return self.word

        @types.coroutine
        def old_style(word):
            yield from ()
            return word

        assert await retry_http(Answer)("a") == "a"
        assert await retry_http(old_style)("a") == "a"

    async def test_a_plain_function_at_the_call(self):
        calls = []

        @retry_http
        def plain(word):
            calls.append(word)
            return [word]

        with pytest.raises(TypeError, match=r"plain\(\) returned a list, which can't be awaited; .*`async def plain`"):
            await plain("a")
        assert calls == ["a"]

    async def test_a_function_that_forgot_to_return(self):
        with pytest.raises(TypeError, match=r"returned None, which can't be awaited"):
            await retry_http(lambda: None)()

    @pytest.mark.parametrize("fn", ["get", "answer"])
    async def test_a_request_that_is_returned_without_await(self, scripted_server, fn):
        @retry_http
        async def forgot(session):
            return session.get(scripted_server.url) if fn == "get" else answer()

        async with aiohttp.ClientSession() as session:
            with pytest.raises(TypeError, match=r"forgot\(\) returned a request or coroutine that it did not await"):
                await forgot(session)
        assert scripted_server.requests() == []

    async def test_an_async_context_manager(self):
        @retry_http
        @contextlib.asynccontextmanager
        async def managed():
            yield 1

        with pytest.raises(TypeError, match=r"managed\(\) returned a _AsyncGeneratorContextManager"):
            await managed()


async def test_wrong_arguments_are_not_retried(no_waits):
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        await retry_http(answer)(start="?")
    assert no_waits == []


async def test_concurrent_callers_of_one_function_are_independent(no_waits):
    counts = dict.fromkeys(range(3), 0)

    @retry_http
    async def fail(name, times):
        counts[name] += 1
        await asyncio.sleep(0)
        if counts[name] <= times:
            raise TimeoutError(name)
        return name

    results = await asyncio.gather(fail(0, 0), fail(1, 9), fail(2, 2), return_exceptions=True)
    assert results[0] == 0
    assert isinstance(results[1], TimeoutError)
    assert results[2] == 2
    assert counts == {0: 1, 1: 3, 2: 3}


async def test_a_value_with_attributes_of_its_own_making_is_not_asked_for_any():
    class Record(dict):
        def __getattr__(self, name):
            return self[name]

    @retry_http
    async def load():
        return Record(id=1)

    assert await load() == {"id": 1}
