"""What a guard keeps of each origin, for a bounded number of them."""

from typing import TypeVar

from aiohttp.typedefs import StrOrURL
from yarl import URL

from retrykit.core.events import origin_of

S = TypeVar("S")


def whole(name: str, value: object) -> int:
    """A whole number, 1 or more.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is less than 1.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r} is no whole number; write one such as {name}=10")
    if value < 1:
        raise ValueError(f"{name}={value} is less than 1; write a whole number such as {name}=10")
    return value


def share(name: str, value: object, example: float) -> float:
    """A number above 0 and not above 1.

    Raises:
        TypeError: It is no number.
        ValueError: It is not in (0, 1].
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r} is no number; write a share of 1, such as {name}={example:g}")
    if not 0 < value <= 1:
        raise ValueError(f"{name}={value!r} is no share of 1; write a number above 0 and up to 1: {name}={example:g}")
    return float(value)


def origin_named(origin: StrOrURL | None) -> str | None:
    """The origin that somebody asks for, written as guards have it: an address is on one.

    Raises:
        ValueError: It is none.
    """
    if origin is None:
        return None
    try:
        named = origin_of(URL(origin))
    except (ValueError, TypeError):
        named = None
    if named is None:
        raise ValueError(
            f"{origin!r} is no origin; write scheme, host and port, such as 'https://api.example.com', or nothing for"
            " what is not known by one, such as decorated coroutines"
        )
    return named


def keep(states: dict[str | None, S], origin: str | None, state: S, most: int) -> None:
    """Keep what is known of an origin, as the one that was used last; the one that was not used for longest goes."""
    if states.pop(origin, None) is None and len(states) >= most:
        del states[next(iter(states))]
    states[origin] = state
