"""A file that arrives whole, or not at all, and goes on where it was."""

import asyncio
import contextlib
import errno
import gc
import gzip
import itertools
import json
import os
import random
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrykit import GiveUpError, ResponseError, attempts_of
from retrykit.core.errors import ChecksumError
from retrykit.http.download import download
from retrykit.testing import no_waits as without_waits
from tests.faults import SOON, TOO_LONG, Connection, FaultServer, Step, answer, head, raw, redirect
from tests.http.ranged import Sent, cut_at, ranged, seeded, sha256

BODY = seeded(300_000)
OTHER = seeded(200_000, seed=2)
MIB = 1024 * 1024
OLD_DATES = {"Last-Modified": "Sun, 06 Nov 1994 08:00:00 GMT", "Date": "Sun, 06 Nov 1994 08:49:37 GMT"}
FRESH_DATES = {**OLD_DATES, "Date": "Sun, 06 Nov 1994 08:00:30 GMT"}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "file.bin"


def names(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def part_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def record_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part.json")


def source_of(target: Path) -> str:
    source: str = json.loads(record_of(target).read_text())["source"]
    return source


def content_of(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def remove(path: Path) -> None:
    path.unlink()


def link(path: Path, to: Path) -> None:
    path.symlink_to(to)


def is_link(path: Path) -> bool:
    return path.is_symlink()


def put(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def asked(server: FaultServer, path: str = "/file") -> list[tuple[str | None, str | None]]:
    return [(request.headers.get("Range"), request.headers.get("If-Range")) for request in server.seen(path)]


async def left_behind(target: Path, server: FaultServer, step: Step | None = None, have: int = 100_000) -> str:
    """Have a part of so many bytes there, as a call leaves it that was given up on; gives the URL."""
    url = server.script("/file", step or ranged(BODY, cut=have), answer(503))
    with pytest.raises(GiveUpError):
        await download(url, target, max_retries=2, base_delay=0)
    assert content_of(part_of(target)) == BODY[:have]
    server.requests.clear()
    return url


# --- whole ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_given", [Path, str], ids=["Path", "str"])
async def test_a_file_arrives(faults: FaultServer, target: Path, as_given: Any):
    url = faults.script("/file", ranged(BODY))
    assert await download(url, as_given(target)) == target
    assert content_of(target) == BODY
    assert names(target) == ["file.bin"]
    assert asked(faults) == [(None, None)]
    assert faults.requests[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("status", [200, 203])
async def test_an_empty_body_is_an_empty_file(faults: FaultServer, target: Path, status: int):
    url = faults.script("/file", raw(head(status, {"Content-Length": "0"})))
    await download(url, target, sha256=sha256(b""))
    assert content_of(target) == b""
    assert names(target) == ["file.bin"]


async def test_a_small_file_leaves_nothing_behind(faults: FaultServer, target: Path, no_waits: list[float]):
    url = faults.script("/file", ranged(BODY[:3000], cut=1000), ranged(BODY[:3000]))
    await download(url, target)
    assert content_of(target) == BODY[:3000]
    assert names(target) == ["file.bin"]


async def test_a_small_part_that_has_grown_is_gone_on_with(faults: FaultServer, target: Path, no_waits: list[float]):
    url = await left_behind(target, faults, have=1000)
    faults.script("/file", ranged(BODY, cut=99_000), answer(503))
    with pytest.raises(GiveUpError):
        await download(url, target, max_retries=2)
    faults.script("/file", ranged(BODY))
    await download(url, target)
    assert content_of(target) == BODY
    assert asked(faults)[-1] == ("bytes=100000-", '"1"')
    assert names(target) == ["file.bin"]


async def test_a_file_of_unknown_size(faults: FaultServer, target: Path):
    chunked = head(200, {"Transfer-Encoding": "chunked"}) + b"5\r\nhello\r\n0\r\n\r\n"
    told: list[Any] = []
    await download(faults.script("/file", raw(chunked)), target, progress=lambda *args: told.append(args))
    assert content_of(target) == b"hello"
    assert told == [(5, None)]


async def test_its_mode_is_that_of_any_new_file(faults: FaultServer, target: Path):
    url = faults.script("/file", ranged(BODY))
    before = os.umask(0o027)
    try:
        await download(url, target)
    finally:
        os.umask(before)
    assert mode_of(target) == 0o640


async def test_a_file_by_that_name_stays_until_the_new_one_is_whole(
    faults: FaultServer, target: Path, no_waits: list[float]
):
    put(target, b"old")
    url = await left_behind(target, faults)
    assert content_of(target) == b"old"
    faults.script("/file", ranged(BODY))
    await download(url, target)
    assert content_of(target) == BODY


async def test_options_and_session_are_those_of_a_request(
    faults: FaultServer, target: Path, no_waits: list[float], events: list[Any]
):
    faults.script("/below/file", 503, 503, ranged(BODY))
    async with aiohttp.ClientSession(faults.url + "/below/", headers={"X-Api": "1"}) as session:
        await download("file", target, session=session, params={"a": 1}, base_delay=0.5)
    assert [(request.path, request.headers["X-Api"]) for request in faults.requests] == [("/below/file?a=1", "1")] * 3
    assert no_waits == [0.5, 1.0]
    assert {event.call for event in events} == {"download"}


# --- it goes on -------------------------------------------------------------------------------------------------------


async def test_a_large_file_through_a_server_that_cuts_it(faults: FaultServer, target: Path, no_waits: list[float]):
    content, draw = seeded(64 * MIB), random.Random(6)
    answers: list[Sent] = []
    cuts = (draw.randint(MIB, 4 * MIB) for _ in iter(int, 1))
    url = faults.script("/file", cut_at(content, cuts, sent=answers))
    await download(url, target, sha256=sha256(content))
    assert content_of(target) == content
    assert len(answers) > 16
    twice = sum(received_twice(answer, next_one) for answer, next_one in itertools.pairwise(answers))
    assert twice <= len(content) // 100


def received_twice(answer: Sent, next_one: Sent) -> int:
    """Before a FIN, all that was sent has come. Before a RST, it may be no more than what is not asked for again."""
    return answer.end - next_one.start if answer.then == "close" else max(0, answer.start - next_one.start)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 4000), max_size=6), headers=st.sampled_from([{"ETag": '"1"'}, OLD_DATES, {}]))
def test_wherever_it_breaks_off_it_is_the_original(tmp_path: Path, cuts: list[int], headers: dict[str, str]):
    async def run() -> None:
        async with FaultServer() as server:
            url = server.script("/file", cut_at(BODY[:8000], cuts, headers))
            await download(url, tmp_path / "any", sha256=sha256(BODY[:8000]), max_retries=9)

    with without_waits():
        asyncio.run(run())
    assert (tmp_path / "any").read_bytes() == BODY[:8000]


@pytest.mark.parametrize(
    ("headers", "validator"),
    [({"ETag": '"1"'}, '"1"'), (OLD_DATES, OLD_DATES["Last-Modified"])],
    ids=["strong ETag", "old Last-Modified"],
)
async def test_the_next_call_goes_on(
    faults: FaultServer, target: Path, no_waits: list[float], headers: dict[str, str], validator: str
):
    url = await left_behind(target, faults, ranged(BODY, headers, cut=100_000))
    assert names(target) == ["file.bin.part", "file.bin.part.json"]
    faults.script("/file", ranged(BODY, headers))
    told: list[Any] = []
    await download(url, target, sha256=sha256(BODY).upper(), progress=lambda *args: told.append(args))
    assert content_of(target) == BODY
    assert names(target) == ["file.bin"]
    assert asked(faults) == [("bytes=100000-", validator)]
    assert (told[0], told[-1]) == ((100_000, 300_000), (300_000, 300_000))
    assert told == sorted(told)


@pytest.mark.parametrize(
    "headers",
    [{"ETag": 'W/"1"'}, FRESH_DATES, {}, {"ETag": '"1"', "Accept-Ranges": "none"}],
    ids=["weak ETag", "fresh Last-Modified", "neither", "no ranges"],
)
async def test_what_cannot_be_gone_on_with_begins_again(
    faults: FaultServer, target: Path, no_waits: list[float], headers: dict[str, str]
):
    url = await left_behind(target, faults, ranged(BODY, headers, cut=100_000))
    assert names(target) == ["file.bin.part", "file.bin.part.json"]
    faults.script("/file", ranged(BODY, headers, cut=1000), ranged(BODY, headers))
    await download(url, target)
    assert content_of(target) == BODY
    assert asked(faults) == [(None, None)] * 2


async def test_what_was_not_written_yet_is_not_part_of_what_begins_again(
    faults: FaultServer, target: Path, no_waits: list[float]
):
    url = faults.script("/file", ranged(BODY, {}, cut=100_000, first=1000), ranged(OTHER, {}))
    await download(url, target)
    assert content_of(target) == OTHER


async def test_what_began_again_has_no_record_of_what_was_before(
    faults: FaultServer, target: Path, no_waits: list[float]
):
    url = await left_behind(target, faults)
    faults.script("/file", ranged(OTHER, {"ETag": 'W/"2"'}, cut=100_000), answer(503))
    with pytest.raises(GiveUpError):
        await download(url, target, max_retries=2)
    faults.script("/file", ranged(BODY))
    await download(url, target)
    assert asked(faults)[-1] == (None, None)


async def test_a_server_that_always_breaks_off_ends_it(faults: FaultServer, target: Path, no_waits: list[float]):
    url = faults.script("/file", ranged(BODY, {}, cut=1000))
    with pytest.raises(aiohttp.ClientPayloadError) as raised:
        await download(url, target)
    assert raised.value.__notes__[0].startswith("gave up after 3 attempts")
    assert len(attempts_of(raised.value)) == len(faults.requests) == 3
    assert names(target) == ["file.bin.part", "file.bin.part.json"]


async def test_a_redirect_is_followed_anew(faults: FaultServer, target: Path, no_waits: list[float]):
    faults.script("/elsewhere", ranged(BODY, cut=100_000), answer(503))
    url = faults.script("/file", redirect("/elsewhere?signed=1"), redirect("/elsewhere?signed=2"))
    with pytest.raises(GiveUpError):
        await download(url, target, max_retries=2)
    faults.requests.clear()
    faults.script("/elsewhere", ranged(BODY))
    await download(url, target)
    assert content_of(target) == BODY
    assert asked(faults, "/elsewhere") == [("bytes=100000-", '"1"')]


async def test_a_part_that_is_complete_is_confirmed_and_not_sent_again(
    faults: FaultServer, target: Path, no_waits: list[float]
):
    url = await left_behind(target, faults)
    part_of(target).write_bytes(BODY)
    faults.script("/file", ranged(BODY))
    faults.streamed = 0
    await download(url, target, sha256=sha256(BODY))
    assert (content_of(target), faults.streamed) == (BODY, 0)
    assert asked(faults) == [("bytes=300000-", '"1"')]


def part(content: bytes, start: int, end: int, size: int, etag: str = '"1"') -> Step:
    return answer(206, content[start:end], {"Content-Range": f"bytes {start}-{end - 1}/{size}", "ETag": etag})


@pytest.mark.parametrize(
    "first",
    [
        None,
        part(BODY, 99_999, 300_000, 300_000),
        part(OTHER, 100_000, 200_000, 200_000),
        part(BODY, 100_000, 300_000, 300_000, etag='"2"'),
        answer(206, BODY[100_000:], {"ETag": '"1"'}),
        answer(416, b"", {"Content-Range": "bytes */200000"}),
        answer(416),
    ],
    ids=["200", "another range", "another size", "another ETag", "no Content-Range", "416, other size", "416"],
)
async def test_it_begins_again_where_something_else_comes(
    faults: FaultServer, target: Path, no_waits: list[float], first: Step | None
):
    url = await left_behind(target, faults)
    other = ranged(OTHER, {"ETag": '"2"'})
    told: list[Any] = []
    faults.script("/file", *filter(None, [first, other]))
    await download(url, target, sha256=sha256(OTHER), progress=lambda *args: told.append(args))
    assert content_of(target) == OTHER
    assert names(target) == ["file.bin"]
    assert asked(faults) == [("bytes=100000-", '"1"'), (None, None)][: 1 if first is None else 2]
    assert (told[0], told[-1]) == ((100_000, 300_000), (200_000, 200_000))


@pytest.mark.parametrize(
    "damage",
    [
        lambda record, _: record.write_bytes(b"\xff{"),
        lambda record, _: record.write_bytes(b"[" * 60_000),
        lambda record, _: record.write_bytes(b"0" * 100_000),
        lambda record, _: record.write_text("[]"),
        lambda record, _: record.write_text(json.dumps({**json.loads(record.read_text()), "version": 2})),
        lambda record, _: record.write_text(json.dumps({**json.loads(record.read_text()), "source": "f" * 64})),
        lambda record, _: record.write_text(json.dumps({**json.loads(record.read_text()), "validator": None})),
        lambda record, _: record.write_text(json.dumps({**json.loads(record.read_text()), "validator": '"\r\nX: 1'})),
        lambda record, _: record.write_text(json.dumps({**json.loads(record.read_text()), "size": 99_999})),
        lambda record, _: record.write_text(json.dumps({**json.loads(record.read_text()), "file": [1, 2]})),
        lambda _, part: part.unlink(),
        lambda _, part: part.write_bytes(b""),
        lambda _, part: part.write_bytes(bytes(300_001)),
    ],
    ids=[
        "unreadable",
        "deep",
        "long",
        "no object",
        "another version",
        "another URL",
        "no validator",
        "a validator that is no header",
        "a smaller size",
        "another file",
        "no part",
        "an empty part",
        "a part that is too long",
    ],
)
async def test_it_begins_again_where_what_was_left_does_not_fit(
    faults: FaultServer, target: Path, no_waits: list[float], damage: Any
):
    url = await left_behind(target, faults)
    damage(record_of(target), part_of(target))
    faults.script("/file", ranged(BODY))
    await download(url, target, sha256=sha256(BODY))
    assert content_of(target) == BODY
    assert asked(faults) == [(None, None)]
    assert names(target) == ["file.bin"]


@pytest.mark.parametrize("status", [202, 204])
async def test_what_is_no_file_in_the_place_of_the_rest_leaves_the_part(
    faults: FaultServer, target: Path, status: int, no_waits: list[float]
):
    url = await left_behind(target, faults)
    faults.script("/file", answer(status), ranged(BODY))
    with pytest.raises(ResponseError):
        await download(url, target)
    await download(url, target)
    assert content_of(target) == BODY
    assert asked(faults) == [("bytes=100000-", '"1"')] * 2


async def test_by_a_date_other_headers_are_another_request(faults: FaultServer, target: Path, no_waits: list[float]):
    for headers, ranges in ((OLD_DATES, None), ({"ETag": '"1"'}, "bytes=100000-")):
        url = await left_behind(target, faults, ranged(BODY, headers, cut=100_000))
        faults.script("/file", ranged(BODY, headers))
        await download(url, target, headers={"Accept-Language": "de"})
        assert [request.headers.get("Range") for request in faults.requests] == [ranges]
        remove(target)


async def test_a_changed_file_that_gets_on_is_gone_on_with(faults: FaultServer, target: Path, no_waits: list[float]):
    url = await left_behind(target, faults, have=250_000)
    new = [ranged(OTHER, {"ETag": '"2"'}, cut=30_000) for _ in range(6)]
    faults.script("/file", *new, ranged(OTHER, {"ETag": '"2"'}))
    await download(url, target)
    assert content_of(target) == OTHER


# --- what is there by these names -------------------------------------------------------------------------------------


def other_program(part: Path) -> None:
    put(part, b"of another program")


def linked(part: Path) -> None:
    put(part.with_name("precious"), b"precious")
    os.link(part.with_name("precious"), part)


def fifo(part: Path) -> None:
    os.mkfifo(part)


def somebody_elses(part: Path) -> None:
    put(part, b"EVIL" * 1000)
    put(part.with_name(f"{part.name}.json"), b"{}")
    os.chown(part, 65534, 65534)


@pytest.mark.parametrize("make", [other_program, linked, fifo, somebody_elses])
async def test_what_no_download_has_left_is_not_touched(faults: FaultServer, target: Path, make: Any):
    if make is somebody_elses and os.geteuid() != 0:
        pytest.skip("only root can make a file of somebody else")
    part = part_of(target)
    make(part)
    before = part.lstat()
    with pytest.raises(FileExistsError, match="left by none of yours; move it away"):
        await download(faults.script("/file", ranged(BODY)), target)
    assert (part.lstat().st_ino, part.lstat().st_size) == (before.st_ino, before.st_size)
    assert faults.requests == []


@pytest.mark.parametrize("make", [fifo, lambda record: record.symlink_to("/dev/zero")], ids=["fifo", "link"])
async def test_a_record_that_is_no_file_is_not_read(faults: FaultServer, target: Path, make: Any):
    await left_behind(target, faults, ranged(BODY, cut=100_000))
    record_of(target).unlink()
    make(record_of(target))
    async with asyncio.timeout(SOON):
        with pytest.raises(FileExistsError):
            await download(faults.url + "/file", target)


async def test_a_record_of_another_part_is_not_believed(faults: FaultServer, target: Path, no_waits: list[float]):
    url = await left_behind(target, faults)
    part_of(target).unlink()
    put(part_of(target), b"x" * 100_000)
    faults.script("/file", ranged(BODY))
    await download(url, target)
    assert content_of(target) == BODY
    assert asked(faults) == [(None, None)]


async def test_a_part_that_was_taken_away_is_not_begun_again(faults: FaultServer, target: Path, no_waits: list[float]):
    url = faults.script("/file", ranged(BODY, cut=100_000), ranged(OTHER, {"ETag": '"2"'}))
    taken: list[Path] = []

    def take_away(*_: object) -> None:
        if not taken:
            taken.append(part_of(target).rename(target.with_name("taken")))

    with pytest.raises(OSError, match="something else has changed it"):
        await download(url, target, progress=take_away)
    assert content_of(target.with_name("taken")) == BODY[:100_000]


async def test_a_process_that_was_forked_meanwhile_does_not_keep_the_lock(
    faults: FaultServer, target: Path, no_waits: list[float]
):
    held: list[int] = []

    def hold(*_: object) -> None:  # As a forked process has it, the same file is open once more.
        if not held:
            (path,) = [one for one in Path("/proc/self/fd").iterdir() if one.exists() and one.samefile(part_of(target))]
            held.append(os.dup(int(path.name)))

    url = faults.script("/file", ranged(BODY, cut=100_000), answer(503))
    with pytest.raises(GiveUpError):
        await download(url, target, max_retries=2, progress=hold)
    faults.script("/file", ranged(BODY))
    await download(url, target)
    assert content_of(target) == BODY
    os.close(held[0])


async def test_a_link_by_the_name_of_the_target_is_replaced(faults: FaultServer, target: Path, tmp_path: Path):
    (tmp_path / "folder").mkdir()
    link(target, tmp_path / "folder")
    await download(faults.script("/file", ranged(BODY)), target)
    assert content_of(target) == BODY
    assert not is_link(target)


async def test_a_name_that_leaves_no_room_for_its_record(faults: FaultServer, tmp_path: Path):
    with pytest.raises(OSError, match="too long"):
        await download(faults.script("/file", ranged(BODY)), tmp_path / ("x" * 246))
    assert names(tmp_path / "x") == []
    assert faults.requests == []


@pytest.mark.parametrize("make", [fifo, Path.mkdir])
async def test_a_target_that_is_no_regular_file_is_left_alone(faults: FaultServer, target: Path, make: Any):
    make(target)
    with pytest.raises(
        OSError, match=r"no regular file, and is not replaced|this is a folder; write the name of a file in it"
    ):
        await download(faults.script("/file", ranged(BODY)), target)
    assert names(target) == ["file.bin"]
    assert faults.requests == []


async def test_a_missing_folder_is_named(faults: FaultServer, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"this is no folder; give another path: .*file'"):
        await download("http://localhost/", tmp_path / "file" / "file.bin")
    with pytest.raises(FileNotFoundError, match=r"the folder is missing; make it before: .*nowhere'"):
        await download(faults.url, tmp_path / "nowhere" / "file.bin")
    with pytest.raises(ValueError, match="path='' names no file"):
        await download(faults.url, "")
    assert faults.requests == []


async def test_progress_is_a_plain_function(faults: FaultServer, target: Path):
    async def progress(_done: int, _size: int | None) -> None: ...

    with pytest.raises(TypeError, match=r"progress is the coroutine function progress, and is called and not"):
        await download(faults.url, target, progress=progress)


async def test_another_query_is_another_url(faults: FaultServer, target: Path, no_waits: list[float]):
    url = await left_behind(target, faults)
    faults.script("/file", ranged(BODY))
    await download(url, target, params={"version": "2"})
    assert asked(faults) == [(None, None)]


async def test_another_fragment_is_the_same_url(faults: FaultServer, target: Path, no_waits: list[float]):
    url = await left_behind(target, faults)
    faults.script("/file", ranged(BODY))
    await download(url + "#top", target)
    assert asked(faults) == [("bytes=100000-", '"1"')]


async def test_what_is_recorded_tells_nothing_of_the_url(faults: FaultServer, target: Path, no_waits: list[float]):
    faults.script("/secret-path", ranged(BODY, cut=1000), answer(503))
    url = faults.url.replace("//", "//secret-user:secret-password@") + "/secret-path?secret=query#secret-fragment"
    with pytest.raises(GiveUpError):
        await download(url, target, max_retries=2)
    text = record_of(target).read_text()
    assert "secret" not in text
    assert "127.0.0.1" not in text
    assert mode_of(record_of(target)) == 0o600
    assert sorted(json.loads(text)) == ["beginning", "file", "place", "size", "source", "validator", "version"]


async def test_nor_does_it_where_the_session_has_a_base(faults: FaultServer, target: Path, no_waits: list[float]):
    url = await left_behind(target, faults)
    had = source_of(target)
    put(part_of(target), b"")
    faults.script("/file", ranged(BODY, cut=1000), answer(503))
    async with aiohttp.ClientSession(faults.url) as session:
        with pytest.raises(GiveUpError):
            await download("/file", target, session=session, max_retries=2)
        assert source_of(target) == had
    faults.script("/file", ranged(BODY))
    await download(url, target)
    assert content_of(target) == BODY
    assert asked(faults)[-1] == ("bytes=1000-", '"1"')


# --- it ends otherwise ------------------------------------------------------------------------------------------------


async def test_an_error_status_on_the_way_keeps_what_has_come(faults: FaultServer, target: Path, no_waits: list[float]):
    url = faults.script("/file", ranged(BODY, cut=250_000, first=1000), answer(404))
    with pytest.raises(ResponseError) as raised:
        await download(url, target)
    assert raised.value.status == 404
    assert content_of(part_of(target)) == BODY[:250_000]
    faults.script("/file", ranged(BODY))
    await download(url, target)
    assert content_of(target) == BODY
    assert asked(faults)[-1] == ("bytes=250000-", '"1"')


@pytest.mark.parametrize("status", [404, 503])
async def test_an_error_status_at_once_leaves_nothing(
    faults: FaultServer, target: Path, no_waits: list[float], status: int
):
    with pytest.raises(ResponseError):
        await download(faults.script("/file", answer(status, b"sorry")), target)
    assert names(target) == []


@pytest.mark.parametrize(
    ("step", "options"),
    [
        (answer(304), {"headers": {"If-None-Match": '"1"'}}),
        (answer(202, b"{}"), {}),
        (answer(204), {}),
        (redirect("/elsewhere"), {"allow_redirects": False}),
        (part(BODY, 0, 1000, 300_000), {}),
    ],
    ids=["304", "202", "204", "a redirect", "206"],
)
async def test_a_status_of_no_whole_file_is_an_error(
    faults: FaultServer, target: Path, step: Step, options: dict[str, Any]
):
    put(target, b"old")
    with pytest.raises(ResponseError, match=r"GET http://127.*/file") as raised:
        await download(faults.script("/file", step), target, **options)
    assert "whole" in raised.value.__notes__[0]
    assert content_of(target) == b"old"
    assert names(target) == ["file.bin"]


async def test_more_than_was_announced_is_an_error(faults: FaultServer, target: Path, no_waits: list[float]):
    url = await left_behind(target, faults)
    framing = {"Content-Range": "bytes 100000-299999/300000", "Transfer-Encoding": "chunked", "ETag": '"1"'}
    chunk = BODY[100_000:] + b"more"
    faults.script("/file", raw(head(206, framing) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(chunk), chunk)))
    with pytest.raises(aiohttp.ClientPayloadError, match="more bytes"):
        await download(url, target)
    assert content_of(target) is None


