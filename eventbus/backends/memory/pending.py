"""Pending events and dead letters of one channel in the process, by the rules of ``_pending.lua``.
No I/O, no clock.

A dictionary keeps its order and forgets a key without a search. So a lane needs no tombstones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile

from eventbus.backends.pending import ACKED_LIMIT, LONGEST_PAUSE_MS
from eventbus.flow.priority_queue import WEIGHTS
from eventbus.settings import BusSettings

__all__ = ["Entry", "PendingLists"]


@dataclass(slots=True)
class Entry:
    """A pending event. Times are milliseconds since 1970.

    Attributes:
        offset: its offset in the channel.
        lane: 0 high, 1 normal, 2 low.
        record: the record.
        expires: when it becomes a dead letter.
        next: when redelivery is due.
        attempts: number of redeliveries.
    """

    offset: int
    lane: int
    record: bytes
    expires: int
    next: int
    attempts: int = 0


class PendingLists:
    """The pending events and dead letters of one channel.

    Args:
        settings: limits and the acknowledgement timeout.

    Attributes:
        pending: event id -> entry.
        acked: acknowledged ids, the oldest first.
        dead: event id -> reason and content.
    """

    def __init__(self, settings: BusSettings) -> None:
        self._settings = settings
        self.pending: dict[str, Entry] = {}
        # The ids of each lane, the oldest first.
        self._lanes: tuple[dict[str, None], ...] = ({}, {}, {})
        self.acked: dict[str, None] = {}
        self.dead: dict[str, tuple[str, bytes]] = {}

    def add(self, id_: str, offset: int, lane: int, expires: int, record: bytes, now_ms: int) -> None:
        """Add an event that was just appended. A full lane dead-letters its oldest event.

        Args:
            id_: the event's id.
            offset: its offset.
            lane: 0 high, 1 normal, 2 low.
            expires: when it becomes a dead letter, in milliseconds since 1970.
            record: the record.
            now_ms: milliseconds since 1970.
        """
        due = now_ms + int(self._settings.ack_timeout * 1000)
        self._remove(id_)
        self.pending[id_] = Entry(offset, lane, record, expires, due)
        self._lanes[lane][id_] = None
        if len(self._lanes[lane]) > self._settings.pending_limit:
            self._move_to_dead(next(iter(self._lanes[lane])), "full")

    def _remove(self, id_: str) -> Entry | None:
        entry = self.pending.pop(id_, None)
        if entry is not None:
            del self._lanes[entry.lane][id_]
        return entry

    def ack(self, ids: Sequence[str]) -> int:
        """Acknowledge events.

        Args:
            ids: ids of the events.

        Returns:
            The number of them that were pending.
        """
        found = [id_ for id_ in ids if self._remove(id_) is not None]
        self.acked.update(dict.fromkeys(found))
        while len(self.acked) > ACKED_LIMIT:
            del self.acked[next(iter(self.acked))]
        return len(found)

    def ack_upto(self, offset: int) -> int:
        """Acknowledge all events up to an offset.

        Args:
            offset: the last acknowledged offset.

        Returns:
            The number of them that were pending.
        """
        lanes = [takewhile(lambda id_: self.pending[id_].offset <= offset, lane) for lane in self._lanes]
        return self.ack([id_ for lane in lanes for id_ in lane])

    def fetch(self, now_ms: int) -> Iterator[bytes]:
        """Yield the records in the order of delivery. Expired events become dead letters.

        Args:
            now_ms: milliseconds since 1970.
        """
        for id_ in [id_ for id_, entry in self.pending.items() if entry.expires <= now_ms]:
            self._move_to_dead(id_, "expired")
        lanes = [iter(list(lane)) for lane in self._lanes]
        left = len(self.pending)
        while left:
            for lane, weight in zip(lanes, WEIGHTS, strict=True):
                for id_ in islice(lane, weight):
                    left -= 1
                    yield self.pending[id_].record

    def redeliver(self, ids: Sequence[str], now_ms: int) -> tuple[list[int], list[bytes], int]:
        """Take events for redelivery. An expired event, or one with too many attempts, becomes a
        dead letter.

        Args:
            ids: ids of the events.
            now_ms: milliseconds since 1970.

        Returns:
            When each is due next (0: no longer pending), the records to publish, and the number of
            new dead letters.
        """
        due: list[int] = []
        records: list[bytes] = []
        dead_lettered = 0
        for id_ in ids:
            entry = self.pending.get(id_)
            if entry is not None and entry.next <= now_ms:
                if entry.expires <= now_ms or entry.attempts >= self._settings.ack_attempts:
                    self._move_to_dead(id_, "expired" if entry.expires <= now_ms else "attempts")
                    dead_lettered += 1
                    entry = None
                else:
                    entry.attempts += 1
                    pause = self._settings.ack_timeout * 1000 * 2**entry.attempts
                    entry.next = now_ms + int(min(pause, LONGEST_PAUSE_MS))
                    records.append(entry.record)
            due.append(0 if entry is None else entry.next)
        return due, records, dead_lettered

    def dead_letter(self, id_: str, reason: str, content: bytes | None = None) -> bool:
        """Move a pending event to the dead letters, or keep other bytes there.

        Args:
            id_: the event's id, or one made from the bytes.
            reason: why it cannot be delivered.
            content: the bytes; None: the pending event's record.

        Returns:
            False if the dead letter exists already.
        """
        if id_ in self.dead:
            return False
        self._move_to_dead(id_, reason, content)
        return True

    def _move_to_dead(self, id_: str, reason: str, content: bytes | None = None) -> None:
        """Move an event to the dead letters, as the youngest one."""
        entry = self._remove(id_)
        self.dead.pop(id_, None)
        self.dead[id_] = reason, content if content is not None else b"" if entry is None else entry.record
        while len(self.dead) > self._settings.dead_limit:
            del self.dead[next(iter(self.dead))]
