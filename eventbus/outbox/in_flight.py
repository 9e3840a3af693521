"""Entries that were taken to be sent: as the buffer keeps them, and grouped into requests as the sender does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from eventbus.backends.ports import Request
from eventbus.outbox.entries import Entry, group

__all__ = ["InFlight", "InFlightBatch"]


@dataclass(slots=True)
class InFlight:
    """Entries that were taken out of memory to be sent and are not settled.

    Attributes:
        entries: those that exist in memory only, in order.
        spooled: whether the batch moved to the disk meanwhile. Its sender gives up then; the disk sends it again.
    """

    entries: list[Entry] = field(default_factory=list)
    spooled: bool = False

    def take(self, entries: list[Entry]) -> None:
        """Replace the batch by the next one.

        Args:
            entries: the next batch.
        """
        self.entries = entries
        self.spooled = False

    def clear(self) -> None:
        """Note that nothing is in flight."""
        self.take([])

    def moved_to_disk(self, remaining: list[Entry]) -> None:
        """Note that the batch is on disk, except for some entries.

        Args:
            remaining: those that exist in memory only.
        """
        self.entries = remaining
        self.spooled = not remaining


@dataclass(slots=True, eq=False)
class InFlightBatch:
    """A batch that was taken to be sent.

    Attributes:
        requests: what is not settled yet.
        members: the entries of each request.
        from_spool: how many entries were read from the spool.
        spooled: whether its entries moved to the disk while it was set aside. Its sender gives up then.
    """

    requests: list[Request]
    members: list[list[Entry]]
    from_spool: int = 0
    spooled: bool = False

    @classmethod
    def of(cls, batch: Sequence[Entry], from_spool: int = 0) -> InFlightBatch:
        """Group entries into requests.

        Args:
            batch: entries in order.
            from_spool: how many of them were read from the spool.

        Returns:
            The batch.
        """
        return cls(*group(batch), from_spool)

    @property
    def entries(self) -> list[Entry]:
        """The entries of all requests, in order."""
        return [entry for members in self.members for entry in members]
