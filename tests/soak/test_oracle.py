"""The soak's oracle sees what it is there to see."""

from __future__ import annotations

import pytest

from eventbus.operations import OperationInfo
from tests.soak.ledger import Kill, Run
from tests.soak.oracle import Truth, faults_of, faults_of_words, truths


def info(state, done, failed, total):
    return OperationInfo("ann", "9", "", state, done, failed, total, 1, 1, 1, 1, 0)


def run(task, outcome, *, late=False, pid=1, at=1.0):
    return Run("9", task, late, 0, pid, at, at + 1 if outcome else 0, outcome)


def faults(state, done, failed, *runs, kills=(), lost=(), planned=2, pressed=False):
    truth = truths(runs, kills, {"9": set(lost)}).get("9", Truth())
    return faults_of(info(state, done, failed, done + failed), truth, planned=planned, pressed=pressed)


DONE = run("a", "done"), run("b", "done", at=3.0)


@pytest.mark.parametrize(
    "found",
    [
        faults("succeeded", 2, 0, DONE[0]),
        faults("succeeded", 2, 0, DONE[0], run("b", "failed")),
        faults("failed", 1, 1, *DONE),
        faults("failed", 1, 1, DONE[0], run("b", "done", late=True, at=3.0), kills=[Kill(1, 4.0)]),
        faults("cancelled", 1, 0, *DONE),
        faults("succeeded", 1, 0, *DONE, planned=1),
        faults("running", 1, 0, *DONE),
    ],
)
def test_what_is_not_so_is_found(found):
    assert found


@pytest.mark.parametrize(
    "found",
    [
        faults("succeeded", 2, 0, *DONE),
        faults("failed", 1, 1, DONE[0], run("b", "failed")),
        faults("failed", 1, 1, *DONE, kills=[Kill(1, 4.0)]),
        faults("failed", 1, 1, DONE[0], lost=["never written"]),
        faults("cancelled", 1, 0, DONE[0], pressed=True),
    ],
)
def test_what_is_so_is_left_alone(found):
    assert not found


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (["queued", "started", "succeeded"], True),
        (["queued", "started", "lost", "resumed", "succeeded"], True),
        (["queued", "started", "succeeded", "succeeded"], False),
        (["queued", "started", "failed", "succeeded"], False),
        (["queued", "started", "succeeded", "resumed"], False),
        (["queued", "started"], False),
    ],
)
def test_an_operation_ends_once_and_says_nothing_more(words, right):
    assert (not faults_of_words([f"operation.{word}" for word in words], "succeeded")) == right
