"""``start_operation``: publishes a canvas as one operation of a user."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, Final

from celery.canvas import Signature

from eventbus.bus import Bus
from eventbus.errors import TransportError
from eventbus.operations.events import OperationQueued, OperationRef
from eventbus.operations.state import TaskTransition
from eventbus.process_bus import default_bus
from eventbus.protocol.cursor import format_cursor
from eventbus.protocol.ids import event_id
from eventbus.protocol.topics import UserId, check_id, check_user, user_channel
from worker_adapter.context.canvas import Plan, plan
from worker_adapter.context.headers import TaskKey, encodable, operation_headers
from worker_adapter.context.task_context import TaskContext, use_context
from worker_adapter.installation import install
from worker_adapter.lifecycle.task_events import record_transition
from worker_adapter.settings import WorkerSettings

__all__ = ["Operation", "astart_operation", "start_operation"]

log = logging.getLogger(__name__)

# Keeps the operation open while its tasks are published. Otherwise fast workers could end it in between.
_STARTER: Final = TaskKey("starter", planned=True, internal=True)


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation that has been started.

    Attributes:
        id: its id, as in the events.
        user: its user.
        label: its label.
        total: number of tasks that the canvas names.
        cursor: position of the user's channel before the first event of the operation. A page that connects with it
            receives all events. Empty if Redis did not answer; then the page receives the present state.
        result: the return value of ``apply_async``.
    """

    id: str
    user: str
    label: str
    total: int
    cursor: str
    result: Any


def start_operation(flow: Signature, *, user: UserId, label: str = "", op: str | None = None) -> Operation:
    """Publish a canvas as one operation of a user. Blocks for two round trips to Redis and for the broker.

    If the bus's Redis is unreachable, nothing is raised: the tasks are published, and the events wait in this process.

    With a Redis result backend Celery subscribes this process to the channel of each result. It unsubscribes when the
    result is read (``operation.result.get()``) or dropped (``operation.result.forget()``). Tasks whose results nothing
    reads should have ``ignore_result=True``. Otherwise each call leaves unread bytes in the output buffer of Redis.

    Args:
        flow: any signature or canvas; it is copied and not changed.
        user: the user whose pages receive the events.
        label: name of the operation on the page; cut at ``EVENTBUS_WORKER_LABEL_CHARS``.
        op: id of the operation; by default a new one.

    Returns:
        The operation.

    Raises:
        InvalidName: ``user`` or ``op`` is malformed. Nothing was sent.
        TypeError: ``flow`` is no signature, or ``label`` is no string. Nothing was sent.
        Exception: any error of the broker's client. The operation has failed, and the page is notified.
    """
    operation = OperationRef(check_user(user), event_id() if op is None else check_id(op, "op"))
    if not isinstance(flow, Signature):
        raise TypeError(f"flow must be a signature, not {type(flow).__name__}; pass task.s(…) or a canvas of them")
    if not isinstance(label, str):
        raise TypeError(f"label must be a string, not {type(label).__name__}; convert it with str()")
    settings = install(flow.app).settings
    label = encodable(label[: settings.label_chars])
    canvas = plan(flow, operation_headers(operation, label))
    bus = default_bus()
    cursor = _cursor(bus, user_channel(operation.user))
    _announce(bus, operation, label, canvas)
    if cursor:
        # A worker that is faster than these transitions could end the operation before it began.
        bus.outbox.wait_settled(bus.settings.flush_budget)
    result = _publish(canvas, operation, label, settings)
    return Operation(operation.op, operation.user, label, canvas.tasks, cursor, result)


async def astart_operation(flow: Signature, *, user: UserId, label: str = "", op: str | None = None) -> Operation:
    """``start_operation`` for async code. It runs in a thread, since the clients of brokers block.

    Args:
        flow: as in ``start_operation``.
        user: as in ``start_operation``.
        label: as in ``start_operation``.
        op: as in ``start_operation``.

    Returns:
        The operation.
    """
    return await asyncio.to_thread(start_operation, flow, user=user, label=label, op=op)


def _cursor(bus: Bus, channel: str) -> str:
    try:
        return format_cursor({channel: bus.position(channel)})
    except TransportError as error:
        log.warning("cannot read the cursor of a new operation: %s", error)
        return ""


def _announce(bus: Bus, operation: OperationRef, label: str, canvas: Plan) -> None:
    bus.emit(*operation, OperationQueued(operation=operation.op, label=label, total=canvas.tasks))
    planned = TaskTransition("plan", planned=canvas.tasks, lease=bus.settings.part_patience_ms)
    bus.record_transition(operation, planned, label=label)
    record_transition(operation, label, "published", _STARTER)


def _publish(canvas: Plan, operation: OperationRef, label: str, settings: WorkerSettings) -> Any:
    published, context = False, TaskContext(operation, label, settings)
    try:
        with use_context(context):
            result = canvas.flow.apply_async()
        published = True
        return result
    finally:
        # apply_async raises the error of an eager task. That task has been counted already.
        record_transition(operation, label, "done" if published or context.failed else "failed", _STARTER)