async def test_less_than_was_announced_is_an_error(faults: FaultServer, target: Path):
    url = faults.script("/file", ranged(BODY, cut=1000))
    with pytest.raises(aiohttp.ClientPayloadError):
        await download(url, target, max_retries=1)
    assert content_of(target) is None


async def test_what_comes_behind_the_body_is_no_part_of_it(faults: FaultServer, target: Path):
    with contextlib.suppress(aiohttp.ClientError):  # Where it came together, aiohttp refuses all of it.
        await download(faults.script("/file", TOO_LONG), target)
    assert content_of(target) in (None, b"hello")


async def test_a_coded_body_is_decoded_and_begins_again(faults: FaultServer, target: Path, no_waits: list[float]):
    packed = gzip.compress(BODY)
    coded = {"Content-Encoding": "gzip", "ETag": '"1"'}
    url = faults.script("/file", ranged(packed, coded, cut=100_000), ranged(packed, coded))
    told: list[Any] = []
    await download(url, target, progress=lambda *args: told.append(args))
    assert content_of(target) == BODY
    assert asked(faults) == [(None, None)] * 2
    assert told[-1] == (300_000, None)


async def test_another_digest_is_an_error_and_nothing_is_kept(faults: FaultServer, target: Path, no_waits: list[float]):
    put(target, b"old")
    url = await left_behind(target, faults)
    faults.script("/file", ranged(BODY))
    wanted = sha256(OTHER)
    with pytest.raises(ChecksumError, match=f"(?s){sha256(BODY)}.*{wanted}") as raised:
        await download(url, target, sha256=wanted)
    assert (raised.value.expected, raised.value.actual) == (wanted, sha256(BODY))
    assert len(faults.requests) == 1
    assert content_of(target) == b"old"
    assert names(target) == ["file.bin"]


