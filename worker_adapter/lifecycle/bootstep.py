"""Worker bootstep: renews leases, reads cancelled operations, and terminates tasks that do not stop by themselves.

It has a separate thread, because the worker's event loop belongs to Celery and a solo pool blocks it during a task.
Every call has a time limit. The worker waits for one call only: the first read of the cancelled operations.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Final

from celery import bootsteps

from eventbus.backends.redis.operation_client import Operations
from eventbus.backends.redis.worker_status import WorkerStatus
from eventbus.errors import TransportError
from eventbus.operations.events import STAMP, OperationRef
from eventbus.process_bus import default_bus
from worker_adapter.context.task_request import TaskRequestInfo
from worker_adapter.lifecycle import celery_internals, task_events
from worker_adapter.lifecycle.installed import Installed, installed_in
from worker_adapter.lifecycle.process_state import RevokedStamps, process
from worker_adapter.lifecycle.running_tasks import outbox_facts

__all__ = ["LeaseBootstep"]

log = logging.getLogger(__name__)

_RETRY_AFTER: Final = 5.0  # seconds between two attempts while Redis does not answer


class LeaseBootstep(bootsteps.StartStopStep):  # type: ignore[misc] # Celery ships no types
    """The bootstep. ``install`` adds it to an application. It runs in a worker's main process only.

    Args:
        worker: Celery's worker controller.
        **options: of the worker's command line.

    Attributes:
        lease_count: number of leases of the last renewal.
        last_error: why the last call to Redis failed, or empty.
        children: the last reports of the pool's processes about their outboxes, by process id.
    """

    name = "eventbus"
    label = "Event bus"
    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self.lease_count = 0
        self.last_error = ""
        self.children: dict[str, dict[str, object]] = {}
        self._noticed: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()
        self._kill_at: dict[int, float] = {}
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._installed: Installed | None = None
        self._operations: Operations | None = None
        self._worker_status: WorkerStatus | None = None

    def create(self, worker: Any) -> None:
        """Check Celery's internals, and make the bus before the pool forks, so that the children inherit all of it.

        Args:
            worker: Celery's worker controller.

        Raises:
            UnsupportedVersion: the installed Celery lacks something that this package uses.
        """
        celery_internals.check_internals()
        self._installed = installed_in(worker.app)
        default_bus()

    def start(self, worker: Any) -> None:
        """Read the cancelled operations before the worker reads its first message, then start the thread.

        Args:
            worker: Celery's worker controller.
        """
        bus = default_bus()
        if self._installed is None or bus.broker is not None:
            return
        self._worker = worker
        self._installed.bootstep = self
        self._installed.main_process.leasing = self._installed.settings.lease > 0
        process.cancelled.limit = self._installed.settings.cancelled_limit
        process.cancelled.kept_current = True
        self._operations, self._worker_status = Operations(bus.settings), WorkerStatus(bus.settings)
        self._attempt(self._read_cancelled)
        celery_internals.on_decode_error(worker.consumer, self._installed.main_process.refused)
        self._thread = threading.Thread(target=self._run, name="eventbus-leases", daemon=True)
        self._thread.start()

    def stop(self, worker: Any) -> None:
        """Do nothing in a warm shutdown: tasks run to their ends and need their leases. ``stop_renewing`` follows.

        Args:
            worker: Celery's worker controller.
        """

    def terminate(self, worker: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Report the running tasks in a cold shutdown, while this process can still send.

        Args:
            worker: Celery's worker controller.
        """
        self.report_stopped()
        self.stop_renewing()

    def report_stopped(self) -> None:
        """Report the tasks that the worker abandons: released if redelivered, otherwise failed."""
        if self._installed is not None and self._installed.bootstep is self:
            self._installed.main_process.stopping(celery_internals.active_requests())
            bus = default_bus()
            bus.outbox.wait_settled(bus.settings.flush_budget)

    def stop_renewing(self) -> None:
        """Stop renewing leases. The thread ends by itself. Celery would call a method ``close`` earlier."""
        self._closed.set()
        process.cancelled.kept_current = False
        if self._installed is not None:
            self._installed.main_process.leasing = False
            self._installed.bootstep = None

    def info(self, worker: Any) -> dict[str, Any]:  # noqa: ARG002 - Celery's signature
        """Return the state of the worker, for ``inspect stats``.

        Args:
            worker: Celery's worker controller.
        """
        return {"eventbus": self.facts()}

    def facts(self) -> dict[str, Any]:
        """Return the state of the worker, from memory."""
        bus = default_bus()
        return {
            "outbox": {**outbox_facts(bus), "spool_bytes": bus.outbox.spool_bytes},
            "children": self.children,
            "leases": self.lease_count,
            "cancelled": len(process.cancelled),
            "trouble": self.last_error,
        }

    # --- the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        assert self._installed is not None
        settings = self._installed.settings
        renew_at, read_status_at = float("-inf"), float("-inf")
        while not self._closed.wait(_RETRY_AFTER if self.last_error else settings.cancel_poll):
            answered = self._attempt(self._read_cancelled)
            self._terminate_cancelled(settings.cancel_grace, settings.kill_grace)
            if not answered:
                continue
            if settings.lease and monotonic() >= renew_at and self._attempt(self._renew):
                renew_at = monotonic() + settings.lease / 3
            if monotonic() >= read_status_at and self._attempt(self._read_children):
                read_status_at = monotonic() + settings.report_interval

    def _attempt(self, call: Callable[[], None]) -> bool:
        """Call a function that uses Redis; return whether it succeeded. The first error of a series is logged."""
        try:
            call()
        except TransportError as error:
            if not self.last_error:
                log.warning("cannot renew leases and read cancelled operations: %s", error)
            self.last_error = str(error)
            return False
        except Exception:
            # A bug in here must not end the thread. Otherwise every lease of the worker would expire.
            log.exception("lease thread failed")
            return False
        self.last_error = ""
        return True

    def _read_cancelled(self) -> None:
        assert self._operations is not None
        cancelled = process.cancelled
        changed = cancelled.add(self._operations.cancelled(cancelled.since))
        revoked = celery_internals.revoked_values(STAMP)
        if changed or (len(cancelled) and not isinstance(revoked, RevokedStamps)):
            # Celery's remote control may have added values to the list, or replaced it.
            celery_internals.set_revoked_values(STAMP, cancelled.stamps(revoked))

    def _renew(self) -> None:
        assert self._operations is not None
        assert self._installed is not None
        lease = self._installed.settings.lease
        requests = celery_internals.active_requests()
        running: defaultdict[OperationRef, dict[str, TaskRequestInfo]] = defaultdict(dict)
        for _, found in self._installed.main_process.of_operations(requests, leased=True):
            running[found.operation][found.key.value] = found
        lost = self._operations.renew({ref: list(keys) for ref, keys in running.items()}, lease)
        self.lease_count = sum(map(len, running.values()))
        late = {request.id: bool(request.task.acks_late) for request in requests}
        for ref, keys in lost.items():
            for found in (running[ref][key] for key in keys):
                members = task_events.task_members(found.task, found.name, found.retries)
                milliseconds, redelivered = int(lease * 1000), late.get(found.task, False)
                task_events.record_started(ref, found.label, found.key, milliseconds, redelivered, members)

    def _read_children(self) -> None:
        """Read the reports of the pool's processes, and delete those of processes that have ended."""
        assert self._worker_status is not None
        reports = self._worker_status.of(self._worker.hostname)
        ended = [child for child in reports if not _is_alive(int(child))]
        self._worker_status.drop(self._worker.hostname, ended)
        self.children = {child: facts for child, facts in reports.items() if child not in ended}

    # --- tasks that do not stop by themselves ----------------------------------------------------------------

    def _terminate_cancelled(self, grace: float, kill_grace: float) -> None:
        assert self._installed is not None
        now = monotonic()
        if len(process.cancelled):
            requests = celery_internals.active_requests()
            for request, found in self._installed.main_process.of_operations(requests, leased=False):
                if found.operation in process.cancelled and now - self._noticed.setdefault(request, now) >= grace:
                    self._noticed[request] = float("inf")  # once
                    terminate = partial(self._terminate, request, now + kill_grace)
                    celery_internals.run_in_event_loop(self._worker, terminate)
        for child in [child for child, due in self._kill_at.items() if now >= due]:
            del self._kill_at[child]
            kill = partial(celery_internals.kill_process, self._worker.pool, child, signal.SIGKILL)
            celery_internals.run_in_event_loop(self._worker, kill)

    def _terminate(self, request: Any, kill_at: float) -> None:
        if not celery_internals.is_active(request):
            return
        child = celery_internals.terminate(request, self._worker.pool)
        if child is not None:
            self._kill_at[child] = kill_at


def _is_alive(child: int) -> bool:
    try:
        os.kill(child, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
