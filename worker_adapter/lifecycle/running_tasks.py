"""The tasks that run in this process, and a thread that serves them.

The thread checks whether an operation was cancelled, sends progress to Flower, and reports the state of the outbox. It
starts with the first task of an operation and sleeps while no task runs. Tasks only leave values for it, so that no
task waits for Redis or for the broker.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

from eventbus.backends.redis.acl.denials import denials
from eventbus.backends.redis.operation_client import Operations
from eventbus.backends.redis.worker_status import WorkerStatus
from eventbus.bus import Bus
from eventbus.errors import TransportError
from eventbus.operations.events import OperationRef, TaskProgress
from eventbus.process_bus import default_bus
from worker_adapter.context.task_context import TaskContext
from worker_adapter.lifecycle.cancellation import check_cancelled
from worker_adapter.lifecycle.process_state import process

__all__ = ["RunningTask", "RunningTasks", "add", "checkpoint", "outbox_facts", "remove"]

log = logging.getLogger(__name__)

_RETRY_AFTER: Final = 5.0  # seconds between two attempts while Redis does not answer


@dataclass(slots=True, eq=False)
class RunningTask:
    """A task that runs here.

    Attributes:
        context: the task's context.
        task: Celery's task.
        hostname: the worker's name.
        sends_events: whether the worker sends task events.
        progress: the newest progress that Flower has not received.
        sent_at: time of the last event for Flower, by the monotonic clock.
    """

    context: TaskContext
    task: Any
    hostname: str
    sends_events: bool = False
    progress: TaskProgress | None = None
    sent_at: float = field(default=float("-inf"))


class RunningTasks:
    """All tasks of operations that run in one process."""

    def __init__(self) -> None:
        self._running: dict[int, RunningTask] = {}
        self._has_work = threading.Event()
        self._thread: threading.Thread | None = None
        self._operations: Operations | None = None
        self._worker_status: WorkerStatus | None = None
        self._hostname = ""
        self._reported_at = float("-inf")
        self._retry_at = float("-inf")

    def add(self, running: RunningTask) -> None:
        """Serve a task that begins.

        Args:
            running: the task.
        """
        self._running[id(running.context)] = running
        self._hostname = running.hostname
        if not self._has_work.is_set():
            self._has_work.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="eventbus-tasks", daemon=True)
            self._thread.start()

    def remove(self, context: TaskContext) -> None:
        """Forget a task that has ended.

        Args:
            context: the task's context.
        """
        self._running.pop(id(context), None)

    def show(self, context: TaskContext, progress: TaskProgress) -> None:
        """Send a progress to Flower soon, unless a newer one replaces it.

        Args:
            context: the task's context.
            progress: the event.
        """
        running = self._running.get(id(context))
        if running is not None and running.sends_events:
            running.progress = progress

    # --- the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._has_work.wait()
            busy = list(self._running.values())
            pause = busy[0].context.settings.cancel_poll if busy else 0.5
            time.sleep(pause)
            if not self._running:
                self._has_work.clear()
                if self._running:  # a task began in between
                    self._has_work.set()
            try:
                self._serve()
            except TransportError as error:
                self._retry_at = time.monotonic() + _RETRY_AFTER
                log.debug("cannot read cancellations of running tasks: %s", error)
            except Exception:
                # A bug in here must not end the thread. Without it no task of this process could be cancelled.
                log.exception("task thread failed")

    def _serve(self) -> None:
        running = list(self._running.values())
        now = time.monotonic()
        for one in running:
            self._send_to_flower(one, now)
        bus = default_bus()
        if bus.broker is not None or bus.outbox.failures or now < self._retry_at:
            return
        self._read_cancelled(bus, {one.context.operation for one in running if one.context.operation is not None})
        self._report_outbox(bus, running, now)

    def _read_cancelled(self, bus: Bus, operations: set[OperationRef]) -> None:
        """Ask Redis which operations are cancelled, unless the worker's bootstep runs in this process."""
        unknown = [operation for operation in operations if operation not in process.cancelled]
        if unknown and not process.cancelled.kept_current:
            if self._operations is None:
                self._operations = Operations(bus.settings)
            process.cancelled.add((operation, 0) for operation in self._operations.cancelled_of(unknown))

    def _report_outbox(self, bus: Bus, running: list[RunningTask], now: float) -> None:
        interval = running[0].context.settings.report_interval if running else 5.0
        if process.cancelled.kept_current or not self._hostname or now - self._reported_at < interval:
            return
        self._reported_at = now
        if self._worker_status is None:
            self._worker_status = WorkerStatus(bus.settings)
        self._worker_status.report(self._hostname, os.getpid(), outbox_facts(bus))

    def _send_to_flower(self, one: RunningTask, now: float) -> None:
        progress, interval = one.progress, one.context.settings.flower_interval
        if progress is None or not interval or now - one.sent_at < interval:
            return
        one.progress, one.sent_at = None, now
        fields = progress.model_dump(exclude={"task"}, exclude_none=True)
        operation = one.context.operation
        assert operation is not None
        # Flower shows no field that it does not know. It shows the result, which the real result replaces later.
        total = f" of {progress.total:g}" if progress.total is not None else ""
        text = " ".join(part for part in (f"{progress.done:g}{total}", progress.stage, progress.message) if part)
        dispatcher = one.task.app.events.default_dispatcher(hostname=one.hostname)
        with dispatcher as events:
            if id(one.context) in self._running:
                fields |= {"operation": operation.op, "user": operation.user}
                result = f"{text} (operation {operation.op})"
                events.send("task-progress", uuid=progress.task, retry=False, result=result, **fields)


def outbox_facts(bus: Bus) -> dict[str, object]:
    """Return the state of a process's outbox, for ``inspect eventbus``.

    Args:
        bus: the bus of the process.
    """
    outbox = bus.outbox
    return {
        "depth": outbox.depth,
        "blocked": outbox.blocked,
        "flushed": outbox.flushed,
        "dropped": dict(outbox.dropped),
        "spooled": dict(outbox.spooled),
        "away": outbox.redis_down,
        "failures": outbox.failures,
        "denied": dict(denials()),
        "unexpected": outbox.unexpected,
    }


def _here() -> RunningTasks:
    if process.running is None:
        process.running = RunningTasks()
    return process.running


def add(running: RunningTask) -> None:
    """Serve a task that begins in this process.

    Args:
        running: the task.
    """
    _here().add(running)


def remove(context: TaskContext) -> None:
    """Forget a task of this process that has ended.

    Args:
        context: the task's context.
    """
    _here().remove(context)


def checkpoint(context: TaskContext | None, progress: TaskProgress) -> None:
    """Pass a progress on to Flower, and stop the task if its operation was cancelled.

    Args:
        context: the task's context; None outside of every task.
        progress: the event.

    Raises:
        OperationCancelled: the operation was cancelled.
    """
    if context is None or not context.in_worker:
        return
    _here().show(context, progress)
    if progress.state == "running":
        check_cancelled()
