"""Races between reading, live events, and what a page does meanwhile; in one process, with readings held at will."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from eventbus.errors import Unavailable
from tests.webui_adapter.events import Note, Progress
from tests.webui_adapter.gateways import eventually
from tests.webui_adapter.page import Page
from tests.webui_adapter.world import ONE, TWO, USER, PageLine, World, turns, world
from webui_adapter.session.states import State

Held = Callable[[], Awaitable[None]]


async def test_a_first_event_that_comes_while_an_empty_channel_is_read_is_not_lost() -> None:
    async with world() as own:
        own.reader.hold()
        line = own.connect()
        await eventually(lambda: (USER, None) in own.reader.read_and_held, "the reading")
        own.publish(Note(n=1))
        await turns()
        own.reader.let_go()
        await own.settled(line)
        assert line.page.got("gw.note") == []
        own.publish(Note(n=2))
        await eventually(lambda: line.page.got("gw.note") == [2], "the second event")
        track = line.page.positions[USER]
        assert (track.offset, bool(track.epoch)) == (2, True)


async def test_the_same_for_a_page_that_comes_from_the_beginning() -> None:
    async with world() as own:
        own.reader.hold()
        line = own.connect(f"{USER}=0")
        await eventually(lambda: len(own.reader.read_and_held) >= 2, "the readings")
        own.publish(Note(n=1))
        await turns()
        own.reader.let_go()
        await eventually(lambda: line.page.got("gw.note") == [1], "the event")


async def test_events_while_a_history_is_read_come_once_and_in_order() -> None:
    async with world() as own:
        own.publish(Note(n=1))
        first = own.connect()
        await own.settled(first)
        own.reader.hold()
        line = own.connect(f"{USER}=0")
        await eventually(lambda: own.reader.read_and_held, "the reading")
        own.publish(Note(n=2), Note(n=3))
        await eventually(lambda: first.page.got("gw.note") == [2, 3], "the live events")
        own.reader.let_go()
        await eventually(lambda: line.page.got("gw.note") == [1, 2, 3], "all of them")


async def test_many_new_sessions_share_a_reading() -> None:
    async with world() as own:
        own.publish(Note(n=1))
        first = own.connect()
        await own.settled(first)
        own.publish(Note(n=2))
        await turns()
        before = own.reader.reads
        lines = [own.connect(f"{USER}=0") for _ in range(7)]
        for line in lines:
            await eventually(lambda: line.page.got("gw.note") == [1, 2], "the history")  # noqa: B023 - waited for here
        assert own.reader.reads - before == 1
        own.publish(Note(n=3))
        late = own.connect(f"{USER}=0")
        await eventually(lambda: late.page.got("gw.note") == [1, 2, 3], "another reading for who comes later")


async def gone(own: World, line: PageLine) -> None:
    """The page disconnects, and the gateway forgets its channels."""
    own.gateway.disconnect(line.session, 1006)
    assert USER not in own.gateway.hub.channels


@pytest.mark.parametrize("pages", [500, 2])
async def test_a_returning_session_is_served_by_the_reading_that_opens_the_channel(pages: int) -> None:
    async with world(replay_events=pages) as own:
        line = own.connect()
        await own.settled(line)
        own.publish(Note(n=1), Progress(done=1))
        await eventually(lambda: line.page.got("gw.note") == [1], "the first event")
        await gone(own, line)
        own.publish(*(Note(n=n) for n in range(2, 8)), Progress(done=2))
        await turns()
        before = own.reader.reads
        back = own.connect(line.page)
        await own.settled(back)
        assert back.page.got("gw.note") == [1, 2, 3, 4, 5, 6, 7], "each once, in order"
        assert own.reader.reads - before == 2 + (pages == 2) * 2, "one of system, one of the user's, and further pages"
        own.publish(Note(n=8))
        await eventually(lambda: back.page.got("gw.note")[-1] == 8, "what comes next")
        new = own.connect()
        await own.settled(new)
        assert new.page.got("gw.note") == [], "a past that was read for another is not theirs"


async def test_returning_sessions_with_different_cursors_each_get_what_they_missed() -> None:
    async with world() as own:
        early, late = own.connect(), own.connect()
        await own.settled(early)
        await own.settled(late)
        own.publish(Note(n=1))
        await eventually(lambda: early.page.got("gw.note") == late.page.got("gw.note") == [1], "the first event")
        own.gateway.disconnect(early.session, 1006)
        own.publish(Note(n=2), Note(n=3))
        await eventually(lambda: late.page.got("gw.note") == [1, 2, 3], "what one of them misses")
        await gone(own, late)
        own.publish(Note(n=4))
        await turns()
        for order in ((late, early), (early, late)):
            first, second = (own.connect(Page(line.page.cursor)) for line in order)
            for line in (first, second):
                await own.settled(line)
            got = [line.page.got("gw.note") for line in (first, second)]
            assert got == [[4], [2, 3, 4]] if order[0] is late else [[2, 3, 4], [4]]
            own.gateway.disconnect(first.session, 1006)
            await gone(own, second)


async def test_a_cursor_of_an_earlier_epoch_is_a_gap() -> None:
    async with world() as own:
        line = own.connect(f"{USER}=0123abcd.5")
        own.publish(Note(n=1))
        await own.settled(line)
        assert [event["reason"] for event in line.page.data_of("bus.gap")] == ["epoch"]


async def test_a_state_that_arrives_while_a_page_of_another_epoch_is_read_is_not_lost() -> None:
    """The session's buffer overflows during the reading, so the state is neither in the reading nor in the buffer."""
    async with world(backlog_events=2) as own:
        own.publish(Note(n=1))
        first = own.connect()
        await own.settled(first)
        own.reader.hold()
        line = own.connect(f"{USER}=0123abcd.5")
        await eventually(lambda: own.reader.read_and_held, "the reading")
        own.publish(Progress(done=7))
        own.publish(Note(n=2))
        own.publish(Note(n=3))
        await eventually(lambda: first.page.got("gw.note") == [2, 3], "the live events")
        own.reader.let_go()
        await own.settled(line)
        assert [event["reason"] for event in line.page.data_of("bus.gap")] == ["epoch"]
        assert line.page.got("gw.progress", "done") == [7]


