"""The states of a session's life, and every way from one to another."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

__all__ = ["NEXT", "State"]


class State(Enum):
    """Where a session is in its life."""

    WAITING = auto()
    """Connected. The first message has to bring a token."""
    OPEN = auto()
    LEAVING = auto()
    """Asked to reconnect elsewhere, and still served."""
    CLOSED = auto()


NEXT: Mapping[State, frozenset[State]] = {
    State.WAITING: frozenset({State.OPEN, State.CLOSED}),
    State.OPEN: frozenset({State.LEAVING, State.CLOSED}),
    State.LEAVING: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
}
