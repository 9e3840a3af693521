"""The state machine of an operation: it counts each task of a canvas once, in any order of the
reports.

``_operation.lua`` and its verbs do the same atomically in Redis. A property test feeds both with
the same transitions.

A task is *planned* if the canvas named it at the start, else *dynamic*: it raises the total. An
*internal* task (Celery's ``celery.*`` tasks, the starter) keeps the operation open, but the total
does not count it. The operation has ended when all published tasks have ended. Two processes report
the publication and the end of a task, so the end may come first; the machine remembers both. A
started task counts as published even if its publisher died before the report.

A running task has a *lease*, which its worker renews. If the lease expires, the worker is gone. The
task is then *lost* if the broker delivers its message again (late acknowledgement), and has failed
if not. A cancelled operation ends as soon as none of its tasks runs: the queued ones will not run.

A task's run publishes the tasks that follow it before it ends. But only one run publishes the body
of a chord. A message that was delivered twice runs twice, and the run that ends first may be the
one that publishes nothing. So if all published tasks are done and the plan names more tasks, the
machine waits for the rest, and then the operation fails. It never succeeds with fewer tasks than
the plan names, unless a task ended with ``ignored``.

An operation with waiting tasks, none of which runs, may be silent for the *patience*. Then its
published tasks have failed: no worker has received them, or no worker reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from eventbus.operations.fields import OperationFields
from eventbus.operations.state import (
    AWAIT_MS,
    DONE,
    ENDED,
    PARTS_MISSING,
    SILENCE,
    TASK_UNREPORTED,
    WORKER_LOST,
    Counts,
    OperationEvent,
    OperationState,
    TaskTransition,
)

__all__ = ["OperationStateMachine"]

# Events of entering a state. ``running`` has one only after ``lost``.
_EVENTS_OF: Final[Mapping[OperationState, tuple[OperationEvent]]] = {
    "lost": ("lost",),
    "cancelling": ("cancelling",),
    "succeeded": ("succeeded",),
    "failed": ("failed",),
    "cancelled": ("cancelled",),
}
_BEGINS: Final = frozenset({"started", *DONE, "failed", "revoked"})
# The key among the leases that ends the wait for tasks of the plan. No task has this key.
_AWAITED: Final = ""


@dataclass(slots=True)
class OperationStateMachine(OperationFields):
    """The state machine of one operation."""

    def apply(self, transitions: Sequence[TaskTransition], now: int = 0) -> list[tuple[OperationEvent, Counts]]:
        """Apply transitions in order.

        Args:
            transitions: what happened to tasks of the operation.
            now: milliseconds since 1970.

        Returns:
            Events to publish, in order, each with the counts at its time.
        """
        if self.state in ENDED:
            return []
        before = self.counts()
        self.heard = now
        for transition in transitions:
            self._apply(transition, now)
        begun = any(transition.kind in _BEGINS and not transition.internal for transition in transitions)
        return self._update(before, now, begun=begun)

    def cancel(self, now: int) -> list[tuple[OperationEvent, Counts]]:
        """Request the operation's end.

        Args:
            now: milliseconds since 1970.

        Returns:
            Events to publish, in order, each with the counts at its time.
        """
        if self.state in ENDED:
            return []
        before = self.counts()
        self.heard = now
        self.cancelled = self.cancelled or now
        return self._update(before, now)

    def expire_leases(self, now: int, patience: int) -> list[tuple[OperationEvent, Counts]]:
        """Check the leases. A lost task that does not restart in time has failed.

        Args:
            now: milliseconds since 1970.
            patience: milliseconds to wait for the restart of a lost task.

        Returns:
            Events to publish, in order, each with the counts at its time.
        """
        if self.state in ENDED:
            return []
        before, missing, silent = self.counts(), False, False
        for task in sorted((task for task, until in self.leases.items() if until <= now), key=self.leases.__getitem__):
            if task == _AWAITED:
                missing = True
            elif task == SILENCE:
                silent = True
            elif self.tasks[task] == "R":
                self.tasks[task] = "l"
                self.running -= 1
                self.lost += 1
                self.leases[task] = now + patience
            else:
                self._fail(task, WORKER_LOST)
        if silent:
            missing = self._end_silence(now) or missing
        return self._update(before, now, missing=missing)

    def _fail(self, task: str, error: str) -> None:
        task_json = self.task_json.get(task, "")
        self._end(TaskTransition("failed", task, task_json=task_json and f'{task_json},"error":"{error}"'))

    def _end_silence(self, now: int) -> bool:
        """End the tasks that no worker has reported in time, or move the end of the silence."""
        deadline = max(self.heard, self.due) + self.patience
        if self.running or self.lost or deadline > now:
            self.leases[SILENCE] = max(deadline, now + self.patience)
            return False
        for task, state in list(self.tasks.items()):
            if state == "p":
                self._fail(task, TASK_UNREPORTED)
            elif state == "e":
                self._publish(TaskTransition("published", task), now)
        return True

    @property
    def next_check(self) -> int:
        """End of the next lease; 0: there is none."""
        return min(self.leases.values(), default=0)

    # --- transitions of a task ---------------------------------------------------------------------------------

    def _apply(self, transition: TaskTransition, now: int) -> None:
        match transition.kind:
            case "plan":
                self.planned = transition.planned
            case "published":
                self._publish(transition, now)
            case "started":
                self._publish(transition, now)
                self._start(transition, now)
            case "released":
                self._release(transition, now)
            case _:
                self._end(transition)

    def _publish(self, transition: TaskTransition, now: int) -> None:
        known = self.tasks.get(transition.task)
        if known == "e":
            self.tasks[transition.task] = "b"
            self.early -= 1
            self.opened = True
        elif known is None:
            self.tasks[transition.task] = "p"
            self.task_json[transition.task] = transition.task_json
            self.open += 1
            self.opened = True
            self._count_dynamic(transition)
            if transition.kind == "published":
                self._set_due(transition, now)

    def _set_due(self, transition: TaskTransition, now: int) -> None:
        if transition.lease:
            self.due = max(self.due, now + transition.lease)

    def _start(self, transition: TaskTransition, now: int) -> None:
        known = self.tasks[transition.task]
        if known == "b":
            return
        self.running += known in "pl"
        self.lost -= known == "l"
        self.tasks[transition.task] = "R" if transition.acks_late else "r"
        self.task_json[transition.task] = transition.task_json
        self.leases.pop(transition.task, None)
        if transition.lease:
            self.leases[transition.task] = now + transition.lease

    def _release(self, transition: TaskTransition, now: int) -> None:
        task, known = transition.task, self.tasks.get(transition.task)
        if known in ("r", "R", "l"):
            task_json = self.task_json.get(task, "")
            self._stop(task, known)
            self.tasks[task], self.task_json[task] = "p", task_json
            self._set_due(transition, now)

    def _stop(self, task: str, known: str) -> None:
        self.running -= known in "rR"
        self.lost -= known == "l"
        self.leases.pop(task, None)
        self.task_json.pop(task, None)

    def _end(self, transition: TaskTransition) -> None:
        known = self.tasks.get(transition.task)
        if known in ("e", "b"):
            return
        if transition.kind == "failed" and transition.task_json:
            self.failures.append(transition.task_json)
        if known is None:
            self.tasks[transition.task] = "e"
            self.early += 1
            self._count_dynamic(transition)
        else:
            self._stop(transition.task, known)
            self.tasks[transition.task] = "b"
            self.open -= 1
        if transition.internal:
            return
        if transition.kind in DONE:
            self.done += 1
            self.ignored = self.ignored or transition.kind == "ignored"
            if transition.kind == "joined":
                self.awaits = max(self.awaits, transition.lease)
        elif transition.kind == "failed" or not self.cancelled:
            # A revoked task of a cancelled operation has not failed. One that expired or was
            # revoked otherwise has.
            self.failed += 1

    def _count_dynamic(self, transition: TaskTransition) -> None:
        if not transition.planned and not transition.internal:
            self.dynamic += 1

    # --- the operation's state ---------------------------------------------------------------------------------

    def _update(
        self, before: Counts, now: int, *, begun: bool = False, missing: bool = False
    ) -> list[tuple[OperationEvent, Counts]]:
        events: list[tuple[OperationEvent, Counts]] = []
        self.queued = self.queued or now
        if self.state == "queued" and begun:
            self.state = "running"
            self.started = now
            events.append(("started", self.counts()))
        former, self.state = self.state, self._next(missing=missing)
        if self.state == "succeeded":
            # The plan may name tasks that a callback or Ignore made unnecessary. The end decides
            # the total.
            self.planned = self.done - self.dynamic
        if self.state == "failed" and not self.failed:
            self.failures.append(f'"task":"","name":"","retries":0,"error":"{PARTS_MISSING}"')
        self._set_deadlines(now)
        after = self.counts()
        # Also for a change of the state alone: the snapshot has only this event, and a new reader
        # must get the present state from it.
        if before != after:
            events.append(("progress", after))
        if self.state == "running" and former == "lost":
            events.append(("resumed", after))
        elif self.state != former:
            events += [(event, after) for event in _EVENTS_OF.get(self.state, ())]
        return events

    def _set_deadlines(self, now: int) -> None:
        if self.state in ENDED:
            self.ended = now
            self.leases.clear()
            return
        if self._all_ended and not self.failed and self._plan_known:
            self.leases.setdefault(_AWAITED, now + (self.awaits or AWAIT_MS))
        else:
            self.leases.pop(_AWAITED, None)
        if self.patience:
            self.leases.setdefault(SILENCE, now + self.patience)

    @property
    def _plan_known(self) -> bool:
        """Whether the plan was reported, or no planned task was."""
        return self.planned > 0 or self.done <= self.dynamic

    @property
    def _all_ended(self) -> bool:
        """Whether all published tasks have ended."""
        return self.opened and self.open == 0 and self.early == 0

    def _next(self, *, missing: bool = False) -> OperationState:
        well = self._all_ended and not self.failed and self._plan_known
        whole = self.done >= self.planned + self.dynamic
        if well and (whole or (self.ignored and not self.cancelled)):
            return "succeeded"  # also after a cancellation that came too late
        if self.cancelled:
            return "cancelled" if self._all_ended or not self.running else "cancelling"
        if self.open == 0 and self.early == 0 and (self.failed or missing):
            return "failed"
        if self.lost:
            return "lost"
        return "queued" if self.state == "queued" else "running"
