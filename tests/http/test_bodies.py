"""The bodies of requests: sent again byte for byte, or not at all."""

import asyncio
import contextlib
import io
import os
import socket

import aiohttp
import pytest
from multidict import MultiDict

from retrykit import AsyncHTTPClient, GiveUpError, RetryMiddleware, attempts_of, post
from tests.faults import CLOSE, SOON, answer, before_body, go_on, head, raw, redirect

CONTENT = bytes(range(256)) * 1024  # more than a chunk, and more than the buffers of a small write


@contextlib.asynccontextmanager
async def client(base):
    async with AsyncHTTPClient(base) as client:

        async def put(path, data, **options):
            return await client.request("PUT", path, data=data, **options)

        yield put


@contextlib.asynccontextmanager
async def helper(base):
    async with aiohttp.ClientSession() as session:

        async def put(path, data, **options):
            return await post(session, base + path, data=data, idempotent=True, on_give_up="return", **options)

        yield put


@contextlib.asynccontextmanager
async def middleware(base):
    async with aiohttp.ClientSession(middlewares=[RetryMiddleware()]) as session:

        async def put(path, data, **options):
            return await session.put(base + path, data=data, **options)

        yield put


@pytest.fixture(params=[client, helper, middleware], ids=lambda sender: sender.__name__)
async def put(request, faults):
    """Sends a body by a method that may be repeated, and gives the response."""
    async with request.param(faults.url) as put:
        yield put


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "upload.bin"
    path.write_bytes(CONTENT)
    return path


AIOHTTP = tuple(int(part) for part in aiohttp.__version__.split(".")[:3])


class closing:  # noqa: N801
    """Closes what can be closed: before aiohttp 3.14, a pipe may be left open where a request fails."""

    def __init__(self, what):
        self.what = what

    def close(self):
        if isinstance(self.what, io.IOBase):
            self.what.close()


async def generate():
    yield b"one, "
    yield b"two"


def multipart(path):
    form = aiohttp.FormData()
    form.add_field("file", path.open("rb"), filename="upload.bin", content_type="application/x-test")
    form.add_field("name", "Ada")
    return form


def mixed(path):
    writer = aiohttp.MultipartWriter("mixed", boundary="----between")
    writer.append("some text")
    writer.append_json({"id": 1})
    writer.append(path.open("rb"), {"Content-Encoding": "gzip"})
    return writer


def opened_at_7(path):
    file = path.open("rb")
    file.seek(7)
    return file


def bytes_io_at_7(path):
    buffer = io.BytesIO(CONTENT)
    buffer.seek(7)
    return buffer


def text_file(path):
    path.write_text("Größe\n" * 20_000, encoding="utf-8")
    return path.open(encoding="utf-8")


def async_open(path):
    async def made():
        return path.open("rb")

    return made


REPEATABLE = {
    "bytes": (lambda path: CONTENT, CONTENT),
    "bytearray": (lambda path: bytearray(CONTENT), CONTENT),
    "str": (lambda path: "Größe", "Größe".encode()),
    "urlencoded dict": (lambda path: MultiDict(a="1", b="ü"), b"a=1&b=%C3%BC"),
    "urlencoded pairs": (lambda path: (("a", "1"), ("a", "2")), b"a=1&a=2"),
    "urlencoded FormData": (lambda path: aiohttp.FormData({"a": "1"}), b"a=1"),
    "BytesIO": (lambda path: io.BytesIO(CONTENT), CONTENT),
    "BytesIO in the middle": (bytes_io_at_7, CONTENT[7:]),
    "StringIO": (lambda path: io.StringIO("Größe"), "Größe".encode()),
    "file": (lambda path: path.open("rb"), CONTENT),
    "file in the middle": (opened_at_7, CONTENT[7:]),
    "unbuffered file": (lambda path: path.open("rb", buffering=0), CONTENT),
    "file for update": (lambda path: path.open("rb+"), CONTENT),
    "text file": (text_file, "Größe\n".encode() * 20_000),
    "form with a file": (multipart, None),
    "dict with a file": (lambda path: MultiDict(file=path.open("rb")), None),
    "multipart, compressed": (mixed, None),
    "payload": (lambda path: aiohttp.JsonPayload({"a": 1}), b'{"a": 1}'),
    "payload of a file": (lambda path: aiohttp.BufferedReaderPayload(path.open("rb")), CONTENT),
}
MADE_ANEW = {
    "file": (lambda path: lambda: path.open("rb"), CONTENT),
    "file, opened by a coroutine": (async_open, CONTENT),
    "bytes": (lambda path: lambda: CONTENT, CONTENT),
    "form": (lambda path: lambda: MultiDict(a="1"), b"a=1"),
    "generator": (lambda path: generate, b"one, two"),
    "nothing": (lambda path: lambda: None, b""),
}


