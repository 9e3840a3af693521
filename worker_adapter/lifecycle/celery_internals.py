"""Every place where this package touches Celery's internals: one named function for each.

Celery has no public interface for these. They were read in Celery 5.4.0, 5.5.3, 5.6.2 and 5.7.0, where they are alike.
The docstring of each function says what breaks when Celery changes it.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, Final

import celery
from celery import Task, bootsteps
from celery.worker import state as worker_state

from eventbus.errors import UnsupportedVersion

__all__ = [
    "active_requests",
    "arguments_of_retry",
    "call_original_handler",
    "check_internals",
    "is_active",
    "is_announced_revoked",
    "is_cancelled_by_worker",
    "is_requeued_after_timeout",
    "is_stopping",
    "kill_process",
    "message_headers",
    "on_decode_error",
    "replace_end_handlers",
    "revoked_values",
    "run_in_event_loop",
    "running_request",
    "set_revoked_values",
    "terminate",
]

_ATTEMPTS: Final = 10  # to copy a set that other threads change

# Attributes that the functions below use, by module. A worker checks them when it starts.
_USED: Final[Mapping[str, tuple[str, ...]]] = {
    "celery.app.task": ("Task.retry", "Task.request_stack", "Task.acks_late"),
    "celery.bootsteps": ("RUN",),
    "celery.concurrency.base": ("BasePool.is_green", "BasePool.terminate_job"),
    "celery.worker.consumer": ("Consumer.on_decode_error",),
    "celery.worker.request": (
        "Request._already_cancelled",
        "Request._already_revoked",
        "Request.on_failure",
        "Request.on_timeout",
        "Request.request_dict",
        "Request.terminate",
        "Request.worker_pid",
    ),
    "celery.worker.state": ("active_requests", "revoked_stamps", "should_terminate"),
}
_USED_OF_RETRY: Final = ("exc", "eta", "countdown")


def check_internals() -> None:
    """Check that the installed Celery has everything that this module uses.

    A worker calls it when it starts. Without it the first task, or the first failure, would show what is missing.

    Raises:
        UnsupportedVersion: something is missing. The message names it and the versions that have it.
    """
    missing = [name for module, names in _USED.items() for name in names if not _has(module, name)]
    variables = Task.retry.__code__.co_varnames
    missing += [f"variable {name} of Task.retry" for name in _USED_OF_RETRY if name not in variables]
    if missing:
        raise UnsupportedVersion(
            f"celery {celery.__version__} lacks {', '.join(missing)}, which celery-eventbus uses; install a version "
            'that has it: pip install "celery>=5.4,<5.8"',
            package="celery",
            version=celery.__version__,
            missing=tuple(missing),
        )


def _has(module: str, name: str) -> bool:
    found: object = importlib.import_module(module)
    for part in name.split("."):
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def arguments_of_retry() -> Mapping[str, Any] | None:
    """Return the local variables of the ``Task.retry`` call that is publishing a message; None without such a call.

    ``retry`` sends no signal before it publishes. Its variables ``exc``, ``eta`` and ``countdown`` are the only place
    with the reason of the next try. If Celery renames them, ``task.retry`` has no error text. If ``retry`` publishes
    elsewhere, a retry with another task id counts as a new task.
    """
    frame: FrameType | None = inspect.currentframe()
    while frame is not None and frame.f_code is not Task.retry.__code__:
        frame = frame.f_back
    return None if frame is None else frame.f_locals


def message_headers(request: Any, name: str) -> Mapping[str, Any]:
    """Return the headers of a task's message.

    Celery copies them into the attributes of ``Task.request``. ``request.headers`` has them only if the message has no
    header that is named ``headers``. The integrations of Sentry and Datadog add one to each message. An eager task has
    all of its headers in ``request.headers``. If Celery stops copying, tasks lose their operation next to those
    integrations.

    Args:
        request: ``Task.request``.
        name: a header that decides where to look.
    """
    attributes = vars(request)
    return attributes if name in attributes else request.headers or {}


def replace_end_handlers(request: Any, make: Callable[[str], Callable[..., Any]]) -> None:
    """Replace ``Request.on_failure`` and ``Request.on_timeout`` of one request.

    The pool calls the attributes that it finds on the request. If Celery binds them earlier, error callbacks that the
    main process publishes belong to no operation, and the success of a killed process is not reported.

    Args:
        request: the worker's request.
        make: returns the new handler for the name of a method.
    """
    request.on_failure = make("on_failure")
    request.on_timeout = make("on_timeout")


def call_original_handler(request: Any, method: str, *args: Any, **options: Any) -> Any:
    """Call the method that ``replace_end_handlers`` has replaced.

    Args:
        request: the worker's request.
        method: name of the method.
        *args: its arguments.
        **options: its keyword arguments.

    Returns:
        The method's return value.
    """
    return getattr(type(request), method)(request, *args, **options)


def on_decode_error(consumer: Any, report: Callable[[Mapping[str, Any], Exception], None]) -> None:
    """Receive each message that cannot be decoded. Celery has no signal for it.

    ``Consumer.on_decode_error`` is replaced before the consumer starts. If Celery binds it earlier, the operation of
    such a message ends only when its lost tasks are noticed.

    Args:
        consumer: the worker's consumer.
        report: called with the headers of the message and the error.
    """
    original = consumer.on_decode_error

    def handler(message: Any, error: Exception) -> None:
        original(message, error)
        report(message.headers, error)

    consumer.on_decode_error = handler


def revoked_values(stamp: str) -> list[str]:
    """Return the revoked values of a stamp.

    ``worker.state.revoked_stamps`` maps a stamp to a value or to a list of values. If Celery moves it, a worker runs
    tasks of cancelled operations that it has received.

    Args:
        stamp: name of the stamp.
    """
    found = worker_state.revoked_stamps.get(stamp)
    if found is None:
        return []
    return [found] if isinstance(found, str) else found


def set_revoked_values(stamp: str, values: list[str]) -> None:
    """Replace the revoked values of a stamp. See ``revoked_values``.

    Args:
        stamp: name of the stamp.
        values: the values. Celery tests ``value in values`` for each message, so a fast ``in`` matters.
    """
    worker_state.revoked_stamps[stamp] = values


def active_requests() -> list[Any]:
    """Return the requests that run now.

    Other threads change ``worker.state.active_requests`` and do not wait for this copy. If Celery moves it, no lease is
    renewed and running tasks are reported as lost.
    """
    for _ in range(_ATTEMPTS):
        try:
            return list(worker_state.active_requests)
        except RuntimeError:
            continue
    return []


def is_active(request: Any) -> bool:
    """Return whether a request runs now.

    Args:
        request: the worker's request.
    """
    return request in worker_state.active_requests


def is_announced_revoked(request: Any) -> bool:
    """Return whether Celery has sent ``task_revoked`` for a request.

    ``Request._already_revoked`` is its only record. If Celery renames it, a task that was terminated is also reported
    as failed.

    Args:
        request: the worker's request, or None.
    """
    return bool(getattr(request, "_already_revoked", False))


def is_cancelled_by_worker(request: Any) -> bool:
    """Return whether the worker has cancelled a request after it lost the broker, or in a cold shutdown.

    ``Request._already_cancelled`` is its only record. If Celery renames it, the end of such a task is not reported.

    Args:
        request: the worker's request.
    """
    return bool(getattr(request, "_already_cancelled", False))


def running_request(task: Any) -> Any:
    """Return the request at the top of a task's stack; None if the task does not run in this thread.

    ``Task.request`` would return an empty request instead of None. If Celery renames ``request_stack``, a failure that
    the main process reports has no operation.

    Args:
        task: the task.
    """
    return task.request_stack.top


def is_requeued_after_timeout(task: Any) -> bool:
    """Return whether the message of a task that exceeded its time limit is put back into the queue.

    Celery 5.7 has split ``acks_on_failure_or_timeout`` into ``acks_on_failure`` and ``acks_on_timeout``. If the name
    changes again, such a task is reported as failed although it runs again.

    Args:
        task: the task.
    """
    acknowledged = getattr(task, "acks_on_timeout", None)
    if acknowledged is None:
        acknowledged = getattr(task, "acks_on_failure_or_timeout", True)
    return bool(task.acks_late) and not acknowledged


def is_stopping() -> bool:
    """Return whether the worker is in a cold shutdown.

    The pool then calls ``Request.on_timeout`` although no time limit has passed. If Celery renames the flag, a task
    that is redelivered is also reported as failed.
    """
    return bool(worker_state.should_terminate)


def run_in_event_loop(worker: Any, call: Callable[[], None]) -> None:
    """Call a function where the worker's pool and connection may be used.

    With ``worker.hub`` that is the event loop, as long as the worker's blueprint is running. If Celery renames either,
    the call happens in the caller's thread, which is not safe with the prefork pool.

    Args:
        worker: the worker controller.
        call: the function.
    """
    hub = getattr(worker, "hub", None)
    if hub is not None and worker.blueprint.state == bootsteps.RUN:
        hub.call_soon(call)
    else:
        call()


def terminate(request: Any, pool: Any) -> int | None:
    """Terminate a running request.

    Args:
        request: the worker's request.
        pool: the worker's pool.

    Returns:
        The process that runs the request, if it is one that can be killed. Threads cannot be stopped from outside, so
        the threads and solo pools do nothing.
    """
    try:
        request.terminate(pool)
    except NotImplementedError:
        return None
    return None if pool.is_green else request.worker_pid


def kill_process(pool: Any, process: int, signal: int) -> None:
    """Send a signal to a process of the pool.

    Args:
        pool: the worker's pool.
        process: process id.
        signal: number of the signal.
    """
    pool.terminate_job(process, signal)
