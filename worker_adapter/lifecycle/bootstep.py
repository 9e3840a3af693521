"""What a worker does beside its tasks: renews leases, hears of cancelled operations, stops what does not stop itself.

A bootstep with a thread of its own: the worker's event loop belongs to Celery, and a solo pool blocks it for as long as
a task takes. Every call has a time limit, and nothing here is waited for by the worker but the first look at what is
cancelled.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import weakref
from collections import defaultdict
from functools import partial
from time import monotonic
from typing import Any, Final

from celery import bootsteps
from celery.worker import state as worker_state

from eventbus.backends.redis.operation_client import Operations
from eventbus.backends.redis.worker_status import WorkerStatus
from eventbus.bus import default_bus
from eventbus.errors import TransportError
from eventbus.operations.events import STAMP, OperationRef
from worker_adapter.installation import Installation, installation_of
from worker_adapter.lifecycle import task_events
from worker_adapter.lifecycle.cancellation import RevokedStamps, known
from worker_adapter.lifecycle.main_process import TaskRequestInfo
from worker_adapter.lifecycle.running_tasks import outbox_facts

__all__ = ["LeaseBootstep"]

log = logging.getLogger(__name__)

_PATIENCE: Final = 5.0  # between two tries while Redis does not answer
_TRIES: Final = 10  # to copy a set that others are changing


class LeaseBootstep(bootsteps.StartStopStep):  # type: ignore[misc] # Celery ships no types
    """The bootstep. Added to an application by ``install``; nothing of it exists outside of a worker's main process.

    Attributes:
        held: leases that were renewed last. trouble: why Redis could not be asked last, or empty.
        children: what the processes of the pool said last of their outboxes.
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
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._installation: Installation | None = None
        self._operations: Operations | None = None
        self._worker_status: WorkerStatus | None = None

    def create(self, worker: Any) -> None:
        """Before the pool has its processes: what they are handed down is made now, whole."""
        self._installation = installation_of(worker.app)
        default_bus()

    def start(self, worker: Any) -> None:
        """Before the first message is read: know what is cancelled, then let the thread go on with it."""
        bus = default_bus()
        if self._installation is None or bus.broker is not None:
            return
        self._worker = worker
        self._installation.bootstep = self
        self._installation.main_process.leasing = self._installation.settings.lease > 0
        known.limit = self._installation.settings.cancelled_limit
        known.kept_current = True
        self._operations, self._worker_status = Operations(bus.settings), WorkerStatus(bus.settings)
        self._call(self._update_cancelled)
        self._watch_decode_errors(worker.consumer)
        self._thread = threading.Thread(target=self._run, name="eventbus-leases", daemon=True)
        self._thread.start()

    def _watch_decode_errors(self, consumer: Any) -> None:
        """Celery has no signal for a message that cannot be decoded."""
        celerys, main_process = (
            consumer.on_decode_error,
            self._installation.main_process if self._installation else None,
        )

        def on_decode_error(message: Any, error: Exception) -> None:
            celerys(message, error)
            if main_process is not None:
                main_process.refused(message.headers, error)

        consumer.on_decode_error = on_decode_error

    def stop(self, worker: Any) -> None:
        """A warm shutdown: tasks go on to their ends, and their leases with them. ``end`` comes after the last one."""

    def terminate(self, worker: Any) -> None:  # noqa: ARG002 - Celery's signature
        """A cold shutdown: say what becomes of the tasks that run, while there is somebody to say it."""
        self.report_stopped()
        self.end()

    def report_stopped(self) -> None:
        """The worker gives its tasks up: those whose messages come again, and those for which that was it."""
        if self._installation is not None and self._installation.bootstep is self:
            self._installation.main_process.stopping(iter(_active()))
            default_bus().flush()

    def end(self) -> None:
        """No more renewals; the thread ends by itself."""
        self._end.set()
        known.kept_current = False
        if self._installation is not None:
            self._installation.main_process.leasing = False
            self._installation.bootstep = None

    def info(self, worker: Any) -> dict[str, Any]:  # noqa: ARG002 - Celery's signature
        """For ``inspect stats``."""
        return {"eventbus": self.facts()}

    def facts(self) -> dict[str, Any]:
        """How it stands here, from memory: nothing is asked."""
        bus = default_bus()
        return {
            "outbox": {**outbox_facts(bus), "spool_bytes": bus.outbox.spool_bytes},
            "children": self.children,
            "leases": self.lease_count,
            "cancelled": len(known),
            "trouble": self.last_error,
        }

    # --- the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        assert self._installation is not None
        settings = self._installation.settings
        renew_at, look_at = float("-inf"), float("-inf")
        while not self._end.wait(_PATIENCE if self.last_error else settings.cancel_poll):
            if not self._call(self._update_cancelled):
                self._enforce(settings.cancel_grace, settings.kill_grace)
                continue
            self._enforce(settings.cancel_grace, settings.kill_grace)
            if settings.lease and monotonic() >= renew_at and self._call(self._renew):
                renew_at = monotonic() + settings.lease / 3
            if monotonic() >= look_at and self._call(self._check):
                look_at = monotonic() + settings.report_interval

    def _call(self, work: Any) -> bool:
        """Do something that asks Redis. Whether it went well; that it did not is said once."""
        try:
            work()
        except TransportError as error:
            if not self.last_error:
                log.warning("leases are not renewed and nothing is heard of cancelled operations: %s", error)
            self.last_error = str(error)
            return False
        except Exception:
            # A bug in here must not end the thread: every lease of the worker would lapse.
            log.exception("lease thread failed")
            return False
        self.last_error = ""
        return True

    def _update_cancelled(self) -> None:
        assert self._operations is not None
        news = known.add(self._operations.cancelled(known.since))
        revoked = worker_state.revoked_stamps.get(STAMP)
        if news or (len(known) and not isinstance(revoked, RevokedStamps)):
            # Whoever revokes by this stamp through Celery has added to the list; a single value may stand there, too.
            others = [revoked] if isinstance(revoked, str) else revoked or ()
            worker_state.revoked_stamps[STAMP] = known.stamps(others)

    def _renew(self) -> None:
        assert self._operations is not None
        assert self._installation is not None
        lease = self._installation.settings.lease
        leased = [found for _, found in self._installation.main_process.of_operations(iter(_active()), leased=True)]
        running: defaultdict[OperationRef, dict[str, TaskRequestInfo]] = defaultdict(dict)
        for found in leased:
            running[found.operation][found.key.value] = found
        lost = self._operations.renew({ref: list(leaves) for ref, leaves in running.items()}, lease)
        self.lease_count = sum(map(len, running.values()))
        late = {request.id: bool(request.task.acks_late) for request in _active()}
        for ref, leaves in lost.items():
            for found in (running[ref][key] for key in leaves):
                members = task_events.about(found.task, found.name, found.retries)
                milliseconds = int(lease * 1000)
                task_events.record_started(
                    ref, found.label, found.key, milliseconds, late.get(found.task, False), members
                )

    def _check(self) -> None:
        """What the pool's processes say, and those of them forgotten that are gone."""
        assert self._worker_status is not None
        said = self._worker_status.of(self._worker.hostname)
        gone = [process for process in said if not _is_alive(int(process))]
        self._worker_status.drop(self._worker.hostname, gone)
        self.children = {process: facts for process, facts in said.items() if process not in gone}

    # --- what does not stop by itself ------------------------------------------------------------------------

    def _enforce(self, grace: float, kill_grace: float) -> None:
        assert self._installation is not None
        now = monotonic()
        if len(known):
            for request, found in self._installation.main_process.of_operations(iter(_active()), leased=False):
                if found.operation in known and now - self._noticed.setdefault(request, now) >= grace:
                    self._noticed[request] = float("inf")  # once
                    self._in_loop(partial(self._terminate, request, now + kill_grace))
        for process in [process for process, due in self._kill_at.items() if now >= due]:
            del self._kill_at[process]
            self._in_loop(partial(self._worker.pool.terminate_job, process, signal.SIGKILL))

    def _in_loop(self, call: Any) -> None:
        """Where the worker has an event loop, its pool and its connection belong to that; while it lasts."""
        hub = getattr(self._worker, "hub", None)
        if hub is not None and self._worker.blueprint.state == bootsteps.RUN:
            hub.call_soon(call)
        else:
            call()

    def _terminate(self, request: Any, kill_at: float) -> None:
        pool = self._worker.pool
        if request not in worker_state.active_requests:
            return
        try:
            request.terminate(pool)
        except NotImplementedError:
            return  # threads and solo: a thread cannot be stopped from outside
        if not pool.is_green:
            self._kill_at[request.worker_pid] = kill_at


def _active() -> list[Any]:
    """Requests that run now. The set belongs to other threads, which do not wait while it is copied."""
    for _ in range(_TRIES):
        try:
            return list(worker_state.active_requests)
        except RuntimeError:
            continue
    return []


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
