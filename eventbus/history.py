"""What a channel keeps, as one consistent reading of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eventbus.cursor import Position
from eventbus.wire import Record

__all__ = ["History", "LogEntry"]


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A record of the log and ``previous``, the offset of the log entry that stood before it when it was written."""

    previous: int
    record: Record


@dataclass(frozen=True, slots=True)
class History:
    """A channel read in one step.

    Attributes:
        position: where the channel stands; offset 0 and an empty epoch where nothing was ever published.
        logged: offset of the last entry the log ever took; 0: none.
        log: entries above the offset that was asked for, ascending.
        snapshot: latest record per conflation key, ascending by offset.
    """

    position: Position
    logged: int
    log: Sequence[LogEntry]
    snapshot: Sequence[Record]
