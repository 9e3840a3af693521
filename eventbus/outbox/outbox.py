"""The outbox of a process: ``put`` takes microseconds, and a thread sends batches to Redis.

``put`` never raises because of Redis. It blocks for the disk at most, when memory is full. The thread starts with the
first event, in the process that emits it. A forked child begins with an empty outbox; the parent keeps its events.

``flush`` sends a small batch from the calling thread: to wake the background thread takes longer than the round trip to
Redis. It makes one attempt within its timeout. The background thread sends what is unsettled then; ids make a second
attempt harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable

from eventbus.backends.ports import Publisher
from eventbus.errors import Unavailable
from eventbus.events.encoder import Emission
from eventbus.outbox.entries import Entry
from eventbus.outbox.sender_thread import SenderThread
from eventbus.process_state import check_process, renew_in_child
from eventbus.settings import BusSettings

__all__ = ["Outbox"]

log = logging.getLogger(__name__)


class Outbox:
    """Takes events and transitions in, and reports what happened to them.

    Args:
        settings: limits and pauses.
        connect: makes a publisher; called in the outbox's thread.

    Attributes:
        dropped: number of dropped events by reason. ``merged`` counts states that a newer state replaced.
        observers: called with each event that is put while Redis is down, in the caller's thread.
    """

    def __init__(self, settings: BusSettings, connect: Callable[[], Publisher]) -> None:
        self._settings = settings
        self._address = settings.redis_address
        self._connect = connect
        self.dropped: Counter[str] = Counter()
        self.observers: list[Callable[[Emission], None]] = []
        self._begin()
        _outboxes.add(self)

    def _begin(self) -> None:
        """Start empty. A forked child must not use the parent's locks and socket."""
        self._thread = SenderThread(self._settings, self._connect, self.dropped)
        self._buffer = self._thread.buffer
        self._breaker = self._thread.sender.breaker
        self._known = _KnownLosses()

    @property
    def depth(self) -> int:
        """Events that wait in memory or are in flight."""
        return self._buffer.tracker.depth

    @property
    def blocked(self) -> int:
        """Events that wait for a shard of Redis that does not answer, while others do. They are part of ``depth``."""
        return len(self._buffer.tracker.blocked)

    @property
    def flushed(self) -> int:
        """Events that reached Redis."""
        return self._buffer.tracker.flushed

    @property
    def failures(self) -> int:
        """Round trips that failed in a row; 0 while Redis answers."""
        return self._breaker.failures

    @property
    def unexpected(self) -> int:
        """Attempts that failed with an unexpected error: neither an outage nor a refusal."""
        return self._thread.sender.unexpected

    @property
    def redis_down(self) -> bool:
        """Whether the circuit breaker is open: then only the outbox's thread tries to reach Redis."""
        return self._breaker.open

    @property
    def spooled(self) -> Counter[str]:
        """Number of entries by ``spooled``, ``spool_full`` and ``spool_failed``."""
        return Counter() if self._buffer.spool is None else self._buffer.spool.counts

    @property
    def spool_bytes(self) -> int:
        """Bytes that wait on this disk, of all processes. Reads the folder at each call."""
        return 0 if self._buffer.spool is None else self._buffer.spool.used

    def start(self) -> None:
        """Start the thread without an event: it sends what ended processes left on disk."""
        check_process()
        self._thread.start()

    def keep_off_disk(self) -> None:
        """Write no spool any more in this process. Events on disk stay there."""
        if self._buffer.spool is not None:
            with self._thread.lock:
                self._buffer.without_spool()

    def put(self, entry: Entry) -> None:
        """Add an event or a transition. Never blocks on Redis and never raises because of it.

        Args:
            entry: made in this process: to make it has renewed the state of a forked child (``check_process``).
        """
        if self._known.number is None:
            self._known.number = self._buffer.tracker.lost
        self._thread.put(entry)
        if self._breaker.open and self.observers and isinstance(entry, Emission):
            self._notify_observers(entry)

    def give_up(self, emission: Emission, reason: str) -> None:
        """Count a deferred event that was never put, because its task failed or its transaction was rolled back.

        Args:
            emission: the event.
            reason: key in ``dropped``.
        """
        with self._thread.lock:
            self._buffer.tracker.drop_one(emission, reason)

    def flush(self, timeout: float) -> bool:
        """Wait until Redis has everything that was put so far.

        Args:
            timeout: seconds to wait, at most.

        Returns:
            False after ``timeout``, immediately while Redis or the shard of what is left is down, and if this process
            dropped an event since the last call of this thread that waited to the end.
        """
        check_process()
        known = self._known.number or 0
        return self.wait_settled(timeout) and self._lost_nothing_since(known)

    def _lost_nothing_since(self, known: int) -> bool:
        self._known.number = self._buffer.tracker.lost
        return self._known.number == known

    def wait_settled(self, timeout: float, *, also_down: bool = False) -> bool:
        """Wait until Redis has everything that was put so far, or the outbox dropped it.

        Args:
            timeout: seconds to wait, at most.
            also_down: wait although Redis is down.

        Returns:
            Whether everything is settled.
        """
        check_process()
        if self._buffer.is_empty():
            return True
        ends = time.monotonic() + timeout
        done = threading.Event()
        results: list[bool] = []

        def settled(result: bool) -> None:
            results.append(result)
            done.set()

        batch = None
        try:
            empty, batch = self._thread.begin_flush(settled, done)
            if empty:
                return True
            if batch is not None:
                self._thread.sender.try_once(batch, timeout)
        finally:
            self._thread.end_turn(done, batch)
        waits = also_down or not self.redis_down
        return waits and done.wait(max(0.0, ends - time.monotonic())) and results[0]

    async def await_settled(self, timeout: float) -> bool:  # noqa: ASYNC109 - the same signature as wait_settled
        """``wait_settled`` for an event loop.

        Args:
            timeout: seconds to wait, at most.

        Returns:
            As ``wait_settled``.
        """
        check_process()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()

        def set_result(result: bool) -> None:
            if not done.done():
                done.set_result(result)

        def settled(result: bool) -> None:
            # The waiting task and its loop may have ended. An error here would end the thread, and all delivery.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(set_result, result)

        empty, _ = self._thread.begin_flush(settled, None)
        if empty or self.redis_down:
            return empty
        try:
            async with asyncio.timeout(timeout):
                return await done
        except TimeoutError:
            return False

    def put_strict(self, entry: Entry, timeout: float) -> None:
        """Add an event and wait until Redis has it.

        Args:
            entry: what to send.
            timeout: seconds to wait, at most.

        Raises:
            Unavailable: Redis is down; the message says whether the event may have been sent.
            Refused: Redis or the outbox refused it.
            RateLimited: too many events of its channel came before it.
        """
        isolating = self._thread.sender.isolating
        if self.redis_down and not isolating:
            raise Unavailable(f"cannot reach Redis at {self._address} (EVENTBUS_REDIS_URL); nothing was sent")
        self.put(entry)
        # A faulty event holds up the others until one of them is published: this one may be it.
        settled = self.wait_settled(timeout, also_down=isolating)
        if not settled:
            self._check_unsettled(entry, timeout)
        self._buffer.tracker.check(entry, self._buffer.rate_limiter.rate)

    def _check_unsettled(self, entry: Entry, timeout: float) -> None:
        """Raise Unavailable for an event that Redis did not take in time."""
        with self._thread.lock:
            if self._buffer.tracker.is_open(entry):
                removed = self._buffer.withdraw(entry)
                state = "nothing was sent" if removed else "it may have been sent; the same id again is safe"
            elif isinstance(entry, Emission) and entry.receipt.status == "spooled":
                # Other events filled the memory meanwhile. It will be sent, but strict promises that Redis has it.
                state = "it is on this host's disk and goes out when Redis is reachable; the same id again is safe"
            else:
                return
        raise Unavailable(
            f"Redis at {self._address} (EVENTBUS_REDIS_URL) did not take the event within {timeout:g} s; {state}"
        )

    def close(self, timeout: float) -> bool:
        """Flush, then end the thread. The spool, where there is one, takes what Redis did not take.

        Args:
            timeout: seconds for the flush.

        Returns:
            Whether everything went out.
        """
        flushed = self.flush(timeout)
        self._thread.stop(timeout)
        return flushed

    def after_fork(self) -> None:
        """Begin anew in a forked child."""
        if self._buffer.spool is not None:
            self._buffer.spool.close(forked=True)
        self.dropped.clear()
        self.observers.clear()  # they use the parent's event loop
        self._begin()

    def _notify_observers(self, emission: Emission) -> None:
        for observer in self.observers:
            try:
                observer(emission)
            except Exception:
                # An observer's error must not reach the caller of emit().
                log.exception("an observer of the outbox failed")


class _KnownLosses(threading.local):
    """How many lost events a thread knows of; None before it has put one."""

    number: int | None = None


_outboxes: weakref.WeakSet[Outbox] = weakref.WeakSet()


def _after_fork() -> None:
    for outbox in list(_outboxes):
        outbox.after_fork()


renew_in_child(_after_fork)
