"""What must have become of an operation, by the ledger. Pure.

Three things may differ from the ledger, and only where it shows the kill that they come from
(docs/explanation/guarantees.md, "Limits"):

- a task is told to have failed that has not: its process was killed before all of it was told;
- a task begins after the end of its operation: it descends from one that was killed, or ran twice;
- an operation waits for ever: a whole worker was killed while it ran, and took a message along.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from eventbus.operations.state import ENDED
from eventbus.operations.store import OperationInfo
from tests.soak.ledger import Kill, Run

__all__ = [
    "Lost",
    "TaskKey",
    "Truth",
    "after_the_end",
    "faults_of",
    "faults_of_words",
    "has_vanished",
    "totals",
    "truths",
    "unexplained",
]

BUSY: Final = 3.0  # seconds that a process may take, after a task's last line, to tell of it
NOTICED: Final = 15.0  # seconds from a kill to the word about it: a lease, a sweep, a busy machine


@dataclass(frozen=True)
class Lost:
    """One try of a task that is told to have gone with its process, and the second in which it is."""

    task: str
    attempt: int
    late: bool
    at: float


@dataclass(frozen=True)
class TaskKey:
    """One task of an operation, over all its runs.

    Attributes:
        outcome, late, chord, parent: as in ``Run``. began: the first run. named: by the canvas.
        cut: a process was killed at it. given_up: told to be lost, where a kill bears that out.
        twice: the same try ran more than once.
    """

    outcome: str
    late: bool
    chord: bool = False
    parent: str = ""
    began: float = 0.0
    named: bool = True
    cut: bool = False
    given_up: bool = False
    twice: bool = False

    @property
    def unsure(self) -> bool:
        """Whether it may count as failed though the ledger does not say so.

        Nobody runs again what is acknowledged early. What is acknowledged late is run until its result is stored; but
        then its chord may not have heard of it.
        """
        return self.given_up and self.outcome != "failed" and (not self.late or (self.chord and self.outcome == "done"))


@dataclass(frozen=True)
class Truth:
    """What the ledger knows of one operation: tasks by id, and how many were killed before they had written a line."""

    leaves: Mapping[str, TaskKey] = field(default_factory=dict)
    unwritten: int = 0

    def count(self, outcome: str) -> int:
        return sum(leaf.outcome == outcome for leaf in self.leaves.values())

    @property
    def excused(self) -> int:
        """Leaves that are rightly told to have failed, though the ledger does not say so."""
        return sum(leaf.unsure for leaf in self.leaves.values()) + self.unwritten

    def has_lost_a_body(self, planned: int) -> bool:
        """Whether a chord may have no body: one run of its header was killed while it had the right to publish it, and
        the other run of the same try went without that.
        """
        named = sum(leaf.named for leaf in self.leaves.values())
        return named < planned and any(leaf.chord and leaf.cut and leaf.twice for leaf in self.leaves.values())

    def forebears(self, leaf: TaskKey) -> Iterator[TaskKey]:
        """Who published it, who published that, and so on."""
        while (found := self.leaves.get(leaf.parent)) is not None:
            yield found
            leaf = found

    def strays(self, leaf: TaskKey) -> bool:
        """Whether it may begin after the end: its operation may not have heard that it was published."""
        return any(each.twice or each.given_up for each in self.forebears(leaf))


def truths(runs: Iterable[Run], kills: Iterable[Kill], lost: Mapping[str, Sequence[Lost]]) -> dict[str, Truth]:
    """By operation. ``runs`` in the order in which they began."""
    runs, kills = list(runs), list(kills)
    cut = _cut(runs, kills)
    by_op: defaultdict[str, defaultdict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        by_op[run.op][run.task].append(run)
    return {op: _truth(by_op[op], cut, kills, lost.get(op, ())) for op in {*by_op, *lost}}


def _truth(tasks: Mapping[str, list[Run]], cut: set[Run], kills: Sequence[Kill], lost: Iterable[Lost]) -> Truth:
    given_up = {word.task for word in lost if _is_borne_out(word, tasks.get(word.task, ()), cut, kills)}
    leaves = {task: _leaf(runs, cut, given_up=task in given_up) for task, runs in tasks.items()}
    return Truth(leaves, len(given_up - set(tasks)))


def _leaf(runs: Sequence[Run], cut: set[Run], *, given_up: bool) -> TaskKey:
    first, outcomes = runs[0], {run.outcome for run in runs}
    return TaskKey(
        outcome=next((word for word in ("done", "failed", "stopped") if word in outcomes), ""),
        late=first.late,
        chord=first.chord,
        parent=first.parent,
        began=first.began,
        named=first.leaf.startswith("plan-"),
        cut=not cut.isdisjoint(runs),
        given_up=given_up,
        twice=len({run.attempt for run in runs}) < len(runs),
    )


def _is_borne_out(word: Lost, runs: Iterable[Run], cut: set[Run], kills: Iterable[Kill]) -> bool:
    """Whether a kill has hit just the try that is told to be lost, or may have before it had written a line."""
    tried = [run for run in runs if run.attempt == word.attempt]
    if tried:
        return not cut.isdisjoint(tried)
    return not word.late and any(word.at - NOTICED < kill.at < word.at for kill in kills)


def _cut(runs: Sequence[Run], kills: Iterable[Kill]) -> set[Run]:
    """Runs without an end, and those that were the last of a process that was killed when it may have been telling."""
    found = {run for run in runs if not run.outcome}
    of_process: defaultdict[int, list[Run]] = defaultdict(list)
    for run in runs:
        of_process[run.pid].append(run)
    for kill in kills:
        # The note is made just before the blow: what began in between may have been hit instead.
        before = [run for run in of_process[kill.pid] if run.began <= kill.at]
        after = [run for run in of_process[kill.pid] if kill.at < run.began < kill.at + BUSY]
        found.update(run for run in before[-1:] + after[:1] if run.ended > kill.at - BUSY)
    return found


def unexplained(truth: Truth) -> list[TaskKey]:
    """Tasks that ran twice without a kill that tells why. Only where no message is given back by hand, or by time."""
    twice = (leaf for leaf in truth.leaves.values() if leaf.twice)
    return [leaf for leaf in twice if not (leaf.cut or any(each.cut for each in truth.forebears(leaf)))]


def has_vanished(info: OperationInfo | None, kills: Iterable[Kill]) -> bool:
    """Whether nothing of an operation runs or is lost, and it waits: a message of it is gone with a whole worker.

    That is so where the message had been acknowledged, or not yet been noted, when a worker was killed, and no word
    of the task had reached Redis. Nobody can know (docs/explanation/guarantees.md).
    """
    if info is None or info.state != "running" or info.tasks:
        return False
    return any(kill.whole and kill.at * 1000 > info.queued for kill in kills)


def faults_of(info: OperationInfo | None, truth: Truth, *, planned: int, pressed: bool) -> list[str]:
    """What an operation says that is not so. ``pressed``: somebody cancelled it."""
    if info is None:
        return ["is not known"]
    if info.state not in ENDED:
        return [f"hangs: {info}"]
    faults = []
    done, failed = truth.count("done"), truth.count("failed")
    if info.state == "succeeded" and (done < planned or failed or info.done != info.total):
        faults.append(f"succeeded, with {done} of {planned} done and {failed} failed in the ledger")
    if info.state == "failed" and not (failed or truth.excused or truth.has_lost_a_body(planned)):
        faults.append("failed, for no reason")
    if info.state == "cancelled" and not pressed:
        faults.append("cancelled, by nobody")
    if info.state != "failed" and failed and not pressed:
        faults.append(f"{info.state}, though {failed} have failed")
    if info.state != "cancelled":
        faults += _faults_of_counts(info, truth)
    return [f"{fault}: {info}" for fault in faults]


def _faults_of_counts(info: OperationInfo, truth: Truth) -> list[str]:
    done, failed, excused = truth.count("done"), truth.count("failed"), truth.excused
    late = [leaf for leaf in truth.leaves.values() if leaf.began * 1000 > info.ended]
    faults = [f"began after the end: {leaf}" for leaf in late if not truth.strays(leaf)]
    if info.state == "succeeded":
        faults += [f"succeeded without a leaf that its canvas names: {leaf}" for leaf in late if leaf.named]
    if not done - excused - len(late) <= info.done <= done:
        faults.append(f"counts {info.done} done, the ledger {done}, {excused} unsure and {len(late)} after the end")
    if not failed - len(late) <= info.failed <= failed + excused:
        faults.append(
            f"counts {info.failed} failed, the ledger {failed}, {excused} unsure and {len(late)} after the end"
        )
    return faults


def faults_of_words(words: Sequence[str], state: str) -> list[str]:
    """``words``: types of the events of one operation, in the order of its channel, progress left out."""
    of_operation = [word.removeprefix("operation.") for word in words if word.startswith("operation.")]
    ends = [word for word in of_operation if word in ENDED]
    faults = []
    if state not in ENDED and not ends:
        return []  # whether it hangs, or may, is said elsewhere
    if ends != [state]:
        faults.append(f"ended as {ends}, and is {state}")
    elif of_operation[-1] != state:
        faults.append(f"said {of_operation} after its end")
    if of_operation[:1] != ["queued"] or of_operation.count("queued") > 1 or of_operation.count("started") > 1:
        faults.append(f"began as {of_operation}")
    if state == "succeeded" and "task.failed" in words:
        faults.append("says of a task that it has failed")
    if any(pair in {("lost", "lost"), ("resumed", "resumed")} for pair in pairwise(of_operation)):
        faults.append(f"repeats itself: {of_operation}")
    return faults


def after_the_end(words: Sequence[str], state: str) -> list[str]:
    """Words about tasks that came after the end of their operation."""
    end = f"operation.{state}"
    return list(words[words.index(end) + 1 :]) if end in words else []


def totals(found: Mapping[str, OperationInfo | None]) -> dict[str, int]:
    """How many operations there are of each state."""
    counts: defaultdict[str, int] = defaultdict(int)
    for info in found.values():
        counts["unknown" if info is None else info.state] += 1
    return dict(counts)
