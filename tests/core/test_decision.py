"""decide(): what follows an attempt."""

import math
from datetime import timedelta
from unittest.mock import Mock

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from retrykit import RetryPolicy, TryAgain
from retrykit.core.backoff import JITTERS
from retrykit.core.decision import Accept, Ahead, Call, GiveUp, Outcome, Retry, decide, is_success, server_failed

URL_ = URL("http://localhost/")
REQUEST = aiohttp.RequestInfo(URL_, "GET", CIMultiDictProxy(CIMultiDict()), URL_)
SENT = "Sun, 06 Nov 1994 08:49:37 GMT"


def raised_status(status, *, retry_if=False, wait=None, **headers):
    named = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    error = aiohttp.ClientResponseError(REQUEST, (), status=status, headers=CIMultiDictProxy(named))
    return raised(error, retry_if=retry_if, wait=wait)


def raised(error, *, retry_if=False, wait=None):
    return answered(Outcome(error=error), retry_if=retry_if, wait=wait)


def answered(outcome, *, retry_if=False, wait=None):
    outcome.retry_if, outcome.wait = retry_if, wait
    return outcome


BROKEN = raised(aiohttp.ServerDisconnectedError())
REFUSED = raised(aiohttp.ClientConnectorError(Mock(), OSError(111, "refused")))


def decided(outcome, policy=None, draw=0.0, **call):
    return decide(outcome, Call(**call), policy or RetryPolicy(), draw)


@pytest.mark.parametrize("outcome", [Outcome(), Outcome(result={"id": 1}), raised_status(404), raised(ValueError())])
def test_what_is_no_failure_or_would_fail_again_is_accepted(outcome):
    assert decided(outcome) == Accept()


@pytest.mark.parametrize(("attempt", "delay"), [(1, 1.0), (2, 2.0), (5, 16.0), (9, 60.0)])
def test_a_failure_is_retried_after_the_backoff(attempt, delay):
    assert decided(raised_status(503), RetryPolicy(max_retries=10), attempt=attempt) == Retry(delay)


def test_attempts_are_counted_in_total():
    assert decided(raised_status(503), attempt=2) == Retry(2.0)
    assert decided(raised_status(503), attempt=3) == GiveUp("attempts")
    assert decided(raised_status(503), RetryPolicy(max_retries=1)) == GiveUp("attempts")


def test_no_statuses_means_none():
    assert decided(raised_status(503), RetryPolicy(statuses=())) == Accept()


class TestRepeating:
    def test_a_call_that_may_not_be_repeated_is_sent_again_only_where_it_was_not_taken_up(self):
        assert decided(BROKEN, repeatable=False) == GiveUp("not_repeatable")
        assert decided(raised_status(502), repeatable=False) == GiveUp("not_repeatable")
        assert decided(raised_status(504), repeatable=False) == GiveUp("not_repeatable")
        assert decided(REFUSED, repeatable=False) == Retry(1.0)
        for status in (408, 425, 429, 503):
            assert decided(raised_status(status), repeatable=False) == Retry(1.0)

    def test_a_body_that_cannot_be_sent_again_ends_the_call(self):
        assert decided(raised_status(503), sendable=False) == GiveUp("body")

    def test_a_body_that_was_handed_out_in_part_and_cannot_be_gone_on_with_ends_it_too(self):
        assert decided(raised(aiohttp.ClientPayloadError()), resumable=False) == GiveUp("not_resumable")
        assert decided(raised_status(503), resumable=False, attempt=3) == GiveUp("not_resumable")
        assert decided(raised_status(404), resumable=False) == Accept()

    def test_attempts_come_first(self):
        assert decided(BROKEN, attempt=3, sendable=False, repeatable=False) == GiveUp("attempts")


def redirected(error):
    """As aiohttp raises it behind a redirect: its frames know of the hop before."""
    frame = {"__name__": "aiohttp.client", "error": error}
    exec("def _request():\n    history = ['a response']\n    raise error", frame)
    try:
        frame["_request"]()
    except type(error) as raised:
        return Outcome(error=raised)


class TestRedirects:
    """What a redirect answered may have been processed."""

    def test_a_refused_connection_is_no_longer_unsent(self):
        assert decided(redirected(REFUSED.error), repeatable=False) == GiveUp("not_repeatable")
        assert decided(redirected(REFUSED.error)) == Retry(1.0)

    @pytest.mark.parametrize("status", [408, 425, 429, 503])
    def test_a_status_no_longer_says_that_it_was_not_taken_up(self, status):
        error = aiohttp.ClientResponseError(REQUEST, ("a response",), status=status)
        assert decided(raised(error), repeatable=False) == GiveUp("not_repeatable")
        assert decided(raised(error)) == Retry(1.0)

    def test_who_asks_for_another_attempt_knows_better(self):
        assert decided(redirected(TryAgain()), repeatable=False) == Retry(1.0)


