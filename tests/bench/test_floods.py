"""The figures of bench.floods: what counts as missed, and one short run of everything real."""

from __future__ import annotations

import pytest

from bench.floods.__main__ import Phase, Row, compare, line
from bench.floods.attacker import FLOODS
from bench.redis_server import running_redis


def phase(count: int, late: float, memory: float = 0.0) -> Phase:
    """So many answers in ten seconds, the slowest two of a hundred as late as said."""
    slow = count // 50
    return Phase([1.0] * (count - slow) + [late] * slow, 1, 1, 0.1, 0.1, 10.0, memory)


def row(flooded: Phase, calm: Phase | None = None, control: Phase | None = None) -> Row:
    return Row("mounted", "pings", False, calm or phase(500, 10), control or phase(500, 10), flooded)


@pytest.mark.parametrize(
    ("flooded", "missed"),
    [
        (phase(500, 10), []),
        (phase(475, 29), []),
        (phase(474, 10), ["answers"]),
        (phase(500, 30), ["p99"]),
        (phase(500, 10, 64), []),
        (phase(500, 10, 65), ["memory"]),
    ],
)
def test_a_goal_is_missed_beyond_its_bound(flooded: Phase, missed: list[str]) -> None:
    assert row(flooded).missed == missed


def test_the_control_counts_if_it_is_worse_than_the_calm() -> None:
    assert row(phase(400, 50), control=phase(410, 40)).missed == []


@pytest.mark.parametrize("way", ["stand-alone", "mounted"])
def test_a_short_run(way: str) -> None:
    with running_redis() as redis:
        found = compare(way, "empty pongs", with_token=False, redis_url=redis.url, seconds=0.5, rounds=1)
    assert found.flooded.attack["opened"] >= 1
    assert found.flooded.attack["sent"] > 0
    assert found.flooded.durations
    assert line(found).count("|") == 14
    assert "empty pongs" in FLOODS
