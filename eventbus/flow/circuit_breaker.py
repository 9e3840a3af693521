"""A circuit breaker: whether Redis is known to be down, and when to try again. Pure: time is an argument, in seconds.

It is closed while Redis answers. It opens after some failures in a row, or when failures have lasted for a while: a
silent server takes a long time to fail once. While it is open, no caller waits for Redis. The background thread keeps
trying, with a pause before each attempt.
"""

from __future__ import annotations

from eventbus.flow.backoff import ceiling

__all__ = ["CircuitBreaker"]


class CircuitBreaker:
    """Counts failures in a row.

    Args:
        failures: opens after so many failures in a row.
        after: opens after so many seconds of failures.
        pause_min: the base of the pauses, in seconds. They double with each failure.
        pause_max: the longest pause, in seconds.

    Attributes:
        failures: failures in a row; 0 while Redis answers.
    """

    def __init__(self, failures: int, after: float, pause_min: float, pause_max: float) -> None:
        self._limit = failures
        self._after = after
        self._pause_min = pause_min
        self._pause_max = pause_max
        self.failures = 0
        self._since: float | None = None
        self._open = False

    @property
    def open(self) -> bool:
        """Whether Redis is known to be down."""
        return self._open

    def failed(self, began: float, now: float, chance: float) -> float:
        """Note a failed attempt.

        Args:
            began: when the attempt began.
            now: when it failed.
            chance: a random number from 0 to 1.

        Returns:
            The pause before the next attempt.
        """
        self.failures += 1
        if self._since is None:
            self._since = began
        self._open = self.failures >= self._limit or now - self._since >= self._after
        return chance * ceiling(self.failures, self._pause_min, self._pause_max)

    def succeeded(self) -> None:
        """Note that Redis answers."""
        self.failures = 0
        self._since = None
        self._open = False
