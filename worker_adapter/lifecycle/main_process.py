"""Signals of a worker's main process about tasks that cannot report their own end.

Such tasks are killed, timed out, expired or revoked.

The main process keeps the headers of each message for as long as Celery keeps the request. The pool's process may have
reported the same end. Both reports have the same event id and the same task key, so the end counts once.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from billiard.einfo import ExceptionWithTraceback
from celery import states
from celery.exceptions import TimeLimitExceeded, WorkerLostError

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
from worker_adapter.context.headers import OPERATION, WORKER_INFO, read_operation, read_worker_info
from worker_adapter.context.task_context import TaskContext, current_context, use_context
from worker_adapter.context.task_request import TaskRequestInfo, read_task_request
from worker_adapter.lifecycle import celery_internals, task_events
from worker_adapter.lifecycle.process_state import process
from worker_adapter.settings import WorkerSettings

__all__ = ["MainProcessSignals"]

_STOPPED: Final = "WorkerShutdown: the worker was stopped while it ran this task"


class MainProcessSignals:
    """Receivers of the signals that a worker's main process sends. Other processes send none of them.

    Args:
        settings: of the installation.

    Attributes:
        leasing: whether this worker renews leases (``LeaseBootstep``).
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._requests: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
        self._reported: weakref.WeakSet[Any] = weakref.WeakSet()
        self.leasing = False

    def received(self, request: Any) -> None:
        """Keep a request that the worker has received.

        Args:
            request: the worker's request.
        """
        headers = request.request_dict
        if read_operation(headers) is None:
            return
        self._requests[request.id] = request
        # Weakly, since Celery drops a request when it has ended.
        celery_internals.replace_end_handlers(request, partial(_bound_handler, weakref.ref(request), self))
        lease = int(self._settings.lease * 1000) if self.leasing else 0
        events = bool(request.eventer and request.eventer.enabled and request.task.send_events)
        # Celery passes this very dict to the process that runs the task.
        headers[WORKER_INFO] = [lease, events]

    def info_of(self, request: Any) -> TaskRequestInfo | None:
        """Return the task of a request; None if it belongs to no operation.

        Args:
            request: the worker's request.
        """
        return read_task_request(request.request_dict, request.task.name, request.id)

    def of_operations(self, requests: Iterable[Any], *, leased: bool) -> Iterator[tuple[Any, TaskRequestInfo]]:
        """Select the requests that belong to operations.

        Args:
            requests: the worker's requests.
            leased: select only those whose leases this worker renews.

        Yields:
            Each request with its task.
        """
        for request in requests:
            if leased and not read_worker_info(request.request_dict).lease:
                continue
            found = self.info_of(request)
            if found is not None:
                yield request, found

    # --- ends of tasks ---------------------------------------------------------------------------------------

    def failed(self, task: Any, task_id: str, error: object) -> None:
        """Receive that Celery stored a failure.

        Args:
            task: Celery's task.
            task_id: the task's id.
            error: the error.
        """
        if _runs_here(task_id):
            return  # the task's own signal knows more
        if isinstance(error, BaseException) and caused_by_retry(error):
            return  # a hook raised, in a pool that runs in this process
        request = self._requests.get(task_id)
        if request is not None:
            self._reported.add(request)
        found = self._find(task, task_id, request)
        if found is None or celery_internals.is_announced_revoked(request):
            return
        if isinstance(error, TimeLimitExceeded) and celery_internals.is_requeued_after_timeout(task):
            task_events.record_transition(found.operation, found.label, "released", found.key)
            return
        self._fail(found, self._text(error))

    def revoked(self, task: Any, request_context: Any, *, terminated: bool, expired: bool) -> None:
        """Receive that Celery discarded or terminated a task.

        Args:
            task: Celery's task.
            request_context: ``Task.request`` as the signal has it.
            terminated: the task was running.
            expired: the message had expired.
        """
        found = self._find(task, request_context.id, self._requests.get(request_context.id), request_context)
        if found is None:
            return
        reason: RevokedReason = "terminated" if terminated else "expired" if expired else "revoked"
        if found.cancelled_before_publish or _is_cancelled(found.operation):
            reason = "cancelled"
        revoked = TaskRevoked(**found.facts, reason=reason)
        task_events.emit_task_event(self._settings, found.operation, found.key, "revoked", revoked)
        task_events.record_transition(found.operation, found.label, "revoked", found.key)

    def retried(self, task: Any, request_context: Any, reason: Any) -> None:
        """Receive that Celery retries a task whose process or worker ends.

        Args:
            task: Celery's task.
            request_context: ``Task.request`` as the signal has it.
            reason: the error, if there is one.
        """
        if _runs_here(request_context.id):
            return
        request = self._requests.get(request_context.id)
        if request is not None:
            self._reported.add(request)
        found = self._find(task, request_context.id, request, request_context)
        if found is None:
            return
        if reason is not None:
            retry = TaskRetry(**found.facts, error=self._text(getattr(reason, "exc", None) or reason))
            task_events.emit_task_event(self._settings, found.operation, found.key, "retry", retry)
        elif task.acks_late:
            task_events.record_transition(found.operation, found.label, "released", found.key)
        else:
            # Celery announces a retry. But the message was acknowledged when the task began, and no other is sent.
            self._fail_unless_ended(found, _STOPPED)

    def refused(self, headers: Mapping[str, Any] | None, error: object) -> None:
        """Receive that a message names an unknown task or cannot be read.

        Args:
            headers: of the message.
            error: the error.
        """
        headers = headers or {}
        found = read_task_request(headers, str(headers.get("task")), str(headers.get("id")))
        if found is not None:
            unknown = isinstance(error, KeyError)
            self._fail(found, f"NotRegistered: {found.name}" if unknown else self._text(error))

    def stopping(self, running: Iterable[Any]) -> None:
        """Report the tasks that the worker abandons in a cold shutdown.

        Args:
            running: the requests that have begun.
        """
        cancelled = [request for request in self._requests.values() if celery_internals.is_cancelled_by_worker(request)]
        for request in {*running, *cancelled}:
            found = self.info_of(request)
            if found is None or celery_internals.is_announced_revoked(request):
                continue
            if request.task.acks_late:
                task_events.record_transition(found.operation, found.label, "released", found.key)
            else:
                self._fail_unless_ended(found, _STOPPED)

    def end_request(self, request: Any, method: str, *args: Any, **options: Any) -> Any:
        """Let Celery handle the end of a task, within the context of its operation.

        Celery publishes error callbacks here. Those of the canvas have our headers. Those of other tasks inherit the
        operation.

        Args:
            request: the worker's request.
            method: the method of ``Request`` that the pool calls.
            *args: its arguments.
            **options: its keyword arguments.

        Returns:
            The method's return value.
        """
        found = self.info_of(request)
        assert found is not None
        try:
            with use_context(TaskContext(found.operation, found.label, self._settings)):
                outcome = celery_internals.call_original_handler(request, method, *args, **options)
        except Exception:
            # Celery before 5.7 cannot store SystemExit, CancelledError, … as a result, and sends no signal.
            if method == "on_failure":
                self._fail_unless_ended(found, self._text(_error_of(args[0])))
            raise
        if method == "on_failure":
            self._after_failure(request, args[0])
        else:
            self._after_timeout(request, *args, **options)
        return outcome

    def _after_timeout(self, request: Any, soft: bool, timeout: float) -> None:
        """Report a hard time limit. Celery before 5.7 sends no signal for it, if the pool is a green one."""
        if not soft and request not in self._reported and not celery_internals.is_stopping():
            self.failed(request.task, request.id, TimeLimitExceeded(timeout))

    def _after_failure(self, request: Any, exc_info: Any) -> None:
        """Report a success that neither Celery nor the pool's process may have reported.

        If Celery finds the stored result of a lost process to be a success, it acknowledges the message and sends no
        signal.
        """
        lost = isinstance(_error_of(exc_info), (WorkerLostError, SystemExit, KeyboardInterrupt))
        if not lost or request in self._reported or not _has_succeeded(request):
            return
        found = self.info_of(request)
        if found is not None and request.chord:
            # The lost process stores its result first and then counts it for the chord. It may have ended in between,
            # so that the body never runs. If it has reported its own end, it did both.
            self._fail_unless_ended(found, self._text(WorkerLostError()))
        elif found is not None:
            succeeded = TaskSucceeded(**found.facts)
            task_events.emit_task_event(self._settings, found.operation, found.key, "succeeded", succeeded)
            task_events.record_transition(found.operation, found.label, "done", found.key)

    def _fail(self, found: TaskRequestInfo, error: str) -> None:
        failed = TaskFailed(**found.facts, error=error)
        task_events.emit_task_event(self._settings, found.operation, found.key, "failed", failed)
        task_events.record_transition(found.operation, found.label, "failed", found.key)

    def _fail_unless_ended(self, found: TaskRequestInfo, error: str) -> None:
        """For a task that may have ended without this process noticing, as during a soft shutdown."""
        failed = TaskFailed(**found.facts, error=error)
        task_events.record_failed(self._settings, found.operation, found.label, found.key, failed)

    def _find(self, task: Any, task_id: str, request: Any, request_context: Any = None) -> TaskRequestInfo | None:
        if request is not None:
            return self.info_of(request)
        if request_context is None:
            request_context = celery_internals.running_request(task)
        if request_context is None:
            return None
        headers = celery_internals.message_headers(request_context, OPERATION)
        return read_task_request(headers, task.name, task_id, request_context.retries)

    def _text(self, error: object) -> str:
        if isinstance(error, WorkerLostError):
            return "WorkerLost: the process that ran this task ended"
        if isinstance(error, TimeLimitExceeded):
            return f"TimeLimitExceeded: it ran for more than {error.args[0] if error.args else '?'} s"
        return error_text(error, self._settings.error_chars)


def _bound_handler(reference: Any, main_process: MainProcessSignals, method: str) -> Any:
    """A method of ``Request`` that calls ``MainProcessSignals.end_request``."""

    def handler(*args: Any, **options: Any) -> Any:
        request = reference()
        return None if request is None else main_process.end_request(request, method, *args, **options)

    return handler


def _error_of(exc_info: Any) -> object:
    error = exc_info.exception
    return error.exc if isinstance(error, ExceptionWithTraceback) else error


def _has_succeeded(request: Any) -> bool:
    """Whether the stored result is a success. Celery decides by the same question just before."""
    try:
        return not request.ignore_result and bool(request.task.backend.get_state(request.id) == states.SUCCESS)
    except Exception:  # noqa: BLE001 - a backend may raise anything; Celery treats that as a failure, too
        return False


def _runs_here(task_id: str) -> bool:
    context = current_context.get()
    return context is not None and context.task_id == task_id


def _is_cancelled(operation: OperationRef) -> bool:
    """Whether this worker knows of the cancellation, from Redis or from a revoked stamp, which may be faster."""
    return operation in process.cancelled or operation.stamp in celery_internals.revoked_values(STAMP)
