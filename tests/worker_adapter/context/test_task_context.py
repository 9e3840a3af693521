"""The current task: contexts nest, as eager tasks run within another task."""

from __future__ import annotations

import pytest

from eventbus.operations.events import OperationRef, current_operation
from worker_adapter.context.task_context import TaskContext, current_context, use_context
from worker_adapter.settings import WorkerSettings


def current() -> tuple[TaskContext | None, OperationRef | None]:
    return current_context.get(), current_operation.get()


def test_the_end_of_a_task_restores_the_task_around_it() -> None:
    outer, inner = (TaskContext(OperationRef("ann", op), "", WorkerSettings()) for op in ("1", "2"))
    before = current()
    with use_context(outer):
        with use_context(inner):
            assert current() == (inner, inner.operation)
        assert current() == (outer, outer.operation)
        with pytest.raises(KeyError), use_context(inner):
            raise KeyError
        assert current() == (outer, outer.operation)
    assert current() == before
