"""What an option may be. Each refusal says what was given, why it is wrong, and what to write instead."""

import difflib
import inspect
import sys
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from typing import Any

from aiohttp import ClientTimeout
from tenacity.asyncio.retry import async_retry_base

from retrykit.core import classify
from retrykit.core.classify import Kind

# What other libraries call it.
_KNOWN_ELSEWHERE = {
    "attempts": "max_retries",
    "retries": "max_retries",
    "max_attempts": "max_retries",
    "max_tries": "max_retries",
    "tries": "max_retries",
    "total": "max_retries",
    "idempotency": "idempotency_key",
    "idempotence_key": "idempotency_key",
    "delay": "base_delay",
    "backoff": "base_delay",
    "backoff_factor": "base_delay",
    "start_timeout": "base_delay",
    "wait_initial": "base_delay",
    "wait_max": "max_delay",
    "max_timeout": "max_delay",
    "status_forcelist": "statuses",
    "multiplier": "base_delay",
    "on": "exceptions",
    "on_retry": "before_retry",
    "retry_on": "exceptions",
    "retry": "retry_if",
    "before_sleep": "before_retry",
    "retry_budget": "budget",
    "origin_pause": "pause",
    "circuit_breaker": "breaker",
    "hedge": "hedge_after",
    "hedging_delay": "hedge_after",
    "max_tokens": "capacity",
    "failure_threshold": "failure_rate",
    "recovery_timeout": "open_for",
    "reset_timeout": "open_for",
    "cooldown": "open_for",
    "checksum": "sha256",
    "digest": "sha256",
    "md5": "sha256",
    "sha1": "sha256",
    "callback": "progress",
    "on_progress": "progress",
    "verify": "ssl",
    "follow_redirects": "allow_redirects",
    "limit": "concurrency",
    "max_concurrency": "concurrency",
    "max_workers": "concurrency",
    "workers": "concurrency",
}

_OF_A_REQUEST = (
    "and goes with a request: fetch_json(url, {name}=...), client.get(path, {name}=...), or in a function of your own"
    " session.get(url, {name}=...)"
)
# What is no option of a policy, and where it belongs.
_BELONGS_ELSEWHERE = {
    "session": "and goes with a call or a client: fetch_json(url, session=session), AsyncHTTPClient(url,"
    " session=session), or as an argument of a function of your own",
    "policy": "and a policy is changed by policy.replace(max_retries=5)",
    **dict.fromkeys(("auth", "cookies", "data", "headers", "json", "params", "proxy", "ssl"), _OF_A_REQUEST),
}


def known_names(given: Iterable[str], known: Collection[str]) -> None:
    """Refuse options that don't exist."""
    for name in given:
        if name == "idempotency_key":
            raise TypeError(
                "idempotency_key= belongs to a single call of the client or a helper; elsewhere, make a key for each"
                " call, and send it as the header Idempotency-Key"
            )
        if name not in known:
            if name in _BELONGS_ELSEWHERE:
                raise TypeError(f"{name}= is no option here, {_BELONGS_ELSEWHERE[name].format(name=name)}")
            refuse_misspelt(name, (*known, "idempotency_key"))
            raise TypeError(f"there is no option {name}=; the options are {', '.join(known)}")


def no_others(make: Callable[..., Any], given: Iterable[str]) -> None:
    """Refuse options that what makes an object doesn't have."""
    if given:
        known_names(given, [name for name in inspect.signature(make).parameters if name not in ("self", "unknown")])


def refuse_misspelt(name: str, known: Collection[str]) -> None:
    """Refuse what is nearly the name of an option, or its name in another library."""
    if (meant := meant_by(name, known)) is not None:
        raise TypeError(f"there is no option {name}=; did you mean {meant}=?")


def meant_by(name: str, known: Collection[str]) -> str | None:
    """The option that this is nearly the name of, or its name in another library; `None` where there is none."""
    elsewhere = _KNOWN_ELSEWHERE.get(name)
    if elsewhere in known:
        return elsewhere
    return close_to(name, known)


