"""A latency histogram that counts many equal observations in one step: one event, thousands of receivers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

__all__ = ["LATENCY_BUCKETS", "LatencyHistogram"]

LATENCY_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Upper bounds in seconds; 5, 20, 100 and 200 ms are targets and limits of the product."""


class LatencyHistogram:
    """Counts per bucket, and the sum of all values. The counts are not cumulative; the last one has no upper bound.

    Args:
        bounds: the upper bounds of the buckets, in seconds.
    """

    def __init__(self, bounds: tuple[float, ...] = LATENCY_BUCKETS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe_since(self, now: float, began: Iterable[tuple[int, int]]) -> None:
        """Count how long ago events began.

        Args:
            now: seconds since 1970.
            began: microseconds since 1970, and how many events began then.
        """
        bounds, counts, total = self.bounds, self.counts, 0.0
        for moment, count in began:
            seconds = now - moment / 1e6
            seconds = max(seconds, 0.0)  # The clock of the worker's machine may be ahead.
            counts[bisect_left(bounds, seconds)] += count
            total += seconds * count
        self.sum += total

    def cumulative(self) -> list[tuple[str, float]]:
        """Return the buckets as Prometheus expects them: the upper bound as text, and the cumulative count."""
        total = 0
        rows: list[tuple[str, float]] = []
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            total += count
            rows.append(("+Inf" if bound == float("inf") else repr(bound), total))
        return rows
