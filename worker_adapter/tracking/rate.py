"""When to speak of progress, and how fast it goes. Pure: time is an argument."""

from __future__ import annotations

from collections import deque

__all__ = ["RateEstimator"]


class RateEstimator:
    """Lets through one word per ``interval`` seconds and knows the rate over the last ``window`` seconds.

    Attributes:
        next: the time from which on the next word is due; public, so that a step which is not due costs one
        comparison.
    """

    __slots__ = ("_interval", "_samples", "_window", "next")

    def __init__(self, interval: float, window: float) -> None:
        self._interval = interval
        self._window = window
        self._samples: deque[tuple[float, float]] = deque()
        self.next = float("-inf")

    def due(self, now: float) -> bool:
        """Whether a word may be said at ``now``."""
        return now >= self.next

    def record(self, now: float, done: float) -> float | None:
        """Note that ``done`` steps are told at ``now``. Returns steps per second; None until two moments are known.

        A count that falls, as of a stage that begins again, forgets what was before.
        """
        self.next = now + self._interval
        samples = self._samples
        if samples and (done < samples[-1][1] or now < samples[-1][0]):
            samples.clear()
        # One moment at or before the window's edge stays, so that slow work has a rate too.
        while len(samples) > 1 and samples[1][0] <= now - self._window:
            samples.popleft()
        rate = (done - samples[0][1]) / (now - samples[0][0]) if samples and now > samples[0][0] else None
        samples.append((now, done))
        return rate
