"""The data of one operation, which Redis keeps as a hash of counts, a hash of tasks and a set of
leases.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from eventbus.operations.state import Counts, OperationState, shown_done

__all__ = ["OperationFields"]


@dataclass(slots=True)
class OperationFields:
    """The data of one operation. Times are milliseconds since 1970, 0 for never.

    Attributes:
        state: the operation's state.
        planned: tasks that the canvas names.
        dynamic: further tasks.
        done: tasks that ended well.
        failed: tasks that failed.
        open: published tasks that have not ended.
        early: tasks that ended before their publication was reported.
        opened: whether a publication was reported.
        cancelled: time of the cancellation.
        queued: time of the first report.
        started: time at which the first task began.
        heard: time of the last report.
        ended: time of the end.
        tasks: key -> one character, as in ``_operation.lua``: p published, r running, R running
            with late acknowledgement, l lost, e ended before its publication was reported, b both.
        patience: milliseconds that the operation may be silent; 0: any time.
        due: time until which a published task may be silent (countdown).
        leases: key -> end of the lease; under the empty key: end of the wait for tasks of the plan;
            under ``SILENCE``: end of the silence.
        task_json: key -> the published or running task as members of a JSON object.
        running: tasks that are ``r`` or ``R``.
        lost: tasks that are ``l``.
        awaits: milliseconds to wait for a chord's body.
        ignored: whether a task has ended with ``ignored``.
        failures: members of ``task.failed`` events to publish; the caller empties it.
    """

    state: OperationState = "queued"
    patience: int = 0
    due: int = 0
    planned: int = 0
    dynamic: int = 0
    done: int = 0
    failed: int = 0
    open: int = 0
    early: int = 0
    opened: bool = False
    running: int = 0
    lost: int = 0
    awaits: int = 0
    ignored: bool = False
    cancelled: int = 0
    queued: int = 0
    started: int = 0
    heard: int = 0
    ended: int = 0
    tasks: dict[str, str] = field(default_factory=dict)
    leases: dict[str, int] = field(default_factory=dict)
    task_json: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def counts(self) -> Counts:
        """Return the numbers that clients see."""
        total = max(self.planned + self.dynamic, self.done + self.failed)
        return Counts(self.state, shown_done(self.state, self.done, total), self.failed, total)
