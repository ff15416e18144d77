"""What the rest of a body can be asked for by, and which answers are that rest: pure rules."""

from types import SimpleNamespace
from typing import Any

import pytest
from multidict import CIMultiDict
from yarl import URL

from retrykit.http.ranges import (
    Part,
    Representation,
    is_whole,
    part_of,
    representation_of,
    why_not_the_rest,
)

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
MINUTE_BEFORE = "Sun, 06 Nov 1994 08:48:37 GMT"
JUST_BEFORE = "Sun, 06 Nov 1994 08:48:38 GMT"
URL_ = URL("https://example.com/file?signature=1")
PLACE = "https://example.com/file"
KNOWN = Representation(PLACE, '"v1"', 1000)
BY_DATE = Representation(PLACE, MINUTE_BEFORE, 1000)


def answer(status: int = 200, url: URL = URL_, length: int | None = None, **headers: str) -> Any:
    named = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return SimpleNamespace(status=status, headers=named, url=url, content_length=length)


def part(span: str = "bytes 400-999/1000", length: int | None = None, **headers: str) -> Any:
    return answer(206, length=length, Content_Range=span, **headers)


class TestValidator:
    @pytest.mark.parametrize(
        ("headers", "validator"),
        [
            ({"ETag": '"v1"'}, '"v1"'),
            ({"ETag": ' "v1" '}, '"v1"'),
            ({"ETag": '""'}, '""'),
            ({"ETag": 'W/"v1"'}, None),
            ({"ETag": "v1"}, None),
            ({"ETag": '"v"1"'}, None),
            ({"ETag": '"v 1"'}, None),
            ({"ETag": '"é"'}, None),
            # A date counts only where there is no ETag at all, and where it is old enough.
            ({"ETag": 'W/"v1"', "Last_Modified": MINUTE_BEFORE, "Date": DATE}, None),
            ({"Last_Modified": MINUTE_BEFORE, "Date": DATE}, MINUTE_BEFORE),
            ({"Last_Modified": JUST_BEFORE, "Date": DATE}, None),
            ({"Last_Modified": DATE, "Date": MINUTE_BEFORE}, None),
            ({"Last_Modified": MINUTE_BEFORE}, None),
            ({"Last_Modified": "yesterday", "Date": DATE}, None),
            ({"Last_Modified": MINUTE_BEFORE, "Date": "today"}, None),
            ({}, None),
        ],
    )
    def test_is_strong(self, headers: dict[str, str], validator: str | None):
        known = representation_of(answer(**headers))
        assert known.validator == validator
        assert (known.refusal is None) == (validator is not None)


class TestRepresentation:
    def test_has_the_place_without_the_query(self):
        assert representation_of(answer(length=3, ETag='"v1"')) == Representation(PLACE, '"v1"', 3)

    @pytest.mark.parametrize(
        ("response", "refusal"),
        [
            (answer(203, ETag='"v1"'), "it came with a status of 203"),
            (answer(ETag='"v1"', Content_Encoding="GZip"), "its server has coded it (gzip)"),
            (answer(ETag='"v1"', Content_Encoding="x\u2028forged"), "its server has coded it"),
            (answer(ETag='"v1"', Accept_Ranges="none"), "its server takes no ranges (Accept-Ranges: none)"),
            (answer(), "its server names neither a strong ETag nor a Last-Modified that could stand for one"),
            (answer(ETag='"v1"', Accept_Ranges="bytes"), None),
            (answer(ETag='"v1"', Content_Encoding="identity"), None),
        ],
    )
    def test_says_why_the_rest_can_not_be_asked_for(self, response: Any, refusal: str | None):
        assert representation_of(response).refusal == refusal

    @pytest.mark.parametrize("response", [answer(length=3, Content_Encoding="gzip"), answer(304, length=3)])
    def test_may_have_a_size_that_is_not_known(self, response: Any):
        assert representation_of(response).size is None

    def test_learns_its_size_from_a_part(self):
        unsized = Representation(PLACE, '"v1"', None)
        assert unsized.as_known_from(Part(0, 5, 10)).size == 10
        assert KNOWN.as_known_from(Part(0, 5, 10)).size == 1000


class TestPart:
    @pytest.mark.parametrize(
        ("response", "expected"),
        [
            (part(), Part(400, 1000, 1000)),
            (part("bytes 0-0/1"), Part(0, 1, 1)),
            (part("BYTES 0-0/1"), Part(0, 1, 1)),
            (part("bytes 400-999/*"), Part(400, 1000, None)),
            (part(length=600), Part(400, 1000, 1000)),
            (part(length=599), None),
            (part("bytes 400-1000/1000"), None),
            (part("bytes 400-399/1000"), None),
            (part("bytes */1000"), None),
            (part("400-999/1000"), None),
            (part("bytes ٤-9/10"), None),
            (part("bytes 400-999"), None),
            (part(f"bytes 400-{'9' * 5000}/*"), None),
            (part(Content_Type="Multipart/byteranges; boundary=x"), None),
            (answer(206), None),
            (answer(200, Content_Range="bytes 400-999/1000"), None),
        ],
    )
    def test_is_read(self, response: Any, expected: Part | None):
        assert part_of(response) == expected