class TestALostConnection:
    def test_the_first_one_is_followed_at_once_where_aiohttps_repeat_is_held_back(self):
        assert decided(BROKEN, holds_back=True) == Retry(0.0, at_once=True)
        assert decided(BROKEN) == Retry(1.0)
        assert decided(BROKEN, holds_back=True, attempt=2) == Retry(0.0, at_once=True)

    def test_later_ones_wait_and_it_was_no_step_of_the_backoff(self):
        assert decided(BROKEN, holds_back=True, repeated_at_once=True, attempt=2) == Retry(1.0)
        policy = RetryPolicy(max_retries=9)
        assert decided(raised_status(503), policy, repeated_at_once=True, attempt=4) == Retry(4.0)

    def test_nothing_else_is_followed_at_once(self):
        for outcome in (REFUSED, raised_status(503), raised(TimeoutError()), raised(aiohttp.ClientPayloadError())):
            assert decided(outcome, holds_back=True) == Retry(1.0)

    def test_it_needs_all_that_another_attempt_needs(self):
        assert decided(BROKEN, holds_back=True, attempt=3) == GiveUp("attempts")
        assert decided(BROKEN, holds_back=True, repeatable=False) == GiveUp("not_repeatable")
        assert decided(BROKEN, holds_back=True, sendable=False) == GiveUp("body")
        assert decided(BROKEN, RetryPolicy(timeout=5), holds_back=True, elapsed=5.0) == GiveUp("timeout")


class TestRetryIf:
    def test_it_adds(self):
        assert decided(answered(Outcome(result="pending"), retry_if=True)) == Retry(1.0)
        assert decided(raised(ValueError(), retry_if=True)) == Retry(1.0)
        assert decided(raised_status(404, retry_if=True)) == Retry(1.0)

    def test_its_no_takes_nothing_away(self):
        assert decided(raised_status(503, retry_if=False)) == Retry(1.0)

    def test_it_never_overrides_what_is_permanent(self):
        assert decided(raised(aiohttp.InvalidURL("x"), retry_if=True)) == Accept()

    def test_it_does_not_make_a_call_repeatable(self):
        assert decided(answered(Outcome(result="pending"), retry_if=True), repeatable=False) == GiveUp("not_repeatable")


class TestRetryAfter:
    def test_it_is_a_floor(self):
        assert decided(raised_status(503, Retry_After="7")) == Retry(7.0)
        assert decided(raised_status(503, Retry_After="1"), attempt=2) == Retry(2.0)

    def test_it_is_honoured_on_every_retried_status(self):
        assert decided(raised_status(502, Retry_After="7")) == Retry(7.0)

    def test_an_http_date_counts_from_the_responses_date(self):
        date = "Sun, 06 Nov 1994 08:49:40 GMT"
        assert decided(raised_status(429, Retry_After=date, Date=SENT)) == Retry(3.0)

    def test_longer_than_we_would_wait_ends_the_call_at_once(self):
        assert decided(raised_status(503, Retry_After="60")) == Retry(60.0)
        assert decided(raised_status(503, Retry_After="61")) == GiveUp("retry_after")
        assert decided(raised_status(503, Retry_After="2"), RetryPolicy(max_retry_after=1)) == GiveUp("retry_after")

    def test_what_cannot_be_read_is_ignored(self):
        assert decided(raised_status(503, Retry_After="soon")) == Retry(1.0)

    def test_jitter_only_adds_to_it(self):
        policy = RetryPolicy(jitter="full")
        assert decided(raised_status(503, Retry_After="7"), policy, draw=0.0) == Retry(7.0)
        assert decided(raised_status(503, Retry_After="7"), policy, draw=0.5) == Retry(7.5)

    def test_the_jitter_that_is_added_stays_below_max_delay(self):
        policy = RetryPolicy(jitter="full", max_delay=10)
        assert decided(raised_status(503, Retry_After="9.5"), policy, draw=0.9, attempt=2) == Retry(9.95)
        assert decided(raised_status(503, Retry_After="20"), policy, draw=0.9) == Retry(20.0)

    def test_try_again_asks_in_the_same_way(self):
        assert decided(raised(TryAgain(after=7))) == Retry(7.0)
        assert decided(raised(TryAgain())) == Retry(1.0)
        assert decided(raised(TryAgain(after=timedelta(seconds=7)))) == Retry(7.0)
        assert decided(raised(TryAgain(after=61))) == GiveUp("retry_after")
        assert decided(raised(TryAgain(after=math.inf))) == GiveUp("retry_after")

    @pytest.mark.parametrize("after", [-1, math.nan])
    def test_what_is_no_time_to_wait_is_ignored(self, after):
        assert decided(raised(TryAgain(after=after))) == Retry(1.0)

    @pytest.mark.parametrize("after", ["7", True, object()])
    def test_what_is_no_number_is_refused(self, after):
        with pytest.raises(TypeError, match=r"TryAgain\(after=.*\) is no time to wait; give seconds as a number"):
            TryAgain(after=after)


