"""Events of one task that wait for its success."""

from __future__ import annotations

import logging
from threading import RLock

from eventbus.deferred import DeferredEvent
from eventbus.errors import TooManyDeferred

__all__ = ["DeferredEvents"]

log = logging.getLogger(__name__)

_REASON = "not_succeeded"


class DeferredEvents:
    """A bounded list, and then the answer to what comes too late for it: a thread may outlive its task."""

    __slots__ = ("_classes", "_limit", "_lock", "_succeeded", "_waiting")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = RLock()
        self._waiting: list[DeferredEvent] = []
        self._classes: dict[str, int] = {}
        self._succeeded: bool | None = None

    def next_number(self, class_: str) -> int:
        """How many of a class have asked before this one."""
        with self._lock:
            next_number = self._classes.get(class_, 0)
            self._classes[class_] = next_number + 1
            return next_number

    def add(self, deferred: DeferredEvent) -> None:
        """Send it once the task has succeeded. Raises TooManyDeferred."""
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
        """The task has ended: send them in order, or drop them."""
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
            # It was good when it was kept; somebody has changed what it holds. The others are.
            log.exception("an event that waited for a task's success could not be built")
            deferred.drop("changed")
