"""`get` with several URLs: files, what is said of them, lines of JSON, and going on after an interruption."""

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from retrykit.cli.bar import FileProgress
from retrykit.cli.endings import Failure
from retrykit.cli.main import main
from retrykit.cli.names import name_of
from retrykit.cli.tally import in_bytes
from retrykit.cli.targets import Targets
from retrykit.core import clock
from retrykit.core.listeners import get_listeners
from retrykit.testing import Raw, Reply, Truncated

pytestmark = pytest.mark.usefixtures("no_waits")

SECRET = "s3cret"
FULL = Path("/dev/full")
INSTEAD = "send a file to it (< FILE), or give the URLs in the place of -"
SUMMARY = re.compile(r"retrykit: (\d+ files?), (.+) in \d+\.\d s, (.+)")
TAGGED = {"ETag": '"1"'}
SOON = 20.0


class Ran:
    """A run of `get`: its exit code, standard output, the lines of standard error, and the files."""

    def __init__(self, code, out, err, folder):
        self.code, self.out, self.folder = code, out, folder
        self.lines = err.splitlines()

    @property
    def said(self):
        """The lines but for the summary."""
        return self.lines[:-1]

    @property
    def summary(self):
        """Files, bytes, and the rest of it."""
        return SUMMARY.fullmatch(self.lines[-1]).groups()

    @property
    def files(self):
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    @property
    def json(self):
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def get(capsysbinary, tmp_path):
    """Runs `get`, to a folder that it has to make."""

    def get(*arguments):
        code = main(["get", "-o", str(tmp_path / "files"), *arguments])
        out, err = capsysbinary.readouterr()
        return Ran(code, out, err.decode(), tmp_path / "files")

    return get


@pytest.fixture
def standard_input(monkeypatch, tmp_path):
    """Has these bytes on standard input."""
    with contextlib.ExitStack() as opened:

        def put(data):
            (tmp_path / "input").write_bytes(data)
            monkeypatch.setattr(sys, "stdin", opened.enter_context((tmp_path / "input").open()))

        yield put


