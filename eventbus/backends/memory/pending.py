"""Letters of the in-process transport: the lists of one channel, by the rules of ``_pending.lua``. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eventbus.flow.priority_queue import WEIGHTS
from eventbus.settings import BusSettings

__all__ = ["Entry", "PendingLists"]

_ACKED_LIMIT = 1_000
_LONGEST_PAUSE_MS = 3_600_000


@dataclass(slots=True)
class Entry:
    """An event that a user is owed. Times are milliseconds since 1970."""

    offset: int
    lane: int
    record: bytes
    expires: int
    next: int
    attempts: int = 0


class PendingLists:
    """What the user of one channel is owed, and what was given up on (id -> reason and what is left of it)."""

    def __init__(self, settings: BusSettings) -> None:
        self._settings = settings
        self.pending: dict[str, Entry] = {}
        self.acked: dict[str, None] = {}
        self.dead: dict[str, tuple[str, bytes]] = {}

    def owe(self, id_: str, offset: int, lane: int, expires: int, record: bytes, now_ms: int) -> None:
        """Note an event that has just been appended; a full list gives up its oldest."""
        due = now_ms + int(self._settings.ack_timeout * 1000)
        self.pending[id_] = Entry(offset, lane, record, expires, due)
        same = [id_ for id_, entry in self.pending.items() if entry.lane == lane]
        if len(same) > self._settings.pending_limit:
            self.dead_letter(same[0], "full")

    def ack(self, ids: Sequence[str]) -> int:
        """How many of them were pending."""
        found = [id_ for id_ in ids if self.pending.pop(id_, None) is not None]
        self.acked.update(dict.fromkeys(found))
        while len(self.acked) > _ACKED_LIMIT:
            del self.acked[next(iter(self.acked))]
        return len(found)

    def ack_upto(self, offset: int) -> int:
        """How many were pending up to there."""
        return self.ack([id_ for id_, entry in self.pending.items() if entry.offset <= offset])

    def fetch(self, now_ms: int) -> Iterator[bytes]:
        """Records in the order in which they are to be handed over."""
        for id_ in [id_ for id_, entry in self.pending.items() if entry.expires <= now_ms]:
            self.dead_letter(id_, "expired")
        lanes = [[entry.record for entry in self.pending.values() if entry.lane == lane] for lane in range(3)]
        while any(lanes):
            for lane, weight in zip(lanes, WEIGHTS, strict=True):
                yield from lane[:weight]
                del lane[:weight]

    def redeliver(self, ids: Sequence[str], now_ms: int) -> tuple[list[int], list[bytes], int]:
        """When each is due next (0: no more), what is to be sent once more, and how many died."""
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
                    entry.next = now_ms + int(min(pause, _LONGEST_PAUSE_MS))
                    records.append(entry.record)
            due.append(0 if entry is None else entry.next)
        return due, records, len(self.dead) - before

    def dead_letter(self, id_: str, reason: str, content: bytes | None = None) -> bool:
        """Move an entry to the dead, or put there what never was an event. False: it is there already."""
        if id_ in self.dead:
            return False
        entry = self.pending.pop(id_, None)
        self.dead[id_] = reason, content if content is not None else b"" if entry is None else entry.record
        while len(self.dead) > self._settings.dead_limit:
            del self.dead[next(iter(self.dead))]
        return True
