"""Record of the installation that an application keeps."""

from __future__ import annotations

from typing import Any, Final, Protocol, cast

from celery import Celery

from worker_adapter.lifecycle.main_process import MainProcessSignals
from worker_adapter.settings import WorkerSettings

__all__ = ["Bootstep", "Installed", "installed_in", "keep_installed"]

_ATTRIBUTE: Final = "_eventbus_installation"


class Bootstep(Protocol):
    """The worker's bootstep, as other modules use it."""

    def facts(self) -> dict[str, Any]:
        """Return the state of the worker, for ``inspect eventbus``."""

    def report_stopped(self) -> None:
        """Report the tasks that the worker abandons."""

    def stop_renewing(self) -> None:
        """Stop renewing leases."""


class Installed(Protocol):
    """The installation, as the bootstep and the remote control use it.

    Attributes:
        settings: its settings.
        main_process: receives the signals of the worker's main process.
        bootstep: the worker's bootstep while it runs in this process.
    """

    settings: WorkerSettings
    main_process: MainProcessSignals
    bootstep: Bootstep | None


def installed_in(app: Celery) -> Installed | None:
    """Return the installation of an application; None without one.

    Args:
        app: the application.
    """
    return cast("Installed | None", getattr(app, _ATTRIBUTE, None))


def keep_installed(app: Celery, installed: Installed | None) -> None:
    """Record the installation in its application.

    Args:
        app: the application.
        installed: the installation; None removes it.
    """
    setattr(app, _ATTRIBUTE, installed)
