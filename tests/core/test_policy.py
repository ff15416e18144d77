"""RetryPolicy: its defaults, what it refuses, `replace` and `str`."""

import asyncio
import dataclasses
import math
from datetime import timedelta

import aiohttp
import pytest
import tenacity

from retrykit import TRANSIENT_ERRORS, RetryOptions, RetryPolicy


async def hook(event):
    pass


def plain_hook(event):
    pass


async def async_predicate(outcome):
    return True


def predicate(outcome):
    return False


class TestDefaults:
    def test_they_are_the_documented_ones(self):
        policy = RetryPolicy()
        assert policy.max_retries == 3
        assert policy.base_delay == 1.0
        assert policy.max_delay == 60.0
        assert policy.jitter == "none"
        assert policy.statuses == {408, 425, 429, 502, 503, 504}
        assert policy.exceptions == TRANSIENT_ERRORS
        assert policy.max_retry_after == 60.0
        assert policy.timeout is policy.attempt_timeout is policy.idempotent is policy.on_give_up is None
        assert policy.wait is policy.stop is policy.retry_if is policy.before_retry is None

    def test_it_is_frozen_and_equal_by_value(self):
        policy = RetryPolicy(max_retries=5)
        with pytest.raises(dataclasses.FrozenInstanceError):
            policy.max_retries = 6
        assert policy == RetryPolicy(max_retries=5)
        assert hash(policy) == hash(RetryPolicy(max_retries=5))
        assert policy != RetryPolicy()

    def test_options_and_fields_have_the_same_names(self):
        assert set(RetryOptions.__annotations__) == {field.name for field in dataclasses.fields(RetryPolicy)}


