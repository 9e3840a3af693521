"""The thread that sends what waits in the outbox, and the lock around it.

One sender at a time: the thread, or a caller of ``flush`` that sends a small batch itself. The sender holds the *turn*
from the moment it takes a batch until the batch is settled. A second sender could overtake the first.

Public methods take the lock. Private methods whose name begins with ``_locked`` run with the lock held.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from eventbus.backends.ports import Publisher
from eventbus.outbox.batch_policy import BatchPolicy
from eventbus.outbox.buffer import SendBuffer
from eventbus.outbox.entries import Entry
from eventbus.outbox.in_flight import InFlightBatch
from eventbus.outbox.sender import Sender
from eventbus.settings import BusSettings

__all__ = ["SenderThread"]

# Entries that a caller of flush() sends itself; more are left to the thread.
_FEW: Final = 64


class SenderThread:
    """A send buffer, a sender and the thread that moves entries from one to the other.

    The thread starts with the first entry and is a daemon. ``stop`` ends it, and the next entry starts another.

    Args:
        settings: limits and pauses.
        connect: makes a publisher; called in the thread.
        dropped: counts dropped entries by reason.

    Attributes:
        lock: guards the buffer. Entries are settled under it.
        buffer: entries that wait.
        sender: the connection to Redis and its circuit breaker.
    """

    def __init__(self, settings: BusSettings, connect: Callable[[], Publisher], dropped: Counter[str]) -> None:
        self.lock = threading.Condition(threading.RLock())
        self.buffer = SendBuffer(settings, dropped)
        self.sender = Sender(settings, connect, self.lock, self.buffer)
        self._policy = BatchPolicy(settings.linger, settings.batch_events)
        self._join_seconds = settings.socket_timeout
        self._thread: threading.Thread | None = None
        self._turn: object | None = None  # holds the turn to send
        self._unsent: InFlightBatch | None = None  # a batch that a caller of flush() could not settle
        self._idle = False

    def start(self) -> None:
        """Start the thread, unless it runs. It looks for the spools of ended processes first."""
        with self.lock:
            if self._thread is None:
                self._locked_start()

    def put(self, entry: Entry) -> None:
        """Add an entry to the buffer and wake the thread if it has to send now.

        Args:
            entry: an event or a transition.
        """
        buffer, policy = self.buffer, self._policy
        with self.lock:
            buffer.put(entry)
            if self._thread is None:
                self._locked_start()
            if entry.lane == 0:
                policy.urgent_event(time.monotonic())
            # To wake a thread costs more than to queue an event. A thread that lingers looks by itself, in time.
            if self._idle or policy.hurry or policy.is_full(len(buffer)) or self.sender.isolating:
                self.lock.notify()

    def stop(self, timeout: float) -> None:
        """End the thread after one more try, and move the rest to disk.

        Args:
            timeout: seconds to wait for the thread, in addition to the socket's timeout.
        """
        with self.lock:
            self.sender.closing = True
            self.lock.notify()
            thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout + self._join_seconds)
        with self.lock:
            self.buffer.end()
            self.sender.closing = False

    def begin_flush(self, settled: Callable[[bool], None], turn: object | None) -> tuple[bool, InFlightBatch | None]:
        """Have everything that waits now sent.

        Args:
            settled: called once all of it is settled; with False when Redis becomes unreachable meanwhile.
            turn: identifies a caller that can send a small batch itself; None: leave all of it to the thread.

        Returns:
            Whether nothing waits, and the batch that the caller has to send. After it the caller calls ``end_turn``.
        """
        with self.lock:
            if self.buffer.settles_now(settled):
                return True, None
            batch = self._locked_take(turn) if turn is not None and self._locked_may_send_here() else None
            if batch is None:
                self._policy.flush_requested()
                self.lock.notify()
            return False, batch

    def end_turn(self, turn: object, batch: InFlightBatch | None) -> None:
        """Leave the unsettled part of a batch to the thread. Does nothing for a caller that does not hold the turn.

        A signal may have interrupted the caller anywhere, so the batch may be unknown here.

        Args:
            turn: as given to ``begin_flush``.
            batch: as returned by it.
        """
        if self._turn is not turn:
            return
        with self.lock:
            in_flight = self.buffer.in_flight
            if batch is None and in_flight.entries:
                batch = InFlightBatch.of(in_flight.entries)
            if batch is not None and batch.requests and not in_flight.spooled:
                self._unsent = batch
            else:
                in_flight.clear()
            self._turn = None
            if self._unsent is not None or self.buffer.ready or self.sender.closing:
                self.lock.notify()

    def _locked_may_send_here(self) -> bool:
        """Whether the caller can send: one quick round trip over a connection that is open already."""
        return (
            self.sender.quick
            and not (self._turn or self.sender.closing or self._unsent)
            and not self.buffer.spool_waiting
            and 0 < len(self.buffer) <= _FEW
        )

    def _locked_take(self, turn: object) -> InFlightBatch | None:
        """Take the turn and the next batch; None and no turn if there is nothing to send."""
        now = time.monotonic()
        self._turn = turn
        batch, from_spool = self.buffer.take(self._policy.limit(now))
        self._policy.taken(now, entries=len(batch) + from_spool, waiting=len(self.buffer))
        if not batch and not from_spool:
            self._turn = None
            return None
        return InFlightBatch.of(batch, from_spool)

    def _locked_start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="eventbus-outbox", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        going_on = True
        while going_on and self._continues():
            self.buffer.scan()
            with self.lock:
                batch = self._locked_gather()
                rests = batch is not None and self._locked_begin_rest()
            if rests:
                self.sender.rest()
                with self.lock:
                    self._turn = None
            going_on = batch is not None and self._send(batch)
        with self.lock:
            if self._thread in (None, threading.current_thread()):
                self.sender.close()
            self.lock.notify()

    def _continues(self) -> bool:
        """False for a thread that ``stop`` did not wait for: the next entry has started another one."""
        with self.lock:
            return self.sender.closing or self._thread is threading.current_thread()

    def _send(self, batch: InFlightBatch) -> bool:
        """Send a batch until it is settled, on disk, or the outbox closes.

        Returns whether to go on. A batch that failed while the outbox closes is the last one: a later batch would
        take its place in flight, and reach the disk before it.
        """
        if not (batch.requests or batch.from_spool):
            return True
        self.sender.send(batch)
        blocked = self.buffer.blocked
        with self.lock:
            self._turn = None
            if not batch.requests:
                blocked.remove(batch)
            if batch not in blocked:
                self.buffer.settle_spool(batch.from_spool, whole=not batch.requests)
                if batch.requests and self.sender.closing:
                    return False
            self.buffer.in_flight.clear()
            return True

    def _locked_gather(self) -> InFlightBatch | None:
        """Wait for something to send. Returns None at the end, and an empty batch where there is nothing yet."""
        while self._turn or not (self._unsent or self.buffer.ready or self._locked_blocked_due()):
            if self.sender.closing and not self._turn:
                return None
            self._locked_rest()
            if self.buffer.scan_due or self._locked_rest_due():
                return InFlightBatch([], [])
        self.buffer.release_due()
        while (pause := self._locked_pause()) > 0 and len(self.buffer):
            # Only a stream lingers: a single event goes immediately.
            self.lock.wait_for(self._locked_is_due, pause)
        if self._turn:
            return InFlightBatch([], [])
        unsent, self._unsent = self._unsent, None
        if unsent is not None:
            self._turn = self
            return unsent
        blocked = self._locked_blocked_due()
        if blocked is not None:
            self._turn = self
            return blocked
        return self._locked_take(self) or InFlightBatch([], [])

    def _locked_blocked_due(self) -> InFlightBatch | None:
        """A batch that waits for its shard, if it is time to try again. At the end it goes to the disk."""
        return None if self.sender.closing else self.buffer.blocked.due(time.monotonic())

    def _locked_rest_due(self) -> bool:
        due = None if self._turn else self.sender.rest_in
        return due is not None and due <= 0

    def _locked_begin_rest(self) -> bool:
        """Take the turn to say that this process is idle, if that is due."""
        if self._unsent is not None or self.buffer.ready or not self._locked_rest_due():
            return False
        self._turn = self
        return True

    def _locked_rest(self) -> None:
        """Sleep until there is something to do. Shortly after a batch, sleep for the linger without being woken."""
        pause = self._locked_pause()
        if pause > 0:
            self.lock.wait(pause)
            return
        self._idle = True
        times = [self.buffer.due_in()]
        if not self._turn:
            times += [self.sender.rest_in, self.buffer.blocked.due_in(time.monotonic())]
        self.lock.wait(min((seconds for seconds in times if seconds is not None), default=None))
        self._idle = False
        self.buffer.release_due()

    def _locked_pause(self) -> float:
        """Seconds until the next batch may go."""
        if self.sender.closing or self._unsent is not None:
            return 0.0
        return self._policy.pause(time.monotonic(), len(self.buffer))

    def _locked_is_due(self) -> bool:
        closing = self.sender.closing or self._unsent is not None
        return closing or self._policy.hurry or self._policy.is_full(len(self.buffer))
