"""Pending events of a user whose channel is read at the same time, in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from tests.webui_adapter.events import Note, Promise
from tests.webui_adapter.gateways import eventually
from tests.webui_adapter.parts import new_context
from tests.webui_adapter.world import ONE, TWO, USER, world
from webui_adapter.channels.redelivery import RedeliveryScheduler


async def test_a_user_without_pending_events_costs_no_question() -> None:
    async with world(ack_timeout=5) as own:
        asked: list[str] = []
        own.broker.fetch = asked.append  # type: ignore[assignment]
        own.publish(Note(n=1))
        line = own.connect(f"{USER}=0")
        await own.settled(line)
        assert line.page.got("gw.note") == [1]
        assert asked == []


async def test_an_event_that_became_pending_in_a_gap_is_delivered() -> None:
    async with world(ack_timeout=0.05, log_limit=1) as own:
        line = own.connect()
        await own.settled(line)
        own.subscriber.deaf = True
        own.publish(Promise(n=1))
        own.publish(Note(n=2), Note(n=3))
        own.subscriber.deaf = False
        own.publish(Note(n=4))
        await eventually(lambda: line.page.gaps, "the gap")
        await eventually(lambda: line.page.got("gw.promise") == [1], "the pending event")


async def test_a_pending_event_that_arrives_while_a_new_session_reads_is_delivered_first() -> None:
    async with world(ack_timeout=60) as own:
        own.publish(Note(n=0))
        first = own.connect()
        await own.settled(first)
        own.publish(Note(n=1))
        await eventually(lambda: first.page.got("gw.note") == [1], "the channel to move on")
        own.reader.hold()
        second = own.connect()
        await eventually(lambda: own.reader.read_and_held, "the reading")
        own.publish(Promise(n=2))
        own.reader.let_go()
        await eventually(lambda: second.page.got("gw.promise") == [2], "the pending event")


async def test_a_pending_event_that_begins_its_channel_while_a_new_session_reads_is_delivered_first() -> None:
    async with world(ack_timeout=60) as own:
        own.reader.hold()
        first = own.connect()
        await eventually(lambda: (USER, None) in own.reader.read_and_held, "the reading")
        own.publish(Promise(n=1))
        own.reader.let_go()
        await eventually(lambda: first.page.got("gw.promise") == [1], "the pending event")


async def test_a_pending_event_between_the_fetch_and_the_reading_is_delivered_first() -> None:
    async with world(ack_timeout=60) as own:
        own.publish(Promise(n=1))
        first = own.connect()
        await eventually(lambda: first.page.got("gw.promise") == [1], "the pending event")
        own.pending_store.open.clear()
        asked = own.pending_store.asked
        second = own.connect()
        await eventually(lambda: own.pending_store.asked > asked, "the fetch")
        own.publish(Promise(n=2))
        await eventually(lambda: first.page.got("gw.promise") == [1, 2], "the live event")
        own.pending_store.open.set()
        await eventually(lambda: sorted(second.page.got("gw.promise")) == [1, 2], "the pending event")


async def test_a_page_gets_pending_events_of_the_topics_that_it_reads() -> None:
    async with world(ack_timeout=60) as own:
        line = own.connect()
        await own.settled(line)
        line.send("unsubscribe", f"{USER}:*")
        own.publish(Promise(n=1), topic=ONE)
        own.publish(Promise(n=2), topic=TWO)
        line.page.positions.pop(USER)
        line.send("subscribe", TWO)
        await own.settled(line)
        assert line.page.got("gw.promise") == [2]


async def test_an_event_that_arrives_during_the_fetch_is_known_as_pending() -> None:
    async with world(ack_timeout=60) as own:
        redelivery = RedeliveryScheduler(new_context(spawn=_no_tasks, clock=own.gateway.clock), own.pending_store, 60)
        own.pending_store.open.clear()
        asking = asyncio.create_task(redelivery.fetch(USER))
        await eventually(lambda: own.pending_store.asked, "the fetch")
        own.publish(Promise(n=1))
        [entry] = (await own.reader.read(USER, 0)).log
        redelivery.track(USER, entry.record)
        own.pending_store.open.set()
        assert not (await asking).records
        assert not redelivery.has_none(USER)


def _no_tasks(_: Coroutine[object, object, None]) -> None:
    raise AssertionError("nothing is to be begun")
