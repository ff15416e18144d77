"""Nothing that retrykit says has a secret in it: records of the log, notes, events, texts of errors and objects."""

import logging
import traceback
import warnings

import aiohttp
import pytest
from yarl import URL

import retrykit
from retrykit import AsyncHTTPClient, RetryMiddleware, RetryPolicy, attempts_of, fetch_json, post, retry_http
from retrykit.core.events import Request
from retrykit.core.history import history_of
from retrykit.testing import ReceivedRequest
from tests.faults import CLOSE, GARBAGE, RESET, STALL, TRUNCATED, answer, redirect

SECRET = "s3cr3t"
OPTIONS = {
    "params": {"token": SECRET},
    "headers": {"X-Api-Key": SECRET, "Cookie": f"session={SECRET}"},
}
FAULTS = {
    "503": answer(503),
    "404": answer(404),
    "close": CLOSE,
    "reset": RESET,
    "garbage": GARBAGE,
    "truncated": TRUNCATED,
    "stall": STALL,
    "retry-after": answer(503, headers={"Retry-After": "9999"}),
    "loop": redirect(f"/x?again={SECRET}", 302),
    "refused": redirect(f"http://127.0.0.1:1/?next={SECRET}", 303),
    "nowhere": redirect(f"ftp://{SECRET}@localhost/", 302),
}


class Said(logging.Handler):
    """All that was logged, formatted with its traceback, and every event."""

    def __init__(self):
        super().__init__()
        self.texts = []
        self.events = []

    def emit(self, record):
        self.texts.append(logging.Formatter().format(record))
        self.texts.append(repr(vars(record)))

    def hear(self, event):
        self.events.append(event)
        self.texts += [str(event), repr(event)]


@pytest.fixture
def said():
    """What retrykit says from now on."""
    said = Said()
    logger = logging.getLogger("retrykit")
    logger.addHandler(said)
    level, logger.level = logger.level, logging.DEBUG

    def fails(event):
        try:
            raise LookupError("what it met")
        except LookupError:
            raise ValueError("a listener that fails")  # noqa: B904

    retrykit.set_listeners(retrykit.log_listener, said.hear, fails)
    yield said
    logger.removeHandler(said)
    logger.level = level


async def decorated(base, path):
    async with aiohttp.ClientSession() as session:

        @retry_http(attempt_timeout=0.05)
        async def send(token):
            async with session.post(base + path, data=SECRET, raise_for_status=True, **OPTIONS) as response:
                return await response.read()

        await send(SECRET)


async def client(base, path):
    async with AsyncHTTPClient(base, attempt_timeout=0.05, idempotent=True) as client:
        await client.post(path, {"password": SECRET}, idempotency_key=SECRET, **OPTIONS)


async def generator(base, path):
    async def body():
        yield SECRET.encode()

    async with AsyncHTTPClient(base, attempt_timeout=0.05) as client:
        await client.put(path, body(), **OPTIONS)


async def helper(base, path):
    await fetch_json(base + path, attempt_timeout=0.05, **OPTIONS)


async def helper_with_a_session(base, path):
    async with aiohttp.ClientSession() as session:
        response = await post(session, base + path, data={"password": SECRET}, attempt_timeout=0.05, **OPTIONS)
        async with response:
            response.raise_for_status()
            await response.read()


async def middleware(base, path):
    retries = RetryMiddleware(attempt_timeout=0.05, on_give_up="raise")
    async with aiohttp.ClientSession(middlewares=[retries], raise_for_status=True) as session:
        async with session.post(base + path, data=SECRET, **OPTIONS) as response:
            await response.read()


async def stacked(base, path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            await retry_http(max_retries=2)(client)(base, path)
        finally:
            assert SECRET not in "".join(str(warning.message) for warning in caught)


SENDERS = [decorated, client, generator, helper, helper_with_a_session, middleware, stacked]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("send", SENDERS, ids=lambda send: send.__name__)
async def test_no_secret_is_said(faults, no_waits, said, send, fault):
    path = f"/x?key={SECRET}#{SECRET}"
    faults.script("/x", FAULTS[fault])
    base = faults.url.replace("//", f"//user:{SECRET}@")  # aiohttp makes an Authorization header of it
    with pytest.raises(Exception) as raised:  # noqa: PT011
        await send(base, path)
    error = raised.value
    ours = [*said.texts, *getattr(error, "__notes__", ())]
    for attempt in attempts_of(error):
        ours += [str(attempt), repr(attempt)]
    ours += [repr(history_of(error))]
    if isinstance(error, retrykit.ResponseError):
        ours += [str(error), repr(error), "".join(traceback.format_exception(error))]
    assert not [text for text in ours if SECRET in text]


async def test_what_was_said_there_is_something(faults, no_waits, said):
    faults.script("/x", 503)
    with pytest.raises(retrykit.GiveUpError):
        await client(faults.url, "/x")
    assert any("attempt 3 of 3: 503" in text for text in said.texts)
    assert any("a listener that fails" in text and "what it met" in text for text in said.texts)
    assert len(said.events) == 3


def test_the_objects_that_hold_secrets_do_not_show_them():
    policy = RetryPolicy()
    client = AsyncHTTPClient(f"https://user:{SECRET}@localhost/")
    request = ReceivedRequest(
        method="GET", path="/x", query={"token": SECRET}, headers={"Authorization": SECRET}, body=SECRET.encode()
    )
    for thing in (policy, client, request, RetryMiddleware(policy)):
        assert SECRET not in repr(thing) + str(thing)


async def test_a_server_cannot_forge_a_line_of_the_log(faults, no_waits, said):
    url = faults.script("/x", redirect("/next\u2028\x85forged", 302))
    async with aiohttp.ClientSession(middlewares=[RetryMiddleware()], requote_redirect_url=False) as session:
        with pytest.raises(Exception):  # noqa: B017, PT011
            async with session.get(url) as response:
                response.raise_for_status()
    assert all(event.path is None or event.path.isprintable() for event in said.events)
    assert Request.to("GET", URL("http://localhost/a\u2028b", encoded=True)).path == "/a%E2%80%A8b"
