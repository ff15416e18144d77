"""RetryBudget: the bucket."""

import asyncio
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrykit import RetryBudget

ORIGIN, OTHER = "https://a.example", "https://b.example"


def spent(budget, origin=None, *, throttled=False):
    """How many retries there are before the first that is refused."""
    count = 0
    while budget.spend(origin, throttled=throttled):
        count += 1
    return count


def test_the_numbers_of_the_aws_sdks():
    assert spent(RetryBudget()) == 500 // 14
    assert spent(RetryBudget(), throttled=True) == 500 // 5
    budget = RetryBudget()
    spent(budget)
    left = budget.left()
    for _ in range(int(14 - left)):
        assert not budget.spend()
        budget.earn()
    assert budget.spend()


def test_a_refusal_takes_nothing():
    budget = RetryBudget(10, cost=6)
    assert budget.spend()
    assert budget.left() == 4
    assert not budget.spend()
    assert budget.left() == 4
    assert not budget.spend(throttled=True)


def test_a_throttled_retry_is_cheaper_but_never_dearer_than_another():
    assert RetryBudget().throttling_cost == 5
    assert RetryBudget(10, cost=2).throttling_cost == 2
    budget = RetryBudget(10, cost=6, throttling_cost=1)
    assert budget.spend()
    assert budget.spend(throttled=True)
    assert budget.left() == 3


def test_a_bucket_is_never_more_than_full():
    budget = RetryBudget(10, cost=5, refund=3)
    budget.spend()
    for _ in range(9):
        budget.earn()
    assert budget.left() == 10
    assert spent(budget) == 2


def test_each_origin_has_a_bucket_and_what_is_unknown_has_one():
    budget = RetryBudget.ratio(0.1, reserve=2)
    assert spent(budget, ORIGIN) == 2
    assert spent(budget, OTHER) == 2
    assert spent(budget) == 2
    budget.earn(ORIGIN)
    assert (budget.left(ORIGIN), budget.left(OTHER), budget.left()) == (1, 0, 0)


def test_the_emptiest_bucket_as_a_share():
    budget = RetryBudget(100, cost=30)
    assert budget.lowest() == 1
    budget.spend(ORIGIN)
    budget.spend(OTHER)
    budget.spend(OTHER)
    assert budget.lowest() == 0.4
    budget.earn(OTHER)
    assert budget.lowest() == 0.41


def test_an_address_is_on_an_origin():
    budget = RetryBudget()
    budget.spend("https://a.example")
    assert budget.left("https://A.example/v1/?page=2") == 486


def test_a_ratio_is_retries_for_each_success():
    budget = RetryBudget.ratio(0.1, reserve=3)
    assert spent(budget) == 3
    retries = 0
    for _ in range(1000):
        budget.earn()
        retries += budget.spend()
    assert retries == 100


@given(st.integers(1, 100), st.integers(1, 60))
def test_a_full_bucket_is_good_for_its_reserve(percent, reserve):
    assert spent(RetryBudget.ratio(percent / 100, reserve=reserve)) == reserve


def test_a_ratio_counts_a_throttled_retry_in_full():
    assert spent(RetryBudget.ratio(0.1, reserve=3), throttled=True) == 3


@given(st.floats(0.01, 1), st.integers(1, 50), st.lists(st.booleans(), max_size=300))
def test_retries_never_exceed_the_reserve_and_their_share(ratio, reserve, asks):
    budget = RetryBudget.ratio(ratio, reserve=reserve)
    retries = successes = 0
    for asked in asks:
        if asked:
            retries += budget.spend()
        else:
            budget.earn()
            successes += 1
        assert retries <= reserve + ratio * successes + 1e-6
        assert 0 <= budget.left() <= budget.capacity


@given(st.lists(st.tuples(st.sampled_from([None, ORIGIN, OTHER]), st.booleans(), st.booleans()), max_size=200))
def test_the_same_calls_get_the_same_answers(steps):
    def answers():
        budget = RetryBudget(20, cost=7, throttling_cost=3)
        for origin, earns, throttled in steps:
            yield budget.earn(origin) if earns else budget.spend(origin, throttled=throttled)

    assert list(answers()) == list(answers())


def test_of_many_origins_the_one_used_longest_ago_is_forgotten():
    budget = RetryBudget.ratio(0.1, reserve=1, max_origins=2)
    one, two, three = "https://1.example", "https://2.example", "https://3.example"
    assert budget.spend(one)
    assert budget.spend(two)
    budget.earn(one)  # so that the second was used longest ago
    assert budget.spend(three)
    assert (budget.left(one), budget.left(two), budget.left(three)) == (1, budget.capacity, 0)


def test_full_buckets_take_no_room():
    budget = RetryBudget.ratio(1, reserve=1, max_origins=1)
    for number in range(1000):
        assert budget.spend(str(number))
        budget.earn(str(number))
    assert budget.spend("last")
    assert not budget.spend("last")


def test_threads_share_it_to_the_last_token():
    budget = RetryBudget(3000, cost=1, throttling_cost=1)
    granted = [0] * 4

    def spend(number):
        granted[number] = sum(budget.spend() for _ in range(2000))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=spend, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert sum(granted) == 3000


def test_event_loops_share_it():
    budget = RetryBudget.ratio(0.1, reserve=3)

    async def spend():
        return budget.spend(ORIGIN)

    assert [asyncio.run(spend()) for _ in range(5)] == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: RetryBudget(0), ValueError, "capacity=0 is no number of tokens that could be counted; write one abov"),
        (lambda: RetryBudget(float("nan")), ValueError, "capacity=nan is no number of tokens"),
        (lambda: RetryBudget("5"), TypeError, "capacity='5' is no number of tokens; write one such as capacity=10"),
        (lambda: RetryBudget(10), ValueError, "cost=14 is more than capacity=10"),
        (lambda: RetryBudget(cost=-1), ValueError, "cost=-1 is no number of tokens"),
        (lambda: RetryBudget(10, cost=5, throttling_cost=11), ValueError, "throttling_cost=11 is more than capacity"),
        (lambda: RetryBudget(refund=True), TypeError, "refund=True is no number of tokens"),
        (lambda: RetryBudget(refund=6), ValueError, "refund=6 is more than a retry costs, so that each success would"),
        (
            lambda: RetryBudget().left("example.com"),
            ValueError,
            "'example.com' is no origin; write scheme, host and po",
        ),
        (lambda: RetryBudget().left(5), ValueError, "5 is no origin"),
        (lambda: RetryBudget(max_origins=0), ValueError, "max_origins=0 is less than 1"),
        (lambda: RetryBudget(max_origins=1.5), TypeError, "max_origins=1.5 is no whole number"),
        (lambda: RetryBudget.ratio(0), ValueError, "ratio=0 is no share of 1; write a number above 0 and up to 1"),
        (lambda: RetryBudget.ratio(1.5), ValueError, "ratio=1.5 is no share of 1"),
        (lambda: RetryBudget.ratio("10%"), TypeError, "ratio='10%' is no number; write a share of 1, such as ratio=0."),
        (lambda: RetryBudget.ratio(0.1, reserve=0.5), ValueError, "reserve=0.5 is less than a single retry"),
        (lambda: RetryBudget.ratio(0.1, reserve=None), TypeError, "reserve=None is no number of tokens"),
    ],
)
def test_what_cannot_work_is_refused(make, error, message):
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value).startswith(message)


def test_its_repr_tells_its_numbers():
    assert repr(RetryBudget()) == ("<RetryBudget: 500 tokens, 14 for a retry, 5 after a 429, 1 back for a success>")
