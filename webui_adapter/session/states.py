"""Where a session is in its life, and every way it can go from there."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

__all__ = ["NEXT", "State"]


class State(Enum):
    """Where a session is in its life."""

    WAITING = auto()
    """Connected; the first message has to bring a token."""
    OPEN = auto()
    LEAVING = auto()
    """Told to go; still served."""
    CLOSED = auto()


NEXT: Mapping[State, frozenset[State]] = {
    State.WAITING: frozenset({State.OPEN, State.CLOSED}),
    State.OPEN: frozenset({State.LEAVING, State.CLOSED}),
    State.LEAVING: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
}