class TestWait:
    def test_its_answer_is_the_delay_beyond_max_delay_too(self):
        assert decided(raised_status(503, wait=90.0)) == Retry(90.0)

    def test_the_servers_word_is_a_floor_under_it(self):
        assert decided(raised_status(503, wait=3.0, Retry_After="7")) == Retry(7.0)


class TestTimeout:
    def test_no_wait_is_begun_that_would_end_after_it(self):
        assert decided(BROKEN, RetryPolicy(timeout=5), elapsed=3.9) == Retry(1.0)
        assert decided(BROKEN, RetryPolicy(timeout=5), elapsed=4.0) == GiveUp("timeout")

    def test_a_retry_after_that_does_not_fit_ends_the_call_at_once(self):
        assert decided(raised_status(503, Retry_After="7"), RetryPolicy(timeout=5)) == GiveUp("timeout")

    def test_a_timeout_error_needs_room_for_the_wait_and_another_attempt(self):
        assert decided(raised(TimeoutError()), RetryPolicy(timeout=5), elapsed=1.0) == Retry(1.0)
        assert decided(raised(TimeoutError()), RetryPolicy(timeout=1.0), elapsed=0.3) == GiveUp("timeout")

    def test_the_deadline_itself_is_the_end_whatever_is_named(self):
        policy = RetryPolicy(timeout=5, exceptions=(KeyError,))
        assert decided(raised(TimeoutError()), policy, elapsed=5.0) == GiveUp("timeout")
        assert decided(raised(TimeoutError()), policy, elapsed=4.0) == Accept()


headers = st.none() | st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=30)
outcomes = st.one_of(
    st.builds(
        lambda status, value: raised_status(status, **({} if value is None else {"Retry_After": value})),
        st.integers(100, 599),
        headers | st.integers(0, 10**12).map(str),
    ),
    st.sampled_from([Outcome(), BROKEN, REFUSED, raised(TimeoutError()), raised(ValueError())]),
    st.builds(lambda after: raised(TryAgain(after=after)), st.none() | st.floats()),
)
policies = st.builds(
    RetryPolicy,
    max_retries=st.integers(1, 100),
    max_delay=st.floats(1, 1e6),
    jitter=st.sampled_from(JITTERS),
    max_retry_after=st.floats(0, 1e6),
    timeout=st.none() | st.floats(0.001, 1e6),
)


calls = st.builds(
    Call,
    attempt=st.integers(1, 200),
    elapsed=st.floats(0, 1e6),
    previous_delay=st.floats(0, 1e6),
    repeatable=st.booleans(),
    sendable=st.booleans(),
    resumable=st.booleans(),
    holds_back=st.booleans(),
    repeated_at_once=st.booleans(),
)
draws = st.floats(0, 1, exclude_max=True)


@given(outcomes, policies, calls, draws)
def test_every_delay_is_finite_and_within_its_caps(outcome, policy, call, draw):
    decision = decide(outcome, call, policy, draw)
    if isinstance(decision, Retry):
        assert call.attempt < policy.max_retries
        assert math.isfinite(decision.delay)
        assert 0 <= decision.delay <= max(policy.max_delay, policy.max_retry_after)
        assert policy.timeout is None or call.elapsed + decision.delay < policy.timeout


@given(outcomes, policies, calls, draws)
def test_nothing_is_sent_twice_that_must_not_be(outcome, policy, call, draw):
    decision = decide(outcome, call, policy, draw)
    if isinstance(decision, Retry):
        assert call.sendable
        assert call.resumable
        assert call.repeatable or not decision.at_once
        maybe_processed = outcome.status in (500, 502, 504) or outcome in (BROKEN, *PERHAPS)
        assert call.repeatable or not maybe_processed


PERHAPS = [raised(TimeoutError())]


@given(outcomes, policies, calls, draws)
def test_at_once_is_once(outcome, policy, call, draw):
    decision = decide(outcome, call, policy, draw)
    if isinstance(decision, Retry) and decision.at_once:
        assert decision.delay == 0.0
        assert call.holds_back
        assert not call.repeated_at_once