@pytest.mark.parametrize("damaged", [b"", bytes(30_000)], ids=["shorter", "of the same size"])
async def test_a_part_that_was_damaged_meanwhile_is_found_by_its_digest(
    faults: FaultServer, target: Path, no_waits: list[float], damaged: bytes
):
    url = await left_behind(target, faults)
    put(part_of(target), BODY[:70_000] + damaged + bytes(10))
    faults.script("/file", ranged(BODY))
    with pytest.raises(ChecksumError):
        await download(url, target, sha256=sha256(BODY))
    assert names(target) == []


@pytest.mark.parametrize(
    ("sha256", "error", "text"),
    [("abc", ValueError, "64 hex digits"), ("g" * 64, ValueError, "64 hex digits"), (b"a" * 64, TypeError, "a bytes")],
)
async def test_a_digest_that_is_none_is_refused(target: Path, sha256: Any, error: type[Exception], text: str):
    with pytest.raises(error, match=text):
        await download("http://127.0.0.1:9/", target, sha256=sha256)


async def test_wrong_arguments_are_refused(faults: FaultServer, target: Path):
    url = faults.script("/file", ranged(BODY))
    with pytest.raises(TypeError, match="path is an int; write the name of the file as a str or"):
        await download(url, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="progress is an int"):
        await download(url, target, progress=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no URL"):
        await download(3, target)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"path is a URL, .*; the URL comes first: download\(url, path\)"):
        await download(str(target), url)
    with pytest.raises(TypeError, match=r"there is no option checksum=; did you mean sha256=\?"):
        await download(url, target, checksum="a")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"there is no option on_progress=; did you mean progress=\?"):
        await download(url, target, on_progress=print)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="did you mean max_retries"):
        await download(url, target, retries=3)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="Range"):
        await download(url, target, headers={"Range": "bytes=1-"})
    with pytest.raises(aiohttp.InvalidURL):
        await download("http://[", target)
    assert not faults.requests
    assert names(target) == []


