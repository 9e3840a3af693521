"""Pending events and dead letters of one channel in the process, by the rules of ``_pending.lua``.
No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
        self.pending[id_] = Entry(offset, lane, record, expires, due)
        same = [id_ for id_, entry in self.pending.items() if entry.lane == lane]
        if len(same) > self._settings.pending_limit:
            self.dead_letter(same[0], "full")

    def ack(self, ids: Sequence[str]) -> int:
        """Acknowledge events.

        Args:
            ids: ids of the events.

        Returns:
            The number of them that were pending.
        """
        found = [id_ for id_ in ids if self.pending.pop(id_, None) is not None]
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
        return self.ack([id_ for id_, entry in self.pending.items() if entry.offset <= offset])

    def fetch(self, now_ms: int) -> Iterator[bytes]:
        """Yield the records in the order of delivery. Expired events become dead letters.

        Args:
            now_ms: milliseconds since 1970.
        """
        for id_ in [id_ for id_, entry in self.pending.items() if entry.expires <= now_ms]:
            self.dead_letter(id_, "expired")
        lanes = [[entry.record for entry in self.pending.values() if entry.lane == lane] for lane in range(3)]
        while any(lanes):
            for lane, weight in zip(lanes, WEIGHTS, strict=True):
                yield from lane[:weight]
                del lane[:weight]

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
        before = len(self.dead)
        for id_ in ids:
            entry = self.pending.get(id_)
            if entry is not None and entry.next <= now_ms:
                if entry.expires <= now_ms or entry.attempts >= self._settings.ack_attempts:
                    self.dead_letter(id_, "expired" if entry.expires <= now_ms else "attempts")
                    entry = None
                else:
                    entry.attempts += 1
                    pause = self._settings.ack_timeout * 1000 * 2**entry.attempts
                    entry.next = now_ms + int(min(pause, LONGEST_PAUSE_MS))
                    records.append(entry.record)
            due.append(0 if entry is None else entry.next)
        return due, records, len(self.dead) - before

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
        entry = self.pending.pop(id_, None)
        self.dead[id_] = reason, content if content is not None else b"" if entry is None else entry.record
        while len(self.dead) > self._settings.dead_limit:
            del self.dead[next(iter(self.dead))]
        return True
