"""The circuit breaker: pure, so by example."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eventbus.flow.circuit_breaker import CircuitBreaker


def breaker() -> CircuitBreaker:
    return CircuitBreaker(failures=3, after=1.0, pause_min=0.1, pause_max=2.0)


def test_closed_while_redis_answers() -> None:
    assert not breaker().open


def test_open_after_some_failures_in_a_row() -> None:
    one = breaker()
    for n in range(2):
        one.failed(n * 0.01, n * 0.01, 0.5)
        assert not one.open
    one.failed(0.03, 0.03, 0.5)
    assert one.open


def test_a_success_starts_the_count_anew() -> None:
    one = breaker()
    for _ in range(2):
        one.failed(0, 0, 0.5)
    one.succeeded()
    one.failed(0, 0, 0.5)
    assert not one.open


def test_one_failure_that_lasts_is_enough() -> None:
    one = breaker()
    one.failed(began=10.0, now=12.0, chance=0.5)
    assert one.open
    one.succeeded()
    assert not one.open


@given(st.integers(1, 200), st.floats(0, 1))
def test_pauses_grow_within_bounds(failures: int, chance: float) -> None:
    one = breaker()
    pauses = [one.failed(0, 0, chance) for _ in range(failures)]
    assert all(0 <= pause <= 2.0 for pause in pauses)
    assert pauses == sorted(pauses)


def test_failures_open_it_when_they_have_lasted_long_enough_and_not_before() -> None:
    one = breaker()
    one.failed(began=10.0, now=10.25, chance=0.5)
    assert not one.open
    one.failed(began=10.5, now=11.0, chance=0.5)
    assert one.open, "since the first one began"


def test_a_success_starts_the_time_anew() -> None:
    one = breaker()
    one.failed(began=10.0, now=10.5, chance=0.5)
    one.succeeded()
    one.failed(began=20.0, now=20.5, chance=0.5)
    assert not one.open


def test_the_pause_doubles_with_each_failure() -> None:
    one = CircuitBreaker(failures=3, after=1.0, pause_min=0.125, pause_max=2.0)
    assert [one.failed(0, 0, 1.0) for _ in range(6)] == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]
    assert one.failed(0, 0, 0.25) == 0.5, "the part of it that chance says"