async def test_a_target_that_cannot_be_is_found_before_a_request(faults: FaultServer, tmp_path: Path):
    url = faults.script("/file", ranged(BODY))
    with pytest.raises(IsADirectoryError):
        await download(url, tmp_path)
    with pytest.raises(FileNotFoundError):
        await download(url, tmp_path / "no" / "folder")
    assert not faults.requests


async def test_a_link_by_the_name_of_the_part_is_not_followed(faults: FaultServer, target: Path):
    other = target.with_name("other")
    put(other, b"of somebody else")
    part_of(target).symlink_to(other)
    with pytest.raises(OSError, match=r"file\.bin\.part") as raised:
        await download(faults.script("/file", ranged(BODY)), target)
    assert raised.value.errno == errno.ELOOP
    assert not faults.requests
    assert content_of(other) == b"of somebody else"


async def test_what_progress_raises_ends_it_and_the_part_stays(faults: FaultServer, target: Path):
    url = faults.script("/file", ranged(BODY))

    def stop(done: int, size: int | None) -> None:
        raise LookupError(done, size)

    with pytest.raises(LookupError):
        await download(url, target, progress=stop)
    had = part_of(target).stat().st_size
    assert 0 < had <= 300_000
    await download(url, target)
    assert content_of(target) == BODY
    assert asked(faults)[-1] == (f"bytes={had}-", '"1"')


