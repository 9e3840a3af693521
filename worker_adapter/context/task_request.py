"""A task of an operation, as the headers of its message describe it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eventbus.operations.events import OperationRef
from worker_adapter.context.headers import ALREADY_EXPIRED, TaskKey, read_operation, task_key_of

__all__ = ["TaskRequestInfo", "read_task_request"]


@dataclass(frozen=True, slots=True)
class TaskRequestInfo:
    """A task of an operation, as its message describes it.

    Attributes:
        operation: the operation.
        label: its label.
        key: the task's key.
        task: the task's id.
        name: the task's name.
        retries: number of retries so far.
        cancelled_before_publish: the operation was cancelled before the message was published.
    """

    operation: OperationRef
    label: str
    key: TaskKey
    task: str
    name: str
    retries: int
    cancelled_before_publish: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        """Members of every ``task.*`` event."""
        return {"task": self.task, "name": self.name, "retries": self.retries}


def read_task_request(
    headers: Mapping[str, Any] | None, name: str, task_id: str, retries: int = 0
) -> TaskRequestInfo | None:
    """Return the task of a message; None if it belongs to no operation.

    Args:
        headers: of the message.
        name: the task's name.
        task_id: the task's id.
        retries: number of retries, for a message without that header.
    """
    found = read_operation(headers)
    if found is None or headers is None:
        return None
    retries = int(headers.get("retries") or retries or 0)
    expired = headers.get("expires") == ALREADY_EXPIRED
    return TaskRequestInfo(*found, task_key_of(name, task_id, headers), task_id, name, retries, expired)
