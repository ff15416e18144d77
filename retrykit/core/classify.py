"""What a failure means for another attempt: status or exception -> permanent | unsent | maybe processed.

Two tables, one for statuses and one for exceptions. Permanent is decided first, because aiohttp's class tree mixes
the kinds: a certificate error is also a `ClientOSError`, a fingerprint mismatch also a `ServerConnectionError`.
"""

import errno
import socket
import ssl
from collections.abc import Callable, Iterator
from enum import Enum
from functools import lru_cache
from traceback import walk_tb
from types import FrameType
from typing import cast

import aiohttp
import tenacity
from aiohttp import client_exceptions, http_exceptions

from retrykit.core.errors import ChecksumError, CircuitOpenError, OriginPausedError, UsageError


class Kind(Enum):
    """What a failed attempt did to the server."""

    PERMANENT = "permanent"
    """Another attempt would fail in the same way."""
    UNSENT = "unsent"
    """The request never left, or was refused before it was taken up: any method can be sent again."""
    MAYBE_PROCESSED = "maybe processed"
    """The request may have had its effect: only a call that may be repeated can be sent again."""
    BY_STATUS = "by its status"
    """An answer that was raised: its status says which of these."""
    IF_NAMED = "if it is named"
    """No failure of a connection: it may have been processed, and is retried only where a policy names it."""


# To look up a member of an Enum is slow in Python 3.11.
PERMANENT, UNSENT, MAYBE_PROCESSED = Kind.PERMANENT, Kind.UNSENT, Kind.MAYBE_PROCESSED

# The statuses by which a server says that it did not take the request up (RFC 9110 §15.5.9 and §15.6.4,
# RFC 8470 §5.2, RFC 6585 §4). 502 and 504 are not among them: a gateway may have passed the request on.
_NOT_TAKEN_UP = frozenset({408, 425, 429, 503})

THROTTLED = 429
"""The server is well, and wants less (RFC 6585 §4)."""
PAUSING = frozenset({THROTTLED, 503})
"""The answers whose Retry-After is about the server, and not about what was asked for (RFC 9110 §15.6.4)."""
SERVER_ERRORS = 500
"""A status from here on is no success (RFC 9110 §15.6), even where it is not retried."""
SERVER_IS_WELL = frozenset(range(400, 500)) - _NOT_TAKEN_UP
"""The client errors: whatever a policy does about them, they are answers of a healthy server (RFC 9110 §15.5)."""

# The statuses of a proxy's answer to CONNECT that may be another next time; the request itself never left.
_PROXY_MAY_RECOVER = frozenset({502, 503, 504})

# Every class of aiohttp.client_exceptions is here; one that is not (an aiohttp newer than we are has it) takes the kind
# of its nearest base that is.
_KINDS: dict[type[BaseException], Kind] = {
    # The user's own coroutine asks for it.
    tenacity.TryAgain: Kind.UNSENT,
    # No connection was made.
    aiohttp.ClientConnectorError: Kind.UNSENT,
    aiohttp.ClientConnectorDNSError: Kind.UNSENT,
    aiohttp.ClientProxyConnectionError: Kind.UNSENT,
    aiohttp.ConnectionTimeoutError: Kind.UNSENT,
    client_exceptions.UnixClientConnectorError: Kind.UNSENT,
    ConnectionRefusedError: Kind.UNSENT,
    socket.gaierror: Kind.UNSENT,
    socket.herror: Kind.UNSENT,
    # A connection was made, and broke.
    aiohttp.ClientConnectionError: Kind.MAYBE_PROCESSED,
    aiohttp.ClientConnectionResetError: Kind.MAYBE_PROCESSED,
    aiohttp.ClientOSError: Kind.MAYBE_PROCESSED,
    aiohttp.ClientPayloadError: Kind.MAYBE_PROCESSED,
    aiohttp.ServerConnectionError: Kind.MAYBE_PROCESSED,
    aiohttp.ServerDisconnectedError: Kind.MAYBE_PROCESSED,
    aiohttp.ServerTimeoutError: Kind.MAYBE_PROCESSED,
    aiohttp.SocketTimeoutError: Kind.MAYBE_PROCESSED,
    ConnectionError: Kind.MAYBE_PROCESSED,
    TimeoutError: Kind.MAYBE_PROCESSED,
    ssl.SSLEOFError: Kind.MAYBE_PROCESSED,
    ssl.SSLZeroReturnError: Kind.MAYBE_PROCESSED,
    # Whom we would talk to is not whom we should talk to.
    aiohttp.ClientConnectorCertificateError: Kind.PERMANENT,
    aiohttp.ClientConnectorSSLError: Kind.PERMANENT,
    aiohttp.ClientSSLError: Kind.PERMANENT,
    aiohttp.ServerFingerprintMismatch: Kind.PERMANENT,
    ssl.SSLError: Kind.PERMANENT,
    # The request, or the code that sends it, is wrong.
    aiohttp.InvalidURL: Kind.PERMANENT,
    aiohttp.InvalidUrlClientError: Kind.PERMANENT,
    aiohttp.InvalidUrlRedirectClientError: Kind.PERMANENT,
    aiohttp.NonHttpUrlClientError: Kind.PERMANENT,
    aiohttp.NonHttpUrlRedirectClientError: Kind.PERMANENT,
    aiohttp.RedirectClientError: Kind.PERMANENT,
    aiohttp.TooManyRedirects: Kind.PERMANENT,
    UsageError: Kind.PERMANENT,
    # What came is not what was wanted.
    ChecksumError: Kind.PERMANENT,
    # A guard has just said that nothing is to be sent.
    CircuitOpenError: Kind.PERMANENT,
    OriginPausedError: Kind.PERMANENT,
    # An answer came.
    aiohttp.ClientHttpProxyError: Kind.BY_STATUS,
    aiohttp.ClientResponseError: Kind.BY_STATUS,
    aiohttp.ContentTypeError: Kind.BY_STATUS,
    aiohttp.WSServerHandshakeError: Kind.BY_STATUS,
    # It is about something else.
    aiohttp.ClientError: Kind.IF_NAMED,
    aiohttp.WSMessageTypeError: Kind.IF_NAMED,
}
# What only newer versions of aiohttp have: UploadAbortedError came with 3.14.
_NEWER = {"UploadAbortedError": Kind.IF_NAMED}
_KINDS.update({vars(client_exceptions)[name]: kind for name, kind in _NEWER.items() if name in vars(client_exceptions)})

