"""What a channel keeps, as one consistent reading of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eventbus.protocol.cursor import Position
from eventbus.protocol.records import Record

__all__ = ["History", "LogEntry", "Page"]


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
        more: the log has more above these; they are a page of it.
        snapshot: latest record per conflation key, ascending by offset.
        has_pending: whether the channel's user may be owed something.
    """

    position: Position
    logged: int
    log: Sequence[LogEntry]
    snapshot: Sequence[Record]
    more: bool = False
    has_pending: bool = True


@dataclass(frozen=True, slots=True)
class Page:
    """How much of a log is read at once: entries at most, and bytes, about which it ends."""

    entries: int
    bytes: int
