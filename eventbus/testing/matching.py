"""What an assertion looks for: an event class, and some of its members."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeGuard, TypeVar

from eventbus.events.event import Event

__all__ = ["Difference", "Like", "Pattern", "like", "pattern_of"]

E = TypeVar("E", bound=Event)

Difference = Mapping[str, tuple[object, object]]
"""Members that differ: what is, and what was wanted."""


@dataclass(frozen=True)
class Like(Generic[E]):
    """Events of a class, its subclasses included, whose members equal those named here."""

    cls: type[E]
    members: Mapping[str, object]

    def __post_init__(self) -> None:
        known = {*self.cls.model_fields, *self.cls.model_computed_fields}
        # A base for others may be asked for what only its subclasses have.
        unknown = [name for name in self.members if name not in known]
        if unknown and self.cls.__policy__ is not None:
            raise TypeError(
                f"{self.cls.__name__} has no member {unknown[0]!r}; it has {', '.join(sorted(known)) or 'none'}"
            )

    def fits(self, event: Event) -> TypeGuard[E]:
        """Whether an event is what is looked for."""
        return isinstance(event, self.cls) and not self.differs(event)

    def differs(self, event: Event) -> Difference:
        """How the members of an event of the class differ from those that are looked for."""
        there = {name: getattr(event, name, _Missing()) for name in self.members}
        return {name: (there[name], wanted) for name, wanted in self.members.items() if there[name] != wanted}


class _Missing:
    def __repr__(self) -> str:
        return "missing"


Pattern = type[Event] | Event | Like[Any]
"""A class, an event that the one looked for must equal, or ``like(…)``."""


def like(cls: type[E], /, **members: object) -> Like[E]:
    """Something to look for: ``like(DocumentIndexed, document="a.pdf")``. TypeError for a member it cannot have."""
    return Like(cls, members)


def pattern_of(wanted: Pattern) -> Like[Any]:
    """What a class, an event or a pattern looks for."""
    if isinstance(wanted, Like):
        return wanted
    if isinstance(wanted, Event):
        return Like(type(wanted), {name: getattr(wanted, name) for name in type(wanted).model_fields})
    return Like(wanted, {})
