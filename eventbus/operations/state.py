"""The states of an operation, and what can happen to its tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "AWAIT_MS",
    "DONE",
    "ENDED",
    "PARTS_MISSING",
    "SILENCE",
    "TASK_UNREPORTED",
    "WORKER_LOST",
    "Counts",
    "OperationEvent",
    "OperationState",
    "TaskTransition",
    "TransitionKind",
    "shown_done",
]

TransitionKind = Literal["plan", "published", "started", "released", "done", "joined", "ignored", "failed", "revoked"]
OperationState = Literal["queued", "running", "lost", "cancelling", "succeeded", "failed", "cancelled"]
OperationEvent = Literal["started", "progress", "lost", "resumed", "cancelling", "succeeded", "failed", "cancelled"]

ENDED: Final = frozenset({"succeeded", "failed", "cancelled"})
"""Final states of an operation."""

DONE: Final = frozenset({"done", "joined", "ignored"})
"""Transitions after which a task counts as done."""

WORKER_LOST: Final = "WorkerLost: the worker that ran this task is gone"
"""The error of a task whose lease expired."""

TASK_UNREPORTED: Final = (
    "TaskUnreported: no worker has reported this task in time; "
    "check that a worker with install(app) reads the queue of the task"
)
"""The error of a published task of an operation that was silent for ``EVENTBUS_PART_PATIENCE``."""

PARTS_MISSING: Final = "PartsMissing: the canvas names tasks that were never published"
"""The error of an operation whose published tasks have all ended, though its canvas names more."""

AWAIT_MS: Final = 60_000
"""Milliseconds to wait for tasks that the canvas names, when all published tasks have ended."""

SILENCE: Final = " "
"""The key among the leases that ends the silence of an operation. No task has this key."""


@dataclass(frozen=True, slots=True)
class TaskTransition:
    """Something that happened to a task.

    Attributes:
        kind: ``plan`` sets the number of planned tasks, which is then in ``planned``. ``released``
            ends a run that is not the task's end: a retry, or a message returned to the queue.
            ``joined`` is done, and a chord waits for it. ``ignored`` is done, and the tasks that
            follow it in the canvas may not come. ``revoked`` ends a task that must not run.
        task: the task's key. Each key is counted once.
        planned: 1 if the canvas named this task at the start, else 0.
        internal: whether the total does not count the task.
        lease: for ``started``, milliseconds within which its worker renews the lease; 0: no lease.
            For ``joined``, milliseconds to wait for the body of its chord; 0: no wait. For
            ``published`` and ``released``, milliseconds until the task is due (countdown). For
            ``plan``, milliseconds until the first check of the operation; 0: no check.
        acks_late: for ``started``, whether the broker delivers the message again if the worker
            vanishes.
        task_json: for ``published`` and ``started``, the task as members of a JSON object
            (``"task":"…","name":"…","retries":0``). For ``failed``, the members of the
            ``task.failed`` event to publish with it, unless the task had ended.
    """

    kind: TransitionKind
    task: str = ""
    planned: int = 0
    internal: bool = False
    lease: int = 0
    acks_late: bool = False
    task_json: str = ""


@dataclass(frozen=True, slots=True)
class Counts:
    """Progress of an operation in tasks.

    Attributes:
        state: the operation's state.
        done: tasks that ended well; before the end of the operation, at most ``total`` - 1.
        failed: tasks that failed.
        total: tasks known so far; at least ``done`` + ``failed``, and equal to it when the
            operation has succeeded.
    """

    state: OperationState
    done: int
    failed: int
    total: int


def shown_done(state: OperationState, done: int, total: int) -> int:
    """Return the number of done tasks that clients see. It equals the total only when the operation has ended.

    All known tasks may be done while one that is not counted, such as the body of a chord, still runs.

    Args:
        state: the operation's state.
        done: tasks that ended well.
        total: tasks known so far.
    """
    return done - 1 if done == total > 0 and state not in ENDED else done
