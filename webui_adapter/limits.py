"""Rates, as a token bucket. Time is an argument."""

from __future__ import annotations

__all__ = ["Rate"]


class Rate:
    """At most ``per_second`` on the long run, and as many at once."""

    __slots__ = ("_level", "_per_second", "_then")

    def __init__(self, per_second: float, now: float) -> None:
        self._per_second = per_second
        self._level = max(per_second, 1.0)
        self._then = now

    def take(self, now: float) -> float:
        """Take one. Returns 0, or the seconds after which it would have been allowed (nothing is taken then)."""
        full = max(self._per_second, 1.0)
        self._level = min(full, self._level + max(0.0, now - self._then) * self._per_second)
        self._then = now
        if self._level >= 1.0:
            self._level -= 1.0
            return 0.0
        return (1.0 - self._level) / self._per_second
