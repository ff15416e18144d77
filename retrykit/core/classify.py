"""What a failure means for another attempt: status or exception -> permanent | unsent | maybe processed.

Two tables, one for statuses and one for exceptions. Permanent is decided first, because aiohttp's class tree mixes
the kinds: a certificate error is also a `ClientOSError`, a fingerprint mismatch also a `ServerConnectionError`.
"""

import socket
import ssl
from enum import Enum

import aiohttp
import tenacity
from aiohttp import http_exceptions

from retrykit.core.errors import UsageError


class Kind(Enum):
    """What a failed attempt did to the server."""

    PERMANENT = "permanent"
    """Another attempt would fail in the same way."""
    UNSENT = "unsent"
    """The request never left, or was refused before it was taken up: any method can be sent again."""
    MAYBE_PROCESSED = "maybe processed"
    """The request may have had its effect: only a call that may be repeated can be sent again."""


# The statuses by which a server says that it did not take the request up (RFC 9110 §15.5.9 and §15.6.4,
# RFC 8470 §5.2, RFC 6585 §4). 502 and 504 are not among them: a gateway may have passed the request on.
_NOT_TAKEN_UP = frozenset({408, 425, 429, 503})

# The statuses of a proxy's answer to CONNECT that may be another next time; the request itself never left.
_PROXY_MAY_RECOVER = frozenset({502, 503, 504})

# A class that is not here has the kind of its nearest base that is.
_KINDS: dict[type[BaseException], Kind] = {
    # The user's own coroutine asks for it.
    tenacity.TryAgain: Kind.UNSENT,
    # No connection was made.
    aiohttp.ClientConnectorError: Kind.UNSENT,
    aiohttp.ClientProxyConnectionError: Kind.UNSENT,
    aiohttp.ClientConnectorDNSError: Kind.UNSENT,
    aiohttp.ConnectionTimeoutError: Kind.UNSENT,
    socket.gaierror: Kind.UNSENT,
    # A connection was made, and broke.
    aiohttp.ClientConnectionError: Kind.MAYBE_PROCESSED,
    aiohttp.ServerConnectionError: Kind.MAYBE_PROCESSED,
    aiohttp.ServerDisconnectedError: Kind.MAYBE_PROCESSED,
    aiohttp.ServerTimeoutError: Kind.MAYBE_PROCESSED,
    aiohttp.SocketTimeoutError: Kind.MAYBE_PROCESSED,
    aiohttp.ClientOSError: Kind.MAYBE_PROCESSED,
    aiohttp.ClientConnectionResetError: Kind.MAYBE_PROCESSED,
    aiohttp.ClientPayloadError: Kind.MAYBE_PROCESSED,
    TimeoutError: Kind.MAYBE_PROCESSED,
    ConnectionError: Kind.MAYBE_PROCESSED,
    # Whom we would talk to is not whom we should talk to.
    aiohttp.ClientSSLError: Kind.PERMANENT,
    aiohttp.ClientConnectorSSLError: Kind.PERMANENT,
    aiohttp.ClientConnectorCertificateError: Kind.PERMANENT,
    aiohttp.ServerFingerprintMismatch: Kind.PERMANENT,
    ssl.SSLError: Kind.PERMANENT,
    # The request, or the code that sends it, is wrong.
    UsageError: Kind.PERMANENT,
    aiohttp.InvalidURL: Kind.PERMANENT,
    aiohttp.NonHttpUrlClientError: Kind.PERMANENT,
    aiohttp.RedirectClientError: Kind.PERMANENT,
    aiohttp.TooManyRedirects: Kind.PERMANENT,
}

TRANSIENT_ERRORS: tuple[type[Exception], ...] = (
    aiohttp.ClientConnectionError,
    aiohttp.ClientPayloadError,
    TimeoutError,
    ConnectionError,
    socket.gaierror,
)
"""The exceptions that are retried unless a policy names others. What is permanent among their subclasses (a wrong
certificate, a fingerprint mismatch) is not. A `ClientResponseError` is judged by its status, and has no place here."""


def kind_of_class(error: type[BaseException]) -> Kind | None:
    """The kind of an exception class; `None` where neither it nor a base of it is known."""
    return next((_KINDS[base] for base in error.__mro__ if base in _KINDS), None)


def kind_of_status(status: int) -> Kind:
    """The kind of a failure that shows as this status."""
    return Kind.UNSENT if status in _NOT_TAKEN_UP else Kind.MAYBE_PROCESSED


def kind_of_error(error: Exception, statuses: frozenset[int], exceptions: tuple[type[Exception], ...]) -> Kind | None:
    """The kind of an error; `None` where it is not to be retried, unless the policy's `retry_if` says so.

    Args:
        error: What was raised.
        statuses: The statuses that are retried.
        exceptions: The exceptions that are retried.
    """
    if isinstance(error, tenacity.TryAgain):
        return Kind.UNSENT
    if isinstance(error, aiohttp.ClientResponseError):
        return _kind_of_response_error(error, statuses, exceptions)
    kind = kind_of_class(type(error))
    if kind is Kind.PERMANENT or _was_closed_here(error):
        return Kind.PERMANENT
    if not isinstance(error, exceptions):
        return None
    return kind or Kind.MAYBE_PROCESSED


def _kind_of_response_error(
    error: aiohttp.ClientResponseError, statuses: frozenset[int], exceptions: tuple[type[Exception], ...]
) -> Kind | None:
    # aiohttp reports an answer that is no HTTP as a ClientResponseError with a status of its own making.
    if isinstance(error.__cause__, http_exceptions.HttpProcessingError):
        return Kind.PERMANENT
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return Kind.UNSENT if error.status in _PROXY_MAY_RECOVER else Kind.PERMANENT
    if kind_of_class(type(error)) is Kind.PERMANENT:
        return Kind.PERMANENT
    # Its subclasses can be named (a ContentTypeError has status 200); the class itself would be every status there is.
    special = {name for name in exceptions if issubclass(name, aiohttp.ClientResponseError)}
    named = isinstance(error, tuple(special - {aiohttp.ClientResponseError}))
    return kind_of_status(error.status) if named or error.status in statuses else None


# aiohttp has no classes of their own for these: a session, a connector, a response that was closed on our side.
_CLOSED_HERE = {
    RuntimeError: ("Session is closed",),
    aiohttp.ClientConnectionError: ("Connector is closed", "Connector is closed.", "Connection closed"),
}


def _was_closed_here(error: Exception) -> bool:
    return str(error) in _CLOSED_HERE.get(type(error), ())
