"""The hub and what a session reads of a channel: contiguity, repair, epochs; whole, partial and replaying readers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventbus.protocol.cursor import Position
from eventbus.protocol.records import Record
from eventbus.protocol.recovery import resume
from tests.webui_adapter.page import Page
from tests.webui_adapter.parts import (
    EVENT_STREAM,
    USER,
    frames_of,
    heard,
    history,
    join,
    new_session,
    publication,
    record,
    settle,
    told,
)
from webui_adapter.channels.channel import Channel
from webui_adapter.channels.hub import Hub
from webui_adapter.channels.validation import RecordValidator
from webui_adapter.protocol.commands import Subscribe
from webui_adapter.session.session import Session

ONE = f"{USER}:operation:1"
TWO = f"{USER}:operation:2"


def live(at: int = 3, *topics: str, **given: object) -> tuple[Hub, Channel, Session]:
    """A channel at an offset, and one session that is up to date there and has said nothing since."""
    hub = Hub()
    session = new_session(hub, **given)
    channel = None
    for topic in topics or (f"{USER}:*",):
        channel = join(hub, session, topic)
        settle(hub, session, channel, history(at, *(record(i) for i in range(1, at + 1))))
    assert channel is not None
    frames_of(session)
    return hub, channel, session


# --- contiguity --------------------------------------------------------------------------------------------------


def test_what_follows_is_handed_on() -> None:
    hub, channel, session = live(3)
    assert hub.receive(USER, publication(3, record(4), record(5)))
    assert hub.receive(USER, publication(5, record(6)))
    assert told(session) == [("event", 4), ("event", 5), ("event", 6)]
    assert channel.position == Position("e1", 6)


def test_a_hole_puts_the_channel_on_repair_and_what_was_missing_comes_in_order() -> None:
    hub, channel, session = live(3)
    assert not hub.receive(USER, publication(4, record(5)))
    assert not channel.live
    assert hub.receive(USER, publication(5, record(6)))
    assert told(session) == []
    resumption = hub.recover(channel, history(5, record(4), record(5)), 0)
    assert resumption is not None
    assert resumption.gap is None
    assert told(session) == [("event", 4), ("event", 5), ("event", 6)]
    assert channel.live


def test_a_publication_that_a_repair_has_overtaken_is_not_repeated() -> None:
    hub, channel, session = live(3)
    hub.suspend(channel)
    hub.recover(channel, history(6, *(record(i) for i in range(1, 7))), 0)
    assert told(session) == [("event", 4), ("event", 5), ("event", 6)]
    assert hub.receive(USER, publication(3, record(4), record(5)))
    assert hub.receive(USER, publication(5, record(6), record(7)))
    assert told(session) == [("event", 7)]


def test_a_reading_that_does_not_join_up_wants_a_newer_one() -> None:
    hub, channel, session = live(3)
    assert not hub.receive(USER, publication(6, record(7)))
    assert hub.recover(channel, history(5, record(4), record(5)), 0) is None
    assert not channel.live
    assert hub.recover(channel, history(7, *(record(i) for i in range(4, 8))), 0) is not None
    assert [offset for _, offset in told(session)] == [4, 5, 6, 7]


def test_a_hole_beyond_the_log_is_a_gap_and_then_the_present() -> None:
    hub, channel, session = live(3)
    hub.receive(USER, publication(9, record(10)))
    state = record(8, keep="latest")
    resumption = hub.recover(channel, history(10, record(9), record(10), snapshot=(state,), whole=False), 0)
    assert resumption is not None
    assert resumption.gap is not None
    for reader in hub.sessions_of(channel):
        reader.subscriptions.restart_after_gap(USER, resumption)
    assert told(session) == [("gap", "trimmed"), ("subscribed", ("gap", "e1", 3)), ("event", 8), ("position", 10)]
    assert hub.receive(USER, publication(10, record(11)))
    assert told(session) == [("event", 11)]


def test_a_repair_whose_buffer_overflowed_reads_again_although_the_log_is_trimmed() -> None:
    """A state among the dropped publications is in no reading that ends before it."""
    hub, channel, _ = live(3)
    hub._buffer_limit = 2
    hub.receive(USER, publication(4, record(5)))
    hub.receive(USER, publication(5, record(6, keep="latest")))
    hub.receive(USER, publication(6, record(7)))
    hub.receive(USER, publication(7, record(8)))
    assert hub.recover(channel, history(5, record(5), whole=False), 0) is None, "the state of offset 6 is missing"
    state = record(6, keep="latest")
    resumption = hub.recover(channel, history(8, record(7), record(8), snapshot=(state,), whole=False), 0)
    assert resumption is not None
    assert [one.offset for one in resumption.records] == [6]


def test_what_comes_for_a_channel_that_nobody_reads_is_nothing() -> None:
    assert Hub().receive(USER, publication(0, record(1)))


def test_the_buffer_of_a_repair_is_bounded() -> None:
    hub, _, _ = live(3)
    hub._buffer_limit = 10
    hub.receive(USER, publication(4, record(5)))
    for i in range(5, 100):
        hub.receive(USER, publication(i, record(i + 1)))
    channel = hub.channels[USER]
    assert channel.buffered is not None
    assert 0 < sum(len(waiting.records) for waiting in channel.buffered) <= 10
    assert hub.recover(channel, history(50, *(record(i) for i in range(4, 51))), 0) is None, "the rest was let go"
    assert hub.recover(channel, history(100, *(record(i) for i in range(4, 101))), 0) is not None


def test_an_event_that_is_too_large_is_dropped_and_counted_and_nothing_else_is() -> None:
    hub = Hub(RecordValidator(1024, counters := Counter()))
    session = new_session(hub)
    channel = join(hub, session, since=Position("", 0))
    settle(hub, session, channel, hub.validator.filter_history(USER, history(2, record(1, pad=2000), record(2))))
    hub.receive(USER, publication(2, record(3, pad=2000), record(4)))
    hub.receive(USER, publication(4, record(5, pad=2000)))
    hub.receive(USER, publication(5, record(6)))
    assert [offset for kind, offset in told(session) if kind == "event"] == [2, 4, 6]
    assert counters["drop.too_large"] == 3


# --- a channel's beginning, and its next life --------------------------------------------------------------------


def test_the_first_event_of_an_empty_channel_brings_the_epoch() -> None:
    hub, channel, session = live(0)
    assert channel.position == Position("", 0)
    assert hub.receive(USER, publication(0, record(1)))
    assert told(session) == [("subscribed", ("resumed", "e1", 0)), ("event", 1)]
    assert channel.position == Position("e1", 1)


def test_a_first_event_between_the_reading_and_the_repair_is_not_lost() -> None:
    hub = Hub()
    session = new_session(hub)
    channel = join(hub, session)
    assert hub.receive(USER, publication(0, record(1)))
    assert hub.recover(channel, history(0), 0) is None, "the reading is older than the event"
    settle(hub, session, channel, history(1, record(1)))
    assert channel.position == Position("e1", 1)


def test_a_publication_that_redis_has_lost_since_does_not_block_the_repair() -> None:
    hub = Hub()
    session = new_session(hub)
    channel = join(hub, session)
    hub.receive(USER, publication(0, record(1)))
    assert hub.recover(channel, history(0), 0) is None
    assert hub.recover(channel, history(0), 0) is not None, "a second reading that is empty tells the truth"


def test_an_empty_channel_whose_first_event_was_lost_on_the_way_gets_its_epoch_by_the_repair() -> None:
    hub, channel, session = live(0)
    assert not hub.receive(USER, publication(1, record(2)))
    hub.recover(channel, history(2, record(1), record(2)), 0)
    assert told(session) == [("subscribed", ("resumed", "e1", 0)), ("event", 1), ("event", 2)]


def test_another_epoch_while_listening_is_a_new_life_without_a_gap() -> None:
    hub, channel, session = live(3)
    assert hub.receive(USER, publication(0, record(1), record(2), epoch="e2"))
    assert told(session) == [("subscribed", ("resumed", "e2", 0)), ("event", 1), ("event", 2)]
    assert channel.position == Position("e2", 2)


def test_another_epoch_whose_beginning_was_missed_is_a_gap() -> None:
    hub, channel, session = live(3)
    assert not hub.receive(USER, publication(1, record(2), epoch="e2"))
    resumption = hub.recover(channel, history(2, record(1), record(2), epoch="e2"), 0)
    assert resumption is not None
    assert resumption.gap is not None
    session.subscriptions.restart_after_gap(USER, resumption)
    assert told(session) == [("gap", "epoch"), ("subscribed", ("gap", "e2", 0)), ("position", 2)]


def test_a_channel_that_redis_has_forgotten_begins_anew_with_its_next_event() -> None:
    hub, channel, session = live(3)
    hub.channel_expired(channel)
    assert told(session) == []
    assert hub.receive(USER, publication(0, record(1), epoch="e2"))
    assert told(session) == [("subscribed", ("resumed", "e2", 0)), ("event", 1)]


def test_a_slow_reader_of_a_channel_that_begins_anew_comes_back_for_it() -> None:
    hub, _, session = live(3)
    session.output.pause_writing()
    hub.receive(USER, publication(3, record(4)))
    hub.receive(USER, publication(0, record(1), epoch="e2"))
    assert session.output.close_code == 4001, "what waits is of another life, and would be taken for this one"


# --- who comes while things happen -------------------------------------------------------------------------------


def test_live_events_wait_for_the_history() -> None:
    hub, channel, _ = live(3)
    late = new_session(hub)
    join(hub, late)
    hub.receive(USER, publication(3, record(4)))
    assert told(late) == []
    settle(hub, late, channel, history(3, record(1), record(2), record(3)))
    assert told(late) == [("subscribed", ("snapshot", "e1", 0)), ("event", 4), ("position", 4)]
    hub.receive(USER, publication(4, record(5)))
    assert told(late) == [("event", 5)]
    assert late.output in channel.whole


def test_a_history_that_is_ahead_of_what_is_live_is_not_repeated() -> None:
    hub, channel, _ = live(3)
    late = new_session(hub)
    join(hub, late, since=Position("e1", 2))
    settle(hub, late, channel, history(6, *(record(i) for i in range(1, 7))))
    assert told(late) == [("subscribed", ("resumed", "e1", 2)), *(("event", i) for i in (3, 4, 5, 6)), ("position", 6)]
    assert late in channel.partial
    hub.receive(USER, publication(3, record(4), record(5)))
    assert told(late) == []
    hub.receive(USER, publication(5, record(6), record(7)))
    assert told(late) == [("event", 7)]
    assert late.output in channel.whole


@pytest.mark.parametrize("buffer", [10_000, 1])
def test_a_second_pattern_brings_its_state_and_costs_the_first_nothing(buffer: int) -> None:
    hub, channel, session = live(3, ONE, backlog_events=buffer)
    join(hub, session, TWO)
    assert session.subscriptions.channels[USER].recovery.after == 3, (
        "the reading has to show what comes for the first one meanwhile"
    )
    hub.receive(USER, publication(3, record(4, ONE), record(5, TWO), record(6, ONE)))
    states = (record(1, ONE, "latest"), record(2, TWO, "latest"))
    reading = history(5, *(record(i) for i in (1, 3)), record(4, ONE), record(5, TWO), snapshot=states)
    settle(hub, session, channel, reading)
    assert told(session) == [
        ("subscribed", ("snapshot", "e1", 0)),
        ("event", 2),
        ("event", 4),
        ("event", 6),
        ("position", 6),
    ]


def test_a_second_pattern_that_comes_when_the_log_is_short_tells_the_first_of_its_gap() -> None:
    hub, channel, session = live(3, ONE)
    join(hub, session, TWO)
    settle(hub, session, channel, history(9, record(8, ONE), record(9, TWO), whole=False))
    assert told(session) == [("gap", "trimmed"), ("subscribed", ("gap", "e1", 0)), ("position", 9)]


def test_a_new_life_while_a_second_pattern_is_brought() -> None:
    hub, channel, session = live(3, ONE)
    join(hub, session, TWO)
    hub.receive(USER, publication(0, record(1, ONE), record(2, TWO), epoch="e2"))
    assert session.output.close_code is None
    settle(hub, session, channel, history(2, record(1, ONE), record(2, TWO), epoch="e2"))
    assert told(session) == [("subscribed", ("snapshot", "e2", 0)), ("event", 1), ("position", 2)]


def test_a_channel_that_redis_has_forgotten_while_a_second_pattern_is_brought() -> None:
    hub, channel, session = live(3, ONE)
    join(hub, session, TWO)
    hub.channel_expired(channel)
    assert session.output.close_code is None
    settle(hub, session, channel, history(0))
    assert told(session) == [("subscribed", ("snapshot", "", 0)), ("position", 0)]
    hub, channel, session = live(3, ONE)
    join(hub, session, TWO)
    hub.receive(USER, publication(3, record(4, ONE)))
    hub.channel_expired(channel)
    assert session.output.close_code == 4001, "what came meanwhile cannot be handed over any more"


def test_a_new_life_takes_nothing_with_it_that_was_not_handed_over() -> None:
    hub, _, session = live(3, ONE)
    join(hub, session, TWO)
    hub.receive(USER, publication(3, record(4, ONE)))
    hub.receive(USER, publication(0, record(1, ONE), epoch="e2"))
    assert session.output.close_code == 4001


def test_an_explicit_place_brings_again_what_a_wider_pattern_has_passed() -> None:
    """The page reads all of its channel, without its past; then it asks for one operation from the beginning."""
    hub, channel, session = live(3)
    join(hub, session, ONE, since=Position("", 0))
    settle(hub, session, channel, history(3, record(1, ONE), record(2, TWO), record(3, ONE)))
    assert told(session) == [("subscribed", ("resumed", "e1", 0)), ("event", 1), ("event", 3), ("position", 3)]


def test_a_pattern_that_was_given_up_brings_its_state_when_it_comes_back() -> None:
    hub, channel, session = live(3, ONE, TWO)
    session.subscriptions.remove(ONE)
    state = record(4, ONE, "latest")
    hub.receive(USER, publication(3, state))
    assert told(session) == []
    join(hub, session, ONE)
    settle(hub, session, channel, history(4, snapshot=(state,)))
    assert ("event", 4) in told(session)


def test_what_waits_of_a_channel_goes_with_its_subscription() -> None:
    hub, _, session = live(3, ONE)
    session.output.pause_writing()
    hub.receive(USER, publication(3, record(4, ONE)))
    hub.leave(USER, session)
    assert session.subscriptions.remove(ONE) is not None
    session.output.resume_writing(1000)
    assert told(session) == []
    assert session.output.counters["drop.unsubscribed"] == 1


def test_a_gap_while_a_second_pattern_is_brought_is_told_to_the_first() -> None:
    hub, channel, session = live(3, ONE)
    join(hub, session, TWO)
    hub.suspend(channel)
    reading = history(2, record(1, ONE), record(2, TWO), epoch="e2", snapshot=(record(1, ONE, "latest"),))
    resumption = hub.recover(channel, reading, 0)
    assert resumption is not None
    session.subscriptions.restart_after_gap(USER, resumption)
    assert told(session) == [("gap", "epoch"), ("subscribed", ("gap", "e2", 0)), ("event", 1), ("position", 2)]
    settle(hub, session, channel, reading)
    assert told(session) == [("subscribed", ("snapshot", "e2", 0)), ("position", 2)]


def test_a_gap_ends_what_waited_and_the_hold() -> None:
    hub, channel, session = live(3, ONE, TWO)
    session.output.pause_writing()
    hub.receive(USER, publication(3, record(4, ONE, lane=2), record(5, TWO, lane=0), record(6, ONE, lane=2)))
    session.output.resume_writing(1)
    session.output.pause_writing()
    assert told(session) == [("hold", 3), ("event", 5)]
    hub.suspend(channel)
    resumption = hub.recover(channel, history(1, record(1), epoch="e2"), 0)
    assert resumption is not None
    session.subscriptions.restart_after_gap(USER, resumption)
    assert [kind for kind, _ in told(session)] == ["release", "gap", "subscribed", "position"]
    session.output.resume_writing(1000)
    assert told(session) == []
    assert session.output.send_queue is None
    assert session.output.counters["drop.gap"] == 2


def test_what_is_buffered_for_a_replay_is_bounded_and_shows_as_a_hole() -> None:
    hub, _, _ = live(3)
    late = new_session(hub, backlog_events=5)
    join(hub, late)
    for i in range(4, 20):
        hub.receive(USER, publication(i - 1, record(i)))
    buffered_live = late.subscriptions.channels[USER].recovery.buffered_live
    assert len(buffered_live) <= 5
    old = resume(None, history(10, record(1)), buffered_live, 0)
    assert old.gap is not None
    assert old.gap.reason == "hole"


# --- cursors -----------------------------------------------------------------------------------------------------


def test_the_cursor_of_a_session() -> None:
    hub = Hub()
    session = new_session(hub, encoder=EVENT_STREAM)
    assert session.output.cursor() == {}
    join(hub, session, f"{USER}:*", Position("e1", 7))
    assert session.output.cursor() == {USER: Position("e1", 7)}, "asked for and not yet brought: that is where it is"
    join(hub, session, "system:*")
    assert "system" not in session.output.cursor(), (
        "of a channel that starts now there is no place before it was brought"
    )
    settle(hub, session, hub.channels["system"], history(0))
    assert session.output.cursor()["system"] == Position("", 0), "an empty channel has one: before its first event"
    settle(hub, session, hub.channels[USER], history(9, record(8), record(9)))
    assert session.output.cursor()[USER] == Position("e1", 9)
    session.output.pause_writing()
    hub.receive(USER, publication(9, record(10, ONE, lane=2), record(11, TWO, lane=0)))
    assert session.output.cursor()[USER] == Position("e1", 9)
    session.output.resume_writing(1)
    assert session.output.cursor()[USER] == Position("e1", 9), "on hold: what is safe"
    session.output.resume_writing(1000)
    assert session.output.cursor()[USER] == Position("e1", 11)


def test_a_position_is_told_only_as_news_and_never_past_what_waits() -> None:
    hub, channel, session = live(3, ONE)
    assert session.subscriptions.partial_channels() == [USER]
    hub.receive(USER, publication(3, record(4, TWO)))
    assert channel.position is not None
    session.subscriptions.send_position(USER, channel.position)
    session.subscriptions.send_position(USER, channel.position)
    session.subscriptions.send_position(USER, Position("e2", 90))
    assert told(session) == [("position", 4)]
    session.output.pause_writing()
    hub.receive(USER, publication(4, record(5, ONE), record(6, TWO)))
    session.subscriptions.send_position(USER, Position("e1", 6))
    assert told(session) == []


# --- fast and partial path ---------------------------------------------------------------------------------------


@given(
    st.lists(
        st.lists(
            st.sampled_from([(ONE, "log", 1), (TWO, "log", 0), (ONE, "latest", 2), (TWO, "nothing", 1)]),
            min_size=1,
            max_size=4,
        ),
        max_size=8,
    ),
    st.data(),
)
def test_the_whole_channels_way_and_the_partial_one_say_the_same(  # noqa: C901 - three ways side by side
    batches: list[list[tuple[str, str, int]]], data: st.DataObject
) -> None:
    """One reads everything by ``*``; one by all its patterns; one over SSE: whatever blocks when, all see the same."""
    hub = Hub()
    readers = [new_session(hub), new_session(hub), new_session(hub, encoder=EVENT_STREAM)]
    wanted = [(f"{USER}:*",), (ONE, TWO), (f"{USER}:*",)]
    for reader, topics in zip(readers, wanted, strict=True):
        for topic in topics:
            channel = join(hub, reader, topic)
            settle(hub, reader, channel, history(3, record(3)))
    offset = 3
    for reader in readers:
        reader.output.out.clear()
    said: list[bytes] = []
    for batch in batches:
        records = [record(offset + i, topic, keep, lane) for i, (topic, keep, lane) in enumerate(batch, 1)]
        hub.receive(USER, publication(offset, *records))
        offset += len(batch)
        match data.draw(st.sampled_from(["block", "resume_writing", "nothing"])):
            case "block":
                for reader in readers:
                    reader.output.pause_writing()
            case "resume_writing":
                for reader in readers:
                    reader.output.resume_writing(300)
    for reader in readers:
        while reader.output.send_queue is not None:
            reader.output.resume_writing(300)
    assert {session.output in hub.channels[USER].whole for session in readers[::2]} == {True}
    assert readers[1] in hub.channels[USER].partial
    whole, partial = (frames_of(reader) for reader in readers[:2])
    strip = [{**frame, "time": 0} for frame in whole]
    assert strip == [{**frame, "time": 0} for frame in partial]
    stream = b"".join(readers[2].output.out)
    said = [line[6:] for line in stream.split(b"\n") if line.startswith(b"data: ")]
    import json  # noqa: PLC0415 - read next to its use

    assert [{**json.loads(frame), "time": 0} for frame in said] == strip


def test_a_session_that_keeps_up_costs_an_append_of_shared_bytes() -> None:
    hub, _, session = live(3)
    other = new_session(hub)
    settle(hub, other, join(hub, other), history(3, record(3)))
    other.output.out.clear()
    hub.dirty.clear()
    hub.receive(USER, publication(3, *(record(i) for i in range(4, 9))))
    assert len(session.output.out) == 1
    assert session.output.out[0] is other.output.out[0]
    hub.receive(USER, publication(8, record(9)))
    assert len(session.output.out) == 2
    assert hub.dirty.count(session.output) == 1


def test_deliveries_are_counted_exactly() -> None:
    hub, _, _ = live(3)
    for topic in (ONE, TWO, TWO):
        reader = new_session(hub)
        settle(hub, reader, join(hub, reader, topic), history(3, record(3)))
    before = hub.deliveries
    hub.receive(USER, publication(3, record(4, ONE), record(5, ONE), record(6, TWO)))
    assert hub.deliveries - before == 3 + 2 + 1 + 1
    assert sum(receivers for _, receivers in hub.routed) == hub.deliveries - before


# --- all of it, against a page -----------------------------------------------------------------------------------


def _lossy(data: st.DataObject, hub: Hub, channel: Channel, log: list[Record], sent: int) -> int:
    """Publish some of the log from ``sent`` on, lose some of it on the way, repair what shows."""
    while sent < len(log):
        size = data.draw(st.integers(1, 4))
        batch = log[sent : sent + size]
        sent += len(batch)
        if data.draw(st.booleans()):
            continue
        if not hub.receive(USER, publication(batch[0].offset - 1, *batch)) or not channel.live:
            reading = log[: data.draw(st.integers(sent - len(batch), len(log)))]
            while hub.recover(channel, history(len(reading), *reading), 0) is None:
                reading = log
            return max(sent, 0)
    return sent


@given(st.integers(1, 30), st.data())
def test_a_page_gets_each_event_once_in_order_whatever_is_lost_on_the_way(count: int, data: st.DataObject) -> None:
    hub = Hub()
    log = [record(i) for i in range(1, count + 1)]
    session = new_session(hub)
    page = Page()
    channel = join(hub, session, since=Position("", 0))
    settle(hub, session, channel, history(0))
    sent = 0
    while sent < len(log):
        sent = _lossy(data, hub, channel, log, sent)
    hub.suspend(channel)
    assert hub.recover(channel, history(count, *log), 0) is not None
    heard(session, page)
    offsets = [event["offset"] for event in page.events]
    assert offsets == list(range(1, count + 1))
    assert all(a < b for a, b in pairwise(offsets))
    assert page.cursor == f"{USER}=e1.{count}"


Check = Callable[[Session], None]


@pytest.mark.parametrize("encoder", ["whole", "partial"])
def test_a_publication_in_the_middle_of_a_flush_is_not_lost(encoder: str) -> None:
    """A line's flush makes the hub hand on more: it comes with the next write, not twice and not never."""
    hub, _, session = live(3, *((ONE, TWO) if encoder == "partial" else ()))
    hub.receive(USER, publication(3, record(4, ONE)))
    taken = list(session.output.out)
    session.output.out.clear()
    hub.dirty.clear()
    hub.receive(USER, publication(4, record(5, TWO)))
    assert hub.dirty == [session.output]
    session.output.out[:0] = taken
    assert told(session) == [("event", 4), ("event", 5)]


def test_a_replay_asks_for_an_idle_moment() -> None:
    _, _, session = live(3)
    calls: list[int] = []
    session.output.call_when_idle(lambda: calls.append(1))
    assert calls == [1]
    session.output.pause_writing()
    session.output.call_when_idle(lambda: calls.append(2))
    session.output.call_when_idle(lambda: calls.append(3))
    assert calls == [1]
    session.output.resume_writing(1000)
    assert calls == [1, 2, 3]


def test_an_idle_moment_lasts_until_something_is_written() -> None:
    _, _, session = live(3)
    calls: list[int] = []
    session.output.pause_writing()
    session.output.call_when_idle(lambda: session.send("bus.ok", {}))
    session.output.call_when_idle(lambda: calls.append(2))
    session.output.resume_writing(1000)
    assert calls == []
    session.output.out.clear()
    session.output.resume_writing(1000)
    assert calls == [2]


def test_commands_of_one_view_are_told_apart() -> None:
    subscription = new_session().subscriptions.add(Subscribe(ONE, None, "a"), 0)
    assert subscription.recovery is not None
    assert subscription.recovery.since is None
    assert subscription.recovery.command.ref == "a"