TRANSIENT_ERRORS: tuple[type[Exception], ...] = (
    aiohttp.ClientConnectionError,
    aiohttp.ClientPayloadError,
    TimeoutError,
    ConnectionError,
    socket.gaierror,
    socket.herror,
)
"""The exceptions that are retried unless a policy names others. What is permanent among their subclasses (a wrong
certificate, a fingerprint mismatch) is not. A `ClientResponseError` is judged by its status, and has no place here. A
builtin `OSError` that says that the network failed counts as the `aiohttp.ClientOSError` that aiohttp makes of it."""


def kind_of_class(error: type[BaseException]) -> Kind | None:
    """The kind of an exception class; `None` where neither it nor a base of it is known."""
    return next((_KINDS[base] for base in error.__mro__ if base in _KINDS), None)


def kind_of_status(status: int) -> Kind:
    """The kind of a failure that shows as this status."""
    return UNSENT if status in _NOT_TAKEN_UP else MAYBE_PROCESSED


def kind_of_error(error: Exception, statuses: frozenset[int], exceptions: tuple[type[Exception], ...]) -> Kind | None:
    """The kind of an error; `None` where it is not to be retried, unless the policy's `retry_if` says so.

    Args:
        error: What was raised.
        statuses: The statuses that are retried.
        exceptions: The exceptions that are retried.
    """
    if error.__cause__ is None and (kind := _kind_by_its_class(type(error), exceptions)) is not None:
        if kind is not Kind.BY_STATUS:
            return kind
        status = cast(aiohttp.ClientResponseError, error).status
        return kind_of_status(status) if status in statuses else None
    if isinstance(error, tenacity.TryAgain):
        return Kind.UNSENT
    if isinstance(error, aiohttp.ClientResponseError):
        return _kind_of_response_error(error, statuses, exceptions)
    if (inner := _wrapped(error)) is not None:
        kind = kind_of_error(inner, statuses, exceptions)
        return Kind.MAYBE_PROCESSED if kind is Kind.UNSENT else kind  # What raised it was a request of its own.
    if _is_permanent_by_its_text(error):
        return Kind.PERMANENT
    return _kind_as_named(type(error), _class_as_aiohttps(error), exceptions)


# Who makes ever new classes of errors is to have the old ones go.
_MOST_CLASSES = 256


def _kind_told_by_class(cls: type[Exception], exceptions: tuple[type[Exception], ...]) -> Kind | None:
    """The kind of an error without a cause, where no more than its class is needed to tell it, and maybe its status."""
    if issubclass(cls, tenacity.TryAgain):
        return None
    if issubclass(cls, aiohttp.ClientConnectionError) and cls not in _PERMANENT_TEXTS:
        return _kind_as_named(cls, cls, exceptions)
    is_answer = issubclass(cls, aiohttp.ClientResponseError) and not issubclass(cls, aiohttp.ClientHttpProxyError)
    return kind_of_class(cls) if is_answer and not issubclass(cls, _special(exceptions)) else None


_kind_by_its_class = cast(
    Callable[[type[Exception], tuple[type[Exception], ...]], Kind | None],
    lru_cache(_MOST_CLASSES)(_kind_told_by_class),
)


def _kind_as_named(
    cls: type[Exception], as_aiohttps: type[Exception], exceptions: tuple[type[Exception], ...]
) -> Kind | None:
    """The kind of a class, if it is one of those that are retried, or permanent."""
    kind = kind_of_class(cls) or kind_of_class(as_aiohttps)
    if kind is Kind.PERMANENT:
        return kind
    if not (issubclass(cls, exceptions) or issubclass(as_aiohttps, exceptions)):
        return None
    return kind if kind is Kind.UNSENT else Kind.MAYBE_PROCESSED


