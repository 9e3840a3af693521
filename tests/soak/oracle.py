"""What must have become of an operation, by the ledger. Pure.

A task that wrote ``done`` may still have been killed before Celery and its operation knew: such a leaf is *unsure*. One
whose message comes again (late acknowledgement) is not excused by that: it is run until it has ended.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from eventbus.operations import OperationInfo
from eventbus.tally import ENDED
from tests.soak.ledger import Kill, Run

__all__ = ["Leaf", "Truth", "after_the_end", "faults_of", "faults_of_words", "has_vanished", "totals", "truths"]


@dataclass(frozen=True)
class Leaf:
    """One task of an operation, over all its runs, the first of which ``began`` then.

    ``cut``: some run of it may have been killed before it was told. ``given_up``: its operation says that it was.
    """

    outcome: str
    late: bool
    cut: bool
    began: float = 0.0
    given_up: bool = False


@dataclass(frozen=True)
class Truth:
    """What the ledger knows of one operation. ``unwritten``: tasks that were killed before they had written a line."""

    leaves: Sequence[Leaf] = ()
    unwritten: int = 0

    def count(self, outcome: str) -> int:
        return sum(leaf.outcome == outcome for leaf in self.leaves)

    @property
    def excused(self) -> int:
        """Leaves that are rightly told to have failed, though the ledger does not say so."""
        # What had succeeded does not come again, whatever it is acknowledged by; its chord may not have heard of it.
        excused = (leaf.cut and leaf.outcome != "failed" and (not leaf.late or leaf.given_up) for leaf in self.leaves)
        cut = sum(excused)
        return cut + self.unwritten


def truths(runs: Iterable[Run], kills: Iterable[Kill], lost: Mapping[str, set[str]]) -> dict[str, Truth]:
    """By operation. ``runs`` in the order in which they began; ``lost``: tasks that are told to have been killed."""
    runs = list(runs)
    cut = _cut(runs, kills)
    by_task: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for number, run in enumerate(runs):
        by_task[run.op, run.task].append(number)
    by_op: defaultdict[str, list[Leaf]] = defaultdict(list)
    for (op, task), numbers in by_task.items():
        outcomes = {runs[number].outcome for number in numbers}
        outcome = next((word for word in ("done", "failed", "stopped") if word in outcomes), "")
        first = runs[numbers[0]]
        is_cut = any(number in cut for number in numbers)
        by_op[op].append(Leaf(outcome, first.late, is_cut, first.began, task in lost[op]))
    tasks: defaultdict[str, set[str]] = defaultdict(set)
    for op, task in by_task:
        tasks[op].add(task)
    return {op: Truth(by_op[op], len(lost[op] - tasks[op])) for op in {*by_op, *lost}}


def _cut(runs: Sequence[Run], kills: Iterable[Kill]) -> set[int]:
    """Runs without an end, and those that were the last of a process that was killed."""
    found = {number for number, run in enumerate(runs) if not run.outcome}
    of_process: defaultdict[int, list[int]] = defaultdict(list)
    for number, run in enumerate(runs):
        of_process[run.pid].append(number)
    for kill in kills:
        before = [number for number in of_process[kill.pid] if runs[number].began <= kill.at]
        after = [number for number in of_process[kill.pid] if runs[number].began > kill.at]
        # The note is made just before the blow: what began in between may have been hit instead.
        found.update(before[-1:] + after[:1])
    return found


def has_vanished(info: OperationInfo | None) -> bool:
    """Whether nothing of an operation runs or is lost, and it waits: a message of it is gone with a whole worker.

    That is so where the message had been acknowledged, or not yet been noted, when the worker was killed, and no word
    of the task had reached Redis. Nobody can know (docs/GUARANTEES.md).
    """
    return info is not None and info.state == "running" and not info.tasks


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
    if info.state == "failed" and not failed and not truth.excused:
        faults.append("failed, for no reason")
    if info.state == "cancelled" and not pressed:
        faults.append("cancelled, by nobody")
    if info.state != "failed" and failed and not pressed:
        faults.append(f"{info.state}, though {failed} have failed")
    # A task that was killed between sending a message and telling so may have ended its operation without it.
    unheard = sum(leaf.began * 1000 > info.ended for leaf in truth.leaves) if truth.excused else 0
    if not done - truth.excused - unheard <= info.done <= done and info.state != "cancelled":
        faults.append(f"counts {info.done} done, the ledger {done}, {truth.excused} of them unsure")
    if not failed - unheard <= info.failed <= failed + truth.excused and info.state != "cancelled":
        faults.append(f"counts {info.failed} failed, the ledger {failed} and {truth.excused} unsure")
    return [f"{fault}: {info}" for fault in faults]


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
