"""retry_http: what can be decorated, and what comes of it."""

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, Unpack, cast, overload

from retrykit.core.checks import shown_type
from retrykit.core.errors import UsageError
from retrykit.core.limits import TimeLimits
from retrykit.core.loop import retrying
from retrykit.core.plan import Plan, Traits
from retrykit.core.policy import RetryOptions, RetryPolicy

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)

_UNKNOWN = Traits()


class _Taking(Protocol[S_contra, Q, R_co]):
    """A coroutine function whose first argument is an `S`."""

    def __call__(self, first: S_contra, /, *args: Q.args, **kwargs: Q.kwargs) -> Coroutine[Any, Any, R_co]: ...


class Retried(Protocol[P, R_co]):
    """A coroutine function under a policy, with the signature that it had before."""

    @property
    def policy(self) -> RetryPolicy:
        """Its options."""
        ...

    @property
    def __name__(self) -> str: ...

    @property
    def __wrapped__(self) -> Callable[P, Awaitable[R_co]]:
        """The function that was decorated."""
        ...

    def retry_with(self, *, policy: RetryPolicy | None = None, **options: Unpack[RetryOptions]) -> "Retried[P, R_co]":
        """The same function under changed options; this one stays as it is.

        Args:
            policy: Takes the place of the whole policy.
            **options: Change single options, of that policy or of the present one.
        """
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Make a call."""
        ...

    # Type checkers bind whatever has this method and stands in a class, @staticmethod or not. So the kinds of methods
    # are told apart by what they take first: the class, the instance, or neither.
    @overload
    def __get__(self: _Taking[S, Q, R], instance: object, owner: S) -> Callable[Q, Coroutine[Any, Any, R]]: ...
    @overload
    def __get__(self, instance: None, owner: type) -> "Retried[P, R_co]": ...
    @overload
    def __get__(
        self: "Retried[Concatenate[S, Q], R_co]", instance: S, owner: type | None = None
    ) -> Callable[Q, Coroutine[Any, Any, R_co]]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> "Retried[P, R_co]": ...


class RetryDecorator(Protocol):
    """What `retry_http(...)` gives: a decorator."""

    def __call__(self, fn: Callable[P, Awaitable[R]], /) -> Retried[P, R]:
        """Decorate."""
        ...


@overload
def retry_http(fn: Callable[P, Awaitable[R]], /) -> Retried[P, R]: ...
@overload
def retry_http(*, policy: RetryPolicy | None = None, **options: Unpack[RetryOptions]) -> RetryDecorator: ...
def retry_http(
    fn: Callable[..., Awaitable[Any]] | None = None,
    /,
    *,
    policy: RetryPolicy | None = None,
    **options: Unpack[RetryOptions],
) -> Any:
    """Make a coroutine try again where its HTTP request fails for the moment.

    `@retry_http`, `@retry_http(max_retries=3, base_delay=1.0)` and `@retry_http(policy=policy, max_retries=5)` decorate
    coroutine functions, methods, and anything else that is called and then awaited (`retry_http()(session.get)`).
    Each attempt is one run of the whole coroutine.

    A coroutine that returns an `aiohttp.ClientResponse` is judged by its status; one that returns anything else only by
    what it raises: call `response.raise_for_status()` in it.

    Args:
        fn: The coroutine function, where the decorator is written without parentheses.
        policy: The options as one value. Default: `RetryPolicy()`.
        **options: Single options, by the names that `RetryPolicy` has for them; they change the policy.

    Returns:
        The coroutine function, with the same signature, and three attributes: `retry_with(**options)` gives the same
        function under changed options, `policy` shows them, and `__wrapped__` is the function that was decorated.

    Raises:
        TypeError: What is decorated can't be awaited, or there is no such option.
        ValueError: An option has a value that can't work.

    The decorated function raises what its last attempt raised, but for a response that was given up on, which is raised
    as `GiveUpError` (unless `on_give_up="return"`).
    """
    policy = policy_of(policy, options)
    if fn is None:
        return functools.partial(decorate, policy=policy)
    return decorate(fn, policy)


def policy_of(policy: RetryPolicy | None, options: RetryOptions) -> RetryPolicy:
    """The policy, changed by the named options."""
    if policy is None:
        return RetryPolicy(**options)
    if isinstance(policy, type):
        raise TypeError(f"policy={policy.__name__} is a class; write an object of it, such as policy=RetryPolicy()")
    if not isinstance(policy, RetryPolicy):
        raise TypeError(
            f"policy={policy!r} is no RetryPolicy; write policy=RetryPolicy(max_retries=5), or just max_retries=5"
        )
    return policy.replace(**options) if options else policy


def decorate(
    fn: Callable[P, Awaitable[R]], policy: RetryPolicy, name: str | None = None, traits: Traits = _UNKNOWN
) -> Retried[P, R]:
    """`fn` under a policy.

    Args:
        fn: Makes one attempt.
        policy: The options.
        name: How its calls are named. Default: as it is.
        traits: What we know of it.
    """
    if isinstance(fn, staticmethod | classmethod):
        return cast(Retried[P, R], type(fn)(decorate(fn.__func__, policy)))
    _refuse_unawaitable(fn)
    name = name or _name_of(fn)
    is_awaitable = traits.returns_awaitable or inspect.iscoroutinefunction(fn)
    one_attempt: Callable[P, Awaitable[R]] = fn if is_awaitable else _awaited(fn, name)
    limits = None if policy.longest_attempt is None else TimeLimits(policy.longest_attempt)
    plan = Plan(one_attempt, policy, name, _place_of(one_attempt, name), traits, limits)
    call = functools.wraps(fn)(retrying(one_attempt, plan))
    own_policy = policy

    def retry_with(*, policy: RetryPolicy | None = None, **options: Unpack[RetryOptions]) -> Retried[P, R]:
        return decorate(fn, policy_of(own_policy if policy is None else policy, options), name, traits)

    vars(call).update(policy=policy, retry_with=retry_with)
    return cast(Retried[P, R], call)


def _awaited(fn: Callable[..., Any], name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    """A function that may return an awaitable, and is told so where it doesn't."""

    async def attempt(*args: Any, **kwargs: Any) -> Any:
        result = fn(*args, **kwargs)
        if not inspect.isawaitable(result):
            raise UsageError(
                f"retry_http: {name}() returned {shown_type(result)}, which can't be awaited; decorate a coroutine"
                f" function: `async def {name.rpartition('.')[2]}`, with `await` before each call of aiohttp"
            )
        return await result

    return attempt


