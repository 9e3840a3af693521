"""Sends batches to Redis: once within a caller's time limit, or from the outbox's thread until they are settled."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence

from eventbus.backends.ports import Published, Publisher, Request, TimedPublisher
from eventbus.errors import EventBusError, Unavailable
from eventbus.flow.circuit_breaker import CircuitBreaker
from eventbus.outbox.buffer import SendBuffer
from eventbus.outbox.in_flight import InFlightBatch
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
        self._publisher: Publisher | None = None
        self._timed: TimedPublisher | None = None

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

        Args:
            batch: what to send.
        """
        while batch.requests:
            began = time.monotonic()
            try:
                if self._publisher is None:
                    self._publisher = self._connect()
                    self._timed = self._publisher if isinstance(self._publisher, TimedPublisher) else None
                answers = self._publisher.publish(batch.requests)
            except Unavailable as error:
                self._pause(began, error)
            except EventBusError as error:
                self._settle(batch, [error] * len(batch.members))
            except Exception as error:
                # A bug in here must not end the thread: that would end all delivery of this process without a trace.
                log.exception("the outbox could not send a batch")
                self._settle(batch, self._one_by_one(batch.requests, error))
            else:
                failure = self._settle(batch, answers)
                if failure is not None:
                    self._pause(began, failure)
                else:
                    self.breaker.succeeded()
            with self._lock:
                if batch.requests and (self.closing or self._buffer.in_flight.spooled):
                    break  # it is on disk, or will be

    def _one_by_one(self, requests: Sequence[Request], error: Exception) -> list[Published | Exception]:
        """After an error of a whole batch, send each request alone: a faulty one must not affect the others."""
        if self._publisher is None or len(requests) == 1:
            return [error] * len(requests)
        answers: list[Published | Exception] = []
        for request in requests:
            try:
                answers += self._publisher.publish([request])
            except Unavailable as unavailable:
                answers += [unavailable] * (len(requests) - len(answers))
                break
            except Exception as its_error:
                log.exception("cannot send to %s", request.channel)
                answers.append(its_error)
        return answers

    def _settle(self, batch: InFlightBatch, answers: Sequence[Published | Exception]) -> Unavailable | None:
        """Settle answered requests. Those to be tried again remain; the first reason for it is returned."""
        again = [i for i, answer in enumerate(answers) if isinstance(answer, Unavailable)]
        rest = [i for i in range(len(answers)) if i not in set(again)] if again else range(len(answers))
        with self._lock:
            self._buffer.settle([batch.members[i] for i in rest], [answers[i] for i in rest])
            batch.requests, batch.members = [batch.requests[i] for i in again], [batch.members[i] for i in again]
        return next((answer for answer in answers if isinstance(answer, Unavailable)), None) if again else None

    def _pause(self, began: float, error: Unavailable) -> None:
        """Back off with full jitter; the longest pause doubles with each failure."""
        with self._lock:
            was_open = self.breaker.open
            pause = self.breaker.failed(began, time.monotonic(), random.random())  # noqa: S311 - spreads retries
            tracker = self._buffer.tracker
            tracker.log("unavailable", "Redis is not available, %d events wait: %s", tracker.depth, error)
            if self.breaker.open and not was_open:
                tracker.release_waiters()
            self._lock.wait_for(lambda: self.closing or self._buffer.in_flight.spooled, pause)

    def close(self) -> None:
        """Close the connection."""
        publisher, self._publisher, self._timed = self._publisher, None, None
        if publisher is not None:
            publisher.close()
