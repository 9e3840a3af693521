"""``resume``: the events that a returning reader needs. One function, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from eventbus.protocol.cursor import Position
from eventbus.protocol.formats import FORMAT
from eventbus.protocol.history import History
from eventbus.protocol.records import Record

__all__ = ["Gap", "GapReason", "Resumption", "resume"]

GapReason = Literal["trimmed", "epoch", "ahead", "hole", "format"]


@dataclass(frozen=True, slots=True)
class Gap:
    """Events between the cursor and now that this reader cannot get.

    Attributes:
        reason: why.
    """

    reason: GapReason


@dataclass(frozen=True, slots=True)
class Resumption:
    """Events to hand over, in order.

    Attributes:
        start: the events are those above this position.
        records: ascending by offset.
        position: where the reader is after them.
        more: the history was a page, and does not end here.
        gap: set where events are missing for good. Then ``records`` is the present state, not a part of the past.
        read_to: end of the history. The records above it arrived live.
    """

    start: Position
    records: Sequence[Record]
    position: Position
    gap: Gap | None = None
    more: bool = False
    read_to: int = 0


def resume(cursor: Position | None, history: History, live: Sequence[Record], now_ms: int) -> Resumption:
    """Merge history with the events that arrived meanwhile, and prove that none is missing between them.

    Args:
        cursor: where the reader was; offset 0 for the beginning; None for a new reader, which needs the present state.
        history: read after ``live`` began to be collected, for offsets above the cursor's.
        live: records that arrived since, ascending; the history may contain some of them.
        now_ms: milliseconds since 1970; records that have expired are left out.

    Returns:
        Events to hand over.
    """
    here = history.position
    if history.format > FORMAT:
        # A newer version wrote the events. This version cannot say which of them the reader needs.
        return Resumption(here, (), here, Gap("format"))
    reason = None if cursor is None else _why_not(cursor, history)
    if cursor is not None and reason is None and history.more:
        return _page(cursor, history, now_ms)
    late = [record for record in live if record.offset > here.offset]
    if not _contiguous(here.offset, late):
        # Events between history and live ones are in neither. No answer is whole, also not one that
        # reports another gap: the caller must read again.
        reason = "hole"
    end = Position(here.epoch, late[-1].offset if late else here.offset)
    if cursor is None or reason is not None:
        # A new reader gets every state. A reader of this epoch keeps its states and gets the rest.
        known = cursor.offset if cursor is not None and reason == "trimmed" else 0
        past = [record for record in history.snapshot if record.offset > known]
        start = Position(here.epoch, known)
    else:
        past = [entry.record for entry in history.log if entry.record.offset > cursor.offset]
        past += [record for record in history.snapshot if record.offset > cursor.offset]
        past.sort(key=_offset)
        start = Position(here.epoch, cursor.offset)
    records = [record for record in (*past, *late) if not 0 < record.expires <= now_ms]
    return Resumption(start, records, end, None if reason is None else Gap(reason), read_to=here.offset)


def _page(cursor: Position, history: History, now_ms: int) -> Resumption:
    """A part of the past, up to the page's last entry. Live events join the last page only."""
    end = history.log[-1].record.offset
    past = [entry.record for entry in history.log]
    past += [record for record in history.snapshot if cursor.offset < record.offset <= end]
    past.sort(key=_offset)
    records = [record for record in past if not 0 < record.expires <= now_ms]
    epoch = history.position.epoch
    return Resumption(Position(epoch, cursor.offset), records, Position(epoch, end), more=True)


def _why_not(cursor: Position, history: History) -> GapReason | None:
    """Why the log cannot serve this cursor, or None if it can."""
    here, kept = history.position, history.kept
    if cursor.epoch and cursor.epoch != here.epoch:
        # The log still has everything above a position of the epoch before, if nothing published was lost.
        if kept is None or cursor.epoch != kept.epoch or cursor.offset > kept.offset:
            return "epoch"
    elif not cursor.epoch and history.lossy:
        return "epoch"  # the log no longer goes back to the channel's first event
    if cursor.offset > here.offset:
        return "ahead"
    after = next((entry for entry in history.log if entry.record.offset > cursor.offset), None)
    whole = after.previous <= cursor.offset if after is not None else history.logged <= cursor.offset
    return None if whole else "trimmed"


def _contiguous(offset: int, records: Sequence[Record]) -> bool:
    return all(record.offset == offset + i for i, record in enumerate(records, 1))


def _offset(record: Record) -> int:
    return record.offset
