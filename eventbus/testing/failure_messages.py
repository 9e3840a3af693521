"""Texts of failed assertions: the expected event, the nearest one and its difference, and all events. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from eventbus.events.event import Event
from eventbus.testing.captured_event import CapturedEvent, UnknownEvent
from eventbus.testing.matching import Like
from eventbus.testing.targets import Address

__all__ = ["described", "expectation", "listed", "nearest"]

MOST_LISTED: Final = 40
MOST_CHARACTERS: Final = 80


def expectation(like: Like[Any], address: Address) -> str:
    """Return the expected event as text: ``DocumentIndexed(document='a.pdf') to user ann``.

    Args:
        like: the expected class and members.
        address: the expected address.
    """
    where = str(address)
    return f"{like.cls.__name__}({_members(like.members)})" + (f" to {where}" if where else "")


def described(emitted: CapturedEvent[Event]) -> str:
    """Return one event as text: ``DocumentIndexed(document='a.pdf', words=3) to user:ann:operation:9``.

    Args:
        emitted: a captured event.
    """
    event = emitted.event
    if isinstance(event, UnknownEvent):
        return f"{event.type}({_members(event.data)}) to {emitted.topic}, of a class that is unknown or does not fit"
    return f"{type(event).__name__}({_members(_values(event))}) to {emitted.topic}"


def nearest(like: Like[Any], address: Address, all_: Sequence[CapturedEvent[Event]]) -> str:
    """Return the event of the class that differs least, and how.

    Args:
        like: the expected class and members.
        address: the expected address.
        all_: all captured events.
    """
    numbered = [(number, emitted) for number, emitted in enumerate(all_, 1) if isinstance(emitted.event, like.cls)]
    if not numbered:
        return f"nothing of class {like.cls.__name__} came"
    number, best = min(numbered, key=lambda entry: _distance(like, address, entry[1]))
    lines = [f"nearest is {number}:"]
    if not address.covers(best):
        lines.append(f"  topic is {best.topic}, expected {address}")
    for name, (there, expected) in like.differs(best.event).items():
        lines.append(f"  {name} is {_short(there)}, expected {_short(expected)}")
    return "\n".join(lines)


def listed(all_: Sequence[CapturedEvent[Event]]) -> str:
    """Return all events, numbered; of very many the last ones.

    Args:
        all_: all captured events.
    """
    if not all_:
        return "no event came at all"
    first = max(0, len(all_) - MOST_LISTED)
    lines = [f"  {number}. {described(emitted)}" for number, emitted in enumerate(all_, 1) if number > first]
    left_out = [f"  ({first} before them)"] if first else []
    return "\n".join([f"what came, {len(all_)}:", *left_out, *lines])


def _distance(like: Like[Any], address: Address, emitted: CapturedEvent[Event]) -> tuple[int, bool]:
    """Fewest different members first; among equals, the event at the right address."""
    return len(like.differs(emitted.event)), not address.covers(emitted)


def _values(event: Event) -> dict[str, object]:
    return {name: getattr(event, name) for name in type(event).model_fields}


def _members(members: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={_short(value)}" for name, value in members.items())


def _short(value: object) -> str:
    text = repr(value)
    half = MOST_CHARACTERS // 2
    return text if len(text) <= MOST_CHARACTERS else f"{text[:half]}…{text[-half:]} ({len(text)} characters)"
