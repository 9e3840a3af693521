"""Sends batches to Redis: once within a caller's time limit, or from the outbox's thread until they are settled."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Sequence

from eventbus.backends.ports import Published, Publisher, Request, RestingPublisher, TimedPublisher
from eventbus.backends.shards import ShardedPublisher
from eventbus.errors import EventBusError, Refused, Unavailable
from eventbus.flow.circuit_breaker import CircuitBreaker
from eventbus.outbox.buffer import SendBuffer
from eventbus.outbox.entries import group
from eventbus.outbox.in_flight import InFlightBatch
from eventbus.outbox.tracker import Culprit
from eventbus.settings import BusSettings

__all__ = ["Sender"]

log = logging.getLogger(__name__)


class Sender:
    """A connection and a circuit breaker. Used by one thread at a time.

    Args:
        settings: limits and pauses.
        connect: makes a publisher.
        lock: guards the buffer. A pause ends when it is notified of ``closing``, or that the batch is on disk.
        buffer: is given the answers.

    Attributes:
        breaker: opens after failures in a row.
        closing: whether failed requests are not tried again.
        unexpected: attempts that failed with an error that is neither a refusal nor an outage.
        isolating: whether each entry is sent alone, to find the one that always fails.
    """

    def __init__(
        self, settings: BusSettings, connect: Callable[[], Publisher], lock: threading.Condition, buffer: SendBuffer
    ) -> None:
        self._connect = connect
        self._lock = lock
        self._buffer = buffer
        self.breaker = CircuitBreaker(
            settings.breaker_failures, settings.breaker_after, settings.retry_min, settings.retry_max
        )
        self.closing = False
        self.unexpected = 0
        self.isolating = False
        self._tries, self._batch_events = settings.unexpected_tries, settings.batch_events
        self._shortest_pause = settings.retry_min
        self._address = settings.redis_address
        self._publisher: Publisher | None = None
        self._timed: TimedPublisher | None = None
        self._resting: RestingPublisher | None = None
        self._sharded: ShardedPublisher | None = None
        self._no_rest_before = 0.0

    @property
    def quick(self) -> bool:
        """Whether there is an open connection that a caller with limited time can use."""
        return self._timed is not None and not self.breaker.failures

    def try_once(self, batch: InFlightBatch, seconds: float) -> None:
        """Make one attempt. Requests that are not settled remain in the batch.

        Args:
            batch: what to send.
            seconds: time limit of the attempt.
        """
        assert self._timed is not None
        try:
            answers = self._timed.publish_within(batch.requests, seconds)
        except EventBusError as error:
            # The thread makes the same attempt again and handles the error. Other exceptions pass: they may come from a
            # signal, such as Celery's time limit, and belong to the caller.
            log.debug("left to the outbox' thread: %s", error)
            return
        self._settle(batch, answers)

    def send(self, batch: InFlightBatch) -> None:
        """Send until everything is settled. While Redis is down the batch waits, ahead of later entries.

        Only an explicit refusal settles a request. Any other error keeps it, and it is tried again. After
        ``unexpected_tries`` failures with an unexpected error, the entries that fail while others are
        published are dropped, so that they do not hold up the rest of the process. Requests whose shard does not answer
        are set aside while others do.

        Args:
            batch: what to send.
        """
        tries = 0
        while batch.requests:
            began = time.monotonic()
            try:
                answers: list[Published | Exception] = [*self._connected().publish(batch.requests)]
            except EventBusError as error:
                answers = [error] * len(batch.requests)
            except Exception as error:
                # A bug in here must not end the thread: that would end all delivery of this process without a trace.
                log.exception("the outbox could not send a batch")
                answers = self._one_by_one(batch.requests, error)
            if self.isolating:
                self._mark_culprits(answers)
            failures = self._settle(batch, answers)
            failure = failures[0] if failures else None
            if failure is None:
                self.breaker.succeeded()
                break
            if batch.spooled or self._set_aside(batch, failures):
                self.breaker.succeeded()
                break
            tries = tries + 1 if _is_unexpected(failure) else 0
            self.isolating = self.isolating or tries >= self._tries
            self._pause(began, failure, for_others=self.isolating and len(batch.requests) <= self._batch_events)
            with self._lock:
                if self._is_given_up():
                    break  # it is on disk, or will be
                if self.isolating:
                    self._isolate(batch)
        self.isolating = False

    @property
    def rest_in(self) -> float | None:
        """Seconds until ``rest`` is due; None: it is not due."""
        due = None if self._resting is None else self._resting.rest_in
        return None if due is None else max(due, self._no_rest_before - time.monotonic())

    def rest(self) -> None:
        """Let Redis know that this process writes nothing for now. Tries once; ``rest_in`` names the next time."""
        if self._resting is None:
            return
        try:
            self._resting.rest()
        except EventBusError as error:
            log.debug("cannot say that this process is idle: %s", error)
            self._no_rest_before = time.monotonic() + random.uniform(0.2, 0.5)  # noqa: S311 - spreads retries

    def _connected(self) -> Publisher:
        if self._publisher is None:
            self._publisher = self._connect()
            self._timed = self._publisher if isinstance(self._publisher, TimedPublisher) else None
            self._resting = self._publisher if isinstance(self._publisher, RestingPublisher) else None
            self._sharded = self._publisher if isinstance(self._publisher, ShardedPublisher) else None
        return self._publisher

    def _one_by_one(self, requests: Sequence[Request], error: Exception) -> list[Published | Exception]:
        """After an error of a whole batch, send each request alone: a faulty one must not affect the others."""
        if self._publisher is None or len(requests) == 1:
            return [error] * len(requests)
        answers: list[Published | Exception] = []
        failed: dict[str, Exception] = {}
        for request in requests:
            if request.channel in failed and not self.isolating:
                answers.append(failed[request.channel])  # it must not overtake the one that is tried again
                continue
            try:
                answers += self._publisher.publish([request])
            except Unavailable as unavailable:
                answers += [unavailable] * (len(requests) - len(answers))
                break
            except Exception as its_error:
                if request.channel not in failed:
                    log.exception("cannot send to %s", request.channel)
                failed[request.channel] = its_error
                answers.append(its_error)
        return answers

    def _isolate(self, batch: InFlightBatch) -> None:
        """Make each entry of a batch its own request, and send what waits behind it along. With the lock held.

        If that is published, the connection works, and the entries that still fail are the cause.
        """
        entries = [entry for members in batch.members for entry in members]
        if len(entries) <= self._batch_events:
            entries += self._buffer.take_more(self._batch_events)
        groups = [group([entry]) for entry in entries]
        batch.requests = [requests[0] for requests, _ in groups]
        batch.members = [members[0] for _, members in groups]

    def _mark_culprits(self, answers: list[Published | Exception]) -> None:
        """Have requests dropped that fail with an unexpected error while others of the batch are published."""
        if not any(isinstance(answer, Published) for answer in answers):
            return
        for i, answer in enumerate(answers):
            if isinstance(answer, Exception) and _is_unexpected(answer):
                answers[i] = Culprit(f"failed {self._tries} times while others were published: {answer!r}")

    def _set_aside(self, batch: InFlightBatch, failures: Sequence[Exception]) -> bool:
        """Set a batch aside if its shard does not answer while others do."""
        shards = None if self._sharded is None else self._sharded.shards
        if shards is None or not shards.reaches_some or not all(isinstance(one, Unavailable) for one in failures):
            return False
        with self._lock:
            blocked = self._buffer.blocked
            if self._buffer.in_flight.spooled:
                return True  # the disk sends it again
            if not blocked.add(batch, time.monotonic(), shards.reaches, shards.routing_version):
                return False
            text = "cannot reach a shard of Redis at %s (EVENTBUS_REDIS_URL), %d events wait for it: %s"
            tracker = self._buffer.tracker
            tracker.log("unavailable", text, self._address, len(tracker.blocked), failures[0])
        return True

    def _settle(self, batch: InFlightBatch, answers: Sequence[Published | Exception]) -> list[Exception]:
        """Settle answered requests. Those to be tried again remain; the reasons for it are returned."""
        again = [i for i, answer in enumerate(answers) if _is_retried(answer)]
        rest = [i for i in range(len(answers)) if i not in set(again)] if again else range(len(answers))
        with self._lock:
            self._buffer.settle([batch.members[i] for i in rest], [answers[i] for i in rest])
            batch.requests, batch.members = [batch.requests[i] for i in again], [batch.members[i] for i in again]
        return [answer for i in again if isinstance(answer := answers[i], Exception)]

    def _pause(self, began: float, error: Exception, *, for_others: bool) -> None:
        """Back off with full jitter; the longest pause doubles with each failure.

        With ``for_others``, a new entry ends the pause.
        """
        with self._lock:
            was_open = self.breaker.open
            pause = self.breaker.failed(began, time.monotonic(), random.random())  # noqa: S311 - spreads retries
            tracker = self._buffer.tracker
            if isinstance(error, Unavailable):
                text = "cannot reach Redis at %s (EVENTBUS_REDIS_URL), %d events wait: %s"
                tracker.log("unavailable", text, self._address, tracker.depth, error)
            else:
                self.unexpected += 1
                text = "cannot publish to Redis at %s (EVENTBUS_REDIS_URL), %d events wait: %s"
                tracker.log("unexpected", text, self._address, tracker.depth, error)
            if self.breaker.open and not was_open:
                tracker.release_waiters()
            waiting = len(self._buffer) if for_others else math.inf
            if self._lock.wait_for(self._is_given_up, min(pause, self._shortest_pause)):
                return
            remaining = pause - self._shortest_pause
            self._lock.wait_for(lambda: self._is_given_up() or len(self._buffer) > waiting, remaining)

    def _is_given_up(self) -> bool:
        return self.closing or self._buffer.in_flight.spooled

    def close(self) -> None:
        """Close the connection."""
        publisher, self._publisher, self._timed = self._publisher, None, None
        self._resting = self._sharded = None
        if publisher is not None:
            publisher.close()


def _is_unexpected(error: Exception) -> bool:
    """Whether an error is no answer of Redis and no outage, but a fault of this library or of an event."""
    return not isinstance(error, EventBusError)


def _is_retried(answer: Published | Exception) -> bool:
    """Whether to try a request again: unless it was published, or the server refused it."""
    return isinstance(answer, Exception) and not isinstance(answer, Refused)
