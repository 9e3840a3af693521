"""``start_operation``: validation, events, and behaviour without a broker or without Redis."""

import copy
import json
from functools import partial

import kombu.exceptions
import pytest
from celery import Celery, chain, chord, group

from eventbus import Bus, BusSettings, InvalidName, configure, default_bus
from eventbus.operations.events import current_operation
from eventbus.protocol.cursor import parse_cursor
from tests.conftest import free_port
from tests.worker_adapter import app as a
from tests.worker_adapter.listening import END, SubscriptionListener, logged
from worker_adapter import astart_operation, start_operation


def unread(name="a"):
    """A task for a queue that no worker reads."""
    return a.step.si(name=name).set(queue="unread")


@pytest.fixture
def memory():
    """A bus without a server in place of the tests' own."""
    former = default_bus()
    bus = Bus(BusSettings(redis_url="memory://"))
    configure(bus=bus)
    yield bus
    configure(bus=former)


def events_of(bus, user):
    bus.flush(5)
    return [json.loads(entry.record.event) for entry in bus.broker.read(f"user:{user}", 0).log]


def ended(op, events):
    return any(e.type in END and e.data["operation"] == op for e in events)


@pytest.mark.usefixtures("application", "worker")
def test_the_cursor_is_the_place_before_the_operation(redis_url):
    listening = SubscriptionListener(redis_url, "twice")
    for op in ("first", "second"):
        operation = start_operation(a.step.si(name=op), user="twice", op=op, label="Step")
        assert operation.id == op
        listening.until(partial(ended, op))
        (position,) = parse_cursor(operation.cursor).values()
        kept = logged(redis_url, "twice", position.offset)
        assert [(e.type, e.topic) for e in kept] == [
            (type_, f"user:twice:operation:{op}")
            for type_ in ("operation.queued", "operation.started", "test.seen", "operation.succeeded")
        ]
    assert operation.cursor != "user:twice=0"
    listening.close()


@pytest.mark.usefixtures("application", "worker")
def test_the_cursor_of_an_unused_channel_is_0(redis_url):
    listening = SubscriptionListener(redis_url, "newborn")
    assert start_operation(a.step.si(), user="newborn").cursor == "user:newborn=0"
    listening.until(lambda heard: any(e.type in END for e in heard))
    listening.close()


@pytest.mark.usefixtures("application", "worker")
async def test_from_async_code(redis_url):
    listening = SubscriptionListener(redis_url, "async")
    operation = await astart_operation(group(a.step.si(name="a"), a.step.si(name="b")), user="async", label="Both")
    assert (operation.user, operation.label, operation.total) == ("async", "Both", 2)
    assert listening.until(lambda heard: any(e.type in END for e in heard))[0].type == "operation.queued"
    listening.close()
    assert current_operation.get() is None


@pytest.mark.parametrize(
    ("arguments", "field"),
    [({"user": ""}, "user"), ({"user": None}, "user"), ({"user": "a b"}, "user"), ({"user": "ann", "op": "*"}, "op")],
)
@pytest.mark.usefixtures("application")
def test_malformed_names_are_refused_before_anything_is_sent(memory, arguments, field):
    with pytest.raises(InvalidName) as caught:
        start_operation(unread(), **arguments)
    assert caught.value.field == field
    assert events_of(memory, "ann") == []


@pytest.mark.usefixtures("application")
def test_a_label_is_text_that_can_be_encoded(memory):
    with pytest.raises(TypeError, match="label must be a string, not NoneType"):
        start_operation(unread(), user="ann", label=None)
    assert events_of(memory, "ann") == []
    assert start_operation(unread(), user="ann", label="gr\udcfc.txt").label == "gr?.txt"
    assert events_of(memory, "ann")[0]["data"]["label"] == "gr?.txt"


def test_a_task_is_no_signature():
    with pytest.raises(TypeError, match=r"task\.s"):
        start_operation(a.step, user="ann")


@pytest.mark.usefixtures("application", "memory")
def test_the_canvas_stays_as_it_is():
    flow = chain(group(unread("a"), unread("b")), chord([unread("c")], unread("d")).set(headers={"mine": 1}))
    flow.tasks[0].link(unread("e"))
    before = copy.deepcopy(json.loads(json.dumps(flow)))
    assert start_operation(flow, user="ann").total == 5
    assert json.loads(json.dumps(flow)) == before
    assert start_operation(flow, user="ann").total == 5


@pytest.mark.usefixtures("application")
def test_tasks_that_are_waiting_leave_the_operation_queued(memory):
    operation = start_operation(group(unread("a"), unread("b")), user="ann", label="x" * 1000)
    (queued,) = events_of(memory, "ann")
    assert queued["type"] == "operation.queued"
    assert queued["data"] == {"operation": operation.id, "label": "x" * 200, "total": 2}
    assert memory.broker._channels["user:ann"].operations[operation.id].open == 2


def test_without_a_broker_the_operation_fails_and_the_caller_knows(memory):
    app = Celery(broker=f"redis://127.0.0.1:{free_port()}/0", set_as_current=False)
    app.conf.update(task_publish_retry=False, broker_transport_options={"max_retries": 0, "socket_timeout": 1})

    @app.task
    def lost():
        """Never runs."""

    with pytest.raises(kombu.exceptions.OperationalError):
        start_operation(group(lost.s(), lost.s()), user="ann")
    assert [event["type"] for event in events_of(memory, "ann")][-1] == "operation.failed"
    assert current_operation.get() is None


@pytest.mark.usefixtures("application", "worker")
def test_without_redis_for_the_bus_the_tasks_are_published_all_the_same():
    former = default_bus()
    away = Bus(BusSettings(redis_url=f"redis://127.0.0.1:{free_port()}/0", flush_budget=0.2))
    configure(bus=away)
    try:
        operation = start_operation(a.step.si(name="alone"), user="ann")
        assert operation.cursor == ""
        assert operation.result.get(timeout=10) == "alone"
    finally:
        configure(bus=former)


@pytest.mark.usefixtures("application", "worker")
def test_a_task_that_belongs_to_no_operation_has_none():
    assert a.outside.delay().get(timeout=10) == "NoOperation"
