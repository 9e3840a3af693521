"""The worker's outbox with its thread: ``put`` costs microseconds, a thread carries batches to Redis.

``put`` never raises for Redis' sake, and blocks for the disk at most, when memory is full. The thread starts with the
first event, in the process that emits it: after a fork the child begins with an empty outbox of its own, and what the
parent had stays the parent's.

Who flushes, and would only wait for the thread, carries what waits itself: to wake a thread, and to be woken by it,
costs more than the round trip. It tries once, within its own time; what then is not settled is the thread's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Final

from eventbus.backends.ports import Publisher
from eventbus.errors import Unavailable
from eventbus.events.encoder import Emission
from eventbus.outbox.buffer import SendBuffer
from eventbus.outbox.entries import Entry, TransitionEntry
from eventbus.outbox.sender import InFlightBatch, Sender
from eventbus.settings import BusSettings

__all__ = ["Outbox", "TransitionEntry"]

log = logging.getLogger(__name__)

# After an urgent event batches are so much shorter, for so many seconds.
_SHORTER = 4
_URGENCY_LASTS = 5.0

# Entries that somebody who flushes carries; more are left to the thread.
_FEW: Final = 64


class Outbox:
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
        _outboxes.add(self)

    def _begin(self) -> None:
        """Start empty: in a new process nothing of the parent's may be used, least of all its locks and its socket."""
        settings = self._settings
        self._lock = threading.Condition(threading.RLock())
        self._stock = SendBuffer(settings, self.dropped)
        self._carrier = Sender(settings, self._connect, self._lock, self._stock)
        self._thread: threading.Thread | None = None
        # Who is on the way to Redis: nobody else may be, for the order's sake.
        self._carried_by: object | None = None
        self._left: InFlightBatch | None = None  # what somebody who flushed could not settle
        self._idle = False
        self._hurry = False
        self._hurried = -_URGENCY_LASTS
        self._sent = 0.0

    @property
    def depth(self) -> int:
        """Events that wait in memory or are on their way."""
        return self._stock.settlement.depth

    @property
    def flushed(self) -> int:
        """How many reached Redis."""
        return self._stock.settlement.flushed

    @property
    def failures(self) -> int:
        """Round trips that failed, in a row; 0 while Redis answers."""
        return self._carrier.breaker.failures

    @property
    def redis_down(self) -> bool:
        """Whether Redis is known to be away: then nobody but the outbox's thread tries."""
        return self._carrier.breaker.open

    @property
    def spooled(self) -> Counter[str]:
        """What happened to entries on their way to the disk, by ``spooled``, ``spool_full``, ``spool_failed``."""
        return Counter() if self._stock.spool is None else self._stock.spool.counts

    @property
    def spool_bytes(self) -> int:
        """Bytes that wait on this disk, of all processes. Looks at the folder each time."""
        return 0 if self._stock.spool is None else self._stock.spool.used

    def start(self) -> None:
        """Start the thread without an event: what a process that is gone has left behind is sent."""
        with self._lock:
            if self._thread is None:
                self._start()

    def put(self, entry: Entry) -> None:
        """Take an event or mark in. Never blocks on Redis, never raises for its sake."""
        with self._lock:
            self._stock.put(entry)
            if self._thread is None:
                self._start()
            if entry.lane == 0:
                self._hurry = True
                self._hurried = time.monotonic()
            # Waking a thread costs more than queueing an event; one that lingers will look by itself, in time.
            if self._idle or self._hurry or len(self._stock) == self._settings.batch_events:
                self._lock.notify()
        if self._carrier.breaker.open and self.taps and isinstance(entry, Emission):
            self._tap(entry)

    def give_up(self, emission: Emission, reason: str) -> None:
        """Count an event that was never put, because what it tells of has not come true."""
        with self._lock:
            self._stock.settlement.drop_one(emission, reason)

    def flush(self, timeout: float) -> bool:
        """Wait until everything put so far has reached Redis or was given up; False after ``timeout`` seconds, and at
        once while Redis is known to be away.
        """
        if self._stock.is_empty():
            return True
        ends = time.monotonic() + timeout
        done = threading.Event()
        told: list[bool] = []

        def tell(settled: bool) -> None:
            told.append(settled)
            done.set()

        load = None
        try:
            with self._lock:
                if self._settles_at_once(tell):
                    return True
                if self._may_carry():
                    load = self._take(done)
                if load is None:
                    self._press()
            if load is not None:
                self._carrier.try_once(load, timeout)
        finally:
            if self._carried_by is done:
                self._leave(load)
        return not self.redis_down and done.wait(max(0.0, ends - time.monotonic())) and told[0]

    async def aflush(self, timeout: float) -> bool:  # noqa: ASYNC109 - the same signature as flush
        """``flush`` for an event loop."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()

        def settle(settled: bool) -> None:
            if not done.done():
                done.set_result(settled)

        def tell(settled: bool) -> None:
            # Who waited may be gone, and its loop with it. An error would end the thread that tells, and all delivery.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, settled)

        with self._lock:
            if self._settles_at_once(tell):
                return True
            self._press()
        if self.redis_down:
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
        if self.redis_down:
            raise Unavailable("Redis is away; nothing was sent")
        self.put(entry)
        settled = self.flush(timeout)
        with self._lock:
            if not settled and self._stock.settlement.waits(entry):
                what = (
                    "nothing was sent"
                    if self._stock.withdraw(entry)
                    else "it may have been sent; the same id again is safe"
                )
                raise Unavailable(f"Redis did not take the event within {timeout:g} s; {what}")
            if not settled and isinstance(entry, Emission) and entry.receipt.status == "spooled":
                # Others filled the memory meanwhile. It will be sent, but that is not what was asked for.
                what = "it is on this host's disk, and goes out when Redis is back; the same id again is safe"
                raise Unavailable(f"Redis did not take the event within {timeout:g} s; {what}")
        self._stock.settlement.check(entry, self._stock.throttle.rate)

    def close(self, timeout: float) -> bool:
        """Flush, then end the thread. Returns whether everything went out; what did not is on disk, where it can be."""
        whole = self.flush(timeout)
        with self._lock:
            self._carrier.closing = True
            self._lock.notify()
            thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout + self._settings.socket_timeout)
        with self._lock:
            self._stock.end()
            self._carrier.closing = False
        return whole

    def after_fork(self) -> None:
        """Called in a forked child."""
        if self._stock.spool is not None:
            self._stock.spool.close(forked=True)
        self.dropped.clear()
        self.taps.clear()  # they lead to the parent's event loop
        self._begin()

    # --- whoever flushes -------------------------------------------------------------------------------------

    def _settles_at_once(self, tell: Callable[[bool], None]) -> bool:
        """True if nothing waits; else ``tell`` is called once all that waits now is settled. With the lock held."""
        if self._stock.throttle.holding:
            self._stock.queue(self._stock.throttle.release_all())
        if not self._stock.settlement.depth and not self._stock.on_disk():
            return True
        self._stock.settlement.call_when_settled(tell)
        return False

    def _press(self) -> None:
        """Have the thread send what waits, now. With the lock held."""
        self._hurry = True
        self._lock.notify()

    def _may_carry(self) -> bool:
        """Whether it is a matter of one quick round trip, over a connection that there is. With the lock held."""
        return (
            self._carrier.quick
            and not (self._carried_by or self._carrier.closing or self._left)
            and not self._stock.spool_waiting
            and 0 < len(self._stock) <= _FEW
        )

    def _take(self, carrier: object) -> InFlightBatch | None:
        """Take what is to be sent next, if there is anything: from now on nobody else may. With the lock held."""
        now = time.monotonic()
        # Long batches are cheap, and an urgent event waits for the one on its way: where some were, they are short.
        recently = now - self._hurried < _URGENCY_LASTS
        limit = max(1, self._settings.batch_events // _SHORTER) if recently else self._settings.batch_events
        self._carried_by = carrier
        batch, spooled = self._stock.take(limit)
        if not len(self._stock):
            self._hurry = False
        if not batch and not spooled:
            self._carried_by = None
            return None
        self._sent = now
        return InFlightBatch.of(batch, spooled)

    def _leave(self, load: InFlightBatch | None) -> None:
        """Leave to the thread what is not settled, whatever has come in between, be it a signal's."""
        with self._lock:
            flying = self._stock.flying
            if load is None and flying:
                load = InFlightBatch.of(flying)
            if load is not None and load.requests and flying is not None:
                self._left = load
            else:
                self._stock.flying = []
            self._carried_by = None
            if self._left is not None or self._stock.ready or self._carrier.closing:
                self._lock.notify()

    # --- the thread ------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="eventbus-outbox", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            self._stock.scan()
            with self._lock:
                load = self._gather()
            if load is None:
                break
            if load.requests or load.spooled:
                self._carry(load)
        self._carrier.close()

    def _gather(self) -> InFlightBatch | None:
        """Wait for something to send; linger for company unless it is urgent. None: end. Called with the lock held."""
        while self._carried_by or not (self._left or self._stock.ready):
            if self._carrier.closing and not self._carried_by:
                return None
            self._rest()
            if self._stock.scan_due:
                return InFlightBatch([], [])
        self._stock.release_due()
        while (linger := self._lingers()) > 0 and len(self._stock):
            # Company is waited for only where there was some just now: a lone event goes at once, a stream in batches.
            self._lock.wait_for(self._is_time, linger)
        if self._carried_by:
            return InFlightBatch([], [])
        left, self._left = self._left, None
        if left is not None:
            self._carried_by = self
            return left
        return self._take(self) or InFlightBatch([], [])

    def _rest(self) -> None:
        """Sleep until something comes. Just after a batch it does so for the time of a linger without being woken."""
        linger = self._lingers()
        if linger > 0:
            self._lock.wait(linger)
            return
        self._idle = True
        self._lock.wait(self._stock.patience())
        self._idle = False
        self._stock.release_due()

    def _lingers(self) -> float:
        """Seconds until the next batch may go."""
        return 0.0 if self._is_time() else self._sent + self._settings.linger - time.monotonic()

    def _is_time(self) -> bool:
        if self._hurry or self._carrier.closing or self._left is not None:
            return True
        return len(self._stock) >= self._settings.batch_events

    def _carry(self, load: InFlightBatch) -> None:
        self._carrier.carry(load)
        with self._lock:
            self._carried_by = None
            self._stock.settle_spool(load.spooled, whole=not load.requests)
            if not (load.requests and self._carrier.closing):
                self._stock.flying = []

    def _tap(self, emission: Emission) -> None:
        for tap in self.taps:
            try:
                tap(emission)
            except Exception:
                # Who looks on must not disturb who emits.
                log.exception("a tap of the outbox failed")


_outboxes: weakref.WeakSet[Outbox] = weakref.WeakSet()


def _after_fork() -> None:
    for outbox in list(_outboxes):
        outbox.after_fork()


os.register_at_fork(after_in_child=_after_fork)