@pytest.mark.parametrize("kind", REPEATABLE)
async def test_it_is_sent_again_byte_for_byte(put, faults, no_waits, path, kind):
    make, expected = REPEATABLE[kind]
    faults.script("/x", 503, CLOSE, answer(200))
    async with await put("/x", make(path)) as response:
        assert response.status == 200
    first, second, third = faults.seen("/x")
    assert first.body
    assert first.complete
    assert expected in (None, first.body)
    assert first.body == second.body == third.body
    for name in ("Content-Type", "Content-Length", "Transfer-Encoding", "Content-Disposition"):
        assert first.headers.get(name) == second.headers.get(name) == third.headers.get(name)


@pytest.mark.parametrize("kind", MADE_ANEW)
@pytest.mark.parametrize("sender", [client, helper])
async def test_a_function_makes_it_anew(sender, faults, no_waits, path, kind):
    make, expected = MADE_ANEW[kind]
    faults.script("/x", 503, CLOSE, answer(200))
    async with sender(faults.url) as put, await put("/x", make(path)) as response:
        assert response.status == 200
    assert [request.body for request in faults.seen("/x")] == [expected] * 3


@pytest.mark.parametrize("kind", REPEATABLE)
async def test_the_wire_is_that_of_plain_aiohttp(put, faults, path, kind):
    make, _ = REPEATABLE[kind]
    faults.script("/x", 200)
    faults.script("/plain", 200)
    async with await put("/x", make(path)) as response:
        await response.read()
    async with aiohttp.ClientSession() as session, session.put(faults.url + "/plain", data=make(path)) as response:
        await response.read()
    (ours,), (plain,) = faults.seen("/x"), faults.seen("/plain")

    def without_boundary(request):
        boundary = request.headers.get("Content-Type", "").partition("boundary=")[2]
        return request.body.replace(boundary.encode() or b"none", b"")

    assert without_boundary(ours) == without_boundary(plain)
    for name in ("Content-Length", "Transfer-Encoding", "Content-Disposition"):
        assert ours.headers.get(name) == plain.headers.get(name)