def rest(span: str = "bytes 400-999/1000", **headers: str) -> Any:
    return part(span, **{"ETag": '"v1"', **headers})


OLD = {"ETag": '"old"'}


class TestTheRest:
    @pytest.mark.parametrize(
        ("response", "known"),
        [
            (rest(), KNOWN),
            (rest("bytes 400-499/1000"), KNOWN),  # a piece of it
            (rest("bytes 400-999/*"), KNOWN),
            (rest(), Representation(PLACE, '"v1"', None)),
            (rest(Content_Encoding="identity"), KNOWN),
            (rest(Last_Modified=JUST_BEFORE), KNOWN),
            (part(), BY_DATE),
            (part(Last_Modified=MINUTE_BEFORE), BY_DATE),
            (part(Last_Modified=MINUTE_BEFORE, ETag='"new"'), BY_DATE),
        ],
    )
    def test_is_the_rest(self, response: Any, known: Representation):
        assert why_not_the_rest(response, 400, known) is None

    @pytest.mark.parametrize(
        ("response", "known", "why"),
        [
            (answer(200, ETag='"v1"'), KNOWN, "has sent it whole"),
            (answer(200), KNOWN, "has sent it whole"),
            (answer(200, ETag='W/"v1"'), KNOWN, "has sent it whole"),
            (answer(200, Last_Modified=MINUTE_BEFORE, Date=DATE), KNOWN, "has sent it whole"),
            (answer(200, ETag='"v2"'), KNOWN, "has changed"),
            (answer(200, Last_Modified="Sun, 06 Nov 1994 08:00:00 GMT", Date=DATE), BY_DATE, "has changed"),
            (answer(416), KNOWN, "has answered 416"),
            (answer(204), KNOWN, "has answered 204"),
            (rest("bytes 399-999/1000"), KNOWN, "something else"),
            (rest("bytes 401-999/1000"), KNOWN, "something else"),
            (answer(206, Content_Type="multipart/byteranges; boundary=x"), KNOWN, "something else"),
            (rest(Content_Type="multipart/byteranges; boundary=x"), KNOWN, "something else"),
            (rest(Content_Encoding="gzip"), KNOWN, "something else"),
            (rest("bytes 400-999/2000"), KNOWN, "another size"),
            (rest("bytes 400-1999/*"), KNOWN, "has changed"),
            (part(ETag='"v2"'), KNOWN, "has changed"),
            (part(ETag='W/"v1"'), KNOWN, "has changed"),
            (part(Last_Modified=JUST_BEFORE), BY_DATE, "has changed"),
            (part(), KNOWN, "without the validator"),
            (part(Last_Modified=MINUTE_BEFORE), KNOWN, "without the validator"),
            (part(ETag='"v1"'), BY_DATE, "without the validator"),
            (
                answer(206, URL("https://example.com/other"), **OLD, Content_Range="bytes 400-999/1000"),
                KNOWN,
                "changed",
            ),
            (
                answer(206, URL("https://example.com/other"), ETag='"v1"', Content_Range="bytes 400-999/1000"),
                KNOWN,
                "another address",
            ),
        ],
    )
    def test_is_not_the_rest(self, response: Any, known: Representation, why: str):
        assert why in (why_not_the_rest(response, 400, known) or "")


class TestWhole:
    @pytest.mark.parametrize(
        ("response", "known", "expected"),
        [
            (answer(416, Content_Range="bytes */1000"), KNOWN, True),
            (answer(416, Content_Range="bytes */1000", ETag='"v1"'), Representation(PLACE, '"v1"', None), True),
            (answer(416, Content_Range="bytes */1000"), Representation(PLACE, '"v1"', None), False),
            (answer(416, Content_Range="bytes */1000"), Representation(PLACE, MINUTE_BEFORE, None), True),
            (answer(416, Content_Range="bytes */1000", ETag='"v1"'), KNOWN, True),
            (answer(416, Content_Range="bytes */1000", ETag='"v2"'), KNOWN, False),
            (answer(416, Content_Range="bytes */999"), KNOWN, False),
            (answer(416, Content_Range="bytes */1000"), Representation(PLACE, '"v1"', 2000), False),
            (answer(416), KNOWN, False),
            (answer(200, Content_Range="bytes */1000"), KNOWN, False),
            (answer(416, URL("https://example.com/other"), Content_Range="bytes */1000"), KNOWN, False),
        ],
    )
    def test_nothing_is_left(self, response: Any, known: Representation, expected: bool):
        assert is_whole(response, 1000, known) is expected
