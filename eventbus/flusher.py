"""The worker's outbox with its thread: ``put`` costs microseconds, a thread carries batches to Redis.

``put`` never blocks and never raises for Redis' sake. The thread starts with the first event, in the process that emits
it: after a fork the child begins with an empty outbox of its own, and what the parent had stays the parent's.
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
from dataclasses import dataclass

from eventbus.emission import Emission
from eventbus.errors import EventBusError, Unavailable
from eventbus.outbox import Dropped, Outbox
from eventbus.policy import Keep
from eventbus.settings import BusSettings
from eventbus.tally import Mark
from eventbus.transport import Advance, Published, Publisher, Request, Telling, Write

__all__ = ["Flusher", "MarkEntry"]

log = logging.getLogger(__name__)

_LOG_EVERY = 10.0  # seconds between two log lines about the same kind of loss


@dataclass(slots=True, eq=False)
class MarkEntry:
    """A mark on its way to Redis: it keeps its place among the events of its operation.

    ``words`` builds the events that tell of it; called in the outbox's thread, once for neighbouring marks, since that
    costs more than everything else that a task does for its operation.
    """

    channel: str
    topic: str
    operation: str
    mark: Mark
    words: Callable[[], Telling]
    lane: int = 1
    keep: Keep = "log"
    key: str | None = None
    expires: int = 0
    size: int = 400


Entry = Emission | MarkEntry


class Flusher:
    """An outbox, a lock and a thread.

    Attributes:
        dropped: how many events were given up, by reason (``merged`` is counted too, though nothing is lost by it).
        flushed: how many reached Redis.
        failures: round trips that failed, in a row; 0 while Redis answers.
    """

    def __init__(self, settings: BusSettings, connect: Callable[[], Publisher]) -> None:
        self._settings = settings
        self._connect = connect
        self.dropped: Counter[str] = Counter()
        self.flushed = 0
        self._begin()
        _flushers.add(self)

    def _begin(self) -> None:
        """Start empty: in a new process nothing of the parent's may be used, least of all its locks and its socket."""
        self._lock = threading.Condition(threading.RLock())
        self._outbox: Outbox[Entry] = Outbox(self._settings.outbox_events, self._settings.outbox_bytes)
        self._outstanding: dict[Entry, int] = {}
        self._tickets = 0
        self._waiters: list[tuple[int, Callable[[bool], None]]] = []
        self._thread: threading.Thread | None = None
        self._publisher: Publisher | None = None
        self._idle = False
        self._hurry = False
        self._sent = 0.0
        self._closing = False
        self._logged: dict[str, float] = {}
        self.failures = 0

    @property
    def depth(self) -> int:
        """Events that wait or are on their way."""
        return len(self._outstanding)

    def put(self, entry: Entry) -> None:
        """Take an event or mark in. Never blocks on Redis, never raises for its sake."""
        with self._lock:
            dropped = self._outbox.push(entry, _now_ms())
            self._tickets += 1
            self._outstanding[entry] = self._tickets
            if dropped:
                self._drop(dropped)
            if self._thread is None:
                self._start()
            if entry.lane == 0:
                self._hurry = True
            # Waking a thread costs more than queueing an event; one that lingers will look by itself, in time.
            if self._idle or self._hurry or len(self._outbox) == self._settings.batch_events:
                self._lock.notify()

    def flush(self, timeout: float) -> bool:
        """Wait until everything put so far has reached Redis or was given up; False after ``timeout`` seconds."""
        done = threading.Event()
        if self._when_flushed(lambda _: done.set()):
            return True
        return done.wait(timeout)

    async def aflush(self, timeout: float) -> bool:  # noqa: ASYNC109 - the same signature as flush
        """``flush`` for an event loop."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()

        def settle() -> None:
            if not done.done():
                done.set_result(True)

        def tell(_: bool) -> None:
            loop.call_soon_threadsafe(settle)

        if self._when_flushed(tell):
            return True
        try:
            async with asyncio.timeout(timeout):
                return await done
        except TimeoutError:
            return False

    def close(self, timeout: float) -> bool:
        """Flush, then end the thread. Returns whether everything went out."""
        whole = self.flush(timeout)
        with self._lock:
            self._closing = True
            self._lock.notify()
            thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        with self._lock:
            self._closing = False
        return whole

    def after_fork(self) -> None:
        """Called in a forked child."""
        self.dropped.clear()
        self.flushed = 0
        self._begin()

    def _when_flushed(self, tell: Callable[[bool], None]) -> bool:
        """True if nothing waits; else ``tell`` is called once all that waits now is settled."""
        with self._lock:
            if not self._outstanding:
                return True
            self._waiters.append((self._tickets, tell))
            self._hurry = True
            self._lock.notify()
            return False

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="eventbus-outbox", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        lock = self._lock
        while True:
            with lock:
                batch = self._gather()
            if batch is None:
                break
            if batch:
                self._carry(batch)
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None

    def _gather(self) -> list[Entry] | None:
        """Wait for something to send; linger for company unless it is urgent. None: end. Called with the lock held."""
        while not self._outbox:
            if self._closing:
                return None
            self._idle = True
            self._lock.wait()
            self._idle = False
        linger = self._sent + self._settings.linger - time.monotonic()
        if linger > 0 and not self._hurry:
            # Company is waited for only where there was some just now: a lone event goes at once, a stream in batches.
            self._lock.wait_for(self._is_time, linger)
        self._sent = time.monotonic()
        batch, expired = self._outbox.pop(self._settings.batch_events, self._settings.batch_bytes, _now_ms())
        if expired:
            self._drop(expired)
        if not self._outbox:
            self._hurry = False
        return batch

    def _is_time(self) -> bool:
        return self._hurry or self._closing or len(self._outbox) >= self._settings.batch_events

    def _carry(self, batch: Sequence[Entry]) -> None:
        """Send a batch until it is settled. While Redis is away it is kept, in order, ahead of all that comes after."""
        requests, members = _group(batch)
        while requests:
            try:
                if self._publisher is None:
                    self._publisher = self._connect()
                answers = self._publisher.publish(requests)
            except Unavailable as error:
                self._pause(error)
            except EventBusError as error:
                self._settle(members, [error] * len(members))
                return
            except Exception as error:
                # A bug in here must not end the thread: that would silently end all delivery of this process.
                log.exception("the outbox could not send a batch")
                self._settle(members, [error] * len(members))
                return
            else:
                again = [i for i, answer in enumerate(answers) if isinstance(answer, Unavailable)]
                rest = [i for i in range(len(answers)) if i not in set(again)]
                self._settle([members[i] for i in rest], [answers[i] for i in rest])
                requests, members = [requests[i] for i in again], [members[i] for i in again]
                if again:
                    self._pause(answers[again[0]])
                else:
                    self.failures = 0
            if self._closing and requests:
                self._settle(members, [Unavailable("the process ended before Redis came back")] * len(members))
                return

    def _pause(self, error: Published | Exception) -> None:
        """Back off with full jitter; the ceiling doubles with each failure."""
        self.failures += 1
        self._log("unavailable", "Redis is not available, %d events wait: %s", self.depth, error)
        ceiling = min(self._settings.retry_max, self._settings.retry_min * 2 ** min(self.failures, 16))
        with self._lock:
            self._lock.wait_for(lambda: self._closing, random.uniform(0, ceiling))  # noqa: S311 - spreads retries

    def _settle(self, members: Sequence[Sequence[Entry]], answers: Sequence[Published | Exception]) -> None:
        """Note what became of each entry, and tell those who wait for it."""
        with self._lock:
            for entries, answer in zip(members, answers, strict=True):
                for i, entry in enumerate(entries):
                    del self._outstanding[entry]
                    self._note(entry, i, answer)
            self._tell_waiters()

    def _note(self, entry: Entry, i: int, answer: Published | Exception) -> None:
        if isinstance(answer, Exception):
            self.dropped["refused"] += 1
            self._log("refused", "an event was dropped: %s", answer)
            if isinstance(entry, Emission):
                entry.receipt.fate, entry.receipt.reason = "dropped", str(answer)
            return
        self.flushed += 1
        if isinstance(entry, Emission):
            offset = answer.offsets[i]
            entry.receipt.offset = abs(offset)
            entry.receipt.fate = "published" if offset > 0 else "duplicate"

    def _drop(self, dropped: Sequence[Dropped[Entry]]) -> None:
        for drop in dropped:
            self._outstanding.pop(drop.item, None)
            self.dropped[drop.reason] += 1
            if isinstance(drop.item, Emission):
                drop.item.receipt.fate = "merged" if drop.reason == "merged" else "dropped"
                drop.item.receipt.reason = drop.reason
            if drop.reason != "merged":
                self._log(drop.reason, "the outbox dropped %d events (%s)", self.dropped[drop.reason], drop.reason)
        self._tell_waiters()

    def _tell_waiters(self) -> None:
        oldest = next(iter(self._outstanding.values()), self._tickets + 1)
        ready = [tell for ticket, tell in self._waiters if ticket < oldest]
        if ready:
            self._waiters = [waiter for waiter in self._waiters if waiter[0] >= oldest]
            for tell in ready:
                tell(True)

    def _log(self, kind: str, message: str, *facts: object) -> None:
        now = time.monotonic()
        if now - self._logged.get(kind, -_LOG_EVERY) >= _LOG_EVERY:
            self._logged[kind] = now
            log.warning(message, *facts)


def _group(batch: Sequence[Entry]) -> tuple[list[Request], list[list[Entry]]]:
    """Requests, and the entries of each. Order is kept per channel; channels are put together."""
    runs: dict[str, list[list[Entry]]] = {}
    for entry in batch:
        of_channel = runs.setdefault(entry.channel, [])
        if not of_channel or not _alike(of_channel[-1][-1], entry):
            of_channel.append([])
        of_channel[-1].append(entry)
    members = [run for of_channel in runs.values() for run in of_channel]
    return [_request(run) for run in members], members


def _alike(one: Entry, other: Entry) -> bool:
    """Whether two neighbours fit into one request."""
    if isinstance(one, MarkEntry) and isinstance(other, MarkEntry):
        return one.operation == other.operation
    return isinstance(one, Emission) and isinstance(other, Emission)


def _request(run: Sequence[Entry]) -> Request:
    last = run[-1]
    if isinstance(last, MarkEntry):
        marks = [entry.mark for entry in run if isinstance(entry, MarkEntry)]
        return Advance(last.channel, last.operation, marks, last.words())
    return Write(last.channel, [entry for entry in run if isinstance(entry, Emission)])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


_flushers: weakref.WeakSet[Flusher] = weakref.WeakSet()


def _after_fork() -> None:
    for flusher in list(_flushers):
        flusher.after_fork()


os.register_at_fork(after_in_child=_after_fork)
