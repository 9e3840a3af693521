"""Eager mode and direct calls: no broker, no worker, the same events."""

import os
import subprocess
import sys
from pathlib import Path

import celery
import pytest
from celery import Celery, chain, chord, group
from celery.exceptions import Retry

from eventbus import Event, NoOperation, emit
from eventbus.operations.events import OperationFailed, OperationSucceeded, TaskFailed, TaskProgress, current_operation
from eventbus.testing import operation
from worker_adapter import WorkerSettings, install, start_operation, track
from worker_adapter.testing import eager


class Done(Event, name="eager.done"):
    what: str


@pytest.fixture
def app(eventbus_events):
    app = Celery(set_as_current=False)
    installation = install(app, settings=WorkerSettings(events=["retry", "failed"]))
    with eager(app):
        yield app
    installation.disconnect()


def kept(events):
    """Events that a page receives that connects later."""
    return [emitted for emitted in events if emitted.event.policy().keep == "log"]


@pytest.mark.skipif(celery.VERSION < (5, 7), reason="Celery before 5.7 does not run a chord's body in an eager chain")
def test_a_canvas_with_a_task_within_a_task(app, eventbus_events):
    @app.task
    def inner(what):
        emit(Done(what=what))

    @app.task
    def outer(_=None):
        emit(Done(what="before"))
        inner.delay("inner")
        emit(Done(what="after"))

    start_operation(chain(chord([inner.si("a"), inner.si("b")], outer.s()), group(inner.si("c"))), user="ann")
    said = [done.what for done in eventbus_events.of(Done)]
    assert said == ["a", "b", "before", "inner", "after", "c"]
    end = kept(eventbus_events)[-1].event
    assert isinstance(end, OperationSucceeded)
    assert (end.done, end.failed, end.total) == (5, 0, 5)
    assert current_operation.get() is None


@pytest.fixture
def bad(app):
    """A task that fails, is tried again, and fails again."""

    @app.task(bind=True, max_retries=1)
    def bad(self):
        for _ in track(range(4)):
            raise self.retry(exc=KeyError("page"), countdown=0)

    return bad


def test_a_retry_and_a_failure(app, eventbus_events, bad):
    app.conf.task_eager_propagates = False
    start_operation(bad.si(), user="ann")
    assert [said.type for said in kept(eventbus_events)][2:] == ["task.retry", "task.failed", "operation.failed"]
    # A loop cannot distinguish an error from a break. The failure of the task can.
    progress = eventbus_events.of(TaskProgress)[-1]
    assert (progress.state, progress.done, progress.total) == ("failed", 0, 4)


def test_an_error_that_propagates_is_a_failure(eventbus_events, bad):
    """Celery does not even retry then."""
    with pytest.raises(Retry):
        start_operation(bad.si(), user="ann")
    assert [said.type for said in kept(eventbus_events)][2:] == ["task.failed", "operation.failed"]
    assert current_operation.get() is None


@pytest.mark.parametrize("propagates", [True, False])
def test_an_error_that_start_operation_raises_too_is_counted_once(app, eventbus_events, propagates):
    """Celery raises the error of a chain's task whether errors propagate or not."""
    app.conf.task_eager_propagates = propagates

    @app.task
    def page(fails=False):
        if fails:
            raise KeyError("page")

    with pytest.raises(KeyError):
        start_operation(chain(page.si(), page.si(fails=True), page.si()), user="ann")
    end = eventbus_events.one(OperationFailed)
    assert (end.done, end.failed, end.total) == (1, 1, 3)


def test_what_could_not_be_started_has_failed(app, eventbus_events):
    @app.task
    def page(number):
        pass

    with pytest.raises(TypeError):
        start_operation(page.si(), user="ann")
    assert eventbus_events.one(OperationFailed).failed == 1


def test_a_function_called_directly_belongs_to_its_caller(app, eventbus_events):
    @app.task
    def plain():
        emit(Done(what="plain"))

    with pytest.raises(NoOperation):
        plain()
    with operation("ann", "by-hand"):
        plain()
        plain.delay()
    assert len(eventbus_events.to(user="ann", op="by-hand").of(Done)) == 2


def test_a_task_of_another_operation_leaves_no_trace(app, eventbus_events):
    @app.task
    def plain():
        emit(Done(what="plain"))

    other = {"eventbus_user": "ann", "eventbus_operation": "other"}
    plain.apply(headers=other)
    assert current_operation.get() is None
    with operation("ann", "mine") as mine:
        plain.apply(headers=other)
        assert current_operation.get() == mine
    assert len(eventbus_events.to(op="other").of(Done)) == 2
    eventbus_events.to(op="mine").none(Done)


def test_installing_twice_is_installing_once(app, eventbus_events):
    @app.task
    def plain():
        emit(Done(what="plain"))

    first = install(app)
    assert install(app) is first
    assert install(app, settings=WorkerSettings(error_chars=0)) is not first

    @app.task
    def bad():
        raise RuntimeError("secret")

    with pytest.raises(RuntimeError):
        start_operation(bad.si(), user="ann")
    assert eventbus_events.one(TaskFailed).error == "RuntimeError"


def test_two_applications_in_one_process_do_not_report_twice(app, eventbus_events):
    other = install(Celery(set_as_current=False))

    @app.task
    def plain():
        emit(Done(what="plain"))

    start_operation(group(plain.si(), plain.si()), user="ann")
    other.disconnect()
    assert [said.type for said in kept(eventbus_events)] == [
        "operation.queued",
        "operation.started",
        "eager.done",
        "eager.done",
        "operation.succeeded",
    ]


SITE = """
import sys
from celery import Celery
from eventbus import Event, emit
from worker_adapter import install, start_operation

class Step(Event, name="eager.step"):
    n: int

app = Celery("site", broker="memory://", task_always_eager=sys.argv[1] == "eager")
install(app)

@app.task
def step():
    emit(Step(n=1))

start_operation(step.s(), user="ann") if sys.argv[1] == "eager" else step.apply()
emit("ann", "1", Step(n=2))
"""


@pytest.mark.parametrize(("mode", "files"), [("eager", 0), ("applied", 1)])
def test_an_eager_site_without_redis_leaves_nothing_for_a_later_worker(mode: str, files: int, tmp_path: Path) -> None:
    """``apply()`` in a site that is not eager is no test: its events are kept."""
    environment = {
        **os.environ,
        "EVENTBUS_REDIS_URL": "redis://127.0.0.1:1/0",
        "EVENTBUS_SPOOL_DIR": str(tmp_path),
        "EVENTBUS_FLUSH_BUDGET": "0.1",
    }
    subprocess.run([sys.executable, "-c", SITE, mode], env=environment, check=True, timeout=60)
    assert len(list(tmp_path.rglob("*.spool"))) == files
