"""Events of one task that are sent if the task succeeds."""

from __future__ import annotations

import logging
from threading import RLock

from eventbus.deferred import DeferredEvent
from eventbus.errors import TooManyDeferred

__all__ = ["DeferredEvents"]

log = logging.getLogger(__name__)

_REASON = "not_succeeded"


class DeferredEvents:
    """A bounded list of events. Thread-safe.

    A thread may outlive its task. After the task's end each new event is sent or dropped immediately.

    Args:
        limit: largest number of events.
    """

    __slots__ = ("_classes", "_limit", "_lock", "_succeeded", "_waiting")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = RLock()
        self._waiting: list[DeferredEvent] = []
        self._classes: dict[str, int] = {}
        self._succeeded: bool | None = None

    def next_number(self, class_: str) -> int:
        """Count the events of a class.

        Args:
            class_: name of the event class.

        Returns:
            How many events of the class were numbered before this one.
        """
        with self._lock:
            number = self._classes.get(class_, 0)
            self._classes[class_] = number + 1
            return number

    def add(self, deferred: DeferredEvent) -> None:
        """Send an event once the task has succeeded.

        Args:
            deferred: the event.

        Raises:
            TooManyDeferred: the list is full.
        """
        with self._lock:
            if self._succeeded is None:
                if len(self._waiting) >= self._limit:
                    raise TooManyDeferred(
                        f"{self._limit} events wait for this task to succeed; emit fewer, or as they happen with "
                        "emit(), or raise EVENTBUS_WORKER_SUCCESS_EVENTS",
                        limit=self._limit,
                    )
                self._waiting.append(deferred)
                return
        self._settle(deferred)

    def settle(self, *, succeeded: bool) -> None:
        """Send the events in order, or drop them. Called when the task has ended.

        Args:
            succeeded: whether the task has succeeded.
        """
        with self._lock:
            self._succeeded = succeeded
            waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            self._settle(deferred)

    def _settle(self, deferred: DeferredEvent) -> None:
        if not self._succeeded:
            deferred.drop(_REASON)
            return
        try:
            deferred.send()
        except Exception:
            # It was valid when it was added, so the application has changed it since. The other events are still sent.
            log.exception("cannot build an event that waited for its task to succeed")
            deferred.drop("changed")