@given(st.integers(1, 98), st.sampled_from(["none", "full", "equal"]), draws, st.booleans())
def test_delays_never_fall_from_one_attempt_to_the_next(attempt, jitter, draw, repeated):
    policy = RetryPolicy(max_retries=100, jitter=jitter)
    earlier = decided(BROKEN, policy, draw, attempt=attempt, repeated_at_once=repeated and attempt > 1)
    later = decided(BROKEN, policy, draw, attempt=attempt + 1, repeated_at_once=repeated and attempt > 1)
    assert earlier.delay <= later.delay


@given(outcomes, policies, calls, draws, st.floats(0, 60))
def test_a_longer_retry_after_never_shortens_the_wait(outcome, policy, call, draw, asked):
    decision = decide(raised_status(503, Retry_After=f"{asked:.3f}"), call, policy, draw)
    if isinstance(decision, Retry):
        assert decision.delay >= float(f"{asked:.3f}")


class TestGuardsAhead:
    """What guards have in store for the next attempt."""

    @pytest.mark.parametrize(
        ("ahead", "options", "expected"),
        [
            (Ahead(), {}, Retry(1.0)),
            (Ahead(paused=0.5), {}, Retry(1.0)),  # over before the wait is
            (Ahead(paused=5), {}, Retry(5.0)),
            (Ahead(paused=5, spread=2), {}, Retry(6.0)),
            (Ahead(paused=5, spread=2), {"timeout": 6.5}, Retry(5.75)),  # in what is left of the time
            (Ahead(paused=5, spread=2), {"timeout": 5}, GiveUp("timeout")),
            (Ahead(paused=61), {}, GiveUp("retry_after")),
            (Ahead(paused=61), {"max_retry_after": 61}, Retry(61.0)),
            (Ahead(open_for=0.5), {}, Retry(1.0)),
            (Ahead(open_for=1.5), {}, GiveUp("circuit_open")),
            (Ahead(open_for=4, paused=5), {}, Retry(5.0)),
            (Ahead(open_for=6, paused=5), {}, GiveUp("circuit_open")),
        ],
    )
    def test_the_next_attempt_waits_for_them_or_is_none(self, ahead, options, expected):
        assert decided(raised_status(502), RetryPolicy(**options), 0.5, ahead=ahead) == expected

    def test_a_lost_connection_waits_for_a_pause_as_well(self):
        ahead = Ahead(paused=5)
        assert decided(BROKEN, holds_back=True, ahead=ahead) == Retry(5.0, at_once=True)
        assert decided(BROKEN, holds_back=True, ahead=Ahead(open_for=1)) == GiveUp("circuit_open")

    def test_what_is_not_retried_has_nothing_ahead(self):
        assert decided(raised_status(404), ahead=Ahead(open_for=9)) == Accept()
        assert decided(raised_status(503), attempt=3, ahead=Ahead(open_for=9)) == GiveUp("attempts")

    @given(
        st.floats(0, 100),
        st.floats(0, 100),
        st.floats(0, 100),
        st.floats(0, 1, exclude_max=True),
        st.none() | st.floats(0.1, 200),
        st.none() | st.integers(0, 70),
    )
    def test_no_attempt_comes_before_a_guard_lets_it(self, paused, spread, open_for, draw, timeout, asked):
        headers = {} if asked is None else {"retry_after": str(asked)}
        policy = RetryPolicy(timeout=timeout)
        decision = decided(raised_status(503, **headers), policy, draw, ahead=Ahead(paused, spread, open_for))
        if isinstance(decision, Retry):
            assert decision.delay >= max(paused, open_for, asked or 0, 1.0)
            assert decision.delay <= max(paused + spread, asked or 0, 1.0)
            assert timeout is None or decision.delay < timeout
        else:
            assert decision.reason in {"timeout", "retry_after", "circuit_open"}


@pytest.mark.parametrize(
    ("outcome", "failed"),
    [
        (Outcome(), False),
        (raised_status(404), False),
        (raised_status(429), True),
        (raised_status(503), True),
        (raised_status(500), None),
        (BROKEN, True),
        (raised(ValueError()), None),
        (raised(TryAgain()), False),
    ],
)
def test_what_shows_that_a_server_is_not_well(outcome, failed):
    assert server_failed(outcome, RetryPolicy()) is failed


def test_a_client_error_shows_nothing_bad_whatever_a_policy_does_about_it():
    assert server_failed(raised_status(401), RetryPolicy(statuses={401, 500})) is False
    assert server_failed(raised_status(500), RetryPolicy(statuses={401, 500})) is True


@pytest.mark.parametrize(
    ("outcome", "success"),
    [(Outcome(), True), (raised_status(404), True), (raised_status(500), False), (raised(ValueError()), False)],
)
def test_what_gives_back_to_a_budget(outcome, success):
    assert is_success(outcome) is success
