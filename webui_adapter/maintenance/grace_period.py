"""The grace period for leases. No I/O.

While Redis is down no worker can renew, so an expired lease proves nothing. Leases are checked only after Redis has
been reachable for ``length`` seconds without a gap.
"""

from __future__ import annotations

import math

__all__ = ["GracePeriod"]


class GracePeriod:
    """Measures how long Redis has been reachable without a gap.

    The time is the server's, by which leases expire. It also shows that a machine slept, or that its clock was set.
    """

    def __init__(self, length: float, gap: float) -> None:
        """Begin with an unreachable Redis.

        Args:
            length: The grace period in seconds.
            gap: The longest time in seconds between two successful checks that counts as no gap.
        """
        self._length = length
        self._gap = gap
        self._since, self._last = math.inf, -math.inf

    def redis_reached(self, now: float) -> None:
        """Note that Redis was reached. A clock that was set back is a gap, too: it does not show how long it took.

        Args:
            now: The server's time in seconds.
        """
        if not 0 <= now - self._last <= self._gap:
            self._since = now
        self._last = now

    def is_over(self, now: float) -> bool:
        """Return whether every worker has had the time to renew.

        Args:
            now: The server's time in seconds.
        """
        return now - self._since >= self._length
