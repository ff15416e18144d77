"""Retries for aiohttp.

`@retry_http` makes a coroutine that sends an HTTP request survive what HTTP requests meet: 503s, resets, truncated
bodies, rate limits. `AsyncHTTPClient` and the helpers (`get`, `post`, `fetch_json`, `fetch_text`, `fetch_bytes`) are
decorated already; so are `stream` and `download`, whose bodies go on where they broke off, and what `fetch_all` calls.
`RetryMiddleware` retries the requests of a session.
"""

from retrykit.core.classify import TRANSIENT_ERRORS
from retrykit.core.decorator import retry_http
from retrykit.core.errors import (
    ChecksumError,
    CircuitOpenError,
    GiveUpError,
    OriginPausedError,
    ResponseError,
    StackedRetriesWarning,
    TryAgain,
)
from retrykit.core.events import Attempt, CallEvent, GiveUpEvent, RetryEvent
from retrykit.core.history import attempts_of
from retrykit.core.listeners import log_listener, set_listeners
from retrykit.core.policy import RetryOptions, RetryPolicy
from retrykit.core.protocols import Breaker, Budget, Hold, Pause
from retrykit.core.scope import attempt_number, deadline_scope, time_left
from retrykit.guards.breaker import CircuitBreaker
from retrykit.guards.budget import RetryBudget
from retrykit.guards.hedge import LatencyQuantile
from retrykit.guards.pause import OriginPause
from retrykit.http.client import AsyncHTTPClient
from retrykit.http.download import download
from retrykit.http.fetch import fetch_bytes, fetch_json, fetch_text, get, post
from retrykit.http.fetch_all import FetchAll, Fetched, fetch_all
from retrykit.http.middleware import RetryMiddleware
from retrykit.http.stream import BodyStream, stream

__all__ = [
    "TRANSIENT_ERRORS",
    "AsyncHTTPClient",
    "Attempt",
    "BodyStream",
    "Breaker",
    "Budget",
    "CallEvent",
    "ChecksumError",
    "CircuitBreaker",
    "CircuitOpenError",
    "FetchAll",
    "Fetched",
    "GiveUpError",
    "GiveUpEvent",
    "Hold",
    "LatencyQuantile",
    "OriginPause",
    "OriginPausedError",
    "Pause",
    "ResponseError",
    "RetryBudget",
    "RetryEvent",
    "RetryMiddleware",
    "RetryOptions",
    "RetryPolicy",
    "StackedRetriesWarning",
    "TryAgain",
    "attempt_number",
    "attempts_of",
    "deadline_scope",
    "download",
    "fetch_all",
    "fetch_bytes",
    "fetch_json",
    "fetch_text",
    "get",
    "log_listener",
    "post",
    "retry_http",
    "set_listeners",
    "stream",
    "time_left",
]
