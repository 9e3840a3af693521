"""Where events go: which of them an assertion is about."""

from __future__ import annotations

from dataclasses import dataclass, fields

from eventbus.events.event import Event
from eventbus.protocol.topics import check_pattern, matches
from eventbus.testing.captured_event import CapturedEvent

__all__ = ["Address"]


@dataclass(frozen=True, slots=True)
class Address:
    """What is None does not matter. ``topic`` may end in ``*``, as a subscription's."""

    user: str | None = None
    op: str | None = None
    collection: str | None = None
    topic: str | None = None

    def __post_init__(self) -> None:
        if self.topic is not None:
            check_pattern(self.topic)

    def covers(self, emitted: CapturedEvent[Event]) -> bool:
        """Whether an event went there."""
        return (
            self.user in (None, emitted.user)
            and self.op in (None, emitted.op)
            and self.collection in (None, emitted.collection)
            and (self.topic is None or matches(self.topic, emitted.topic))
        )

    def within(self, other: Address) -> Address:
        """This address where it says something, else the other."""
        return Address(*(getattr(self, part.name) or getattr(other, part.name) for part in fields(Address)))

    def __str__(self) -> str:
        named = {part.name: getattr(self, part.name) for part in fields(Address)}
        return ", ".join(f"{name} {value}" for name, value in named.items() if value is not None)
