"""The model of sizes: what has to hold whatever the costs are, and that the repository's own figures bear it out."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import bench
from bench.calibration import calibrate, checks
from bench.capacity_model import (
    CACHED_CONNECTIONS,
    WAKES,
    Costs,
    Infeasible,
    Limits,
    Workload,
    gateway_cores,
    gateways_reached,
    redis_cores,
    size_for,
)
from bench.curves.results import CurveResults

COSTS = Costs(
    write=4.0,
    cold=6.0,
    frame=0.5,
    frame_kb=0.5,
    wake=100.0,
    event=12.0,
    event_kb=1.0,
    connection=1.0,
    opening=350.0,
    redis_wake=50.0,
    redis_send=15.0,
    redis_event=12.0,
    redis_copy=3.0,
    redis_kb=2.0,
    memory_kb=6.0,
)
LIMITS = Limits()

loads = st.builds(
    Workload,
    connections=st.integers(1, 2_000_000),
    events=st.floats(0.1, 20_000),
    receivers=st.integers(1, 1_000),
    event_bytes=st.integers(235, 65_536),
)


def test_a_broadcast_costs_its_writes_and_one_reading() -> None:
    load = Workload(connections=1_000, events=100, receivers=1_000)
    ordinary = replace(COSTS, connection=0)
    assert gateway_cores(ordinary, load, 1) == pytest.approx(100 * (1_000 * 4.5 + 12 + 100) / 1e6)
    assert redis_cores(ordinary, load, 1) == pytest.approx(100 * (12 + 3 + 50 + 15) / 1e6)


def test_events_of_one_batch_share_their_writes() -> None:
    ordinary = replace(COSTS, connection=0)
    often = Workload(connections=1_000, events=1_000, receivers=1_000)
    frames, writes = 1_000 * 1_000 * 0.5, WAKES * 1_000 * 4
    assert gateway_cores(ordinary, often, 1) == pytest.approx((frames + writes + 1_000 * 12 + WAKES * 100) / 1e6)


def test_a_write_costs_more_where_the_cache_is_too_small() -> None:
    ordinary = replace(COSTS, connection=0, wake=0, event=0)
    for connections, cold in ((CACHED_CONNECTIONS, 0.0), (2 * CACHED_CONNECTIONS, 3.0), (10 * CACHED_CONNECTIONS, 5.4)):
        load = Workload(connections=connections, events=1, receivers=connections)
        assert gateway_cores(ordinary, load, 1) == pytest.approx(connections * (4.5 + cold) / 1e6)


def test_a_broadcast_is_copied_to_each_gateway() -> None:
    assert gateways_reached(1_000_000, 20) == pytest.approx(20)
    assert gateways_reached(1, 20) == pytest.approx(1)
    load = Workload(connections=1_000_000, events=10, receivers=1_000_000)
    assert redis_cores(COSTS, load, 20) == pytest.approx(10 * (12 + 20 * 3 + 50 + 20 * 15) / 1e6)
    often = replace(load, events=1_000)
    assert redis_cores(COSTS, often, 20) == pytest.approx((1_000 * (12 + 20 * 3) + WAKES * (50 + 20 * 15)) / 1e6)


@given(st.floats(1, 1e6), st.integers(1, 10_000))
def test_an_event_reaches_no_more_gateways_than_there_are_or_than_it_has_receivers(receivers: float, many: int) -> None:
    assert 1 - 1e-6 <= gateways_reached(receivers, many) <= min(receivers, many) * (1 + 1e-6)


@given(loads)
def test_the_answer_keeps_within_the_limits_and_one_gateway_less_does_not(load: Workload) -> None:
    sizing = size_for(COSTS, load, LIMITS)
    fewer = sizing.gateways - 1
    assert sizing.gateway_busy <= LIMITS.gateway_busy
    assert load.connections <= sizing.gateways * LIMITS.connections
    assert sizing.redis_busy <= sizing.masters * LIMITS.redis_busy
    if fewer:
        reconnect_s = load.connections / fewer * COSTS.opening / 1e6 / (1 - LIMITS.gateway_busy)
        too_few = load.connections > fewer * LIMITS.connections or reconnect_s > LIMITS.reconnect_s * (1 - 1e-9)
        assert too_few or gateway_cores(COSTS, load, fewer) > LIMITS.gateway_busy * (1 - 1e-9)


@given(loads, st.floats(1, 3))
def test_more_load_never_needs_less(load: Workload, factor: float) -> None:
    more = replace(load, events=load.events * factor)
    assume(more.events <= 20_000)
    assert size_for(COSTS, more, LIMITS).gateways >= size_for(COSTS, load, LIMITS).gateways


def test_what_each_gateway_would_have_to_read_may_be_too_much() -> None:
    with pytest.raises(Infeasible):
        size_for(COSTS, Workload(connections=1_000_000, events=100_000, receivers=1_000_000), LIMITS)


def test_the_measured_points_bear_the_model_out() -> None:
    results = CurveResults.read(Path(bench.__file__).parent / "results" / "sample-curves.json")
    others = [check for check in checks(results, calibrate(results)) if not check.used]
    near = [check for check in others if 0.75 <= check.ratio <= 1.25]
    assert 0.9 <= statistics.median(check.ratio for check in others) <= 1.1
    assert len(near) >= 0.8 * len(others)
    # Nowhere twice as much or half of what it takes; but a gateway that sleeps between a few bursts a second finds its
    # caches full of others' things, and that is no reason for a second gateway.
    assert [check for check in others if not 0.6 <= check.ratio <= 1.3] == [
        check for check in others if (check.load, check.x) == ("rates: to everybody", 10_000)
    ]
