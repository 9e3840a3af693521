"""Dead letters: events that no page acknowledged in time, kept for an operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eventbus.errors import InvalidRecord
from eventbus.protocol.records import Record, parse_record

__all__ = ["DeadLetter", "DeathReason", "parse_dead"]


DeathReason = Literal["expired", "attempts", "full", "undecodable", "too_large", "unknown_type", "invalid"]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event given up on.

    Attributes:
        channel: whose it was; ``user:42`` for a user's.
        id: of the event, or of the bytes where no event could be read.
        reason: why.
        attempts: how often it was sent again.
        first, died: milliseconds since 1970.
        requeues: how often a person has sent it again.
        record: the event; None where none could be read.
        readable: the beginning of what there is, as text.
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
        """The event's type; empty where none could be read."""
        return "" if self.record is None else self.record.type


def parse_dead(channel: str, id_: str, entry: bytes) -> DeadLetter:
    """Read an entry of the dead letters.

    Raises:
        InvalidRecord: it was not written by this library.
    """
    first_line, _, content = entry.partition(b"\n")
    try:
        reason, attempts, first, died, requeues = first_line.decode().split()
        numbers = int(attempts), int(first), int(died), int(requeues)
    except ValueError as error:
        raise InvalidRecord(f"dead letter {id_} begins with {first_line[:100]!r}: {error}") from None
    header, _, event = content.partition(b"\n")
    try:
        record: Record | None = parse_record(header, event)
    except InvalidRecord:
        record = None
    shown = content if record is None else event
    return DeadLetter(channel, id_, reason, *numbers, record, shown.decode("utf-8", "replace"))
