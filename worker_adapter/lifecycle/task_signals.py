"""Celery's signals about one task, translated into events and transitions of its operation.

``installation.py`` connects them. Celery catches and logs each exception of a receiver, so the receivers need no guard
against their own errors: the task goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from celery import states
from celery.exceptions import Retry

from eventbus.operations.events import TaskFailed, TaskRetry, TaskRevoked, TaskStarted, TaskSucceeded, current_operation
from eventbus.process_bus import default_bus
from eventbus.protocol.ids import event_id
from worker_adapter.context.error_text import error_text
from worker_adapter.context.headers import (
    ALREADY_EXPIRED,
    OPERATION,
    TASK_KEY,
    WORKER_INFO,
    delay_of,
    operation_headers,
    read_operation,
    read_worker_info,
    stamp,
    task_key_of,
)
from worker_adapter.context.task_context import PreviousContext, TaskContext, attach, current_context, detach
from worker_adapter.lifecycle import running_tasks, task_events
from worker_adapter.lifecycle.cancellation import is_cancelled
from worker_adapter.lifecycle.celery_internals import arguments_of_retry, message_headers
from worker_adapter.lifecycle.process_state import process
from worker_adapter.lifecycle.running_tasks import RunningTask
from worker_adapter.lifecycle.task_outcome import continuation_of, outcome_of, transition_of
from worker_adapter.settings import WorkerSettings

__all__ = ["TaskSignals"]

# On the request, which Celery keeps on a stack per thread and greenlet: eager tasks nest, and pools run tasks in
# parallel.
_ATTRIBUTE: Final = "_eventbus"


class TaskSignals:
    """Receivers of the signals that Celery sends where a task is published and where it runs.

    Args:
        settings: of the installation.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings

    def before_publish(self, headers: dict[str, Any], properties: dict[str, Any]) -> None:
        """Write the operation and the task's key into a message.

        Args:
            headers: of the message; changed in place.
            properties: of the message; changed in place.
        """
        context = current_context.get()
        if OPERATION not in headers:
            operation = current_operation.get()
            if operation is None:
                return
            headers.update(operation_headers(operation, context.label if context is not None else ""))
        if _is_next_try(headers, context):
            if context is not None and context.key is not None:
                headers[TASK_KEY] = context.key.value  # retry(headers=…) replaces all headers of the task
                context.retry_published = True
            self._release(headers)
        elif TASK_KEY not in headers or _is_copied(headers, context):
            headers[TASK_KEY] = event_id()
        headers.pop(WORKER_INFO, None)
        found = read_operation(headers)
        if found is None:
            return
        stamp(headers, found[0])
        # RabbitMQ would drop an expired message without a trace. A worker reports it.
        properties.pop("expiration", None)
        in_worker = context is not None and context.in_worker
        if found[0] in process.cancelled or (in_worker and is_cancelled(default_bus(), found[0])):
            # A receiver cannot prevent that Celery sends the message. With this no worker runs the task.
            headers["expires"] = ALREADY_EXPIRED

    def after_publish(self, name: str, headers: dict[str, Any]) -> None:
        """Record a task that the broker has accepted. A message that could not be sent must not keep it open.

        Args:
            name: the task's name.
            headers: of the message.
        """
        found, context = read_operation(headers), current_context.get()
        if found is None:
            return
        key = task_key_of(name, str(headers.get("id")), headers)
        if headers.get("retries") and (context is None or context.key == key):
            return
        members = task_events.task_members(str(headers.get("id")), name, int(headers.get("retries") or 0))
        task_events.record_published(*found, key, delay_of(headers), members)
        if context is not None and context.in_worker:
            # If this process is killed now, its operation must not end without the task that it has published.
            self._flush()

    def _release(self, headers: dict[str, Any]) -> None:
        """Record that this run ends because the next try is about to be published, before the next try can begin."""
        found = read_operation(headers)
        if found is None:
            return
        name, task_id = str(headers.get("task")), str(headers.get("id"))
        key, context, error = task_key_of(name, task_id, headers), current_context.get(), _retry_reason()
        if context is not None and isinstance(error, Exception):
            text = error_text(error, self._settings.error_chars)
            retry = TaskRetry(task=task_id, name=name, retries=headers["retries"] - 1, error=text)
            task_events.emit_task_event(self._settings, found[0], key, "retry", retry)
        task_events.record_transition(*found, "released", key, delay_of(headers))
        if context is not None:
            self._flush()  # only a task may wait; the worker's main process, which also publishes tries, must not

    def before_run(self, task: Any, task_id: str) -> None:
        """Report that a task begins, and make it the current one.

        Args:
            task: Celery's task.
            task_id: the task's id.
        """
        request = task.request
        if getattr(request, _ATTRIBUTE, None) is not None:
            return
        _keep_eager_off_disk(task.app)
        context = self._context_of(task.name, task_id, request)
        context.continuation, context.handled_error = continuation_of(request), sys.exception()
        setattr(request, _ATTRIBUTE, (context, attach(context)))
        if context.operation is None or context.key is None:
            return
        info = read_worker_info(message_headers(request, WORKER_INFO))
        started = TaskStarted(task=task_id, name=task.name, retries=request.retries)
        task_events.emit_task_event(self._settings, context.operation, context.key, "started", started)
        members = task_events.task_members(task_id, task.name, request.retries)
        late = bool(task.acks_late)
        task_events.record_started(context.operation, context.label, context.key, info.lease, late, members)
        if not request.is_eager:
            context.in_worker = True
            running_tasks.add(RunningTask(context, task, request.hostname, sends_events=info.events))

    def after_run(self, task: Any, state: str | None, result: Any) -> None:
        """Report how a task ended, and restore the previous context.

        Args:
            task: Celery's task.
            state: its state.
            result: its return value or its error.
        """
        request = task.request
        attached: tuple[TaskContext, PreviousContext] | None = getattr(request, _ATTRIBUTE, None)
        if attached is None:
            return
        context, previous = attached
        setattr(request, _ATTRIBUTE, None)
        if context.in_worker:
            running_tasks.remove(context)
        try:
            state, result = outcome_of(task, context, state, result)
            # Before the end of the task is reported and counted: its end comes after all of its events.
            context.deferred_events.settle(succeeded=state == states.SUCCESS)
            if context.operation is not None and context.key is not None:
                self._report_end(task, context, state, result)
            if state == states.FAILURE and previous[0] is not None:
                previous[0].failed = True
        finally:
            detach(previous)
            self._flush()

    def _report_end(self, task: Any, context: TaskContext, state: str | None, result: Any) -> None:
        assert context.operation is not None
        assert context.key is not None
        facts = {"task": context.task_id, "name": task.name, "retries": task.request.retries}
        emit = partial(task_events.emit_task_event, self._settings, context.operation, context.key)
        if state == states.SUCCESS:
            emit("succeeded", TaskSucceeded(**facts))
        elif state == states.RETRY:
            emit("retry", TaskRetry(**facts, error=error_text(result, self._settings.error_chars)))
        elif state == states.FAILURE:
            for report in context.failure_callbacks:
                report()
            emit("failed", TaskFailed(**facts, error=error_text(result, self._settings.error_chars)))
        elif state == states.REVOKED:
            emit("revoked", TaskRevoked(**facts, reason="cancelled"))
        # replace() raises Ignore. The task has done its part, and its replacement has been published.
        kind = transition_of(state, task.request, context)
        if kind is not None:
            info = read_worker_info(message_headers(task.request, WORKER_INFO))
            lease = info.lease if kind == "joined" else 0
            task_events.record_transition(context.operation, context.label, kind, context.key, lease)

    def _context_of(self, name: str, task_id: str, request: Any) -> TaskContext:
        headers = message_headers(request, OPERATION)
        found = read_operation(headers)
        if found is None and request.is_eager:
            # An eager task was never published. It runs for the operation of its caller.
            outer, operation = current_context.get(), current_operation.get()
            found = None if operation is None else (operation, outer.label if outer is not None else "")
        if found is None:
            return TaskContext(None, "", self._settings, task_id=task_id)
        return TaskContext(*found, self._settings, task_key_of(name, task_id, headers), task_id)

    def _flush(self) -> None:
        bus = default_bus()
        # While Redis is known to be down, waiting would make each task slower by the whole budget.
        if self._settings.flush_budget and not bus.outbox.failures:
            bus.outbox.wait_settled(self._settings.flush_budget)


