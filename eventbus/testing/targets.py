"""Addresses of events: an assertion is about the events of one address."""

from __future__ import annotations

from dataclasses import dataclass, fields

from eventbus.events.event import Event
from eventbus.protocol.topics import check_pattern, matches
from eventbus.testing.captured_event import CapturedEvent

__all__ = ["Address"]


@dataclass(frozen=True, slots=True)
class Address:
    """An address. None means any.

    Attributes:
        user: id of the user.
        op: id of the operation.
        collection: id of the collection.
        topic: a topic, or a pattern that ends in ``*``.
    """

    user: str | None = None
    op: str | None = None
    collection: str | None = None
    topic: str | None = None

    def __post_init__(self) -> None:
        if self.topic is not None:
            check_pattern(self.topic)

    def covers(self, emitted: CapturedEvent[Event]) -> bool:
        """Return whether an event went to this address.

        Args:
            emitted: a captured event.
        """
        return (
            self.user in (None, emitted.user)
            and self.op in (None, emitted.op)
            and self.collection in (None, emitted.collection)
            and (self.topic is None or matches(self.topic, emitted.topic))
        )

    def within(self, other: Address) -> Address:
        """Return this address, completed by another one.

        Args:
            other: used where this address has None.
        """
        return Address(*(getattr(self, part.name) or getattr(other, part.name) for part in fields(Address)))

    def __str__(self) -> str:
        named = {part.name: getattr(self, part.name) for part in fields(Address)}
        return ", ".join(f"{name} {value}" for name, value in named.items() if value is not None)
