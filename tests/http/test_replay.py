"""Can this request body be sent again?"""

import io

import aiohttp
import pytest
from multidict import MultiDict

from retrykit.http.replay import unsendable_body


async def generate():
    yield b""


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        bytearray(b"x"),
        memoryview(b""),
        "",
        {"a": "1", "b": 2},
        MultiDict(a="1"),
        [("a", "1")],
        (("a", b""),),
    ],
    ids=repr,
)
def test_it_can(data):
    assert unsendable_body(data) is None


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (io.BytesIO(b"x"), "BytesIO"),
        (generate(), "async_generator"),
        (iter([b"x"]), "list_iterator"),
        (aiohttp.FormData({"a": "1"}), "FormData"),
        ({"file": io.BytesIO(b"x")}, "dict"),
        ([("file", io.BytesIO(b"x"))], "list"),
        ([b"x"], "list"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_it_cannot(data, name):
    assert unsendable_body(data) == name
