"""Operations kept in the process: how a tally reads. The rules are those of ``describe.lua`` and ``list.lua``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eventbus.operations.state import OperationState, OperationStateMachine
from eventbus.operations.store import OperationInfo, read_info

__all__ = ["describe", "newest"]


def describe(
    channel: str, operation: str, tally: OperationStateMachine, label: str, running_shown: int
) -> OperationInfo:
    """One operation and what runs of it."""
    leaves = sorted(tally.leases, key=tally.leases.__getitem__)[:running_shown]
    running = {leaf: f"{tally.leaves.get(leaf, '')} {tally.about.get(leaf, '')}" for leaf in leaves}
    info = read_info(channel, operation, _fields(tally, label), running)
    assert info is not None
    return info


def newest(
    channel: str,
    tallies: Mapping[str, OperationStateMachine],
    labels: Mapping[str, str],
    limit: int,
    states: Sequence[OperationState],
) -> list[OperationInfo]:
    """Those that fit, the newest first. ``tallies`` stand in the order in which they were first heard of."""
    fitting = [operation for operation, tally in tallies.items() if not states or tally.state in states]
    return [describe(channel, op, tallies[op], labels.get(op, ""), 0) for op in fitting[: -limit - 1 : -1]]


def _fields(tally: OperationStateMachine, label: str) -> dict[str, str]:
    """As the hash of an operation."""
    numbers = {
        "planned": tally.planned,
        "dynamic": tally.dynamic,
        "done": tally.done,
        "failed": tally.failed,
        "queued": tally.queued,
        "started": tally.started,
        "heard": tally.heard,
        "ended": tally.ended,
        "cancelled": tally.cancelled,
    }
    return {"state": tally.state, "label": label, **{name: str(number) for name, number in numbers.items()}}
