"""The event classes of this process: one name, one class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from eventbus.errors import DuplicateEventName

if TYPE_CHECKING:
    from eventbus.events.event import Event

__all__ = ["Registry", "registry"]


def _path(cls: type[Event]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


class Registry:
    """Event classes by name, in order of definition."""

    def __init__(self) -> None:
        self._classes: dict[str, type[Event]] = {}

    def add(self, cls: type[Event]) -> None:
        """Register a class under its policy's name.

        Args:
            cls: an event class with a name.

        Raises:
            DuplicateEventName: another class has that name. The error names both.
        """
        name = cls.policy().name
        taken = self._classes.get(name)
        if taken is not None:
            raise DuplicateEventName(name, _path(taken), _path(cls))
        self._classes[name] = cls

    def remove(self, name: str) -> None:
        """Forget a class: for tests, and for interactive work that defines a class again.

        Args:
            name: its event name.
        """
        self._classes.pop(name, None)

    def get(self, name: str) -> type[Event] | None:
        """Return the class of that name, or None.

        Args:
            name: an event name.
        """
        return self._classes.get(name)

    def __iter__(self) -> Iterator[type[Event]]:
        return iter(self._classes.values())

    def __len__(self) -> int:
        return len(self._classes)


registry = Registry()
"""``class X(Event, name=...)`` fills it, and ``python -m eventbus schema`` reads it."""