def _keep_eager_off_disk(app: Any) -> None:
    """Keep the events of an eager application off the disk.

    ``task_always_eager`` is for tests and development. A worker that starts later would send their events to real
    users.
    """
    if app.conf.task_always_eager:
        default_bus().outbox.keep_off_disk()


def _is_next_try(headers: Mapping[str, Any], context: TaskContext | None) -> bool:
    """Whether a message is the next try of the running task; in the worker's main process, of any task.

    A task may also publish another task with a number of retries, so the id decides. ``retry(task_id=…)`` may have
    changed the id.
    """
    if not headers.get("retries"):
        return False
    if context is None:
        return TASK_KEY in headers
    return context.key is not None and (headers.get("id") == context.task_id or arguments_of_retry() is not None)


def _retry_reason() -> BaseException | None:
    """The error for which a task is retried: the one that was passed to ``retry``, or the one that is being handled.

    Celery names it in the signal of the task's end, when the next try may have begun.
    """
    arguments = arguments_of_retry()
    if arguments is None:
        return sys.exception()
    error: BaseException | None = arguments.get("exc") or sys.exception()
    return error or Retry(exc=None, when=arguments.get("eta") or arguments.get("countdown"))


def _is_copied(headers: dict[str, Any], context: TaskContext | None) -> bool:
    """Whether another task has the key of the running task, because the application passed its headers on."""
    if context is None or context.key is None:
        return False
    return headers[TASK_KEY] == context.key.value and headers.get("id") != context.task_id
