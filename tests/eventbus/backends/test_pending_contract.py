"""What both transports do alike for events that a user is owed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from eventbus import Bus, DeliveryFailed, Event, NotAcknowledgeable
from eventbus.backends.factory import connect_pending_store
from eventbus.backends.memory.adapters import MemoryReader
from eventbus.backends.pending import PendingStore
from eventbus.protocol.cursor import Position
from tests.eventbus.conftest import Ends

USER = "user:ann"


class Urgent(Event, name="both.urgent", lane="high", deliver="ack"):
    n: int = 0


class Plain(Event, name="both.plain", deliver="ack"):
    n: int = 0


class Live(Event, name="both.live"):
    n: int = 0


@pytest.fixture
def letters(ends: Ends) -> PendingStore:
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


async def test_owed_acknowledged_and_owed_no_more(bus: Bus, letters: PendingStore) -> None:
    ids = [bus.emit("ann", "1", payload).id for payload in (Plain(n=1), Live(n=2), Urgent(n=3), Plain(n=4))]
    assert bus.flush(5)
    owed = await letters.fetch(USER)
    assert [record.id for record in owed.records] == [ids[2], ids[0], ids[3]]
    assert [record.offset for record in owed.records] == [3, 1, 4] or owed.position.offset == 4
    assert await letters.ack(USER, [ids[2], ids[1], "unknown"]) == 1
    assert await letters.ack_upto(USER, Position("other", 99)) == 0
    assert await letters.ack_upto(USER, owed.position) == 2
    assert (await letters.fetch(USER)).records in ([], ())


async def test_not_due_is_not_sent_again(bus: Bus, letters: PendingStore) -> None:
    receipt = bus.emit("ann", "1", Plain())
    assert bus.flush(5)
    answer = await letters.redeliver(USER, [receipt.id, "unknown"])
    assert answer.next_ms[0] > 0
    assert answer.next_ms[1] == 0
    assert answer.dead_lettered == 0


async def test_buried_once(letters: PendingStore) -> None:
    assert await letters.dead_letter(USER, "x1", "undecodable", b"?")
    assert not await letters.dead_letter(USER, "x1", "undecodable", b"?")


async def test_who_has_to_know_waits_until_a_browser_has_it(bus: Bus, letters: PendingStore) -> None:
    receipt = await bus.aemit("ann", "1", Plain())
    assert not await receipt.delivered(0.05)
    waiting = asyncio.create_task(receipt.delivered(10))
    in_a_thread = asyncio.create_task(asyncio.to_thread(receipt.wait_delivered, 10))
    await letters.ack(USER, [receipt.id])
    assert await waiting
    assert await in_a_thread
    assert await receipt.delivered(0), "also later"


async def test_who_waits_for_what_was_given_up_hears_of_it(bus: Bus, letters: PendingStore) -> None:
    receipt = await bus.aemit("ann", "1", Plain())
    await letters.dead_letter(USER, receipt.id, "invalid", b"?")
    with pytest.raises(DeliveryFailed, match="invalid") as caught:
        await receipt.delivered(5)
    assert (caught.value.id, caught.value.channel, caught.value.reason) == (receipt.id, USER, "invalid")


async def test_nobody_acknowledges_what_is_no_promise(bus: Bus) -> None:
    receipt = await bus.aemit("ann", "1", Live())
    with pytest.raises(NotAcknowledgeable):
        await receipt.delivered(5)