def close_to(name: str, known: Collection[str], likeness: float = 0.8) -> str | None:
    """The one that is nearly written as this; `None` where there is none.

    Args:
        name: What was written.
        known: What there is.
        likeness: From 0 to 1, that it needs.
    """
    return next(iter(difflib.get_close_matches(name, known, 1, likeness)), None)


def is_number(value: object) -> bool:
    """An int or a float, but not a bool, which is an int only by its ancestry."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def attempts(name: str, value: Any) -> int:
    """A whole number, 1 or more."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(
            f"{name}={value!r} is no number of attempts; write a whole number such as {name}=3{_converted(int, value)}"
        )
    if value < 1:
        raise ValueError(
            f"{name}={value} would never send the request, since it counts attempts, the first included;"
            f" write {name}=1 for a single attempt without retries"
        )
    return value


def seconds(name: str, value: Any) -> float:
    """A finite time, 0 or more."""
    given = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(value, ClientTimeout):
        raise TypeError(
            f"{name}=ClientTimeout(...) is aiohttp's, and bounds single requests: give it to the session or the"
            f" request, and bound the call with seconds, such as {name}=30"
        )
    if value is None:
        raise TypeError(
            f"{name}=None is no time; write seconds as a number, such as {name}=2.5, or leave it out for the default"
        )
    if not is_number(given):
        raise TypeError(
            f"{name}={value!r} is no time; write seconds as a number, such as {name}=2.5{_converted(float, value)}, or"
            " a datetime.timedelta"
        )
    if not 0 <= given <= sys.float_info.max:
        raise ValueError(f"{name}={value!r} is no time to wait; write a finite number of seconds, 0 or more")
    return float(given)


def limit(name: str, value: Any) -> float:
    """A finite time above 0."""
    given = value.total_seconds() if isinstance(value, timedelta) else value
    if is_number(given) and given <= 0:
        raise ValueError(
            f"{name}={value!r} leaves no time for an attempt; write a number of seconds above 0, or {name}=None for no"
            " limit"
        )
    return seconds(name, value)


def positive(name: str, value: Any) -> float:
    """A finite time above 0, where there has to be one."""
    given = value.total_seconds() if isinstance(value, timedelta) else value
    if is_number(given) and not 0 < given <= sys.float_info.max:
        raise ValueError(
            f"{name}={value!r} is no length of time; write a finite number of seconds above 0, such as {name}=2.5"
        )
    return seconds(name, value)


