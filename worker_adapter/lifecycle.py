"""What the moments of a task's life mean for its operation. ``install.py`` sees to it that they are heard.

Nothing here guards against its own errors: Celery catches and logs what a signal's receiver raises, and the task goes
on.
"""

from __future__ import annotations

import hashlib
import sys
from typing import Any, Final

from celery import states

from eventbus.bus import default_bus
from eventbus.ids import event_id
from eventbus.operation import OperationRef, TaskFailed, TaskRetry, TaskStarted, TaskSucceeded, current_operation
from eventbus.tally import Mark, MarkKind
from worker_adapter.errortext import error_text
from worker_adapter.headers import LEAF, OPERATION, Leaf, leaf_of, operation_headers, read_operation
from worker_adapter.scope import Former, Scope, current_scope, enter, leave
from worker_adapter.settings import TaskWord, WorkerSettings

__all__ = ["Lifecycle", "mark"]

# On the request, which Celery keeps on a stack per thread and greenlet: eager tasks nest, pools run side by side.
_PLACE: Final = "_eventbus"

_Word = TaskStarted | TaskSucceeded | TaskRetry | TaskFailed


def mark(operation: OperationRef, label: str, kind: MarkKind, leaf: Leaf) -> None:
    """Count something that happened to a leaf. A hidden leaf that fails shows: something did go wrong."""
    hidden = leaf.hidden and kind != "failed"
    default_bus().mark(operation, Mark(kind, leaf.key, int(leaf.planned), hidden), label=label)


class Lifecycle:
    """Tells of tasks, by the settings of one installation."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings

    def publishing(self, headers: dict[str, Any]) -> None:
        """A message is about to be published: write on it on whose behalf, and which leaf it is."""
        scope = current_scope.get()
        if OPERATION not in headers:
            operation = current_operation.get()
            if operation is None:
                return
            headers.update(operation_headers(operation, scope.label if scope is not None else ""))
        if LEAF not in headers or _copied(headers, scope):
            headers[LEAF] = event_id()

    def published(self, name: str, headers: dict[str, Any]) -> None:
        """A message is with the broker. Told only now: one that could not be sent must not keep an operation open."""
        found = read_operation(headers)
        if found is None or headers.get("retries"):
            return
        mark(*found, "published", leaf_of(name, str(headers.get("id")), headers))

    def starting(self, task: Any, task_id: str) -> None:
        """A task begins here."""
        request = task.request
        if getattr(request, _PLACE, None) is not None:
            return
        scope = self._scope_of(task, task_id)
        setattr(request, _PLACE, (scope, enter(scope)))
        if scope.operation is None or scope.leaf is None:
            return
        self._emit("started", scope, TaskStarted(task=task_id, name=task.name, retries=request.retries))
        mark(scope.operation, scope.label, "started", scope.leaf)

    def ended(self, task: Any, state: str | None, outcome: Any) -> None:
        """A task has ended here, in ``state``, with its return value or its error."""
        place: tuple[Scope, Former] | None = getattr(task.request, _PLACE, None)
        if place is None:
            return
        scope, former = place
        setattr(task.request, _PLACE, None)
        try:
            state, outcome = _settled(task, state, outcome)
            # Before the task is told to have succeeded, and counted: its end comes after everything that it said.
            scope.announcements.settle(succeeded=state == states.SUCCESS)
            if scope.operation is not None and scope.leaf is not None:
                self._tell_end(task, scope, state, outcome)
        finally:
            leave(former)
            self._flush()

    def _tell_end(self, task: Any, scope: Scope, state: str | None, outcome: Any) -> None:
        assert scope.operation is not None
        assert scope.leaf is not None
        about = {"task": scope.task, "name": task.name, "retries": task.request.retries}
        if state == states.SUCCESS:
            self._emit("succeeded", scope, TaskSucceeded(**about))
        elif state == states.RETRY:
            error = error_text(outcome, self._settings.error_chars)
            self._emit("retry", scope, TaskRetry(**about, error=error))
        elif state == states.FAILURE:
            for tell in scope.on_failure:
                tell()
            error = error_text(outcome, self._settings.error_chars)
            self._emit("failed", scope, TaskFailed(**about, error=error))
        # Ignore is how replace() ends: this task has done its part, and what replaces it has been published.
        if state in (states.SUCCESS, states.IGNORED):
            mark(scope.operation, scope.label, "done", scope.leaf)
        elif state == states.FAILURE:
            mark(scope.operation, scope.label, "failed", scope.leaf)

    def _scope_of(self, task: Any, task_id: str) -> Scope:
        request = task.request
        found = read_operation(request.headers)
        if found is None and request.is_eager:
            # An eager task was never published: it runs on behalf of whoever called it.
            outer, operation = current_scope.get(), current_operation.get()
            found = None if operation is None else (operation, outer.label if outer is not None else "")
        if found is None:
            return Scope(None, "", self._settings, task=task_id)
        return Scope(*found, self._settings, leaf_of(task.name, task_id, request.headers), task_id)

    def _emit(self, word: TaskWord, scope: Scope, event: _Word) -> None:
        assert scope.operation is not None
        assert scope.leaf is not None
        if word not in self._settings.events or (scope.leaf.hidden and word != "failed"):
            return
        # Of a task that runs twice, since its worker died before the acknowledgement, one hears once.
        name = f"{scope.operation.op}\0{scope.leaf.key}\0{event.retries}\0{word}"
        id_ = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        default_bus().emit(*scope.operation, event, id=id_)

    def _flush(self) -> None:
        bus = default_bus()
        # While Redis is known to be away, waiting would make every task as slow as the budget allows.
        if self._settings.flush_budget and not bus.flusher.failures:
            bus.flush(self._settings.flush_budget)


def _copied(headers: dict[str, Any], scope: Scope | None) -> bool:
    """Whether a message has the leaf of the running task, though it is another task: headers handed on by hand."""
    if scope is None or scope.leaf is None:
        return False
    return headers[LEAF] == scope.leaf.key and headers.get("id") != scope.task


def _settled(task: Any, state: str | None, outcome: Any) -> tuple[str | None, Any]:
    """State and outcome that count; None for a task whose end is told elsewhere or not at all."""
    if state == states.REJECTED:
        # Requeued, it will run again; else nobody will ever run it.
        return (None, outcome) if getattr(outcome, "requeue", False) else (states.FAILURE, outcome)
    if state is None and task.request.is_eager:
        # An eager task that propagates: Celery raises before it has noted a state, and does not retry.
        error = sys.exception()
        if isinstance(error, Exception):
            return states.FAILURE, error
    return state, outcome
