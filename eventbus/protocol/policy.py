"""How an event is delivered: declared in its class, and read everywhere from there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

__all__ = ["LANES", "Deliver", "Keep", "Lane", "Policy", "lane_number"]

Lane = Literal["high", "normal", "low"]
Keep = Literal["log", "latest", "nothing"]
Deliver = Literal["live", "ack"]

LANES: Final[tuple[Lane, Lane, Lane]] = ("high", "normal", "low")


def lane_number(lane: Lane) -> int:
    """Return 0 for high, 1 for normal, 2 for low.

    Args:
        lane: name of the lane.
    """
    return LANES.index(lane)


@dataclass(frozen=True, slots=True)
class Policy:
    """Delivery policy of one event class.

    Attributes:
        name: the type on the wire, such as ``document.indexed``.
        lane: urgency across topics. Order within a topic never changes.
        keep: ``log`` events are never conflated, and never dropped within their ttl. Of ``latest`` events only the
            newest per key matters. ``nothing`` is for connected users only.
        ttl: how long the event is worth delivering; None: the default of its channel's kind.
        key: payload fields that, with topic and name, make the conflation key of a ``latest`` event.
        deliver: ``ack`` marks an event that its user has to acknowledge.
        integers: payload fields that hold an integer or None; None: integers may be anywhere in the payload.
    """

    name: str
    lane: Lane = "normal"
    keep: Keep = "log"
    ttl: timedelta | None = None
    key: tuple[str, ...] = ()
    deliver: Deliver = "live"
    integers: tuple[str, ...] | None = None

    @property
    def ttl_seconds(self) -> float | None:
        """The ttl in seconds, or None."""
        return None if self.ttl is None else self.ttl.total_seconds()
