"""Headers of an operation's messages, and the key of a task within its operation.

Every message of an operation has these headers:

``eventbus_user``, ``eventbus_operation``, ``eventbus_label``
    The operation. Each message that a task of the operation publishes inherits them.
``eventbus_leaf``
    The key of the task. ``start_operation`` writes the keys of the canvas into its signatures (``plan-3``). All other
    messages get a new key when they are published. Only a retry keeps its key, because Celery sends a retry with the
    headers of the request. A task id cannot be the key: the last task of a replacement inherits the id of the task
    that it replaces.

The operation is also a stamp of the message in Celery's sense. With it a worker discards the messages of a cancelled
operation that it has received. A fifth header, ``eventbus_here``, never travels: the worker's main process puts it into
the request for the pool's process.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
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
    "delay_of",
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
"""Largest number of characters of a label, whatever the settings allow."""

ALREADY_EXPIRED: Final = "1970-01-01T00:00:00+00:00"
"""Expiry of a message that is published for a cancelled operation. No worker runs such a message."""

_PLANNED: Final = "plan-"
# Celery's own tasks do its bookkeeping. These three run the application's code.
_APPLICATION_WORK: Final = frozenset({"celery.map", "celery.starmap", "celery.chunks"})


@dataclass(frozen=True, slots=True)
class TaskKey:
    """Identity of one task of an operation.

    Attributes:
        value: the key, unique within the operation. Retries and redelivered messages keep it.
        planned: whether the canvas named the task at the start.
        internal: whether it is a task of Celery or of this package that is not counted.
    """

    value: str
    planned: bool
    internal: bool


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """Facts that a worker's main process passes to the process that runs a task.

    Attributes:
        lease: milliseconds for which the worker guarantees that the task runs; 0: no worker renews the lease.
        events: whether the worker sends task events (``celery worker -E``).
    """

    lease: int = 0
    events: bool = False


def read_worker_info(headers: Mapping[str, Any] | None) -> WorkerInfo:
    """Read the facts of the worker's main process.

    Args:
        headers: of the request; None for a task without any.

    Returns:
        The facts, or the defaults for an eager task.
    """
    found = (headers or {}).get(WORKER_INFO)
    return WorkerInfo(*found) if isinstance(found, (list, tuple)) else WorkerInfo()


def stamp(headers: dict[str, Any], operation: OperationRef) -> None:
    """Add the operation's stamp to a message.

    Args:
        headers: of the message. Its lists and dicts may belong to Celery, so they are replaced and not changed.
        operation: the operation of the message.
    """
    names = list(headers.get("stamped_headers") or ())
    if STAMP not in names:
        names.append(STAMP)
    headers["stamped_headers"] = names
    headers["stamps"] = {**(headers.get("stamps") or {}), STAMP: operation.stamp}


def operation_headers(operation: OperationRef, label: str) -> dict[str, str]:
    """Return the headers that name an operation.

    Args:
        operation: the operation.
        label: its label; an empty one is left out.
    """
    headers = {USER: operation.user, OPERATION: operation.op}
    if label:
        headers[LABEL] = label
    return headers


def read_operation(headers: Mapping[str, Any] | None) -> tuple[OperationRef, str] | None:
    """Read the operation and its label from the headers of a message.

    Args:
        headers: of the message; None for a message without any.

    Returns:
        Operation and label. None if the message names no operation, or one with an invalid name.
    """
    if not headers:
        return None
    user, op, label = headers.get(USER), headers.get(OPERATION), headers.get(LABEL)
    if not isinstance(user, str) or not isinstance(op, str):
        return None
    operation = OperationRef(user, op)
    try:
        operation.topic  # noqa: B018 - validates the names; the topic is cached and needed soon
    except InvalidName:
        return None
    # Another program may have written the label. One that cannot be encoded would fail a whole batch to Redis.
    return operation, encodable(label[:MAX_LABEL]) if isinstance(label, str) else ""


def delay_of(headers: Mapping[str, Any]) -> int:
    """Return the milliseconds until a message is due; 0 without a countdown.

    Args:
        headers: of the message.
    """
    eta = headers.get("eta")
    if not eta:
        return 0
    try:
        due = datetime.fromisoformat(eta) if isinstance(eta, str) else eta
        seconds = (due if due.tzinfo is not None else due.replace(tzinfo=UTC)).timestamp() - time.time()
    except (AttributeError, ValueError):
        return 0  # another program wrote it; the worker will refuse the message
    return max(0, int(seconds * 1000))


def encodable(text: str) -> str:
    """Return the text with each lone surrogate replaced by ``?``.

    JSON and Redis accept no lone surrogates. File names that are not UTF-8 contain them.

    Args:
        text: any text.
    """
    return text if text.isascii() else text.encode(errors="replace").decode()


def planned_key(number: int) -> str:
    """Return the key of a task that the canvas names.

    Args:
        number: the position of the task in the canvas, from 1.
    """
    return f"{_PLANNED}{number}"


def task_key_of(name: str, task_id: str, headers: Mapping[str, Any] | None) -> TaskKey:
    """Return the key of the task of a message.

    Args:
        name: the task's name.
        task_id: the task's id, used for an eager task, which was never published.
        headers: of the message.
    """
    key = (headers or {}).get(TASK_KEY)
    if not isinstance(key, str):
        key = f"task-{task_id}"
    internal = name.startswith("celery.") and name not in _APPLICATION_WORK
    return TaskKey(encodable(key), planned=key.startswith(_PLANNED), internal=internal)
