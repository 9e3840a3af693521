"""Cancellation as a task sees it: the exception, and the check that raises it."""

from __future__ import annotations

from celery.exceptions import Ignore

from eventbus.backends.redis.operation_client import Operations
from eventbus.bus import Bus
from eventbus.errors import TransportError
from eventbus.operations.events import OperationRef, current_operation
from worker_adapter.lifecycle.process_state import process

__all__ = ["OperationCancelled", "check_cancelled", "is_cancelled"]


class OperationCancelled(Ignore):  # type: ignore[misc] # Celery ships no types
    """A user cancelled the operation. Do not catch it: ``finally`` and ``with`` blocks can clean up.

    Celery treats it as ``Ignore``, so the task is neither retried nor failed. The state of its result becomes REVOKED.

    Args:
        operation: id of the operation.

    Attributes:
        operation: id of the operation.
    """

    def __init__(self, operation: str) -> None:
        super().__init__(operation)
        self.operation = operation

    def __str__(self) -> str:
        return f"operation {self.operation} was cancelled"


def check_cancelled() -> None:
    """Stop the task if its operation was cancelled; outside of an operation do nothing. Costs one dict lookup.

    ``progress`` and ``track`` call it whenever they emit an event.

    Raises:
        OperationCancelled: the operation was cancelled. The exception ends the task.
    """
    operation = current_operation.get()
    if operation is not None and operation in process.cancelled:
        raise OperationCancelled(operation.op)


def is_cancelled(bus: Bus, operation: OperationRef) -> bool:
    """Return whether an operation is cancelled. Asks Redis unless this process knows it already.

    Args:
        bus: the bus whose Redis is asked. While it is unreachable the answer is False.
        operation: the operation.
    """
    if operation in process.cancelled:
        return True
    if bus.broker is not None or bus.outbox.failures:
        return False
    try:
        with process.lock:
            if process.operations is None:
                process.operations = Operations(bus.settings)
            found = process.operations.cancelled_of([operation])
    except TransportError:
        return False  # the outbox reports it; publishing a task must go on
    process.cancelled.add((ref, 0) for ref in found)
    return bool(found)