class TestAccepted:
    @pytest.mark.parametrize(
        ("option", "given", "kept"),
        [
            ("max_retries", 1, 1),
            ("base_delay", 0, 0.0),
            ("base_delay", timedelta(milliseconds=250), 0.25),
            ("max_delay", timedelta(minutes=2), 120.0),
            ("max_retry_after", 0, 0.0),
            ("timeout", timedelta(seconds=5), 5.0),
            ("timeout", None, None),
            ("attempt_timeout", 2, 2.0),
            ("statuses", [500, 503], frozenset({500, 503})),
            ("statuses", (), frozenset()),
            ("statuses", range(500, 600), frozenset(range(500, 600))),
            ("exceptions", [KeyError], (KeyError,)),
            ("exceptions", (), ()),
            ("exceptions", [aiohttp.ClientError, OSError], (aiohttp.ClientError, OSError)),
            ("jitter", "full", "full"),
            ("on_give_up", "return", "return"),
            ("on_give_up", None, None),
            ("idempotent", False, False),
            ("before_retry", hook, hook),
            ("retry_if", predicate, predicate),
            ("stop", None, None),
        ],
    )
    def test_it_is_kept(self, option, given, kept):
        assert getattr(RetryPolicy(**{option: given}), option) == kept

    def test_an_empty_set_of_statuses_means_none(self):
        assert RetryPolicy(statuses=set()).statuses == frozenset()

    def test_a_max_delay_below_the_default_base_delay_caps_it(self):
        assert str(RetryPolicy(max_delay=0.5)) == "3 attempts, waits 0.5 s + 0.5 s"
        assert str(RetryPolicy(max_delay=0.5, jitter="full")) == "3 attempts, waits 0 to 0.5 s + 0 to 0.5 s"


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"max_retries": 0}, ValueError, r"max_retries=0.*write max_retries=1"),
            ({"max_retries": -1}, ValueError, r"max_retries=-1"),
            ({"max_retries": 2.0}, TypeError, r"max_retries=2.0.*whole number"),
            ({"max_retries": True}, TypeError, r"max_retries=True"),
            ({"max_retries": None}, TypeError, r"max_retries=None"),
            ({"base_delay": -1}, ValueError, r"base_delay=-1.*0 or more"),
            ({"base_delay": math.nan}, ValueError, r"base_delay=nan"),
            ({"base_delay": math.inf}, ValueError, r"base_delay=inf"),
            ({"base_delay": timedelta(seconds=-1)}, ValueError, r"base_delay=.*timedelta"),
            (
                {"base_delay": "1"},
                TypeError,
                r"base_delay='1'.*seconds as a number.*\(text is converted by float\(\)\)",
            ),
            ({"max_retries": "3"}, TypeError, r"max_retries=3 \(text is converted by int\(\)\)"),
            ({"hedge_after": "0.2"}, TypeError, r"hedge_after=0.2 \(text is converted by float\(\)\)"),
            ({"max_delay": None}, TypeError, r"max_delay=None is no time; .*, or leave it out for the default"),
            ({"max_retry_after": math.inf}, ValueError, r"max_retry_after=inf"),
            ({"timeout": 0}, ValueError, r"timeout=0 leaves no time.*timeout=None"),
            ({"timeout": -3}, ValueError, r"timeout=-3 leaves no time.*above 0, or timeout=None"),
            ({"timeout": timedelta(0)}, ValueError, r"leaves no time"),
            ({"timeout": "3"}, TypeError, r"timeout='3' is no time"),
            ({"timeout": aiohttp.ClientTimeout(total=3)}, TypeError, r"ClientTimeout.*give it to the session"),
            ({"attempt_timeout": 0.0}, ValueError, r"attempt_timeout=None"),
            ({"jitter": "ful"}, ValueError, r"jitter='ful'.*'none', 'full', 'equal', 'decorrelated'"),
            ({"jitter": True}, ValueError, r"jitter=True"),
            ({"statuses": 503}, TypeError, r"statuses=503.*\{429, 503\}"),
            ({"statuses": "503"}, TypeError, r"statuses='503'"),
            ({"statuses": [99]}, ValueError, r"contains 99"),
            ({"statuses": [600]}, ValueError, r"contains 600"),
            ({"statuses": ["503"]}, ValueError, r"contains '503'.*\(text is converted by int\(\)\)"),
            ({"statuses": [True]}, ValueError, r"contains True"),
            ({"statuses": [[503]]}, ValueError, r"contains \[503\]"),
            ({"base_delay": 10**400}, ValueError, r"base_delay=1000.* is no time to wait"),
            ({"exceptions": KeyError}, TypeError, r"exceptions=KeyError is no .*; write .* exceptions=\(KeyError,\)"),
            ({"exceptions": "KeyError"}, TypeError, r"='KeyError' is no collection of classes; .*=\(TimeoutError,\)"),
            ({"exceptions": [TimeoutError()]}, TypeError, r"no exception class"),
            ({"exceptions": [int]}, TypeError, r"no exception class"),
            ({"exceptions": [asyncio.CancelledError]}, TypeError, r"CancelledError, which must always come out"),
            ({"exceptions": [KeyboardInterrupt]}, TypeError, r"KeyboardInterrupt"),
            ({"exceptions": [BaseException]}, TypeError, r"BaseException"),
            ({"exceptions": [aiohttp.ClientConnectorCertificateError]}, ValueError, r"Error, which is permanent"),
            ({"exceptions": [aiohttp.InvalidURL]}, ValueError, r"InvalidURL, which is permanent"),
            ({"on_give_up": "ignore"}, ValueError, r"'raise', 'return'"),
            ({"idempotent": "yes"}, TypeError, r"idempotent='yes'"),
            ({"retry_if": "500"}, TypeError, r"retry_if='500' is no strategy"),
            ({"retry_if": async_predicate}, TypeError, r"async_predicate is asynchronous.*raise TryAgain"),
            ({"retry_if": tenacity.asyncio.retry.retry_if_result(async_predicate)}, TypeError, r"asynchronous"),
            ({"wait": 2}, TypeError, r"wait=2 is no strategy; write an instance such as wait=tenacity.wait_fixed\(2\)"),
            ({"wait": tenacity.wait_fixed}, TypeError, r"an instance such as"),
            ({"stop": 3}, TypeError, r"stop=3"),
            (
                {"stop": tenacity.stop_after_attempt(5)},
                ValueError,
                r"never comes, .* max_retries=3; write max_retries=5 in its",
            ),
            ({"before_retry": 3}, TypeError, r"before_retry=3 can't be called"),
            ({"before_retry": plain_hook}, TypeError, r"plain_hook is a plain function.*async def plain_hook"),
            ({"wait": tenacity.wait_none(), "base_delay": 2}, ValueError, r"wait= and base_delay= contradict"),
            ({"wait": tenacity.wait_none(), "max_delay": 2}, ValueError, r"wait= and max_delay= contradict"),
            ({"wait": tenacity.wait_none(), "jitter": "full"}, ValueError, r"wait= and jitter= contradict"),
            ({"base_delay": 5, "max_delay": 2}, ValueError, r"base_delay=5 is longer than max_delay=2"),
            ({"base_delay": 100}, ValueError, r"base_delay=100 is longer than max_delay=60"),
            ({"timeout": 2, "attempt_timeout": 3}, ValueError, r"attempt_timeout=3 is longer than timeout=2"),
        ],
    )
    def test_with_a_message_that_says_what_to_write(self, options, error, message):
        with pytest.raises(error, match=message):
            RetryPolicy(**options)

    def test_a_stop_that_comes_later_than_what_was_asked_for_is_none(self):
        policy = RetryPolicy(max_retries=3, stop=tenacity.stop_after_attempt(5)).replace(timeout=5)
        assert (policy.max_retries, policy.replace(stop=tenacity.stop_after_attempt(2)).max_retries) == (3, 3)

    def test_a_hook_that_was_called_already(self):
        with pytest.raises(TypeError, match=r"is the coroutine hook\(...\), .*: before_retry=hook$"):
            RetryPolicy(before_retry=hook(None))

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("session", r"session= is no option here, and goes with a call or a client: fetch_json\(url, session="),
            ("headers", r"headers= is no option here, and goes with a request: fetch_json\(url, headers=...\)"),
            ("policy", r"policy= is no option here, and a policy is changed by policy.replace"),
        ],
    )
    def test_what_belongs_elsewhere_says_where(self, name, message):
        with pytest.raises(TypeError, match=message):
            RetryPolicy(**{name: None})

    @pytest.mark.parametrize(
        ("name", "cure"),
        [
            ("max_retires", r"did you mean max_retries=\?"),
            ("attempts", r"did you mean max_retries=\?"),
            ("backoff_factor", r"did you mean base_delay=\?"),
            ("xyz", r"the options are max_retries, base_delay"),
        ],
    )
    def test_unknown_options(self, name, cure):
        with pytest.raises(TypeError, match=rf"there is no option {name}=; {cure}"):
            RetryPolicy(**{name: 3})


