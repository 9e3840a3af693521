"""Operations kept in the process: how a tally reads. The rules are those of ``describe.lua`` and ``list.lua``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eventbus.operations.state import OperationState
from eventbus.operations.state_machine import OperationStateMachine
from eventbus.operations.store import OperationInfo, read_info

__all__ = ["describe", "newest"]


def describe(
    channel: str, operation: str, machine: OperationStateMachine, label: str, running_shown: int
) -> OperationInfo:
    """One operation and what runs of it."""
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
    """Those that fit, the newest first. ``machines`` stand in the order in which they were first heard of."""
    fitting = [operation for operation, machine in machines.items() if not states or machine.state in states]
    return [describe(channel, op, machines[op], labels.get(op, ""), 0) for op in fitting[: -limit - 1 : -1]]


def _fields(machine: OperationStateMachine, label: str) -> dict[str, str]:
    """As the hash of an operation."""
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
