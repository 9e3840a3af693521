"""Operations: what a person started and waits for. Their life as events, and which one is running here."""

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
"""The header that messages of an operation are stamped with, so that workers can be told to revoke them all."""


class OperationRef(NamedTuple):
    """Which operation, of which user."""

    user: str
    op: str

    @property
    def topic(self) -> str:
        """The operation's topic."""
        return operation_topic(self.user, self.op)

    @property
    def stamp(self) -> str:
        """Value of ``STAMP``. With the user: ids may be chosen by the application, and are unique per user only."""
        return f"{self.user}:{self.op}"


current_operation: ContextVar[OperationRef | None] = ContextVar("eventbus_current_operation", default=None)
"""The operation that the code is running for; ``emit(payload)`` and ``progress`` read it."""


class OperationQueued(Event, name="operation.queued"):
    """Somebody has started an operation; its tasks are on their way to the workers."""

    operation: str
    label: str
    total: int


class _Counted(Event):
    """Numbers of an operation: leaves of its canvas that are done, that failed, and that there are as far as known."""

    operation: str
    label: str = ""
    state: OperationState
    done: int
    failed: int
    total: int


class OperationStarted(_Counted, name="operation.started"):
    """The first task of the operation runs."""


class OperationProgress(_Counted, name="operation.progress", keep="latest"):
    """How far the operation is. ``done`` equals ``total`` exactly when all of it has succeeded."""


class OperationLost(_Counted, name="operation.lost", lane="high"):
    """A worker that ran some of it is gone. The messages come again; ``operation.resumed`` follows when they have."""


class OperationResumed(_Counted, name="operation.resumed"):
    """What was lost runs again."""


class OperationCancelling(_Counted, name="operation.cancelling"):
    """Somebody wants it stopped, and some of it still runs."""


class OperationCancelled(_Counted, name="operation.cancelled", lane="high"):
    """Somebody wanted it stopped, and nothing of it runs any more."""


class OperationSucceeded(_Counted, name="operation.succeeded", lane="high"):
    """Everything has ended and nothing failed."""


class OperationFailed(_Counted, name="operation.failed", lane="high"):
    """Everything that could still run has ended, and something failed."""


class _OfTask(Event):
    """Something about one task: its id, its name, and how often it was tried again."""

    task: str
    name: str
    retries: int = 0


class TaskStarted(_OfTask, name="task.started", keep="nothing", lane="low"):
    """A worker has begun."""


class TaskSucceeded(_OfTask, name="task.succeeded", keep="nothing", lane="low"):
    """The task has returned."""


class TaskRetry(_OfTask, name="task.retry"):
    """The task will be tried again; ``error`` is a short, safe text."""

    error: str


class TaskFailed(_OfTask, name="task.failed", lane="high"):
    """The task has raised; ``error`` is a short, safe text, never a traceback."""

    error: str


RevokedReason = Literal["cancelled", "revoked", "terminated", "expired"]


class TaskRevoked(_OfTask, name="task.revoked", lane="high"):
    """The task will not run, or was stopped: its operation was cancelled, or somebody revoked it (``terminated`` while
    it ran), or it waited beyond its time.
    """

    reason: RevokedReason


class _Steps(Event):
    """Numbers of a count of steps.

    ``total`` is None where nobody knows; ``share`` is the bar, from 0 to 1; ``rate`` is steps per second, ``left`` the
    seconds until all is done at that rate, both None while unknown. ``unit`` says what the steps are: ``bytes``.
    """

    done: float
    total: float | None = None
    share: float | None = None
    rate: float | None = None
    left: float | None = None
    unit: str = ""
    message: str = ""


class TaskPart(_Steps):
    """The stage that runs now: its ``name``, with those of the stages around it before it, as in ``embed/split``."""

    name: str


class TaskProgress(_Steps, name="task.progress", keep="latest", key=("task", "stage")):
    """Steps within one task. Of a whole that is made of stages ``total`` is the sum of the weights, and ``part`` the
    stage that runs.
    """

    task: str
    stage: str = ""
    state: Literal["running", "done", "failed"] = "running"
    part: TaskPart | None = None
