"""The states of an operation, and what can happen to its tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "ENDED",
    "Counts",
    "OperationEvent",
    "OperationState",
    "TaskTransition",
    "TransitionKind",
]

TransitionKind = Literal["plan", "published", "started", "released", "done", "joined", "ignored", "failed", "revoked"]
OperationState = Literal["queued", "running", "lost", "cancelling", "succeeded", "failed", "cancelled"]
OperationEvent = Literal["started", "progress", "lost", "resumed", "cancelling", "succeeded", "failed", "cancelled"]

ENDED: Final = frozenset({"succeeded", "failed", "cancelled"})
"""States that nothing leads out of."""


@dataclass(frozen=True, slots=True)
class TaskTransition:
    """Something that happened to a leaf.

    Attributes:
        kind: ``plan`` sets how many planned leaves there are (``planned`` is then the number); ``released`` ends a run
            that is not the leaf's end (a retry, a message given back); ``joined`` is done, and a chord waits for it;
            ``ignored`` is done, and what the canvas has after it may not come; ``revoked`` ends a leaf that is not to
            run.
        task: the task's key; the same leaf is counted once.
        planned: whether the canvas named this leaf at the start: 1 or 0.
        hidden: not counted in the total.
        lease: of ``started``: milliseconds within which its worker will be heard of again; 0: nobody watches. Of
            ``joined``: for how many the body of its chord is awaited; 0: it is not.
        late: of ``started``: whether the message comes again if the worker vanishes.
        about: of ``started``: the task, as members of a JSON object (``"task":"…","name":"…","retries":0``). Of
            ``failed``: those of a ``task.failed`` that is told with the mark, unless the leaf had ended.
    """

    kind: TransitionKind
    task: str = ""
    planned: int = 0
    internal: bool = False
    lease: int = 0
    acks_late: bool = False
    task_json: str = ""


@dataclass(frozen=True, slots=True)
class Counts:
    """Where an operation stands. ``done`` + ``failed`` <= ``total``; equal when it has succeeded."""

    state: OperationState
    done: int
    failed: int
    total: int
