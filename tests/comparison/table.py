"""What the tables of `docs/comparison.md` say, cell by cell, and what each cell rests on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks import RESULTS
from benchmarks.report import Report, shown
from tests.comparison import features
from tests.comparison.features import Feature
from tests.comparison.subjects import SUBJECTS

VERSIONS = {
    "aiohttp": "3.14.5",
    "aiohttp_retry": "2.9.1",
    "tenacity": "9.2.1",
    "stamina": "26.1.0",
    "backoff": "2.2.1",
    "httpx-retries": "0.6.0",
    "httpx": "0.28.1",
}
"""What was compared. What is read is read in these."""

OTHERS = ("aiohttp_retry", "tenacity", "stamina", "backoff", "httpx-retries")


@dataclass(frozen=True)
class Row:
    """Cells that are what the check of that name finds: those of `SUBJECTS`, in order."""

    question: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """A cell about retrykit that a test tries."""

    text: str
    feature: Feature


@dataclass(frozen=True)
class Read:
    """A cell that is read in the source of the version above: `text` because `module` says `says`."""

    text: str
    module: str
    says: str


@dataclass(frozen=True)
class Absent:
    """A cell that says no, because none of these words is anywhere in the source of the version above."""

    words: tuple[str, ...]
    text: str = "no"


@dataclass(frozen=True)
class FeatureRow:
    """Cells that have a reason each: retrykit's, and those of `OTHERS`."""

    question: str
    retrykit: Run | Read | Absent
    others: tuple[Read | Absent, ...]


def row(question: str, *cells: str) -> Row:
    return Row(question, cells)


def feature(question: str, retrykit: Run | Read | Absent, *others: Read | Absent) -> FeatureRow:
    return FeatureRow(question, retrykit, others)


def nobody(*words: str) -> Sequence[Absent]:
    return [Absent(words)] * len(OTHERS)


RULE = ("your rule",) * 3
FUNCTION = ("your function",) * 3
METRICS = ("prometheus", "opentelemetry", "statsd")
ASYNC_BACKOFF, TENACITY, STAMINA = "backoff._async", "tenacity.asyncio", "stamina._core"
CLIENT, TRANSPORT = "aiohttp_retry.client", "httpx_retries.transport"

BEHAVIOUR: dict[str, dict[str, Row]] = {
    "defaults": {
        "attempts": row("attempts at a 503 that stays", "3", "3", "3", "no bound", "10", "no bound", "11"),
        "waits": row(
            "first two waits, in seconds",
            "1, 2",
            "1, 2",
            "0.2, 0.4",
            "0, 0",
            "0.1 to 1.1, 0.2 to 1.2",
            "0 to 1, 0 to 2",
            "0, 0",
        ),
    },
    "retried": {
        "busy": row("a 503", *["yes"] * 7),
        "status_429": row("a 429", "yes", "yes", "no", "yes", "yes", "yes", "yes"),
        "status_500": row("a 500", "no", "no", "yes", *RULE, "no"),
        "status_404": row("a 404", "no", "no", "no", *RULE, "no"),
        "refused": row("a refused connection", "yes", "yes", "no", *RULE, "yes"),
        "lost": row("a lost connection, GET", "yes", "yes", "no", *RULE, "yes"),
        "timeout": row("a read timeout, GET", "yes", "yes", "no", *RULE, "yes"),
        "cut_body": row("a body that is cut short, GET", "yes", "yes", "no", *RULE, "`aretry_request`"),
        "certificate": row("an untrusted certificate", "no", "no", "no", *RULE, "yes"),
        "pending": row("a 200 that says “pending”, where that is asked for", *["yes"] * 7),
    },
    "twice": {
        "post_lost": row(
            "a POST whose connection was lost, where lost connections are retried",
            "yes",
            "no",
            "yes",
            "yes",
            "yes",
            "yes",
            "no",
        ),
        "post_504": row("a POST that was answered with 504", "yes", "no", "yes", "yes", "yes", "yes", "no"),
        "post_503": row("a POST that was answered with 503", "yes", "yes", "yes", "yes", "yes", "yes", "no"),
        "wire": row("requests by 3 attempts at a GET, each of them lost", "6", "3", "6", "6", "6", "6", "3"),
        "file_body": row("an open file is sent again whole", "no", "yes", "no", "no", "no", "no", "yes"),
        "generator_body": row(
            "what becomes of a generator that was sent",
            "sent empty",
            "ends with the 503",
            *["sent empty"] * 4,
            "`StreamConsumed`",
        ),
    },
    "time": {
        "retry_after": row("Retry-After in seconds is waited for", "yes", "yes", "your function", *FUNCTION, "yes"),
        "retry_after_date": row("Retry-After as a date", "yes", "yes", "your function", *FUNCTION, "yes"),
        "retry_after_a_day": row(
            "Retry-After of a day", "ends the call", "ends the call", *["not looked at"] * 4, "waits 120 s"
        ),
        "longest_wait": row("no wait, its jitter included, is above the longest", "yes", "yes", "no", *["yes"] * 4),
        "deadline": row(
            "the bound of a call ends it",
            "within the attempt",
            "within the attempt",
            "no",
            "after it",
            "after it",
            "an attempt later",
            "no",
        ),
        "wait_past_the_deadline": row(
            "a wait that would end after it",
            "not begun",
            "not begun",
            "runs past it",
            "not begun",
            "runs past it",
            "cut short",
            "cut short",
        ),
    },
    "connections": {
        "released": row(
            "a discarded response frees its connection for the next attempt", "yes", "yes", "no", *["yes"] * 4
        ),
        "cancelled": row("cancellation ends an attempt, and the call", *["yes"] * 7),
        "cancelled_by_exclusion": row(
            "the same, where all but `ValueError` is retried", "yes", "yes", "yes", "no", "no", "yes", "yes"
        ),
    },
    "told": {
        "log": row("a retry is logged", "INFO", "INFO", "DEBUG", "if asked", "WARNING", "INFO", "DEBUG"),
        "secrets": row("a token in the query is logged", "no", "no", "no", "yes", "yes", "yes", "at DEBUG"),
    },
}
"""By table."""

