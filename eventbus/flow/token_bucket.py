"""A token bucket: a rate in the long run, and a burst. Pure: time is an argument, in seconds."""

from __future__ import annotations

__all__ = ["TokenBucket"]


class TokenBucket:
    """Fills with ``per_second`` tokens a second, up to its burst.

    Args:
        per_second: the rate; more than 0.
        now: monotonic time. The bucket is full then.
        burst: the most tokens that it holds, at least one. None: one second's worth.

    Attributes:
        per_second: the rate; more than 0.
    """

    __slots__ = ("_burst", "_level", "_then", "per_second")

    def __init__(self, per_second: float, now: float, burst: float | None = None) -> None:
        self.per_second = per_second
        self._burst = self._level = max(per_second if burst is None else burst, 1.0)
        self._then = now

    def level(self, now: float) -> float:
        """Return the number of tokens.

        Args:
            now: monotonic time. Earlier than before: no time has passed.
        """
        self._level = min(self._burst, self._level + max(0.0, now - self._then) * self.per_second)
        self._then = now
        return self._level

    def wait(self, now: float) -> float:
        """Return the seconds until a token is there; 0: one can be taken now.

        Args:
            now: monotonic time.
        """
        level = self.level(now)
        return 0.0 if level >= 1.0 else (1.0 - level) / self.per_second

    def spend(self) -> None:
        """Take the token that ``wait`` has allowed."""
        self._level -= 1.0

    def take(self, now: float) -> float:
        """Take one token if there is one.

        Args:
            now: monotonic time.

        Returns:
            0, or the seconds until one is there. Then nothing was taken.
        """
        wait = self.wait(now)
        if not wait:
            self.spend()
        return wait

    def take_many(self, number: int, now: float) -> int:
        """Take as many tokens as there are.

        Args:
            number: at most so many.
            now: monotonic time.

        Returns:
            How many were taken.
        """
        taken = min(number, int(self.level(now)))
        self._level -= taken
        return taken

    def charge(self, amount: float, now: float) -> float:
        """Take tokens, and go into debt if there are too few.

        Args:
            amount: how many.
            now: monotonic time.

        Returns:
            The seconds until the debt is paid; 0: there is none.
        """
        level = self._level = self.level(now) - amount
        return -level / self.per_second if level < 0 else 0.0

    def is_full(self, now: float) -> bool:
        """Return whether the bucket is as if nothing had ever been taken.

        Args:
            now: monotonic time.
        """
        return self.level(now) >= self._burst