def lost_connection(error: Exception | None) -> bool:
    """Is this how a connection shows that the server had closed while it was idle (RFC 9112 §9.3.1)?"""
    return (
        isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)
        and kind_of_class(type(error)) is Kind.MAYBE_PROCESSED
    )


def answered_by_redirect(error: Exception) -> bool:
    """Was the request that this error ended answered by a redirect before?

    aiohttp tells that with a response (`history`). Of an error, it is known to the frames that raised it; where they
    have other names one day, nothing is known, and the version matrix of the tests fails.
    """
    hops = (frame.f_locals.get("history") for name, frame in _frames_of_aiohttp(error) if name == "_request")
    return bool(getattr(error, "history", ())) or any(hops)


def raised_by_body(error: Exception) -> bool:
    """Did this error come out of the request's body, while it was sent? That, too, the frames tell."""
    return any(name == "write_bytes" for name, _ in _frames_of_aiohttp(error))


def response_behind(error: Exception) -> object | None:
    """The response whose `raise_for_status()` raised this error."""
    for name, frame in _frames_of_aiohttp(error):
        if name == "raise_for_status":
            return frame.f_locals.get("self")
    return None


def _frames_of_aiohttp(error: Exception) -> Iterator[tuple[str, FrameType]]:
    """The frames of aiohttp that an error came through, with their names."""
    for frame, _ in walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__", "").startswith("aiohttp."):
            yield frame.f_code.co_name, frame


def _kind_of_response_error(
    error: aiohttp.ClientResponseError, statuses: frozenset[int], exceptions: tuple[type[Exception], ...]
) -> Kind | None:
    # aiohttp reports an answer that is no HTTP as a ClientResponseError with a status of its own making.
    if isinstance(error.__cause__, http_exceptions.HttpProcessingError):
        return Kind.PERMANENT
    if isinstance(error, aiohttp.ClientHttpProxyError):
        if error.status not in _PROXY_MAY_RECOVER:
            return Kind.PERMANENT
        return Kind.UNSENT if error.status in statuses or isinstance(error, _special(exceptions)) else None
    if kind_of_class(type(error)) is Kind.PERMANENT:
        return Kind.PERMANENT
    named = isinstance(error, _special(exceptions))
    return kind_of_status(error.status) if named or error.status in statuses else None


def _special(exceptions: tuple[type[Exception], ...]) -> tuple[type[Exception], ...]:
    """The subclasses of `ClientResponseError` that are named (a ContentTypeError has status 200).

    The class itself would be every status there is.
    """
    responses = {name for name in exceptions if issubclass(name, aiohttp.ClientResponseError)}
    return tuple(responses - {aiohttp.ClientResponseError})


def _class_as_aiohttps(error: Exception) -> type[Exception]:
    """The class of an error, or that which aiohttp would have made of it."""
    if isinstance(error, http_exceptions.PayloadEncodingError):  # aiohttp's parser in Python raises it as it is.
        return aiohttp.ClientPayloadError
    is_builtin = isinstance(error, OSError) and not isinstance(error, aiohttp.ClientError | TimeoutError)
    return aiohttp.ClientOSError if is_builtin and _is_of_network(error) else type(error)


def _wrapped(error: Exception) -> Exception | None:
    """What an error of aiohttp's merely passes on: an exception of the request's body, or one of TLS."""
    cause = error.__cause__
    if not isinstance(cause, Exception):
        return None
    if type(error) is aiohttp.ClientConnectionError and str(error).startswith("Failed to send bytes"):
        return cause
    if type(error) is aiohttp.ClientOSError:
        by_body = str(error.strerror).startswith("Can not write request body") and not _is_of_network(cause)
        return cause if by_body or isinstance(cause, ssl.SSLError) else None
    return None


# What a socket fails with, and a file doesn't.
_NETWORK_ERRNOS = frozenset(
    {
        errno.EADDRNOTAVAIL,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
    }
)


def _is_of_network(error: Exception) -> bool:
    """Is this how a network shows that it failed?"""
    if isinstance(
        error, aiohttp.ClientError | ConnectionError | TimeoutError | ssl.SSLEOFError | ssl.SSLZeroReturnError
    ):
        return True
    return isinstance(error, OSError) and error.errno in _NETWORK_ERRNOS


# aiohttp has no classes of their own for these: a session, a connector, a response that was closed on our side, and
# a redirect that would need a request body again that was used up.
_PERMANENT_TEXTS: dict[type[Exception], tuple[str, ...]] = {
    RuntimeError: ("Session is closed",),
    aiohttp.ClientConnectionError: ("Connector is closed", "Connection closed"),
    aiohttp.ClientPayloadError: ("Cannot follow redirect with a consumed request body",),
}


def _is_permanent_by_its_text(error: Exception) -> bool:
    texts = _PERMANENT_TEXTS.get(type(error), ())
    return bool(texts) and str(error).partition(". ")[0].rstrip(".") in texts
