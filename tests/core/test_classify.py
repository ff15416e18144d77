"""What a failure means for another attempt."""

import asyncio
import errno
import inspect
import os
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
import tenacity
from aiohttp import client_exceptions, http_exceptions
from aiohttp.client_reqrep import ConnectionKey
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from retrykit import TRANSIENT_ERRORS, RetryPolicy, TryAgain, attempts_of, fetch_bytes, retry_http
from retrykit.core.classify import _KINDS, Kind, kind_of_class, kind_of_error, kind_of_status, lost_connection
from retrykit.core.errors import UsageError
from tests.faults import GARBAGE, INVALID_GZIP, FaultServer, answer, redirect

KEY = ConnectionKey("localhost", 1, False, True, None, None, None)
STATUSES = RetryPolicy().statuses
REQUEST = aiohttp.RequestInfo(
    URL("http://localhost/"), "GET", CIMultiDictProxy(CIMultiDict()), URL("http://localhost/")
)


def kind(error, statuses=STATUSES, exceptions=TRANSIENT_ERRORS):
    return kind_of_error(error, frozenset(statuses), exceptions)


def response_error(cls=aiohttp.ClientResponseError, **fields):
    return cls(REQUEST, (), **fields)


@pytest.mark.parametrize(
    "error",
    [
        aiohttp.ClientConnectorError(KEY, OSError(111, "refused")),
        aiohttp.ClientProxyConnectionError(KEY, OSError(111, "refused")),
        aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(-2, "unknown")),
        aiohttp.ClientConnectorError(KEY, socket.gaierror(-2, "unknown")),
        aiohttp.ConnectionTimeoutError(),
        client_exceptions.UnixClientConnectorError("/run/x", KEY, OSError(2, "absent")),
        socket.gaierror(-2, "unknown"),
        socket.gaierror(-3, "try again"),
        socket.herror(1, "unknown"),
        ConnectionRefusedError(111, "refused"),
        tenacity.TryAgain(),
        TryAgain(after=1),
        response_error(aiohttp.ClientHttpProxyError, status=503),
    ],
    ids=repr,
)
def test_unsent(error):
    assert kind(error) is Kind.UNSENT


@pytest.mark.parametrize(
    "error",
    [
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientOSError(104, "reset"),
        aiohttp.ClientConnectionResetError("closing"),
        aiohttp.ClientConnectionError("something new"),
        aiohttp.SocketTimeoutError(),
        aiohttp.ServerTimeoutError(),
        aiohttp.ClientPayloadError("cut"),
        TimeoutError(),
        ConnectionResetError(104, "reset"),
        BrokenPipeError(32, "pipe"),
        OSError(errno.EHOSTUNREACH, "no route"),
        OSError(errno.ENETDOWN, "down"),
        ssl.SSLEOFError(8, "closed without goodbye"),
        ssl.SSLZeroReturnError(6, "closed"),
    ],
    ids=repr,
)
def test_maybe_processed(error):
    assert kind(error) is Kind.MAYBE_PROCESSED


def caused(error, cause):
    error.__cause__ = cause
    return error


def malformed_response():
    return caused(response_error(status=400), http_exceptions.BadStatusLine("garbage"))


@pytest.mark.parametrize(
    "error",
    [
        aiohttp.ClientConnectorCertificateError(KEY, ssl.SSLCertVerificationError(1, "self-signed")),
        aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "wrong version")),
        aiohttp.ServerFingerprintMismatch(b"a", b"b", "localhost", 1),
        ssl.SSLError(1, "wrong version"),
        aiohttp.InvalidURL("x"),
        aiohttp.InvalidUrlClientError("x"),
        aiohttp.NonHttpUrlClientError("x"),
        aiohttp.InvalidUrlRedirectClientError("x"),
        aiohttp.NonHttpUrlRedirectClientError("x"),
        aiohttp.TooManyRedirects(REQUEST, ()),
        response_error(aiohttp.ClientHttpProxyError, status=407),
        malformed_response(),
        aiohttp.RedirectClientError("x"),
        caused(aiohttp.ClientOSError(1, "bad record"), ssl.SSLError(1, "bad record")),
        caused(aiohttp.ClientConnectionError("Failed to send bytes into it"), UsageError("a body that was used up")),
        aiohttp.ClientPayloadError("Cannot follow redirect with a consumed request body. Use bytes, or else."),
        RuntimeError("Session is closed"),
        aiohttp.ClientConnectionError("Connector is closed."),
        aiohttp.ClientConnectionError("Connection closed"),
    ],
    ids=repr,
)
def test_permanent_whatever_a_policy_names(error):
    assert kind(error, statuses=range(400, 600), exceptions=(Exception,)) is Kind.PERMANENT


