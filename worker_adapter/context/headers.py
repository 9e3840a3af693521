"""What travels with a message, and what a task is to its operation.

Four headers. User, operation and label go along to everything that is published on behalf of an operation. The fourth
says which leaf of the operation the message is: the canvas' own leaves get it in their signatures when the operation
is started (``plan-3``), everything else when it is published (a fresh id). Only a retry keeps it, because Celery
sends a retry with the headers of the request; so it is never inherited by what a task starts.

A task's id would not do: the last task of a replacement inherits the id of the task that it replaces.

The operation also is a stamp of the message, in Celery's sense, so that a worker discards what it has received of an
operation that was cancelled. A fifth header never travels: the worker's main process puts it into the request for the
process of its pool that will run it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from eventbus.errors import InvalidName
from eventbus.operations.events import STAMP, OperationRef

__all__ = [
    "ALREADY_EXPIRED",
    "OPERATION",
    "TASK_KEY",
    "WORKER_INFO",
    "TaskKey",
    "WorkerInfo",
    "encodable",
    "operation_headers",
    "planned_key",
    "read_operation",
    "read_worker_info",
    "stamp",
    "task_key_of",
]

USER: Final = "eventbus_user"
OPERATION: Final = "eventbus_operation"
LABEL: Final = "eventbus_label"
TASK_KEY: Final = "eventbus_leaf"
WORKER_INFO: Final = "eventbus_here"

MAX_LABEL: Final = 1_000
"""Characters that a label can have at most, whatever the settings say."""

ALREADY_EXPIRED: Final = "1970-01-01T00:00:00+00:00"
"""When a message expires that is published for an operation which has been cancelled: no worker will run it."""

_PLANNED: Final = "plan-"
# Celery's own tasks do its bookkeeping, except for these: what they run is the application's work.
_WORK: Final = frozenset({"celery.map", "celery.starmap", "celery.chunks"})


@dataclass(frozen=True, slots=True)
class TaskKey:
    """One task of an operation.

    Attributes:
        value: its name within the operation, the same through retries and redelivery.
        planned, hidden: as in ``eventbus.operations.state.TaskTransition``.
    """

    value: str
    planned: bool
    internal: bool


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker's main process tells the one that runs a task.

    Attributes:
        lease: milliseconds for which a mark counts that the task runs; 0: nobody renews it.
        events: whether the worker sends task events.
    """

    lease: int = 0
    events: bool = False


def read_worker_info(headers: Mapping[str, Any] | None) -> WorkerInfo:
    """What the main process said; nothing where there is none, as for an eager task."""
    found = (headers or {}).get(WORKER_INFO)
    return WorkerInfo(*found) if isinstance(found, (list, tuple)) else WorkerInfo()


def stamp(headers: dict[str, Any], operation: OperationRef) -> None:
    """Stamp a message, beside the stamps that it has. Lists and dicts of Celery's own are left alone."""
    names = list(headers.get("stamped_headers") or ())
    if STAMP not in names:
        names.append(STAMP)
    headers["stamped_headers"] = names
    headers["stamps"] = {**(headers.get("stamps") or {}), STAMP: operation.stamp}


def operation_headers(operation: OperationRef, label: str) -> dict[str, str]:
    """Headers that say on whose behalf a message is published."""
    headers = {USER: operation.user, OPERATION: operation.op}
    if label:
        headers[LABEL] = label
    return headers


def read_operation(headers: Mapping[str, Any] | None) -> tuple[OperationRef, str] | None:
    """Operation and label of a message, or None for one that belongs to none, or to one that cannot be."""
    if not headers:
        return None
    user, op, label = headers.get(USER), headers.get(OPERATION), headers.get(LABEL)
    if not isinstance(user, str) or not isinstance(op, str):
        return None
    operation = OperationRef(user, op)
    try:
        operation.topic  # noqa: B018 - remembered, and needed soon
    except InvalidName:
        return None
    # As start_operation makes it, whoever has published the message: one that cannot be written would take along what
    # goes to Redis with it.
    return operation, encodable(label[:MAX_LABEL]) if isinstance(label, str) else ""


def encodable(text: str) -> str:
    """The text as JSON and Redis can take it. Names of files that are not UTF-8 come as halves of surrogate pairs."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def planned_key(number: int) -> str:
    """Value of the leaf header for a leaf that the canvas names at the start."""
    return f"{_PLANNED}{number}"


def task_key_of(name: str, task_id: str, headers: Mapping[str, Any] | None) -> TaskKey:
    """Which leaf a message is. ``name`` is the task's name."""
    key = (headers or {}).get(TASK_KEY)
    if not isinstance(key, str):
        key = f"task-{task_id}"  # never published: an eager task
    return TaskKey(
        encodable(key), planned=key.startswith(_PLANNED), internal=name.startswith("celery.") and name not in _WORK
    )
