"""Clocks: monotonic time for deadlines, calendar time for expiry. A test passes its own ``Clock``."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock", "now_ms", "now_us"]


class Clock(Protocol):
    """Both kinds of time, for parts that take their clock as an argument."""

    def now(self) -> float:
        """Return monotonic seconds: they only go forward, whatever the calendar does."""

    def wall(self) -> float:
        """Return seconds since 1970."""


class SystemClock:
    """The clocks of this machine."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


def now_ms() -> int:
    """Return milliseconds since 1970 on this machine. Where it matters, Redis uses its own clock."""
    return time.time_ns() // 1_000_000


def now_us() -> int:
    """Return microseconds since 1970 on this machine."""
    return time.time_ns() // 1000