@pytest.fixture
def pipe():
    """Its two ends, as files without a buffer."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as reading, os.fdopen(writer, "wb", buffering=0) as writing:
        yield reading, writing


@pytest.fixture
def full_pipe(pipe):
    """The same, and nothing can be written to it before something was read."""
    _, writer = pipe
    os.set_blocking(writer.fileno(), False)
    while writer.write(b" " * 1024):
        pass
    os.set_blocking(writer.fileno(), True)
    return pipe


class Skipping(clock.SystemClock):
    """Its waits take no time, and what is random is in the middle."""

    def __init__(self):
        self.waits = []

    def now(self):
        return super().now() + sum(self.waits)

    async def sleep(self, seconds):
        self.waits.append(seconds)

    def draw(self):
        return 0.5


def whole_files(folder):
    return {path.name for path in folder.iterdir() if ".part" not in path.name} if folder.exists() else set()


def eventually(condition):
    """Wait until it is so."""
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


class TestFiles:
    def test_each_url_becomes_a_file_and_standard_output_stays_empty(self, get, server):
        server.script("/a.txt", "a")
        server.script("/b.bin", bytes(range(256)) * 8)
        ran = get(f"{server.url}/a.txt", f"{server.url.removeprefix('http://')}/b.bin")
        assert (ran.code, ran.out, ran.said) == (0, b"", [])
        assert ran.summary == ("2 files", "2.0 kB", "0 failed, 0 retries")
        assert ran.files == {"a.txt": b"a", "b.bin": bytes(range(256)) * 8}

    def test_without_a_folder_they_go_to_the_current_one(self, server, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        server.script("/a.txt", "a")
        server.script("/b.txt", "b")
        assert main(["get", f"{server.url}/a.txt", f"{server.url}/b.txt"]) == 0
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]

    def test_a_failed_attempt_is_a_retry_and_no_line(self, get, server):
        server.script("/a.txt", 503, Truncated("hello"), "hello")
        ran = get(f"{server.url}/a.txt")
        assert (ran.code, ran.said, ran.files) == (0, [], {"a.txt": b"hello"})
        assert ran.summary == ("1 file", "5 bytes", "0 failed, 2 retries")

    def test_the_waits_are_random(self, get, server, no_waits):
        server.script("/down", 503)
        assert get(f"{server.url}/down", "--base-delay", "2").code == 22
        first, second = no_waits
        assert 0 <= first < 2
        assert 0 <= second < 4

    def test_they_share_their_connections_and_no_more_than_so_many_run(self, get, listen):
        running, most = 0, 0

        async def answer_late(reader, writer):
            nonlocal running, most
            while await reader.readline():
                await reader.readuntil(b"\r\n\r\n")
                running += 1
                most = max(most, running)
                await asyncio.sleep(0.03)
                running -= 1
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
                connections.add(writer)
            writer.close()

        connections = set()
        address = listen(answer_late)
        ran = get(*(f"{address}/{number}" for number in range(6)), "--concurrency", "2")
        assert (ran.code, len(ran.files)) == (0, 6)
        assert (most, len(connections)) == (2, 2)

    def test_the_listeners_are_given_back(self, get, server):
        before = get_listeners()
        get(f"{server.url}/missing")
        assert get_listeners() == before

    def test_where_there_is_a_file_in_the_place_of_the_folder_that_is_said(self, get, server, tmp_path):
        (tmp_path / "files").write_text("a file")
        ran = get(f"{server.url}/a.txt")
        assert ran.code == 23
        assert ran.lines[0].startswith("retrykit: (23) ")
        assert ran.lines[0].endswith(" is a file, and has to be a folder; give another one to -o")
        assert server.requests() == []


class TestGoingOn:
    def test_what_is_there_is_left_alone(self, get, server):
        server.script("/a.txt", "new")
        server.script("/b.txt", "new")
        get(f"{server.url}/a.txt")
        (get(f"{server.url}/a.txt").folder / "a.txt").write_text("old")
        ran = get(f"{server.url}/a.txt", f"{server.url}/b.txt")
        assert (ran.code, ran.files) == (0, {"a.txt": b"old", "b.txt": b"new"})
        assert ran.summary == ("1 file", "3 bytes", "1 there already, 0 failed, 0 retries")
        assert len(server.requests("/a.txt")) == 1

    def test_unless_it_is_to_be_overwritten(self, get, server):
        server.script("/a.txt", "old", "new")
        get(f"{server.url}/a.txt")
        ran = get(f"{server.url}/a.txt", "--overwrite")
        assert (ran.code, ran.files) == (0, {"a.txt": b"new"})
        assert ran.summary == ("1 file", "3 bytes", "0 failed, 0 retries")

    def test_a_part_is_gone_on_with(self, get, server):
        rest = Reply(206, "world", headers={"Content-Range": "bytes 6-10/11", **TAGGED})
        server.script("/a.txt", Truncated("hello world", sent=6, headers=TAGGED), rest)
        assert get(f"{server.url}/a.txt", "--max-retries", "1").code == 18
        ran = get(f"{server.url}/a.txt")
        assert (ran.code, ran.files) == (0, {"a.txt": b"hello world"})
        assert server.requests("/a.txt")[1].headers["Range"] == "bytes=6-"


class TestNames:
    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("", "index.html"),
            ("/docs/", "index.html"),
            ("/docs/a.txt?b.txt#c.txt", "a.txt"),
            ("/a%20b%C3%A4.txt", "a bä.txt"),
            ("/a%CC%88", "ä"),
            ("/%2e%2e%2fetc%2fpasswd", "_etc_passwd"),
            ("/..%5C..%5Cx", "_._x"),
            ("/%2e%2e", "index.html"),
            ("/.profile", "profile"),
            ("/a%00b%0a%1b[31m%E2%80%AE", "a_b__[31m_"),
            ("/c:d*?", "c_d_"),
            ("/trailing.%20.", "trailing"),
            ("/NUL", "_NUL"),
            ("/com1.tar.gz", "_com1.tar.gz"),
            ("/console.txt", "console.txt"),
            ("/con" + "%20" * 300 + "x", "_con"),
            ("/con." + "a" * 300 + ".txt", "_con." + "a" * 191 + ".txt"),
            ("/a.part", "a_part"),
            ("/a.PART.json", "a_part.json"),
            ("/a.part.json.new", "a_part.json.new"),
            ("/" + "a" * 300 + ".tar.gz", "a" * 193 + ".tar.gz"),
            ("/" + "%C3%A4" * 300, "ä" * 100),
            ("/" + "a" * 190 + ".part" + "b" * 9 + ".json", "a" * 190 + "_part.json"),
        ],
    )
    def test_it_is_the_last_segment_made_safe(self, path, name):
        assert name_of(URL(f"http://localhost{path}")) == name

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("/a.txt", "a-0123.txt"),
            ("/a.tar.gz", "a-0123.tar.gz"),
            ("/a.b c.d", "a.b c-0123.d"),
            ("/a", "a-0123"),
            ("/.a", "a-0123"),
            ("/" + "a" * 300 + ".b", "a" * 193 + "-0123.b"),
        ],
    )
    def test_a_digest_goes_in_before_the_suffix(self, path, name):
        assert name_of(URL(f"http://localhost{path}"), "0123") == name

    @settings(deadline=None, max_examples=200)
    @given(st.text(max_size=250), st.sampled_from(["", "01234567"]))
    def test_any_name_is_one_that_a_file_can_have_in_its_folder(self, segment, digest):
        name = name_of(URL.build(scheme="http", host="localhost", path="/" + segment.replace("/", "%2F")), digest)
        assert name
        assert name == os.path.basename(name)  # noqa: PTH119 - of a text, and not of a file
        assert not re.search(r'[\x00-\x1f\x7f"*/:<>?\\|]', name)
        assert name[0] not in " ."
        assert name[-1] not in " ."
        assert len(name.encode()) <= 200
        assert not re.search(r"\.part(\.json)?$", name.casefold())

    def test_a_name_that_another_url_has_gets_a_digest_and_is_the_same_each_time(self, get, server):
        paths = ["/1/a.txt", "/2/a.txt", "/3/A.TXT", "/a.txt"]
        for path in paths:
            server.script(path, path)
        urls = [server.url + path for path in paths]
        ran = get(*urls)
        assert ran.code == 0
        names = {body.decode(): name for name, body in ran.files.items()}
        assert names["/1/a.txt"] == "a.txt"
        assert re.fullmatch(r"a-[0-9a-f]{8}\.txt", names["/2/a.txt"])
        assert re.fullmatch(r"A-[0-9a-f]{8}\.TXT", names["/3/A.TXT"])
        assert get(*urls).summary == ("0 files", "0 bytes", "4 there already, 0 failed, 0 retries")

    def test_not_even_a_name_with_the_digest_in_it_is_given_twice(self, get, server):
        for path in ("/a", "/x/a"):
            server.script(path, path)
        [taken] = set(get(f"{server.url}/a", f"{server.url}/x/a").files) - {"a"}
        server.script(f"/{taken}", "another")
        ran = get(f"{server.url}/a", f"{server.url}/{taken}", f"{server.url}/x/a", "--overwrite")
        assert len(ran.files) == 3
        assert ran.files[taken] == b"another"

    def test_the_same_url_is_fetched_once(self, get, server):
        server.script("/a", "a")
        address = server.url.removeprefix("http://")
        ran = get(f"{server.url}/a", f"{server.url}/a#there", f"{address}/a", f"HTTP://{address}/%61")
        assert ran.summary == ("1 file", "1 byte", "0 failed, 0 retries")
        assert len(server.requests("/a")) == 1


class TestStandardInput:
    def test_urls_come_from_there_one_by_line(self, get, server, standard_input):
        for path in ("/1", "/2", "/3", "/4"):
            server.script(path, path)
        standard_input(f"\ufeff{server.url}/2\r\n\r\n  # no URL\n \t{server.url}/3 ".encode())
        ran = get(f"{server.url}/1", "-", f"{server.url}/4")
        assert (ran.code, ran.said) == (0, [])
        assert ran.files == {"1": b"/1", "2": b"/2", "3": b"/3", "4": b"/4"}

    def test_where_there_are_none_all_of_them_are_there(self, get, standard_input):
        standard_input(b"# nothing\n")
        ran = get("-")
        assert (ran.code, ran.summary) == (0, ("0 files", "0 bytes", "0 failed, 0 retries"))

    async def test_no_more_is_read_than_was_asked_for(self, tmp_path, standard_input):
        standard_input(b"".join(b"http://localhost/%d\n" % number for number in range(20_000)))
        targets = Targets(["-"], tmp_path)
        each = aiter(targets)
        assert (await anext(each)).path == tmp_path / "0"
        assert os.lseek(sys.stdin.fileno(), 0, os.SEEK_CUR) <= 2**16
        assert targets.total is None
        assert [target.number async for target in each] == list(range(2, 20_001))
        assert targets.total == 20_000

    def test_a_byte_that_is_no_utf_8_is_sent_as_it_is(self, get, server, standard_input):
        server.script("/ä%FF", "hello")
        standard_input(f"{server.url}/ä".encode() + b"\xff?\xfe")
        ran = get("-", "--jsonl")
        assert (ran.code, ran.files) == (0, {"ä%FF": b"hello"})
        assert ran.json[0]["url"] == f"{server.url}/ä%FF?%FE"

    def test_a_line_that_is_too_long_is_a_failure_of_it_alone(self, get, server, standard_input):
        server.script("/a", "a")
        long, url = b"x" * 70_000, f"{server.url}/a"
        longest = url.encode().ljust(65536)
        standard_input(b"\n".join([long, b"#" + long, longest, b" " + long * 3]))
        ran = get("-", "--jsonl", "--concurrency", "1")
        wrong = "the line is too long for a URL"
        assert (ran.code, ran.files) == (3, {"a": b"a"})
        assert ran.said == [f"retrykit: (3) URL 1: {wrong}", f"retrykit: (3) URL 3: {wrong}"]
        assert [line["url"] for line in ran.json] == ["x" * 100 + "…", url, "x" * 100 + "…"]
        assert ran.json[0]["error"] == {"code": 3, "message": wrong}

    @pytest.mark.parametrize("data", [b"http://localhost/1\nhttp://localhost/2", b"http://localhost/1\n"])
    async def test_it_is_left_where_all_is_stopped(self, pipe, monkeypatch, tmp_path, data):
        monkeypatch.setattr(sys, "stdin", pipe[0])
        pipe[1].write(data)
        targets = Targets(["-"], tmp_path)
        each = aiter(targets)
        await anext(each)
        following = asyncio.ensure_future(anext(each, None))
        await asyncio.sleep(0.05)
        targets.stop()
        await asyncio.wait([following], timeout=SOON)
        assert following.done()
        assert following.result() is None
        assert targets.total is None

    @pytest.mark.parametrize("data", [b"http://localhost/1\nhttp://localhost/2\n", b"http://localhost/1\n"])
    async def test_so_it_is_where_nobody_waits_for_it(self, pipe, monkeypatch, tmp_path, data):
        monkeypatch.setattr(sys, "stdin", pipe[0])
        pipe[1].write(data)
        targets = Targets(["-"], tmp_path)
        each = aiter(targets)
        await anext(each)
        targets.stop()
        following = asyncio.ensure_future(anext(each, None))
        await asyncio.wait([following], timeout=SOON)
        assert following.done()
        assert following.result() is None
        assert targets.taken == 1

    async def test_one_that_never_ends_is_not_waited_for(self, pipe, monkeypatch, tmp_path):
        reader, writer = pipe
        monkeypatch.setattr(sys, "stdin", reader)
        writing = asyncio.create_task(asyncio.to_thread(writer.write, b"\0" * 200_000))
        targets = Targets(["-"], tmp_path)
        each = aiter(targets)
        assert "too long" in Failure.by((await anext(each)).path).message
        following = asyncio.create_task(anext(each))
        await writing
        writer.write(b"\nhttp://localhost/a")
        writer.close()
        assert (await following).path == tmp_path / "a"
        assert [target async for target in each] == []
        assert targets.total == 2

    def test_one_that_does_not_block_is_waited_for(self, get, server, pipe, monkeypatch):
        server.script("/a", "a")
        reader, writer = pipe
        os.set_blocking(reader.fileno(), False)
        monkeypatch.setattr(sys, "stdin", reader)

        def write_late():
            time.sleep(0.1)
            writer.write(f"{server.url}/a\n".encode())
            writer.close()

        writing = threading.Thread(target=write_late)
        writing.start()
        ran = get("-")
        writing.join()
        assert (ran.code, ran.files) == (0, {"a": b"a"})

    def test_one_that_can_t_be_read_is_a_failure_of_what_it_has_not_told(self, get, server, monkeypatch, tmp_path):
        server.script("/a", "a")
        with (tmp_path / "output").open("w") as output:
            monkeypatch.setattr(sys, "stdin", output)
            ran = get(f"{server.url}/a", "-")
        assert (ran.code, ran.files) == (26, {"a": b"a"})
        assert ran.said == ["retrykit: (26) standard input could not be read, Bad file descriptor"]

    def test_nor_one_that_is_closed(self, get, monkeypatch):
        monkeypatch.setattr(sys, "stdin", None)
        ran = get("-")
        assert (ran.code, ran.said) == (
            26,
            ["retrykit: (26) standard input could not be read, it is closed; " + INSTEAD],
        )


class TestFailures:
    def test_each_is_said_and_ends_none_of_the_others(self, get, server):
        server.script("/a", "a")
        server.script("/cut", Truncated())
        ran = get(
            f"{server.url}/missing",
            f"{server.url}/cut",
            "http://[::1",
            "ftp://localhost/b",
            "http://",
            f"{server.url}/a",
        )
        assert ran.files["a"] == b"a"
        assert ran.summary == ("1 file", "1 byte", "5 failed, 2 retries")
        cut = f"retrykit: (18) GET {server.url}/cut: the body was cut short (gave up after 3 attempts in "
        assert sorted(re.sub(r"(?<=attempts in ).*", "", line) for line in ran.said) == [
            "retrykit: (1) GET ftp://localhost/b: neither http nor https",
            cut,
            f"retrykit: (22) GET {server.url}/missing: an error status, 404 Not Found",
            "retrykit: (3) URL 3: malformed URL",
            "retrykit: (3) URL 5: malformed URL",
        ]

    @pytest.mark.parametrize("given_first", ["late", "soon"])
    def test_the_exit_code_is_that_of_the_one_that_was_given_first(self, get, server, given_first):
        server.script("/late", Reply(404, delay=0.1))
        late, soon = f"{server.url}/late", "ftp://localhost/"
        ran = get(*([late, soon] if given_first == "late" else [soon, late]))
        assert ran.code == (22 if given_first == "late" else 1)
        assert "(1)" in ran.lines[0]

    def test_a_file_that_can_t_be_written_is_one_of_them(self, get, server, tmp_path):
        server.script("/a", "a")
        server.script("/b", "b")
        (tmp_path / "files" / "a").mkdir(parents=True)
        ran = get(f"{server.url}/a", f"{server.url}/b")
        assert ran.code == 23
        assert ran.said == [
            (
                f"retrykit: (23) GET {server.url}/a: the file could not be written, "
                f"this is a folder; write the name of a file in it as well: {tmp_path / 'files' / 'a'}"
            )
        ]
        assert (tmp_path / "files" / "b").read_text() == "b"

    def test_a_wait_for_more_bytes_is_bounded_and_the_whole_is_not(self, get, server, listen):
        async def answer_slowly(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
            for _ in range(6):
                await asyncio.sleep(0.1)
                writer.write(b"x")
            writer.close()

        server.script("/stall", Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nx", after="stall"))
        ran = get(f"{listen(answer_slowly)}/slow", f"{server.url}/stall", "--timeout", "0.4", "--max-retries", "1")
        assert (ran.code, ran.files["slow"]) == (28, b"xxxxxx")
        assert len(ran.said) == 1
        assert f"(28) GET {server.url}/stall: timeout" in ran.said[0]

    def test_what_a_server_asks_of_one_holds_for_all_of_its_urls(self, get, server):
        server.script("/a", Reply(429, retry_after=3600))
        server.script("/b", "b")
        ran = get(f"{server.url}/a", f"{server.url}/b", "--concurrency", "1")
        assert (ran.code, server.requests("/b")) == (22, [])
        assert f"(28) GET {server.url}/b: timeout, {server.url} is paused for 3600 s" in re.sub(
            r"3599\.\d+", "3600", ran.said[1]
        )

    def test_what_has_not_begun_waits_for_the_end_of_a_pause_and_not_in_its_own_time(self, get, server):
        server.script("/a", Reply(503, retry_after=40))
        server.script("/b", "b")
        server.script("/c", Reply(503, retry_after=40))
        server.script("/d", "d")
        with clock.using(skipping := Skipping()):
            urls = (f"{server.url}/{name}" for name in "abcd")
            ran = get(*urls, "--concurrency", "1", "--timeout", "10")
        assert (ran.code, ran.files, len(ran.said)) == (22, {"b": b"b", "d": b"d"}, 2)
        assert skipping.waits == [pytest.approx(40 + 5, abs=1)] * 2

    def test_it_waits_for_no_more_than_60_seconds_in_all(self, get, server):
        server.script("/a", Reply(503, retry_after=61))
        server.script("/b", "b")
        with clock.using(skipping := Skipping()):
            ran = get(f"{server.url}/a", f"{server.url}/b", "--concurrency", "1", "--timeout", "100")
        assert (ran.code, ran.files, skipping.waits) == (22, {}, [])
        assert "(28)" in ran.said[1]

    def test_a_host_whose_name_can_t_be_decoded_ends_none_of_the_others(self, get, server):
        server.script("/a", "a")
        host = ".".join(["xn--a", *["a" * 60] * 5])  # It is too long to ever reach a name server.
        ran = get(f"http://{host}/b", f"{server.url}/a", "--max-retries", "1", "--jsonl")
        assert (ran.code, ran.files) == (6, {"a": b"a"})
        assert f"(6) GET http://{host}/b: could not resolve the host's name" in ran.said[0]

    @pytest.mark.skipif(not FULL.exists(), reason="needs a device that is full")
    def test_where_they_can_t_be_said_the_others_are_fetched(self, get, server, monkeypatch):
        server.script("/a", "a")
        with FULL.open("w") as full:
            monkeypatch.setattr(sys, "stderr", full)
            ran = get(f"{server.url}/missing", f"{server.url}/a", "--concurrency", "1")
        assert (ran.code, ran.files) == (22, {"a": b"a"})

    def test_nor_has_a_process_that_can_t_say_them_another_exit_code(self, server, pipe, tmp_path):
        reader, writer = pipe
        reader.close()
        command = [sys.executable, "-m", "retrykit", "get", "-o", tmp_path, f"{server.url}/missing", f"{server.url}/a"]
        server.script("/a", "a")
        assert subprocess.run(command, stderr=writer, check=False, timeout=SOON).returncode == 22
        assert whole_files(tmp_path) == {"a"}

    def test_what_nobody_has_foreseen_is_said_without_its_text(self):
        assert Failure.by(LookupError(SECRET)) == (43, "an error that was not foreseen, LookupError")

    def test_no_line_has_the_credentials_or_the_query(self, get, server):
        address = server.url.replace("//", f"//user:{SECRET}@")
        server.script("/down", 503)
        wrong = (f"{address}/x", f"{address}/down", f"ftp://a:{SECRET}@b/", f"http://{SECRET}:{SECRET}@[::1/")
        ran = get(*(f"{url}?token={SECRET}" for url in wrong))
        assert len(ran.said) == 4
        assert SECRET not in "".join(ran.lines)

    def test_what_a_server_says_does_not_reach_the_terminal_as_control_characters(self, get, server):
        server.script("/a%1b", Raw(b"HTTP/1.1 404 \x1b[31mRed\x07\r\nContent-Length: 0\r\n\r\n"))
        server.script("/a\x1b", Raw(b"HTTP/1.1 404 \x1b[31mRed\x07\r\nContent-Length: 0\r\n\r\n"))
        ran = get(f"{server.url}/a%1b", "--jsonl")
        assert ran.code == 22
        assert "[31mRed" in ran.lines[0]
        assert all(line.isprintable() for line in ran.lines)
        assert ran.json[0]["error"]["message"].isprintable()


class TestJson:
    def test_each_url_has_a_line_with_what_came_of_it(self, get, server):
        server.script("/ä", 503, "hello")
        server.script("/kept", "kept")
        get(f"{server.url}/kept")
        url = f"{server.url}/ä?token={SECRET}"
        ran = get(url, f"{server.url}/missing", "http://[::1", f"{server.url}/kept", "--jsonl", "--concurrency", "1")
        assert [list(line) for line in ran.json] == [
            ["url", "file", "bytes", "attempts", "elapsed", "skipped", "error"]
        ] * 4
        lines = [{**line, "elapsed": None} for line in ran.json]
        none = {"file": None, "bytes": None, "attempts": 0, "elapsed": None, "skipped": False, "error": None}
        missing, malformed = {"code": 22, "message": "an error status, 404 Not Found"}, "malformed URL"
        folder = f"{ran.folder}{os.sep}"
        assert lines == [
            {**none, "url": url, "file": f"{folder}ä", "bytes": 5, "attempts": 2},
            {**none, "url": f"{server.url}/missing", "file": f"{folder}missing", "attempts": 1, "error": missing},
            {**none, "url": "http://[::1", "error": {"code": 3, "message": malformed}},
            {**none, "url": f"{server.url}/kept", "file": f"{folder}kept", "bytes": 4, "skipped": True},
        ]
        assert 1.0 > ran.json[1]["elapsed"] > 0.0

    def test_a_single_url_is_downloaded_too(self, server, capsysbinary, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        server.script("/a", "a")
        assert main(["get", f"{server.url}/a", "--jsonl"]) == 0
        assert json.loads(capsysbinary.readouterr().out)["file"] == "a"
        assert (tmp_path / "a").read_text() == "a"

    def test_a_line_comes_when_its_url_is_done_and_urls_are_taken_as_they_come(self, server, tmp_path):
        command = [sys.executable, "-W", "error", "-m", "retrykit", "get", "-o", tmp_path, "--jsonl", "-"]
        server.script("/1", "1")
        server.script("/2", "22")
        server.script("/late", Reply(body="late", delay=0.5))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, text=True, **pipes) as running:
            print(f"{server.url}/late", file=running.stdin, flush=True)
            sizes = []
            for path in ("/1", "/2"):
                print(server.url + path, file=running.stdin, flush=True)
                sizes.append(json.loads(running.stdout.readline())["bytes"])
            out, err = running.communicate(timeout=SOON)
        assert sizes == [1, 2]
        assert json.loads(out)["bytes"] == 4
        assert SUMMARY.fullmatch(err.rstrip())[1] == "3 files"
        assert running.returncode == 0

    @pytest.mark.parametrize("blocks", [True, False])
    def test_a_reader_that_is_busy_holds_up_no_download(self, server, full_pipe, tmp_path, monkeypatch, blocks):
        urls = [f"{server.url}/{number}" for number in range(3)]
        reader, writer = full_pipe
        os.set_blocking(writer.fileno(), blocks)
        lines = []

        def read_late():
            with contextlib.suppress(AssertionError):
                try:
                    eventually(lambda: len(server.requests()) == 3)
                    lines.append("all were sent")
                finally:
                    lines.extend(reader)

        reading = threading.Thread(target=read_late)
        with os.fdopen(os.dup(writer.fileno()), "w") as output:
            monkeypatch.setattr(sys, "stdout", output)
            reading.start()
            main(["get", "-o", str(tmp_path), "--jsonl", "--concurrency", "1", *urls])
        writer.close()
        reading.join()
        assert lines[0] == "all were sent"
        assert len(lines) == 1 + 3

    def test_a_reader_that_left_ends_it_and_nothing_is_said(self, get, server, monkeypatch):
        server.script("/a", "a")
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w") as output:
            monkeypatch.setattr(sys, "stdout", output)
            ran = get(f"{server.url}/a", "--jsonl")
        assert (ran.code, ran.lines) == (23, [])

    @pytest.mark.skipif(not FULL.exists(), reason="needs a device that is full")
    def test_a_full_disk_ends_it_and_is_said(self, get, server, monkeypatch):
        server.script("/a", "a")
        with FULL.open("w") as output:
            monkeypatch.setattr(sys, "stdout", output)
            ran = get(f"{server.url}/a", "--jsonl")
        assert (ran.code, ran.lines) == (23, ["retrykit: the output could not be written: No space left on device"])

    def test_where_standard_output_is_closed_nothing_is_sent(self, get, server, monkeypatch):
        monkeypatch.setattr(sys, "stdout", None)
        ran = get(f"{server.url}/a", "--jsonl")
        assert (ran.code, ran.lines) == (
            23,
            ["retrykit: (23) standard output is closed; send it to a file (> FILE), or leave --jsonl out"],
        )
        assert server.requests() == []


class TestCtrlC:
    def test_it_leaves_parts_and_says_how_to_go_on(self, heeds_ctrl_c, get, server, tmp_path):
        body = b"x" * 200_000
        head = b'HTTP/1.1 200 OK\r\nContent-Length: 200000\r\nETag: "1"\r\n\r\n'
        rest = Reply(206, body[100_000:], headers={"Content-Range": "bytes 100000-199999/200000", **TAGGED})
        server.script("/big", Raw(head + body[:100_000], after="stall"), rest)
        server.script("/a", "a")
        files, urls = tmp_path / "files", [f"{server.url}/a", f"{server.url}/big"]
        command = [sys.executable, "-W", "error", "-m", "retrykit", "get", "-o", files, *urls, "-"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, text=True, **pipes) as running:
            part = files / "big.part"
            eventually(lambda: (files / "a").exists() and part.exists() and part.stat().st_size > 0)
            end = time.monotonic() + SOON
            while running.poll() is None:  # Although standard input has not ended.
                assert time.monotonic() < end
                running.send_signal(signal.SIGINT)
                time.sleep(0.002)
            out, err = running.stdout.read(), running.stderr.read()
        assert (running.returncode, out) == (130, "")
        summary, how = err.splitlines()
        assert SUMMARY.fullmatch(summary).groups() == ("1 file", "1 byte", "0 failed, 0 retries")
        assert how == (
            "retrykit: interrupted with 1 file there; the same command again goes on with what was begun, and leaves"
            " these alone"
        )
        assert sorted(path.name for path in files.iterdir()) == ["a", "big.part", "big.part.json"]
        ran = get(*urls)
        assert (ran.code, ran.files) == (0, {"a": b"a", "big": body})
        assert server.requests("/big")[1].headers["Range"] == "bytes=100000-"

    def test_it_does_so_in_this_process_where_it_comes_twice(self, heeds_ctrl_c, get, server, listen):
        async def interrupt(reader, writer):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            await reader.read()
            writer.close()

        ran = get(f"{listen(interrupt)}/a", f"{server.url}/missing", "--overwrite", "--concurrency", "1")
        assert (ran.code, ran.out) == (130, b"")
        assert ran.lines[1] == (
            "retrykit: interrupted with 0 of 2 files there; the same command again goes on with what was begun, and"
            " fetches the others anew"
        )

    def test_what_has_come_is_counted_and_has_its_line(self, heeds_ctrl_c, get, server, full_pipe, monkeypatch):
        reader, writer = full_pipe
        folder, lines = Path(get(f"{server.url}/0").folder), []
        for number in range(20):
            server.script(f"/{number}", "hello")

        def interrupt_and_read():
            try:
                eventually(lambda: len(whole_files(folder)) == 5)
            finally:
                os.kill(os.getpid(), signal.SIGINT)
                lines.extend(reader)

        reading = threading.Thread(target=interrupt_and_read)
        with os.fdopen(os.dup(writer.fileno()), "w") as output:
            monkeypatch.setattr(sys, "stdout", output)
            reading.start()
            ran = get(*(f"{server.url}/{number}" for number in range(20)), "--concurrency", "2", "--jsonl")
        writer.close()
        reading.join()
        assert ran.code == 130
        assert SUMMARY.fullmatch(ran.lines[0]).groups() == ("5 files", "25 bytes", "0 failed, 0 retries")
        assert {Path(json.loads(line)["file"]).name for line in lines} == whole_files(folder)

    def test_it_ends_although_nobody_reads_the_lines(self, heeds_ctrl_c, server, full_pipe, tmp_path):
        urls = [f"{server.url}/{number}" for number in range(20)]
        for number in range(20):
            server.script(f"/{number}", "hello")
        command = [sys.executable, "-W", "error", "-m", "retrykit", "get", "-o", tmp_path, "--jsonl", *urls]
        streams = {"stdout": full_pipe[1], "stderr": subprocess.PIPE}
        with subprocess.Popen([*command, "--concurrency=2"], text=True, **streams) as running:
            try:
                eventually(lambda: len(whole_files(tmp_path)) == 5)
                running.send_signal(signal.SIGINT)
                err = running.communicate(timeout=SOON)[1]
            finally:
                running.kill()
        assert running.returncode == 130
        summary, how = err.splitlines()
        assert SUMMARY.fullmatch(summary).groups() == ("5 files", "25 bytes", "0 failed, 0 retries")
        assert "interrupted with 5 of 20 files there" in how

    def test_it_says_how_to_go_on_although_it_has_ended_who_reads(
        self, heeds_ctrl_c, get, server, full_pipe, monkeypatch
    ):
        reader, writer = full_pipe

        def interrupt():
            eventually(lambda: server.requests("/b"))
            os.kill(os.getpid(), signal.SIGINT)
            reader.close()

        interrupting = threading.Thread(target=interrupt)
        with os.fdopen(os.dup(writer.fileno()), "w") as output:
            monkeypatch.setattr(sys, "stdout", output)
            interrupting.start()
            ran = get(f"{server.url}/a", f"{server.url}/b", "--jsonl", "--concurrency", "1")
        interrupting.join()
        assert ran.code == 130
        assert "interrupted with 0 of 2 files there" in ran.lines[-1]

    def test_pressed_again_after_a_while_it_ends_at_once(self):
        program = """
