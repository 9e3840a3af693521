"""Eager mode and direct calls: no broker, no worker, the same words."""

import json

import pytest
from celery import Celery, chain, chord, group
from celery.exceptions import Retry

from eventbus import Bus, BusSettings, Event, NoOperation, configure, default_bus, emit
from eventbus.operation import OperationRef, current_operation
from worker_adapter import WorkerSettings, install, start_operation, track


class Done(Event, name="eager.done"):
    what: str


@pytest.fixture
def bus():
    former = default_bus()
    yield configure(bus=Bus(BusSettings(redis_url="memory://")))
    configure(bus=former)


@pytest.fixture
def app(bus):
    app = Celery(set_as_current=False)
    app.conf.update(task_always_eager=True, task_eager_propagates=True)
    installation = install(app, settings=WorkerSettings(events=["retry", "failed"]))
    yield app
    installation.disconnect()


def told(bus):
    bus.flush(5)
    return [json.loads(entry.record.event) for entry in bus.broker.read("user:ann", 0).log]


def ends(bus):
    last = told(bus)[-1]
    return last["type"], last["data"]["done"], last["data"]["failed"], last["data"]["total"]


def test_a_canvas_with_a_task_within_a_task(app, bus):
    @app.task
    def inner(what):
        emit(Done(what=what))

    @app.task
    def outer(_=None):
        emit(Done(what="before"))
        inner.delay("inner")
        emit(Done(what="after"))

    start_operation(chain(chord([inner.si("a"), inner.si("b")], outer.s()), group(inner.si("c"))), user="ann")
    said = [event["data"]["what"] for event in told(bus) if event["type"] == "eager.done"]
    assert said == ["a", "b", "before", "inner", "after", "c"]
    assert ends(bus) == ("operation.succeeded", 5, 0, 5)
    assert current_operation.get() is None


@pytest.fixture
def bad(app):
    """A task that fails, is tried again, and fails again."""

    @app.task(bind=True, max_retries=1)
    def bad(self):
        for _ in track(range(4)):
            raise self.retry(exc=KeyError("page"), countdown=0)

    return bad


def test_a_retry_and_a_failure(app, bus, bad):
    app.conf.task_eager_propagates = False
    start_operation(bad.si(), user="ann")
    assert [event["type"] for event in told(bus)][2:] == ["task.retry", "task.failed", "operation.failed"]
    (progress,) = [
        json.loads(record.event)["data"]
        for record in bus.broker.read("user:ann", None).snapshot
        if record.type == "task.progress"
    ]
    # A loop that an error leaves cannot tell it from a break; the failure of the task can.
    assert (progress["state"], progress["done"], progress["total"]) == ("failed", 0, 4)


def test_an_error_that_propagates_is_a_failure(bus, bad):
    """Celery does not even retry then."""
    with pytest.raises(Retry):
        start_operation(bad.si(), user="ann")
    assert [event["type"] for event in told(bus)][2:] == ["task.failed", "operation.failed"]
    assert current_operation.get() is None


def test_a_function_called_directly_belongs_to_its_caller(app, bus):
    @app.task
    def plain():
        emit(Done(what="plain"))

    with pytest.raises(NoOperation):
        plain()
    current_operation.set(OperationRef("ann", "by-hand"))
    plain()
    plain.delay()
    current_operation.set(None)
    assert [event["topic"] for event in told(bus)][:2] == ["user:ann:operation:by-hand"] * 2


def test_a_task_of_another_operation_leaves_no_trace(app, bus):
    @app.task
    def plain():
        emit(Done(what="plain"))

    other = {"eventbus_user": "ann", "eventbus_operation": "other"}
    for mine in (None, OperationRef("ann", "mine")):
        current_operation.set(mine)
        plain.apply(headers=other)
        assert current_operation.get() == mine
    current_operation.set(None)
    topics = [event["topic"] for event in told(bus) if event["type"] == "eager.done"]
    assert topics == ["user:ann:operation:other"] * 2


def test_installing_twice_is_installing_once(app, bus):
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
    failed = [event["data"]["error"] for event in told(bus) if event["type"] == "task.failed"]
    assert failed == ["RuntimeError"]


def test_two_applications_in_one_process_do_not_speak_twice(app, bus):
    other = install(Celery(set_as_current=False))

    @app.task
    def plain():
        emit(Done(what="plain"))

    start_operation(group(plain.si(), plain.si()), user="ann")
    other.disconnect()
    assert [event["type"] for event in told(bus)] == [
        "operation.queued",
        "operation.started",
        "eager.done",
        "eager.done",
        "operation.succeeded",
    ]
