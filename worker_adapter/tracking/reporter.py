"""A bar on somebody's page: on whose behalf it speaks, when, and that its words stay in order."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Literal

from celery.exceptions import Ignore, Retry, SoftTimeLimitExceeded

from eventbus.bus import default_bus
from eventbus.operations.events import OperationRef, TaskProgress, current_operation
from worker_adapter.context.headers import sayable
from worker_adapter.context.task_context import TaskContext, current_scope
from worker_adapter.lifecycle.cancellation import OperationCancelled
from worker_adapter.lifecycle.running_tasks import heed
from worker_adapter.settings import WorkerSettings
from worker_adapter.tracking.rate import RateEstimator

__all__ = ["ProgressReporter", "State", "outcome"]

log = logging.getLogger(__name__)

State = Literal["running", "done", "failed"]

SILENT: Final = float("inf")


class ProgressReporter:
    """One conflation key of ``task.progress``. Nothing in it raises for the bus' sake.

    Attributes:
        next: the time from which on the next word is due; public, so that a step which is not due costs one
            comparison.
        scope: the task that it belongs to; None outside of every task.
        settings: the bounds that hold here.
    """

    __slots__ = ("_ended", "_operation", "_stage", "_task", "_telling", "next", "scope", "settings")

    def __init__(self, stage: str) -> None:
        self.next = SILENT  # until it is begun within an operation
        self.scope: TaskContext | None = None
        self._stage = stage
        self._ended = False
        self._operation: OperationRef | None = None
        # Of the same thread's again: a loop over track() may be left by the garbage collector, anywhere.
        self._telling = threading.RLock()

    @property
    def heard(self) -> bool:
        """Whether there is an operation to speak for."""
        return self._operation is not None

    def begin(self) -> bool:
        """Belong to the operation that runs here. False, and silence, if there is none."""
        self._operation = current_operation.get()
        if self._operation is None:
            return False
        self._ended = False
        self.scope = current_scope.get()
        self.settings = self.scope.settings if self.scope is not None else WorkerSettings()
        self._task = (self.scope.task if self.scope is not None else "") or self._operation.op
        return True

    def pace(self) -> RateEstimator:
        """A measure of a rate, by the settings here."""
        return RateEstimator(self.settings.progress_interval, self.settings.rate_window)

    def tell(
        self, state: State, measure: Callable[[float], dict[str, Any]], *, must: bool = False, last: bool = False
    ) -> None:
        """Say how things are: ``measure`` returns the members of the word for a time.

        Of several threads at which a word is due one says it. What ``must`` be said waits for its turn, and so does the
        ``last`` word, which ends the bar.
        """
        operation = self._operation
        if operation is None or not self._telling.acquire(blocking=must or last):
            return
        try:
            if last or not self._ended:
                self._ended = last
                word = self._say(operation, state, measure)
                # A few times a second: what may raise out of a step. The end of a block raises nothing of its own.
                if word is not None and not last:
                    heed(self.scope, word)
        finally:
            self._telling.release()

    def _say(
        self, operation: OperationRef, state: State, measure: Callable[[float], dict[str, Any]]
    ) -> TaskProgress | None:
        now = monotonic()
        self.next = SILENT if self._ended else now + self.settings.progress_interval
        try:
            members = measure(now)
            members["message"] = sayable(members["message"])
            word = TaskProgress(task=self._task, stage=sayable(self._stage), state=state, **members)
            default_bus().emit(operation.user, operation.op, word)
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            # A bar that cannot be drawn must not stop the work that it is about.
            log.exception("progress could not be told")
            return None
        return word

    def end(self, error: BaseException | None, measure: Callable[[float], dict[str, Any]]) -> None:
        """The last word, for a block that ``error`` has left."""
        if isinstance(error, GeneratorExit) and self.scope is not None:
            # A loop over track() was left. Python does not tell a generator whether by break or by an error; the end
            # of the task does.
            self.scope.on_failure.append(lambda: self.tell("failed", measure, last=True))
        self.tell(outcome(error), measure, last=True)


def outcome(error: BaseException | None) -> State:
    """What a block that ``error`` leaves has come to. A retry goes on."""
    if isinstance(error, OperationCancelled):
        return "failed"
    if error is None or isinstance(error, (GeneratorExit, Ignore)):
        return "done"
    return "running" if isinstance(error, Retry) else "failed"