def _refuse_unawaitable(fn: Any) -> None:
    name = _name_of(fn)
    if inspect.iscoroutine(fn):
        fn.close()
        raise TypeError(
            f"retry_http was given the coroutine {name}(...), which runs only once; decorate the function {name}"
        )
    if isinstance(fn, type) and not hasattr(fn, "__await__"):
        raise TypeError(f"retry_http can't decorate the class {name}; decorate its methods that are `async def`")
    if not callable(fn) and isinstance(fn, Coroutine):  # Such as session.get(url).
        fn.close()
        raise TypeError(
            "retry_http was given a request, which is sent only once; decorate the function that makes it, such as"
            " retry_http()(session.get), or an `async def` function that awaits it"
        )
    if isinstance(fn, RetryPolicy):
        raise TypeError("retry_http was given a policy, which goes by name; write @retry_http(policy=policy)")
    if not callable(fn) and hasattr(fn, "request"):
        raise TypeError(
            f"retry_http was given {shown_type(fn)}, which is no coroutine function; decorate the `async def` function"
            " that sends the request by it"
        )
    if not callable(fn):
        given = repr(fn) if isinstance(fn, int | float | None) else shown_type(fn)  # A URL may have secrets in it.
        raise TypeError(
            f"retry_http was given {given}, which is no coroutine function; options go by name:"
            " @retry_http(max_retries=3) or @retry_http(policy=policy)"
        )
    if inspect.isgeneratorfunction(fn) and _is_old_style_coroutine(fn):
        return
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise TypeError(
            f"retry_http can't decorate the generator {name}, which could break off after values were handed out;"
            " decorate the `async def` function that makes the request"
        )


def _is_old_style_coroutine(fn: Any) -> bool:
    """Is it a generator that `types.coroutine` has made awaitable?"""
    return bool(getattr(getattr(fn, "__code__", None), "co_flags", 0) & inspect.CO_ITERABLE_COROUTINE)


def _place_of(fn: Any, name: str) -> str:
    module = getattr(fn, "__module__", "") or ""
    return name if module.partition(".")[0] in ("", "retrykit") else f"{module}.{name}"


def _name_of(fn: Any) -> str:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return getattr(fn, "__qualname__", type(fn).__qualname__).rpartition("<locals>.")[2]
