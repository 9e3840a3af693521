"""The pattern of an assertion: an event class, and some of its members."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeGuard, TypeVar

from eventbus.events.event import Event

__all__ = ["Difference", "Like", "Pattern", "like", "pattern_of"]

E = TypeVar("E", bound=Event)

Difference = Mapping[str, tuple[object, object]]
"""Members that differ: actual and expected value."""


@dataclass(frozen=True)
class Like(Generic[E]):
    """Events of a class, its subclasses included, whose members have these values.

    Attributes:
        cls: an event class.
        members: values by name.
    """

    cls: type[E]
    members: Mapping[str, object]

    def __post_init__(self) -> None:
        known = {*self.cls.model_fields, *self.cls.model_computed_fields}
        # A base class may be used for members that only its subclasses have.
        unknown = [name for name in self.members if name not in known]
        if unknown and self.cls.__policy__ is not None:
            raise TypeError(
                f"{self.cls.__name__} has no member {unknown[0]!r}; it has {', '.join(sorted(known)) or 'none'}"
            )

    def fits(self, event: Event) -> TypeGuard[E]:
        """Return whether an event fits the pattern.

        Args:
            event: any event.
        """
        return isinstance(event, self.cls) and not self.differs(event)

    def differs(self, event: Event) -> Difference:
        """Return the members that differ.

        Args:
            event: an event of the class.
        """
        there = {name: getattr(event, name, _Missing()) for name in self.members}
        return {name: (there[name], value) for name, value in self.members.items() if there[name] != value}


class _Missing:
    def __repr__(self) -> str:
        return "missing"


Pattern = type[Event] | Event | Like[Any]
"""A class, an event that has to be equal, or ``like(…)``."""


def like(cls: type[E], /, **members: object) -> Like[E]:
    """Return a pattern: ``like(DocumentIndexed, document="a.pdf")``.

    Args:
        cls: an event class.
        **members: values. A member that the class does not have is a TypeError.
    """
    return Like(cls, members)


def pattern_of(pattern: Pattern) -> Like[Any]:
    """Return the pattern of a class, an event or a pattern.

    Args:
        pattern: a class, an event that has to be equal, or ``like(…)``.
    """
    if isinstance(pattern, Like):
        return pattern
    if isinstance(pattern, Event):
        return Like(type(pattern), {name: getattr(pattern, name) for name in type(pattern).model_fields})
    return Like(pattern, {})
