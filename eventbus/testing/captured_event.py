"""An event as it was sent: the payload and its topic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from pydantic import ValidationError

from eventbus.events.event import Event
from eventbus.events.registry import registry
from eventbus.events.round_trip import read_json
from eventbus.protocol.topics import SYSTEM

__all__ = ["CapturedEvent", "UnknownEvent", "emitted_of", "read_event"]

E_co = TypeVar("E_co", bound=Event, covariant=True)


class UnknownEvent(Event):
    """An event whose class this process does not know, or whose content does not fit it."""

    type: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CapturedEvent(Generic[E_co]):
    """An event as it was sent.

    Attributes:
        event: the payload, as it was when it was emitted.
        id: as on the wire.
        type: as on the wire.
        topic: as on the wire.
        offset: its place in its channel; None if it has none.
        data: the payload as a page parses it.
    """

    event: E_co
    id: str
    type: str
    topic: str
    offset: int | None
    data: Mapping[str, Any]

    @property
    def user(self) -> str | None:
        """The user who receives it; None for an event with many readers."""
        return self._named("user")

    @property
    def collection(self) -> str | None:
        """The collection whose watchers receive it; None for other events."""
        return self._named("collection")

    @property
    def op(self) -> str | None:
        """The operation that it belongs to; None for other events."""
        parts = self.topic.split(":")
        return parts[3] if parts[0] == "user" and len(parts) == 4 and parts[2] == "operation" else None

    @property
    def channel(self) -> str:
        """The channel that its topic belongs to."""
        parts = self.topic.split(":")
        return SYSTEM if parts[0] == SYSTEM else ":".join(parts[:2])

    def _named(self, kind: str) -> str | None:
        parts = self.topic.split(":")
        return parts[1] if parts[0] == kind else None


def emitted_of(frame: Mapping[str, Any], payload: Event | None = None) -> CapturedEvent[Event]:
    """Return the event of a frame.

    Args:
        frame: as on the wire, parsed.
        payload: the payload, where it is known; default: read from the frame.
    """
    event = payload if payload is not None else read_event(frame["type"], frame["data"])
    return CapturedEvent(event, frame["id"], frame["type"], frame["topic"], frame.get("offset"), frame["data"])


def read_event(type_: str, data: object) -> Event:
    """Return the payload as an instance of the class with its name.

    Args:
        type_: event type.
        data: as a page parses it.

    Returns:
        The payload; an ``UnknownEvent`` where no class fits.
    """
    cls = registry.get(type_)
    if cls is not None:
        try:
            return cast("Event", read_json(cls, data))
        except ValidationError:
            pass
    return UnknownEvent(type=type_, data=cast("dict[str, Any]", data))
