"""Ranges: by what the rest of a body can be asked for, and is an answer that rest? (RFC 9110 §13.1.5 and §14)."""

import re
from dataclasses import dataclass, replace
from typing import NamedTuple

from aiohttp import ClientResponse, hdrs
from yarl import URL

from retrykit.core.events import origin_of
from retrykit.core.retry_after import timestamp

OK, PARTIAL, UNSATISFIABLE = 200, 206, 416

# Strong, and of characters that a header can carry back as they came (RFC 9110 §8.8.3).
_STRONG_TAG = re.compile(r'"[!#-~]*"')
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII | re.IGNORECASE)
_UNSATISFIED_RANGE = re.compile(r"bytes \*/(\d{1,18})", re.ASCII | re.IGNORECASE)

# A message names these. What else a server sends there could forge lines of a log.
_CODINGS = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd", "compress"})

# A Last-Modified of the same second could be that of two versions, and one of nearly the same that of two clocks. By
# RFC 9110 §8.8.2.2 one second is the least; its predecessor, RFC 7232, named a minute, and that is what most clients
# take.
_SECONDS_UNTIL_STRONG = 60.0


@dataclass(frozen=True, slots=True)
class Representation:
    """What a body is a part of: the state of a resource in which all of it has to be."""

    place: str
    """Where it is: scheme, host, port and path of what has answered. A validator means nothing elsewhere."""
    validator: str | None
    """What `If-Range` has to be: a strong ETag, or a Last-Modified that is as good as one; `None` where there is
    neither."""
    size: int | None
    """In bytes; `None` where it is not known."""
    refusal: str | None = None
    """Why the rest can't be asked for; `None` where it can."""

    def as_known_from(self, part: "Part") -> "Representation":
        """The same, with the size that a part tells."""
        return self if self.size is not None else replace(self, size=part.size)


class Part(NamedTuple):
    """What a 206 has in it: the bytes from `start` up to, and without, `end`."""

    start: int
    end: int
    size: int | None
    """Of the whole; `None` where it doesn't say."""


def representation_of(response: ClientResponse) -> Representation:
    """What the body of this response, that was asked for as a whole, is."""
    validator, coding = _validator_of(response), _coding_of(response)
    refusal = None
    if response.status != OK:
        refusal = f"it came with a status of {response.status}"
    elif coding:
        refusal = "its server has coded it" + (f" ({coding})" if coding in _CODINGS else "")
    elif response.headers.get(hdrs.ACCEPT_RANGES, "").strip().lower() == "none":
        refusal = "its server takes no ranges (Accept-Ranges: none)"
    elif validator is None:
        refusal = "its server names neither a strong ETag nor a Last-Modified that could stand for one"
    # Other answers may have the length of what they don't have in them, such as a 304 (RFC 9110 §8.6).
    size = response.content_length if response.status == OK and not coding else None
    return Representation(place_of(response.url), validator, size, refusal)


def part_of(response: ClientResponse) -> Part | None:
    """What a 206 has in it; `None` where the response is no such, or doesn't say so, or can't be right.

    One of several parts says it inside of its body, and nobody has asked for that (RFC 9110 §15.3.7.2).
    """
    media_type = response.headers.get(hdrs.CONTENT_TYPE, "").strip().lower()
    if response.status != PARTIAL or media_type.startswith("multipart/byteranges"):
        return None
    found = _CONTENT_RANGE.fullmatch(response.headers.get(hdrs.CONTENT_RANGE, "").strip())
    if found is None:
        return None
    start, end = int(found[1]), int(found[2]) + 1
    size = None if found[3] == "*" else int(found[3])
    is_right = start < end and (size is None or end <= size) and response.content_length in (None, end - start)
    return Part(start, end, size) if is_right else None


def why_not_the_rest(response: ClientResponse, offset: int, known: Representation) -> str | None:
    """Why this answer can't resume a body of which `offset` bytes have come; `None` where it can.

    It was asked for with `Range: bytes=<offset>-` and `If-Range`.
    """
    if response.status == OK:
        is_another = _is_another(_validator_of(response), known.validator)
        return (
            "it has changed on its server" if is_another else "its server was asked for the rest, and has sent it whole"
        )
    if response.status != PARTIAL:
        return f"its server was asked for the rest, and has answered {response.status}"
    part = part_of(response)
    if part is None or part.start != offset or _coding_of(response):
        return "its server was asked for the rest, and has sent something else (by its Content-Range)"
    if None not in (part.size, known.size) and part.size != known.size:
        return "it has changed on its server, and has another size now"
    if _contradicts(response, known) or (known.size is not None and part.end > known.size):
        return "it has changed on its server"
    if not _shares_validator(response, known):
        return "its server was asked for the rest, and has sent some without the validator that says of what it is"
    if place_of(response.url) != known.place:
        return "another address answers for it now, by a redirect"
    return None


def is_whole(response: ClientResponse, offset: int, known: Representation) -> bool:
    """Does this answer to a request for the rest say that there is none: that these `offset` bytes are all of it?"""
    found = _UNSATISFIED_RANGE.fullmatch(response.headers.get(hdrs.CONTENT_RANGE, "").strip())
    return (
        response.status == UNSATISFIABLE
        and found is not None
        and int(found[1]) == offset
        and known.size in (None, offset)
        and not _contradicts(response, known)
        and (known.size is not None or _shares_validator(response, known))
        and place_of(response.url) == known.place
    )


def _validator_of(response: ClientResponse) -> str | None:
    """A strong validator; of a date, the Date of the response says whether it is one (RFC 9110 §8.8.2.2, §13.1.5)."""
    headers = response.headers
    if hdrs.ETAG in headers:
        tag = headers[hdrs.ETAG].strip()
        return tag if _STRONG_TAG.fullmatch(tag) else None
    modified, date = headers.get(hdrs.LAST_MODIFIED, "").strip(), headers.get(hdrs.DATE, "")
    changed, sent = timestamp(modified), timestamp(date)
    is_strong = changed is not None and sent is not None and sent - changed >= _SECONDS_UNTIL_STRONG
    return modified if is_strong and modified.isascii() and modified.isprintable() else None


def is_tag(validator: str | None) -> bool:
    """Is it an ETag, and no date?"""
    return validator is not None and validator.startswith('"')


def _is_another(validator: str | None, known: str | None) -> bool:
    """Is it a validator of the same kind that says something else?"""
    return validator is not None and is_tag(validator) == is_tag(known) and validator != known


def _contradicts(response: ClientResponse, known: Representation) -> bool:
    """Does it name another validator?"""
    named = response.headers.get(hdrs.ETAG if is_tag(known.validator) else hdrs.LAST_MODIFIED)
    return named is not None and named.strip() != known.validator


def _shares_validator(response: ClientResponse, known: Representation) -> bool:
    """Does a part have the validator of what it is to go on with? Only then may they be combined (RFC 9110 §15.3.7.3).

    It has to name the ETag, where there is one; but not the date, which was in the request.
    """
    names_tag = hdrs.ETAG in response.headers
    return names_tag if is_tag(known.validator) else not names_tag or hdrs.LAST_MODIFIED in response.headers


def _coding_of(response: ClientResponse) -> str:
    """How the body is coded; nothing where it is as it is."""
    codings = ", ".join(response.headers.getall(hdrs.CONTENT_ENCODING, ())).strip().lower()
    return "" if codings == "identity" else codings


def place_of(url: URL) -> str:
    """Without the query: a redirect that is signed anew each time has another one there."""
    return f"{origin_of(url)}{url.raw_path}"
