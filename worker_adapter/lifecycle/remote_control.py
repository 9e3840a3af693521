"""The remote control command ``celery -A app inspect eventbus``."""

from __future__ import annotations

from typing import Any

from celery.worker.control import inspect_command

from worker_adapter.lifecycle.installed import installed_in

__all__ = ["eventbus"]


@inspect_command()  # type: ignore[untyped-decorator] # Celery ships no types
def eventbus(state: Any, **_: Any) -> dict[str, Any]:
    """Outboxes, leases and cancelled operations of a worker; answered from memory."""
    installed = installed_in(state.app)
    bootstep = installed.bootstep if installed is not None else None
    return {} if bootstep is None else bootstep.facts()
