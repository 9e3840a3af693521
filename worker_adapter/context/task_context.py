"""On whose behalf the code runs here and now: set around a task, and around the start of an operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from eventbus.operations.events import OperationRef, current_operation
from worker_adapter.context.deferred_events import DeferredEvents
from worker_adapter.context.headers import TaskKey
from worker_adapter.settings import WorkerSettings

__all__ = ["PreviousContext", "TaskContext", "attach", "current_context", "detach", "use_context"]


@dataclass(slots=True, eq=False)
class TaskContext:
    """A running task, or the start of an operation.

    Attributes:
        operation: None for a task that belongs to none.
        leaf: None where an operation is being started, or there is none.
        task_id: the task's id, empty where an operation is being started.
        announcements: events that wait for the task's success.
        watched: a worker runs it, and asks whether it is to stop.
        failed: an eager task that was called here has failed, and was counted.
        follows: what the canvas has after the task, as it came: the chain's rest, callbacks, the chord.
        handled: the exception that was being handled where the task began: an eager one may run in an ``except``.
        again: its next try has been published.
        on_failure: called if the task fails, for what could not know by itself how it ended.
    """

    operation: OperationRef | None
    label: str
    settings: WorkerSettings
    key: TaskKey | None = None
    task_id: str = ""
    in_worker: bool = False
    failed: bool = False
    continuation: tuple[object, ...] = ()
    handled_error: BaseException | None = None
    retry_published: bool = False
    deferred_events: DeferredEvents = field(init=False)
    failure_callbacks: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.deferred_events = DeferredEvents(self.settings.success_events)


current_context: Final[ContextVar[TaskContext | None]] = ContextVar("eventbus_current_scope", default=None)

PreviousContext = tuple[TaskContext | None, OperationRef | None]


def attach(context: TaskContext) -> PreviousContext:
    """Make this the current scope; return what ``detach`` puts back. They nest: an eager task runs within another."""
    previous = current_context.get(), current_operation.get()
    current_context.set(context)
    current_operation.set(context.operation)
    return previous


def detach(previous: PreviousContext) -> None:
    """Put back what was current. By value: a token would be refused where another context runs the end of a task."""
    current_context.set(previous[0])
    current_operation.set(previous[1])


@contextmanager
def use_context(context: TaskContext) -> Iterator[None]:
    """``attach`` and ``detach`` around a block."""
    previous = attach(context)
    try:
        yield
    finally:
        detach(previous)
