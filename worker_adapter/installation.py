"""``install(app)``: connects the signals of a Celery application to the operations of its tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, cast

from billiard.process import current_process
from celery import Celery, signals
from celery.exceptions import InvalidTaskError

from eventbus.bus import Bus
from eventbus.process_bus import configure, default_bus
from worker_adapter.lifecycle import (
    remote_control,  # noqa: F401 - registers the command, for workers and for the command line
)
from worker_adapter.lifecycle.installed import Bootstep, installed_in, keep_installed
from worker_adapter.lifecycle.main_process import MainProcessSignals
from worker_adapter.lifecycle.task_signals import TaskSignals
from worker_adapter.settings import WorkerSettings

__all__ = ["Installation", "install", "installation_of"]

# Celery imports the bootstep by this name, in workers only.
_BOOTSTEP: Final = "worker_adapter.lifecycle.bootstep:LeaseBootstep"


class Installation:
    """Receivers of one application's signals; ``install`` makes it.

    Signals reach every task, also those of libraries and of Celery itself. A task base class would not. The receivers
    keep no state, so they work in forked and spawned processes, in threads and in greenlets.

    Args:
        app: the application.
        settings: the bounds of its tasks.

    Attributes:
        app: the application.
        settings: the bounds of its tasks.
        main_process: receives the signals of the worker's main process.
        bootstep: the worker's bootstep while it runs in this process.
    """

    def __init__(self, app: Celery, settings: WorkerSettings) -> None:
        self.app = app
        self.settings = settings
        self.main_process = MainProcessSignals(settings)
        self.bootstep: Bootstep | None = None
        self._task_signals = TaskSignals(settings)

    def connect(self) -> None:
        """Connect the receivers and add the bootstep."""
        for signal, receiver in self._receivers():
            signal.connect(receiver, weak=False, dispatch_uid=self._uid)
        self.app.steps["worker"].add(_BOOTSTEP)

    def disconnect(self) -> None:
        """Undo ``install``, for tests and before another installation."""
        for signal, _ in self._receivers():
            signal.disconnect(dispatch_uid=self._uid)
        if installed_in(self.app) is self:
            keep_installed(self.app, None)
            self.app.steps["worker"].discard(_BOOTSTEP)

    @property
    def _uid(self) -> str:
        return f"eventbus:{id(self)}"

    def _receivers(self) -> Iterator[tuple[Any, Callable[..., None]]]:
        yield signals.before_task_publish, self._before_publish
        yield signals.after_task_publish, self._after_publish
        yield signals.task_prerun, self._before_run
        yield signals.task_postrun, self._after_run
        yield signals.task_received, self._received
        yield signals.task_failure, self._failed
        yield signals.task_internal_error, self._internal_error
        yield signals.task_revoked, self._revoked
        yield signals.task_retry, self._retried
        yield signals.task_unknown, self._refused
        yield signals.task_rejected, self._refused
        yield signals.worker_shutting_down, self._shutting_down
        yield signals.worker_process_init, self._process_started
        # atexit does not run in a pool's child.
        yield signals.worker_process_shutdown, self._shutdown
        yield signals.worker_shutdown, self._shutdown

    def _before_publish(
        self, headers: dict[str, Any] | None = None, properties: dict[str, Any] | None = None, **_: Any
    ) -> None:
        if headers is not None:
            self._task_signals.before_publish(headers, properties if properties is not None else {})

    def _after_publish(self, sender: str, headers: dict[str, Any] | None = None, **_: Any) -> None:
        if headers is not None:
            self._task_signals.after_publish(sender, headers)

    def _before_run(self, task: Any, task_id: str, **_: Any) -> None:
        if self._is_mine(task):
            self._task_signals.before_run(task, task_id)

    def _after_run(self, task: Any, state: str | None = None, retval: Any = None, **_: Any) -> None:
        if self._is_mine(task):
            self._task_signals.after_run(task, state, retval)

    def _received(self, sender: Any, request: Any, **_: Any) -> None:
        if self._serves(sender.app):
            self.main_process.received(request)

    def _failed(self, sender: Any, task_id: str, exception: object, **_: Any) -> None:
        if self._is_mine(sender) and _is_main():
            self.main_process.failed(sender, task_id, exception)

    def _internal_error(self, sender: Any, request: Any, exception: object, **_: Any) -> None:
        # All other internal errors follow the end of a task that ran and was reported.
        if self._is_mine(sender) and isinstance(exception, InvalidTaskError) and request:
            self.main_process.refused(request, exception)

    def _revoked(self, sender: Any, request: Any, terminated: bool, expired: bool, **_: Any) -> None:
        if self._is_mine(sender):
            self.main_process.revoked(sender, request, terminated=terminated, expired=expired)

    def _retried(self, sender: Any, request: Any, reason: Any = None, **_: Any) -> None:
        if self._is_mine(sender) and _is_main():
            self.main_process.retried(sender, request, reason)

    def _refused(self, sender: Any, message: Any, exc: object, **_: Any) -> None:
        if self._serves(sender.app):
            self.main_process.refused(message.headers, exc)

    def _shutting_down(self, how: str, **_: Any) -> None:
        if how == "Cold" and self.bootstep is not None:
            self.bootstep.report_stopped()

    def _process_started(self, **_: Any) -> None:
        # Events that a killed worker left on disk are sent before the first event of this process.
        default_bus().outbox.start()

    def _shutdown(self, **_: Any) -> None:
        if self.bootstep is not None:
            self.bootstep.stop_renewing()
        default_bus().close()

    def _is_mine(self, task: Any) -> bool:
        return self._serves(task.app)

    def _serves(self, app: Celery) -> bool:
        # A spawned child may have a copy of the application without an installation. The installation that is connected
        # there serves it.
        return (installed_in(app) or self) is self


def _is_main() -> bool:
    """Whether this process is not a pool's child. There the task's own signals report the end."""
    return bool(current_process().name == "MainProcess")


def installation_of(app: Celery) -> Installation | None:
    """Return the application's installation; None without one.

    Args:
        app: the application.
    """
    return cast("Installation | None", installed_in(app))


def install(app: Celery, *, settings: WorkerSettings | None = None, bus: Bus | None = None) -> Installation:
    """Connect an application to the event bus, so that its tasks can belong to operations.

    Call it once, where the application is made. It opens no connection and starts no thread. A second call changes
    nothing unless it passes settings.

    Args:
        app: the application.
        settings: the bounds of its tasks; by default they are read from ``EVENTBUS_WORKER_…``.
        bus: becomes the bus of this process (``eventbus.configure``); by default ``emit`` makes one on first use.

    Returns:
        The installation.

    Raises:
        pydantic.ValidationError: a variable ``EVENTBUS_WORKER_…`` has an invalid value.
    """
    if bus is not None:
        configure(bus=bus)
    previous = installation_of(app)
    if previous is not None:
        if settings is None:
            return previous
        previous.disconnect()
    installation = Installation(app, settings or WorkerSettings())
    keep_installed(app, installation)
    installation.connect()
    return installation
