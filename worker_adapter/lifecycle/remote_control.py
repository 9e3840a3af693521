"""The remote control command ``celery -A app inspect eventbus``."""

from __future__ import annotations

from typing import Any

from celery.worker.control import inspect_command

from worker_adapter.lifecycle.installed import installed_in

__all__ = ["eventbus"]


@inspect_command()  # type: ignore[untyped-decorator] # Celery ships no types
def eventbus(state: Any, **_: Any) -> dict[str, Any]:
    """Describe the outboxes, leases and cancelled operations of a worker. The answer comes from memory.

    Args:
        state: Celery's state of the worker; it names the application.

    Returns:
        The facts of the bootstep by name; empty in a worker without ``install``.
    """
    installed = installed_in(state.app)
    bootstep = installed.bootstep if installed is not None else None
    return {} if bootstep is None else bootstep.facts()
