"""What the moments of a task's life mean for its operation. ``install.py`` sees to it that they are heard.

Nothing here guards against its own errors: Celery catches and logs what a signal's receiver raises, and the task goes
on.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Mapping
from functools import partial
from types import FrameType
from typing import Any, Final

from billiard.process import current_process
from celery import Task, states
from celery.exceptions import Reject, Retry

from eventbus.bus import default_bus
from eventbus.operations.events import TaskFailed, TaskRetry, TaskRevoked, TaskStarted, TaskSucceeded, current_operation
from eventbus.operations.state import TransitionKind
from eventbus.protocol.ids import event_id
from worker_adapter.context.error_text import error_text
from worker_adapter.context.headers import (
    ALREADY_EXPIRED,
    OPERATION,
    TASK_KEY,
    WORKER_INFO,
    operation_headers,
    read_operation,
    read_worker_info,
    stamp,
    task_key_of,
)
from worker_adapter.context.task_context import PreviousContext, TaskContext, attach, current_context, detach
from worker_adapter.lifecycle import running_tasks, task_events
from worker_adapter.lifecycle.cancellation import OperationCancelled, ask, known
from worker_adapter.lifecycle.running_tasks import RunningTask
from worker_adapter.settings import WorkerSettings

__all__ = ["TaskSignals"]

log = logging.getLogger(__name__)

# On the request, which Celery keeps on a stack per thread and greenlet: eager tasks nest, pools run side by side.
_PLACE: Final = "_eventbus"

_RELEASED: Final = "requeued"
# A retry has been released when its next try was published.
_MARKS: Final[Mapping[str | None, TransitionKind]] = {
    states.SUCCESS: "done",
    states.IGNORED: "ignored",
    states.FAILURE: "failed",
    states.REVOKED: "revoked",
    _RELEASED: "released",
}


class TaskSignals:
    """Tells of tasks, by the settings of one installation."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings

    def publishing(self, headers: dict[str, Any], properties: dict[str, Any]) -> None:
        """A message is about to be published: write on it on whose behalf, and which leaf it is."""
        context = current_context.get()
        if OPERATION not in headers:
            operation = current_operation.get()
            if operation is None:
                return
            headers.update(operation_headers(operation, context.label if context is not None else ""))
        if _is_next_try(headers, context):
            if context is not None and context.key is not None:
                headers[TASK_KEY] = context.key.value  # retry(headers=…) replaces those of the task, the leaf with them
                context.retry_published = True
            self._release(headers)
        elif TASK_KEY not in headers or _copied(headers, context):
            headers[TASK_KEY] = event_id()
        headers.pop(WORKER_INFO, None)
        found = read_operation(headers)
        if found is None:
            return
        stamp(headers, found[0])
        # RabbitMQ drops by itself what has expired, and nobody would ever hear of it; a worker says so.
        properties.pop("expiration", None)
        if found[0] in known or (context is not None and context.in_worker and ask(default_bus(), found[0])):
            # A receiver of a signal cannot keep a message from being sent; it can see to it that nobody runs it.
            headers["expires"] = ALREADY_EXPIRED

    def published(self, name: str, headers: dict[str, Any]) -> None:
        """A message is with the broker. Told only now: one that could not be sent must not keep an operation open."""
        found, context = read_operation(headers), current_context.get()
        if found is None:
            return
        key = task_key_of(name, str(headers.get("id")), headers)
        if headers.get("retries") and (context is None or context.key == key):
            return
        task_events.record_transition(*found, "published", key)
        if context is not None and context.in_worker:
            # Should this process be killed now, its operation must not end without what it has sent on its way.
            self._flush()

    def _release(self, headers: dict[str, Any]) -> None:
        """The next try is about to be published: this one runs no longer. Said before the next one can begin."""
        found = read_operation(headers)
        if found is None:
            return
        name, task_id = str(headers.get("task")), str(headers.get("id"))
        key, context, error = task_key_of(name, task_id, headers), current_context.get(), _why_again()
        if context is not None and isinstance(error, Exception):
            text = error_text(error, self._settings.error_chars)
            retry = TaskRetry(task=task_id, name=name, retries=headers["retries"] - 1, error=text)
            task_events.emit_task_event(self._settings, found[0], key, "retry", retry)
        task_events.record_transition(*found, "released", key)
        if context is not None:
            self._flush()  # a task waits for it; the worker's main process, which may send it too, must not

    def starting(self, task: Any, task_id: str) -> None:
        """A task begins here."""
        request = task.request
        if getattr(request, _PLACE, None) is not None:
            return
        context = self._scope_of(task.name, task_id, request)
        context.continuation, context.handled_error = _follows(request), sys.exception()
        setattr(request, _PLACE, (context, attach(context)))
        if context.operation is None or context.key is None:
            return
        here = read_worker_info(request.headers)
        began = TaskStarted(task=task_id, name=task.name, retries=request.retries)
        task_events.emit_task_event(self._settings, context.operation, context.key, "started", began)
        members = task_events.about(task_id, task.name, request.retries)
        late = bool(task.acks_late)
        task_events.record_started(context.operation, context.label, context.key, here.lease, late, members)
        if not request.is_eager:
            context.in_worker = True
            running_tasks.began(RunningTask(context, task, request.hostname, shown=here.events))

    def ended(self, task: Any, state: str | None, outcome: Any) -> None:
        """A task has ended here, in ``state``, with its return value or its error."""
        request = task.request
        place: tuple[TaskContext, PreviousContext] | None = getattr(request, _PLACE, None)
        if place is None:
            return
        context, previous = place
        setattr(request, _PLACE, None)
        if context.in_worker:
            running_tasks.ended(context)
        try:
            state, outcome = _settled(task, context, state, outcome)
            # Before the task is told to have succeeded, and counted: its end comes after everything that it said.
            context.deferred_events.settle(succeeded=state == states.SUCCESS)
            if context.operation is not None and context.key is not None:
                self._report_end(task, context, state, outcome)
            if state == states.FAILURE and previous[0] is not None:
                previous[0].failed = True
        finally:
            detach(previous)
            self._flush()

    def _report_end(self, task: Any, context: TaskContext, state: str | None, outcome: Any) -> None:
        assert context.operation is not None
        assert context.key is not None
        about = {"task": context.task_id, "name": task.name, "retries": task.request.retries}
        emit_task_event = partial(task_events.emit_task_event, self._settings, context.operation, context.key)
        if state == states.SUCCESS:
            emit_task_event("succeeded", TaskSucceeded(**about))
        elif state == states.RETRY:
            error = error_text(outcome, self._settings.error_chars)
            emit_task_event("retry", TaskRetry(**about, error=error))
        elif state == states.FAILURE:
            for report in context.failure_callbacks:
                report()
            error = error_text(outcome, self._settings.error_chars)
            emit_task_event("failed", TaskFailed(**about, error=error))
        elif state == states.REVOKED:
            emit_task_event("revoked", TaskRevoked(**about, reason="cancelled"))
        # Ignore is how replace() ends: this task has done its part, and what replaces it has been published.
        kind = _MARKS.get(state)
        if kind == "done":
            kind = _how_done(task.request, context)
        if kind is not None:
            lease = read_worker_info(task.request.headers).lease if kind == "joined" else 0
            task_events.record_transition(context.operation, context.label, kind, context.key, lease)

    def _scope_of(self, name: str, task_id: str, request: Any) -> TaskContext:
        found = read_operation(request.headers)
        if found is None and request.is_eager:
            # An eager task was never published: it runs on behalf of whoever called it.
            outer, operation = current_context.get(), current_operation.get()
            found = None if operation is None else (operation, outer.label if outer is not None else "")
        if found is None:
            return TaskContext(None, "", self._settings, task_id=task_id)
        return TaskContext(*found, self._settings, task_key_of(name, task_id, request.headers), task_id)

    def _flush(self) -> None:
        bus = default_bus()
        # While Redis is known to be away, waiting would make every task as slow as the budget allows.
        if self._settings.flush_budget and not bus.outbox.failures:
            bus.flush(self._settings.flush_budget)


