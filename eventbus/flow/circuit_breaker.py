"""A circuit breaker: whether Redis is known to be away, and when it is worth another try. Pure; time is an argument.

Closed while Redis answers. Open after some failures in a row, or when failing has lasted for a while (a silent server
takes its time to fail once): then nobody waits for Redis. The one who tries again pauses before, with full jitter.
"""

from __future__ import annotations

__all__ = ["CircuitBreaker"]


class CircuitBreaker:
    """Seconds throughout.

    Attributes:
        failures: in a row; 0 while Redis answers.
    """

    def __init__(self, failures: int, after: float, pause_min: float, pause_max: float) -> None:
        """Opens after ``failures`` in a row, or ``after`` seconds of failing; pauses double from min to max."""
        self._limit = failures
        self._after = after
        self._pause_min = pause_min
        self._pause_max = pause_max
        self.failures = 0
        self._since: float | None = None
        self._open = False

    @property
    def open(self) -> bool:
        """Whether Redis is known to be away."""
        return self._open

    def failed(self, began: float, now: float, chance: float) -> float:
        """A try that ``began`` has failed ``now``. The pause before the next, by ``chance`` from 0 to 1."""
        self.failures += 1
        if self._since is None:
            self._since = began
        self._open = self.failures >= self._limit or now - self._since >= self._after
        ceiling: float = min(self._pause_max, self._pause_min * 2 ** min(self.failures, 32))
        return chance * ceiling

    def succeeded(self) -> None:
        """Redis answers."""
        self.failures = 0
        self._since = None
        self._open = False