import signal
from retrykit.cli.interruption import Interruption
from retrykit.core import clock

class Clock(clock.SystemClock):
    time = 0.0
    def now(self):
        return self.time

clock_here = Clock()
with clock.using(clock_here), Interruption():
    for clock_here.time in (0.0, 2.0, 2.1, 2.2):
        signal.raise_signal(signal.SIGINT)
        print(clock_here.time, flush=True)
"""
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=SOON
        )
        assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "0.0\n2.0\n", "")

    def test_afterwards_it_is_heeded_as_before(self, heeds_ctrl_c, get, server):
        get(f"{server.url}/missing")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class Terminal:
    """A terminal, and all that was printed to it."""

    def __init__(self):
        self._ours, theirs = pty.openpty()
        self.file = os.fdopen(theirs, "w")
        self._text = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        with contextlib.suppress(OSError):  # Linux reports the end so.
            while text := os.read(self._ours, 65536):
                self._text.append(text)

    def close(self):
        self.file.close()
        self._reader.join(SOON)
        os.close(self._ours)
        return b"".join(self._text).decode()


@pytest.fixture
def on_terminal(capsysbinary, tmp_path, monkeypatch):
    """Runs `get` with these streams at a terminal; gives the exit code, and what was printed there."""

    def run(*arguments, streams=("stderr",)):
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "80")
        terminal = Terminal()
        for name in streams:
            monkeypatch.setattr(sys, name, terminal.file)
        try:
            code = main(["get", "-o", str(tmp_path / "files"), *arguments])
        finally:
            text = terminal.close()
        return code, text

    return run


ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class TestBar:
    def test_it_shows_the_counts_and_goes_away(self, on_terminal, server):
        server.script("/a", 503, b"x" * 3_000_000)
        server.script("/kept", "kept")
        on_terminal(f"{server.url}/kept")
        code, text = on_terminal(f"{server.url}/a", f"{server.url}/{'long-' * 20}", f"{server.url}/kept")
        assert code == 22
        pictures = [picture.strip() for picture in re.split(r"[\r\n]+", ESCAPES.sub("", text))]
        last = next(picture for picture in reversed(pictures) if "files" in picture and "━" in picture)
        assert re.fullmatch(r"━{16} 2/2 files, 1 failed, 1 retried [\d.]+ [kM]B/s 00:0\d", last)
        assert f"retrykit: (22) GET {server.url}/{'long-' * 20}: an error status, 404 Not Found" in pictures
        assert max(len(picture) for picture in pictures if "━" in picture) <= 80
        assert SUMMARY.fullmatch(pictures[-2])
        assert text.rindex("━") < text.rindex("\x1b[2K")
        assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1

    def test_what_an_earlier_run_has_fetched_is_no_speed_of_this_one(self, on_terminal, server):
        size = 5_000_000
        rest = Reply(206, "x", headers={"Content-Range": f"bytes {size - 1}-{size - 1}/{size}", **TAGGED})
        server.script("/a", Truncated(b"x" * size, sent=size - 1, headers=TAGGED), rest)
        server.script("/first", "x")
        on_terminal(f"{server.url}/a", "--max-retries", "1")
        code, text = on_terminal(f"{server.url}/first", f"{server.url}/a", "--concurrency", "1")
        assert code == 0
        assert " MB/s" not in text

    def test_what_begins_anew_is_counted_anew(self):
        told = []
        file = FileProgress(60, lambda *growth: told.append(growth))
        for so_far in (60, 80, 10, 20):
            file.tell(so_far, 100)
        file.end()
        assert told == [(0, 0), (500, 20), (-400, 10), (100, 10), (800, 0)]

    def test_with_urls_from_standard_input_it_does_not_know_how_many_there_are(
        self, on_terminal, server, standard_input
    ):
        server.script("/a", "a")
        standard_input(f"{server.url}/a".encode())
        code, text = on_terminal("-")
        assert code == 0
        assert "0 files" in text
        assert "1/1 files" in text

    def test_it_goes_away_before_sigterm_ends_all(self, heeds_ctrl_c, on_terminal, listen):
        async def terminate(reader, writer):
            os.kill(os.getpid(), signal.SIGTERM)
            await reader.read()
            writer.close()

        code, text = on_terminal(f"{listen(terminate)}/a")
        assert code == 143
        assert "interrupted with 0 of 1 file there" in text
        assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1

    def test_a_terminal_that_is_gone_ends_no_download(self, server, listen, tmp_path, monkeypatch):
        ours, theirs = pty.openpty()

        async def hang_up(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            os.close(ours)
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            writer.close()

        server.script("/a", "a")
        with os.fdopen(theirs, "w") as terminal:
            monkeypatch.setattr(sys, "stderr", terminal)
            code = main(["get", "-o", str(tmp_path), f"{listen(hang_up)}/b", f"{server.url}/a", "--concurrency", "1"])
        assert code == 22
        assert whole_files(tmp_path) == {"a"}

    def test_it_gives_way_to_lines_on_the_same_terminal(self, on_terminal, server):
        server.script("/a", "a")
        code, text = on_terminal(f"{server.url}/a", "--jsonl", streams=("stdout", "stderr"))
        assert code == 0
        assert "\x1b" not in text
        assert len(text.splitlines()) == 2

    def test_without_rich_there_is_none(self, on_terminal, server, monkeypatch):
        monkeypatch.setitem(sys.modules, "rich", None)
        server.script("/a", "a")
        code, text = on_terminal(f"{server.url}/a", f"{server.url}/missing")
        assert code == 22
        assert "\x1b" not in text
        assert len(text.splitlines()) == 2


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (999_960, "1.0 MB"),
        (3e9, "3.0 GB"),
        (4e15, "4000.0 TB"),
    ],
)
def test_a_number_of_bytes_is_rounded(number, text):
    assert in_bytes(number) == text
