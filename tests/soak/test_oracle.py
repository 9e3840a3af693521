"""The oracle of the soak finds the faults that it is made for."""

from __future__ import annotations

import pytest

from eventbus.operations.store import OperationInfo
from tests.soak.ledger import Kill, Run
from tests.soak.oracle import LostReport, Truth, faults_of, faults_of_events, has_vanished, truths, unexplained


def info(state, done, failed, total):
    return OperationInfo("ann", "9", "", state, done, failed, total, 1, 1, 1, 10_000, 0)


def run(task, outcome, *, late=False, pid=1, at=1.0, chord=False, parent="", attempt=0, task_key="plan-1"):
    return Run("9", task, late, attempt, pid, at, at + 1 if outcome else 0, outcome, parent, task_key, chord)


def gone(task, attempt=0, *, late=False, at=5.0):
    return LostReport(task, attempt, late, at)


def known(*runs, kills=(), lost=()):
    return truths(runs, kills, {"9": lost}).get("9", Truth())


def faults(state, done, failed, *runs, kills=(), lost=(), planned=2, cancelled=False):
    found = info(state, done, failed, done + failed)
    return faults_of(found, known(*runs, kills=kills, lost=lost), planned=planned, cancelled=cancelled)


DONE = run("a", "done"), run("b", "done", at=3.0)
HEADER_TWICE = run("a", "done", late=True, chord=True), run("a", "done", late=True, chord=True, at=4.0, pid=2)


@pytest.mark.parametrize(
    "found",
    [
        faults("succeeded", 2, 0, DONE[0]),
        faults("succeeded", 2, 0, DONE[0], run("b", "failed")),
        faults("failed", 1, 1, *DONE),
        faults("failed", 1, 1, *DONE, kills=[Kill(1, 4.0)]),
        faults("failed", 1, 1, *DONE, lost=[gone("b")]),
        faults("failed", 1, 1, *DONE, kills=[Kill(2, 4.0)], lost=[gone("b")]),
        faults("failed", 1, 1, *DONE, kills=[Kill(1, 9.0)], lost=[gone("b")]),
        faults("failed", 1, 1, *DONE, kills=[Kill(1, 4.0)], lost=[gone("a")]),
        faults("failed", 1, 1, DONE[0], run("b", "done", late=True, at=3.0), kills=[Kill(1, 4.0)], lost=[gone("b")]),
        faults("failed", 1, 1, DONE[0], lost=[gone("never written")]),
        faults("failed", 1, 1, DONE[0], kills=[Kill(7, 4.5)], lost=[gone("never written", late=True)]),
        faults("failed", 1, 1, DONE[0], run("b", "retry", at=3.0), kills=[Kill(7, 4.5)], lost=[gone("b")]),
        faults("succeeded", 2, 0, *DONE, run("c", "done", at=11.0, parent="b", task_key="x")),
        faults("succeeded", 2, 0, *DONE, run("b", "done", at=5.0), run("c", "done", at=11.0, parent="b"), planned=3),
        faults("succeeded", 1, 0, *DONE, run("b", "done", at=5.0)),
        faults("failed", 1, 0, *HEADER_TWICE),
        faults("failed", 1, 0, *HEADER_TWICE, kills=[Kill(1, 2.5)], planned=1),
        faults("succeeded", 1, 0, *HEADER_TWICE, kills=[Kill(1, 2.5)]),
        faults("cancelled", 1, 0, *DONE),
        faults("succeeded", 1, 0, *DONE, planned=1),
        faults("running", 1, 0, *DONE),
    ],
)
def test_a_fault_is_found(found):
    assert found


@pytest.mark.parametrize(
    "found",
    [
        faults("succeeded", 2, 0, *DONE),
        faults("failed", 1, 1, DONE[0], run("b", "failed")),
        faults("failed", 1, 1, *DONE, kills=[Kill(1, 4.0)], lost=[gone("b")]),
        faults("failed", 1, 1, DONE[0], run("b", "retry", at=3.0), kills=[Kill(1, 4.0)], lost=[gone("b")]),
        faults("failed", 1, 1, DONE[0], run("b", "retry", at=3.0), kills=[Kill(7, 4.5)], lost=[gone("b", 1)]),
        faults(
            "failed",
            1,
            1,
            DONE[0],
            run("b", "done", late=True, chord=True, at=3.0),
            kills=[Kill(1, 4.0)],
            lost=[gone("b")],
        ),
        faults("failed", 1, 1, DONE[0], kills=[Kill(7, 4.5)], lost=[gone("never written")]),
        faults("succeeded", 2, 0, *DONE, run("b", "done", at=5.0), run("c", "done", at=11.0, parent="b", task_key="x")),
        faults(
            "failed",
            1,
            1,
            *DONE,
            run("c", "done", at=11.0, parent="b"),
            kills=[Kill(1, 4.0)],
            lost=[gone("b")],
            planned=3,
        ),
        faults("failed", 1, 0, *HEADER_TWICE, kills=[Kill(1, 2.5)]),
        faults("cancelled", 1, 0, DONE[0], cancelled=True),
    ],
)
def test_a_right_outcome_has_no_fault(found):
    assert not found


@pytest.mark.parametrize(
    ("types", "right"),
    [
        (["queued", "started", "succeeded"], True),
        (["queued", "started", "lost", "resumed", "succeeded"], True),
        (["queued", "started", "succeeded", "succeeded"], False),
        (["queued", "started", "failed", "succeeded"], False),
        (["queued", "started", "succeeded", "resumed"], False),
        (["queued", "started"], False),
    ],
)
def test_an_operation_ends_once_and_emits_nothing_more(types, right):
    assert (not faults_of_events([f"operation.{type_}" for type_ in types], "succeeded")) == right


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_no_task_of_a_succeeded_operation_fails(state):
    types = ["operation.queued", "operation.started", f"operation.{state}", "task.failed"]
    assert bool(faults_of_events(types, state)) == (state == "succeeded")


def test_a_task_runs_twice_because_of_a_kill():
    again = run("b", "done", late=True, at=5.0, pid=2)
    assert unexplained(known(*DONE, again))
    assert unexplained(known(*DONE, again, kills=[Kill(2, 1.0)]))
    assert not unexplained(known(*DONE, again, kills=[Kill(1, 4.0)]))
    child = run("c", "done", at=4.5, parent="b"), run("c", "done", at=6.0, parent="b")
    assert not unexplained(known(*DONE, again, *child, kills=[Kill(1, 4.0)])), (
        "published twice, by a task that ran twice"
    )
    assert not unexplained(known(run("b", "retry"), run("b", "done", attempt=1, at=3.0)))


@pytest.mark.parametrize(
    ("state", "kills", "vanished"),
    [
        ("running", [Kill(1, 4.0, whole=True)], True),
        ("running", [Kill(1, 4.0)], False),
        ("running", [], False),
        ("lost", [Kill(1, 4.0, whole=True)], False),
        ("succeeded", [Kill(1, 4.0, whole=True)], False),
    ],
)
def test_a_message_goes_with_a_whole_worker_only(state, kills, vanished):
    assert has_vanished(info(state, 1, 0, 2), kills) == vanished
