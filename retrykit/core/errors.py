"""What retrykit raises.

aiohttp.ClientResponseError
└── ResponseError              a response whose status says that it failed, with its body
    └── GiveUpError            … one that could have been retried, and was given up on

aiohttp.ClientError
├── ChecksumError              a file has come whole, and is not the one that was wanted
├── CircuitOpenError           the circuit breaker of an origin lets nothing through at the moment
└── OriginPausedError          an origin is paused for longer than a call can wait; it is a TimeoutError, too

tenacity.TryAgain
└── TryAgain                   raised by a wrapped coroutine that wants another attempt

TypeError
└── UsageError                 what was decorated, or a body, can't work (not public: it is no error to be caught)

Exception
└── NotTheRestError            an answer that can't resume a body (not public: it never comes out)

UserWarning
└── StackedRetriesWarning      a retried call inside of a retried call

Any other failure comes out as itself, and where the call was given up on, with a note (`note`).
"""

from datetime import timedelta
from typing import Any, Literal, Self

import tenacity
from aiohttp import ClientError, ClientResponse, ClientResponseError, RequestInfo
from multidict import MultiMapping
from yarl import URL

from retrykit.core.events import Attempt, Reason, in_seconds, origin_of
from retrykit.core.history import pass_on_history

_NOTE = "_retrykit_note"


class ResponseError(ClientResponseError):
    """A response with a status of 400 or more, and the start of its body.

    It is an `aiohttp.ClientResponseError`: `status`, `message`, `headers`, `history` and `request_info` are there.
    Its text names status, method, origin and path, never the query, credentials or headers.
    """

    body: bytes
    """The first 64 KiB of the body, or what of it arrived within a quarter of a second."""

    def __init__(
        self,
        request_info: RequestInfo,
        history: tuple[ClientResponse, ...],
        *,
        status: int = 0,
        message: str = "",
        headers: MultiMapping[str] | None = None,
        body: bytes = b"",
    ) -> None:
        super().__init__(request_info, history, status=status, message=message, headers=headers)
        self.body = body

    @classmethod
    def of(cls, response: ClientResponse, body: bytes) -> Self:
        """The error that this response is."""
        error = cls(
            response.request_info,
            response.history,
            status=response.status,
            message=response.reason or "",
            headers=response.headers,
            body=body,
        )
        pass_on_history(response, error)
        return error

    def __str__(self) -> str:
        url: URL | None = getattr(self.request_info, "real_url", None)
        if url is None:  # A test may have made it with no request.
            return f"{self.status} {self.message}".rstrip()
        # The server chose the reason phrase, and could forge lines of a log with it.
        phrase = "".join(char for char in self.message if char.isprintable())
        return f"{self.status} {phrase}".rstrip() + f": {self.request_info.method} {origin_of(url) or ''}{url.raw_path}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"


class GiveUpError(ResponseError):
    """A response that could have been retried, and was given up on.

    `reason` says why: `"attempts"`, `"stop"`, `"timeout"`, `"budget"`, `"retry_after"`, `"circuit_open"`,
    `"not_repeatable"` or `"body"`. (A body that was handed out in part, `"not_resumable"`, ends with its own error.)
    """

    reason: Reason
    attempts: tuple[Attempt, ...]
    """All attempts of the call, this one last."""
    summary: str
    """How the call went, in one line."""

    @classmethod
    def after(cls, error: ResponseError, reason: Reason, attempts: tuple[Attempt, ...], summary: str) -> Self:
        """The end of a call whose last attempt was `error`."""
        made = cls(
            error.request_info,
            error.history,
            status=error.status,
            message=error.message,
            headers=error.headers,
            body=error.body,
        )
        made.reason, made.attempts, made.summary = reason, attempts, summary
        made.__cause__, made.__context__ = error.__cause__, error.__context__
        made.__suppress_context__ = error.__suppress_context__
        for line in getattr(error, "__notes__", ()):
            made.add_note(line)
        return made.with_traceback(error.__traceback__)

    def __str__(self) -> str:
        return f"{super().__str__()} ({self.summary})"


