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
