"""A word about a task, said once, whichever process says it and however often."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Final

from eventbus.bus import default_bus
from eventbus.operations.events import OperationRef, TaskFailed, TaskRetry, TaskRevoked, TaskStarted, TaskSucceeded
from eventbus.operations.state import TaskTransition, TransitionKind
from worker_adapter.context.headers import TaskKey
from worker_adapter.settings import TaskEventKind, WorkerSettings

__all__ = ["TaskEvent", "about", "emit_task_event", "record_failed", "record_started", "record_transition"]

TaskEvent = TaskStarted | TaskSucceeded | TaskRetry | TaskFailed | TaskRevoked

_NAME_CHARS: Final = 200
# Made once: json.dumps makes one for each call that names separators.
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


def emit_task_event(
    settings: WorkerSettings, operation: OperationRef, key: TaskKey, word: TaskEventKind, event: TaskEvent
) -> None:
    """Emit a ``task.*`` event, unless the settings keep it back. Of an internal task only what went wrong."""
    if word not in settings.events or (key.internal and word != "failed"):
        return
    # Of a task that runs twice, since its worker died before the acknowledgement, one hears once; so does one of what
    # both the pool's process and the main process have seen.
    name = f"{operation.op}\0{key.value}\0{event.retries}\0{word}"
    id_ = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    default_bus().emit(*operation, event, id=id_)


def record_transition(operation: OperationRef, label: str, kind: TransitionKind, key: TaskKey, lease: int = 0) -> None:
    """Count something that happened to a leaf. A hidden leaf that fails shows: something did go wrong. ``lease`` as in
    ``TaskTransition``.
    """
    hidden = key.internal and kind != "failed"
    default_bus().record_transition(
        operation, TaskTransition(kind, key.value, int(key.planned), hidden, lease), label=label
    )


def record_started(operation: OperationRef, label: str, key: TaskKey, lease: int, late: bool, members: str) -> None:
    """Count that a leaf runs. ``lease``, ``late`` and ``members`` as in ``TaskTransition``."""
    begun = TaskTransition("started", key.value, int(key.planned), key.internal, lease, late, members)
    default_bus().record_transition(operation, begun, label=label)


def record_failed(
    settings: WorkerSettings, operation: OperationRef, label: str, key: TaskKey, event: TaskFailed
) -> None:
    """Count that a leaf has failed and say so, in one step, unless it had ended: for who cannot know whether it has."""
    members = ""
    if "failed" in settings.events:
        members = f"{about(event.task, event.name, event.retries)},{_members({'error': event.error})}"
    default_bus().record_transition(
        operation, TaskTransition("failed", key.value, int(key.planned), task_json=members), label=label
    )


def about(task: str, name: str, retries: int) -> str:
    """The task, as members of a JSON object: what is told of it if its worker vanishes."""
    return _members({"task": task, "name": name[:_NAME_CHARS], "retries": retries})


def _members(facts: Mapping[str, object]) -> str:
    return _encode(facts)[1:-1]
