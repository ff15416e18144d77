"""OriginPause: when an origin is held back, and how it is let go."""

from datetime import timedelta

import pytest

from retrykit import Hold, OriginPause

ORIGIN, OTHER = "https://a.example", "https://b.example"


def test_nothing_is_held_before_a_server_asks_for_it(clock):
    assert OriginPause().hold(ORIGIN) is None
    assert OriginPause().left(ORIGIN) == 0


def test_an_origin_is_held_until_the_end_and_no_other(clock):
    pause = OriginPause(spread=0.25)
    pause.begin(ORIGIN, 2)
    assert pause.hold(ORIGIN) == Hold(clock.time + 2, 0.5)
    assert pause.hold(OTHER) is None
    assert pause.hold(None) is None
    clock.time += 1.5
    assert pause.left(ORIGIN) == 0.5
    clock.time += 0.5
    assert pause.hold(ORIGIN) is None
    assert repr(pause) == "<OriginPause: 0 paused>"


def test_what_ends_last_counts(clock):
    pause = OriginPause(spread=0)
    pause.begin(ORIGIN, 10)
    pause.begin(ORIGIN, 2)
    assert pause.left(ORIGIN) == 10
    pause.begin(ORIGIN, 11)
    assert pause.left(ORIGIN) == 11


def test_no_wait_is_no_pause(clock):
    pause = OriginPause()
    pause.begin(ORIGIN, 0)
    assert pause.hold(ORIGIN) is None


def test_a_mistake_pauses_no_longer_than_the_longest(clock):
    pause = OriginPause()
    pause.begin(ORIGIN, 1e9)
    assert pause.left(ORIGIN) == 3600
    pause = OriginPause(longest=timedelta(minutes=1))
    pause.begin(ORIGIN, 1e9)
    assert pause.left(ORIGIN) == 60


def test_of_many_origins_the_one_that_began_first_is_forgotten(clock):
    pause = OriginPause(max_origins=2)
    origins = ["https://1.example", "https://2.example", "https://3.example"]
    for origin in origins:
        pause.begin(origin, 10)
    assert [pause.left(origin) for origin in origins] == [0, 10, 10]


def test_one_can_be_ended(clock):
    pause = OriginPause()
    pause.begin(ORIGIN, 10)
    pause.end(f"{ORIGIN}/v1")
    assert pause.hold(ORIGIN) is None
    pause.end(OTHER)  # nothing is paused there
    with pytest.raises(ValueError, match=r"'a\.example' is no origin"):
        pause.left("a.example")


def test_the_log_tells_of_the_first_that_is_told(clock, caplog):
    pause = OriginPause(longest=60)
    for seconds in (20, 20.5, 99):
        pause.begin(ORIGIN, seconds)
    pause.begin(None, 3)
    clock.time += 100
    pause.begin(ORIGIN, 5)
    assert [record.getMessage() for record in caplog.records] == [
        f"{ORIGIN} is paused for 20 s, since it has asked for 20 s",
        f"{ORIGIN} is paused for 60 s, since it has asked for 99 s",
        "what has no known origin is paused for 3 s, since it has asked for 3 s",
        f"{ORIGIN} is paused for 5 s, since it has asked for 5 s",
    ]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"spread": -1}, ValueError, "spread=-1 is no part of a wait; write 0 or more, such as spread=0.25"),
        ({"spread": float("inf")}, ValueError, "spread=inf is no part of a wait"),
        ({"spread": "some"}, TypeError, "spread='some' is no number; write a part of the wait, such as spread=0.25"),
        ({"longest": 0}, ValueError, "longest=0 is no length of time"),
        ({"max_origins": 0}, ValueError, "max_origins=0 is less than 1"),
    ],
)
def test_what_cannot_work_is_refused(options, error, message):
    with pytest.raises(error) as caught:
        OriginPause(**options)
    assert str(caught.value).startswith(message)
