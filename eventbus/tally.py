"""Counting an operation: leaves of a canvas published and ended, each once, in whatever order one hears of them.

``advance.lua`` does the same atomically in Redis; the contract tests hold the two against each other.

A leaf is one task of the canvas. It is *planned* if the canvas named it at the start, else *dynamic* and raises the
total; a *hidden* one (Celery's own ``celery.*`` tasks, the starter itself) keeps the operation open but is not counted.
The operation has ended when everything that was published has ended. Publication may be heard of after the end
of the same leaf, since two processes tell of them; so both are remembered. Whatever has started has been published,
even if the publisher died before it could tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = ["Counts", "Mark", "MarkKind", "OperationState", "Tally", "Told"]

MarkKind = Literal["plan", "published", "started", "done", "failed"]
OperationState = Literal["queued", "running", "succeeded", "failed"]
Told = Literal["started", "progress", "succeeded", "failed"]


_RUNNING: Final = ("started", "done", "failed")


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened to a leaf.

    Attributes:
        kind: ``plan`` sets how many planned leaves there are (``planned`` is then the number).
        leaf: the leaf's key; the same leaf is counted once.
        planned: whether the canvas named this leaf at the start: 1 or 0.
        hidden: not counted in the total.
    """

    kind: MarkKind
    leaf: str = ""
    planned: int = 0
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Counts:
    """Where an operation stands. ``done`` + ``failed`` <= ``total``; equal when it has succeeded."""

    state: OperationState
    done: int
    failed: int
    total: int


@dataclass(slots=True)
class Tally:
    """State of one operation, fed with marks."""

    state: OperationState = "queued"
    planned: int = 0
    dynamic: int = 0
    done: int = 0
    failed: int = 0
    open: int = 0
    early: int = 0
    opened: bool = False
    leaves: dict[str, str] = field(default_factory=dict)

    def counts(self) -> Counts:
        """The numbers a page sees."""
        return Counts(self.state, self.done, self.failed, max(self.planned + self.dynamic, self.done + self.failed))

    def advance(self, marks: Sequence[Mark]) -> list[tuple[Told, Counts]]:
        """Take marks in; return what is to be told, in order, each with the numbers of its moment."""
        told: list[tuple[Told, Counts]] = []
        if self.state in ("succeeded", "failed"):
            return told
        before = self.counts()
        for mark in marks:
            self._take(mark)
        if self.state == "queued" and any(mark.kind in _RUNNING and not mark.hidden for mark in marks):
            self.state = "running"
            told.append(("started", self.counts()))
        ended = self.opened and self.open == 0 and self.early == 0
        if ended:
            self.state = "failed" if self.failed else "succeeded"
            if self.state == "succeeded":
                # A plan may name leaves that a callback or an Ignore made superfluous: the end is the truth.
                self.planned = self.done - self.dynamic
        after = self.counts()
        if (before.done, before.failed, before.total) != (after.done, after.failed, after.total):
            told.append(("progress", after))
        if self.state == "succeeded":
            told.append(("succeeded", after))
        elif self.state == "failed":
            told.append(("failed", after))
        return told

    def _take(self, mark: Mark) -> None:
        if mark.kind == "plan":
            self.planned = mark.planned
            return
        known = self.leaves.get(mark.leaf)
        if mark.kind in ("published", "started"):
            if known == "e":
                self.leaves[mark.leaf] = "b"
                self.early -= 1
                self.opened = True
            elif known is None:
                self.leaves[mark.leaf] = "p"
                self.open += 1
                self.opened = True
                self._count_dynamic(mark)
        elif mark.kind in ("done", "failed") and known in (None, "p"):
            if known == "p":
                self.leaves[mark.leaf] = "b"
                self.open -= 1
            else:
                self.leaves[mark.leaf] = "e"
                self.early += 1
                self._count_dynamic(mark)
            if not mark.hidden:
                if mark.kind == "done":
                    self.done += 1
                else:
                    self.failed += 1

    def _count_dynamic(self, mark: Mark) -> None:
        if not mark.planned and not mark.hidden:
            self.dynamic += 1