# --- many at once, and files that fail --------------------------------------------------------------------------------


async def begun(target: Path, more_than: int = 0) -> None:
    """Wait until more than so many bytes are in the part."""
    async with asyncio.timeout(SOON):
        while not part_of(target).exists() or part_of(target).stat().st_size <= more_than:
            await asyncio.sleep(0.005)


async def test_a_second_download_of_the_same_file_fails_at_once(faults: FaultServer, target: Path):
    let_go = asyncio.Event()

    async def slow(connection: Connection) -> None:
        await connection.send(head(200, {"Content-Length": str(len(BODY)), "ETag": '"1"'}) + BODY[:1000])
        await let_go.wait()
        await connection.send(BODY[1000:])

    url = faults.script("/file", slow)
    first = asyncio.create_task(download(url, target))
    await begun(target)
    with pytest.raises(BlockingIOError, match="another download") as raised:
        async with asyncio.timeout(SOON):
            await download(url, target)
    assert raised.value.errno == errno.EAGAIN
    done = await another_process(f"download({url!r}, {str(target)!r})")
    assert "BlockingIOError" in done.stderr
    assert len(faults.requests) == 1
    let_go.set()
    await first
    assert content_of(target) == BODY
    faults.script("/file", ranged(OTHER))
    await download(url, target)
    assert content_of(target) == OTHER