class TestFiles:
    async def test_a_file_is_closed_when_the_call_is_over(self, faults, no_waits, path):
        faults.script("/x", 503, answer(200))
        file = path.open("rb")
        async with AsyncHTTPClient(faults.url) as client:
            await client.put("/x", file)
        assert file.closed

    @pytest.mark.parametrize("steps", [(503,), (CLOSE,), (404,)], ids=["503", "close", "404"])
    async def test_also_where_it_failed(self, faults, no_waits, path, steps):
        faults.script("/x", *steps)
        form = aiohttp.FormData({"file": (file := path.open("rb"))})
        async with AsyncHTTPClient(faults.url) as client:
            with pytest.raises(aiohttp.ClientError):
                await client.put("/x", form)
        assert file.closed

    async def test_a_buffer_stays_open_and_where_it_stood(self, put, faults, no_waits):
        faults.script("/x", 503, answer(200))
        buffer = io.BytesIO(CONTENT)
        buffer.seek(7)
        async with await put("/x", buffer):
            assert not buffer.closed
            assert buffer.tell() == 7

    async def test_a_file_stays_where_it_stood_between_attempts(self, faults, no_waits, path):
        positions = []

        async def look(event):
            positions.append(file.tell())

        faults.script("/x", 503, answer(200))
        file = opened_at_7(path)
        async with AsyncHTTPClient(faults.url, before_retry=look) as client:
            await client.put("/x", file)
        assert positions == [7]

    async def test_a_response_that_comes_early_does_not_cut_the_body(self, faults, tmp_path):
        async def early(connection):
            await connection.send(head(200, {"Content-Length": "2"}))
            await asyncio.sleep(0.05)
            await connection.read_body()
            await connection.send(b"ok")

        large = tmp_path / "large.bin"
        large.write_bytes(os.urandom(20_000_000))
        faults.script("/x", early)
        file = large.open("rb")
        async with AsyncHTTPClient(faults.url) as client, client.request("PUT", "/x", data=file) as response:
            assert not file.closed
            assert await response.read() == b"ok"
        (seen,) = faults.seen("/x")
        assert seen.complete
        assert seen.body == large.read_bytes()
        assert file.closed

    async def test_files_of_a_function_are_closed_after_each_attempt(self, faults, no_waits, path):
        made = []

        def make():
            made.append(path.open("rb"))
            return made[-1]

        faults.script("/x", 503, CLOSE, answer(200))
        async with AsyncHTTPClient(faults.url) as client:
            await client.put("/x", make)
        assert [file.closed for file in made] == [True] * 3

    async def test_an_attempt_that_is_broken_off_does_not_disturb_the_next(self, put, faults, no_waits, tmp_path):
        # The server answers before it has read the body, so that the first attempt is still reading the file.
        large = tmp_path / "large.bin"
        large.write_bytes(os.urandom(4_000_000))
        faults.script("/x", before_body(answer(503)), before_body(answer(503)), answer(200))
        async with await put("/x", large.open("rb")) as response:
            assert response.status == 200
        *_, last = faults.seen("/x")
        assert last.complete
        assert last.body == large.read_bytes()

    async def test_cancellation_closes_it(self, faults, path):
        arrived = asyncio.Event()

        async def stall(connection):
            arrived.set()
            await connection.closed_by_peer()

        faults.script("/x", stall)
        file = path.open("rb")
        async with AsyncHTTPClient(faults.url) as client:
            call = asyncio.create_task(client.put("/x", file))
            await asyncio.wait_for(arrived.wait(), SOON)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            for _ in range(100):
                if file.closed:
                    break
                await asyncio.sleep(0.01)
        assert file.closed

    async def test_a_closed_file_is_refused_and_not_sent_empty(self, faults, path, no_waits):
        file = path.open("rb")
        file.close()
        faults.script("/x", 200)
        async with AsyncHTTPClient(faults.url) as client:
            with pytest.raises((ValueError, aiohttp.ClientConnectionError), match="closed file"):
                await client.put("/x", file)
        assert not any(request.complete for request in faults.seen("/x"))
        assert no_waits == []


def pipe():
    reading, writing = os.pipe()
    os.write(writing, b"through a pipe")
    os.close(writing)
    return os.fdopen(reading, "rb")


def form_with_a_generator():
    form = aiohttp.FormData({"name": "Ada"})
    form.add_field("stream", generate(), filename="stream.bin")
    return form


ONCE_ONLY = {
    "generator": (generate, "async_generator"),
    "pipe": (pipe, "BufferedReader"),
    "form with a generator": (form_with_a_generator, "async_generator"),
}


