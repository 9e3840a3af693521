"""The event classes of operations and tasks, and the operation that the present code runs for."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final, Literal, NamedTuple

from eventbus.events.event import Event
from eventbus.operations.state import OperationState
from eventbus.protocol.topics import operation_topic

__all__ = [
    "STAMP",
    "OperationCancelled",
    "OperationCancelling",
    "OperationFailed",
    "OperationLost",
    "OperationProgress",
    "OperationQueued",
    "OperationRef",
    "OperationResumed",
    "OperationStarted",
    "OperationSucceeded",
    "RevokedReason",
    "TaskFailed",
    "TaskPart",
    "TaskProgress",
    "TaskRetry",
    "TaskRevoked",
    "TaskStarted",
    "TaskSucceeded",
    "current_operation",
]


STAMP: Final = "eventbus_operation"
"""The header of an operation's messages. By it a worker revokes all of them."""


class OperationRef(NamedTuple):
    """An operation of a user.

    Attributes:
        user: the user's id.
        op: the operation's id, unique for the user.
    """

    user: str
    op: str

    @property
    def topic(self) -> str:
        """The operation's topic."""
        return operation_topic(self.user, self.op)

    @property
    def stamp(self) -> str:
        """Value of ``STAMP``. It names the user, because an application may choose ids that are
        unique per user only.
        """
        return f"{self.user}:{self.op}"


current_operation: ContextVar[OperationRef | None] = ContextVar("eventbus_current_operation", default=None)
"""The operation that the present code runs for. ``emit(payload)`` and ``progress`` read it."""


class OperationQueued(Event, name="operation.queued"):
    """An application started an operation; its tasks are on their way to the workers."""

    operation: str
    label: str
    total: int


class _Counted(Event):
    """Counts of an operation: tasks of its canvas that are done, that failed, and all that are
    known so far.
    """

    operation: str
    label: str = ""
    state: OperationState
    done: int
    failed: int
    total: int


class OperationStarted(_Counted, name="operation.started"):
    """The operation's first task runs."""


class OperationProgress(_Counted, name="operation.progress", keep="latest"):
    """The operation's counts or state have changed. Redis keeps the newest for new readers.

    ``done`` equals ``total`` exactly when all tasks have succeeded.
    """


class OperationLost(_Counted, name="operation.lost", lane="high"):
    """A worker that ran some of its tasks is gone. The broker delivers their messages again;
    ``operation.resumed`` follows when they run.
    """


class OperationResumed(_Counted, name="operation.resumed"):
    """All lost tasks run again."""


class OperationCancelling(_Counted, name="operation.cancelling"):
    """The operation was cancelled, and some of its tasks still run."""


class OperationCancelled(_Counted, name="operation.cancelled", lane="high"):
    """The operation was cancelled, and none of its tasks runs."""


class OperationSucceeded(_Counted, name="operation.succeeded", lane="high"):
    """All tasks have ended and none failed."""


class OperationFailed(_Counted, name="operation.failed", lane="high"):
    """All tasks that could still run have ended, and at least one failed."""


class _OfTask(Event):
    """An event about one task: its id, its name, and the number of earlier tries."""

    task: str
    name: str
    retries: int = 0


class TaskStarted(_OfTask, name="task.started", keep="nothing", lane="low"):
    """A worker started the task."""


class TaskSucceeded(_OfTask, name="task.succeeded", keep="nothing", lane="low"):
    """The task returned."""


class TaskRetry(_OfTask, name="task.retry"):
    """The task failed and Celery will try it again; ``error`` is a short, safe text."""

    error: str


class TaskFailed(_OfTask, name="task.failed", lane="high"):
    """The task raised an exception; ``error`` is a short, safe text, never a traceback."""

    error: str


RevokedReason = Literal["cancelled", "revoked", "terminated", "expired"]


class TaskRevoked(_OfTask, name="task.revoked", lane="high"):
    """The task will not run, or was stopped: its operation was cancelled, an operator revoked it
    (``terminated`` while it ran), or it expired in the queue.
    """

    reason: RevokedReason


class _Steps(Event):
    """Progress in steps.

    ``total`` is None if it is unknown. ``share`` is the fraction that is done, from 0 to 1.
    ``rate`` is steps per second and ``left`` the seconds until the end at that rate; both are None
    while unknown. ``unit`` names the steps: ``bytes``.
    """

    done: float
    total: float | None = None
    share: float | None = None
    rate: float | None = None
    left: float | None = None
    unit: str = ""
    message: str = ""


class TaskPart(_Steps):
    """The stage that runs now. ``name`` includes the names of its outer stages, as in
    ``embed/split``.
    """

    name: str


class TaskProgress(_Steps, name="task.progress", keep="latest", key=("task", "stage")):
    """Progress within one task. If the task has stages, ``total`` is the sum of their weights, and
    ``part`` the stage that runs.
    """

    task: str
    stage: str = ""
    state: Literal["running", "done", "failed"] = "running"
    part: TaskPart | None = None
