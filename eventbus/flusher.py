"""The worker's outbox with its thread: ``put`` costs microseconds, a thread carries batches to Redis.

``put`` never raises for Redis' sake, and blocks for the disk at most, when memory is full. The thread starts with the
first event, in the process that emits it: after a fork the child begins with an empty outbox of its own, and what the
parent had stays the parent's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence

from eventbus.breaker import Breaker
from eventbus.emission import Emission
from eventbus.entries import Entry, MarkEntry, group
from eventbus.errors import EventBusError, Unavailable
from eventbus.outbox import Dropped, Outbox
from eventbus.settings import BusSettings
from eventbus.settlement import Settlement
from eventbus.spool import Spool
from eventbus.throttle import Throttle
from eventbus.transport import Published, Publisher, Request

__all__ = ["Flusher", "MarkEntry"]

log = logging.getLogger(__name__)

# After an urgent event batches are so much shorter, for so many seconds.
_SHORTER = 4
_URGENCY_LASTS = 5.0


class Flusher:
    """An outbox, a lock and a thread; behind them, for when Redis is away, a spool.

    Attributes:
        dropped: how many events were given up, by reason (``merged`` is counted too, though nothing is lost by it).
        taps: called with each event that is put while Redis is known to be away, in the caller's thread.
    """

    def __init__(self, settings: BusSettings, connect: Callable[[], Publisher]) -> None:
        self._settings = settings
        self._connect = connect
        self.dropped: Counter[str] = Counter()
        self.taps: list[Callable[[Emission], None]] = []
        self._begin()
        _flushers.add(self)

    def _begin(self) -> None:
        """Start empty: in a new process nothing of the parent's may be used, least of all its locks and its socket."""
        settings = self._settings
        self._lock = threading.Condition(threading.RLock())
        self._outbox: Outbox[Entry] = Outbox(settings.outbox_events, settings.outbox_bytes, settings.turn_events)
        self._throttle: Throttle[Entry] = Throttle(settings.channel_rate)
        self._settlement = Settlement(self.dropped, self._on_disk)
        self._breaker = Breaker(
            settings.breaker_failures, settings.breaker_after, settings.retry_min, settings.retry_max
        )
        self._spool = Spool(settings) if settings.spool else None
        self._thread: threading.Thread | None = None
        self._publisher: Publisher | None = None
        # What the thread has taken out of the outbox and not settled; None where that stands in the spool as well.
        self._flying: list[Entry] | None = []
        self._idle = False
        self._hurry = False
        self._hurried = -_URGENCY_LASTS
        self._sent = 0.0
        self._scanned = -settings.spool_scan
        self._closing = False

    @property
    def depth(self) -> int:
        """Events that wait in memory or are on their way."""
        return self._settlement.depth

    @property
    def flushed(self) -> int:
        """How many reached Redis."""
        return self._settlement.flushed

    @property
    def failures(self) -> int:
        """Round trips that failed, in a row; 0 while Redis answers."""
        return self._breaker.failures

    @property
    def away(self) -> bool:
        """Whether Redis is known to be away: then nobody but the outbox's thread tries."""
        return self._breaker.open

    @property
    def spooled(self) -> Counter[str]:
        """What happened to entries on their way to the disk, by ``spooled``, ``spool_full``, ``spool_failed``."""
        return Counter() if self._spool is None else self._spool.counts

    @property
    def spool_bytes(self) -> int:
        """Bytes that wait on this disk, of all processes. Looks at the folder each time."""
        return 0 if self._spool is None else self._spool.used

    def start(self) -> None:
        """Start the thread without an event: what a process that is gone has left behind is sent."""
        with self._lock:
            if self._thread is None:
                self._start()

    def put(self, entry: Entry) -> None:
        """Take an event or mark in. Never blocks on Redis, never raises for its sake."""
        with self._lock:
            self._settlement.expect(entry)
            if entry.keep == "log" or not self._throttle.rate:
                if self._throttle.holding:
                    self._queue(self._throttle.release(entry.channel, entry.topic))
                dropped = self._outbox.push(entry, _now_ms())
                if dropped:
                    self._make_room(entry, dropped)
            else:
                self._throttled(entry)
            if self._thread is None:
                self._start()
            if entry.lane == 0:
                self._hurry = True
                self._hurried = time.monotonic()
            # Waking a thread costs more than queueing an event; one that lingers will look by itself, in time.
            if self._idle or self._hurry or len(self._outbox) == self._settings.batch_events:
                self._lock.notify()
        if self._breaker.open and self.taps and isinstance(entry, Emission):
            self._tap(entry)

    def give_up(self, emission: Emission, reason: str) -> None:
        """Count an event that was never put, because what it tells of has not come true."""
        with self._lock:
            self._settlement.drop_one(emission, reason)

    def flush(self, timeout: float) -> bool:
        """Wait until everything put so far has reached Redis or was given up; False after ``timeout`` seconds, and at
        once while Redis is known to be away.
        """
        if self._is_empty():
            return True
        done = threading.Event()
        told: list[bool] = []

        def tell(settled: bool) -> None:
            told.append(settled)
            done.set()

        if self._when_flushed(tell):
            return True
        return not self.away and done.wait(timeout) and told[0]

    async def aflush(self, timeout: float) -> bool:  # noqa: ASYNC109 - the same signature as flush
        """``flush`` for an event loop."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()

        def settle(settled: bool) -> None:
            if not done.done():
                done.set_result(settled)

        def tell(settled: bool) -> None:
            loop.call_soon_threadsafe(settle, settled)

        if self._when_flushed(tell):
            return True
        if self.away:
            return False
        try:
            async with asyncio.timeout(timeout):
                return await done
        except TimeoutError:
            return False

    def put_strict(self, entry: Entry, timeout: float) -> None:
        """Take an event in and wait until Redis has it.

        Raises:
            Unavailable: Redis is away; the message says whether the event may have been sent.
            Refused: Redis or the outbox would not take it.
            RateLimited: it came too soon after others of its channel.
        """
        if self.away:
            raise Unavailable("Redis is away; nothing was sent")
        self.put(entry)
        settled = self.flush(timeout)
        with self._lock:
            if not settled and self._settlement.waits(entry):
                taken_back = bool(self._outbox.remove(lambda item: item is entry))
                if taken_back:
                    self._settlement.withdraw(entry)
                what = "nothing was sent" if taken_back else "it may have been sent; the same id again is safe"
                raise Unavailable(f"Redis did not take the event within {timeout:g} s; {what}")
        self._settlement.check(entry, self._throttle.rate)

    def close(self, timeout: float) -> bool:
        """Flush, then end the thread. Returns whether everything went out; what did not is on disk, where it can be."""
        whole = self.flush(timeout)
        with self._lock:
            self._closing = True
            self._lock.notify()
            thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout + self._settings.socket_timeout)
        with self._lock:
            self._spill(ending=True)
            if self._spool is not None:
                self._spool.close()
            self._closing = False
        return whole

    def after_fork(self) -> None:
        """Called in a forked child."""
        if self._spool is not None:
            self._spool.close(forked=True)
        self.dropped.clear()
        self.taps.clear()  # they lead to the parent's event loop
        self._begin()

    # --- queueing, with the lock held ------------------------------------------------------------------------

    def _queue(self, entries: Sequence[Entry]) -> None:
        now = _now_ms()
        for entry in entries:
            dropped = self._outbox.push(entry, now)
            if dropped:
                self._make_room(entry, dropped)

    def _make_room(self, entry: Entry, dropped: Sequence[Dropped[Entry]]) -> None:
        """Note what the outbox dropped; if that is the entry itself, empty the outbox to the disk and try again."""
        if dropped[-1].reason == "full" and self._spill():
            dropped = [*dropped[:-1], *self._outbox.push(entry, _now_ms())]
        self._settlement.drop(dropped)

    def _throttled(self, entry: Entry) -> None:
        now = time.monotonic()
        goes, older = self._throttle.admit(entry, now)
        if older is not None:
            self._settlement.drop_one(older, "merged")
        if goes:
            self._queue((entry,))
        elif entry.key is None:
            self._settlement.limit(entry, self._throttle.rate, self._throttle.retry_after(entry.channel, now))

    def _spill(self, *, ending: bool = False) -> bool:
        """Move everything that must not be lost to the disk, in order: so the spool is older than memory, always.

        What is urgent and has nothing there stays.

        Returns whether there is room now.
        """
        if self._spool is None:
            if ending:
                self._settlement.drop_all("ended")
            return False
        waiting = [*(self._flying or ()), *self._settlement.in_order(self._outbox.remove(lambda _: True))]
        urgent = [] if ending else _urgent(waiting, self._spool.holds)
        if 2 * len(urgent) < len(waiting):
            # They go beside the disk, at once; on it they would wait behind the very flood that has filled memory.
            for entry in urgent:
                self._outbox.push(entry, _now_ms())
            stays = set(map(id, urgent))
            waiting = [entry for entry in waiting if id(entry) not in stays]
        lasting = [entry for entry in waiting if entry.keep == "log"]
        kept = self._spool.append(lasting)
        for entry in lasting[:kept]:
            self._settlement.spooled(entry)
        for entry in (*lasting[kept:], *(entry for entry in waiting if entry.keep != "log")):
            self._settlement.drop_one(entry, "shed" if entry.keep != "log" else "spool")
        self._flying = None
        return True

    def _on_disk(self) -> bool:
        return self._spool is not None and self._spool.own_waiting

    def _is_empty(self) -> bool:
        """Whether nothing waits. Asked at the end of every task, most of which have emitted nothing."""
        with self._lock:
            return not self._settlement.depth and not self._throttle.holding and not self._on_disk()

    def _when_flushed(self, tell: Callable[[bool], None]) -> bool:
        """True if nothing waits; else ``tell`` is called once all that waits now is settled."""
        with self._lock:
            self._queue(self._throttle.release_all())
            if not self._settlement.depth and not self._on_disk():
                return True
            self._settlement.call_when_settled(tell)
            self._hurry = True
            self._lock.notify()
            return False

    # --- the thread ------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="eventbus-outbox", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        lock = self._lock
        while True:
            self._scan()
            with lock:
                batch, from_spool = self._gather()
            if batch is None:
                break
            if batch:
                self._carry(batch, from_spool)
            elif from_spool:
                with lock:
                    self._settle_spool(from_spool, whole=True)
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None

    def _scan(self) -> None:
        now = time.monotonic()
        if self._spool is not None and now - self._scanned >= self._settings.spool_scan:
            self._scanned = now
            self._spool.look_for_orphans()

    def _gather(self) -> tuple[list[Entry] | None, int]:
        """Wait for something to send; linger for company unless it is urgent. None: end. Called with the lock held.

        Returns also how many of the batch stand in the spool.
        """
        while not self._outbox and not (self._spool is not None and self._spool.waiting):
            if self._closing:
                return None, 0
            self._idle = True
            self._lock.wait(self._patience())
            self._idle = False
            self._queue(self._throttle.due(time.monotonic()))
            if self._spool is not None and time.monotonic() - self._scanned >= self._settings.spool_scan:
                return [], 0
        if self._throttle.holding:
            self._queue(self._throttle.due(time.monotonic()))
        linger = self._sent + self._settings.linger - time.monotonic()
        if linger > 0 and not self._hurry:
            # Company is waited for only where there was some just now: a lone event goes at once, a stream in batches.
            self._lock.wait_for(self._is_time, linger)
        self._sent = time.monotonic()
        if self._spool is not None and self._spool.waiting:
            return self._from_spool(self._spool)
        # Long batches are cheap, and an urgent event waits for the one on its way: where some were, they are short.
        recently = self._sent - self._hurried < _URGENCY_LASTS
        limit = max(1, self._settings.batch_events // _SHORTER) if recently else self._settings.batch_events
        batch, expired = self._outbox.pop(limit, self._settings.batch_bytes, _now_ms())
        if expired:
            self._settlement.drop(expired)
        if not self._outbox:
            self._hurry = False
        self._flying = batch
        return batch, 0

    def _patience(self) -> float | None:
        """How long the thread may sleep when there is nothing to send."""
        held = self._throttle.next_due(time.monotonic())
        scan = self._settings.spool_scan if self._spool is not None else None
        return min((pause for pause in (held, scan) if pause is not None), default=None)

    def _from_spool(self, spool: Spool) -> tuple[list[Entry], int]:
        """What is on disk goes first, in order; beside it what is urgent and of a topic that has nothing there."""
        now = _now_ms()
        old = spool.take(self._settings.batch_events)
        alive = [entry for entry in old if not 0 < entry.expires <= now]
        self.dropped["expired"] += len(old) - len(alive)
        urgent, expired = self._outbox.pop_urgent(self._settings.batch_events, spool.holds, now)
        self._settlement.drop(expired)
        self._flying = urgent
        return [*alive, *urgent], len(old)

    def _settle_spool(self, taken: int, *, whole: bool) -> None:
        if taken and self._spool is not None:
            if whole:
                self._spool.done()
                self._settlement.tell_waiters()
            else:
                self._spool.put_back()

    def _is_time(self) -> bool:
        return self._hurry or self._closing or len(self._outbox) >= self._settings.batch_events

    def _carry(self, batch: Sequence[Entry], from_spool: int) -> None:
        """Send a batch until it is settled. While Redis is away it is kept, in order, ahead of all that comes after."""
        requests, members = group(batch)
        while requests:
            began = time.monotonic()
            try:
                if self._publisher is None:
                    self._publisher = self._connect()
                answers = self._publisher.publish(requests)
            except Unavailable as error:
                self._pause(began, error)
            except EventBusError as error:
                self._settle(members, [error] * len(members))
                requests = []
            except Exception as error:
                # A bug in here must not end the thread: that would silently end all delivery of this process.
                log.exception("the outbox could not send a batch")
                self._settle(members, [error] * len(members))
                requests = []
            else:
                requests, members = self._settle_answers(requests, members, answers, began)
            with self._lock:
                if requests and (self._closing or self._flying is None):
                    break  # it is on disk by now, or about to be
        with self._lock:
            self._settle_spool(from_spool, whole=not requests)
            if not (requests and self._closing):
                self._flying = []

    def _settle_answers(
        self,
        requests: list[Request],
        members: list[list[Entry]],
        answers: Sequence[Published | Exception],
        began: float,
    ) -> tuple[list[Request], list[list[Entry]]]:
        """Settle what was answered; returns what is to be tried again."""
        again = [i for i, answer in enumerate(answers) if isinstance(answer, Unavailable)]
        rest = [i for i in range(len(answers)) if i not in set(again)]
        self._settle([members[i] for i in rest], [answers[i] for i in rest])
        if again:
            self._pause(began, answers[again[0]])
        else:
            self._breaker.succeeded()
        return [requests[i] for i in again], [members[i] for i in again]

    def _pause(self, began: float, error: Published | Exception) -> None:
        """Back off with full jitter; the ceiling doubles with each failure."""
        with self._lock:
            was_away = self.away
            pause = self._breaker.failed(began, time.monotonic(), random.random())  # noqa: S311 - spreads retries
            self._settlement.log("unavailable", "Redis is not available, %d events wait: %s", self.depth, error)
            if self.away and not was_away:
                self._settlement.release_waiters()
            self._lock.wait_for(lambda: self._closing or self._flying is None, pause)

    def _settle(self, members: Sequence[Sequence[Entry]], answers: Sequence[Published | Exception]) -> None:
        """Note what became of each entry, and tell those who wait for it."""
        with self._lock:
            self._settlement.settle(members, answers)
            if self._flying:
                settled = {id(entry) for entries in members for entry in entries}
                self._flying = [entry for entry in self._flying if id(entry) not in settled]

    def _tap(self, emission: Emission) -> None:
        for tap in self.taps:
            try:
                tap(emission)
            except Exception:
                # Who looks on must not disturb who emits.
                log.exception("a tap of the outbox failed")


def _urgent(waiting: Sequence[Entry], on_disk: Callable[[str], bool]) -> list[Entry]:
    """Entries of the high lane whose topics have nothing on the disk, or on its way there."""
    spilled = {entry.topic for entry in waiting if entry.lane > 0}
    return [entry for entry in waiting if entry.lane == 0 and entry.topic not in spilled and not on_disk(entry.topic)]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


_flushers: weakref.WeakSet[Flusher] = weakref.WeakSet()


def _after_fork() -> None:
    for flusher in list(_flushers):
        flusher.after_fork()


os.register_at_fork(after_in_child=_after_fork)
