"""Everything of a process that waits to be sent: in memory, held by a rate limit, on disk. No thread and no lock."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final

from eventbus.backends.ports import Published
from eventbus.clock import steady_ms
from eventbus.flow.priority_queue import ConflatingPriorityQueue, Dropped
from eventbus.flow.rate_limiter import ChannelRateLimiter
from eventbus.outbox.blocked import BlockedBatches
from eventbus.outbox.entries import Entry
from eventbus.outbox.in_flight import InFlight
from eventbus.outbox.spool import Spool
from eventbus.outbox.tracker import DeliveryTracker
from eventbus.settings import BusSettings

__all__ = ["SendBuffer"]

# This fraction of memory moves to the disk in one step. The lock is held meanwhile: about 5 us for each entry.
_PARTS: Final = 8


class SendBuffer:
    """The entries of one outbox. The caller holds the outbox's lock.

    Args:
        settings: limits.
        dropped: counts dropped entries by reason.

    Attributes:
        tracker: what happened to each entry.
        rate_limiter: entries that are held by the rate of their channel.
        spool: entries on disk; None where the settings switch it off.
        in_flight: entries that are being sent.
        blocked: batches that wait for a shard that does not answer.
    """

    def __init__(self, settings: BusSettings, dropped: Counter[str]) -> None:
        self._settings = settings
        self._queue: ConflatingPriorityQueue[Entry] = ConflatingPriorityQueue(
            settings.outbox_events, settings.outbox_bytes, settings.turn_events
        )
        self.rate_limiter: ChannelRateLimiter[Entry] = ChannelRateLimiter(settings.channel_rate)
        self.blocked = BlockedBatches(settings.outbox_events, self._holds, self._block)
        self.tracker = DeliveryTracker(dropped, self.has_spooled, lambda: self.blocked.from_spool)
        self.spool = Spool(settings) if settings.spool else None
        self.in_flight = InFlight()
        self._scanned = -settings.spool_scan

    def __len__(self) -> int:
        """Number of entries in memory that can be sent now."""
        return self._queue.ready

    @property
    def ready(self) -> bool:
        """Whether there is anything to send now."""
        return self._queue.ready > 0 or (self.spool_waiting and not self.blocked.from_spool)

    @property
    def spool_waiting(self) -> bool:
        """Whether entries wait on disk: they go first."""
        return self.spool is not None and self.spool.waiting

    def has_spooled(self) -> bool:
        """Return whether entries of this process wait on disk."""
        return self.spool is not None and self.spool.own_waiting

    def _holds(self, topic: str) -> bool:
        return self.spool is not None and self.spool.holds(topic)

    def _block(self, blocks: Callable[[str], bool] | None) -> None:
        self._queue.block(blocks)
        self.tracker.block(None if blocks is None else lambda entry: blocks(entry.topic))

    def is_empty(self) -> bool:
        """Return whether nothing of this process waits anywhere."""
        return not self.tracker.depth and not self.rate_limiter.holding and not self.has_spooled()

    # --- in --------------------------------------------------------------------------------------------------

    def put(self, entry: Entry) -> None:
        """Add an entry.

        Args:
            entry: an event or a transition.
        """
        self.tracker.add(entry)
        if entry.keep != "log" and self.rate_limiter.rate:
            self._put_limited(entry)
            return
        if self.rate_limiter.holding:
            self._queue_released(self.rate_limiter.release(entry.channel, entry.topic))
        self._push(entry, steady_ms())

    def _queue_released(self, entries: Sequence[Entry]) -> None:
        """Queue what the rate limiter no longer holds."""
        if entries:
            now = steady_ms()
            for entry in entries:
                self._push(entry, now)

    def _push(self, entry: Entry, now: int) -> None:
        dropped = self._queue.push(entry, now)
        if dropped:
            self._make_room(entry, dropped)

    def _make_room(self, entry: Entry, dropped: Sequence[Dropped[Entry]]) -> None:
        """Record what the queue dropped. If it refused the entry itself, move a part to the disk and try again."""
        while dropped and dropped[-1].reason == "full" and self._spill_part(entry):
            dropped = [*dropped[:-1], *self._queue.push(entry, steady_ms())]
        self.tracker.drop(dropped)

    def _put_limited(self, entry: Entry) -> None:
        now = time.monotonic()
        admitted, replaced = self.rate_limiter.admit(entry, now)
        if replaced is not None:
            self.tracker.drop_one(replaced, "merged")
        if admitted:
            self._push(entry, steady_ms())
        elif entry.key is None:
            self.tracker.limit(entry, self.rate_limiter.rate, self.rate_limiter.retry_after(entry.channel, now))
        elif self.tracker.depth > self._settings.outbox_events:
            # Held entries with a key each would grow without bound. The queue has a bound and knows what to drop.
            self._queue_released(self.rate_limiter.release_all())

    def withdraw(self, entry: Entry) -> bool:
        """Remove an entry, if it is not in flight.

        Args:
            entry: as it was put.

        Returns:
            Whether it was removed.
        """
        removed = bool(self._queue.remove(lambda item: item is entry))
        if removed:
            self.tracker.withdraw(entry)
        return removed

    def _spill_part(self, newcomer: Entry) -> bool:
        """Move the oldest part of what must not be lost to the disk. A part only, since the caller of ``emit`` waits.

        Urgent entries of a topic that has nothing on disk stay: on disk they would wait behind the flood that has
        filled memory.

        Returns whether there is more room now.
        """
        spool = self.spool
        if spool is None:
            return False
        if self.blocked and (going := self._take_blocked(newcomer)):
            self._write(spool, going)
            self.blocked.apply()
            return True
        in_flight = self.in_flight.entries
        oldest = list(islice(self._lasting(newcomer), max(1, len(self._queue) // _PARTS)))
        urgent = _urgent_topics([*in_flight, *oldest], spool.holds)
        self.in_flight.moved_to_disk([entry for entry in in_flight if entry.topic in urgent])
        going = [entry for entry in oldest if entry.topic not in urgent]
        self._queue.remove_oldest(going)
        moved = [*(entry for entry in in_flight if entry.topic not in urgent), *going]
        self._write(spool, moved)
        return bool(moved)

    def _take_blocked(self, newcomer: Entry) -> list[Entry]:
        """Take out what waits for a shard that does not answer, a part at a time. The others need the memory."""
        waiting = (entry for entry in self._lasting(newcomer) if self.blocked.blocks(entry.topic))
        oldest = list(islice(waiting, max(1, len(self.tracker.blocked) // _PARTS)))
        self._queue.remove_oldest(oldest)
        return [*self.blocked.move_to_disk(), *oldest]

    def without_spool(self) -> None:
        """Use the disk no longer."""
        spool, self.spool = self.spool, None
        if spool is not None:
            spool.close()

    def end(self) -> None:
        """Move to the disk what must not be lost, and drop the rest. Without a disk, drop everything.

        The disk has the order of ``put``, whatever was in flight.
        """
        self._queue.remove(lambda _: True)
        self.rate_limiter.release_all()
        self.in_flight.moved_to_disk([])
        self.blocked.clear()
        self._scanned = -self._settings.spool_scan  # a thread that starts again sends this first
        if self.spool is None:
            self.tracker.drop_all("ended")
            return
        self._write(self.spool, list(self.tracker.open_entries()))
        self.spool.close()

    def _lasting(self, newcomer: Entry | None = None) -> Iterator[Entry]:
        """Entries that must not be lost and wait in memory, the oldest first."""
        taken = set(map(id, (*self.in_flight.entries, *self.blocked.entries)))
        for entry in self.tracker.open_entries():
            if entry.keep == "log" and id(entry) not in taken and entry is not newcomer:
                yield entry

    def _write(self, spool: Spool, entries: Sequence[Entry]) -> None:
        lasting = [entry for entry in entries if entry.keep == "log"]
        written = spool.append(lasting)
        for entry in written:
            self.tracker.spooled(entry)
        if len(written) < len(entries):
            on_disk = set(map(id, written))
            for entry in entries:
                if id(entry) not in on_disk:
                    self.tracker.drop_one(entry, "shed" if entry.keep != "log" else "spool")

    # --- out -------------------------------------------------------------------------------------------------

    def take(self, limit: int) -> tuple[list[Entry], int]:
        """Take out what to send next.

        Args:
            limit: entries from memory, and entries from the disk, at most.

        Returns:
            The entries in order, and how many of them are on disk as well.
        """
        if self.spool is not None and self.spool.waiting and not self.blocked.from_spool:
            return self._take_from_spool(self.spool, limit)
        batch, expired = self._queue.pop(limit, self._settings.batch_bytes, steady_ms())
        if expired:
            self.tracker.drop(expired)
        self.in_flight.take(batch)
        return batch, 0

    def take_more(self, limit: int) -> list[Entry]:
        """Add what waits in memory to what is in flight, except for topics that have more on disk: the disk goes first.

        Args:
            limit: entries at most.

        Returns:
            The added entries in order.
        """
        spool = self.spool
        if spool is not None and spool.waiting:
            batch, expired = self._queue.pop_topics(limit, spool.holds_behind, steady_ms(), urgent=False)
        else:
            batch, expired = self._queue.pop(limit, self._settings.batch_bytes, steady_ms())
        if expired:
            self.tracker.drop(expired)
        self.in_flight.entries = [*self.in_flight.entries, *batch]
        return batch

    def _take_from_spool(self, spool: Spool, limit: int) -> tuple[list[Entry], int]:
        """Take from the disk first, in order; with it the urgent entries of topics that have nothing there."""
        now = steady_ms()
        old = spool.take(limit)
        alive = [entry for entry in old if not 0 < entry.expires <= now]
        self.tracker.expired_on_disk(len(old) - len(alive))
        urgent, expired = self._queue.pop_topics(limit, spool.holds, now, urgent=True)
        self.tracker.drop(expired)
        self.in_flight.take(urgent)
        return [*alive, *urgent], len(old)

    def settle(self, members: Sequence[Sequence[Entry]], answers: Sequence[Published | Exception]) -> None:
        """Record what happened to entries and notify those who wait for them.

        Args:
            members: entries of each request.
            answers: to the requests.
        """
        self.tracker.settle(members, answers)
        in_flight = self.in_flight
        if in_flight.entries:
            if self.tracker.depth:
                settled = {id(entry) for entries in members for entry in entries}
                in_flight.entries = [entry for entry in in_flight.entries if id(entry) not in settled]
            else:
                in_flight.entries = []

    def settle_spool(self, taken: int, *, whole: bool) -> None:
        """Record that entries from the disk were sent, or have to be sent again.

        Args:
            taken: number of entries.
            whole: whether all of them were sent.
        """
        if taken and self.spool is not None:
            if whole:
                self.spool.done()
                self.tracker.notify_waiters()
            else:
                self.spool.put_back()

    def settles_now(self, settled: Callable[[bool], None]) -> bool:
        """Release held entries, and have ``settled`` called once everything that waits now is settled.

        Args:
            settled: called with True; with False when Redis becomes unreachable, or the shard of what is left is.

        Returns:
            Whether nothing waits: then it is not called.
        """
        if self.rate_limiter.holding:
            self._queue_released(self.rate_limiter.release_all())
        if not self.tracker.depth and not self.has_spooled():
            return True
        self.tracker.call_when_settled(settled)
        return False

    # --- time ------------------------------------------------------------------------------------------------

    def due_in(self) -> float | None:
        """Return the seconds until something is due without a new entry; None: nothing is."""
        held = self.rate_limiter.next_due(time.monotonic())
        scan = self._settings.spool_scan if self.spool is not None else None
        return min((pause for pause in (held, scan) if pause is not None), default=None)

    def release_due(self) -> None:
        """Queue held entries whose time has come."""
        if self.rate_limiter.holding:
            self._queue_released(self.rate_limiter.due(time.monotonic()))

    @property
    def scan_due(self) -> bool:
        """Whether it is time to look for what ended processes left on disk."""
        return self.spool is not None and time.monotonic() - self._scanned >= self._settings.spool_scan

    def scan(self) -> None:
        """Look for spools of ended processes, if it is time. Needs no lock."""
        spool = self.spool
        if spool is not None and self.scan_due:
            self._scanned = time.monotonic()
            spool.look_for_orphans()
            if self.spool is None:
                spool.close()


def _urgent_topics(part: Sequence[Entry], on_disk: Callable[[str], bool]) -> set[str]:
    """Topics that have urgent entries only, and nothing on disk; none if they are most of the part."""
    others = {entry.topic for entry in part if entry.lane > 0}
    urgent = {entry.topic for entry in part if entry.topic not in others and not on_disk(entry.topic)}
    return urgent if 2 * sum(entry.topic in urgent for entry in part) < len(part) else set()
