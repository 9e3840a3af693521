"""Letters: events that a person has to get. What is owed, what was given up on, and the port to where it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from eventbus.backends.dead_letters import DeathReason
from eventbus.protocol.cursor import Position
from eventbus.protocol.records import Record

__all__ = [
    "DeliveryStatus",
    "PendingBatch",
    "PendingStore",
    "RedeliveryResult",
    "Sweep",
    "Totals",
    "read_delivery_status",
]


DeliveryStatus = Literal["pending", "acked", "dead", "unknown"]
"""What has become of an event that a user is owed. ``unknown``: not published (yet), or nobody remembers."""


@dataclass(frozen=True, slots=True)
class PendingBatch:
    """What a user is owed, in the order in which it is to be handed over.

    Attributes:
        position: where the channel stands; the records' offsets are of that epoch.
        more: whether this is only the beginning of it.
    """

    position: Position
    records: Sequence[Record]
    more: bool


@dataclass(frozen=True, slots=True)
class RedeliveryResult:
    """Answer to "send these again": when each is due next (ms since 1970; 0: it is pending no more); how many died."""

    next_ms: Sequence[int]
    dead_lettered: int


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep of one channel found. Times are milliseconds since 1970, 0 where there is none.

    Attributes:
        fenced: a sweeper with a newer lease was here; nothing was done.
        buried: pending entries that had expired.
        released: dead letters that nobody decided about in time.
        pending, dead: how many are left.
        oldest_pending, oldest_dead: since when.
        next_check: when to look again; 0: nothing is left.
        pending_change, dead_change: since the last sweep.
    """

    fenced: bool
    dead_lettered: int
    released: int
    pending: int
    oldest_pending: int
    dead: int
    oldest_dead: int
    next_check: int
    pending_change: int
    dead_change: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Over all channels: how many, and when the oldest dead letter died (milliseconds since 1970; 0: there is none)."""

    pending: int
    dead: int
    oldest_dead: int


def read_delivery_status(*, acked: bool, dead: bytes | None, pending: bool) -> tuple[DeliveryStatus, str]:
    """What has become of an event, and why it died if it did."""
    if acked:
        return "acked", ""
    if dead is not None:
        return "dead", dead.split(b" ", 1)[0].decode()
    return ("pending" if pending else "unknown"), ""


class PendingStore(Protocol):
    """Where the lists are kept, from an event loop. Every method raises Unavailable or Refused."""

    async def fetch(self, channel: str) -> PendingBatch:
        """What a user is owed. What was owed in another life of the channel is published again by it."""

    async def ack(self, channel: str, ids: Sequence[str]) -> int:
        """A browser has these. Returns how many were pending."""

    async def ack_upto(self, channel: str, position: Position) -> int:
        """A browser has everything up to there. Returns how many were pending."""

    async def redeliver(self, channel: str, ids: Sequence[str]) -> RedeliveryResult:
        """Send once more what is due; what was sent too often dies."""

    async def dead_letter(self, channel: str, id: str, reason: DeathReason, content: bytes) -> bool:
        """Keep what cannot be delivered. False: it was there already."""