FEATURES: dict[str, dict[str, FeatureRow]] = {
    "together": {
        "scope": feature(
            "one bound for several calls", Run("yes", features.scope), *nobody("deadline", "contextvar", "time_left")
        ),
        "time_left": feature(
            "an attempt can ask how long it has", Run("yes", features.time_left), *nobody("deadline", "time_left")
        ),
    },
    "overload": {
        "budget": feature(
            "a retry budget, shared by calls",
            Run("yes", features.budget),
            *nobody("retry budget", "RetryBudget", "token_bucket"),
        ),
        "breaker": feature("a circuit breaker", Run("yes", features.breaker), *nobody("breaker", "circuit")),
        "pause": feature(
            "a Retry-After holds back all calls to its origin", Run("yes", features.pause), *nobody("pause")
        ),
        "hedging": feature("hedging", Run("yes", features.hedging), *nobody("hedg")),
    },
    "bodies": {
        "key": feature(
            "an idempotency key, the same on every attempt", Run("yes", features.key), *nobody("idempotency")
        ),
        "factory": feature(
            "a function that makes the request's body anew",
            Run("yes", features.factory),
            Read("no", CLIENT, "**(params.kwargs or {})"),
            Read("your coroutine", TENACITY, "result = await fn(*args, **kwargs)"),
            Read("your coroutine", STAMINA, "return await wrapped(*args, **kw)"),
            Read("your coroutine", ASYNC_BACKOFF, "ret = await target(*args, **kwargs)"),
            Read("no", TRANSPORT, "response = await send_method(request)"),
        ),
        "resume": feature(
            "a response that breaks off is resumed", Run("yes", features.resume), *nobody("If-Range", "resum")
        ),
    },
    "seen": {
        "history": feature(
            "what is known of a call's attempts",
            Run("each, afterwards", features.history),
            Read("their number, in tracing", CLIENT, '"current_attempt": current_attempt'),
            Read("statistics of the function's last call", TENACITY, "stats.clear()"),
            Read("number and waits, in a hook", STAMINA, "waited_so_far=rcs.idle_for - wait_for"),
            Read("number and time, in a handler", ASYNC_BACKOFF, "'tries': tries"),
            Read("their number, afterwards", TRANSPORT, 'response.extensions["retry"] = retry'),
        ),
        "hook": feature(
            "a function of yours is told of each retry",
            Run("yes", features.hook),
            Read("by tracing", CLIENT, '"current_attempt": current_attempt'),
            Read("yes", "tenacity", "self.before_sleep"),
            Read("yes", STAMINA, "for hook in config.on_retry"),
            Read("yes", ASYNC_BACKOFF, "_call_handlers(on_backoff"),
            Absent(("hook", "on_retry", "before_sleep")),
        ),
        "metrics": feature(
            "metrics, ready-made",
            Run("Prometheus, OpenTelemetry", features.metrics),
            Absent(METRICS),
            Absent(METRICS),
            Read("retries, for Prometheus", "stamina.instrumentation._prometheus", '"stamina_retries_total"'),
            Absent(METRICS),
            Absent(METRICS),
        ),
    },
    "typing": {
        "signature": feature(
            "type checkers see the signature",
            Read("yes", "tests.typing.cases", "assert_type(await bare("),
            Read("no", CLIENT, "**kwargs: Any"),
            Read("yes", TENACITY, "fn: t.Callable[P, R]) -> _RetryDecorated[P, R]"),
            Read("yes", STAMINA, "Callable[[Callable[P, T]], Callable[P, T]]"),
            Read("yes", "backoff._decorator", "Callable[[_CallableT], _CallableT]"),
            Read("httpx's own", TRANSPORT, "class RetryTransport(httpx.BaseTransport, httpx.AsyncBaseTransport)"),
        ),
        "waits_off": feature(
            "tests can skip all waits",
            Run("yes", features.waits_off),
            Read("no", CLIENT, "await asyncio.sleep(retry_wait)"),
            Read("for each function", "tenacity", "self.sleep = sleep"),
            Read("yes", "stamina._config", "def set_testing("),
            Read("if prepared", "backoff._common", "_maybe_call(v)"),
            Read("no", "httpx_retries.retry", "await asyncio.sleep(time_to_sleep)"),
        ),
        "switched_off": feature(
            "tests can switch all retries off",
            Run("yes", features.switched_off),
            Absent(("disable", "set_active")),
            Read("for each function", "tenacity", "enabled: bool = True"),
            Read("yes", "stamina._config", "def set_active("),
            Read("if prepared", ASYNC_BACKOFF, "max_tries_value = _maybe_call(max_tries)"),
            Absent(("disable", "set_active")),
        ),
        "failing_server": feature(
            "a server that fails as told",
            Run("yes", features.failing_server),
            *nobody("start_server", "HTTPServer", "aiohttp.web"),
        ),
    },
    "scope": {
        "existing": feature(
            "code that sends by a session stays as it is",
            Run("yes", features.existing),
            Read("where its client is handed in", CLIENT, "def get("),
            Absent(("middleware",)),
            Absent(("middleware",)),
            Absent(("middleware",)),
            Read("yes", TRANSPORT, "async def handle_async_request"),
        ),
        "anything": feature(
            "a coroutine that has nothing to do with HTTP",
            Run("yes", features.anything),
            Read("no", CLIENT, "response: ClientResponse = await self._request_func("),
            Read("yes", TENACITY, "result = await fn(*args, **kwargs)"),
            Read("yes", STAMINA, "return await wrapped(*args, **kw)"),
            Read("yes", ASYNC_BACKOFF, "ret = await target(*args, **kwargs)"),
            Read("no", TRANSPORT, "response = await send_method(request)"),
        ),
        "plain": feature(
            "functions that are not asynchronous",
            Run("no", features.no_plain_functions),
            Absent(("time.sleep",)),
            Read("yes", "tenacity", "result = fn(*args, **kwargs)"),
            Read("yes", STAMINA, "return wrapped(*args, **kw)"),
            Read("yes", "backoff._sync", "time.sleep(seconds)"),
            Read("yes", TRANSPORT, "def handle_request("),
        ),
        "block": feature(
            "a block of code in the place of a function",
            Run("no", features.no_blocks),
            Absent(("__aiter__",)),
            Read("yes", TENACITY, "def __aiter__"),
            Read("yes", STAMINA, "def retry_context("),
            Absent(("__aiter__",)),
            Absent(("__aiter__",)),
        ),
        "trio": feature(
            "trio",
            Absent(("import trio", "import anyio")),
            Absent(("trio",)),
            Read("yes", TENACITY, "return trio.sleep(seconds)"),
            Read("yes", STAMINA, "await trio.sleep(delay)"),
            Absent(("trio",)),
            Absent(("trio",)),
        ),
        "urls": feature(
            "another URL for the next attempt",
            Run("your coroutine", features.another_url),
            Read("yes", CLIENT, "params = self._params_list[current_attempt - 1]"),
            Read("your coroutine", TENACITY, "result = await fn(*args, **kwargs)"),
            Read("your coroutine", STAMINA, "return await wrapped(*args, **kw)"),
            Read("your coroutine", ASYNC_BACKOFF, "ret = await target(*args, **kwargs)"),
            Absent(("urls",)),
        ),
    },
}
"""By table."""