@pytest.mark.parametrize(
    "error",
    [
        ValueError(),
        OSError(2, "no such file"),
        FileNotFoundError(2, "no such file"),
        OSError(28, "disk full"),
        RuntimeError("Session is closed by the user"),
        UnicodeError("label too long"),
        aiohttp.ClientError(),
        aiohttp.WSMessageTypeError(),
        KeyError(),
    ],
    ids=repr,
)
def test_anything_else_is_not_retried_unless_it_is_named(error):
    assert kind(error) is None
    assert kind(error, exceptions=(type(error),)) is Kind.MAYBE_PROCESSED


@pytest.mark.parametrize(
    ("status", "expected"),
    [(408, Kind.UNSENT), (425, Kind.UNSENT), (429, Kind.UNSENT), (503, Kind.UNSENT), (502, Kind.MAYBE_PROCESSED),
     (504, Kind.MAYBE_PROCESSED), (500, None), (404, None), (501, None)],
)  # fmt: skip
def test_a_response_that_was_raised_is_judged_by_its_status(status, expected):
    assert kind(response_error(status=status)) is expected
    for base in (aiohttp.ClientError, aiohttp.ClientResponseError):
        assert kind(response_error(status=status), exceptions=(base,)) is expected


def test_a_subclass_of_response_error_can_be_named():
    error = response_error(aiohttp.ContentTypeError, status=200)
    assert kind(error) is None
    assert kind(error, exceptions=(aiohttp.ContentTypeError,)) is Kind.MAYBE_PROCESSED
    assert kind(error, exceptions=(aiohttp.ClientResponseError, aiohttp.ContentTypeError)) is Kind.MAYBE_PROCESSED


def test_named_exceptions_replace_the_table():
    assert kind(aiohttp.ServerDisconnectedError(), exceptions=(KeyError,)) is None


def test_a_class_that_is_unknown_takes_its_nearest_base():
    class Newer(aiohttp.ClientConnectorError):
        pass

    class NewerPermanent(aiohttp.ClientConnectorCertificateError):
        pass

    assert kind_of_class(Newer) is Kind.UNSENT
    assert kind_of_class(NewerPermanent) is Kind.PERMANENT
    assert kind_of_class(KeyError) is None


def test_a_named_status_is_maybe_processed_unless_it_says_otherwise():
    assert kind_of_status(500) is Kind.MAYBE_PROCESSED
    assert kind_of_status(503) is Kind.UNSENT


def test_every_class_of_aiohttp_has_its_place():
    classes = [value for _, value in inspect.getmembers(client_exceptions, inspect.isclass)]
    known = {cls for cls in classes if issubclass(cls, Exception) and cls.__module__ == client_exceptions.__name__}
    assert len(known) > 25
    unplaced = {cls.__name__ for cls in known - _KINDS.keys()}
    if os.environ.get("RETRYKIT_NEWEST_AIOHTTP"):  # set by the job that is to find what is new
        assert not unplaced
    assert unplaced <= {cls.__name__ for cls in known if kind_of_class(cls) is not None}


def test_a_handshake_that_was_refused_is_judged_by_its_status():
    assert kind(response_error(aiohttp.WSServerHandshakeError, status=503)) is Kind.UNSENT
    assert kind(response_error(aiohttp.WSServerHandshakeError, status=403)) is None


def test_a_network_error_of_the_system_counts_as_aiohttps_own():
    error = OSError(errno.EHOSTUNREACH, "no route")
    assert kind(error, exceptions=(aiohttp.ClientOSError,)) is Kind.MAYBE_PROCESSED
    assert kind(error, exceptions=(aiohttp.ClientPayloadError,)) is None