async def test_many_downloads_of_the_same_file_do_no_harm(faults: FaultServer, target: Path):
    url = faults.script("/file", ranged(BODY))
    outcomes = await asyncio.gather(*(download(url, target) for _ in range(8)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {type(target), BlockingIOError}
    assert content_of(target) == BODY
    assert names(target) == ["file.bin"]


async def test_a_part_that_somebody_else_puts_there_meanwhile_is_not_taken(faults: FaultServer, target: Path):
    def put_another(*_: object) -> None:
        part_of(target).unlink(missing_ok=True)
        part_of(target).write_bytes(b"of somebody else")

    with pytest.raises(OSError, match="something else has changed it"):
        await download(faults.script("/file", ranged(BODY)), target, progress=put_another)
    assert content_of(target) is None


async def test_a_part_that_somebody_else_writes_to_is_not_taken_nor_gone_on_with(faults: FaultServer, target: Path):
    def write_to_it(*_: object) -> None:
        put(part_of(target), b"of somebody else")

    url = faults.script("/file", ranged(BODY))
    with pytest.raises(OSError, match="something else has changed it"):
        await download(url, target, progress=write_to_it)
    assert content_of(target) is None
    await download(url, target)
    assert content_of(target) == BODY
    assert asked(faults) == [(None, None)] * 2


PROGRAM = """
import asyncio, resource, sys
from retrykit.http.download import download
async def main():
    await {call}
{before}
asyncio.run(main())
"""


def program(call: str, before: str = "") -> list[str]:
    return [sys.executable, "-c", PROGRAM.format(call=call, before=before)]


async def another_process(call: str, before: str = "") -> "subprocess.CompletedProcess[str]":
    def run() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(program(call, before), capture_output=True, text=True, timeout=60, check=False)

    return await asyncio.to_thread(run)


async def test_a_process_that_was_killed_is_gone_on_after(faults: FaultServer, target: Path, no_waits: list[float]):
    content = seeded(3 * MIB)
    url = faults.script("/file", ranged(content, cut=2 * MIB, then="stall"), ranged(content))
    running = await asyncio.create_subprocess_exec(*program(f"download({url!r}, {str(target)!r})"))
    await begun(target, MIB)
    running.send_signal(signal.SIGKILL)
    assert await running.wait() == -signal.SIGKILL
    had = part_of(target).stat().st_size
    await download(url, target, sha256=sha256(content))
    assert content_of(target) == content
    assert asked(faults) == [(None, None), (f"bytes={had}-", '"1"')]
    assert names(target) == ["file.bin"]


async def test_a_full_disk_is_an_error_at_once_and_the_part_stays(faults: FaultServer, target: Path):
    url = faults.script("/file", ranged(BODY))
    full = "resource.setrlimit(resource.RLIMIT_FSIZE, (123_456, 123_456))"
    done = await another_process(f"download({url!r}, {str(target)!r})", full)
    assert f"OSError: [Errno {errno.EFBIG}]" in done.stderr
    assert content_of(part_of(target)) == BODY[:123_456]
    await download(url, target, sha256=sha256(BODY))
    assert content_of(target) == BODY
    assert asked(faults) == [(None, None), ("bytes=123456-", '"1"')]


async def test_a_disk_that_is_full_does_not_hide_a_cancellation(faults: FaultServer, target: Path):
    url = faults.script("/file", ranged(BODY, cut=200_000, then="stall", first=1000))
    call = f"asyncio.wait_for(download({url!r}, {str(target)!r}, progress=fill), 0.3)"
    full = """
def fill(done, size):  # What comes after the first bytes has no room.
    resource.setrlimit(resource.RLIMIT_FSIZE, (done, done))
"""
    done = await another_process(call, full)
    assert done.stderr.strip().endswith("TimeoutError")


async def test_a_file_that_cannot_be_renamed_is_an_error_and_the_part_stays(faults: FaultServer, target: Path):
    url = faults.script("/file", ranged(BODY))
    with pytest.raises(IsADirectoryError):
        await download(url, target, progress=lambda *_: target.mkdir(exist_ok=True))
    Path.rmdir(target)
    await download(url, target)
    assert content_of(target) == BODY
    assert asked(faults) == [(None, None), ("bytes=300000-", '"1"')]


# --- cancelled --------------------------------------------------------------------------------------------------------


async def test_cancelled_at_any_moment_it_goes_on_afterwards(faults: FaultServer, target: Path, no_waits: list[float]):
    content, draw = seeded(2 * MIB), random.Random(6)
    url = faults.script("/file", cut_at(content, (draw.randint(1, MIB) for _ in iter(int, 1))))
    lost: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))
    cancelled = 0
    for turns in [*range(40), *(draw.randint(40, 400) for _ in range(20))]:
        task = asyncio.create_task(download(url, target, sha256=sha256(content)))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            cancelled += 1
            assert content.startswith(content_of(part_of(target)) or b"")
        else:
            assert content_of(target) == content
    await download(url, target, sha256=sha256(content))
    assert content_of(target) == content
    assert names(target) == ["file.bin"]
    assert cancelled > 20
    gc.collect()
    assert not lost


