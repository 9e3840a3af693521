"""Operations as somebody sees them who comes later: what there is, how far it is, what runs of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from eventbus.operations.state import ENDED, OperationState

__all__ = ["OperationInfo", "OperationStore", "RunningTask", "read_info"]


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task of an operation that runs, or whose worker is gone (``lost``)."""

    task: str
    name: str
    retries: int
    lost: bool


@dataclass(frozen=True, slots=True)
class OperationInfo:
    """Where an operation stands. Times are milliseconds since 1970, 0 for never.

    Attributes:
        user, id, label: as it was started.
        state, done, failed, total: as in its events.
        queued, started, heard, ended: when it was first heard of, when its first task began, when it last changed, when
            it ended.
        cancelled: when somebody wanted it stopped.
        tasks: what runs now; only where one operation was asked for.
    """

    user: str
    id: str
    label: str
    state: OperationState
    done: int
    failed: int
    total: int
    queued: int
    started: int
    heard: int
    ended: int
    cancelled: int
    tasks: tuple[RunningTask, ...] = ()

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ENDED


def read_info(
    channel: str, operation: str, fields: Mapping[str, str], running: Mapping[str, str]
) -> OperationInfo | None:
    """An operation from its hash and its running leaves (``_operation.lua``); None where there is no hash."""
    if "state" not in fields:
        return None

    def number(name: str) -> int:
        return int(fields.get(name) or 0)

    done, failed = number("done"), number("failed")
    tasks = (_running(value) for value in running.values())
    return OperationInfo(
        user=channel.removeprefix("user:"),
        id=operation,
        label=fields.get("label", ""),
        state=cast("OperationState", fields["state"]),
        done=done,
        failed=failed,
        total=max(number("planned") + number("dynamic"), done + failed),
        queued=number("queued"),
        started=number("started"),
        heard=number("heard"),
        ended=number("ended"),
        cancelled=number("cancelled"),
        tasks=tuple(task for task in tasks if task is not None),
    )


def _running(value: str) -> RunningTask | None:
    letter, _, task_json = value.partition(" ")
    if not task_json:
        return None
    facts = json.loads(f"{{{task_json}}}")
    return RunningTask(facts["task"], facts["name"], facts["retries"], lost=letter == "l")


class OperationStore(Protocol):
    """Where operations are written down, from an event loop. Every method raises Unavailable or Refused."""

    async def of(self, user: str, limit: int, states: Sequence[OperationState] = ()) -> Sequence[OperationInfo]:
        """A user's operations, the newest first; in one of the states, where some are named."""

    async def get(self, user: str, op: str) -> OperationInfo | None:
        """One operation and what runs of it."""

    async def cancel(self, user: str, op: str) -> OperationInfo | None:
        """Stop an operation: what is queued will not run, what runs is told. None: there is no such operation."""
