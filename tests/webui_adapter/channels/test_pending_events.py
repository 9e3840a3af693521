"""Pending events of a user whose channel is read at the same time, in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from tests.webui_adapter.events import Note, Promise
from tests.webui_adapter.gateways import eventually
from tests.webui_adapter.parts import new_context
from tests.webui_adapter.world import USER, world
from webui_adapter.channels.redelivery import RedeliveryScheduler

__all__ = [
    "test_an_owed_event_that_begins_its_channel_while_a_newcomer_reads_is_not_left_for_later",
    "test_what_came_to_be_owed_in_a_gap_is_sent_all_the_same",
    "test_what_comes_between_the_question_what_is_owed_and_the_reading_is_not_left_for_later",
    "test_what_comes_while_it_is_asked_what_is_owed_is_known_to_be_owed",
    "test_what_is_owed_and_comes_while_a_newcomer_reads_is_not_left_for_later",
    "test_who_is_owed_nothing_is_not_asked_about",
]


async def test_who_is_owed_nothing_is_not_asked_about() -> None:
    async with world(ack_timeout=5) as own:
        asked: list[str] = []
        own.broker.fetch = asked.append  # type: ignore[assignment]
        own.publish(Note(n=1))
        line = own.connect(f"{USER}=0")
        await own.settled(line)
        assert line.page.got("gw.note") == [1]
        assert asked == []


async def test_what_came_to_be_owed_in_a_gap_is_sent_all_the_same() -> None:
    async with world(ack_timeout=0.05, log_limit=1) as own:
        line = own.connect()
        await own.settled(line)
        own.subscriber.deaf = True
        own.publish(Promise(n=1))
        own.publish(Note(n=2), Note(n=3))
        own.subscriber.deaf = False
        own.publish(Note(n=4))
        await eventually(lambda: line.page.gaps, "the gap")
        await eventually(lambda: line.page.got("gw.promise") == [1], "what is owed")


async def test_what_is_owed_and_comes_while_a_newcomer_reads_is_not_left_for_later() -> None:
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
        await eventually(lambda: second.page.got("gw.promise") == [2], "what is owed")


async def test_an_owed_event_that_begins_its_channel_while_a_newcomer_reads_is_not_left_for_later() -> None:
    async with world(ack_timeout=60) as own:
        own.reader.hold()
        first = own.connect()
        await eventually(lambda: (USER, None) in own.reader.read_and_held, "the reading")
        own.publish(Promise(n=1))
        own.reader.let_go()
        await eventually(lambda: first.page.got("gw.promise") == [1], "what is owed")


async def test_what_comes_between_the_question_what_is_owed_and_the_reading_is_not_left_for_later() -> None:
    async with world(ack_timeout=60) as own:
        own.publish(Promise(n=1))
        first = own.connect()
        await eventually(lambda: first.page.got("gw.promise") == [1], "what is owed")
        own.letters.open.clear()
        asked = own.letters.asked
        second = own.connect()
        await eventually(lambda: own.letters.asked > asked, "the question")
        own.publish(Promise(n=2))
        await eventually(lambda: first.page.got("gw.promise") == [1, 2], "the live event")
        own.letters.open.set()
        await eventually(lambda: sorted(second.page.got("gw.promise")) == [1, 2], "what is owed")


async def test_what_comes_while_it_is_asked_what_is_owed_is_known_to_be_owed() -> None:
    async with world(ack_timeout=60) as own:
        redelivery = RedeliveryScheduler(new_context(spawn=_no_tasks, clock=own.gateway.clock), own.letters, 60)
        own.letters.open.clear()
        asking = asyncio.create_task(redelivery.fetch(USER))
        await eventually(lambda: own.letters.asked, "the question")
        own.publish(Promise(n=1))
        [entry] = (await own.reader.read(USER, 0)).log
        redelivery.track(USER, entry.record)
        own.letters.open.set()
        assert not (await asking).records
        assert not redelivery.has_none(USER)


def _no_tasks(_: Coroutine[object, object, None]) -> None:
    raise AssertionError("nothing is to be begun")