class TestWhatIsThereOnce:
    @pytest.mark.parametrize("kind", ONCE_ONLY)
    async def test_it_is_not_sent_again(self, put, faults, no_waits, kind, events):
        make, _name = ONCE_ONLY[kind]
        faults.script("/x", 503, 200)
        async with await put("/x", make()) as response:
            assert response.status == 503
            assert len(attempts_of(response)) == 1
        (seen,) = faults.seen("/x")
        assert seen.complete
        assert [event.reason for event in events] == ["body"]

    @pytest.mark.parametrize("kind", ONCE_ONLY)
    async def test_the_note_names_it_and_the_cure(self, request, put, faults, no_waits, kind):
        if AIOHTTP < (3, 12, 1) and "middleware-form" in request.node.name:
            pytest.skip("aiohttp 3.12.0 can't make the request by which it would repeat this one")
        make, name = ONCE_ONLY[kind]
        faults.script("/x", CLOSE, 200)
        with pytest.raises(aiohttp.ServerDisconnectedError) as raised, contextlib.closing(closing(make())) as body:
            await put("/x", body.what)
        assert f"a body of type {name} can't be sent again" in raised.value.__notes__[0]
        assert "data=lambda: open(...)" in raised.value.__notes__[0]
        assert len(faults.seen("/x")) == 1

    async def test_one_that_was_not_touched_is_sent(self, put, faults, no_waits):
        faults.script("/x", before_body(answer(503)), go_on)
        async with await put("/x", generate(), expect100=True) as response:
            assert response.status == 200
        assert [request.body for request in faults.seen("/x")] == [b"", b"one, two"]

    async def test_so_is_one_whose_connection_was_refused(self, faults, no_waits, unused_tcp_port):
        async def come_up(event):
            server = await asyncio.start_server(
                lambda reader, writer: answered(reader, writer, got), "127.0.0.1", unused_tcp_port
            )
            servers.append(server)

        got: list[bytes] = []
        servers: list[asyncio.Server] = []
        base = f"http://127.0.0.1:{unused_tcp_port}"
        async with AsyncHTTPClient(base, before_retry=come_up) as client:
            await client.put("/x", generate())
        servers[0].close()
        assert b"one, " in got[0]
        assert b"two" in got[0]

    async def test_a_response_that_is_passed_on_is_sent_once(self, faults, no_waits):
        faults.script("/source", answer(200, b"streamed"))
        faults.script("/x", CLOSE, 200)
        async with AsyncHTTPClient(faults.url) as client, client.request("GET", "/source") as source:
            with pytest.raises(aiohttp.ServerDisconnectedError) as raised:
                await client.put("/x", source.content)
        assert "a body of type StreamReader can't be sent again" in raised.value.__notes__[0]
        assert [request.body for request in faults.seen("/x")] == [b"streamed"]

    async def test_a_redirect_that_wants_it_again_is_permanent(self, faults, no_waits):
        faults.script("/x", redirect("/next", 307))
        faults.script("/next", 200)
        async with AsyncHTTPClient(faults.url) as client:
            with pytest.raises(aiohttp.ClientError):
                await client.put("/x", generate())
        assert len(faults.seen("/x")) == 1
        assert not any(request.complete and request.body == b"" for request in faults.seen("/next"))

    @pytest.mark.parametrize("status", [307, 308])
    async def test_a_redirect_of_a_file_sends_it_whole(self, put, faults, no_waits, path, status):
        faults.script("/x", redirect("/next", status))
        faults.script("/next", 503, answer(200))
        with path.open("rb") as file:
            async with await put("/x", file) as response:
                assert response.status == 200
        assert {request.body for request in faults.requests} == {CONTENT}

    async def test_a_function_that_gives_the_same_again_is_told(self, faults, no_waits):
        body = generate()
        faults.script("/x", 503, 200)
        async with AsyncHTTPClient(faults.url) as client:
            with pytest.raises(TypeError, match="gave the same async_generator again"):
                await client.put("/x", lambda: body)
        assert len(faults.seen("/x")) == 1

    async def test_a_generator_that_raises_is_the_users_own(self, faults, no_waits):
        async def fail():
            yield b"one"
            raise KeyError("missing")

        faults.script("/x", 200)
        async with AsyncHTTPClient(faults.url) as client:
            with pytest.raises(aiohttp.ClientConnectionError, match="missing"):
                await client.put("/x", fail)
        assert no_waits == []

    async def test_so_is_one_that_cannot_read_its_source(self, faults, no_waits):
        async def fail():
            yield b"one"
            raise FileNotFoundError(2, "no source")

        faults.script("/x", 200)
        async with AsyncHTTPClient(faults.url) as client:
            with pytest.raises(aiohttp.ClientOSError):
                await client.put("/x", fail)
        assert no_waits == []

    async def test_a_function_that_gives_a_dict_sends_json_as_a_dict_does(self, faults, no_waits):
        async def later():
            return ["a", 1]

        faults.script("/x", 503, answer(200))
        async with AsyncHTTPClient(faults.url) as client:
            await client.put("/x", lambda: {"a": 1})
            await client.put("/x", later)
        assert [request.body for request in faults.seen("/x")] == [b'{"a": 1}', b'{"a": 1}', b'["a", 1]']
        assert {request.headers["Content-Type"] for request in faults.seen("/x")} == {"application/json"}

    async def test_a_function_that_gives_the_same_file_is_told(self, faults, no_waits, path):
        file = path.open("rb")
        faults.script("/x", 503, 200)
        async with AsyncHTTPClient(faults.url) as client:
            with pytest.raises(TypeError, match="gave the same BufferedReader again"):
                await client.put("/x", lambda: file)
        assert len(faults.seen("/x")) == 1

    async def test_a_function_that_gives_the_same_text_file_is_told(self, faults, no_waits):
        file = io.StringIO("text")
        faults.script("/x", 503, 200)
        async with AsyncHTTPClient(faults.url) as client:
            with pytest.raises(TypeError, match="gave the same StringIO again"):
                await client.put("/x", lambda: file)
        assert [request.body for request in faults.seen("/x")] == [b"text"]

    @pytest.mark.parametrize(
        "error",
        [
            aiohttp.ClientResponseError(None, (), status=503),
            socket.gaierror(-2, "unknown"),
            aiohttp.ConnectionTimeoutError("upstream"),
            ConnectionRefusedError(111, "upstream"),
        ],
        ids=repr,
    )
    async def test_a_request_whose_body_failed_may_have_been_processed(self, faults, no_waits, error):
        async def relay():
            yield b"first part"
            await asyncio.sleep(0.05)
            raise error

        faults.script("/x", 200)
        async with AsyncHTTPClient(faults.url) as client:
            with pytest.raises(Exception) as raised:  # noqa: PT011
                await client.post("/x", relay)
        assert len(faults.seen("/x")) == 1
        assert "redirect" not in "".join(getattr(raised.value, "__notes__", ()))

    async def test_a_text_file_that_cannot_be_rewound_is_sent_once(self, put, faults, no_waits, tmp_path):
        path = tmp_path / "lines.txt"
        path.write_text("one\ntwo\n")
        file = path.open()
        next(file)
        faults.script("/x", CLOSE, 200)
        with pytest.raises(aiohttp.ServerDisconnectedError) as raised:
            await put("/x", file)
        assert "a body of type TextIOWrapper can't be sent again" in raised.value.__notes__[0]
        assert [request.body for request in faults.seen("/x")] == [b"two\n"]
        file.close()

    async def test_a_file_that_shrinks_is_not_sent_cut(self, faults, no_waits, path):
        async def shrink(event):
            path.write_bytes(b"short")

        faults.script("/x", 503, 200)
        async with AsyncHTTPClient(faults.url, before_retry=shrink) as client:
            with pytest.raises(aiohttp.ClientConnectionError) as raised:
                await client.put("/x", path.open("rb"))
        assert "ended 262139 bytes before its length" in str(raised.value.__cause__)
        await faults.all_closed()
        assert not faults.seen("/x")[1].complete
        assert len(no_waits) == 1

    async def test_a_function_that_raises_is_the_users_own(self, faults, no_waits, tmp_path):
        async with AsyncHTTPClient(faults.url) as client:
            with pytest.raises(FileNotFoundError):
                await client.put("/x", lambda: (tmp_path / "absent").open("rb"))
        assert no_waits == []

    async def test_a_plain_generator_is_refused_at_once(self, faults):
        async with AsyncHTTPClient(faults.url) as client:
            with pytest.raises(TypeError, match=r"a generator has to be asynchronous \(async def\)"):
                await client.put("/x", (part for part in (b"one", b"two")))
        assert faults.requests == []

    async def test_what_aiohttp_cannot_send_is_refused_at_once(self, faults):
        async with AsyncHTTPClient(faults.url) as client:
            with pytest.raises(TypeError):
                await client.put("/x", object())
        assert faults.requests == []


