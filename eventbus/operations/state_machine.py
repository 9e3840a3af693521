"""Counting an operation: leaves of a canvas published, run and ended, each once, in whatever order one hears of them.

``_operation.lua`` and its verbs do the same atomically in Redis; the contract tests hold the two against each other.

A leaf is one task of the canvas. It is *planned* if the canvas named it at the start, else *dynamic* and raises the
total; a *hidden* one (Celery's own ``celery.*`` tasks, the starter itself) keeps the operation open but is not counted.
The operation has ended when everything that was published has ended. Publication may be heard of after the end
of the same leaf, since two processes tell of them; so both are remembered. Whatever has started has been published,
even if the publisher died before it could tell.

A leaf that runs has a *lease*, which its worker renews. If it lapses, the worker is gone: the leaf is *lost* where its
message will come again (it is acknowledged late), and has failed where it will not. A cancelled operation ends as soon
as nothing of it runs: what is still queued will not.

What follows a task is published by its run, before that has ended; but a chord's body by one run only. A message
that came twice runs twice, and the run that ends first may be the other one. So where leaves of a chord are done, and
the plan names more than was heard of, the rest is *awaited* for as long as a lease. What does not come then will not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from eventbus.operations.state import ENDED, Counts, OperationEvent, OperationState, TaskTransition

__all__ = ["OperationStateMachine"]

# What is told when a state is entered; of ``running`` only after ``lost``.
_WORD_OF: Final[Mapping[OperationState, tuple[OperationEvent]]] = {
    "lost": ("lost",),
    "cancelling": ("cancelling",),
    "succeeded": ("succeeded",),
    "failed": ("failed",),
    "cancelled": ("cancelled",),
}
_DONE: Final = ("done", "joined", "ignored")
_RUNNING: Final = ("started", *_DONE, "failed", "revoked")
# Among the leases, for what is awaited. No leaf is called so.
_AWAITED: Final = ""
_GONE: Final = '"error":"WorkerLost: the worker that ran this task is gone"'


@dataclass(slots=True)
class OperationStateMachine:
    """State of one operation, fed with marks. Times are milliseconds since 1970, 0 for never.

    Attributes:
        leaves: key -> one letter, as in ``_operation.lua``: p published, r runs, R runs and would come again, l lost,
            e ended before its publication was heard of, b both.
        leases: key -> when to look at it; under the empty key: until when something is awaited.
        about: key -> the task that runs.
        running, lost: how many leaves are ``r`` or ``R``, and ``l``.
        awaits: for how long a chord's body is awaited. ignored: whether a leaf has ended so.
        failures: members of the ``task.failed`` that are to be told, since they were last taken.
    """

    state: OperationState = "queued"
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
        """The numbers a page sees."""
        return Counts(self.state, self.done, self.failed, max(self.planned + self.dynamic, self.done + self.failed))

    def apply(self, transitions: Sequence[TaskTransition], now: int = 0) -> list[tuple[OperationEvent, Counts]]:
        """Take marks in; return what is to be told, in order, each with the numbers of its moment."""
        if self.state in ENDED:
            return []
        before = self.counts()
        for transition in transitions:
            self._take(transition, now)
        begun = any(transition.kind in _RUNNING and not transition.internal for transition in transitions)
        return self._settle(before, now, begun=begun)

    def cancel(self, now: int) -> list[tuple[OperationEvent, Counts]]:
        """Somebody wants it stopped."""
        if self.state in ENDED:
            return []
        before = self.counts()
        self.cancelled = self.cancelled or now
        return self._settle(before, now)

    def expire_leases(self, now: int, patience: int) -> list[tuple[OperationEvent, Counts]]:
        """Look at the leases. A lost leaf that has not come again within ``patience`` milliseconds has failed."""
        if self.state in ENDED:
            return []
        before, missing = self.counts(), False
        for task in sorted((task for task, until in self.leases.items() if until <= now), key=self.leases.__getitem__):
            if task == _AWAITED:
                missing = True
            elif self.tasks[task] == "R":
                self.tasks[task] = "l"
                self.running -= 1
                self.lost += 1
                self.leases[task] = now + patience
            else:
                task_json = self.task_json.get(task, "")
                self._end(TaskTransition("failed", task, task_json=task_json and f"{task_json},{_GONE}"))
        return self._settle(before, now, missing=missing)

    @property
    def next_check(self) -> int:
        """When to look at the leases next; 0: there are none."""
        return min(self.leases.values(), default=0)

    # --- what a mark does ------------------------------------------------------------------------------------

    def _take(self, transition: TaskTransition, now: int) -> None:
        match transition.kind:
            case "plan":
                self.planned = transition.planned
            case "published":
                self._publish(transition)
            case "started":
                self._publish(transition)
                self._start(transition, now)
            case "released":
                self._release(transition.task)
            case _:
                self._end(transition)

    def _publish(self, transition: TaskTransition) -> None:
        known = self.tasks.get(transition.task)
        if known == "e":
            self.tasks[transition.task] = "b"
            self.early -= 1
            self.opened = True
        elif known is None:
            self.tasks[transition.task] = "p"
            self.open += 1
            self.opened = True
            self._count_dynamic(transition)

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

    def _release(self, task: str) -> None:
        known = self.tasks.get(task)
        if known in ("r", "R", "l"):
            self._stop(task, known)
            self.tasks[task] = "p"

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
        if transition.kind in _DONE:
            self.done += 1
            self.ignored = self.ignored or transition.kind == "ignored"
            if transition.kind == "joined":
                self.awaits = max(self.awaits, transition.lease)
        elif transition.kind == "failed" or not self.cancelled:
            # What a person has cancelled has not failed; what expired, or was revoked for another reason, has.
            self.failed += 1

    def _count_dynamic(self, transition: TaskTransition) -> None:
        if not transition.planned and not transition.internal:
            self.dynamic += 1

    # --- what follows ----------------------------------------------------------------------------------------

    def _settle(
        self, before: Counts, now: int, *, begun: bool = False, missing: bool = False
    ) -> list[tuple[OperationEvent, Counts]]:
        told: list[tuple[OperationEvent, Counts]] = []
        self.queued = self.queued or now
        self.heard = now
        if self.state == "queued" and begun:
            self.state = "running"
            self.started = now
            told.append(("started", self.counts()))
        former, self.state = self.state, self._next(missing=missing)
        if self.state == "succeeded":
            # A plan may name leaves that a callback or an Ignore made superfluous: the end is the truth.
            self.planned = self.done - self.dynamic
        if self.state in ENDED:
            self.ended = now
            self.leases.clear()
        elif self._over and not self.failed:
            self.leases.setdefault(_AWAITED, now + self.awaits)
        else:
            self.leases.pop(_AWAITED, None)
        after = self.counts()
        if (before.done, before.failed, before.total) != (after.done, after.failed, after.total):
            told.append(("progress", after))
        if self.state == "running" and former == "lost":
            told.append(("resumed", after))
        elif self.state != former:
            told += [(word, after) for word in _WORD_OF.get(self.state, ())]
        return told

    @property
    def _over(self) -> bool:
        """Whether everything that was published has ended."""
        return self.opened and self.open == 0 and self.early == 0

    def _next(self, *, missing: bool = False) -> OperationState:
        well, whole = self._over and not self.failed, self.done >= self.planned + self.dynamic
        awaits = self.awaits > 0 and not self.ignored
        if well and (whole or not (self.cancelled or awaits)):
            return "succeeded"  # also if somebody wanted it stopped: it was too late for that
        if self.cancelled:
            return "cancelled" if self._over or not self.running else "cancelling"
        if self._over and (self.failed or missing):
            return "failed"
        if self.lost:
            return "lost"
        return "queued" if self.state == "queued" else "running"
