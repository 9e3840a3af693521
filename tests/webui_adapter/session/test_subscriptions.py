"""Sessions that subscribe while events arrive, and their cursors. Pure."""

from __future__ import annotations

import pytest

from eventbus.backends.pending import PendingBatch
from eventbus.protocol.cursor import Position
from eventbus.protocol.recovery import resume
from tests.webui_adapter.channels.test_hub import ONE, TWO, live
from tests.webui_adapter.parts import (
    EVENT_STREAM,
    USER,
    history,
    join,
    messages_of,
    new_session,
    publication,
    record,
    settle,
)
from webui_adapter.channels.hub import Hub


def test_live_events_wait_for_the_history() -> None:
    hub, channel, _ = live(3)
    late = new_session(hub)
    join(hub, late)
    hub.receive(USER, publication(3, record(4)))
    assert messages_of(late) == []
    settle(hub, late, channel, history(3, record(1), record(2), record(3)))
    assert messages_of(late) == [
        ("subscribed", ("snapshot", "e1", 0)),
        ("position", 3),
        ("event", 4),
        ("position", 4),
    ], "the first position ends the present state"
    hub.receive(USER, publication(4, record(5)))
    assert messages_of(late) == [("event", 5)]
    assert late.output in channel.whole


def test_a_history_that_is_ahead_of_what_is_live_is_not_repeated() -> None:
    hub, channel, _ = live(3)
    late = new_session(hub)
    join(hub, late, since=Position("e1", 2))
    settle(hub, late, channel, history(6, *(record(i) for i in range(1, 7))))
    assert messages_of(late) == [
        ("subscribed", ("resumed", "e1", 2)),
        *(("event", i) for i in (3, 4, 5, 6)),
        ("position", 6),
    ]
    assert late in channel.partial
    hub.receive(USER, publication(3, record(4), record(5)))
    assert messages_of(late) == []
    hub.receive(USER, publication(5, record(6), record(7)))
    assert messages_of(late) == [("event", 7)]
    assert late.output in channel.whole


@pytest.mark.parametrize("buffer", [10_000, 1])
def test_a_second_pattern_gets_its_state_and_the_first_misses_nothing(buffer: int) -> None:
    hub, channel, session = live(3, ONE, backlog_events=buffer)
    join(hub, session, TWO)
    assert session.subscriptions.channels[USER].recovery.after == 3, (
        "the reading has to show what comes for the first one meanwhile"
    )
    hub.receive(USER, publication(3, record(4, ONE), record(5, TWO), record(6, ONE)))
    states = (record(1, ONE, "latest"), record(2, TWO, "latest"))
    reading = history(5, *(record(i) for i in (1, 3)), record(4, ONE), record(5, TWO), snapshot=states)
    settle(hub, session, channel, reading)
    assert messages_of(session) == [
        ("subscribed", ("snapshot", "e1", 0)),
        ("event", 2),
        ("event", 4),
        ("position", 5),
        ("event", 6),
        ("position", 6),
    ]


def test_a_second_pattern_on_a_short_log_reports_a_gap_to_the_first() -> None:
    hub, channel, session = live(3, ONE)
    join(hub, session, TWO)
    settle(hub, session, channel, history(9, record(8, ONE), record(9, TWO), whole=False))
    assert messages_of(session) == [("gap", "trimmed"), ("subscribed", ("gap", "e1", 0)), ("position", 9)]


def test_a_new_epoch_while_a_second_pattern_recovers() -> None:
    hub, channel, session = live(3, ONE)
    join(hub, session, TWO)
    hub.receive(USER, publication(0, record(1, ONE), record(2, TWO), epoch="e2"))
    assert session.output.close_code is None
    settle(hub, session, channel, history(2, record(1, ONE), record(2, TWO), epoch="e2"))
    assert messages_of(session) == [("subscribed", ("snapshot", "e2", 0)), ("event", 1), ("position", 2)]


