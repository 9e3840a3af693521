"""``install(app)``: connects an application's signals to what they mean for operations."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from billiard.process import current_process
from celery import Celery, signals
from celery.exceptions import InvalidTaskError

from eventbus.bus import Bus, configure, default_bus
from worker_adapter.lifecycle.main_process import MainProcessSignals
from worker_adapter.lifecycle.task_signals import TaskSignals
from worker_adapter.settings import WorkerSettings

if TYPE_CHECKING:
    from worker_adapter.lifecycle.bootstep import LeaseBootstep

__all__ = ["Installation", "install", "installation_of"]

_PLACE: Final = "_eventbus_installation"
# By name: it is imported in workers only.
_BOOTSTEP: Final = "worker_adapter.lifecycle.bootstep:LeaseBootstep"


class Installation:
    """Receivers of one application's signals.

    Signals and no task base class: they reach every task, also those of libraries and of Celery itself. The receivers
    keep no state of their own, so it does not matter whether a pool forks, spawns, or runs threads or greenlets.

    Attributes:
        witness: what the worker's main process sees of tasks that cannot speak for themselves.
        keeper: the worker's bootstep while it is at work in this process.
    """

    def __init__(self, app: Celery, settings: WorkerSettings) -> None:
        self.app = app
        self.settings = settings
        self.main_process = MainProcessSignals(settings)
        self.bootstep: LeaseBootstep | None = None
        self._task_signals = TaskSignals(settings)

    def connect(self) -> None:
        """Begin to listen."""
        for signal, receiver in self._receivers():
            signal.connect(receiver, weak=False, dispatch_uid=self._uid)
        self.app.steps["worker"].add(_BOOTSTEP)
        # The command line looks there for what it may ask a worker.
        importlib.import_module("worker_adapter.lifecycle.remote_control")

    def disconnect(self) -> None:
        """No longer listen: for tests, and before another installation takes over."""
        for signal, _ in self._receivers():
            signal.disconnect(dispatch_uid=self._uid)
        if getattr(self.app, _PLACE, None) is self:
            setattr(self.app, _PLACE, None)
            self.app.steps["worker"].discard(_BOOTSTEP)

    @property
    def _uid(self) -> str:
        return f"eventbus:{id(self)}"

    def _receivers(self) -> Iterator[tuple[Any, Callable[..., None]]]:
        yield signals.before_task_publish, self._before_publish
        yield signals.after_task_publish, self._after_publish
        yield signals.task_prerun, self._prerun
        yield signals.task_postrun, self._postrun
        yield signals.task_received, self._received
        yield signals.task_failure, self._failed
        yield signals.task_internal_error, self._unread
        yield signals.task_revoked, self._revoked
        yield signals.task_retry, self._retried
        yield signals.task_unknown, self._refused
        yield signals.task_rejected, self._refused
        yield signals.worker_shutting_down, self._shutting_down
        yield signals.worker_process_init, self._begin
        # In a pool's child atexit does not run.
        yield signals.worker_process_shutdown, self._shutdown
        yield signals.worker_shutdown, self._shutdown

    def _before_publish(
        self, headers: dict[str, Any] | None = None, properties: dict[str, Any] | None = None, **_: Any
    ) -> None:
        if headers is not None:
            self._task_signals.publishing(headers, properties if properties is not None else {})

    def _after_publish(self, sender: str, headers: dict[str, Any] | None = None, **_: Any) -> None:
        if headers is not None:
            self._task_signals.published(sender, headers)

    def _prerun(self, task: Any, task_id: str, **_: Any) -> None:
        if self._is_mine(task):
            self._task_signals.starting(task, task_id)

    def _postrun(self, task: Any, state: str | None = None, retval: Any = None, **_: Any) -> None:
        if self._is_mine(task):
            self._task_signals.ended(task, state, retval)

    def _received(self, sender: Any, request: Any, **_: Any) -> None:
        if self._serves(sender.app):
            self.main_process.received(request)

    def _failed(self, sender: Any, task_id: str, exception: object, **_: Any) -> None:
        if self._is_mine(sender) and _is_main():
            self.main_process.failed(sender, task_id, exception)

    def _unread(self, sender: Any, request: Any, exception: object, **_: Any) -> None:
        # Anything else comes after the end of a task that ran, and was told.
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

    def _begin(self, **_: Any) -> None:
        # What a worker that was killed has left on disk is sent before this one has anything to say.
        default_bus().outbox.start()

    def _shutdown(self, **_: Any) -> None:
        if self.bootstep is not None:
            self.bootstep.end()
        default_bus().close()

    def _is_mine(self, task: Any) -> bool:
        # The application of a spawned child may be a copy without an installation: whoever is connected there serves
        # it.
        return self._serves(task.app)

    def _serves(self, app: Celery) -> bool:
        return (getattr(app, _PLACE, None) or self) is self


def _is_main() -> bool:
    """Whether this is no process of a pool: there, what Celery calls a failure is told by the task's own end."""
    return bool(current_process().name == "MainProcess")


def installation_of(app: Celery) -> Installation | None:
    """The application's installation, if there is one."""
    return getattr(app, _PLACE, None)


def install(app: Celery, *, settings: WorkerSettings | None = None, bus: Bus | None = None) -> Installation:
    """Let an application's tasks belong to operations, and tell of them. Call it where the application is made, once.

    A second call changes nothing unless it brings settings. ``bus`` becomes this process's bus
    (``eventbus.configure``); without it the one that ``emit`` uses is taken, made on first use. Nothing is connected
    to, and no thread is started here.

    Raises:
        pydantic.ValidationError: a variable ``EVENTBUS_WORKER_…`` is set to what cannot be.
    """
    if bus is not None:
        configure(bus=bus)
    previous = installation_of(app)
    if previous is not None:
        if settings is None:
            return previous
        previous.disconnect()
    installation = Installation(app, settings or WorkerSettings())
    setattr(app, _PLACE, installation)
    installation.connect()
    return installation
