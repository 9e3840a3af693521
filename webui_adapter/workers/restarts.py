"""When a worker process that has ended starts again. No I/O; time is an argument."""

from __future__ import annotations

from eventbus.flow.backoff import ceiling

__all__ = ["RestartPolicy"]


class RestartPolicy:
    """The pauses before the restarts of one worker.

    A worker that ran for a while starts again immediately. The pause doubles with each start that fails soon.

    Args:
        steady: seconds after which a start counts as successful.
        first: seconds of the second pause; there is no pause before the first restart.
        longest: seconds at most.
    """

    def __init__(self, *, steady: float = 10.0, first: float = 0.25, longest: float = 10.0) -> None:
        self._steady = steady
        self._first = first
        self._longest = longest
        self._started = 0.0
        self.failures = 0

    def started(self, now: float) -> None:
        """Note a start.

        Args:
            now: monotonic time.
        """
        self._started = now

    def ended(self, now: float) -> float:
        """Note an end that was not asked for.

        Args:
            now: monotonic time.

        Returns:
            Seconds to wait before the next start.
        """
        self.failures = 0 if now - self._started >= self._steady else self.failures + 1
        return 0.0 if self.failures < 2 else ceiling(self.failures - 2, self._first, self._longest)
