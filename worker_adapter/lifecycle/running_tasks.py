"""What runs in this process, and a thread that looks after it: is it to stop, how far is it, how is the outbox.

The thread starts with the first task of an operation and sleeps while nothing runs. It does everything that may wait
for somebody: tasks only put down and pick up.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

from eventbus.backends.redis.operation_client import Operations
from eventbus.backends.redis.worker_status import WorkerStatus
from eventbus.bus import Bus, default_bus
from eventbus.errors import TransportError
from eventbus.operations.events import OperationRef, TaskProgress
from worker_adapter.context.task_context import TaskContext
from worker_adapter.lifecycle.cancellation import check_cancelled, known

__all__ = ["RunningTask", "RunningTasks", "began", "checkpoint", "ended", "outbox_facts"]

log = logging.getLogger(__name__)

_PATIENCE: Final = 5.0  # between two tries while Redis does not answer


@dataclass(slots=True, eq=False)
class RunningTask:
    """A task that runs here. ``shown``: whether the worker sends task events."""

    context: TaskContext
    task: Any
    hostname: str
    shown: bool = False
    progress: TaskProgress | None = None
    showed: float = field(default=float("-inf"))


class RunningTasks:
    """Everything that runs in one process."""

    def __init__(self) -> None:
        self._running: dict[int, RunningTask] = {}
        self._work = threading.Event()
        self._thread: threading.Thread | None = None
        self._operations: Operations | None = None
        self._worker_status: WorkerStatus | None = None
        self._hostname = ""
        self._reported = float("-inf")
        self._ask_at = float("-inf")

    def began(self, running: RunningTask) -> None:
        """A task begins."""
        self._running[id(running.context)] = running
        self._hostname = running.hostname
        if not self._work.is_set():
            self._work.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="eventbus-watch", daemon=True)
            self._thread.start()

    def ended(self, context: TaskContext) -> None:
        """It has ended."""
        self._running.pop(id(context), None)

    def show(self, context: TaskContext, word: TaskProgress) -> None:
        """Have a progress shown in Flower, some time soon; the newest one counts."""
        running = self._running.get(id(context))
        if running is not None and running.shown:
            running.progress = word

    # --- the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._work.wait()
            busy = list(self._running.values())
            pause = busy[0].context.settings.cancel_poll if busy else 0.5
            time.sleep(pause)
            if not self._running:
                self._work.clear()
                if self._running:  # it began in between
                    self._work.set()
            try:
                self._check()
            except TransportError as error:
                self._ask_at = time.monotonic() + _PATIENCE
                log.debug("not asked whether tasks are to stop: %s", error)
            except Exception:
                # A bug in here must not end the thread: then nobody could stop anything here any more.
                log.exception("task thread failed")

    def _check(self) -> None:
        running = list(self._running.values())
        now = time.monotonic()
        for one in running:
            self._show(one, now)
        bus = default_bus()
        if bus.broker is not None or bus.outbox.failures or now < self._ask_at:
            return
        self._ask(bus, {one.context.operation for one in running if one.context.operation is not None})
        self._report(bus, running, now)

    def _ask(self, bus: Bus, operations: set[OperationRef]) -> None:
        """In a process where the worker's own bootstep runs, it knows already."""
        unknown = [operation for operation in operations if operation not in known]
        if unknown and not known.kept_current:
            if self._operations is None:
                self._operations = Operations(bus.settings)
            known.add((operation, 0) for operation in self._operations.cancelled_of(unknown))

    def _report(self, bus: Bus, running: list[RunningTask], now: float) -> None:
        interval = running[0].context.settings.report_interval if running else 5.0
        if known.kept_current or not self._hostname or now - self._reported < interval:
            return
        self._reported = now
        if self._worker_status is None:
            self._worker_status = WorkerStatus(bus.settings)
        self._worker_status.report(self._hostname, os.getpid(), outbox_facts(bus))

    def _show(self, one: RunningTask, now: float) -> None:
        word, interval = one.progress, one.context.settings.flower_interval
        if word is None or not interval or now - one.showed < interval:
            return
        one.progress, one.showed = None, now
        fields = word.model_dump(exclude={"task"}, exclude_none=True)
        operation = one.context.operation
        assert operation is not None
        # Flower's page of a task has no other place for what it does not know; the real result takes it in the end.
        total = f" of {word.total:g}" if word.total is not None else ""
        text = " ".join(part for part in (f"{word.done:g}{total}", word.stage, word.message) if part)
        dispatcher = one.task.app.events.default_dispatcher(hostname=one.hostname)
        with dispatcher as events:
            if id(one.context) in self._running:
                fields |= {"operation": operation.op, "user": operation.user}
                shown = f"{text} (operation {operation.op})"
                events.send("task-progress", uuid=word.task, retry=False, result=shown, **fields)


def outbox_facts(bus: Bus) -> dict[str, object]:
    """How the outbox of this process is."""
    outbox = bus.outbox
    return {
        "depth": outbox.depth,
        "flushed": outbox.flushed,
        "dropped": dict(outbox.dropped),
        "spooled": dict(outbox.spooled),
        "away": outbox.redis_down,
        "failures": outbox.failures,
    }


_running_tasks = RunningTasks()


def _after_fork() -> None:
    global _running_tasks  # noqa: PLW0603 - threads do not survive a fork
    _running_tasks = RunningTasks()


os.register_at_fork(after_in_child=_after_fork)


def began(running: RunningTask) -> None:
    """A task begins in this process."""
    _running_tasks.began(running)


def ended(context: TaskContext) -> None:
    """It has ended."""
    _running_tasks.ended(context)


def checkpoint(context: TaskContext | None, word: TaskProgress) -> None:
    """A step is told: show it where it is to be shown, and stop here if somebody wants that.

    Raises:
        OperationCancelled: see ``check_cancelled``.
    """
    if context is None or not context.in_worker:
        return
    _running_tasks.show(context, word)
    if word.state == "running":
        check_cancelled()
