"""What a change of an operation publishes."""

from __future__ import annotations

from dataclasses import dataclass

from eventbus.clock import now_us
from eventbus.protocol.ids import event_id

__all__ = ["EventStamp", "event_stamp"]


@dataclass(frozen=True, slots=True)
class EventStamp:
    """What the events need with which an operation's changes are told; all else is known where the count is made.

    Attributes:
        id: of the batch; the events' ids begin with it, so that a batch that is sent again is told once.
        emitted: microseconds since 1970.
        label: of the operation; empty: as it is.
    """

    id: str
    emitted: int
    label: str


def event_stamp(label: str) -> EventStamp:
    """What an operation's changes are told with, as of now."""
    return EventStamp(event_id(), now_us(), label)
