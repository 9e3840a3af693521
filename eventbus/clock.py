"""Clocks: monotonic time for deadlines, the server's time for what processes compare. A test passes its own ``Clock``.

The calendar of a machine may be wrong, and an operator may set it. So it is only shown, never compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

__all__ = ["Clock", "ServerClock", "SystemClock", "now_ms", "now_us", "steady_ms"]

_STEADY_EPOCH: Final = time.time_ns() - time.monotonic_ns()


class Clock(Protocol):
    """Both kinds of time, for parts that take their clock as an argument."""

    def now(self) -> float:
        """Return monotonic seconds: they only go forward, whatever the calendar does."""

    def wall(self) -> float:
        """Return seconds since 1970."""

    def server_ms(self) -> int:
        """Return the server's milliseconds since 1970."""


class SystemClock:
    """The clocks of this machine and of Redis.

    Args:
        server: the clock of Redis; default: this process is its own server.
    """

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    def __init__(self, server: ServerClock | None = None) -> None:
        self.server_ms = (server or ServerClock()).now_ms


def steady_ms() -> int:
    """Return milliseconds since 1970 as this process knew them when it started. They only go forward."""
    return (_STEADY_EPOCH + time.monotonic_ns()) // 1_000_000


class ServerClock:
    """The clock of Redis, as of its last answer. All processes compare expiries and leases by it.

    Between two answers it advances with the monotonic clock, whatever happens to the calendar of this machine.

    Args:
        steady: milliseconds that only go forward.

    Attributes:
        ahead_ms: milliseconds by which Redis is ahead of ``steady``; 0 before its first answer.
    """

    def __init__(self, steady: Callable[[], int] = steady_ms) -> None:
        self._steady = steady
        self.ahead_ms = 0

    def observe(self, reply: Sequence[bytes]) -> int:
        """Take an answer.

        Args:
            reply: the reply to ``TIME``.

        Returns:
            The server's milliseconds since 1970.
        """
        seconds, microseconds = reply
        server = int(seconds) * 1000 + int(microseconds) // 1000
        self.ahead_ms = server - self._steady()
        return server

    def now_ms(self) -> int:
        """Return the server's milliseconds since 1970."""
        return self._steady() + self.ahead_ms


def now_ms() -> int:
    """Return milliseconds since 1970 on this machine, to show them."""
    return time.time_ns() // 1_000_000


def now_us() -> int:
    """Return microseconds since 1970 on this machine."""
    return time.time_ns() // 1000