def test_a_forgotten_channel_while_a_second_pattern_recovers() -> None:
    hub, channel, session = live(3, ONE)
    join(hub, session, TWO)
    hub.channel_expired(channel)
    assert session.output.close_code is None
    settle(hub, session, channel, history(0))
    assert messages_of(session) == [("subscribed", ("snapshot", "", 0)), ("position", 0)]
    hub, channel, session = live(3, ONE)
    join(hub, session, TWO)
    hub.receive(USER, publication(3, record(4, ONE)))
    hub.channel_expired(channel)
    assert session.output.close_code == 4001, "what came meanwhile cannot be handed over any more"


def test_a_new_epoch_closes_a_session_with_undelivered_events() -> None:
    hub, _, session = live(3, ONE)
    join(hub, session, TWO)
    hub.receive(USER, publication(3, record(4, ONE)))
    hub.receive(USER, publication(0, record(1, ONE), epoch="e2"))
    assert session.output.close_code == 4001


def test_an_explicit_position_repeats_events_of_a_wider_pattern() -> None:
    """The page reads all of its channel, without its past; then it asks for one operation from the beginning."""
    hub, channel, session = live(3)
    join(hub, session, ONE, since=Position("", 0))
    settle(hub, session, channel, history(3, record(1, ONE), record(2, TWO), record(3, ONE)))
    assert messages_of(session) == [("subscribed", ("resumed", "e1", 0)), ("event", 1), ("event", 3), ("position", 3)]


def test_a_pattern_that_is_subscribed_again_gets_its_state() -> None:
    hub, channel, session = live(3, ONE, TWO)
    session.subscriptions.remove(ONE)
    state = record(4, ONE, "latest")
    hub.receive(USER, publication(3, state))
    assert messages_of(session) == []
    join(hub, session, ONE)
    settle(hub, session, channel, history(4, snapshot=(state,)))
    assert ("event", 4) in messages_of(session)


def test_queued_events_go_with_their_subscription() -> None:
    hub, _, session = live(3, ONE)
    session.output.pause_writing()
    hub.receive(USER, publication(3, record(4, ONE)))
    hub.leave(USER, session)
    assert session.subscriptions.remove(ONE) is not None
    session.output.resume_writing(1000)
    assert messages_of(session) == []
    assert session.output.counters["drop.unsubscribed"] == 1


def test_a_gap_while_a_second_pattern_recovers_is_reported_to_the_first() -> None:
    hub, channel, session = live(3, ONE)
    join(hub, session, TWO)
    hub.suspend(channel)
    reading = history(2, record(1, ONE), record(2, TWO), epoch="e2", snapshot=(record(1, ONE, "latest"),))
    resumption = hub.recover(channel, reading, 0)
    assert resumption is not None
    session.subscriptions.restart_after_gap(USER, resumption)
    assert messages_of(session) == [("gap", "epoch"), ("subscribed", ("gap", "e2", 0)), ("event", 1), ("position", 2)]
    settle(hub, session, channel, reading)
    assert messages_of(session) == [("subscribed", ("snapshot", "e2", 0)), ("position", 2)]


def test_a_gap_discards_queued_events_and_ends_the_hold() -> None:
    hub, channel, session = live(3, ONE, TWO)
    session.output.pause_writing()
    hub.receive(USER, publication(3, record(4, ONE, lane=2), record(5, TWO, lane=0), record(6, ONE, lane=2)))
    session.output.resume_writing(1)
    session.output.pause_writing()
    assert messages_of(session) == [("hold", 3), ("event", 5)]
    hub.suspend(channel)
    resumption = hub.recover(channel, history(1, record(1), epoch="e2"), 0)
    assert resumption is not None
    session.subscriptions.restart_after_gap(USER, resumption)
    assert [kind for kind, _ in messages_of(session)] == ["release", "gap", "subscribed", "position"]
    session.output.resume_writing(1000)
    assert messages_of(session) == []
    assert session.output.send_queue is None
    assert session.output.counters["drop.gap"] == 2


def test_the_buffer_of_a_replay_is_bounded_and_shows_as_a_hole() -> None:
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