async def test_what_has_come_when_it_is_cancelled_is_written(faults: FaultServer, target: Path):
    url = faults.script("/file", ranged(BODY, cut=200_000, then="stall", first=1000), ranged(BODY))
    async with aiohttp.ClientSession() as session:
        task = asyncio.create_task(download(url, target, session=session))
        await begun(target)
        await asyncio.sleep(0.1)  # More comes, and is not written yet.
        assert part_of(target).stat().st_size == 1000
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert content_of(part_of(target)) == BODY[:200_000]
    await faults.all_closed()
    await download(url, target)
    assert asked(faults)[-1] == ("bytes=200000-", '"1"')


async def test_an_error_that_a_cancellation_hides_is_not_reported_as_lost(tmp_path: Path):
    lost: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))
    for turns in range(6):
        task = asyncio.create_task(download("http://127.0.0.1:9/", tmp_path))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, IsADirectoryError):
            await task
        del task
        gc.collect()
    assert not lost


async def test_a_loop_that_ends_lets_go_of_the_file(faults: FaultServer, target: Path):
    content, draw = seeded(2 * MIB), random.Random(6)
    url = faults.script("/file", ranged(content))

    async def leave(turns: int) -> None:
        running = asyncio.ensure_future(download(url, target))
        for _ in range(turns):
            await asyncio.sleep(0)
        assert not running.cancelled()

    for _ in range(10):
        await asyncio.to_thread(lambda: asyncio.run(leave(draw.randint(0, 200))))
        assert content.startswith(content_of(part_of(target)) or b"")
    await download(url, target, sha256=sha256(content))
    assert content_of(target) == content


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="where open files can be counted")
async def test_no_file_stays_open(faults: FaultServer, target: Path, no_waits: list[float]):
    async def once(*steps: Step, **options: Any) -> None:
        url = faults.script("/file", *steps)
        with contextlib.suppress(aiohttp.ClientError, OSError, TypeError):
            await download(url, target, session=session, **options)

    async with aiohttp.ClientSession() as session:
        await once(ranged(BODY))
        before = open_files(target.parent)
        await once(ranged(BODY, cut=1000), answer(404))
        await once(ranged(BODY), sha256=sha256(OTHER))
        await once(ranged(BODY), progress={}.__getitem__)
        await asyncio.gather(*(once(ranged(BODY)) for _ in range(4)))
        assert open_files(target.parent) == before == []


def open_files(folder: Path) -> list[str]:
    links = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return [str(link) for link in links if folder in link.parents]
