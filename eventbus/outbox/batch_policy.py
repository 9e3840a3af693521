"""When the outbox sends a batch, and how large the batch is. Pure: time is an argument, in seconds."""

from __future__ import annotations

from typing import Final

__all__ = ["BatchPolicy"]

# An urgent event waits for the batch in flight. So batches are shorter by this factor for some seconds after one.
_URGENT_FACTOR: Final = 4
_URGENT_SECONDS: Final = 5.0


class BatchPolicy:
    """Lets entries linger, so that a stream of events goes out in batches; urgent entries go immediately.

    A single event that follows a quiet time does not linger: the pause is measured from the last batch.

    Args:
        linger: least time between two batches, in seconds.
        batch_events: entries in a batch, at most.
    """

    def __init__(self, linger: float, batch_events: int) -> None:
        self._linger = linger
        self._batch_events = batch_events
        self._urgent_until = float("-inf")
        self._last_batch = 0.0
        self.hurry = False

    def urgent_event(self, now: float) -> None:
        """Note an event of the high lane: the next batch goes immediately, and batches become shorter.

        Args:
            now: monotonic time of the event.
        """
        self.hurry = True
        self._urgent_until = now + _URGENT_SECONDS

    def flush_requested(self) -> None:
        """Note that a caller waits for the outbox to empty: the next batch goes immediately."""
        self.hurry = True

    def is_full(self, waiting: int) -> bool:
        """Return whether the entries that wait fill a batch.

        Args:
            waiting: number of entries in memory.
        """
        return waiting >= self._batch_events

    def limit(self, now: float) -> int:
        """Return how many entries the next batch may have.

        Args:
            now: monotonic time.
        """
        return max(1, self._batch_events // _URGENT_FACTOR) if now < self._urgent_until else self._batch_events

    def taken(self, now: float, *, entries: int, waiting: int) -> None:
        """Note that a batch was taken.

        Args:
            now: monotonic time.
            entries: size of the batch; an empty one does not count as a batch.
            waiting: number of entries that remain in memory.
        """
        if not waiting:
            self.hurry = False
        if entries:
            self._last_batch = now

    def pause(self, now: float, waiting: int) -> float:
        """Return the seconds until the next batch may go; 0 or less: now.

        Args:
            now: monotonic time.
            waiting: number of entries in memory.
        """
        return 0.0 if self.hurry or waiting >= self._batch_events else self._last_batch + self._linger - now
