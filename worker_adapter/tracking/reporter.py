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
from worker_adapter.context.headers import encodable
from worker_adapter.context.task_context import TaskContext, current_context
from worker_adapter.lifecycle.cancellation import OperationCancelled
from worker_adapter.lifecycle.running_tasks import checkpoint
from worker_adapter.settings import WorkerSettings
from worker_adapter.tracking.rate import RateEstimator

__all__ = ["ProgressReporter", "State", "outcome"]

log = logging.getLogger(__name__)

State = Literal["running", "done", "failed"]

NEVER_DUE: Final = float("inf")


class ProgressReporter:
    """One conflation key of ``task.progress``. Nothing in it raises for the bus' sake.

    Attributes:
        next: the time from which on the next word is due; public, so that a step which is not due costs one
            comparison.
        scope: the task that it belongs to; None outside of every task.
        settings: the bounds that hold here.
    """

    __slots__ = ("_ended", "_lock", "_operation", "_stage", "_task", "context", "next", "settings")

    def __init__(self, stage: str) -> None:
        self.next = NEVER_DUE  # until it is begun within an operation
        self.context: TaskContext | None = None
        self._stage = stage
        self._ended = False
        self._operation: OperationRef | None = None
        # Of the same thread's again: a loop over track() may be left by the garbage collector, anywhere.
        self._lock = threading.RLock()

    @property
    def is_active(self) -> bool:
        """Whether there is an operation to speak for."""
        return self._operation is not None

    def begin(self) -> bool:
        """Belong to the operation that runs here. False, and silence, if there is none."""
        self._operation = current_operation.get()
        if self._operation is None:
            return False
        self._ended = False
        self.context = current_context.get()
        self.settings = self.context.settings if self.context is not None else WorkerSettings()
        self._task = (self.context.task_id if self.context is not None else "") or self._operation.op
        return True

    def pace(self) -> RateEstimator:
        """A measure of a rate, by the settings here."""
        return RateEstimator(self.settings.progress_interval, self.settings.rate_window)

    def report(
        self, state: State, measure: Callable[[float], dict[str, Any]], *, force: bool = False, final: bool = False
    ) -> None:
        """Say how things are: ``measure`` returns the members of the word for a time.

        Of several threads at which a word is due one says it. ``force`` and ``final`` wait for their turn;
        ``final`` ends the bar.
        """
        operation = self._operation
        if operation is None or not self._lock.acquire(blocking=force or final):
            return
        try:
            if final or not self._ended:
                self._ended = final
                event = self._say(operation, state, measure)
                # A few times a second: what may raise out of a step. The end of a block raises nothing of its own.
                if event is not None and not final:
                    checkpoint(self.context, event)
        finally:
            self._lock.release()

    def _say(
        self, operation: OperationRef, state: State, measure: Callable[[float], dict[str, Any]]
    ) -> TaskProgress | None:
        now = monotonic()
        self.next = NEVER_DUE if self._ended else now + self.settings.progress_interval
        try:
            members = measure(now)
            members["message"] = encodable(members["message"])
            event = TaskProgress(task=self._task, stage=encodable(self._stage), state=state, **members)
            default_bus().emit(operation.user, operation.op, event)
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            # A bar that cannot be drawn must not stop the work that it is about.
            log.exception("progress could not be told")
            return None
        return event

    def end(self, error: BaseException | None, measure: Callable[[float], dict[str, Any]]) -> None:
        """The last word, for a block that ``error`` has left."""
        if isinstance(error, GeneratorExit) and self.context is not None:
            # A loop over track() was left. Python does not tell a generator whether by break or by an error; the end
            # of the task does.
            self.context.failure_callbacks.append(lambda: self.report("failed", measure, final=True))
        self.report(outcome(error), measure, final=True)


def outcome(error: BaseException | None) -> State:
    """What a block that ``error`` leaves has come to. A retry goes on."""
    if isinstance(error, OperationCancelled):
        return "failed"
    if error is None or isinstance(error, (GeneratorExit, Ignore)):
        return "done"
    return "running" if isinstance(error, Retry) else "failed"
