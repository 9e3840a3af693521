"""Pending events: events that a user must acknowledge. The port to their store, and the results of
its methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, runtime_checkable

from eventbus.backends.dead_letters import DeathReason
from eventbus.protocol.cursor import Position
from eventbus.protocol.records import Record

__all__ = [
    "ACKED_LIMIT",
    "LONGEST_PAUSE_MS",
    "TOMBSTONES_SPARED",
    "DeliveryStatus",
    "PendingBatch",
    "PendingStore",
    "RedeliveryResult",
    "Sweep",
    "SweepStore",
    "Totals",
    "read_delivery_status",
]

ACKED_LIMIT: Final = 1_000
"""Acknowledged ids of a channel that the store remembers."""

LONGEST_PAUSE_MS: Final = 3_600_000
"""Milliseconds that redelivery waits at most; the pause doubles with each attempt up to here."""

TOMBSTONES_SPARED: Final = 64
"""Tombstones of a list that stay in any case. More of them may not outnumber the ids with an entry."""

DeliveryStatus = Literal["pending", "acked", "dead", "unknown"]
"""Status of an event that needs an acknowledgement. ``unknown``: not published yet, or forgotten
since.
"""


@dataclass(frozen=True, slots=True)
class PendingBatch:
    """Pending events of a user in the order of delivery.

    Attributes:
        position: the channel's end; the records' offsets belong to its epoch.
        records: the events.
        more: whether the user has more pending events than these.
    """

    position: Position
    records: Sequence[Record]
    more: bool


@dataclass(frozen=True, slots=True)
class RedeliveryResult:
    """Result of a redelivery.

    Attributes:
        next_ms: next delivery of each event (milliseconds since 1970; 0: no longer pending).
        dead_lettered: number of events that became dead letters.
    """

    next_ms: Sequence[int]
    dead_lettered: int


@dataclass(frozen=True, slots=True)
class Sweep:
    """Result of a sweep of one channel. Times are milliseconds since 1970, 0 for none.

    Attributes:
        fenced: a sweeper with a newer lease was here, so this one did nothing.
        dead_lettered: number of pending events that had expired and became dead letters.
        released: number of dead letters that were removed because their time was over.
        pending: number of pending events that are left.
        oldest_pending: first publication of the oldest one.
        dead: number of dead letters that are left.
        oldest_dead: death of the oldest one.
        next_sweep: when to sweep again; 0: nothing is left.
        pending_change: change of ``pending`` since the last sweep.
        dead_change: change of ``dead`` since the last sweep.
    """

    fenced: bool
    dead_lettered: int
    released: int
    pending: int
    oldest_pending: int
    dead: int
    oldest_dead: int
    next_sweep: int
    pending_change: int
    dead_change: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Numbers of all channels together.

    Attributes:
        pending: number of pending events.
        dead: number of dead letters.
        oldest_dead: death of the oldest dead letter (milliseconds since 1970; 0: there is none).
    """

    pending: int
    dead: int
    oldest_dead: int


def read_delivery_status(*, acked: bool, dead: bytes | None, pending: bool) -> tuple[DeliveryStatus, str]:
    """Derive an event's status.

    Args:
        acked: whether a client acknowledged it.
        dead: its entry in the dead letters, or None.
        pending: whether it is pending.

    Returns:
        The status, and the reason of a dead letter, else an empty text.
    """
    if acked:
        return "acked", ""
    if dead is not None:
        return "dead", dead.split(b" ", 1)[0].decode()
    return ("pending" if pending else "unknown"), ""


class PendingStore(Protocol):
    """The pending events of users, for an event loop. Every method raises ``Unavailable`` or
    ``Refused``.
    """

    async def fetch(self, channel: str) -> PendingBatch:
        """Read a user's pending events. The store publishes those of an earlier epoch again in the
        present one.

        Args:
            channel: the user's channel.

        Returns:
            The events, or the first of them.
        """

    async def ack(self, channel: str, ids: Sequence[str]) -> int:
        """Acknowledge events by id.

        Args:
            channel: the user's channel.
            ids: ids of the events.

        Returns:
            The number of them that were pending.
        """

    async def ack_upto(self, channel: str, position: Position) -> int:
        """Acknowledge all events up to a position.

        Args:
            channel: the user's channel.
            position: the last acknowledged position. One of another epoch has no effect.

        Returns:
            The number of them that were pending.
        """

    async def redeliver(self, channel: str, ids: Sequence[str]) -> RedeliveryResult:
        """Publish events again that are due. An event with too many attempts becomes a dead letter.

        Args:
            channel: the user's channel.
            ids: ids of the events.

        Returns:
            When each is due next.
        """

    async def dead_letter(self, channel: str, id: str, reason: DeathReason, content: bytes) -> bool:
        """Keep an event that cannot be delivered.

        Args:
            channel: the event's channel.
            id: the event's id, or one made from the bytes.
            reason: why it cannot be delivered.
            content: the record, or the bytes that could be read.

        Returns:
            False if the dead letter exists already.
        """


@runtime_checkable
class SweepStore(Protocol):
    """The pending events and dead letters of all channels, for the sweeper.

    Every method raises ``Unavailable`` or ``Refused``.
    """

    async def lease(self, instance: str, seconds: float) -> int | None:
        """Take or renew the sweeper's lease.

        Args:
            instance: name of this instance.
            seconds: length of the lease.

        Returns:
            The lease's fencing token; None while another instance has the lease.
        """

    async def due(self, limit: int) -> Sequence[str]:
        """List channels that need a sweep now, the longest overdue first.

        Args:
            limit: maximum number of channels.

        Returns:
            The channels.
        """

    async def sweep(self, channel: str, token: int) -> Sweep:
        """Sweep one channel: dead-letter its expired events, and remove dead letters whose time is
        over.

        Args:
            channel: the channel.
            token: the lease's fencing token.

        Returns:
            The result of the sweep.
        """

    async def totals(self) -> Totals:
        """Return the numbers of all channels, as of their last sweeps."""