class ChecksumError(ClientError):
    """A download has come whole, and is not the file that was wanted. It is never retried; nothing of it is kept.

    Args:
        path: Where it was to go.
        expected: The SHA-256 that was wanted, in hex.
        actual: That of what came.
    """

    def __init__(self, path: str, expected: str, actual: str) -> None:
        super().__init__(path, expected, actual)
        self.path, self.expected, self.actual = path, expected, actual

    def __str__(self) -> str:
        return (
            f"what came for {self.path} has the SHA-256 {self.actual}, and {self.expected} was wanted: the file has"
            " changed, the digest is that of another one, or it was damaged on the way"
        )


class CircuitOpenError(ClientError):
    """The circuit of an origin is open: nothing was sent. It is never retried.

    Args:
        origin: Scheme, host and port; `None` where they are not known.
        retry_after: Seconds until an attempt is let through again; 0 while the circuit is half-open, and the attempts
            that will close or open it are under way.
    """

    reason: Reason = "circuit_open"

    def __init__(self, origin: str | None, retry_after: float) -> None:
        super().__init__(origin, retry_after)
        self.origin, self.retry_after = origin, retry_after

    def __str__(self) -> str:
        until = f"for {in_seconds(self.retry_after)} more" if self.retry_after else "until its probes have ended"
        return (
            f"the circuit of {self.origin or 'this function'} is open {until}, since too many attempts have failed, and"
            " nothing was sent"
        )


class OriginPausedError(ClientError, TimeoutError):
    """An origin is paused, because it has asked for that, and for longer than the call can wait: nothing was sent.

    It is never retried.

    Args:
        origin: Scheme, host and port; `None` where they are not known.
        retry_after: Seconds until the pause ends.
        reason: `"timeout"` where the call's `timeout`, or a deadline around it, ends before, `"retry_after"` where the
            policy's `max_retry_after` is shorter.
        limit: Seconds that are left of the one, or that the other allows.
    """

    def __init__(
        self, origin: str | None, retry_after: float, reason: Literal["timeout", "retry_after"], limit: float
    ) -> None:
        allowed = "are left of its time" if reason == "timeout" else "max_retry_after allows"
        super().__init__(  # Of several arguments, an OSError would make an errno and a filename.
            f"{origin or 'this function'} is paused for {in_seconds(retry_after)} more, as its server asked, longer"
            f" than the {in_seconds(limit)} that {allowed}, and nothing was sent"
        )
        self.origin, self.retry_after, self.limit = origin, retry_after, limit
        self.reason: Literal["timeout", "retry_after"] = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.origin, self.retry_after, self.reason, self.limit)


class TryAgain(tenacity.TryAgain):
    """Raise this in a wrapped coroutine to ask for another attempt, say on a 200 that has an error in its body.

    Args:
        *args: As for any exception.
        after: Seconds (or a `timedelta`) to wait at least, as a Retry-After of the server's would say it: a floor
            under the delay, and the end of the call where it is longer than `max_retry_after`. What is negative or
            NaN is ignored, as in the header. Default: no floor.

    Raises:
        TypeError: `after` is no number. The text of a header has to be converted.

    When there are no attempts left, what it was raised from (`raise TryAgain from error`, or inside an `except`)
    comes out in its place.
    """

    def __init__(self, *args: object, after: float | timedelta | None = None) -> None:
        super().__init__(*args)
        seconds = after.total_seconds() if isinstance(after, timedelta) else after
        if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float)):
            raise UsageError(
                f"TryAgain(after={after!r}) is no time to wait; give seconds as a number, such as after=2.5 (text is"
                " converted by float(); that of a header may be a date as well)"
            )
        self.after: float | None = seconds if seconds is not None and seconds >= 0 else None


class UsageError(TypeError):
    """What was decorated can't work, or a body can't be sent. It is never retried, whatever a policy names."""


class StackedRetriesWarning(UserWarning):
    """A retried call is retried by another one around it, so that their attempts multiply.

    It is given once for each pair of places, when a repeated attempt of the outer call ended with an inner call that
    had made several attempts and given up. Retry in one place: the one nearest to the request.
    """