def _retrying() -> FrameType | None:
    """The call of ``Task.retry`` that publishes here, if one does."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not Task.retry.__code__:
        frame = frame.f_back
    return frame


def _is_next_try(headers: Mapping[str, Any], context: TaskContext | None) -> bool:
    """Whether a message is the next try of the task that runs here; in the worker's main process, of any task.

    By its id, which ``retry(task_id=…)`` may have changed: a task may also publish another with a number of its own.
    """
    if not headers.get("retries"):
        return False
    if context is None:
        return TASK_KEY in headers
    return context.key is not None and (headers.get("id") == context.task_id or _retrying() is not None)


def _why_again() -> BaseException | None:
    """The error for which a task is published once more: the one that is handled here, or was handed to ``retry``.

    Celery tells nobody of the latter before the task's end, when the next try may have begun. So it is looked up in
    the call of ``Task.retry`` that publishes; where there is none, the end tells.
    """
    frame = _retrying()
    if frame is None:
        return sys.exception()
    given = frame.f_locals
    error = given.get("exc") or sys.exception()
    return error or Retry(exc=None, when=given.get("eta") or given.get("countdown"))


def _follows(request: Any) -> tuple[object, ...]:
    return request.chain, request.callbacks, request.chord


def _how_done(request: Any, context: TaskContext) -> TransitionKind:
    """What a success means for the rest of the canvas. Celery takes from the chain that came with the message; a task
    that wants no more of it puts None in its place.
    """
    if any(had and has is not had for had, has in zip(context.continuation, _follows(request), strict=True)):
        return "ignored"
    return "joined" if request.chord else "done"


def _copied(headers: dict[str, Any], context: TaskContext | None) -> bool:
    """Whether a message has the leaf of the running task, though it is another task: headers handed on by hand."""
    if context is None or context.key is None:
        return False
    return headers[TASK_KEY] == context.key.value and headers.get("id") != context.task_id


def _settled(task: Any, context: TaskContext, state: str | None, outcome: Any) -> tuple[str | None, Any]:
    """State and outcome that count; None for a task whose end is told elsewhere or not at all."""
    error = sys.exception()
    if state == states.SUCCESS and error is not context.handled_error and isinstance(error, Exception):
        # On its way out, after the task has returned: what follows could not be published, the result not be stored.
        # Celery calls that a failure when it has left here.
        state, outcome = (states.REJECTED if isinstance(error, Reject) else states.FAILURE), error
    if context.retry_published and state in (states.SUCCESS, states.IGNORED):
        return None, outcome  # retry(throw=False): this try has come to its end, the task has not
    if state is None:
        return (states.FAILURE, error) if _ends_here(task.request, context, error) else (None, outcome)
    if state == states.REJECTED:
        # Requeued, it will run again; else nobody will ever run it. What was acknowledged cannot be requeued.
        requeued = getattr(outcome, "requeue", False) and task.acks_late and not task.request.is_eager
        return (_RELEASED if requeued else states.FAILURE), outcome
    if state == states.IGNORED and isinstance(outcome, OperationCancelled):
        _store_revoked(task)
        return states.REVOKED, outcome
    if state == states.RETRY and not context.retry_published and not task.request.is_eager:
        # raise Retry(…), without retry(): nothing has been published, so nobody will ever try again.
        return states.FAILURE, outcome
    return state, outcome


def _ends_here(request: Any, context: TaskContext, error: BaseException | None) -> bool:
    """Whether nobody else tells of a task that ``error`` has left before Celery had noted a state."""
    if error is None:
        return False
    if isinstance(error, Exception):
        # An eager task that propagates: Celery does not retry it. Elsewhere a hook or the result backend has raised
        # where Celery dealt with the task's own error: it does so once more when we have been here, and then nobody
        # hears of it, or only from some pools. Where the next try has been published, it is under way.
        return bool(request.is_eager) or not context.retry_published
    # SystemExit, asyncio's CancelledError, …: a pool's process they end, and the main process tells of it. Here Celery
    # drops them. A pool of greenlets stops tasks by errors of its own; the worker knows why, and tells.
    pools = type(error).__module__.partition(".")[0] in ("greenlet", "gevent")
    return current_process().name == "MainProcess" and not pools


def _store_revoked(task: Any) -> None:
    """Whoever waits for the result of a task that stopped itself is told what they would be told of a revoked one."""
    request = task.request
    if request.is_eager:
        return
    try:
        stored = not (request.ignore_result or task.ignore_result) or task.store_errors_even_if_ignored
        task.backend.mark_as_revoked(request.id, "cancelled", request=request, store_result=stored)
    except Exception:
        log.exception("the result of a cancelled task could not be stored")