def test_what_a_body_raises_is_judged_by_itself():
    def passed_on(cause):
        return caused(aiohttp.ClientConnectionError("Failed to send bytes into the underlying connection"), cause)

    assert kind(passed_on(KeyError("mine"))) is None
    assert kind(passed_on(KeyError("mine")), exceptions=(KeyError,)) is Kind.MAYBE_PROCESSED
    assert kind(passed_on(aiohttp.ClientPayloadError("cut"))) is Kind.MAYBE_PROCESSED
    assert kind(passed_on(None)) is Kind.MAYBE_PROCESSED

    def read_by_the_body(cause):
        return caused(aiohttp.ClientOSError(cause.errno, "Can not write request body for http://localhost/"), cause)

    assert kind(read_by_the_body(FileNotFoundError(2, "absent"))) is None
    assert kind(read_by_the_body(ConnectionResetError(104, "reset"))) is Kind.MAYBE_PROCESSED
    assert kind(read_by_the_body(aiohttp.ClientOSError(104, "reset"))) is Kind.MAYBE_PROCESSED


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (aiohttp.ServerDisconnectedError(), True),
        (aiohttp.ClientOSError(104, "reset"), True),
        (aiohttp.ClientConnectorError(KEY, OSError(111, "refused")), False),
        (aiohttp.ClientConnectorCertificateError(KEY, ssl.SSLCertVerificationError(1, "self-signed")), False),
        (aiohttp.ServerTimeoutError(), False),
        (aiohttp.ClientPayloadError(), False),
        (TimeoutError(), False),
        (None, False),
    ],
    ids=repr,
)
def test_a_lost_connection(error, lost):
    assert lost_connection(error) is lost


def test_a_proxys_refusal_is_judged_by_its_status():
    def refusal(status):
        return response_error(aiohttp.ClientHttpProxyError, status=status)

    assert kind(refusal(503), statuses={503}, exceptions=()) is Kind.UNSENT
    assert kind(refusal(503), statuses={429}, exceptions=()) is None
    assert kind(refusal(503), statuses=(), exceptions=(aiohttp.ClientHttpProxyError,)) is Kind.UNSENT
    assert kind(refusal(403), statuses={403}, exceptions=(aiohttp.ClientHttpProxyError,)) is Kind.PERMANENT


def test_what_a_body_raises_was_no_request_of_ours():
    error = caused(aiohttp.ClientConnectionError("Failed to send bytes into it"), response_error(status=503))
    assert kind(error) is Kind.MAYBE_PROCESSED


PURE_PYTHON = """
import asyncio
import aiohttp
from retrykit import fetch_bytes, retry_http
from tests.faults import FaultServer, answer, head

def broken(status):
    async def step(connection):
        await connection.send(head(status, {"Transfer-Encoding": "chunked"}) + b"5\\r\\nhello\\r\\n")
        await asyncio.sleep(0.05)
        await connection.send(b"ZZ\\r\\n")
        await connection.closed_by_peer()
    return step

async def main():
    async with FaultServer() as server:
        url = server.script("/x", broken(503), broken(200), answer(200, b"whole"))
        print(await fetch_bytes(url, base_delay=0.01))
        server.script("/x", broken(503), answer(200, b"whole"))
        async with aiohttp.ClientSession() as session:
            async with await retry_http(base_delay=0.01)(session.get)(url) as response:
                print(await response.read())

asyncio.run(main())
"""


