"""``emit_on_success``: events that are sent, and events that are dropped."""

import contextlib
import json

import pytest
from celery import Celery
from celery.exceptions import Ignore, Reject

from eventbus import Bus, BusSettings, InvalidPayload, NoOperation, TooManyDeferred, configure, default_bus, emit
from eventbus.operations.events import OperationRef
from tests.worker_adapter import app as a
from tests.worker_adapter.listening import END, SubscriptionListener
from worker_adapter import WorkerSettings, emit_on_success, install, start_operation, with_task_context
from worker_adapter.context.task_context import TaskContext, use_context


@pytest.mark.usefixtures("application", "worker")
@pytest.mark.parametrize("fails", [False, True])
def test_in_a_worker(redis_url, fails):
    """A task that is tried three times."""
    listening = SubscriptionListener(redis_url, f"announce-{fails}")
    start_operation(a.announce.si(fails=fails), user=listening.user)

    def sent(events):
        return [e.type if e.type != "test.seen" else e.data["what"] for e in events]

    # A retry is published before the try that asked for it has ended, so another process may be done with it before
    # this one has sent everything.
    tries = {"try 0", "try 1", "try 2"}
    events = listening.until(lambda heard: any(e.type in END for e in heard) and tries <= set(sent(heard)))
    listening.close()
    ends = ("first", "second", "task.succeeded", "task.failed", "operation.succeeded", "operation.failed")
    assert [type_ for type_ in sent(events) if type_ in ends] == (
        ["task.failed", "operation.failed"] if fails else ["first", "second", "task.succeeded", "operation.succeeded"]
    )


@pytest.fixture
def bus():
    former = default_bus()
    yield configure(bus=Bus(BusSettings(redis_url="memory://")))
    configure(bus=former)


@pytest.fixture
def app(bus):
    app = Celery(set_as_current=False)
    app.conf.update(task_always_eager=True)
    installation = install(app, settings=WorkerSettings(events=[], success_events=3))
    yield app
    installation.disconnect()


@pytest.fixture
def sent(bus):
    def read():
        bus.flush(5)
        events = [json.loads(entry.record.event) for entry in bus.broker.read("user:ann", 0).log]
        return [event["data"]["n"] for event in events if event["type"] == "test.tick"]

    return read


ENDS = {"error": KeyError("page"), "ignored": Ignore(), "rejected": Reject("no", requeue=False)}


@pytest.mark.parametrize("end", ENDS)
def test_events_of_a_failed_task_are_dropped_and_counted(app, bus, sent, end, caplog):
    receipts = []

    @app.task
    def bad():
        receipts.append(emit_on_success(a.Tick(n=1)))
        emit(a.Tick(n=2))
        raise ENDS[end]

    with contextlib.suppress(KeyError):
        start_operation(bad.si(), user="ann")
    assert sent() == [2]
    assert bus.outbox.dropped["not_succeeded"] == 1
    assert (receipts[0].status, receipts[0].reason) == ("dropped", "not_succeeded")
    assert "outbox dropped" not in caplog.text


def test_a_mistake_is_an_error_in_the_task(app, sent):
    errors = []

    @app.task
    def careless():
        for wrong in ((), ("ann", "op"), (42,), ("ann", "op", {"n": 1})):
            with pytest.raises(InvalidPayload):
                emit_on_success(*wrong)
        for n in range(3):
            emit_on_success(a.Tick(n=n))
        with pytest.raises(TooManyDeferred) as caught:
            emit_on_success(a.Tick(n=3))
        errors.append(caught.value)

    start_operation(careless.si(), user="ann")
    assert errors[0].limit == 3
    assert "EVENTBUS_WORKER_SUCCESS_EVENTS" in str(errors[0])
    assert sent() == [0, 1, 2]


def test_outside_of_a_task_the_event_is_sent_immediately(bus, sent):
    assert emit_on_success("ann", "op", a.Tick(n=1)).status == "waiting"
    assert sent() == [1]
    with pytest.raises(NoOperation):
        emit_on_success(a.Tick(n=2))
    # Where an operation is being started, as in a handler of Celery's signals, no task will end either.
    with use_context(TaskContext(OperationRef("ann", "op"), "", WorkerSettings())):
        emit_on_success(a.Tick(n=3))
    assert sent() == [1, 3]


def test_a_task_without_an_operation_emits_too(app, sent):
    @app.task
    def plain(fails):
        emit_on_success("ann", "op", a.Tick(n=int(fails)))
        assert sent() == []
        assert not fails

    plain.delay(True)
    plain.delay(False)
    assert sent() == [0]


def test_a_task_within_a_task_has_separate_events(app, sent):
    @app.task
    def inner():
        emit_on_success(a.Tick(n=1))

    @app.task
    def outer():
        emit_on_success(a.Tick(n=2))
        inner.delay()
        assert sent() == [1]

    start_operation(outer.si(), user="ann")
    assert sent() == [1, 2]


def test_a_task_that_succeeds_twice_emits_once(app, sent):
    """Its worker died before the acknowledgement: the same message runs again."""

    @app.task
    def twice(start):
        for n in range(start, start + 2):
            emit_on_success(a.Tick(n=n))
        emit_on_success(a.Tick(n=99), id="by-hand")

    headers = {"eventbus_user": "ann", "eventbus_operation": "op", "eventbus_leaf": "task-1"}
    for start in (0, 10):
        twice.apply(args=(start,), headers=headers)
    assert sent() == [0, 1, 99]
    twice.apply(args=(20,), headers={**headers, "eventbus_leaf": "task-2"})
    assert sent() == [0, 1, 99, 20, 21]


@pytest.mark.parametrize("fails", [False, True])
def test_a_thread_that_outlives_its_task_is_too_late_or_immediately(app, bus, sent, fails):
    late = []

    @app.task
    def task():
        late.append(with_task_context(emit_on_success))
        assert not fails

    with contextlib.suppress(AssertionError):
        start_operation(task.si(), user="ann")
    late[0](a.Tick(n=1))
    assert sent() == ([] if fails else [1])
    assert bus.outbox.dropped["not_succeeded"] == int(fails)
