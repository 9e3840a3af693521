"""A consistent reading of what a channel keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eventbus.protocol.cursor import Position
from eventbus.protocol.formats import FORMAT
from eventbus.protocol.records import Record

__all__ = ["History", "LogEntry", "Page"]


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry of the log.

    Attributes:
        previous: offset of the log entry before it when it was written.
        record: the event.
    """

    previous: int
    record: Record


@dataclass(frozen=True, slots=True)
class History:
    """A channel, read in one step.

    Attributes:
        position: end of the channel; offset 0 and an empty epoch where nothing was ever published.
        logged: offset of the newest entry that the log ever had; 0: none.
        log: entries above the requested offset, ascending.
        more: whether the log has entries above these; then they are a page of it.
        snapshot: newest record of each conflation key, ascending by offset.
        has_pending: whether the channel's user may have unacknowledged events.
        format: the format of what is stored. If this version does not know it, log and snapshot are empty.
        kept: epoch before the last fork and the offset of that fork, if no published event up to there was lost.
        lossy: whether published events may have been lost since the channel's first epoch.
    """

    position: Position
    logged: int
    log: Sequence[LogEntry]
    snapshot: Sequence[Record]
    more: bool = False
    has_pending: bool = True
    format: int = FORMAT
    kept: Position | None = None
    lossy: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """How much of a log one reading returns.

    Attributes:
        entries: number of entries, at most.
        bytes: a page ends at about this size.
    """

    entries: int
    bytes: int