class TestReplace:
    def test_it_changes_what_is_named_and_keeps_the_rest(self):
        policy = RetryPolicy(max_retries=5, timeout=20).replace(jitter="full", max_retries=2)
        assert policy == RetryPolicy(max_retries=2, timeout=20, jitter="full")

    def test_it_leaves_the_old_one_as_it_was(self):
        policy = RetryPolicy()
        policy.replace(max_retries=9)
        assert policy == RetryPolicy()

    def test_a_default_can_be_restored(self):
        assert RetryPolicy(timeout=3, max_retries=9).replace(timeout=None, max_retries=3) == RetryPolicy()

    def test_wait_takes_the_place_of_the_schedule_and_back(self):
        wait = tenacity.wait_fixed(2)
        waiting = RetryPolicy(base_delay=3, jitter="full", max_retries=5).replace(wait=wait)
        assert waiting == RetryPolicy(wait=wait, max_retries=5)
        assert waiting.replace(base_delay=0.5) == RetryPolicy(base_delay=0.5, max_retries=5)

    def test_a_shorter_timeout_takes_the_place_of_a_longer_attempt_timeout(self):
        policy = RetryPolicy(timeout=30, attempt_timeout=10)
        assert policy.replace(timeout=5) == RetryPolicy(timeout=5)
        assert policy.replace(timeout=20).attempt_timeout == 10

    def test_a_newer_cap_or_base_takes_the_place_of_an_older_one(self):
        assert RetryPolicy(max_delay=200).replace(base_delay=100) == RetryPolicy(base_delay=100, max_delay=200)
        assert RetryPolicy(base_delay=5).replace(max_delay=2) == RetryPolicy(base_delay=2, max_delay=2)
        assert RetryPolicy(max_delay=2).replace(base_delay=5) == RetryPolicy(base_delay=5, max_delay=5)
        with pytest.raises(ValueError, match="longer than max_delay=60"):
            RetryPolicy().replace(base_delay=100)

    def test_what_is_wrong_is_refused(self):
        with pytest.raises(ValueError, match="max_retries=0"):
            RetryPolicy().replace(max_retries=0)


class TestStr:
    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({}, "3 attempts, waits 1 s + 2 s"),
            ({"max_retries": 1}, "1 attempt, no retries"),
            ({"max_retries": 2, "base_delay": 0.25}, "2 attempts, waits 0.25 s"),
            ({"max_retries": 6}, "6 attempts, waits 1 s + 2 s + 4 s + 8 s + 16 s"),
            ({"max_retries": 9}, "9 attempts, waits 1 s + 2 s + 4 s + 8 s + … + 60 s"),
            ({"jitter": "full"}, "3 attempts, waits 0 to 1 s + 0 to 2 s"),
            ({"jitter": "equal"}, "3 attempts, waits 0.5 to 1 s + 1 to 2 s"),
            ({"jitter": "decorrelated"}, "3 attempts, waits 1 to 3 s + 1 to 9 s"),
            ({"timeout": 30, "attempt_timeout": 5}, "3 attempts, waits 1 s + 2 s, timeout 30 s, 5 s per attempt"),
            ({"wait": tenacity.wait_fixed(2)}, "3 attempts, waits as wait_fixed says"),
        ],
    )
    def test_it_says_the_policy_in_a_few_words(self, options, text):
        assert str(RetryPolicy(**options)) == text