class Reversed(aiohttp.BufferedReaderPayload):
    """A payload of a user's own."""

    closed = 0

    async def write(self, writer):
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer, content_length):
        self._value.seek(0)
        await writer.write(self._value.read()[::-1])

    async def close(self):
        type(self).closed += 1
        self._value.close()


class Shouting(io.BytesIO):
    """A file of a user's own."""

    def read(self, *size):
        return super().read(*size).upper()


class Prefaced(aiohttp.MultipartWriter):
    """A form of a user's own."""

    async def write(self, writer, close_boundary=True):
        await writer.write(b"preface\r\n")
        await super().write(writer, close_boundary)

    @property
    def size(self):
        return None


class TestClassesOfTheUsersOwn:
    """They are sent as they send themselves."""

    async def test_a_payload_is_sent_once(self, put, faults, no_waits, path):
        faults.script("/x", 503, 200)
        payload = Reversed(path.open("rb"))
        before = Reversed.closed
        async with await put("/x", payload) as response:
            assert response.status == 503
        assert [request.body for request in faults.seen("/x")] == [CONTENT[::-1]]
        if hasattr(aiohttp.payload.Payload, "close"):
            assert Reversed.closed > before
        payload._value.close()

    @pytest.mark.skipif(not hasattr(aiohttp.payload.Payload, "consumed"), reason="aiohttp asks for it from 3.13 on")
    async def test_a_redirect_may_have_it_again(self, put, faults, path):
        faults.script("/x", redirect("/next", 307))
        faults.script("/next", 200)
        async with await put("/x", Reversed(path.open("rb"))) as response:
            assert response.status == 200
        assert [request.body for request in faults.requests] == [CONTENT[::-1]] * 2

    async def test_a_file_that_can_be_rewound_is_sent_again(self, put, faults, no_waits):
        faults.script("/x", 503, answer(200))
        file = Shouting(b"- hello")
        file.seek(2)
        async with await put("/x", file) as response:
            assert response.status == 200
        assert [request.body for request in faults.seen("/x")] == [b"HELLO"] * 2
        assert file.tell() == 2

    async def test_a_form_is_sent_once(self, put, faults, no_waits):
        form = Prefaced("mixed", boundary="B")
        form.append("text")
        faults.script("/x", 503, 200)
        async with await put("/x", form) as response:
            assert response.status == 503
        (seen,) = faults.seen("/x")
        assert seen.body.startswith(b"preface\r\n--B")


