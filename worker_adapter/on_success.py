"""``emit_on_success``: what is true only if the task succeeds is told only then."""

from __future__ import annotations

import hashlib
from typing import overload

from eventbus.deferred import defer
from eventbus.events.event import Event
from eventbus.events.receipt import Receipt
from eventbus.protocol.ids import event_id
from worker_adapter.context.task_context import TaskContext, current_context

__all__ = ["emit_on_success"]


@overload
def emit_on_success(payload: Event, /, *, id: str | None = None) -> Receipt: ...
@overload
def emit_on_success(user: str, op: str, payload: Event, /, *, id: str | None = None) -> Receipt: ...
def emit_on_success(*args: object, id: str | None = None) -> Receipt:
    """``emit`` once the running task has returned; outside of a task, at once.

    Checked now, where a mistake is; sent in order, before the task counts as done. If the task fails, is to be tried
    again, is ignored or rejected, it is dropped and counted (``not_succeeded``), so what a task that is tried three
    times announces is announced once. Without an ``id`` it gets one by the task: who succeeds twice, because its worker
    died before the acknowledgement, announces once too. The receipt is ``waiting`` until the task has ended.

    Raises:
        InvalidEmission, NoOperation: as ``emit``.
        TooManyDeferred: ``success_events`` of this task wait already.
    """
    context = current_context.get()
    if context is None or not context.task_id:
        return defer(args, event_id() if id is None else id).send()
    deferred = defer(args, _id(context, args) if id is None else id)
    context.deferred_events.add(deferred)
    return deferred.receipt


def _id(context: TaskContext, args: tuple[object, ...]) -> str:
    """The same for the n-th event of a class, however often the task is run."""
    class_ = type(args[-1]).__qualname__ if args else ""
    next_number = context.deferred_events.next_number(class_)
    key = context.task_id if context.key is None else context.key.value
    op = "" if context.operation is None else context.operation.op
    name = f"{op}\0{key}\0{class_}\0{next_number}\0announced"
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
