"""``progress`` and ``track``."""

import contextlib
import os
import sys

import pytest
from celery.exceptions import Retry, SoftTimeLimitExceeded

from eventbus.operations.events import OperationRef
from tests.worker_adapter import app as a
from tests.worker_adapter.listening import END, SubscriptionListener
from worker_adapter import progress, stages, start_operation, track
from worker_adapter.context.task_context import TaskContext, use_context
from worker_adapter.lifecycle.cancellation import OperationCancelled
from worker_adapter.lifecycle.process_state import process
from worker_adapter.settings import WorkerSettings


@pytest.mark.usefixtures("application", "worker")
@pytest.mark.parametrize("fails", [False, True])
def test_in_a_worker(redis_url, fails):
    listening = SubscriptionListener(redis_url, f"bar-{fails}")
    start_operation(a.bar.si(n=20_000, fails=fails), user=listening.user)
    events = listening.until(lambda heard: any(e.type in END for e in heard))
    listening.close()
    said = {
        stage: [e.data for e in events if e.type == "task.progress" and e.data["stage"] == stage]
        for stage in ("read", "write")
    }
    assert said["read"][-1] == {**said["read"][-1], "state": "done", "done": 20_000, "total": 20_000, "message": ""}
    assert said["write"][-1]["state"] == ("failed" if fails else "done")
    assert said["write"][-1]["done"] == (10_000 if fails else 20_000)
    assert len({data["task"] for data in said["read"] + said["write"]}) == 1
    for data in said.values():
        counts = [each["done"] for each in data]
        assert counts == sorted(counts)
        assert len(counts) < 20


def test_the_last_event_is_always_emitted(states):
    with progress(3, stage="a") as steps:
        for _ in range(3):
            steps.step()
    with contextlib.suppress(KeyError), progress(3, stage="b", message="reading") as steps:
        steps.step(2, "page 2")
        raise KeyError("page")
    for _ in track((n for n in range(2)), stage="c"):
        pass
    for n in track([1, 2, 3], stage="d"):
        if n == 2:
            break
    with progress(stage="e") as steps:
        steps.set(7, 9)
    seen = {stage: (data["done"], data["total"], data["state"], data["message"]) for stage, data in states().items()}
    assert seen == {
        "a": (3, 3, "done", ""),
        "b": (2, 3, "failed", "page 2"),
        "c": (2, None, "done", ""),
        "d": (1, 3, "done", ""),
        "e": (7, 9, "done", ""),
    }


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_a_total_that_is_not_finite_is_unknown_and_the_end_is_reported(states, odd):
    with progress(odd, stage="total") as steps:
        steps.step()
    with progress(2, stage="step") as steps:
        steps.step(odd)
    with stages(a=1, b=1, stage="stages") as parts, parts.stage("a", odd) as steps:
        steps.step()
        assert parts.share == 0
    seen = {stage: (data["done"], data["total"], data["state"]) for stage, data in states().items()}
    assert seen == {"total": (1, None, "done"), "step": (0, 2, "done"), "stages": (2, 2, "done")}


def test_a_report_that_fails_does_not_stop_the_work(states, caplog):
    with progress("a few", message="x" * 10_000) as steps:
        steps.step()
    assert "cannot report progress" in caplog.text
    assert states() == {}
    with progress(1, message="x" * 10_000, stage="long"):
        pass
    assert len(states()["long"]["message"]) == 200


def test_a_file_name_that_is_not_utf_8_is_reported(states):
    name = os.fsdecode(b"gr\xfc\xdfe.txt")
    with progress(1, stage=name) as steps:
        steps.step(message=name)
    assert states()["gr??e.txt"]["message"] == "gr??e.txt"
    assert states()["gr??e.txt"]["state"] == "done"


@pytest.mark.usefixtures("states")
def test_a_soft_time_limit_during_a_report_is_raised():
    class Struck(str):
        __slots__ = ()

        def __getitem__(self, _):
            raise SoftTimeLimitExceeded

    with pytest.raises(SoftTimeLimitExceeded):
        progress(1, message=Struck("page")).__enter__()


def test_outside_of_every_operation_progress_only_counts():
    with progress(2) as steps:
        steps.step()
        steps.set(2)
    assert steps.done == 2
    assert list(track(range(3))) == [0, 1, 2]


@pytest.mark.usefixtures("states")
def test_a_step_that_reports_nothing_is_cheap():
    """It calls nothing but the thread's number and the clock. ``bench/progress_cost.py`` measures its time."""
    calls = []

    def called(frame, event, of):
        if event in {"call", "c_call"}:
            calls.append(of.__name__ if event == "c_call" else frame.f_code.co_name)

    with progress(10) as steps:
        sys.setprofile(called)
        try:
            steps.step()
        finally:
            sys.setprofile(None)
    assert calls == ["step", "get_ident", "monotonic", "setprofile"]


def test_set_takes_a_message(states):
    with progress(stage="a", message="reading") as steps:
        steps.set(3, total=9, message="page 3")
        steps.set(4)
    assert (states()["a"]["done"], states()["a"]["total"], states()["a"]["message"]) == (4, 9, "page 3")


@pytest.mark.usefixtures("states")
def test_a_progress_has_the_bounds_of_the_installation():
    bounds = WorkerSettings(progress_interval=7.5)
    with use_context(TaskContext(OperationRef("ann", "by-hand"), "", bounds)), progress(2) as steps:
        assert steps._reporter.settings is bounds


@pytest.mark.usefixtures("states")
def test_a_block_of_a_cancelled_operation_ends_with_its_own_exception():
    """A retry leaves the state of the block as it is. A step would raise OperationCancelled."""
    operation = OperationRef("ann", "given-up")
    context = TaskContext(operation, "", WorkerSettings(), task_id="t1", in_worker=True)

    def retry():
        with progress(2):
            process.cancelled.add([(operation, 0)])
            raise Retry

    with use_context(context), pytest.raises(Retry):
        retry()
    with use_context(context), pytest.raises(OperationCancelled), progress(2):
        pass


def test_a_report_that_fails_does_not_stop_a_task_in_a_worker(states, caplog):
    context = TaskContext(OperationRef("ann", "by-hand"), "", WorkerSettings(), task_id="t1", in_worker=True)
    with use_context(context), progress("a few", message="x") as steps:
        steps.step()
    assert "cannot report progress" in caplog.text
    assert states() == {}
