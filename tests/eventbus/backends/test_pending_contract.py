"""Pending events: both backends do the same."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from eventbus import Bus, DeliveryFailed, Event, NotAcknowledgeable
from eventbus.backends.factory import connect_pending_store
from eventbus.backends.memory.adapters import MemoryReader
from eventbus.backends.pending import PendingStore
from eventbus.clock import now_ms
from eventbus.protocol.cursor import Position
from tests.eventbus.backends.heard import Heard
from tests.eventbus.conftest import Ends

USER = "user:ann"


class Urgent(Event, name="both.urgent", lane="high", deliver="ack"):
    n: int = 0


class Plain(Event, name="both.plain", deliver="ack"):
    n: int = 0


class Live(Event, name="both.live"):
    n: int = 0


@pytest.fixture
def store(ends: Ends) -> PendingStore:
    broker = ends.reader._broker if isinstance(ends.reader, MemoryReader) else None
    made = connect_pending_store(ends.settings, ends.reader, broker=broker)
    assert made is not None
    return made


@pytest.fixture
def bus(ends: Ends) -> Iterator[Bus]:
    broker = ends.reader._broker if isinstance(ends.reader, MemoryReader) else None
    made = Bus(ends.settings, broker=broker)
    yield made
    made.close()


async def test_events_are_pending_until_they_are_acknowledged(bus: Bus, store: PendingStore) -> None:
    ids = [bus.emit("ann", "1", payload).id for payload in (Plain(n=1), Live(n=2), Urgent(n=3), Plain(n=4))]
    assert bus.flush(5)
    batch = await store.fetch(USER)
    assert [record.id for record in batch.records] == [ids[2], ids[0], ids[3]]
    assert [record.offset for record in batch.records] == [3, 1, 4] or batch.position.offset == 4
    assert await store.ack(USER, [ids[2], ids[1], "unknown"]) == 1
    assert await store.ack_upto(USER, Position("other", 99)) == 0
    assert await store.ack_upto(USER, batch.position) == 2
    assert (await store.fetch(USER)).records in ([], ())


async def test_an_event_is_not_redelivered_before_it_is_due(ends: Ends, bus: Bus, store: PendingStore) -> None:
    receipt = bus.emit("ann", "1", Plain())
    assert bus.flush(5)
    answer = await store.redeliver(USER, [receipt.id, "unknown"])
    assert answer.next_ms[0] > now_ms() - 90_000 + ends.settings.ack_timeout * 1000
    assert answer.next_ms[1] == 0
    assert answer.dead_lettered == 0
    assert (await store.redeliver(USER, [receipt.id])).next_ms == answer.next_ms[:1], "it was not sent meanwhile"


async def test_a_user_without_a_channel_has_nothing_pending_and_no_position(store: PendingStore) -> None:
    batch = await store.fetch(USER)
    assert (list(batch.records), batch.position, batch.more) == ([], ("", 0), False)


# A broker in this process has the settings that it began with.
@pytest.mark.parametrize("ends", ["redis", "cluster"], indirect=True)
async def test_a_redelivered_event_arrives_at_the_sessions(ends: Ends) -> None:
    """In a cluster on the sharded channel, where they listen."""
    ends.settings = ends.settings.model_copy(update={"ack_timeout": 0.001})
    heard = Heard()
    await ends.subscriber.start(heard)
    async with asyncio.timeout(30):
        while not heard.restorations:
            await asyncio.sleep(0.005)
        await ends.subscriber.subscribe(USER)
        with contextlib.closing(Bus(ends.settings)) as bus:
            receipt = bus.emit("ann", "1", Plain())
            assert bus.flush(10)
        store = connect_pending_store(ends.settings, ends.reader)
        assert store is not None
        while len(heard.received_) < 2:
            await store.redeliver(USER, [receipt.id])
    (_, first), (channel, again) = heard.received_[:2]
    assert channel == USER
    assert again.partition(b"\n")[0] == b"again " + first.split(b" ")[0]
    assert again.partition(b"\n")[2] == first.partition(b"\n")[2]


async def test_an_event_is_dead_lettered_once(store: PendingStore) -> None:
    assert await store.dead_letter(USER, "x1", "undecodable", b"?")
    assert not await store.dead_letter(USER, "x1", "undecodable", b"?")


async def test_a_receipt_waits_for_the_acknowledgement(bus: Bus, store: PendingStore) -> None:
    receipt = await bus.aemit("ann", "1", Plain())
    assert not await receipt.delivered(0.05)
    waiting = asyncio.create_task(receipt.delivered(10))
    in_a_thread = asyncio.create_task(asyncio.to_thread(receipt.wait_delivered, 10))
    await store.ack(USER, [receipt.id])
    assert await waiting
    assert await in_a_thread
    assert await receipt.delivered(0), "also later"


async def test_a_receipt_of_a_dead_letter_raises(bus: Bus, store: PendingStore) -> None:
    receipt = await bus.aemit("ann", "1", Plain())
    await store.dead_letter(USER, receipt.id, "invalid", b"?")
    with pytest.raises(DeliveryFailed, match="invalid") as caught:
        await receipt.delivered(5)
    assert (caught.value.id, caught.value.channel, caught.value.reason) == (receipt.id, USER, "invalid")


async def test_a_receipt_of_a_live_event_cannot_be_acknowledged(bus: Bus) -> None:
    receipt = await bus.aemit("ann", "1", Live())
    with pytest.raises(NotAcknowledgeable):
        await receipt.delivered(5)
