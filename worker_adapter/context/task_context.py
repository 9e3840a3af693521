"""Task context: the task and the operation for which the code runs.

It is set while a task runs and while an operation is started.
"""

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
        operation: None for a task that belongs to no operation.
        label: the operation's label, or empty.
        settings: the bounds of the installation.
        key: the task's key. None during the start of an operation and without an operation.
        task_id: the task's id; empty during the start of an operation.
        in_worker: whether a worker runs the task. Such a task checks for cancellation.
        failed: an eager task that this code called has failed and was counted.
        continuation: the rest of the chain, the callbacks and the chord that came with the message.
        handled_error: the exception that was being handled when the task began. An eager task may start in an
            ``except`` block.
        retry_published: the task has published its next try.
        failure_callbacks: called if the task fails.
        deferred_events: events that are sent if the task succeeds.
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
    failure_callbacks: list[Callable[[], None]] = field(default_factory=list)
    deferred_events: DeferredEvents = field(init=False)

    def __post_init__(self) -> None:
        self.deferred_events = DeferredEvents(self.settings.success_events)


current_context: Final[ContextVar[TaskContext | None]] = ContextVar("eventbus_current_context", default=None)

PreviousContext = tuple[TaskContext | None, OperationRef | None]


def attach(context: TaskContext) -> PreviousContext:
    """Make a context the current one. Contexts nest: an eager task runs within another task.

    Args:
        context: the new context.

    Returns:
        The contexts that ``detach`` restores.
    """
    previous = current_context.get(), current_operation.get()
    current_context.set(context)
    current_operation.set(context.operation)
    return previous


def detach(previous: PreviousContext) -> None:
    """Restore the contexts that ``attach`` returned.

    ``ContextVar.reset`` is no option: Celery may run the end of a task in another context than its start.

    Args:
        previous: the return value of ``attach``.
    """
    current_context.set(previous[0])
    current_operation.set(previous[1])


@contextmanager
def use_context(context: TaskContext) -> Iterator[None]:
    """``attach`` and ``detach`` around a block.

    Args:
        context: the context of the block.

    Yields:
        Nothing.
    """
    previous = attach(context)
    try:
        yield
    finally:
        detach(previous)
