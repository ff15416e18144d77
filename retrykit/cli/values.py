"""What an argument may be. Each refusal says what was given, why it is wrong, and what to write instead."""

import math
import re
from argparse import ArgumentTypeError
from pathlib import Path

_PICTURES = (".png", ".svg")
_MOST_SHOWN = 100
_NUMBER = r"\d+(?:\.\d+)?"
_SPAN = re.compile(rf"({_NUMBER})-({_NUMBER})", re.ASCII)
_OVERLOAD = re.compile(rf"({_NUMBER})-({_NUMBER})x({_NUMBER})", re.ASCII)
# What Python makes of bytes that are no UTF-8, or not the system's encoding: "surrogateescape" (PEP 383).
_UNDECODED = re.compile("[\udc80-\udcff]")


def url(text: str) -> str:
    """A URL, in which each byte that could not be decoded is percent-encoded: so it is sent (RFC 3986 §2.5)."""
    return _UNDECODED.sub(lambda char: f"%{ord(char[0]) - 0xDC00:02X}", text)


def attempts(text: str) -> int:
    """A number of attempts, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no number of attempts; 1 is a single one, without retries")
    return int(text)


def few_attempts(text: str) -> int:
    """A number of attempts that fit on a page."""
    number = attempts(text)
    if number > _MOST_SHOWN:
        raise ArgumentTypeError(f"{text} attempts are more than can be shown; give {_MOST_SHOWN} or fewer")
    return number


def whole(text: str) -> int:
    """A whole number, 0 or more."""
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is no whole number; give one such as 100")
    return int(text)


def count(text: str) -> int:
    """A whole number, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no whole number of 1 or more; give one such as 10")
    return int(text)


def per_second(text: str) -> float:
    """A number above 0."""
    number = _number(text)
    if not 0 < number < math.inf:
        raise ArgumentTypeError(f"{text!r} is no number per second; give one above 0, such as 600")
    return number


def share(text: str) -> float:
    """A number from 0 to 1."""
    number = _number(text)
    if not 0 <= number <= 1:
        raise ArgumentTypeError(f"{text!r} is no share of 1; give a number from 0 to 1, such as 0.02")
    return number


def seconds(text: str) -> float:
    """A time, 0 or more."""
    number = _number(text)
    if not 0 <= number < math.inf:
        raise ArgumentTypeError(f"{text!r} is no time; give a number of seconds, such as 2.5")
    return number


def limit(text: str) -> float:
    """A time above 0."""
    number = seconds(text)
    if number == 0:
        raise ArgumentTypeError(f"{text!r} leaves no time for an attempt; give a number of seconds above 0")
    return number


def outage(text: str) -> tuple[float, float]:
    """From when to when."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ArgumentTypeError(f"{text!r} does not say from when to when; give two numbers of seconds, such as 10-15")
    return _span(text, found)


def overload(text: str) -> tuple[float, float, float]:
    """From when to when there are how many times as many calls."""
    found = _OVERLOAD.fullmatch(text)
    if found is None:
        raise ArgumentTypeError(
            f"{text!r} does not say from when to when there are how many times as many calls; give it such as"
            " 40-45x1.5, which is half as many again for 5 s"
        )
    return *_span(text, found), float(found[3])


def picture(text: str) -> Path:
    """A file whose name says what kind of picture it is, in a folder that there is."""
    path = Path(text)
    if path.suffix.lower() not in _PICTURES:
        raise ArgumentTypeError(
            f"{text!r} is no name of a picture that can be drawn; end it with {' or '.join(_PICTURES)}"
        )
    try:
        is_folder, has_folder = path.is_dir(), path.parent.is_dir()
    except OSError as error:  # A name is too long, or a folder is not to be looked into.
        raise ArgumentTypeError(f"{text!r} can't be reached, {error.strerror}; give another file") from None
    if is_folder or not has_folder:
        wrong = f"{text!r} is a folder" if is_folder else f"there is no folder {str(path.parent)!r}"
        raise ArgumentTypeError(f"{wrong}; give the name of a file in a folder that there is")
    return path


def _span(text: str, found: re.Match[str]) -> tuple[float, float]:
    start, end = float(found[1]), float(found[2])
    if start >= end:
        raise ArgumentTypeError(f"{text!r} does not begin before it ends; give the earlier second first")
    return start, end


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