def test_aiohttps_parser_in_python_tells_of_a_broken_chunk():
    environment = {**os.environ, "AIOHTTP_NO_EXTENSIONS": "1"}
    root = Path(__file__).parents[2]
    program = [sys.executable, "-c", PURE_PYTHON]
    done = subprocess.run(program, cwd=root, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "b'whole'\nb'whole'\n", done.stderr


class TestOverRealSockets:
    """What aiohttp really raises."""

    @pytest.fixture
    async def attempts(self, no_waits):
        """Calls an address, and gives the error and the number of attempts."""
        async with aiohttp.ClientSession() as session:

            async def attempts(url, **options):
                with pytest.raises(Exception) as raised:  # noqa: PT011
                    await retry_http(session.get)(url, **options)
                return type(raised.value), len(attempts_of(raised.value) or [1])

            yield attempts

    async def test_a_name_that_does_not_resolve(self, attempts):
        assert await attempts("http://nowhere.invalid/") == (aiohttp.ClientConnectorDNSError, 3)

    async def test_a_refused_connection(self, attempts, unused_tcp_port):
        assert await attempts(f"http://127.0.0.1:{unused_tcp_port}/") == (aiohttp.ClientConnectorError, 3)

    async def test_a_refused_proxy(self, attempts, unused_tcp_port):
        proxy = f"http://127.0.0.1:{unused_tcp_port}/"
        assert await attempts("http://localhost/", proxy=proxy) == (aiohttp.ClientProxyConnectionError, 3)

    @pytest.mark.parametrize(("status", "count"), [(503, 3), (407, 1)])
    async def test_a_proxy_that_refuses_to_connect(self, attempts, faults, status, count):
        faults.script("localhost:443", status)
        assert await attempts("https://localhost/", proxy=faults.url) == (aiohttp.ClientHttpProxyError, count)

    async def test_garbage(self, attempts, faults):
        url = faults.script("/x", GARBAGE)
        assert await attempts(url) == (aiohttp.ClientResponseError, 1)

    async def test_too_many_redirects(self, attempts, faults):
        url = faults.script("/x", redirect("/x", 302))
        assert await attempts(url) == (aiohttp.TooManyRedirects, 1)

    @pytest.mark.parametrize("location", ["ftp://localhost/", "http://"])
    async def test_a_redirect_to_nowhere(self, attempts, faults, location):
        url = faults.script("/x", redirect(location, 302))
        error, count = await attempts(url)
        assert issubclass(error, aiohttp.RedirectClientError)
        assert count == 1

    @pytest.mark.parametrize("url", ["http:///x", "not-a-url", "ftp://localhost/", "http://[::1/"])
    async def test_what_is_no_address(self, attempts, url):
        error, count = await attempts(url)
        assert issubclass(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError)
        assert count == 1

    async def test_a_session_that_is_closed(self, no_waits):
        session = aiohttp.ClientSession()
        await session.close()
        with pytest.raises(RuntimeError, match="Session is closed"):
            await retry_http(exceptions=(RuntimeError,))(session.get)("http://localhost/")
        assert no_waits == []

    async def test_a_plain_server_where_tls_was_expected(self, attempts):
        async def greet(reader, writer):
            writer.write(b"220 mail.example.com ready\r\n" * 3)
            await writer.drain()
            await reader.read()
            writer.close()

        async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            assert await attempts(f"https://{host}:{port}/") == (aiohttp.ClientConnectorSSLError, 1)

    async def test_a_wrong_certificate(self, attempts, tls_server):
        assert await attempts(tls_server) == (aiohttp.ClientConnectorCertificateError, 1)

    async def test_a_wrong_fingerprint(self, attempts, tls_server):
        fingerprint = aiohttp.Fingerprint(bytes(32))
        assert await attempts(tls_server, ssl=fingerprint) == (aiohttp.ServerFingerprintMismatch, 1)

    @pytest.fixture
    async def tls_server(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(Path(__file__).with_name("localhost.pem"))
        async with FaultServer(context) as server:
            yield server.url


async def test_a_broken_chunk_that_comes_later_ends_with_the_attempt(faults, no_waits):
    async def broken(connection):
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await asyncio.sleep(0.05)
        await connection.send(b"ZZ\r\n")
        await connection.closed_by_peer()

    url = faults.script("/x", broken, answer(200, b"whole"))
    assert await fetch_bytes(url, attempt_timeout=0.5) == b"whole"


async def test_a_body_that_is_no_gzip_is_a_body_cut_short(faults, no_waits):
    url = faults.script("/x", INVALID_GZIP, answer(200, b"whole"))
    assert await fetch_bytes(url) == b"whole"
