"""Outcome of a task's run: the state that counts for its operation."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any, Final

from billiard.process import current_process
from celery import states
from celery.exceptions import Reject

from eventbus.operations.state import TransitionKind
from worker_adapter.context.task_context import TaskContext
from worker_adapter.lifecycle.cancellation import OperationCancelled

__all__ = ["continuation_of", "outcome_of", "transition_of"]

log = logging.getLogger(__name__)

_REQUEUED: Final = "requeued"
# A retry needs no transition here: it was released when its next try was published.
_TRANSITIONS: Final[Mapping[str | None, TransitionKind]] = {
    states.SUCCESS: "done",
    states.IGNORED: "ignored",
    states.FAILURE: "failed",
    states.REVOKED: "revoked",
    _REQUEUED: "released",
}


def continuation_of(request: Any) -> tuple[object, ...]:
    """Return the rest of the chain, the callbacks and the chord of a request.

    Args:
        request: ``Task.request``.
    """
    return request.chain, request.callbacks, request.chord


def transition_of(state: str | None, request: Any, context: TaskContext) -> TransitionKind | None:
    """Return the transition that a final state means; None if it means none.

    Args:
        state: the state of ``outcome_of``.
        request: ``Task.request``.
        context: the task's context.
    """
    kind = _TRANSITIONS.get(state)
    return _kind_of_success(request, context) if kind == "done" else kind


def _kind_of_success(request: Any, context: TaskContext) -> TransitionKind:
    """Celery reads the rest of the canvas from the request after the task. A task may have set it to None there."""
    pairs = zip(context.continuation, continuation_of(request), strict=True)
    if any(before and after is not before for before, after in pairs):
        return "ignored"
    return "joined" if request.chord else "done"


def outcome_of(task: Any, context: TaskContext, state: str | None, result: Any) -> tuple[str | None, Any]:
    """Return the state and result that count.

    Args:
        task: Celery's task.
        context: the task's context.
        state: the state that Celery reports; None if an exception left the task before Celery had one.
        result: the return value or the error.

    Returns:
        State and result. The state is None if another place reports the end, or no place does.
    """
    error = sys.exception()
    if state == states.SUCCESS and error is not context.handled_error and isinstance(error, Exception):
        # The task returned, but Celery could not publish the rest of the canvas or store the result. Celery turns it
        # into a failure after this signal.
        state, result = (states.REJECTED if isinstance(error, Reject) else states.FAILURE), error
    if context.retry_published and state in (states.SUCCESS, states.IGNORED):
        return None, result  # retry(throw=False): the run has ended, the task has not
    if state is None:
        return (states.FAILURE, error) if _ends_here(task.request, context, error) else (None, result)
    if state == states.REJECTED:
        # A message that was acknowledged cannot be requeued. Without that, no worker will run the task again.
        requeued = getattr(result, "requeue", False) and task.acks_late and not task.request.is_eager
        return (_REQUEUED if requeued else states.FAILURE), result
    if state == states.IGNORED and isinstance(result, OperationCancelled):
        _store_revoked(task)
        return states.REVOKED, result
    if state == states.RETRY and not context.retry_published and not task.request.is_eager:
        # The task raised Retry without calling retry(), so no message was published and there is no next try.
        return states.FAILURE, result
    return state, result


def _ends_here(request: Any, context: TaskContext, error: BaseException | None) -> bool:
    """Whether this signal is the last place that can report the end of a task that ``error`` has left.

    Celery had not noted a state yet.
    """
    if error is None:
        return False
    if isinstance(error, Exception):
        # An eager task that propagates its error, which Celery does not retry. Or an on_failure hook or the result
        # backend raised while Celery was handling the task's error. Celery raises that again after this signal and
        # logs it at most. If the next try has been published, the task goes on.
        return bool(request.is_eager) or not context.retry_published
    # SystemExit, asyncio's CancelledError, … end a pool's process, and the main process reports it. In the main process
    # Celery drops them. Green pools stop tasks with exceptions of greenlet or gevent, and the worker reports those.
    green = type(error).__module__.partition(".")[0] in ("greenlet", "gevent")
    return current_process().name == "MainProcess" and not green


def _store_revoked(task: Any) -> None:
    """Store the result of a task that was cancelled, as Celery does for a revoked task."""
    request = task.request
    if request.is_eager:
        return
    try:
        stored = not (request.ignore_result or task.ignore_result) or task.store_errors_even_if_ignored
        task.backend.mark_as_revoked(request.id, "cancelled", request=request, store_result=stored)
    except Exception:
        log.exception("cannot store the result of a cancelled task")