async def test_a_shared_reading_that_is_too_old_for_the_last_session_is_not_enough() -> None:
    async with world() as own:
        own.publish(Note(n=1))
        first = own.connect()
        await own.settled(first)
        own.publish(Note(n=2))
        await eventually(lambda: first.page.got("gw.note") == [2], "the live event")
        own.reader.hold()
        early = own.connect(f"{USER}=0")
        await eventually(lambda: own.reader.read_and_held, "the reading")
        own.publish(Note(n=3))
        await eventually(lambda: first.page.got("gw.note") == [2, 3], "the live event")
        late = own.connect(f"{USER}=0")
        await turns()
        own.reader.let_go()
        for line in (early, late):
            await own.settled(line)
            assert line.page.got("gw.note") == [1, 2, 3]


async def test_an_unused_channel_is_not_subscribed_again() -> None:
    async with world() as own:
        own.reader.error = Unavailable("away")
        line = own.connect()
        await eventually(lambda: own.reader.reads, "the first try")
        recover = own.gateway._session_recovery.channel_recovery._under_way[USER]
        own.gateway.disconnect(line.session, 1006)
        await turns()
        assert recover.cancelled()
        assert own.subscriber.asked[-2:] == [("unsubscribe", USER), ("unsubscribe", "system")]


async def test_two_overlapping_subscriptions_each_get_their_history_and_answer() -> None:
    """The default pattern starts now; the page asks for one operation from the beginning before that has come."""
    async with world() as own:
        own.publish(Note(n=1))
        own.publish(Note(n=7), topic=TWO)
        own.reader.hold()
        line = own.connect()
        line.send("subscribe", ONE, **{"from": "0"}, ref="a")
        line.send("subscribe", TWO, ref="b")
        await turns()
        own.reader.let_go()
        await own.settled(line)
        assert line.page.got("gw.note") == [1]
        answers = {event["ref"]: event["how"] for event in line.page.data_of("bus.subscribed") if "ref" in event}
        assert answers == {"a": "resumed", "b": "snapshot"}


