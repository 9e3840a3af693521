"""Lists and describes operations in the process, as ``describe.lua`` and ``list.lua`` do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eventbus.operations.state import OperationState
from eventbus.operations.state_machine import OperationStateMachine
from eventbus.operations.store import OperationInfo, read_info

__all__ = ["describe", "newest"]


def describe(
    channel: str, operation: str, machine: OperationStateMachine, label: str, running_shown: int
) -> OperationInfo:
    """Describe one operation.

    Args:
        channel: the user's channel.
        operation: the operation's id.
        machine: its state.
        label: its label.
        running_shown: maximum number of running tasks.

    Returns:
        The description.
    """
    tasks = sorted(machine.leases, key=machine.leases.__getitem__)[:running_shown]
    running = {task: f"{machine.tasks.get(task, '')} {machine.task_json.get(task, '')}" for task in tasks}
    info = read_info(channel, operation, _fields(machine, label), running)
    assert info is not None
    return info


def newest(
    channel: str,
    machines: Mapping[str, OperationStateMachine],
    labels: Mapping[str, str],
    limit: int,
    states: Sequence[OperationState],
) -> list[OperationInfo]:
    """List operations, the newest first.

    Args:
        channel: the user's channel.
        machines: operation -> state, in the order of their first reports.
        labels: operation -> label.
        limit: maximum number of operations.
        states: only operations in one of these states; empty: in any state.

    Returns:
        The operations, without their running tasks.
    """
    fitting = [operation for operation, machine in machines.items() if not states or machine.state in states]
    return [describe(channel, op, machines[op], labels.get(op, ""), 0) for op in fitting[: -limit - 1 : -1]]


def _fields(machine: OperationStateMachine, label: str) -> dict[str, str]:
    """Return the fields of an operation's hash in Redis."""
    numbers = {
        "planned": machine.planned,
        "dynamic": machine.dynamic,
        "done": machine.done,
        "failed": machine.failed,
        "queued": machine.queued,
        "started": machine.started,
        "heard": machine.heard,
        "ended": machine.ended,
        "cancelled": machine.cancelled,
    }
    return {"state": machine.state, "label": label, **{name: str(number) for name, number in numbers.items()}}