class NotTheRestError(Exception):
    """An answer can't resume a body that has broken off. What that broke off with comes out in its place.

    Args:
        failure: That.
        status: Of the answer.
    """

    def __init__(self, failure: Exception, status: int) -> None:
        super().__init__(failure, status)
        self.failure, self.status = failure, status


def asked_for_by(error: tenacity.TryAgain, handled: BaseException | None) -> Exception:
    """The error that a `TryAgain` stands for when it has to come out: what it was raised from, else itself.

    Args:
        error: Was raised by the wrapped coroutine.
        handled: What the caller of the call is handling. Python makes it the context of all that is raised meanwhile.
    """
    context = None if error.__suppress_context__ or error.__context__ is handled else error.__context__
    origin = error.__cause__ or context
    return origin if isinstance(origin, Exception) else error


def note(error: Exception, text: str) -> None:
    """Add a note (PEP 678) to an exception, in the place of the one that an earlier call may have left there."""
    kept = [line for line in getattr(error, "__notes__", ()) if line != vars(error).get(_NOTE)]
    # Past any __setattr__ of its own: an exception may be a frozen dataclass.
    vars(error).update({"__notes__": [*kept, text], _NOTE: text})


_UNKNOWN_TO_BE_SAFE = (
    "is not known to be safe to repeat: if it is, say so with idempotent=True, or send an Idempotency-Key header (in a"
    " client's call: idempotency_key=True)"
)
_BECAUSE: dict[Reason, str] = {
    "attempts": "",
    "stop": "; the policy's stop= ended it",
    "timeout": "; {timeout} leaves no room for another",
    "budget": "; the retry budget has not enough left for another",
    "circuit_open": "; the circuit breaker would not let another through by then",
    "retry_after": "; it was asked for a longer wait than max_retry_after={max_retry_after}",
    "not_repeatable": "; the request{why} may have been processed, and {unsafe}",
    "body": "; a body of type {body} can't be sent again: pass bytes or a file that can be rewound; the client and the"
    " helpers also take a function that makes the body anew for each attempt (data=lambda: open(...), or data=lines in"
    " the place of data=lines())",
    "not_resumable": "",
}


def summary(
    attempts: tuple[Attempt, ...],
    reason: Reason | None,
    *,
    measured: bool,
    body: str | None,
    unresumable: str | None,
    redirected: bool,
    idempotent: bool | None,
    timeout: float | None,
    max_retry_after: float,
) -> str:
    """How a call went, in one line.

    Args:
        attempts: All of them.
        reason: Why it was given up on; `None` where it ended with a failure that is not retried.
        measured: Was its time measured from its start, or only from its first failure?
        body: The type of a body that can't be sent again.
        unresumable: Why the body of an answer can't be resumed.
        redirected: Was the request answered by a redirect before?
        idempotent: Of the policy.
        timeout: Of the policy, in seconds; `None` where the time was that of something around the call.
        max_retry_after: Of the policy, in seconds.
    """
    ended = "gave up" if reason else "ended"
    count = "1 attempt" if len(attempts) == 1 else f"{len(attempts)} attempts"
    time = f" in {attempts[-1].elapsed:.1f} s" + ("" if measured else " or more")
    bound = "the deadline around it" if timeout is None else f"timeout={in_seconds(timeout)}"
    limits = {"timeout": bound, "max_retry_after": in_seconds(max_retry_after), "body": body}
    why = " was answered by a redirect, and" if redirected else ""
    unsafe = _UNKNOWN_TO_BE_SAFE if idempotent is None else "idempotent=False says that it must not be repeated then"
    because = _BECAUSE[reason].format(**limits, why=why, unsafe=unsafe) if reason else ""
    if unresumable is not None:  # Whatever has ended the call, this would have.
        because += f"; the body can't be resumed: {unresumable}"
    return f"{ended} after {count}{time}: {', '.join(map(str, attempts))}{because}"
