"""``capture``: what is emitted in a block, and where else it goes: nowhere."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from eventbus import (
    Bus,
    BusSettings,
    InvalidName,
    InvalidPayload,
    NoOperation,
    TooLarge,
    aannounce,
    abroadcast,
    aemit,
    announce,
    broadcast,
    configure,
    default_bus,
    emit,
)
from eventbus.operations.events import OperationRef, OperationStarted, OperationSucceeded
from eventbus.operations.state import TaskTransition
from eventbus.testing import capture, operation
from tests.eventbus.testing.events import Indexed, Promise, State, Tagged

NO_SERVER = "redis://127.0.0.1:1/0"


@pytest.fixture
def offline():
    """This process's bus, whose Redis is not there."""
    former = default_bus()
    bus = configure(BusSettings(redis_url=NO_SERVER, spool=False, retry_min=0.01))
    yield bus
    configure(bus=former)


def test_every_way_to_emit_is_captured_and_nothing_goes_out(offline):
    threads = threading.active_count()
    with capture() as events:
        emit("ann", "op-1", Indexed(document="a"))
        emit("ann", "op-1", Indexed(document="b"), strict=True)
        broadcast("7", Indexed(document="c"), topic="documents")
        announce(Indexed(document="d"))
        default_bus().emit("ann", "op-2", Indexed(document="e"))

        async def others():
            await aemit("ann", "op-1", Indexed(document="f"), strict=True)
            await abroadcast("7", Indexed(document="g"))
            await aannounce(Indexed(document="h"))

        asyncio.run(others())
        assert threading.active_count() == threads
        # A connection made from these settings finds no server.
        assert default_bus().settings.redis_url == "memory://"
    assert "".join(event.document for event in events.of(Indexed)) == "abcdefgh"
    assert [emitted.topic for emitted in events][1:5] == [
        "user:ann:operation:op-1",
        "collection:7:documents",
        "system:announcements",
        "user:ann:operation:op-2",
    ]
    assert offline.outbox.depth == 0
    assert default_bus() is offline


def test_receipts_behave():
    with capture() as events:
        receipts = [emit("ann", "1", State(done=n)) for n in range(3)]
        receipts.append(emit("bob", "1", State(done=0)))
        again = emit("ann", "2", State(done=9), id=receipts[1].id)
    assert [(receipt.status, receipt.offset) for receipt in receipts] == [("published", n) for n in (1, 2, 3, 1)]
    assert (again.status, again.offset) == ("duplicate", 2)
    assert [event.done for event in events.of(State)] == [0, 1, 2, 0]
    assert [emitted.id for emitted in events] == [receipt.id for receipt in receipts]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: emit("a b", "1", State(done=1)), InvalidName),
        (lambda: emit("ann", "1", {"done": 1}), InvalidPayload),
        (lambda: broadcast("7", Promise(what="to many")), InvalidPayload),
        (lambda: emit("ann", "1", Indexed(document="x" * 2_000_000)), TooLarge),
        (lambda: emit(State(done=1)), NoOperation),
    ],
)
def test_a_mistake_raises_as_in_production(call, error):
    with capture() as events:
        with pytest.raises(error):
            call()
        events.none()


def test_limits_are_those_of_the_process_or_those_given(offline):
    small = BusSettings(max_event_bytes=300)
    with capture(settings=small), pytest.raises(TooLarge):
        emit("ann", "1", Indexed(document="x" * 300))
    configure(BusSettings(redis_url=NO_SERVER, max_event_bytes=400))
    with capture(), pytest.raises(TooLarge, match="limit is 400"):
        emit("ann", "1", Indexed(document="x" * 400))


def test_other_buses_are_captured_where_they_are_named():
    one = Bus(BusSettings(redis_url=NO_SERVER, max_event_bytes=300))
    with capture(one) as events:
        one.emit("ann", "1", State(done=1))
        emit("ann", "1", State(done=2))
        with pytest.raises(TooLarge):
            one.emit("ann", "1", Indexed(document="x" * 300))
    assert [event.done for event in events.of(State)] == [1, 2]
    assert [emitted.offset for emitted in events] == [1, 2]
    assert one.broker is None
    assert one.settings.redis_url == NO_SERVER


def test_a_bus_that_is_configured_meanwhile_waits_for_its_turn(offline):
    with capture() as events:
        later = configure(BusSettings(redis_url=NO_SERVER))
        emit("ann", "1", State(done=1))
    events.one(State)
    assert default_bus() is later


def test_blocks_nest():
    with capture() as outer:
        emit("ann", "1", State(done=1))
        with capture() as inner:
            emit("ann", "1", State(done=2))
        emit("ann", "1", State(done=3))
    assert [event.done for event in outer.of(State)] == [1, 3]
    assert [event.done for event in inner.of(State)] == [2]


def test_threads_are_captured_together():
    with capture() as events:
        threads = [
            threading.Thread(target=lambda n: [emit("ann", str(n), State(done=i)) for i in range(50)], args=(n,))
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [emitted.offset for emitted in events] == list(range(1, 201))
    assert [event.done for event in events.to(op="2").of(State)] == list(range(50))


def test_an_operation_for_plain_functions():
    with capture() as events:
        with operation("ann", "op-1") as current:
            emit(State(done=1))
            with operation("bob", "op-2"):
                emit(State(done=2))
            emit(State(done=3))
            thread = threading.Thread(target=contextvars.copy_context().run, args=(emit, State(done=4)))
            thread.start()
            thread.join()
        with pytest.raises(NoOperation):
            emit(State(done=5))
    assert current == OperationRef("ann", "op-1")
    assert [event.done for event in events.to(user="ann", op="op-1").of(State)] == [1, 3, 4]
    with pytest.raises(InvalidName), operation("a b", "op"):
        pass


def test_transitions_are_counted_as_in_redis_and_their_events_are_captured():
    with capture() as events:
        bus = default_bus()
        ref = OperationRef("ann", "op-1")
        bus.record_transition(ref, TaskTransition("plan", planned=1), label="Index")
        bus.record_transition(ref, TaskTransition("published", "t1", 1))
        bus.record_transition(ref, TaskTransition("started", "t1", 1), label="Index")
        emit("ann", "op-1", State(done=1))
        bus.record_transition(ref, TaskTransition("done", "t1", 1), label="Index")
        assert bus.position("user:ann").offset == events[-1].offset
    events.in_order(OperationStarted, State(done=1), OperationSucceeded)
    assert events.one(OperationSucceeded, operation="op-1").done == 1


def test_an_acknowledgement():
    with capture() as events:
        receipt = emit("ann", "1", Promise(what="your index is ready"))
        assert not receipt.wait_delivered(0)
        events.acknowledge(events.one(Promise))
        assert receipt.wait_delivered(0)
        with pytest.raises(LookupError):
            events.acknowledge(Promise(what="another"))


def test_an_event_is_what_it_was_when_it_was_emitted():
    event = Tagged(user="u", collection="c", tags=["new"])
    with capture() as events:
        emit("ann", "1", event)
        event.tags.append("late")
    (emitted,) = events
    assert emitted.event.tags == ["new"]
    assert emitted.data == {"user": "u", "collection": "c", "tags": ["new"]}
    assert (emitted.user, emitted.op, emitted.collection, emitted.channel) == ("ann", "1", None, "user:ann")