async def test_unsubscribe_and_subscribe_again_while_the_first_is_still_being_read() -> None:
    async with world() as own:
        own.publish(Note(n=1), topic="collection:7:events")
        own.publish(Progress(done=1), topic="collection:7:events")
        line = own.connect(collections=["7"])
        await own.settled(line)
        own.reader.hold()
        line.send("subscribe", "collection:7:*", ref="a")
        await eventually(lambda: ("collection:7", None) in own.reader.read_and_held, "the first reading")
        line.send("unsubscribe", "collection:7:*", ref="b")
        line.send("subscribe", "collection:7:*", **{"from": "0"}, ref="c")
        await turns()
        own.reader.let_go()
        await own.settled(line, "collection:7")
        assert line.page.got("gw.note") == [1], "the second one asked for the past, and gets it"
        assert [event["ref"] for event in line.page.data_of("bus.subscribed") if "ref" in event] == ["c"]
        assert [ask for ask in own.subscriber.asked if ask[1] == "collection:7"][-2:] == [
            ("unsubscribe", "collection:7"),
            ("subscribe", "collection:7"),
        ]
        own.publish(Note(n=2), topic="collection:7:events")
        await eventually(lambda: line.page.got("gw.note") == [1, 2], "live events")


async def test_a_queued_subscription_begins_when_the_one_before_is_unsubscribed() -> None:
    async with world() as own:
        line = own.connect(collections=["7"])
        await own.settled(line)
        own.reader.hold()
        line.send("subscribe", "collection:7:a", ref=1)
        await eventually(lambda: "collection:7" in line.session.subscriptions.channels, "the first one to begin")
        line.send("subscribe", "collection:7:b", ref=2)
        line.send("subscribe", "collection:7:c", ref=3)
        await eventually(
            lambda: len(line.session.subscriptions.channels["collection:7"].queued_commands) == 2, "the others to wait"
        )
        line.send("unsubscribe", "collection:7:c")
        line.send("unsubscribe", "collection:7:a")
        own.reader.let_go()
        await own.settled(line, "collection:7")
        assert list(line.session.subscriptions.channels["collection:7"].patterns) == ["collection:7:b"]
        own.publish(Note(n=1), topic="collection:7:b")
        own.publish(Note(n=2), topic="collection:7:c")
        own.publish(Note(n=3), topic="collection:7:b")
        await eventually(lambda: line.page.got("gw.note") == [1, 3], "what was asked for")


async def test_a_channel_that_is_left_during_its_recovery_and_joined_again() -> None:
    async with world() as own:
        own.publish(Note(n=1))
        own.reader.hold()
        line = own.connect()
        await eventually(lambda: own.reader.read_and_held, "the first reading")
        own.gateway.disconnect(line.session, 1006)
        again = own.connect(f"{USER}=0")
        own.publish(Note(n=2))
        await turns()
        own.reader.let_go()
        await eventually(lambda: again.page.got("gw.note") == [1, 2], "everything")
        asked = [ask for ask, channel in own.subscriber.asked if channel == USER]
        assert asked[-2:] == ["unsubscribe", "subscribe"]
        assert line.page.events == []
        assert set(own.gateway.hub.channels) == {USER, "system"}


async def test_a_session_that_ends_during_its_recovery_leaves_nothing() -> None:
    async with world() as own:
        own.reader.hold()
        lines = [own.connect() for _ in range(5)]
        lines[0].session.output.pause_writing()
        await turns()
        for line in lines:
            own.gateway.disconnect(line.session, 1006)
        own.reader.let_go()
        await turns(50)
        gateway = own.gateway
        assert not gateway.sessions
        assert not gateway.hub.channels
        assert all(line.session.output.transport is None for line in lines)
        assert not gateway._session_recovery._waiting_sessions
        assert not gateway._deadlines._wheel._where
        assert not gateway._history_reader._under_way
        assert not gateway._session_recovery.channel_recovery._under_way
        assert gateway.connection_limits.connections == 0
        assert not gateway.connection_limits._of_user
        assert not own.broker._listeners[USER]
        # Of the deadlines, of the idle channels and of the revocations.
        await eventually(lambda: len(gateway._tasks) == 3, "all tasks but three to end")
        assert all(line.session.state is State.CLOSED for line in lines)