class TestExpect:
    async def test_a_503_before_the_body_is_retried(self, put, faults, no_waits):
        faults.script("/x", before_body(answer(503)), before_body(answer(503)), go_on)
        async with await put("/x", b"hello", expect100=True) as response:
            assert response.status == 200
        assert [request.body for request in faults.seen("/x")] == [b"", b"", b"hello"]

    async def test_a_connection_that_closes_instead_is_followed(self, put, faults, no_waits):
        faults.script("/x", before_body(raw(b"")), go_on)
        async with await put("/x", b"hello", expect100=True) as response:
            assert response.status == 200
        assert [request.body for request in faults.seen("/x")] == [b"", b"hello"]

    async def test_a_503_after_100_continue_is_retried(self, put, faults, no_waits):
        async def take_it_and_fail(connection):
            await connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            await answer(503)(connection)

        faults.script("/x", take_it_and_fail, go_on)
        async with await put("/x", b"hello", expect100=True) as response:
            assert response.status == 200
        assert [request.body for request in faults.seen("/x")] == [b"hello", b"hello"]


@pytest.mark.skipif(not hasattr(aiohttp, "UploadTracker"), reason="UploadTracker came with aiohttp 3.14")
class TestUploadTracker:
    async def test_one_is_refused_because_it_follows_one_request(self, faults):
        async with AsyncHTTPClient(faults.url) as client:
            with pytest.raises(TypeError, match=r"upload_tracker=UploadTracker\(\) follows a single request"):
                await client.put("/x", b"hello", upload_tracker=aiohttp.UploadTracker())
        assert faults.requests == []

    async def test_a_function_makes_one_for_each_attempt(self, faults, no_waits):
        trackers = []

        def make():
            trackers.append(aiohttp.UploadTracker())
            return trackers[-1]

        faults.script("/x", 503, answer(200))
        async with AsyncHTTPClient(faults.url) as client:
            await client.put("/x", b"hello", upload_tracker=make)
        assert len(trackers) == 2
        assert all(tracker.upload_complete.done() for tracker in trackers)


async def test_a_signature_over_a_file_is_the_same_for_each_attempt(faults, no_waits, path):
    signed = []

    async def sign(request, handler):
        signed.append(await request.body.as_bytes())
        return await handler(request)

    faults.script("/x", 503, answer(200))
    async with aiohttp.ClientSession(middlewares=[RetryMiddleware(), sign]) as session:
        if not hasattr(aiohttp.BytesPayload, "as_bytes"):
            pytest.skip("as_bytes came with a later aiohttp 3.12")
        async with session.put(faults.url + "/x", data=path.open("rb")) as response:
            assert response.status == 200
    assert signed == [CONTENT, CONTENT]
    assert [request.body for request in faults.seen("/x")] == [CONTENT, CONTENT]


async def test_a_give_up_error_tells_the_cure(faults, no_waits):
    faults.script("/x", 503)
    async with AsyncHTTPClient(faults.url) as client:
        with pytest.raises(GiveUpError) as raised:
            await client.put("/x", generate())
    assert raised.value.reason == "body"
    assert "a function that makes the body anew for each attempt (data=lambda: open(...), or data=lines" in str(
        raised.value
    )


async def answered(reader, writer, got):
    """Take a chunked request, and answer 200."""
    got.append(await reader.readuntil(b"\r\n\r\n") + await reader.readuntil(b"0\r\n\r\n"))
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    writer.close()
