"""What a failure means for another attempt."""

import socket
import ssl

import aiohttp
import pytest
import tenacity
from aiohttp import http_exceptions
from aiohttp.client_reqrep import ConnectionKey
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from retrykit import TRANSIENT_ERRORS, RetryPolicy, TryAgain
from retrykit.core.classify import Kind, kind_of_class, kind_of_error, kind_of_status

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
        socket.gaierror(-2, "unknown"),
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
    ],
    ids=repr,
)
def test_maybe_processed(error):
    assert kind(error) is Kind.MAYBE_PROCESSED


def malformed_response():
    error = response_error(status=400)
    error.__cause__ = http_exceptions.BadStatusLine("garbage")
    return error


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
    [ValueError(), OSError(2, "no such file"), RuntimeError("else"), aiohttp.ClientError(), KeyError()],
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
