"""On whose behalf the code runs here and now: set around a task, and around the start of an operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from eventbus.operations.events import OperationRef, current_operation
from worker_adapter.context.deferred_events import DeferredEvents
from worker_adapter.context.headers import Leaf
from worker_adapter.settings import WorkerSettings

__all__ = ["PreviousContext", "TaskContext", "current_scope", "enter", "inside", "leave"]


@dataclass(slots=True, eq=False)
class TaskContext:
    """A running task, or the start of an operation.

    Attributes:
        operation: None for a task that belongs to none.
        leaf: None where an operation is being started, or there is none.
        task: the task's id, empty where an operation is being started.
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
    leaf: Leaf | None = None
    task: str = ""
    watched: bool = False
    failed: bool = False
    follows: tuple[object, ...] = ()
    handled: BaseException | None = None
    again: bool = False
    announcements: DeferredEvents = field(init=False)
    on_failure: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.announcements = DeferredEvents(self.settings.success_events)


current_scope: Final[ContextVar[TaskContext | None]] = ContextVar("eventbus_current_scope", default=None)

PreviousContext = tuple[TaskContext | None, OperationRef | None]


def enter(scope: TaskContext) -> PreviousContext:
    """Make this the current scope; return what ``leave`` puts back. They nest: an eager task runs within another."""
    former = current_scope.get(), current_operation.get()
    current_scope.set(scope)
    current_operation.set(scope.operation)
    return former


def leave(former: PreviousContext) -> None:
    """Put back what was current. By value: a token would be refused where another context runs the end of a task."""
    current_scope.set(former[0])
    current_operation.set(former[1])


@contextmanager
def inside(scope: TaskContext) -> Iterator[None]:
    """``enter`` and ``leave`` around a block."""
    former = enter(scope)
    try:
        yield
    finally:
        leave(former)
