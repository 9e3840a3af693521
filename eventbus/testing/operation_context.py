"""``operation``: code under test runs as if a task of an operation had called it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from eventbus.operations.events import OperationRef, current_operation
from eventbus.protocol.topics import UserId, check_id, check_user

__all__ = ["operation"]


@contextmanager
def operation(user: UserId, op: str) -> Iterator[OperationRef]:
    """For a block, ``emit(payload)`` and ``progress`` belong to this operation of this user.

    As in a task, threads that start in the block do not have the operation.

    Args:
        user: id of the user.
        op: id of the operation.

    Yields:
        The operation.

    Raises:
        InvalidName: ``user`` or ``op`` is malformed.
    """
    ref = OperationRef(check_user(user), check_id(op, "op"))
    former = current_operation.get()
    current_operation.set(ref)
    try:
        yield ref
    finally:
        # By value: a token is invalid where a fixture ends in another context than it began in.
        current_operation.set(former)
