"""Carries what was taken from the stock to Redis: once, in somebody's short time, or by the outbox' thread until it is
settled.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eventbus.backends.ports import Published, Publisher, Request, TimedPublisher
from eventbus.errors import EventBusError, Unavailable
from eventbus.flow.circuit_breaker import CircuitBreaker
from eventbus.outbox.buffer import SendBuffer
from eventbus.outbox.entries import Entry, group
from eventbus.settings import BusSettings

__all__ = ["InFlightBatch", "Sender"]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class InFlightBatch:
    """What has been taken to be sent. ``spooled``: how many of it stand in the spool."""

    requests: list[Request]
    members: list[list[Entry]]
    spooled: int = 0

    @classmethod
    def of(cls, batch: Sequence[Entry], spooled: int = 0) -> InFlightBatch:
        """Entries, in order."""
        return cls(*group(batch), spooled)


class Sender:
    """A connection, and a breaker that says whether it is of use. Used by one thread at a time.

    Attributes:
        closing: whether nothing is to be tried again.
        quick: whether there is a connection that can be used by somebody whose time is short.
    """

    def __init__(
        self, settings: BusSettings, connect: Callable[[], Publisher], lock: threading.Condition, stock: SendBuffer
    ) -> None:
        """``lock`` is what the stock is used under; a pause ends when it is told of ``closing``, or of a spill."""
        self._connect = connect
        self._lock = lock
        self._stock = stock
        self.breaker = CircuitBreaker(
            settings.breaker_failures, settings.breaker_after, settings.retry_min, settings.retry_max
        )
        self.closing = False
        self._publisher: Publisher | None = None
        self._hasty: TimedPublisher | None = None

    @property
    def quick(self) -> bool:
        return self._hasty is not None and not self.breaker.failures

    def try_once(self, load: InFlightBatch, seconds: float) -> None:
        """Send it within ``seconds``. What is not settled stays in the load."""
        assert self._hasty is not None
        try:
            answers = self._hasty.publish_within(load.requests, seconds)
        except EventBusError as error:
            # What it means, and what is to be done about it, is the thread's to find out: it tries the same again.
            # Nothing else is caught here: it may be a signal's, such as a time limit, and is meant for the caller.
            log.debug("left to the outbox' thread: %s", error)
            return
        self._settle(load, answers)

    def carry(self, load: InFlightBatch) -> None:
        """Send it until it is settled. While Redis is away it is kept, in order, ahead of all that comes after."""
        while load.requests:
            began = time.monotonic()
            try:
                if self._publisher is None:
                    self._publisher = self._connect()
                    self._hasty = self._publisher if isinstance(self._publisher, TimedPublisher) else None
                answers = self._publisher.publish(load.requests)
            except Unavailable as error:
                self._pause(began, error)
            except EventBusError as error:
                self._settle(load, [error] * len(load.members))
            except Exception as error:
                # A bug in here must not end the thread: that would silently end all delivery of this process.
                log.exception("the outbox could not send a batch")
                self._settle(load, self._one_by_one(load.requests, error))
            else:
                again = self._settle(load, answers)
                if again is not None:
                    self._pause(began, again)
                else:
                    self.breaker.succeeded()
            with self._lock:
                if load.requests and (self.closing or self._stock.flying is None):
                    break  # it is on disk by now, or about to be

    def _one_by_one(self, requests: Sequence[Request], error: Exception) -> list[Published | Exception]:
        """After an error of a whole batch: what is wrong with one must not cost the others anything."""
        if self._publisher is None or len(requests) == 1:
            return [error] * len(requests)
        answers: list[Published | Exception] = []
        for request in requests:
            try:
                answers += self._publisher.publish([request])
            except Unavailable as away:
                answers += [away] * (len(requests) - len(answers))
                break
            except Exception as its:
                log.exception("%s: this is what could not be sent", request.channel)
                answers.append(its)
        return answers

    def _settle(self, load: InFlightBatch, answers: Sequence[Published | Exception]) -> Unavailable | None:
        """Settle what was answered; what is to be tried again stays, and the first reason for it is returned."""
        again = [i for i, answer in enumerate(answers) if isinstance(answer, Unavailable)]
        rest = [i for i in range(len(answers)) if i not in set(again)] if again else range(len(answers))
        with self._lock:
            self._stock.settle([load.members[i] for i in rest], [answers[i] for i in rest])
            load.requests, load.members = [load.requests[i] for i in again], [load.members[i] for i in again]
        return next((answer for answer in answers if isinstance(answer, Unavailable)), None) if again else None

    def _pause(self, began: float, error: Unavailable) -> None:
        """Back off with full jitter; the ceiling doubles with each failure."""
        with self._lock:
            was_away = self.breaker.open
            pause = self.breaker.failed(began, time.monotonic(), random.random())  # noqa: S311 - spreads retries
            settlement = self._stock.settlement
            settlement.log("unavailable", "Redis is not available, %d events wait: %s", settlement.depth, error)
            if self.breaker.open and not was_away:
                settlement.release_waiters()
            self._lock.wait_for(lambda: self.closing or self._stock.flying is None, pause)

    def close(self) -> None:
        """Give the connection up."""
        publisher, self._publisher, self._hasty = self._publisher, None, None
        if publisher is not None:
            publisher.close()
