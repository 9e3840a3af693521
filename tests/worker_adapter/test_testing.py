"""``worker_adapter.testing``: operations that run in the test's process, with all of their events."""

from __future__ import annotations

import pytest
from celery import Celery, chord, signals

from eventbus import InvalidName, NoOperation, emit
from eventbus.operations.events import (
    OperationFailed,
    OperationQueued,
    OperationStarted,
    OperationSucceeded,
    TaskProgress,
    TaskRetry,
)
from eventbus.testing import capture, like, operation
from tests.eventbus.testing.events import Indexed, State
from worker_adapter import install, track
from worker_adapter.testing import eager, run_operation


@pytest.fixture
def app():
    return Celery(set_as_current=False)


@pytest.fixture
def index(app):
    @app.task(shared=False)
    def index(document):
        for _ in track(range(3), stage="reading"):
            pass
        emit(Indexed(document=document))
        return document

    return index


def test_an_operation_with_all_of_its_events(index):
    ran = run_operation(index.s("a.pdf"), user="ann", op="op-7", label="Index")
    assert ran.result == "a.pdf"
    assert (ran.operation.id, ran.operation.cursor) == ("op-7", "user:ann=0")
    ran.events.in_order(
        like(OperationQueued, operation="op-7", label="Index", total=1),
        OperationStarted,
        like(TaskProgress, stage="reading", state="done", done=3),
        Indexed(document="a.pdf"),
        like(OperationSucceeded, done=1, total=1),
    )
    assert {emitted.topic for emitted in ran.events} == {"user:ann:operation:op-7"}


def test_a_canvas(app, index):
    @app.task(shared=False)
    def build(documents):
        emit(State(done=len(documents)))

    ran = run_operation(chord([index.s("a"), index.s("b")], build.s()))
    assert [event.document for event in ran.events.of(Indexed)] == ["a", "b"]
    assert ran.events.one(OperationSucceeded).done == 3
    ran.events.in_order(Indexed, Indexed, State(done=2), OperationSucceeded)


@pytest.fixture
def flaky(app):
    @app.task(bind=True, max_retries=1, shared=False)
    def flaky(self):
        raise self.retry(exc=ConnectionError("not yet"), countdown=0)

    return flaky


def test_an_error_is_raised_or_reported(app, flaky, index):
    with pytest.raises(TypeError):
        run_operation(index.s())
    ran = run_operation(flaky.s(), propagate=False)
    assert ran.events.one(TaskRetry).error == "ConnectionError: not yet"
    ran.events.in_order(TaskRetry, OperationFailed)
    with pytest.raises(ConnectionError, match="not yet"):
        _ = ran.result


def test_a_malformed_user_is_refused(index):
    with pytest.raises(InvalidName):
        run_operation(index.s("a"), user="a b")


def test_the_application_is_restored_afterwards(app, index):
    receivers = len(signals.task_prerun.receivers)
    app.conf.update(task_eager_propagates=False)
    run_operation(index.s("a"))
    assert (app.conf.task_always_eager, app.conf.task_eager_propagates) == (False, False)
    assert len(signals.task_prerun.receivers) == receivers
    installation = install(app)
    with eager(app):
        assert app.conf.task_always_eager
    assert install(app) is installation
    assert len(signals.task_prerun.receivers) == receivers + 1
    installation.disconnect()


def test_a_task_called_as_a_function(index):
    with capture() as events:
        with operation("ann", "by-hand"):
            index("a.pdf")
        events.to(op="by-hand").one(Indexed, document="a.pdf")
        with pytest.raises(NoOperation):
            index("b.pdf")
