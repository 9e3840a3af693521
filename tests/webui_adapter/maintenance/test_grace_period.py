"""The grace period, after which an expired lease means a lost worker. Pure, with a manual clock."""

from __future__ import annotations

import pytest

from webui_adapter.maintenance.grace_period import GracePeriod


def run(grace: GracePeriod, *moments: float) -> bool:
    for moment in moments:
        grace.redis_reached(moment)
    return grace.is_over(moments[-1])


def every(step: float, start: float, end: float) -> list[float]:
    return [start + step * n for n in range(int((end - start) / step) + 1)]


def test_not_at_the_start() -> None:
    assert not run(GracePeriod(30, 10), 1000)
    assert not run(GracePeriod(30, 10), *every(5, 1000, 1025))
    assert run(GracePeriod(30, 10), *every(5, 1000, 1030))


def test_a_short_gap_does_not_restart_the_grace_period() -> None:
    assert run(GracePeriod(30, 10), *every(5, 1000, 1015), *every(5, 1025, 1035))


@pytest.mark.parametrize("back", [1100, 1_000_000, 900])
def test_a_long_gap_or_a_clock_that_was_set_restarts_the_grace_period(back: float) -> None:
    grace = GracePeriod(30, 10)
    assert run(grace, *every(5, 1000, 1050))
    assert not run(grace, *every(5, back, back + 25))
    assert run(grace, *every(5, back + 30, back + 30))


def test_redis_was_never_reached() -> None:
    assert not GracePeriod(30, 10).is_over(1000)
