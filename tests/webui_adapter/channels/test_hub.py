"""The hub and what a session reads of a channel: contiguity, repair, epochs; whole, partial and replaying readers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from eventbus.protocol.cursor import Position
from tests.webui_adapter.parts import (
    USER,
    frames_of,
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


Check = Callable[[Session], None]
