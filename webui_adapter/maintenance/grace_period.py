"""When what has not been renewed may be judged: not while, and not at once after, nobody could renew. No I/O."""

from __future__ import annotations

import math

__all__ = ["GracePeriod"]


class GracePeriod:
    """Counts from when Redis could be reached again without a longer gap.

    The clock is the wall's: it also shows a machine that slept, with all workers on it. Seconds: ``length``, the grace,
    and ``gap``, the longest time between two successful looks that is nothing.
    """

    def __init__(self, length: float, gap: float) -> None:
        self._length = length
        self._gap = gap
        self._since, self._last = math.inf, -math.inf

    def redis_reached(self, now: float) -> None:
        """Redis has just been reached. Backwards is a gap, too: a clock that was set does not say how long it took."""
        if not 0 <= now - self._last <= self._gap:
            self._since = now
        self._last = now

    def is_over(self, now: float) -> bool:
        """Whether whoever could renew has had the time to."""
        return now - self._since >= self._length
