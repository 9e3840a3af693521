"""Compares the outcome of an operation with the ledger. Pure.

Three differences are allowed, and only if the ledger shows the kill that caused them
(docs/explanation/guarantees.md, "Limits"):

- A task that has not failed is reported as failed: its process was killed before it had reported its end.
- A task begins after the end of its operation: it descends from a task that was killed or ran twice.
- An operation waits forever: a whole worker was killed while it ran, and a message was lost with it.
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
    "LostReport",
    "TaskRecord",
    "Truth",
    "after_the_end",
    "faults_of",
    "faults_of_events",
    "has_vanished",
    "totals",
    "truths",
    "unexplained",
]

BUSY: Final = 3.0  # seconds that a process may need, after a task's last line, to report it
NOTICED: Final = 15.0  # seconds from a kill to its report: a lease, a sweep, a busy machine


@dataclass(frozen=True)
class LostReport:
    """One try of a task that is reported as lost with its process, and the second of the report."""

    task: str
    attempt: int
    late: bool
    at: float


@dataclass(frozen=True)
class TaskRecord:
    """One task of an operation, over all its runs.

    Attributes:
        outcome, late, chord, parent: as in ``Run``. began: the first run. named: by the canvas.
        cut: its process was killed. given_up: it is reported as lost, and a kill explains that.
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

        A task that is acknowledged early is not run again. One that is acknowledged late is run until its result is
        stored. Then its chord may still not count it.
        """
        return self.given_up and self.outcome != "failed" and (not self.late or (self.chord and self.outcome == "done"))


@dataclass(frozen=True)
class Truth:
    """The ledger of one operation: tasks by id, and the number of tasks that were killed before their first line."""

    tasks_by_id: Mapping[str, TaskRecord] = field(default_factory=dict)
    unwritten: int = 0

    def count(self, outcome: str) -> int:
        return sum(task.outcome == outcome for task in self.tasks_by_id.values())

    @property
    def excused(self) -> int:
        """Tasks that may be reported as failed though the ledger does not say so."""
        return sum(task.unsure for task in self.tasks_by_id.values()) + self.unwritten

    def has_lost_a_body(self, planned: int) -> bool:
        """Whether a chord may have no body: one run of its header was killed while it had the right to publish it, and
        the other run of the same try went without that.
        """
        named = sum(task.named for task in self.tasks_by_id.values())
        return named < planned and any(task.chord and task.cut and task.twice for task in self.tasks_by_id.values())

    def forebears(self, task: TaskRecord) -> Iterator[TaskRecord]:
        """The task that published it, the task that published that one, and so on."""
        while (found := self.tasks_by_id.get(task.parent)) is not None:
            yield found
            task = found

    def strays(self, task: TaskRecord) -> bool:
        """Whether it may begin after the end: its operation may not know that it was published."""
        return any(each.twice or each.given_up for each in self.forebears(task))


def truths(runs: Iterable[Run], kills: Iterable[Kill], lost: Mapping[str, Sequence[LostReport]]) -> dict[str, Truth]:
    """By operation. ``runs`` in the order in which they began."""
    runs, kills = list(runs), list(kills)
    cut = _cut(runs, kills)
    by_op: defaultdict[str, defaultdict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        by_op[run.op][run.task].append(run)
    return {op: _truth(by_op[op], cut, kills, lost.get(op, ())) for op in {*by_op, *lost}}


def _truth(tasks: Mapping[str, list[Run]], cut: set[Run], kills: Sequence[Kill], lost: Iterable[LostReport]) -> Truth:
    given_up = {report.task for report in lost if _is_borne_out(report, tasks.get(report.task, ()), cut, kills)}
    tasks_by_id = {task: _task(runs, cut, given_up=task in given_up) for task, runs in tasks.items()}
    return Truth(tasks_by_id, len(given_up - set(tasks)))


def _task(runs: Sequence[Run], cut: set[Run], *, given_up: bool) -> TaskRecord:
    first, outcomes = runs[0], {run.outcome for run in runs}
    return TaskRecord(
        outcome=next((outcome for outcome in ("done", "failed", "stopped") if outcome in outcomes), ""),
        late=first.late,
        chord=first.chord,
        parent=first.parent,
        began=first.began,
        named=first.task_key.startswith("plan-"),
        cut=not cut.isdisjoint(runs),
        given_up=given_up,
        twice=len({run.attempt for run in runs}) < len(runs),
    )


def _is_borne_out(report: LostReport, runs: Iterable[Run], cut: set[Run], kills: Iterable[Kill]) -> bool:
    """Whether a kill has hit the try that is reported as lost, or may have hit it before its first line."""
    tried = [run for run in runs if run.attempt == report.attempt]
    if tried:
        return not cut.isdisjoint(tried)
    return not report.late and any(report.at - NOTICED < kill.at < report.at for kill in kills)


def _cut(runs: Sequence[Run], kills: Iterable[Kill]) -> set[Run]:
    """Runs without an end, and the last runs of processes that may have been killed while they were reporting."""
    found = {run for run in runs if not run.outcome}
    of_process: defaultdict[int, list[Run]] = defaultdict(list)
    for run in runs:
        of_process[run.pid].append(run)
    for kill in kills:
        # The kill is recorded just before it happens. A task that began in between may have been hit instead.
        before = [run for run in of_process[kill.pid] if run.began <= kill.at]
        after = [run for run in of_process[kill.pid] if kill.at < run.began < kill.at + BUSY]
        found.update(run for run in before[-1:] + after[:1] if run.ended > kill.at - BUSY)
    return found


def unexplained(truth: Truth) -> list[TaskRecord]:
    """Tasks that ran twice without a kill that explains it. Only valid if no message is redelivered by hand or time."""
    twice = (task for task in truth.tasks_by_id.values() if task.twice)
    return [task for task in twice if not (task.cut or any(each.cut for each in truth.forebears(task)))]


def has_vanished(info: OperationInfo | None, kills: Iterable[Kill]) -> bool:
    """Whether nothing of an operation runs or is lost, and it waits: a message of it is gone with a whole worker.

    That happens if the message had been acknowledged, or not yet been recorded, when a worker was killed, and no event
    of the task had reached Redis. No process can know (docs/explanation/guarantees.md).
    """
    if info is None or info.state != "running" or info.tasks:
        return False
    return any(kill.whole and kill.at * 1000 > info.queued for kill in kills)


def faults_of(info: OperationInfo | None, truth: Truth, *, planned: int, cancelled: bool) -> list[str]:
    """Wrong facts of an operation. ``cancelled``: it was cancelled."""
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
    if info.state == "cancelled" and not cancelled:
        faults.append("cancelled, without a request")
    if info.state != "failed" and failed and not cancelled:
        faults.append(f"{info.state}, though {failed} have failed")
    if info.state != "cancelled":
        faults += _faults_of_counts(info, truth)
    return [f"{fault}: {info}" for fault in faults]


def _faults_of_counts(info: OperationInfo, truth: Truth) -> list[str]:
    done, failed, excused = truth.count("done"), truth.count("failed"), truth.excused
    late = [task for task in truth.tasks_by_id.values() if task.began * 1000 > info.ended]
    faults = [f"began after the end: {task}" for task in late if not truth.strays(task)]
    if info.state == "succeeded":
        faults += [f"succeeded without a task that its canvas names: {task}" for task in late if task.named]
    if not done - excused - len(late) <= info.done <= done:
        faults.append(f"counts {info.done} done, the ledger {done}, {excused} unsure and {len(late)} after the end")
    if not failed - len(late) <= info.failed <= failed + excused:
        faults.append(
            f"counts {info.failed} failed, the ledger {failed}, {excused} unsure and {len(late)} after the end"
        )
    return faults


def faults_of_events(types: Sequence[str], state: str) -> list[str]:
    """``types``: types of the events of one operation, in the order of its channel, progress left out."""
    of_operation = [type_.removeprefix("operation.") for type_ in types if type_.startswith("operation.")]
    ends = [state for state in of_operation if state in ENDED]
    faults = []
    if state not in ENDED and not ends:
        return []  # an operation that hangs is reported elsewhere
    if ends != [state]:
        faults.append(f"ended as {ends}, and is {state}")
    elif of_operation[-1] != state:
        faults.append(f"events {of_operation} after its end")
    if of_operation[:1] != ["queued"] or of_operation.count("queued") > 1 or of_operation.count("started") > 1:
        faults.append(f"began as {of_operation}")
    if state == "succeeded" and "task.failed" in types:
        faults.append("has a failed task")
    if any(pair in {("lost", "lost"), ("resumed", "resumed")} for pair in pairwise(of_operation)):
        faults.append(f"repeats itself: {of_operation}")
    return faults


def after_the_end(types: Sequence[str], state: str) -> list[str]:
    """Events about tasks that followed the end of their operation."""
    end = f"operation.{state}"
    return list(types[types.index(end) + 1 :]) if end in types else []


def totals(found: Mapping[str, OperationInfo | None]) -> dict[str, int]:
    """The number of operations in each state."""
    counts: defaultdict[str, int] = defaultdict(int)
    for info in found.values():
        counts["unknown" if info is None else info.state] += 1
    return dict(counts)
