"""What a worker's main process sees of tasks that cannot speak for themselves: killed, timed out, expired, revoked.

It hears of each task when the message comes, and keeps what the headers say for as long as Celery keeps the request.
Whatever the pool's process may have told as well is told under the same id, and counted for the same leaf: once.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from billiard.einfo import ExceptionWithTraceback
from celery import states
from celery.exceptions import TimeLimitExceeded, WorkerLostError
from celery.worker import state as worker_state

from eventbus.operations.events import (
    STAMP,
    OperationRef,
    RevokedReason,
    TaskFailed,
    TaskRetry,
    TaskRevoked,
    TaskSucceeded,
)
from worker_adapter.context.error_text import caused_by_retry, error_text
from worker_adapter.context.headers import (
    ALREADY_EXPIRED,
    WORKER_INFO,
    TaskKey,
    read_operation,
    read_worker_info,
    task_key_of,
)
from worker_adapter.context.task_context import TaskContext, current_context, use_context
from worker_adapter.lifecycle import task_events
from worker_adapter.lifecycle.cancellation import known
from worker_adapter.settings import WorkerSettings

__all__ = ["MainProcessSignals", "TaskRequestInfo"]

_STOPPED: Final = "WorkerShutdown: the worker was stopped while it ran this task"


@dataclass(frozen=True, slots=True)
class TaskRequestInfo:
    """A task of an operation, as its message describes it. ``cancelled_before_publish``: the operation
    was cancelled before the message was published.
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
        """What every ``task.*`` event says."""
        return {"task": self.task, "name": self.name, "retries": self.retries}


def request_info(
    headers: Mapping[str, Any] | None, name: str, task_id: str, retries: int = 0
) -> TaskRequestInfo | None:
    """The task whose message has these headers; None if it belongs to no operation."""
    found = read_operation(headers)
    if found is None or headers is None:
        return None
    retries = int(headers.get("retries") or retries or 0)
    cancelled_before_publish = headers.get("expires") == ALREADY_EXPIRED
    return TaskRequestInfo(
        *found, task_key_of(name, task_id, headers), task_id, name, retries, cancelled_before_publish
    )


