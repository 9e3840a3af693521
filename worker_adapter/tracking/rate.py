"""Rate of a progress, and the time of its next event. Pure: time is an argument."""

from __future__ import annotations

from collections import deque

__all__ = ["RateEstimator"]


class RateEstimator:
    """Allows one event per ``interval`` and estimates the rate over the last ``window``.

    Args:
        interval: seconds between two events.
        window: seconds over which the rate is estimated.

    Attributes:
        next: time of the next event. Public, so that a step that reports nothing costs one comparison.
    """

    __slots__ = ("_interval", "_samples", "_window", "next")

    def __init__(self, interval: float, window: float) -> None:
        self._interval = interval
        self._window = window
        self._samples: deque[tuple[float, float]] = deque()
        self.next = float("-inf")

    def due(self, now: float) -> bool:
        """Return whether an event is due.

        Args:
            now: seconds of a monotonic clock.
        """
        return now >= self.next

    def record(self, now: float, done: float) -> float | None:
        """Record the count of an event. A smaller count than before, as of a new loop, restarts the estimate.

        Args:
            now: seconds of a monotonic clock.
            done: steps that the event reports.

        Returns:
            Steps per second; None for the first event.
        """
        self.next = now + self._interval
        samples = self._samples
        if samples and (done < samples[-1][1] or now < samples[-1][0]):
            samples.clear()
        # One sample at or before the window's start is kept, so that slow work has a rate too.
        while len(samples) > 1 and samples[1][0] <= now - self._window:
            samples.popleft()
        rate = (done - samples[0][1]) / (now - samples[0][0]) if samples and now > samples[0][0] else None
        samples.append((now, done))
        return rate