def test_a_position_is_sent_only_as_news_and_never_past_queued_events() -> None:
    hub, channel, session = live(3, ONE)
    assert session.subscriptions.partial_channels() == [USER]
    hub.receive(USER, publication(3, record(4, TWO)))
    assert channel.position is not None
    session.subscriptions.send_position(USER, channel.position)
    session.subscriptions.send_position(USER, channel.position)
    session.subscriptions.send_position(USER, Position("e2", 90))
    assert messages_of(session) == [("position", 4)]
    session.output.pause_writing()
    hub.receive(USER, publication(4, record(5, ONE), record(6, TWO)))
    session.subscriptions.send_position(USER, Position("e1", 6))
    assert messages_of(session) == []


def test_pending_events_of_other_topics_are_not_delivered() -> None:
    hub = Hub()
    session = new_session(hub)
    channel = join(hub, session, ONE)
    subscription = session.subscriptions.channels[USER]
    subscription.pending = PendingBatch(Position("e1", 2), [record(1, TWO), record(2, ONE)], more=False)
    settle(hub, session, channel, history(2, record(1, TWO), record(2, ONE)))
    assert messages_of(session) == [
        ("subscribed", ("snapshot", "e1", 0)),
        ("hold", 0),
        ("event", 2),
        ("release", 0),
        ("position", 2),
    ]


def test_a_new_session_stays_when_its_channel_begins_an_epoch_during_the_reading() -> None:
    """It has nothing of the earlier epoch, so its buffered events can be dropped."""
    hub, channel, _ = live(3)
    late = new_session(hub)
    join(hub, late)
    hub.receive(USER, publication(3, record(4)))
    hub.receive(USER, publication(0, record(1), epoch="e2"))
    assert late.output.close_code is None
    settle(hub, late, channel, history(1, record(1), epoch="e2"))
    assert messages_of(late) == [("subscribed", ("snapshot", "e2", 0)), ("position", 1)]


def test_each_recovery_is_counted_by_its_kind() -> None:
    hub, channel, session = live(3)
    assert session.output.counters["resume.snapshot"] == 1
    join(hub, session, ONE, since=Position("e1", 1))
    settle(hub, session, channel, history(3, *(record(i) for i in range(1, 4))))
    join(hub, session, TWO, since=Position("e0", 1))
    settle(hub, session, channel, history(3, *(record(i) for i in range(1, 4))))
    counters = {name: count for name, count in session.output.counters.items() if name.startswith("resume.")}
    assert counters == {"resume.snapshot": 1, "resume.resumed": 1, "resume.gap": 1}


def test_states_that_are_dropped_while_a_second_pattern_recovers_are_read_again() -> None:
    hub, channel, session = live(0, ONE, backlog_events=3)
    join(hub, session, "system:*")
    system = hub.channels["system"]
    settle(hub, session, system, history(0))
    messages_of(session)
    session.output.pause_writing()
    states = tuple(record(i, ONE, "latest", lane=2, key=f"k{i}") for i in range(1, 4))
    hub.receive(USER, publication(0, *states))
    join(hub, session, TWO)
    hub.receive("system", publication(0, record(1, "system:alarm", lane=0)))
    assert session.output.counters["drop.shed"] == 1, "the oldest state made room for the urgent one"
    session.output.resume_writing(100_000)
    settle(hub, session, channel, history(3, snapshot=states))
    offsets = [what for kind, what in messages_of(session) if kind == "event"]
    assert offsets == [1, 1, 2, 3], "the urgent event of the other channel, then all of this one"


def test_the_resume_point_of_a_release_is_safe_when_the_queue_is_discarded() -> None:
    hub = Hub()
    session = new_session(hub, encoder=EVENT_STREAM)
    channel = join(hub, session)
    settle(hub, session, channel, history(3, *(record(i) for i in range(1, 4))))
    session.output.pause_writing()
    hub.receive(USER, publication(3, record(4, ONE, lane=2), record(5, ONE, lane=2), record(6, TWO, lane=0)))
    session.output.resume_writing(1)
    session.output.pause_writing()
    session.output.out.clear()
    session.output.discard(USER, "behind")
    (release,) = session.output.out
    assert release.startswith(b"id: user:42=e1.3\nevent: bus.release\n"), "4 and 5 were never sent"
