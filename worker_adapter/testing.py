"""For the tests of those who write tasks: an operation run on the spot, and what it told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from celery import Celery
from celery.canvas import Signature

from eventbus.testing import Events, capture
from worker_adapter.installation import install, installation_of
from worker_adapter.operation_start import Operation, start_operation

__all__ = ["Ran", "eager", "run_operation"]


@dataclass(frozen=True, slots=True)
class Ran:
    """An operation that has been run.

    Attributes:
        operation: as ``start_operation`` returns it.
        events: all that it told, its life cycle included.
    """

    operation: Operation
    events: Events

    @property
    def result(self) -> Any:
        """What the canvas returned. Raises what a task raised, unless that was raised before."""
        return self.operation.result.get()


@contextmanager
def eager(app: Celery, *, propagate: bool = True) -> Iterator[Celery]:
    """For a block, an application's tasks run where they are called, in operations as in a worker.

    ``propagate``: an error of a task is raised by the call. Celery does not retry then; without it the error is in the
    result, and retries happen at once.
    """
    installed_before = installation_of(app)
    installation = install(app)
    previous = {name: app.conf[name] for name in ("task_always_eager", "task_eager_propagates")}
    app.conf.update(task_always_eager=True, task_eager_propagates=propagate)
    try:
        yield app
    finally:
        app.conf.update(previous)
        if installed_before is None:
            installation.disconnect()


def run_operation(
    flow: Signature, *, user: str = "ann", op: str = "op-1", label: str = "", propagate: bool = True
) -> Ran:
    """Run a signature or canvas here and now as one operation of ``user``, and capture what it tells.

    Raises:
        InvalidName, TypeError: as ``start_operation``.
        Exception: what a task raised, if ``propagate``.
    """
    with capture() as events, eager(flow.app, propagate=propagate):
        return Ran(start_operation(flow, user=user, op=op, label=label), events)
