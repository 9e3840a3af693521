"""The events that report an operation's changes: their policies, and the ids that repeat on a
retry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from eventbus.clock import now_us
from eventbus.events.event import Event
from eventbus.operations.events import (
    OperationCancelled,
    OperationCancelling,
    OperationFailed,
    OperationLost,
    OperationProgress,
    OperationResumed,
    OperationStarted,
    OperationSucceeded,
    TaskFailed,
)
from eventbus.protocol.ids import event_id
from eventbus.protocol.policy import Policy

__all__ = ["EVENT_POLICIES", "EventStamp", "event_stamp"]

_REPORTED: Final[tuple[type[Event], ...]] = (
    OperationStarted,
    OperationProgress,
    OperationLost,
    OperationResumed,
    OperationCancelling,
    OperationSucceeded,
    OperationFailed,
    OperationCancelled,
    TaskFailed,
)

EVENT_POLICIES: Final[Mapping[str, Policy]] = {cls.policy().name: cls.policy() for cls in _REPORTED}
"""Event type -> policy, of the events that Redis or the memory backend publishes when it counts a
transition.
"""


@dataclass(frozen=True, slots=True)
class EventStamp:
    """Id and time of the events that report an operation's changes. The backend knows the rest.

    Attributes:
        id: id of the batch. The events' ids begin with it, so a batch that is sent again is
            published once.
        emitted: microseconds since 1970.
        label: the operation's label; empty: no change.
    """

    id: str
    emitted: int
    label: str


def event_stamp(label: str) -> EventStamp:
    """Make a stamp with a new id and the present time.

    Args:
        label: the operation's label; empty: no change.

    Returns:
        The stamp.
    """
    return EventStamp(event_id(), now_us(), label)
