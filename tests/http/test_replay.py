"""Bodies that can be sent again: what the wire of `test_bodies` doesn't show."""

import asyncio
import io
import threading

import aiohttp
import pytest

from retrykit.http.replay import body_of, keep
from tests.faults import SOON


class Writer:
    """Takes what a payload writes."""

    def __init__(self):
        self.data = b""

    async def write(self, chunk):
        self.data += chunk


async def generate():
    yield b"one, "
    yield b"two"


@pytest.mark.parametrize("data", [None, b"", bytearray(b"x"), memoryview(b""), ""], ids=repr)
def test_what_is_always_there_needs_no_keeping(data):
    assert body_of(data) is None


async def test_what_is_there_once_is_never_written_twice():
    payload = keep(aiohttp.AsyncIterablePayload(generate()), "async_generator")
    writer = Writer()
    await payload.write(writer)
    assert payload.consumed
    with pytest.raises(TypeError, match="a body of type async_generator was sent before"):
        await payload.write(writer)
    assert writer.data == b"one, two"


async def test_a_length_is_kept_to():
    payload = keep(aiohttp.BytesIOPayload(io.BytesIO(b"x" * 200_000)), "BytesIO")
    writer = Writer()
    await payload.write_with_length(writer, 100_000)
    assert len(writer.data) == 100_000


async def test_it_shows_itself_as_what_it_was_made_from():
    inner = aiohttp.StringPayload("Größe", encoding="latin-1")
    assert keep(inner, "str") is inner  # bytes are never used up
    file = aiohttp.BytesIOPayload(io.BytesIO("Größe".encode()))
    kept = keep(file, "BytesIO")
    assert (kept.size, kept.headers, kept.content_type) == (file.size, file.headers, file.content_type)
    assert kept.decode() == "Größe"
    assert keep(kept, "BytesIO") is kept


async def test_it_is_closed_only_where_no_call_holds_it(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x")
    form = aiohttp.FormData({"name": "Ada", "file": (file := path.open("rb"))})
    kept = keep(form(), "FormData")
    kept.hold()
    kept.hold()
    await kept.hand_back()
    await kept.close()
    assert not file.closed
    await kept.hand_back()
    await kept.close()
    assert file.closed


class Slow(io.RawIOBase):
    """A file that takes its time."""

    def __init__(self):
        super().__init__()
        self.reading, self.go_on = threading.Event(), threading.Event()
        self.position = 0

    def seekable(self):
        return True

    def tell(self):
        return self.position

    def seek(self, position, whence=0):
        self.position = position
        return position

    def read(self, size=-1):
        self.reading.set()
        self.go_on.wait(SOON)
        part, self.position = b"slow"[self.position :], 4
        return part


async def eventually(condition):
    async with asyncio.timeout(SOON):
        while not condition():
            await asyncio.sleep(0.005)


class TestAnAttemptThatIsBrokenOff:
    """Its thread may still be reading the file."""

    @pytest.fixture
    async def broken_off(self):
        file = Slow()
        kept = keep(aiohttp.payload.IOBasePayload(file), "Slow")
        attempt = asyncio.create_task(kept.write(Writer()))
        await eventually(file.reading.is_set)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        yield file, kept
        file.go_on.set()

    async def test_the_file_is_closed_behind_it(self, broken_off):
        file, kept = broken_off
        await kept.let_go()
        assert not file.closed
        file.go_on.set()
        await eventually(lambda: file.closed)

    async def test_the_next_attempt_reads_after_it_and_all(self, broken_off):
        file, kept = broken_off
        writer = Writer()
        attempt = asyncio.create_task(kept.write(writer))
        await asyncio.sleep(0.02)
        file.go_on.set()
        await attempt
        assert writer.data == b"slow"
        assert (file.tell(), file.closed) == (0, False)


@pytest.mark.skipif(not hasattr(aiohttp.BytesPayload, "as_bytes"), reason="as_bytes came with a later aiohttp 3.12")
async def test_it_can_be_read_for_a_signature(tmp_path):
    kept = keep(aiohttp.AsyncIterablePayload(generate()), "async_generator")
    assert await kept.as_bytes() == b"one, two"
