"""Time as the pure parts are given it: one that only goes forward for deadlines, one of the calendar for expiry."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Both of them, so that a test can hold them in its hand."""

    def now(self) -> float:
        """Seconds that only go forward, whatever the calendar does."""

    def wall(self) -> float:
        """Seconds since 1970."""


class SystemClock:
    """The machine's."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
