"""A decorated function still shows what it was, to whoever looks at it while the program runs."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest

from retrykit import RetryPolicy, retry_http


async def get_user(session: object, user_id: int, *fields: str, verbose: bool = False, **extra: float) -> list[str]:
    """Fetch a user."""
    return [str(session), str(user_id), *fields, str(verbose), *extra]


DECORATED = {
    "bare": retry_http(get_user),
    "with options": retry_http(max_retries=2)(get_user),
    "with a policy": retry_http(policy=RetryPolicy())(get_user),
    "timed": retry_http(timeout=30)(get_user),
    "retry_with": retry_http(get_user).retry_with(max_retries=5),
    "twice": retry_http(retry_http(get_user)),
}


@pytest.fixture(params=DECORATED.values(), ids=DECORATED)
def decorated(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_signature(decorated: Any) -> None:
    assert inspect.signature(decorated) == inspect.signature(get_user)


def test_names(decorated: Any) -> None:
    assert decorated.__name__ == "get_user"
    assert decorated.__qualname__ == "get_user"
    assert decorated.__module__ == __name__


def test_docstring(decorated: Any) -> None:
    assert decorated.__doc__ == "Fetch a user."


def test_type_hints(decorated: Any) -> None:
    assert get_type_hints(decorated) == {
        "session": object,
        "user_id": int,
        "fields": str,
        "verbose": bool,
        "extra": float,
        "return": list[str],
    }


def test_it_is_a_coroutine_function(decorated: Any) -> None:
    assert inspect.iscoroutinefunction(decorated)


def test_the_function_itself_is_at_hand(decorated: Any) -> None:
    assert inspect.unwrap(decorated) is get_user


def test_wrapped_is_what_was_decorated() -> None:
    assert DECORATED["bare"].__wrapped__ is get_user
    assert DECORATED["retry_with"].__wrapped__ is get_user


async def test_arguments_arrive_as_they_were_given(decorated: Any) -> None:
    assert await decorated("s", 1, "a", "b", verbose=True, x=1.0) == ["s", "1", "a", "b", "True", "x"]
    assert await decorated("s", user_id=1) == ["s", "1", "False"]


async def test_wrong_arguments_are_refused_as_before(decorated: Any) -> None:
    with pytest.raises(TypeError, match="user_id"):
        await decorated("s")


class Service:
    """Every kind of method."""

    @retry_http
    async def method(self, user_id: int) -> tuple[object, int]:
        """A method."""
        return self, user_id

    @staticmethod
    @retry_http
    async def static(user_id: int) -> int:
        """A static method."""
        return user_id

    @retry_http(max_retries=2)
    @staticmethod
    async def static_inside(user_id: int) -> int:
        """A static method."""
        return user_id

    @classmethod
    @retry_http
    async def of_class(cls, user_id: int) -> tuple[type, int]:
        """A class method."""
        return cls, user_id

    @retry_http(max_retries=2)
    @classmethod
    async def of_class_inside(cls, user_id: int) -> tuple[type, int]:
        """A class method."""
        return cls, user_id


class SpecialService(Service):
    """A subclass."""


SERVICE = SpecialService()
BOUND: dict[str, Callable[..., Any]] = {
    "method": SERVICE.method,
    "static": SERVICE.static,
    "static through the class": Service.static,
    "static inside": SERVICE.static_inside,
    "static inside through the class": Service.static_inside,
    "of class": SERVICE.of_class,
    "of class through the class": Service.of_class,
    "of class inside": SERVICE.of_class_inside,
    "of class inside through the class": Service.of_class_inside,
}


@pytest.mark.parametrize("method", BOUND.values(), ids=BOUND)
def test_a_bound_method_takes_neither_self_nor_class(method: Callable[..., Any]) -> None:
    assert list(inspect.signature(method).parameters) == ["user_id"]
    assert inspect.iscoroutinefunction(method)
    assert (method.__doc__ or "").endswith("method.")


def test_a_method_is_a_function_of_its_class() -> None:
    assert list(inspect.signature(Service.method).parameters) == ["self", "user_id"]
    assert Service.method.__qualname__ == "Service.method"


async def test_methods_get_their_first_argument() -> None:
    assert await SERVICE.method(1) == (SERVICE, 1)
    assert await Service.method(SERVICE, 1) == (SERVICE, 1)
    assert await SpecialService.of_class(1) == (SpecialService, 1)
    assert await SERVICE.of_class_inside(1) == (SpecialService, 1)
    assert await SpecialService.static(1) == 1
    assert await Service.static_inside(1) == 1


async def test_a_partial_keeps_the_rest_of_its_signature() -> None:
    of_one_session = retry_http(functools.partial(get_user, "s", verbose=True))
    assert list(inspect.signature(of_one_session).parameters) == ["user_id", "fields", "verbose", "extra"]
    assert inspect.iscoroutinefunction(of_one_session)
    assert await of_one_session(1) == ["s", "1", "True"]


async def test_what_is_called_and_awaited_becomes_a_coroutine_function() -> None:
    class Caller:
        """An object that is called."""

        async def __call__(self, user_id: int) -> int:
            return user_id

    decorated = retry_http(Caller())
    assert inspect.iscoroutinefunction(decorated)
    assert list(inspect.signature(decorated).parameters) == ["user_id"]
    assert await decorated(1) == 1