MEASURED = ("success", "statuses", "exceptions", "giving-up", "wire", "wire-503")
"""The figures of the benchmark that the last table has."""
BENCHED = ("retry_http", "aiohttp_retry", "tenacity", "stamina", "backoff")


# --- as the page shows it ---------------------------------------------------------------------------------------------

# With a space that does not break, so that no mark stands on a line alone.
RUN, READ, COST = "\u00a0●", "\u00a0○", "\u00a0◆"


def _lines(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = ["", *head]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def behaviour_table(name: str) -> str:
    rows = [
        [f"{row.question} `{check}`", *(f"{text}{RUN}" for text in row.cells)] for check, row in BEHAVIOUR[name].items()
    ]
    return _lines(SUBJECTS, rows)


def feature_table(name: str) -> str:
    rows = [
        [f"{row.question} `{check}`", *(_marked(cell) for cell in (row.retrykit, *row.others))]
        for check, row in FEATURES[name].items()
    ]
    return _lines(["retrykit", *OTHERS], rows)


def _marked(cell: Run | Read | Absent) -> str:
    return f"{cell.text}{RUN if isinstance(cell, Run) else READ}"


def cost_table() -> str:
    figures = {figure.name: figure for figure in Report.read(RESULTS).figures}
    rows = []
    for name in MEASURED:
        medians = {row.name: f"{shown(row.median)}{COST}" for row in figures[name].rows}
        rows.append([f"{figures[name].title}, over {figures[name].over}", *(medians[one] for one in BENCHED)])
    return _lines(["decorator", *BENCHED[1:]], rows)


def tables() -> dict[str, str]:
    """All of them, by name."""
    return {
        **{name: behaviour_table(name) for name in BEHAVIOUR},
        **{name: feature_table(name) for name in FEATURES},
        "cost": cost_table(),
    }
