"""How an event is delivered. It is written once, in the event's class, and known everywhere from there."""

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
    """0 for high, 1 for normal, 2 for low."""
    return LANES.index(lane)


@dataclass(frozen=True, slots=True)
class Policy:
    """Delivery policy of one event class.

    Attributes:
        name: the type on the wire, such as ``document.indexed``.
        lane: urgency across topics; order within a topic is never touched.
        keep: ``log`` is never merged or dropped within its ttl; of ``latest`` only the newest per key matters;
            ``nothing`` is for those who are there.
        ttl: how long the event is worth delivering, or None for the default of its channel's kind.
        key: payload fields that, with topic and name, make the conflation key of a ``latest`` event.
        deliver: ``ack`` marks an event that must reach a person.
    """

    name: str
    lane: Lane = "normal"
    keep: Keep = "log"
    ttl: timedelta | None = None
    key: tuple[str, ...] = ()
    deliver: Deliver = "live"

    @property
    def ttl_seconds(self) -> float | None:
        """The ttl in seconds, or None."""
        return None if self.ttl is None else self.ttl.total_seconds()
