"""Batches whose shard does not answer, while others do. They are set aside, so that they hold up no other shard. Pure.

A channel with a request here is blocked: its later entries stay in the queue, in their order and within its bounds. So
a few batches at most are here, however long a shard is down.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from eventbus.outbox.entries import Entry
from eventbus.outbox.in_flight import InFlightBatch
from eventbus.protocol.topics import channel_of

__all__ = ["BlockedBatches"]

# Seconds between two attempts at a shard that does not answer. They cost nothing at the other shards.
_PAUSE: Final = 0.2


class BlockedBatches:
    """Batches that wait for their shard, each with the time of its next attempt.

    Args:
        limit: entries, at most.
        on_disk: returns whether an entry of a topic waits on disk.
        block: called with a function that returns whether a topic is blocked, whenever that may have changed; with
            None if no topic is.
    """

    def __init__(
        self, limit: int, on_disk: Callable[[str], bool], block: Callable[[Callable[[str], bool] | None], None]
    ) -> None:
        self._limit = limit
        self._on_disk = on_disk
        self._block = block
        self._waiting: deque[tuple[float, InFlightBatch]] = deque()
        self._channels: frozenset[str] = frozenset()
        self._reaches: Callable[[str], bool] = lambda _: True
        self._applied: tuple[object, ...] = ()

    def __len__(self) -> int:
        """Number of entries."""
        return sum(len(members) for _, batch in self._waiting for members in batch.members)

    def __contains__(self, batch: InFlightBatch) -> bool:
        """Whether a batch is here."""
        return any(one is batch for _, one in self._waiting)

    @property
    def from_spool(self) -> bool:
        """Whether entries of the disk are here. Nothing more is read from the disk meanwhile."""
        return any(batch.from_spool for _, batch in self._waiting)

    @property
    def entries(self) -> Iterator[Entry]:
        """All entries, in order."""
        return (entry for _, batch in self._waiting for entry in batch.entries)

    def blocks(self, topic: str) -> bool:
        """Return whether entries of a topic have to wait for older ones that are here.

        Args:
            topic: the topic.
        """
        channel = channel_of(topic)
        return channel in self._channels or not self._reaches(channel) or (self.from_spool and self._on_disk(topic))

    def add(self, batch: InFlightBatch, now: float, reaches: Callable[[str], bool], version: int) -> bool:
        """Set a batch aside after a failed attempt.

        Args:
            batch: its requests failed, since their shard does not answer.
            now: monotonic time.
            reaches: returns whether the shard of a channel answered last time.
            version: grows when ``reaches`` may answer otherwise.

        Returns:
            False if there is no room: then the batch is not here.
        """
        if batch not in self and len(self) + len(batch.entries) > self._limit:
            return False
        self._waiting = deque((*self._others(batch), (now + _PAUSE, batch)))
        self._reaches = reaches
        self.apply(version)
        return True

    def remove(self, batch: InFlightBatch) -> None:
        """Forget a batch that is settled. Does nothing if it is not here.

        Args:
            batch: the batch.
        """
        if batch in self:
            self._waiting = deque(self._others(batch))
            self.apply()

    def move_to_disk(self) -> list[Entry]:
        """Forget the batches that exist in memory only. The caller writes them to the disk, and calls ``apply``.

        Returns:
            Their entries, in order.
        """
        moved = [batch for _, batch in self._waiting if not batch.from_spool]
        for batch in moved:
            batch.spooled = True
        self._waiting = deque(one for one in self._waiting if one[1].from_spool)
        return [entry for batch in moved for entry in batch.entries]

    def clear(self) -> None:
        """Forget all."""
        self._waiting.clear()
        self.apply()

    def due_in(self, now: float) -> float | None:
        """Return the seconds until the next attempt; None: nothing is here.

        Args:
            now: monotonic time.
        """
        return self._waiting[0][0] - now if self._waiting else None

    def due(self, now: float) -> InFlightBatch | None:
        """Return the batch to try again now. It stays here, so that its channels stay blocked.

        Args:
            now: monotonic time.

        Returns:
            The batch; None: none is due.
        """
        return self._waiting[0][1] if self._waiting and self._waiting[0][0] <= now else None

    def apply(self, version: int | None = None) -> None:
        """Have ``block`` called.

        Args:
            version: not called if this and the blocked channels are as before; None: called in any case.
        """
        self._channels = frozenset(request.channel for _, batch in self._waiting for request in batch.requests)
        applied = (self._channels, self.from_spool, version)
        if version is None or applied != self._applied:
            self._applied = applied
            self._block(self.blocks if self._waiting else None)

    def _others(self, batch: InFlightBatch) -> Iterator[tuple[float, InFlightBatch]]:
        return (one for one in self._waiting if one[1] is not batch)
