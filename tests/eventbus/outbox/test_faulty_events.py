"""An event that always fails with an unexpected error holds up no other, and no call reports it as sent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from eventbus import BusSettings, Event
from eventbus.backends.memory.adapters import MemoryBroker, MemoryPublisher
from eventbus.backends.ports import Published, Request, Write
from eventbus.errors import Refused, Unavailable
from eventbus.events.encoder import Emission, EmissionBuilder
from eventbus.flow.circuit_breaker import CircuitBreaker
from eventbus.operations.changes import event_stamp
from eventbus.operations.state import TaskTransition
from eventbus.outbox.entries import TransitionEntry
from eventbus.outbox.outbox import Outbox
from tests.conftest import wait_until


class Item(Event, name="faulty.item"):
    n: int


BUILDER = EmissionBuilder(BusSettings())


def build(n: int, user: str = "bob") -> Emission:
    return BUILDER.build(f"user:{user}:operation:1", Item(n=n))


class FaultyFor(MemoryPublisher):
    """Fails with an unexpected error for each request that has a certain event, and notes what was published.

    Args:
        broker: has the channels.
        id_: of the event.
    """

    def __init__(self, broker: MemoryBroker, id_: str) -> None:
        super().__init__(broker)
        self.id = id_
        self.published: list[str] = []

    def publish(self, requests: Sequence[Request]) -> list[Published | Exception]:
        ids = [
            emission.id if isinstance(request, Write) else "transition"
            for request in requests
            for emission in (request.emissions if isinstance(request, Write) else [request])
        ]
        if self.id in ids:
            raise ValueError("a bug of this library")
        answers = super().publish(requests)
        self.published += ids
        return answers


class World:
    """An outbox with a publisher that fails for one event."""

    def __init__(self, folder: Path, tries: int = 3) -> None:
        self.settings = BusSettings(
            spool_dir=folder, retry_min=0.001, retry_max=0.002, unexpected_tries=tries, spool_scan=0.01
        )
        self.faulty = build(0)
        self.publisher = FaultyFor(MemoryBroker(self.settings), self.faulty.id)
        self.outbox = Outbox(self.settings, lambda: self.publisher)

    def put(self, *events: Emission) -> None:
        for event in events:
            self.outbox.put(event)

    def spool(self, *events: Emission) -> None:
        """Leave events on disk, as a process that ends while Redis is down."""
        ended = Outbox(self.settings, _no_redis)
        for event in events:
            ended.put(event)
        assert not ended.close(0.01)
        assert {event.receipt.status for event in events} == {"spooled"}


def _no_redis() -> MemoryPublisher:
    raise Unavailable("down")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.outbox.close(1)


def test_an_event_that_always_fails_does_not_hold_up_others(world: World) -> None:
    faulty, outbox = world.faulty, world.outbox
    first, after, other = build(1), build(2), build(9, "ann")
    world.put(first, faulty, after)
    wait_until(lambda: faulty.receipt.status != "waiting", "the end of the tries")
    world.put(other)
    wait_until(lambda: outbox.flush(1), "the others")
    assert [event.receipt.status for event in (first, faulty, after, other)] == [
        "published",
        "dropped",
        "published",
        "published",
    ]
    assert "a bug of this library" in (faulty.receipt.reason or "")
    assert (first.receipt.offset, after.receipt.offset) == (1, 2)
    assert outbox.dropped == {"unexpected": 1}


def test_an_event_that_fails_alone_is_dropped_when_the_next_one_is_published(world: World) -> None:
    faulty, after = world.faulty, build(1)
    world.put(faulty)
    wait_until(lambda: world.outbox.unexpected > 10, "more tries than the setting")
    assert faulty.receipt.status == "waiting", "nothing shows that the connection works"
    world.put(after)
    wait_until(lambda: after.receipt.status == "published", "the event behind it")
    wait_until(lambda: faulty.receipt.status == "dropped", "the end of the faulty one")
    wait_until(lambda: world.outbox.dropped == {"unexpected": 1}, "the count")


def test_a_new_event_ends_the_pause_of_one_that_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = iter([0.0] * 5)
    monkeypatch.setattr(CircuitBreaker, "failed", lambda *_: next(pauses, 3600.0))
    world = World(tmp_path)
    world.put(world.faulty)
    wait_until(lambda: world.outbox.unexpected > 5, "the pause of an hour")
    after = build(1)
    world.put(after)
    wait_until(lambda: after.receipt.status == "published", "the event behind it")
    world.outbox.close(1)


def test_a_strict_event_is_sent_while_another_one_fails_alone(world: World) -> None:
    world.put(world.faulty)
    wait_until(lambda: world.outbox.unexpected > 10, "more tries than the setting")
    assert world.outbox.redis_down
    strict = build(1)
    world.outbox.put_strict(strict, 20)
    assert strict.receipt.status == "published"
    wait_until(lambda: world.faulty.receipt.status == "dropped", "the end of the faulty one")


@pytest.mark.parametrize("on_disk", [lambda bad: [bad], lambda bad: [build(1), bad, build(2)]], ids=["one", "three"])
def test_a_faulty_event_on_disk_does_not_hold_up_the_events_in_memory(
    world: World, on_disk: Callable[[Emission], list[Emission]]
) -> None:
    spooled = on_disk(world.faulty)
    world.spool(*spooled)
    later = [build(n) for n in range(5, 8)]
    world.put(*later)
    wait_until(lambda: {event.receipt.status for event in later} == {"published"}, "the events in memory")
    assert world.publisher.published == [
        *[event.id for event in spooled if event is not world.faulty],
        *[event.id for event in later],
    ]
    wait_until(lambda: world.outbox.dropped == {"unexpected": 1}, "the count")
    wait_until(lambda: not world.outbox.spool_bytes, "the end of the file")


def test_a_faulty_event_does_not_let_later_ones_of_its_channel_overtake_the_ones_before_it(tmp_path: Path) -> None:
    """Until it is dropped, it may be sent yet: what its channel has behind it waits."""
    world = World(tmp_path, tries=1_000_000)
    transition = TaskTransition("published", "task", task_json='"task":"task","name":"index","retries":0')
    entry = TransitionEntry("user:bob", "user:bob:operation:1", "1", transition, lambda: event_stamp(""))
    other = build(9, "ann")
    with world.outbox._thread.lock:  # so that one batch has all three
        world.outbox.put(world.faulty)
        world.outbox.put(entry)
        world.put(other)
    wait_until(lambda: other.receipt.status == "published" and world.outbox.unexpected > 3, "some tries")
    assert world.publisher.published == [other.id]
    world.publisher.id = ""
    wait_until(lambda: world.outbox.flush(1), "the end of the fault")
    assert world.publisher.published == [other.id, world.faulty.id, "transition"]
    world.outbox.close(1)


class Refusing(MemoryPublisher):
    """Refuses everything."""

    def publish(self, requests: Sequence[Request]) -> list[Published | Exception]:
        return [Refused("no room for it")] * len(requests)


def test_flush_does_not_acknowledge_what_was_dropped(tmp_path: Path) -> None:
    settings = BusSettings(spool_dir=tmp_path)
    outbox = Outbox(settings, lambda: Refusing(MemoryBroker(settings)))
    event = build(1)
    outbox.put(event)
    wait_until(lambda: event.receipt.status == "dropped", "the refusal")
    assert not outbox.flush(5), "it was dropped before the call"
    assert outbox.flush(5), "a loss is reported once"
    outbox.put(build(2))
    assert not outbox.flush(5)
    outbox.close(1)


def test_flush_reports_to_each_thread_of_what_was_dropped(tmp_path: Path) -> None:
    settings = BusSettings(spool_dir=tmp_path)
    outbox = Outbox(settings, lambda: Refusing(MemoryBroker(settings)))
    reported: list[bool] = []

    def emit(ready: threading.Barrier) -> None:
        outbox.put(build(1))
        ready.wait(20)
        reported.append(outbox.flush(20))
        reported.append(outbox.flush(20))

    ready = threading.Barrier(2)
    threads = [threading.Thread(target=emit, args=[ready]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reported) == [False, False, True, True]
    outbox.close(1)


def test_waiting_inside_the_library_takes_no_report_from_flush(tmp_path: Path) -> None:
    settings = BusSettings(spool_dir=tmp_path)
    outbox = Outbox(settings, lambda: Refusing(MemoryBroker(settings)))
    outbox.put(build(1))
    assert outbox.wait_settled(20)
    with pytest.raises(Refused):
        outbox.put_strict(build(2), 20)
    assert not outbox.flush(20)
    assert outbox.close(1)


def test_events_that_keep_nothing_and_exceed_the_rate_are_no_loss(tmp_path: Path) -> None:
    class Blink(Event, name="faulty.blink", keep="nothing"):
        n: int

    settings = BusSettings(spool_dir=tmp_path, channel_rate=10)
    outbox = Outbox(settings, lambda: MemoryPublisher(MemoryBroker(settings)))
    blinks = [BUILDER.build("user:bob:operation:1", Blink(n=n)) for n in range(100)]
    for blink in blinks:
        outbox.put(blink)
    assert outbox.flush(20)
    assert outbox.dropped["rate"]
    assert {blink.receipt.status for blink in blinks} == {"published", "dropped"}
    outbox.close(1)


def test_states_that_a_newer_one_replaced_are_no_loss(tmp_path: Path) -> None:
    class State(Event, name="faulty.state", keep="latest"):
        n: int

    settings = BusSettings(spool_dir=tmp_path, linger=0.2)
    outbox = Outbox(settings, lambda: MemoryPublisher(MemoryBroker(settings)))
    for n in range(100):
        outbox.put(BUILDER.build("user:bob:operation:1", State(n=n)))
    assert outbox.flush(20)
    assert outbox.dropped["merged"]
    outbox.close(1)
