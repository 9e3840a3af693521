"""Test kit for tasks: run an operation in the test's process and look at its events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from celery import Celery
from celery.canvas import Signature

from eventbus.protocol.topics import UserId
from eventbus.testing import Events, capture
from worker_adapter.installation import install, installation_of
from worker_adapter.operation_start import Operation, start_operation

__all__ = ["Ran", "eager", "run_operation"]


@dataclass(frozen=True, slots=True)
class Ran:
    """An operation that has run.

    Attributes:
        operation: the return value of ``start_operation``.
        events: all events of the operation.
    """

    operation: Operation
    events: Events

    @property
    def result(self) -> Any:
        """The canvas's return value. Raises the error of a task, unless ``run_operation`` has raised it."""
        return self.operation.result.get()


@contextmanager
def eager(app: Celery, *, propagate: bool = True) -> Iterator[Celery]:
    """Run an application's tasks where they are called, in operations as in a worker.

    Args:
        app: the application.
        propagate: whether a call raises the error of its task. Celery does not retry then. Otherwise the error is in
            the result, and Celery retries immediately.

    Yields:
        The application.
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
    flow: Signature, *, user: UserId = "ann", op: str = "op-1", label: str = "", propagate: bool = True
) -> Ran:
    """Run a signature or canvas as one operation and capture its events.

    Args:
        flow: any signature or canvas.
        user: the operation's user.
        op: the operation's id.
        label: the operation's label.
        propagate: whether the error of a task is raised here.

    Returns:
        The operation and its events.

    Raises:
        InvalidName: as ``start_operation``.
        TypeError: as ``start_operation``.
        Exception: the error of a task, if ``propagate``.
    """
    with capture() as events, eager(flow.app, propagate=propagate):
        return Ran(start_operation(flow, user=user, op=op, label=label), events)
