"""Everything of a process that waits to be sent: in memory, held back by a rate, on disk. No thread and no lock."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final

from eventbus.backends.ports import Published
from eventbus.flow.priority_queue import ConflatingPriorityQueue, Dropped
from eventbus.flow.rate_limiter import ChannelRateLimiter
from eventbus.outbox.entries import Entry
from eventbus.outbox.spool import Spool
from eventbus.outbox.tracker import DeliveryTracker
from eventbus.settings import BusSettings

__all__ = ["SendBuffer"]

# A part of memory that is moved to the disk at once: the lock is held meanwhile, some 5 us for each entry.
_PARTS: Final = 8


class SendBuffer:
    """Of one outbox' thread. Whoever calls holds its lock.

    Attributes:
        settlement: what became of all that came in.
        throttle, spool: what is held back, and what is on disk; no spool where the settings want none.
        flying: what has been taken to be sent, and is not settled; None where that stands in the spool as well.
    """

    def __init__(self, settings: BusSettings, dropped: Counter[str]) -> None:
        self._settings = settings
        self._dropped = dropped
        self._outbox: ConflatingPriorityQueue[Entry] = ConflatingPriorityQueue(
            settings.outbox_events, settings.outbox_bytes, settings.turn_events
        )
        self.throttle: ChannelRateLimiter[Entry] = ChannelRateLimiter(settings.channel_rate)
        self.settlement = DeliveryTracker(dropped, self.on_disk)
        self.spool = Spool(settings) if settings.spool else None
        self.flying: list[Entry] | None = []
        self._scanned = -settings.spool_scan

    def __len__(self) -> int:
        return len(self._outbox)

    @property
    def ready(self) -> bool:
        """Whether there is anything to send now."""
        return bool(self._outbox) or self.spool_waiting

    @property
    def spool_waiting(self) -> bool:
        """Whether something waits on disk: it goes first."""
        return self.spool is not None and self.spool.waiting

    def on_disk(self) -> bool:
        """Whether something of this process waits on disk."""
        return self.spool is not None and self.spool.own_waiting

    def is_empty(self) -> bool:
        """Whether nothing waits, wherever."""
        return not self.settlement.depth and not self.throttle.holding and not self.on_disk()

    # --- in --------------------------------------------------------------------------------------------------

    def put(self, entry: Entry) -> None:
        """Take an event or mark in."""
        self.settlement.expect(entry)
        if entry.keep != "log" and self.throttle.rate:
            self._throttled(entry)
            return
        if self.throttle.holding:
            self.queue(self.throttle.release(entry.channel, entry.topic))
        self._push(entry, _now_ms())

    def queue(self, entries: Sequence[Entry]) -> None:
        """What was held back may go."""
        if entries:
            now = _now_ms()
            for entry in entries:
                self._push(entry, now)

    def _push(self, entry: Entry, now: int) -> None:
        dropped = self._outbox.push(entry, now)
        if dropped:
            self._make_room(entry, dropped)

    def _make_room(self, entry: Entry, dropped: Sequence[Dropped[Entry]]) -> None:
        """Note what the outbox dropped; if that is the entry itself, move something to the disk and try again."""
        while dropped and dropped[-1].reason == "full" and self._spill_part(entry):
            dropped = [*dropped[:-1], *self._outbox.push(entry, _now_ms())]
        self.settlement.drop(dropped)

    def _throttled(self, entry: Entry) -> None:
        now = time.monotonic()
        goes, older = self.throttle.admit(entry, now)
        if older is not None:
            self.settlement.drop_one(older, "merged")
        if goes:
            self._push(entry, _now_ms())
        elif entry.key is None:
            self.settlement.limit(entry, self.throttle.rate, self.throttle.retry_after(entry.channel, now))
        elif self.settlement.depth > self._settings.outbox_events:
            # With a key of its own each, what is held back would grow without bound: the outbox knows what to shed.
            self.queue(self.throttle.release_all())

    def withdraw(self, entry: Entry) -> bool:
        """Take an entry back, if it has not been taken to be sent."""
        taken_back = bool(self._outbox.remove(lambda item: item is entry))
        if taken_back:
            self.settlement.withdraw(entry)
        return taken_back

    def _spill_part(self, newcomer: Entry) -> bool:
        """Move the oldest part of what must not be lost to the disk: not all at once, since whoever emits waits for it.

        What is urgent and has nothing there stays: on disk it would wait behind the very flood that has filled memory.

        Returns whether there is more room now.
        """
        spool = self.spool
        if spool is None:
            return False
        flying = self.flying or []
        oldest = list(islice(self._lasting(newcomer), max(1, len(self._outbox) // _PARTS)))
        urgent = _urgent_topics([*flying, *oldest], spool.holds)
        self.flying = [entry for entry in flying if entry.topic in urgent] or None
        going = [entry for entry in oldest if entry.topic not in urgent]
        self._outbox.unload(going)
        moved = [*(entry for entry in flying if entry.topic not in urgent), *going]
        self._keep(spool, moved)
        return bool(moved)

    def end(self) -> None:
        """Move to the disk what must not be lost; the rest, or all if there is no disk, is given up."""
        if self.spool is None:
            self.settlement.drop_all("ended")
            return
        flying = self.flying or []
        self._keep(self.spool, [*flying, *self._lasting()])
        self.flying = None
        for entry in self._outbox.remove(lambda _: True):
            if self.settlement.waits(entry):
                self.settlement.drop_one(entry, "shed")
        self.spool.close()

    def _lasting(self, newcomer: Entry | None = None) -> Iterator[Entry]:
        """What must not be lost and waits in memory, the oldest first."""
        flying = set(map(id, self.flying or ()))
        for entry in self.settlement.open():
            if entry.keep == "log" and id(entry) not in flying and entry is not newcomer:
                yield entry

    def _keep(self, spool: Spool, entries: Sequence[Entry]) -> None:
        lasting = [entry for entry in entries if entry.keep == "log"]
        kept = spool.append(lasting)
        for entry in lasting[:kept]:
            self.settlement.spooled(entry)
        for entry in (*lasting[kept:], *(entry for entry in entries if entry.keep != "log")):
            self.settlement.drop_one(entry, "shed" if entry.keep != "log" else "spool")

    # --- out -------------------------------------------------------------------------------------------------

    def take(self, limit: int) -> tuple[list[Entry], int]:
        """Take out what is to be sent next, ``limit`` entries of memory and of the disk at most; and how many of them
        stand in the spool.
        """
        if self.spool is not None and self.spool.waiting:
            return self._from_spool(self.spool, limit)
        batch, expired = self._outbox.pop(limit, self._settings.batch_bytes, _now_ms())
        if expired:
            self.settlement.drop(expired)
        self.flying = batch
        return batch, 0

    def _from_spool(self, spool: Spool, limit: int) -> tuple[list[Entry], int]:
        """What is on disk goes first, in order; beside it what is urgent and of a topic that has nothing there."""
        now = _now_ms()
        old = spool.take(limit)
        alive = [entry for entry in old if not 0 < entry.expires <= now]
        self._dropped["expired"] += len(old) - len(alive)
        urgent, expired = self._outbox.pop_urgent(limit, spool.holds, now)
        self.settlement.drop(expired)
        self.flying = urgent
        return [*alive, *urgent], len(old)

    def settle(self, members: Sequence[Sequence[Entry]], answers: Sequence[Published | Exception]) -> None:
        """Note what became of each entry, and tell those who wait for it."""
        self.settlement.settle(members, answers)
        if self.flying and not self.settlement.depth:
            self.flying = []
        elif self.flying:
            settled = {id(entry) for entries in members for entry in entries}
            self.flying = [entry for entry in self.flying if id(entry) not in settled]

    def settle_spool(self, taken: int, *, whole: bool) -> None:
        """So many that were taken from the disk have been sent; or, not ``whole``, are to be sent again."""
        if taken and self.spool is not None:
            if whole:
                self.spool.done()
                self.settlement.tell_waiters()
            else:
                self.spool.put_back()

    # --- time ------------------------------------------------------------------------------------------------

    def patience(self) -> float | None:
        """Seconds for which nothing has to be looked at, while nothing comes in."""
        held = self.throttle.next_due(time.monotonic())
        scan = self._settings.spool_scan if self.spool is not None else None
        return min((pause for pause in (held, scan) if pause is not None), default=None)

    def release_due(self) -> None:
        """What was held back may go by now."""
        if self.throttle.holding:
            self.queue(self.throttle.due(time.monotonic()))

    @property
    def scan_due(self) -> bool:
        """Whether it is time to look for what processes that are gone have left on the disk."""
        return self.spool is not None and time.monotonic() - self._scanned >= self._settings.spool_scan

    def scan(self) -> None:
        """Look for it if it is time. Needs no lock."""
        if self.spool is not None and self.scan_due:
            self._scanned = time.monotonic()
            self.spool.look_for_orphans()


def _urgent_topics(part: Sequence[Entry], on_disk: Callable[[str], bool]) -> set[str]:
    """Topics of which there is only what is urgent, and nothing on the disk; none if they are most of it."""
    others = {entry.topic for entry in part if entry.lane > 0}
    urgent = {entry.topic for entry in part if entry.topic not in others and not on_disk(entry.topic)}
    return urgent if 2 * sum(entry.topic in urgent for entry in part) < len(part) else set()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