def one_of(allowed: Collection[str], name: str, value: Any) -> Any:
    """One of some words."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}={value!r} is unknown; write one of {', '.join(map(repr, allowed))}")
    return value


def flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r} is neither True nor False; write one of them, or leave it out")
    return value


def statuses(name: str, value: Any) -> frozenset[int]:
    """Some HTTP statuses, or none."""
    if not isinstance(value, Iterable) or isinstance(value, str | bytes):
        raise TypeError(f"{name}={value!r} is no collection of statuses; write {name}={{429, 503}}")
    given = tuple(value)
    for status in given:
        if not isinstance(status, int) or isinstance(status, bool) or not 100 <= status <= 599:
            raise ValueError(
                f"{name} contains {status!r}, which is no HTTP status; write whole numbers from 100 to 599, such as"
                f" {name}={{429, 503}}{_converted(int, status)}"
            )
    return frozenset(map(int, given))


def exceptions(name: str, value: Any) -> tuple[type[Exception], ...]:
    """Some classes of exceptions that may be caught, and after which it makes sense to go on; or none."""
    if not isinstance(value, Iterable) or isinstance(value, str | bytes):
        given_name = value.__name__ if isinstance(value, type) else repr(value)
        example = given_name if isinstance(value, type) else "TimeoutError"
        raise TypeError(f"{name}={given_name} is no collection of classes; write a tuple such as {name}=({example},)")
    given = tuple(value)
    for item in given:
        if not (isinstance(item, type) and issubclass(item, BaseException)):
            raise TypeError(f"{name} contains {item!r}, which is no exception class; write {name}=(TimeoutError,)")
        if not issubclass(item, Exception):
            raise TypeError(
                f"{name} contains {item.__name__}, which must always come out at once, so that a task can be"
                " cancelled and a program stopped; write subclasses of Exception only"
            )
        if classify.kind_of_class(item) is Kind.PERMANENT:
            raise ValueError(
                f"{name} contains {item.__name__}, which is permanent: another attempt would fail in the same way;"
                " leave it out"
            )
    return given


def strategy(example: str, name: str, value: Any) -> Any:
    """A strategy that can be asked without waiting for its answer."""
    if not callable(value) or isinstance(value, type):
        raise TypeError(f"{name}={value!r} is no strategy; write an instance such as {name}={example}, or a callable")
    if isinstance(value, async_retry_base) or _answers_later(value):
        raise TypeError(
            f"{name}={name_of(value)} is asynchronous, and strategies are not: read what has to be judged inside"
            " the wrapped coroutine, and raise TryAgain there"
        )
    return value


def hook(name: str, value: Any) -> Any:
    """A coroutine function, or what may be one."""
    if inspect.iscoroutine(value):
        value.close()
        raise TypeError(
            f"{name} is the coroutine {value.__name__}(...), which runs only once; give the function, which is called"
            f" before each retry: {name}={value.__name__}"
        )
    if not callable(value):
        raise TypeError(f"{name}={value!r} can't be called; write a coroutine function of one argument, the RetryEvent")
    if inspect.isfunction(value) and not inspect.iscoroutinefunction(value) and value.__name__ != "<lambda>":
        raise TypeError(
            f"{name}={value.__name__} is a plain function, and is awaited; write `async def {value.__name__}`"
        )
    return value


def guard(example: str, methods: Collection[str], name: str, value: Any) -> Any:
    """An object that has these methods."""
    if isinstance(value, type):
        raise TypeError(f"{name}={value.__name__} is a class; write an object of it, such as {name}={example}")
    if isinstance(value, bool | int | float | str):
        raise TypeError(
            f"{name}={value!r} is no {name}; write {name}={example}, and share that object between the calls that it is"
            " for"
        )
    missing = [method for method in methods if not callable(getattr(value, method, None))]
    if missing and hasattr(value, name):  # A `Fleet` has it.
        raise TypeError(f"{name}={value!r} is no {name}, and has one; write its .{name}")
    if missing:
        raise TypeError(
            f"{name}={value!r} has no method {missing[0]}(); write {name}={example}, and share that object between the"
            " calls that it is for"
        )
    for method in methods:
        if method != "spend" and inspect.iscoroutinefunction(getattr(value, method)):
            raise TypeError(
                f"{name}={value!r} has a method {method}() that is asynchronous, and is not awaited; write"
                f" `def {method}`, which answers at once"
            )
    return value


def hedge_after(name: str, value: Any) -> Any:
    """A finite time above 0, or what tells one."""
    if isinstance(value, type):
        raise TypeError(
            f"{name}={value.__name__} is a class; write an object of it, such as {name}=LatencyQuantile(0.95)"
        )
    if not (callable(value) or is_number(value) or isinstance(value, timedelta)):
        raise TypeError(
            f"{name}={value!r} is no time; write seconds, such as {name}=0.2{_converted(float, value)}, or what tells"
            f" them, such as {name}=LatencyQuantile(0.95)"
        )
    if inspect.iscoroutinefunction(value):
        raise TypeError(f"{name}={name_of(value)} is asynchronous, and is not awaited; write `def {name_of(value)}`")
    return value if callable(value) else positive(name, value)


def name_of(value: object) -> str:
    """How a function or an object is called in a message."""
    return getattr(value, "__name__", type(value).__name__)


def shown_type(value: object) -> str:
    """What a value is, without the value, which may be secret: `None`, `a dict`, `an int`."""
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _converted(kind: type, value: object) -> str:
    """How text, such as that of a configuration file, becomes a number."""
    return f" (text is converted by {kind.__name__}())" if isinstance(value, str) else ""


def _answers_later(value: Any) -> bool:
    return inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__)
