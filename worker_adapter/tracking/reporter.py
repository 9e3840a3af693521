"""Progress reporter: emits the ``task.progress`` events of one progress, in order and for the running operation."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Literal

from celery.exceptions import Ignore, Retry, SoftTimeLimitExceeded

from eventbus.operations.events import OperationRef, TaskProgress, current_operation
from eventbus.process_bus import default_bus
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
    """Emits ``task.progress`` under one conflation key. It raises no error of the bus.

    Args:
        stage: name that distinguishes several progresses of one task.

    Attributes:
        next: time of the next event. Public, so that a step that reports nothing costs one comparison.
        context: the task of the progress; None outside of every task.
        settings: the bounds of the installation.
    """

    __slots__ = ("_ended", "_lock", "_operation", "_stage", "_task", "context", "next", "settings")

    def __init__(self, stage: str) -> None:
        self.next = NEVER_DUE  # until it begins within an operation
        self.context: TaskContext | None = None
        self._stage = stage
        self._ended = False
        self._operation: OperationRef | None = None
        # Reentrant: the garbage collector may end a loop over track() in the middle of a report of the same thread.
        self._lock = threading.RLock()

    @property
    def is_active(self) -> bool:
        """Whether an operation receives the events."""
        return self._operation is not None

    def begin(self) -> bool:
        """Report for the current operation.

        Returns:
            False if there is no operation. Then nothing is emitted.
        """
        self._operation = current_operation.get()
        if self._operation is None:
            return False
        self._ended = False
        self.context = current_context.get()
        self.settings = self.context.settings if self.context is not None else WorkerSettings()
        self._task = (self.context.task_id if self.context is not None else "") or self._operation.op
        return True

    def new_rate(self) -> RateEstimator:
        """Return a rate estimator with the settings of this reporter."""
        return RateEstimator(self.settings.progress_interval, self.settings.rate_window)

    def report(
        self, state: State, measure: Callable[[float], dict[str, Any]], *, force: bool = False, final: bool = False
    ) -> None:
        """Emit an event.

        If an event is due in several threads, one of them emits it.

        Args:
            state: state of the progress.
            measure: returns the members of the event for a time.
            force: wait for another thread that is reporting, instead of leaving the event to it.
            final: as ``force``; no event follows.
        """
        operation = self._operation
        if operation is None or not self._lock.acquire(blocking=force or final):
            return
        try:
            if final or not self._ended:
                self._ended = final
                event = self._emit(operation, state, measure)
                # A step may raise OperationCancelled here. The end of a block raises nothing new.
                if event is not None and not final:
                    checkpoint(self.context, event)
        finally:
            self._lock.release()

    def _emit(
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
            # A report that fails must not stop the work that it is about.
            log.exception("cannot report progress of operation %s", operation.op)
            return None
        return event

    def end(self, error: BaseException | None, measure: Callable[[float], dict[str, Any]]) -> None:
        """Emit the last event of a block.

        Args:
            error: the exception that left the block, if any.
            measure: returns the members of the event for a time.
        """
        if isinstance(error, GeneratorExit) and self.context is not None:
            # Python closes the generator of track() after a break and after an exception alike. The end of the task
            # shows which of them it was.
            self.context.failure_callbacks.append(lambda: self.report("failed", measure, final=True))
        self.report(outcome(error), measure, final=True)


def outcome(error: BaseException | None) -> State:
    """Return the final state of a block. A retry leaves the progress running.

    Args:
        error: the exception that left the block, if any.
    """
    if isinstance(error, OperationCancelled):
        return "failed"
    if error is None or isinstance(error, (GeneratorExit, Ignore)):
        return "done"
    return "running" if isinstance(error, Retry) else "failed"
