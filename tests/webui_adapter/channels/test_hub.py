"""The hub and what a session reads of a channel: contiguity, recovery, epochs; whole, partial and replaying readers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from eventbus.protocol.cursor import Position
from eventbus.protocol.history import History
from eventbus.protocol.records import Record
from tests.webui_adapter.parts import (
    USER,
    frames_of,
    history,
    join,
    messages_of,
    new_session,
    publication,
    record,
    settle,
)
from webui_adapter.channels.channel import Channel
from webui_adapter.channels.hub import Hub
from webui_adapter.channels.validation import RecordValidator
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


def test_a_publication_that_follows_is_delivered() -> None:
    hub, channel, session = live(3)
    assert hub.receive(USER, publication(3, record(4), record(5)))
    assert hub.receive(USER, publication(5, record(6)))
    assert messages_of(session) == [("event", 4), ("event", 5), ("event", 6)]
    assert channel.position == Position("e1", 6)


def test_a_hole_suspends_the_channel_and_missing_events_follow_in_order() -> None:
    hub, channel, session = live(3)
    assert not hub.receive(USER, publication(4, record(5)))
    assert not channel.live
    assert hub.receive(USER, publication(5, record(6)))
    assert messages_of(session) == []
    resumption = hub.recover(channel, history(5, record(4), record(5)), 0)
    assert resumption is not None
    assert resumption.gap is None
    assert messages_of(session) == [("event", 4), ("event", 5), ("event", 6)]
    assert channel.live


def test_a_publication_that_a_recovery_has_overtaken_is_not_repeated() -> None:
    hub, channel, session = live(3)
    hub.suspend(channel)
    hub.recover(channel, history(6, *(record(i) for i in range(1, 7))), 0)
    assert messages_of(session) == [("event", 4), ("event", 5), ("event", 6)]
    assert hub.receive(USER, publication(3, record(4), record(5)))
    assert hub.receive(USER, publication(5, record(6), record(7)))
    assert messages_of(session) == [("event", 7)]


def test_an_offset_that_goes_back_is_a_loss() -> None:
    hub, channel, session = live(3)
    hub.receive(USER, publication(3, record(4)))
    assert not hub.receive(USER, publication(2, record(3))), "it has not been overtaken by a recovery"
    assert channel.went_back
    assert not channel.live
    assert messages_of(session) == [("event", 4)]


@pytest.mark.parametrize("arrived", [False, True])
def test_an_offset_that_goes_back_soon_after_a_recovery_is_a_loss_once_a_canary_has_arrived(arrived: bool) -> None:
    hub, channel, _ = live(3)
    hub.suspend(channel)
    hub.recover(channel, history(6, *(record(i) for i in range(4, 7))), 0)
    readings = hub.overlaps.readings()
    if arrived:
        hub.overlaps.end(readings, hub.channels)
    assert hub.receive(USER, publication(4, record(5))) is not arrived
    assert channel.went_back is arrived


def test_an_offset_below_the_last_one_that_arrived_is_a_loss_also_soon_after_a_recovery() -> None:
    hub, channel, _ = live(3)
    hub.suspend(channel)
    hub.recover(channel, history(6, *(record(i) for i in range(4, 7))), 0)
    assert hub.receive(USER, publication(3, record(4))), "the recovery has overtaken it"
    assert not hub.receive(USER, publication(2, record(3))), "publications arrive in order"
    assert channel.went_back


def test_a_canary_from_before_a_reading_proves_nothing_about_it() -> None:
    hub, channel, _ = live(3)
    readings = hub.overlaps.readings()
    hub.suspend(channel)
    hub.recover(channel, history(6, *(record(i) for i in range(4, 7))), 0)
    hub.overlaps.end(readings, hub.channels)
    assert hub.receive(USER, publication(3, record(4)))
    assert not channel.went_back


def test_a_reading_that_does_not_join_needs_a_newer_one() -> None:
    hub, channel, session = live(3)
    assert not hub.receive(USER, publication(6, record(7)))
    assert hub.recover(channel, history(5, record(4), record(5)), 0) is None
    assert not channel.live
    assert hub.recover(channel, history(7, *(record(i) for i in range(4, 8))), 0) is not None
    assert [offset for _, offset in messages_of(session)] == [4, 5, 6, 7]


def test_a_hole_beyond_the_log_is_a_gap_and_then_the_present_state() -> None:
    hub, channel, session = live(3)
    hub.receive(USER, publication(9, record(10)))
    state = record(8, keep="latest")
    resumption = hub.recover(channel, history(10, record(9), record(10), snapshot=(state,), whole=False), 0)
    assert resumption is not None
    assert resumption.gap is not None
    for reader in hub.sessions_of(channel):
        reader.subscriptions.restart_after_gap(USER, resumption)
    assert messages_of(session) == [
        ("gap", "trimmed"),
        ("subscribed", ("gap", "e1", 3)),
        ("event", 8),
        ("position", 10),
    ]
    assert hub.receive(USER, publication(10, record(11)))
    assert messages_of(session) == [("event", 11)]


def test_a_recovery_whose_buffer_overflowed_reads_again_although_the_log_is_trimmed() -> None:
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


def test_a_publication_of_an_unknown_channel_is_ignored() -> None:
    assert Hub().receive(USER, publication(0, record(1)))


def test_the_buffer_of_a_recovery_is_bounded() -> None:
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


def test_the_buffer_of_a_recovery_mixes_no_epochs() -> None:
    hub, channel, _ = live(3)
    hub.suspend(channel)
    hub.receive(USER, publication(3, record(4)))
    hub.receive(USER, publication(1, record(2), epoch="e2"))
    resumption = hub.recover(channel, history(1, record(1), epoch="e2"), 0)
    assert resumption is not None
    assert resumption.position == Position("e2", 2), "the buffered event of the earlier epoch does not count"
    assert [one.offset for one in resumption.records] == [2]


@pytest.mark.parametrize("joins", [True, False])
def test_the_buffer_of_the_next_recovery_begins_empty(joins: bool) -> None:
    hub, channel, _ = live(3)
    hub._buffer_limit = 5
    hub.suspend(channel)
    hub.receive(USER, publication(3, *(record(i) for i in range(4, 8))))
    missing = () if joins else (record(5),)
    assert (hub.recover(channel, history(3) if joins else history(2, *missing), 0) is not None) == joins
    hub.suspend(channel)
    before = 7 if joins else 8
    for i in range(before, before + 4):
        hub.receive(USER, publication(i, record(i + 1)))
    assert channel.buffered is not None
    assert len(channel.buffered) == 4


def test_only_an_event_that_is_too_large_is_dropped_and_counted() -> None:
    hub = Hub(RecordValidator(1024, counters := Counter()))
    session = new_session(hub)
    channel = join(hub, session, since=Position("", 0))
    settle(hub, session, channel, hub.validator.filter_history(USER, history(2, record(1, pad=2000), record(2))))
    hub.receive(USER, publication(2, record(3, pad=2000), record(4)))
    hub.receive(USER, publication(4, record(5, pad=2000)))
    hub.receive(USER, publication(5, record(6)))
    assert [offset for kind, offset in messages_of(session) if kind == "event"] == [2, 4, 6]
    assert counters["drop.too_large"] == 3


def test_the_first_event_of_an_empty_channel_brings_the_epoch() -> None:
    hub, channel, session = live(0)
    assert channel.position == Position("", 0)
    assert hub.receive(USER, publication(0, record(1)))
    assert messages_of(session) == [("subscribed", ("resumed", "e1", 0)), ("event", 1)]
    assert channel.position == Position("e1", 1)


def test_a_first_event_between_the_reading_and_the_recovery_is_not_lost() -> None:
    hub = Hub()
    session = new_session(hub)
    channel = join(hub, session)
    assert hub.receive(USER, publication(0, record(1)))
    assert hub.recover(channel, history(0), 0) is None, "the reading is older than the event"
    settle(hub, session, channel, history(1, record(1)))
    assert channel.position == Position("e1", 1)


def test_a_publication_that_redis_has_lost_since_does_not_block_the_recovery() -> None:
    hub = Hub()
    session = new_session(hub)
    channel = join(hub, session)
    hub.receive(USER, publication(0, record(1)))
    assert hub.recover(channel, history(0), 0) is None
    assert hub.recover(channel, history(0), 0) is not None, "the second, empty reading counts"


def test_an_empty_channel_whose_first_event_was_lost_gets_its_epoch_from_the_recovery() -> None:
    hub, channel, session = live(0)
    assert not hub.receive(USER, publication(1, record(2)))
    hub.recover(channel, history(2, record(1), record(2)), 0)
    assert messages_of(session) == [("subscribed", ("resumed", "e1", 0)), ("event", 1), ("event", 2)]


def test_a_new_epoch_while_live_is_no_gap() -> None:
    hub, channel, session = live(3)
    assert hub.receive(USER, publication(0, record(1), record(2), epoch="e2"))
    assert messages_of(session) == [("subscribed", ("resumed", "e2", 0)), ("event", 1), ("event", 2)]
    assert channel.position == Position("e2", 2)


def test_a_new_epoch_whose_beginning_was_missed_is_a_gap() -> None:
    hub, channel, session = live(3)
    assert not hub.receive(USER, publication(1, record(2), epoch="e2"))
    resumption = hub.recover(channel, history(2, record(1), record(2), epoch="e2"), 0)
    assert resumption is not None
    assert resumption.gap is not None
    session.subscriptions.restart_after_gap(USER, resumption)
    assert messages_of(session) == [("gap", "epoch"), ("subscribed", ("gap", "e2", 0)), ("position", 2)]


def test_a_forgotten_channel_begins_an_epoch_with_its_next_event() -> None:
    hub, channel, session = live(3)
    hub.channel_expired(channel)
    assert messages_of(session) == []
    assert hub.receive(USER, publication(0, record(1), epoch="e2"))
    assert messages_of(session) == [("subscribed", ("resumed", "e2", 0)), ("event", 1)]


def test_a_slow_client_of_a_channel_with_a_new_epoch_is_closed() -> None:
    hub, _, session = live(3)
    session.output.pause_writing()
    hub.receive(USER, publication(3, record(4)))
    hub.receive(USER, publication(0, record(1), epoch="e2"))
    assert session.output.close_code == 4001, "queued events are of another epoch, and would count for this one"


def continued(offset: int, *log: Record) -> History:
    """A reading of epoch e2, which continues e1 from offset 4."""
    return replace(history(offset, *log, epoch="e2"), kept=Position("e1", 4))


def test_an_epoch_that_continues_another_one_causes_no_gap() -> None:
    hub, channel, session = live(3)
    hub.suspend(channel)
    resumption = hub.recover(channel, continued(5, *(record(i) for i in range(1, 6))), 0)
    assert resumption is not None
    assert resumption.gap is None
    assert messages_of(session) == [("subscribed", ("resumed", "e2", 3)), ("event", 4), ("event", 5)]
    assert channel.position == Position("e2", 5)
    assert hub.receive(USER, publication(5, record(6), epoch="e2"))


def test_a_slow_client_continues_in_the_next_epoch_with_what_waits() -> None:
    hub, channel, session = live(2)
    session.output.pause_writing()
    hub.receive(USER, publication(2, record(3), record(4)))
    hub.suspend(channel)
    hub.recover(channel, continued(5, *(record(i) for i in range(1, 6))), 0)
    session.output.resume_writing(10**6)
    assert messages_of(session) == [("subscribed", ("resumed", "e2", 2)), ("event", 3), ("event", 4), ("event", 5)]
    assert session.output.close_code is None


def test_a_second_pattern_recovers_in_the_next_epoch() -> None:
    hub, channel, session = live(3, ONE)
    join(hub, session, TWO)
    hub.suspend(channel)
    reading = continued(5, *(record(i, ONE) for i in range(1, 6)))
    hub.recover(channel, reading, 0)
    assert messages_of(session) == [("subscribed", ("resumed", "e2", 3))]
    settle(hub, session, channel, reading)
    said = messages_of(session)
    assert [what for what in said if what[0] == "event"] == [("event", 4), ("event", 5)]
    assert said[-1] == ("position", 5)


Check = Callable[[Session], None]


def test_only_events_of_this_epoch_that_the_session_has_reached_are_delivered_again() -> None:
    hub, channel, session = live(3)
    hub.redeliver(USER, "e0", [record(2)])
    assert messages_of(session) == [], "another epoch"
    hub.redeliver("user:other", "e1", [record(2)])
    hub.redeliver(USER, "e1", [record(2), record(4)])
    assert messages_of(session) == [("event", 2)], "4 comes as a live event"
    assert channel.position == Position("e1", 3)
    hub.suspend(channel)
    hub.redeliver(USER, "e1", [record(2)])
    assert messages_of(session) == []
