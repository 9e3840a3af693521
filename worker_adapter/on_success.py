"""``emit_on_success``: an event that is sent only if the running task succeeds."""

from __future__ import annotations

import hashlib
from typing import overload

from eventbus.deferred import defer
from eventbus.events.event import Event
from eventbus.events.receipt import Receipt
from eventbus.protocol.ids import event_id
from eventbus.protocol.topics import UserId
from worker_adapter.context.task_context import TaskContext, current_context

__all__ = ["emit_on_success"]


@overload
def emit_on_success(payload: Event, /, *, id: str | None = None) -> Receipt: ...
@overload
def emit_on_success(user: UserId, op: str, payload: Event, /, *, id: str | None = None) -> Receipt: ...
def emit_on_success(*args: object, id: str | None = None) -> Receipt:
    """Emit an event once the running task has returned; outside of a task, immediately.

        emit_on_success(Indexed(document=7))
        emit_on_success("ann", "op-1", Indexed(document=7))

    The event is validated now. It is sent in order, before the task counts as done. If the task fails, is retried,
    ignored or rejected, the event is dropped and counted as ``not_succeeded``. So a task that needs three tries emits
    it once.

    Args:
        *args: the event; or the user, the operation and the event.
        id: the event's id. By default it is derived from the task, so a task that succeeds twice, because its worker
            died before the acknowledgement, emits the event once.

    Returns:
        The receipt, which is ``waiting`` until the task has ended.

    Raises:
        InvalidEmission: as ``emit``.
        NoOperation: as ``emit``.
        TooManyDeferred: ``EVENTBUS_WORKER_SUCCESS_EVENTS`` events of this task wait already.
    """
    context = current_context.get()
    if context is None or not context.task_id:
        return defer(args, event_id() if id is None else id).send()
    deferred = defer(args, _id(context, args) if id is None else id)
    context.deferred_events.add(deferred)
    return deferred.receipt


def _id(context: TaskContext, args: tuple[object, ...]) -> str:
    """The same for the n-th event of a class in every run of a task."""
    class_ = type(args[-1]).__qualname__ if args else ""
    number = context.deferred_events.next_number(class_)
    key = context.task_id if context.key is None else context.key.value
    op = "" if context.operation is None else context.operation.op
    name = f"{op}\0{key}\0{class_}\0{number}\0announced"
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
