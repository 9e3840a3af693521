"""Operations for a reader that connects later: which exist, their progress, and their running
tasks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

from eventbus.operations.state import ENDED, Counts, OperationState, shown_done
from eventbus.protocol.topics import UserId

__all__ = ["LeaseExpiry", "LeaseStore", "OperationInfo", "OperationStore", "RunningTask", "read_info"]


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A running task of an operation, or one whose worker is gone.

    Attributes:
        task: Celery's id of the task.
        name: the task's name.
        retries: number of earlier tries.
        lost: whether its worker is gone.
    """

    task: str
    name: str
    retries: int
    lost: bool


@dataclass(frozen=True, slots=True)
class OperationInfo:
    """State and progress of an operation. Times are milliseconds since 1970, 0 for never.

    Attributes:
        user: the user's id.
        id: the operation's id.
        label: its label.
        state: its state.
        done: tasks that ended well.
        failed: tasks that failed.
        total: tasks known so far.
        queued: time of the first report.
        started: time at which its first task began.
        heard: time of the last change.
        ended: time of the end.
        cancelled: time of the cancellation.
        tasks: running tasks; only in the answer for one operation.
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
        """Whether the operation is in a final state."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class LeaseExpiry:
    """Result of a check of an operation's leases.

    Attributes:
        counts: the operation's counts after the check; None: the operation is unknown.
        next_check: end of the next lease (milliseconds since 1970; 0: no task runs).
        expired: number of tasks that were lost or failed because their lease expired.
        lost: whether the operation became lost by this check.
    """

    counts: Counts | None
    next_check: int
    expired: int = 0
    lost: bool = False


def read_info(
    channel: str, operation: str, fields: Mapping[str, str], running: Mapping[str, str]
) -> OperationInfo | None:
    """Decode an operation.

    Args:
        channel: the user's channel.
        operation: the operation's id.
        fields: the operation's hash; see ``_operation.lua``.
        running: values of its running tasks.

    Returns:
        The operation; None if the hash does not exist.
    """
    if "state" not in fields:
        return None

    def number(name: str) -> int:
        return int(fields.get(name) or 0)

    done, failed = number("done"), number("failed")
    state, total = cast("OperationState", fields["state"]), max(number("planned") + number("dynamic"), done + failed)
    tasks = (_running(value) for value in running.values())
    return OperationInfo(
        user=channel.removeprefix("user:"),
        id=operation,
        label=fields.get("label", ""),
        state=state,
        done=shown_done(state, done, total),
        failed=failed,
        total=total,
        queued=number("queued"),
        started=number("started"),
        heard=number("heard"),
        ended=number("ended"),
        cancelled=number("cancelled"),
        tasks=tuple(task for task in tasks if task is not None),
    )


def _running(value: str) -> RunningTask | None:
    state, _, members = value.partition(" ")
    if not members:
        return None
    facts = json.loads(f"{{{members}}}")
    return RunningTask(facts["task"], facts["name"], facts["retries"], lost=state == "l")


class OperationStore(Protocol):
    """The operations of users, for an event loop. Every method raises ``Unavailable`` or
    ``Refused``.
    """

    async def of(self, user: UserId, limit: int, states: Sequence[OperationState] = ()) -> Sequence[OperationInfo]:
        """List a user's operations, the newest first.

        Args:
            user: the user's id.
            limit: maximum number of operations.
            states: only operations in one of these states; empty: in any state.

        Returns:
            The operations, without their running tasks.
        """

    async def get(self, user: UserId, op: str) -> OperationInfo | None:
        """Read one operation and its running tasks.

        Args:
            user: the user's id.
            op: the operation's id.

        Returns:
            The operation; None if it is unknown.
        """

    async def cancel(self, user: UserId, op: str) -> OperationInfo | None:
        """Cancel an operation: its queued tasks will not run, and its running tasks receive the
        request.

        Args:
            user: the user's id.
            op: the operation's id.

        Returns:
            The operation; None if it is unknown.
        """


@runtime_checkable
class LeaseStore(Protocol):
    """The leases of all operations, for the lease checker.

    Every method raises ``Unavailable`` or ``Refused``.
    """

    async def due(self, limit: int) -> Sequence[str]:
        """List operations whose leases need a check now, as ``channel operation``, the longest
        overdue first.

        Args:
            limit: maximum number of operations.

        Returns:
            The operations.
        """

    async def server_ms(self) -> int:
        """Return the time by which leases expire, in milliseconds since 1970."""

    async def expire_leases(self, member: str) -> LeaseExpiry:
        """Check the leases of one operation, and set the time of its next check.

        Args:
            member: the operation, as ``channel operation``.

        Returns:
            The result of the check.
        """
