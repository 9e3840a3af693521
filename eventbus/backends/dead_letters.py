"""Dead letters: events that could not be delivered or were not acknowledged in time. An operator
decides about them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eventbus.errors import InvalidRecord
from eventbus.protocol.records import Record, parse_record

__all__ = ["DeadLetter", "DeathReason", "parse_dead"]


DeathReason = Literal["expired", "attempts", "full", "undecodable", "too_large", "unknown_type", "invalid"]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that will not be delivered unless an operator requeues it.

    Attributes:
        channel: the event's channel; ``user:42`` for a user.
        id: the event's id, or one made from the bytes if they are no event.
        reason: why it is a dead letter; usually one of ``DeathReason``.
        attempts: number of redeliveries.
        first: first publication, in milliseconds since 1970.
        died: time at which it became a dead letter, in milliseconds since 1970.
        requeues: number of times that an operator requeued it.
        record: the event; None if the bytes are no event.
        readable: the content as text.
    """

    channel: str
    id: str
    reason: str
    attempts: int
    first: int
    died: int
    requeues: int
    record: Record | None
    readable: str

    @property
    def type(self) -> str:
        """The event's type; empty if the bytes are no event."""
        return "" if self.record is None else self.record.type


def parse_dead(channel: str, id_: str, entry: bytes) -> DeadLetter:
    """Parse an entry of the dead letters.

    Args:
        channel: the channel of the entry.
        id_: the entry's id.
        entry: the entry: a line of fields, then the content.

    Returns:
        The dead letter.

    Raises:
        InvalidRecord: the first line is not one that this library writes.
    """
    first_line, _, content = entry.partition(b"\n")
    try:
        reason, attempts, first, died, requeues = first_line.decode().split()
        numbers = int(attempts), int(first), int(died), int(requeues)
    except ValueError as error:
        raise InvalidRecord(f"cannot parse dead letter {id_}: it begins with {first_line[:100]!r}: {error}") from None
    header, _, event = content.partition(b"\n")
    try:
        record: Record | None = parse_record(header, event)
    except InvalidRecord:
        record = None
    shown = content if record is None else event
    return DeadLetter(channel, id_, reason, *numbers, record, shown.decode("utf-8", "replace"))