class MainProcessSignals:
    """Hears the signals that a worker's main process sends. In any other process it hears nothing.

    Attributes:
        leasing: whether this worker renews leases (``LeaseBootstep``).
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._requests: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
        self._reported_requests: weakref.WeakSet[Any] = weakref.WeakSet()
        self.leasing = False

    def received(self, request: Any) -> None:
        """A message has come and will be run here, now or at its time."""
        headers = request.request_dict
        if read_operation(headers) is None:
            return
        self._requests[request.id] = request
        # The pool calls what it finds on the request: see _ending. Weakly: a request goes when done.
        request.on_failure = partial(_with_context, weakref.ref(request), "on_failure", self)
        request.on_timeout = partial(_with_context, weakref.ref(request), "on_timeout", self)
        lease = int(self._settings.lease * 1000) if self.leasing else 0
        events = bool(request.eventer and request.eventer.enabled and request.task.send_events)
        # This very dict is handed to the process that runs the task.
        headers[WORKER_INFO] = [lease, events]

    def of(self, request: Any) -> TaskRequestInfo | None:
        """What is known of a request."""
        return request_info(request.request_dict, request.task.name, request.id)

    def of_operations(self, requests: Iterator[Any], *, leased: bool) -> Iterator[tuple[Any, TaskRequestInfo]]:
        """Those of the requests that belong to operations; ``leased``: whose leases are this worker's to renew."""
        for request in requests:
            if leased and not read_worker_info(request.request_dict).lease:
                continue
            found = self.of(request)
            if found is not None:
                yield request, found

    # --- how tasks end, seen from outside --------------------------------------------------------------------

    def failed(self, task: Any, task_id: str, error: object) -> None:
        """A task's result is a failure, by Celery's word."""
        if _runs_here(task_id):
            return  # its own end tells more
        if isinstance(error, BaseException) and caused_by_retry(error):
            return  # a hook has raised in a pool that shares this process
        request = self._requests.get(task_id)
        if request is not None:
            self._reported_requests.add(request)
        found = self._find(task, task_id, request)
        if found is None or getattr(request, "_already_revoked", False):
            return
        if isinstance(error, TimeLimitExceeded) and _comes_again_after(task):
            task_events.record_transition(found.operation, found.label, "released", found.key)
            return
        self._fail(found, self._text(error))

    def revoked(self, task: Any, context: Any, *, terminated: bool, expired: bool) -> None:
        """A task was discarded, or stopped."""
        found = self._find(task, context.id, self._requests.get(context.id), context)
        if found is None:
            return
        reason: RevokedReason = "terminated" if terminated else "expired" if expired else "revoked"
        if found.cancelled_before_publish or _is_cancelled(found.operation):
            reason = "cancelled"
        task_events.emit_task_event(
            self._settings, found.operation, found.key, "revoked", TaskRevoked(**found.facts, reason=reason)
        )
        task_events.record_transition(found.operation, found.label, "revoked", found.key)

    def retried(self, task: Any, context: Any, reason: Any) -> None:
        """A task will be tried again, though nobody in it said so: its process is gone, or its worker is going."""
        if _runs_here(context.id):
            return
        request = self._requests.get(context.id)
        if request is not None:
            self._reported_requests.add(request)
        found = self._find(task, context.id, request, context)
        if found is None:
            return
        if reason is not None:
            error = self._text(getattr(reason, "exc", None) or reason)
            task_events.emit_task_event(
                self._settings, found.operation, found.key, "retry", TaskRetry(**found.facts, error=error)
            )
        elif task.acks_late:
            task_events.record_transition(found.operation, found.label, "released", found.key)
        else:
            # Celery says retry; but the message was acknowledged when the task began, and nobody sends another.
            self._fail_unless_ended(found, _STOPPED)

    def refused(self, headers: Mapping[str, Any] | None, error: object) -> None:
        """A message names a task that this worker does not know, or cannot be read."""
        headers = headers or {}
        found = request_info(headers, str(headers.get("task")), str(headers.get("id")))
        if found is not None:
            name = "NotRegistered" if isinstance(error, KeyError) else type(error).__name__
            self._fail(found, f"{name}: {found.name}" if isinstance(error, KeyError) else self._text(error))

    def stopping(self, running: Iterator[Any]) -> None:
        """The worker is stopped without waiting: ``running`` are the requests that it has begun."""
        cancelled = [request for request in self._requests.values() if getattr(request, "_already_cancelled", False)]
        for request in {*running, *cancelled}:
            found = self.of(request)
            if found is None or getattr(request, "_already_revoked", False):
                continue
            if request.task.acks_late:
                task_events.record_transition(found.operation, found.label, "released", found.key)
            else:
                self._fail_unless_ended(found, _STOPPED)

    def finish_request(self, request: Any, how: str, *args: Any, **options: Any) -> Any:
        """Let Celery deal with the end of a task. What it publishes thereby, error callbacks, is its operation's, too:
        those that the canvas names have our headers, those of what a task has started have not.
        """
        found = self.of(request)
        assert found is not None
        with use_context(TaskContext(found.operation, found.label, self._settings)):
            outcome = getattr(type(request), how)(request, *args, **options)
        if how == "on_failure":
            self._after_failure(request, args[0])
        return outcome

    def _after_failure(self, request: Any, exc_info: Any) -> None:
        """Celery has dealt with a process that is gone. If it found the result of a task that had succeeded, it has
        acknowledged the message and told nobody; and the process may not have come to say so.
        """
        lost = isinstance(_error_of(exc_info), (WorkerLostError, SystemExit, KeyboardInterrupt))
        if not lost or request in self._reported_requests or not _has_succeeded(request):
            return
        found = self.of(request)
        if found is not None and request.chord:
            # The result is stored first, then its chord is told, by the process that is gone: the body may never come.
            # Unless the process has come to its end after that.
            self._fail_unless_ended(found, self._text(WorkerLostError()))
        elif found is not None:
            succeeded = TaskSucceeded(**found.facts)
            task_events.emit_task_event(self._settings, found.operation, found.key, "succeeded", succeeded)
            task_events.record_transition(found.operation, found.label, "done", found.key)

    def _fail(self, found: TaskRequestInfo, error: str) -> None:
        task_events.emit_task_event(
            self._settings, found.operation, found.key, "failed", TaskFailed(**found.facts, error=error)
        )
        task_events.record_transition(found.operation, found.label, "failed", found.key)

    def _fail_unless_ended(self, found: TaskRequestInfo, error: str) -> None:
        """For what may have ended without this process having heard of it: it sleeps through a soft shutdown."""
        failed = TaskFailed(**found.facts, error=error)
        task_events.record_failed(self._settings, found.operation, found.label, found.key, failed)

    def _find(self, task: Any, task_id: str, request: Any, context: Any = None) -> TaskRequestInfo | None:
        if request is not None:
            return self.of(request)
        if context is None:
            context = task.request_stack.top
        return None if context is None else request_info(context.headers, task.name, task_id, context.retries)

    def _text(self, error: object) -> str:
        if isinstance(error, WorkerLostError):
            return "WorkerLost: the process that ran this task ended"
        if isinstance(error, TimeLimitExceeded):
            return f"TimeLimitExceeded: it ran for more than {error.args[0] if error.args else '?'} s"
        return error_text(error, self._settings.error_chars)


def _with_context(reference: Any, how: str, main_process: MainProcessSignals, *args: Any, **options: Any) -> Any:
    """A method of ``Request``, with what ``MainProcessSignals.finish_request`` has around it."""
    request = reference()
    return None if request is None else main_process.finish_request(request, how, *args, **options)


def _error_of(exc_info: Any) -> object:
    error = exc_info.exception
    return error.exc if isinstance(error, ExceptionWithTraceback) else error


def _has_succeeded(request: Any) -> bool:
    """Whether the result says so: by the same look at it by which Celery decides, after it has looked."""
    try:
        return not request.ignore_result and bool(request.task.backend.get_state(request.id) == states.SUCCESS)
    except Exception:  # noqa: BLE001 - whatever a backend raises, Celery has taken it for a failure as well
        return False


def _runs_here(task_id: str) -> bool:
    context = current_context.get()
    return context is not None and context.task_id == task_id


def _is_cancelled(operation: OperationRef) -> bool:
    """Whether this worker knows it, by Redis or by a revocation of the operation's stamp, which may be faster."""
    revoked = worker_state.revoked_stamps.get(STAMP) or ()
    return operation in known or operation.stamp in ([revoked] if isinstance(revoked, str) else revoked)


def _comes_again_after(task: Any) -> bool:
    """Whether a task that exceeded its time limit is put back."""
    acknowledged = getattr(task, "acks_on_timeout", None)
    if acknowledged is None:
        acknowledged = getattr(task, "acks_on_failure_or_timeout", True)
    return bool(task.acks_late) and not acknowledged
