"""PrometheusListener, by what a scrape of it shows."""

import asyncio
import subprocess
import sys
from collections.abc import Callable

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import retrykit
from retrykit import AsyncHTTPClient, GiveUpError, RetryPolicy, retry_http, set_listeners
from retrykit.telemetry.prometheus import PrometheusListener
from retrykit.testing import Disconnect, ScriptedServer

Samples = dict[str, dict[tuple[str, ...], float]]


async def scraped(registry: CollectorRegistry) -> tuple[Samples, str]:
    """What Prometheus would see: samples by the values of their labels, in the order of their names, and the text."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        async with aiohttp.ClientSession() as session, session.get(f"http://{host}:{port}/metrics") as response:
            text = await response.text()
    finally:
        await runner.cleanup()
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return samples, text


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def listener(registry: CollectorRegistry) -> PrometheusListener:
    listener = PrometheusListener(registry)
    set_listeners(listener)
    return listener


async def test_what_a_scrape_shows(
    client: AsyncHTTPClient,
    scripted_server: ScriptedServer,
    registry: CollectorRegistry,
    listener: PrometheusListener,
    no_waits: list[float],
):
    listener.watch("api", client.policy)
    scripted_server.script("/users", {}, 503, {}, Disconnect(), {}, 404, 503)
    for _ in range(3):
        await client.get("/users?token=hidden")
    with pytest.raises(retrykit.ResponseError):
        await client.get("/users")
    with pytest.raises(GiveUpError):
        await client.get("/users")
    samples, text = await scraped(registry)
    here = ("AsyncHTTPClient", scripted_server.url)
    assert samples["retrykit_calls_total"] == {(*here, "success"): 3, (*here, "error"): 1, (*here, "gave_up"): 1}
    assert samples["retrykit_attempts_total"] == {here: 9}
    assert samples["retrykit_retries_total"] == {
        ("AsyncHTTPClient", "503", scripted_server.url): 3,
        ("AsyncHTTPClient", "ServerDisconnectedError", scripted_server.url): 1,
    }
    assert samples["retrykit_give_ups_total"] == {(*here, "attempts"): 1}
    assert samples["retrykit_wait_seconds_count"] == {here: 4}
    assert samples["retrykit_wait_seconds_sum"] == {here: sum(no_waits)}
    assert samples["retrykit_budget_left_ratio"] == {("api",): pytest.approx((70 - 4 * 14 + 3) / 70)}
    assert samples["retrykit_circuits"] == {("api", "closed"): 1, ("api", "open"): 0, ("api", "half-open"): 0}
    assert "hidden" not in text
    assert "/users" not in text


async def test_an_open_circuit(
    client: AsyncHTTPClient,
    scripted_server: ScriptedServer,
    registry: CollectorRegistry,
    listener: PrometheusListener,
    no_waits: list[float],
):
    listener.watch("api", client.policy)
    listener.watch("api", client.policy)  # Once more does no harm.
    scripted_server.script("/down", 503)
    for _ in range(3):
        with pytest.raises(aiohttp.ClientError):
            await client.get("/down")
    samples, _ = await scraped(registry)
    assert samples["retrykit_circuits"]["api", "open"] == 1
    reasons = {labels[2]: count for labels, count in samples["retrykit_give_ups_total"].items()}
    assert reasons == {"attempts": 1, "circuit_open": 2}  # The third sent nothing at all.
    assert sum(samples["retrykit_calls_total"].values()) == 3


async def test_a_cancelled_call(registry: CollectorRegistry, listener: PrometheusListener):
    begun = asyncio.Event()

    @retry_http
    async def hang() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    samples, _ = await scraped(registry)
    assert [labels[1:] for labels in samples["retrykit_calls_total"]] == [("unknown", "cancelled")]
    assert "retrykit_give_ups_total" not in samples


async def test_a_call_that_is_thrown_away(registry: CollectorRegistry, listener: PrometheusListener):
    """By the garbage collector, maybe, and while the client library makes a series: then its lock is taken."""

    @retry_http
    async def wait() -> None:
        await asyncio.sleep(30)

    call = wait()
    call.send(None)
    call.close()
    assert (await scraped(registry))[0].get("retrykit_calls_total") is None


async def test_a_value_that_was_refused(
    registry: CollectorRegistry, listener: PrometheusListener, no_waits: list[float]
):
    @retry_http(max_retries=2, retry_if=lambda value: value == "pending")
    async def poll() -> str:
        return "pending"

    await poll()
    samples, _ = await scraped(registry)
    assert [labels[1] for labels in samples["retrykit_retries_total"]] == ["result"]


async def test_the_number_of_series_is_bounded(registry: CollectorRegistry, no_waits: list[float]):
    listener = PrometheusListener(registry, max_origins=5)
    set_listeners(listener)
    async with aiohttp.ClientSession() as session:

        async def fail(number: int) -> None:
            raise type(f"Error{number}", (ConnectionError,), {})

        for number in range(100):
            fail.__qualname__ = f"call{number}"
            with pytest.raises(ConnectionError):
                await retry_http(fail, max_retries=2)(number)
            with pytest.raises(aiohttp.ClientError):
                await retrykit.fetch_json(f"http://127.0.0.1:{number + 1}/", session=session, max_retries=2)
    samples, _ = await scraped(registry)
    assert len({labels[0] for labels in samples["retrykit_calls_total"]}) == 51
    assert len({labels[1] for labels in samples["retrykit_calls_total"]}) == 7  # 5, `other`, and `unknown`
    assert len({labels[1] for labels in samples["retrykit_retries_total"]}) == 31
    assert sum(samples["retrykit_calls_total"].values()) == 200


async def test_nobody_has_to_watch(registry: CollectorRegistry, listener: PrometheusListener):
    samples, _ = await scraped(registry)
    assert "retrykit_circuits" not in samples


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda listener: listener.watch("api", RetryPolicy()),
            ValueError,
            "neither a RetryBudget nor a CircuitBreaker",
        ),
        (lambda listener: listener.watch("api", "client"), TypeError, r"give a RetryPolicy.* client.policy"),
        (lambda listener: listener.watch(RetryPolicy(), "api"), TypeError, r"was given a RetryPolicy as the name"),
        (lambda _: PrometheusListener(CollectorRegistry(), max_origins=-1), ValueError, "max_origins=-1 is less than"),
        (lambda _: PrometheusListener(CollectorRegistry(), max_origins=2.5), TypeError, "max_origins=2.5 is no whole"),
        (
            lambda _: PrometheusListener(CollectorRegistry(), max_origins=float("inf")),
            TypeError,
            "max_origins=inf is no whole number; write one such as max_origins=20",
        ),
    ],
)
def test_what_can_not_work_is_refused(
    listener: PrometheusListener, call: Callable[[PrometheusListener], object], error: type[Exception], text: str
):
    with pytest.raises(error, match=text):
        call(listener)


def test_a_name_stands_for_one_policy(listener: PrometheusListener):
    listener.watch("api", RetryPolicy(budget=retrykit.RetryBudget()))
    with pytest.raises(ValueError, match=r"watch\('api', ...\) was called before, with other guards"):
        listener.watch("api", RetryPolicy(budget=retrykit.RetryBudget()))


def test_a_registry_has_one(registry: CollectorRegistry, listener: PrometheusListener):
    with pytest.raises(ValueError, match="PrometheusListener, say; share that listener, or give this one a registry"):
        PrometheusListener(registry)


def test_where_a_name_is_taken_nothing_is_registered(registry: CollectorRegistry):
    Counter("retrykit_retries", "Somebody else's", registry=registry)
    with pytest.raises(ValueError, match="has metrics of these names already"):
        PrometheusListener(registry)
    assert [family.name for family in registry.collect()] == ["retrykit_retries"]


def test_a_registry_is_one():
    with pytest.raises(TypeError, match=r"registry is None; give a prometheus_client\.CollectorRegistry"):
        PrometheusListener(None)  # type: ignore[arg-type]


def test_without_the_client_library_it_says_what_to_install():
    program = "import sys; sys.modules['prometheus_client'] = None; import retrykit.telemetry.prometheus"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "needs prometheus-client; install it: pip install prometheus-client" in done.stderr
