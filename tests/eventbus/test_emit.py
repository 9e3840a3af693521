"""``emit``: what is refused, before anything is sent, and what a receipt says."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from eventbus import Bus, BusSettings, Event, InvalidEmission, InvalidName, InvalidPayload, NoOperation, TooLarge
from eventbus.backends.memory.adapters import MemoryBroker, MemoryReader
from eventbus.operations.events import OperationRef, current_operation


class Note(Event, name="test.note"):
    text: str = ""


class Step(Event, name="test.step", keep="latest", key="document"):
    document: str
    done: int


class Placed(Event, name="test.placed", keep="latest", key=("folder", "file")):
    folder: str
    file: str


class Brief(Event, name="test.brief", ttl=timedelta(seconds=30)):
    pass


@pytest.fixture
def settings():
    return BusSettings(redis_url="memory://", max_event_bytes=1000)


@pytest.fixture
def bus(settings):
    bus = Bus(settings, broker=MemoryBroker(settings))
    yield bus
    bus.close()


async def everything(bus, channel="user:42"):
    return await MemoryReader(bus.broker).read(channel, 0)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda bus: bus.emit("", "9", Note()), "user"),
        (lambda bus: bus.emit("4 2", "9", Note()), "user"),
        (lambda bus: bus.emit("a:b", "9", Note()), "user"),
        (lambda bus: bus.emit("*", "9", Note()), "user"),
        (lambda bus: bus.emit("a{b}", "9", Note()), "user"),
        (lambda bus: bus.emit("a\r\nb", "9", Note()), "user"),
        (lambda bus: bus.emit("u" * 129, "9", Note()), "user"),
        (lambda bus: bus.emit(-1, "9", Note()), "user"),
        (lambda bus: bus.emit(True, "9", Note()), "user"),
        (lambda bus: bus.emit(1.0, "9", Note()), "user"),
        (lambda bus: bus.emit(None, "9", Note()), "user"),
        (lambda bus: bus.emit("42", "", Note()), "op"),
        (lambda bus: bus.emit("42", ["9"], Note()), "op"),
        (lambda bus: bus.emit("42", "9", Note(), id="not an id"), "id"),
        (lambda bus: bus.broadcast("", Note()), "collection"),
        (lambda bus: bus.broadcast("7", Note(), topic="a b"), "topic"),
        (lambda bus: bus.broadcast("7", Note(), topic=""), "topic"),
        (lambda bus: bus.announce(Note(), topic=":".join("abcdefghi")), "topic"),
    ],
)
async def test_a_malformed_name_is_refused_and_named(bus, call, field):
    with pytest.raises(InvalidName) as caught:
        call(bus)
    assert caught.value.field == field
    assert field in str(caught.value)
    assert bus.outbox.depth == 0


@pytest.mark.parametrize("user", [42, UUID("12345678-1234-5678-1234-567812345678")])
async def test_a_primary_key_names_the_user_by_its_text(bus, user):
    bus.emit("1", "9", Note())
    bus.emit(user, "9", Note())
    assert bus.emission((user, "9", Note()), None).channel == f"user:{user}"
    with pytest.raises(InvalidName):  # True and 1 are equal keys of a cache
        bus.emit(True, "9", Note())


@pytest.mark.parametrize("payload", [None, "text", {"text": "a"}, Note, 1])
async def test_a_payload_that_is_no_event_is_refused(bus, payload):
    with pytest.raises(InvalidPayload) as caught:
        bus.emit("42", "9", payload)
    assert caught.value.field == "payload"
    assert (await everything(bus)).position.offset == 0


async def test_a_key_that_has_no_text_is_refused_and_named():
    bus = Bus(BusSettings(redis_url="memory://"))

    class Huge(Event, name="test.huge", keep="latest", key="number"):
        number: int

    with pytest.raises(InvalidPayload) as caught:
        bus.emit("42", "9", Huge(number=10**5_000))
    assert caught.value.field == "number"
    bus.close()


async def test_an_event_over_the_limit_is_refused_with_size_and_limit(bus):
    with pytest.raises(TooLarge) as caught:
        bus.emit("42", "9", Note(text="x" * 1000))
    assert (caught.value.field, caught.value.limit) == ("payload", 1000)
    assert caught.value.size > 1000
    receipt = bus.emit("42", "9", Note(text="x" * 500))
    assert bus.flush(5)
    assert receipt.status == "published"


async def test_wrong_calls_say_how_it_is_done(bus):
    with pytest.raises(InvalidEmission, match="emit\\(user, op, payload\\)"):
        bus.emit("42", Note())
    with pytest.raises(NoOperation, match="emit\\(user, op, payload\\)"):
        bus.emit(Note())


async def test_inside_an_operation_user_and_operation_are_known(bus):
    token = current_operation.set(OperationRef("42", "9"))
    try:
        bus.emit(Note(text="hello"))
    finally:
        current_operation.reset(token)
    bus.flush(5)
    (entry,) = (await everything(bus)).log
    assert entry.record.topic == "user:42:operation:9"


async def test_a_receipt_has_its_status(bus):
    first = bus.emit("42", "9", Note(), id="same")
    again = bus.emit("42", "9", Note(), id="same")
    assert bus.flush(5)
    assert (first.status, first.offset) == ("published", 1)
    assert (again.status, again.offset) == ("duplicate", 1)
    assert len((await everything(bus)).log) == 1


async def test_async_forms_wait_for_the_offset(bus):
    assert (await bus.aemit("42", "9", Note())).offset == 1
    assert (await bus.abroadcast("7", Note(), topic="documents")).offset == 1
    assert (await bus.aannounce(Note())).offset == 1
    assert (await everything(bus, "collection:7")).log[0].record.topic == "collection:7:documents"
    assert (await everything(bus, "system")).log[0].record.topic == "system:announcements"


async def test_states_go_to_the_snapshot_by_key_and_not_to_the_log(bus):
    for done in range(5):
        bus.emit("42", "9", Step(document="a", done=done))
        bus.emit("42", "9", Step(document="b\n" * 100, done=done))
        bus.flush(5)
    history = await everything(bus)
    assert not history.log
    assert len(history.snapshot) == 2
    assert {record.key.rpartition("/")[2] for record in history.snapshot if len(record.key) < 60} == {"a"}
    assert all("\n" not in record.key for record in history.snapshot)


async def test_states_with_several_key_fields_never_share_a_key(bus):
    places = [("a", "b/c"), ("a/b", "c"), ("a", "b"), ("a", "b/c")]
    for folder, file in places:
        bus.emit("42", "op", Placed(folder=folder, file=file))
    assert bus.flush(5)
    history = await everything(bus)
    assert len(history.snapshot) == len(set(places))


async def test_a_types_own_ttl_makes_its_events_expire(bus):
    bus.emit("42", "9", Brief())
    bus.emit("42", "9", Note())
    bus.flush(5)
    brief, note = (entry.record for entry in (await everything(bus)).log)
    assert brief.expires - brief.emitted // 1000 == 30_000
    assert note.expires == 0
