"""Token bucket and backoff: pure, so by property."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eventbus.flow.backoff import ceiling, jitter
from eventbus.flow.token_bucket import TokenBucket


@given(st.floats(0.1, 1000), st.lists(st.floats(0, 5), max_size=50), st.integers(1, 20))
def test_no_more_than_a_burst_and_the_rate(rate: float, pauses: list[float], number: int) -> None:
    bucket, now, taken = TokenBucket(rate, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        taken += bucket.take_many(number, now)
        assert taken <= max(rate, 1.0) + now * rate + 1e-6


@given(st.floats(0.1, 1000))
def test_a_token_is_there_after_the_wait(rate: float) -> None:
    bucket = TokenBucket(rate, 0.0)
    bucket.take_many(10_000, 0.0)
    wait = bucket.take(0.0)
    assert wait > 0
    assert bucket.take(wait + 1e-6) == 0


def test_a_clock_that_stays_back_gives_nothing() -> None:
    bucket = TokenBucket(1.0, 10.0)
    assert bucket.take(10.0) == 0
    assert bucket.take(5.0) > 0


@given(st.integers(0, 10_000), st.floats(0.001, 10), st.floats(0.001, 100))
def test_pauses_double_up_to_the_longest(failures: int, first: float, longest: float) -> None:
    pause = ceiling(failures, first, longest)
    assert pause == min(longest, first * 2.0 ** min(failures, 32))
    assert 0 <= jitter(pause) <= pause


@given(st.floats(0.1, 1000), st.lists(st.floats(0, 5), max_size=200))
def test_a_rate_is_kept_and_the_wait_it_names_is_right(per_second: float, pauses: list[float]) -> None:
    now, taken, waited = 0.0, 0, 0.0
    rate = TokenBucket(per_second, now)
    for pause in pauses:
        now += pause
        wait = rate.take(now)
        assert wait >= 0
        if wait:
            waited += 1
            assert wait <= 1 / per_second + 1e-9
        else:
            taken += 1
        assert taken <= max(per_second, 1) + now * per_second + 1e-6
    wait = rate.take(now)
    if wait:
        assert rate.take(now + wait * 0.999 - 1e-9) > 0
        assert rate.take(now + wait + 1e-6) == 0


def test_a_clock_that_goes_back_gives_nothing() -> None:
    rate = TokenBucket(1, 100.0)
    assert rate.take(100.0) == 0
    assert rate.take(50.0) > 0
    assert rate.take(50.5) > 0
    assert rate.take(51.0) == 0, "nor does it take anything away"


def test_who_was_silent_for_long_has_saved_nothing() -> None:
    rate = TokenBucket(10, 0.0)
    assert [rate.take(1000.0) == 0 for _ in range(12)] == [True] * 10 + [False] * 2


def test_the_first_pauses() -> None:
    assert [ceiling(failures, 0.5, 10.0) for failures in range(6)] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0]


def test_a_bucket_is_full_until_something_is_taken_and_again_in_time() -> None:
    bucket = TokenBucket(4.0, 0.0)
    assert bucket.is_full(0.0)
    bucket.spend()
    assert not bucket.is_full(0.0)
    assert not bucket.is_full(0.125)
    assert bucket.is_full(0.25)


def test_a_rate_below_one_still_has_one_token() -> None:
    bucket = TokenBucket(0.5, 0.0)
    assert bucket.is_full(0.0)
    assert bucket.take(0.0) == 0
    assert bucket.take(0.0) == 2.0
    assert bucket.take(1.0) == 1.0
    assert bucket.take(2.0) == 0
    assert bucket.take_many(5, 100.0) == 1
