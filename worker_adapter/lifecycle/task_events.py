"""Events about one task, and its transitions in the state of the operation.

The pool's process and the main process may both report the same fact, each of them more than once. The id of an event
is derived from the fact, so the page receives it once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Final

from eventbus.operations.events import OperationRef, TaskFailed, TaskRetry, TaskRevoked, TaskStarted, TaskSucceeded
from eventbus.operations.state import TaskTransition, TransitionKind
from eventbus.process_bus import default_bus
from worker_adapter.context.headers import TaskKey
from worker_adapter.settings import TaskEventKind, WorkerSettings

__all__ = [
    "TaskEvent",
    "emit_task_event",
    "record_failed",
    "record_published",
    "record_started",
    "record_transition",
    "task_members",
]

TaskEvent = TaskStarted | TaskSucceeded | TaskRetry | TaskFailed | TaskRevoked

_NAME_CHARS: Final = 200
# Made once: json.dumps makes a new encoder for each call that names separators.
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


def emit_task_event(
    settings: WorkerSettings, operation: OperationRef, key: TaskKey, kind: TaskEventKind, event: TaskEvent
) -> None:
    """Emit a ``task.*`` event unless the settings disable it.

    Args:
        settings: ``events`` names the enabled kinds.
        operation: the operation.
        key: the task. Of an internal task only failures are emitted.
        kind: kind of the event.
        event: the event.
    """
    if kind not in settings.events or (key.internal and kind != "failed"):
        return
    name = f"{operation.op}\0{key.value}\0{event.retries}\0{kind}"
    id_ = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    default_bus().emit(*operation, event, id=id_)


def record_transition(operation: OperationRef, label: str, kind: TransitionKind, key: TaskKey, lease: int = 0) -> None:
    """Record a transition of a task. An internal task that fails is counted, since the user must see the failure.

    Args:
        operation: the operation.
        label: its label.
        kind: the transition.
        key: the task.
        lease: as in ``TaskTransition``, milliseconds.
    """
    hidden = key.internal and kind != "failed"
    transition = TaskTransition(kind, key.value, int(key.planned), hidden, lease)
    default_bus().record_transition(operation, transition, label=label)


def record_published(operation: OperationRef, label: str, key: TaskKey, delay: int, members: str) -> None:
    """Record that the broker has a task.

    Args:
        operation: the operation.
        label: its label.
        key: the task.
        delay: milliseconds until the task is due.
        members: ``task_members`` of the task.
    """
    published = TaskTransition("published", key.value, int(key.planned), key.internal, delay, task_json=members)
    default_bus().record_transition(operation, published, label=label)


def record_started(operation: OperationRef, label: str, key: TaskKey, lease: int, late: bool, members: str) -> None:
    """Record that a task runs.

    Args:
        operation: the operation.
        label: its label.
        key: the task.
        lease: as in ``TaskTransition``, milliseconds.
        late: whether the message is acknowledged late, so that it is redelivered if the worker is lost.
        members: ``task_members`` of the task.
    """
    started = TaskTransition("started", key.value, int(key.planned), key.internal, lease, late, members)
    default_bus().record_transition(operation, started, label=label)


def record_failed(
    settings: WorkerSettings, operation: OperationRef, label: str, key: TaskKey, event: TaskFailed
) -> None:
    """Record that a task has failed and emit ``task.failed``, unless the task has ended. Both in one atomic step.

    For a process that cannot know whether the task has ended.

    Args:
        settings: ``events`` says whether ``task.failed`` is emitted.
        operation: the operation.
        label: its label.
        key: the task.
        event: the failure.
    """
    members = ""
    if "failed" in settings.events:
        members = f"{task_members(event.task, event.name, event.retries)},{_members({'error': event.error})}"
    failed = TaskTransition("failed", key.value, int(key.planned), task_json=members)
    default_bus().record_transition(operation, failed, label=label)


def task_members(task: str, name: str, retries: int) -> str:
    """Return members of a JSON object that describe a task. ``task.failed`` has them if the worker is lost.

    Args:
        task: the task's id.
        name: the task's name; cut at 200 characters.
        retries: number of retries so far.
    """
    return _members({"task": task, "name": name[:_NAME_CHARS], "retries": retries})


def _members(facts: Mapping[str, object]) -> str:
    return _encode(facts)[1:-1]
