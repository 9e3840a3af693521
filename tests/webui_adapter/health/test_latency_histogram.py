"""The latency histogram."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui_adapter.health.latency_histogram import LATENCY_BUCKETS, LatencyHistogram


@given(st.lists(st.lists(st.tuples(st.integers(-1_000_000, 100_000_000), st.integers(0, 1000)))))
def test_the_histogram_counts_what_was_observed(turns: list[list[tuple[int, int]]]) -> None:
    histogram, now = LatencyHistogram(), 1_790_000_000
    for turn in turns:
        histogram.observe_since(float(now), [(now * 1_000_000 - ago, count) for ago, count in turn])
    observed = [(max(0.0, ago / 1e6), count) for turn in turns for ago, count in turn]
    rows = histogram.cumulative()
    assert [name for name, _ in rows] == [*map(repr, LATENCY_BUCKETS), "+Inf"]
    for bound, (_, counted) in zip((*LATENCY_BUCKETS, float("inf")), rows, strict=True):
        # Seconds since 1970 as a float have a resolution of a quarter of a microsecond.
        assert sum(n for seconds, n in observed if seconds <= bound - 1e-6) <= counted
        assert counted <= sum(n for seconds, n in observed if seconds <= bound + 1e-6)
    assert histogram.sum == pytest.approx(sum(seconds * count for seconds, count in observed), abs=1e-3)
