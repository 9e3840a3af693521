"""The state machine of what a session reads of one channel: each change by example, all of them by property."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from eventbus.protocol.cursor import Position
from eventbus.protocol.recovery import Resumption, resume
from tests.webui_adapter.parts import USER, history, record
from webui_adapter.protocol.commands import Subscribe
from webui_adapter.session.channel_subscription import TRANSITIONS, Change, ChannelState, ChannelSubscription, Recovery

ONE, TWO, ALL = f"{USER}:operation:1", f"{USER}:operation:2", f"{USER}:*"


def found(offset: int, *, more: bool = False, epoch: str = "e1") -> Resumption:
    return Resumption(Position(epoch, 0), [], Position(epoch, offset), more=more)


def live(offset: int = 5, topic: str = ONE) -> ChannelSubscription:
    subscription = ChannelSubscription(Subscribe(topic, None))
    subscription.take_history(found(offset), None)
    return subscription


def in_state(state: ChannelState) -> ChannelSubscription:
    subscription = live()
    if state is ChannelState.RECOVERING:
        subscription.subscribe(Subscribe(TWO, None), 5)
    elif state is ChannelState.BEHIND:
        subscription.overflow(Position("e1", 3))
    return subscription


def apply(subscription: ChannelSubscription, change: Change) -> None:
    match change:
        case Change.SUBSCRIBE:
            subscription.subscribe(Subscribe(TWO, None), 5)
        case Change.OVERFLOW:
            subscription.overflow(Position("e1", 4))
        case Change.PAGE:
            subscription.take_history(found(6, more=True), None)
        case Change.RECOVERED:
            subscription.take_history(found(9), None)


@pytest.mark.parametrize("state", ChannelState)
@pytest.mark.parametrize("change", Change)
def test_a_change_follows_the_table_or_fails(state: ChannelState, change: Change) -> None:
    subscription = in_state(state)
    assert subscription.state is state
    following = TRANSITIONS.get((state, change))
    if following is None:
        with pytest.raises(AssertionError):
            apply(subscription, change)
        assert subscription.state is state
    else:
        apply(subscription, change)
        assert subscription.state is following


def test_the_first_subscription_reads_no_log_unless_it_names_a_position() -> None:
    assert Recovery(Subscribe(ONE, None)).after is None
    assert Recovery(Subscribe(ONE, Position("e1", 3))).after == 3


def test_a_second_topic_reads_the_log_from_where_the_first_one_is() -> None:
    subscription = live(5)
    subscription.subscribe(Subscribe(TWO, None), 7)
    assert subscription.recovery is not None
    assert (subscription.recovery.after, subscription.recovery.recovered_topics) == (7, (ONE,))
    assert subscription.patterns == (ONE, TWO)


def test_an_overflow_reads_every_topic_from_what_the_client_has() -> None:
    subscription = live(5)
    subscription.overflow(Position("e1", 3))
    recovery = subscription.recovery
    assert recovery is not None
    assert (recovery.after, recovery.since, recovery.command.ref) == (3, Position("e1", 3), None)
    assert subscription.recovered_topics == subscription.patterns


def test_a_page_moves_the_beginning_of_the_next_one_and_answers_the_command_once() -> None:
    subscription = ChannelSubscription(Subscribe(ONE, Position("e1", 0), "ref"))
    subscription.take_history(found(4, more=True), None)
    assert subscription.recovery is not None
    assert subscription.recovery.command == Subscribe(ONE, Position("e1", 4), None)


def test_live_events_of_the_history_are_not_delivered_twice() -> None:
    assert live(5).live_after == 5


def test_a_topic_that_is_unsubscribed_meanwhile_gets_nothing() -> None:
    subscription = live(0)
    subscription.subscribe(Subscribe(TWO, Position("e1", 0)), 0)
    subscription.unsubscribe(TWO)
    reading = history(2, record(1, TWO), record(2, ONE))
    both = resume(Position("e1", 0), reading, [], 0)
    assert [one.offset for one in subscription.take_history(both, both).records] == [2]


def test_a_buffer_that_is_full_begins_anew_with_the_latest_event() -> None:
    recovery = Recovery(Subscribe(ONE, None))
    for offset in range(1, 5):
        recovery.buffer(record(offset), 3, 1_000_000)
    assert [one.offset for one in recovery.buffered_live] == [4]
    assert recovery.buffered_bytes == record(4).size


def test_a_buffer_is_bounded_by_bytes_too() -> None:
    recovery, size = Recovery(Subscribe(ONE, None)), record(1, pad=100).size
    for offset in range(1, 4):
        recovery.buffer(record(offset, pad=100), 100, 2 * size)
    assert [one.offset for one in recovery.buffered_live] == [3]
    recovery.buffer(record(4, pad=100), 100, 2 * size)
    assert [one.offset for one in recovery.buffered_live] == [3, 4]
    assert recovery.buffered_bytes == 2 * size


def test_a_page_after_an_overflow_moves_the_beginning_for_every_topic() -> None:
    subscription = live(5)
    subscription.overflow(Position("e1", 3))
    subscription.take_history(found(4, more=True), found(4, more=True))
    recovery = subscription.recovery
    assert recovery is not None
    assert (recovery.since, recovery.delivered_offset, recovery.after) == (Position("e1", 4), 4, 4)


def test_a_topic_covers_the_whole_channel_or_only_itself() -> None:
    subscription = live(5, ONE)
    subscription.subscribe(Subscribe(TWO, None), 5)
    assert not subscription.whole
    assert [subscription.covers(topic) for topic in (ONE, TWO, f"{USER}:operation:3")] == [True, True, False]
    subscription.take_history(found(5), None)
    subscription.subscribe(Subscribe(ALL, None), 5)
    assert subscription.whole
    assert subscription.covers(f"{USER}:operation:3")
    subscription.take_history(found(5), None)
    subscription.subscribe(Subscribe(f"{USER}:operation:4", None), 5)
    assert subscription.whole
    subscription.unsubscribe(ALL)
    assert not subscription.whole


class Machine(RuleBasedStateMachine):
    """A channel whose events all are in the log, and one subscription that must miss none of them.

    The model is naive: for each topic the offset from which the client asked for events.
    """

    def __init__(self) -> None:
        super().__init__()
        self.offset = 0
        self.log = [record(1, ONE)][:0]
        self.subscription = ChannelSubscription(Subscribe(ONE, Position("e1", 0)))
        self.expected: dict[str, int] = {ONE: 0}
        self.delivered: list[int] = []

    @rule(topic=st.sampled_from([ONE, TWO]))
    def publish(self, topic: str) -> None:
        self.offset += 1
        event = record(self.offset, topic)
        self.log.append(event)
        if self.subscription.recovery is not None:
            self.subscription.recovery.buffer(event, 3, 1_000_000)
        elif self.offset > self.subscription.live_after and self.subscription.covers(topic):
            self.delivered.append(self.offset)

    @precondition(lambda self: self.subscription.state is ChannelState.LIVE and TWO not in self.expected)
    @rule(data=st.data())
    def subscribe(self, data: st.DataObject) -> None:
        since = data.draw(st.integers(0, self.offset))
        self.expected[TWO] = since
        self.subscription.subscribe(Subscribe(TWO, Position("e1", since)), self.offset)

    @precondition(lambda self: self.subscription.state is ChannelState.LIVE)
    @rule(data=st.data())
    def overflow(self, data: st.DataObject) -> None:
        """The queue held everything above some offset, so the client has not got it."""
        safe = data.draw(st.integers(0, self.offset))
        self.delivered = [offset for offset in self.delivered if offset <= safe]
        self.subscription.overflow(Position("e1", safe))

    @precondition(lambda self: self.subscription.recovery is not None)
    @rule(page=st.sampled_from([1, 2, 100]))
    def read(self, page: int) -> None:
        recovery = self.subscription.recovery
        assert recovery is not None
        whole = resume(recovery.since, history(self.offset, *self.log), recovery.buffered_live, 0)
        for_recovered = None
        if recovery.recovered_topics:
            before = Position("e1", recovery.delivered_offset)
            for_recovered = resume(before, history(self.offset, *self.log), recovery.buffered_live, 0)
        elif len(whole.records) > page:
            part = whole.records[:page]
            whole = Resumption(whole.start, part, Position("e1", part[-1].offset), more=True)
        self.delivered += [one.offset for one in self.subscription.take_history(whole, for_recovered).records]

    @invariant()
    def a_recovery_exists_unless_it_is_live(self) -> None:
        assert (self.subscription.recovery is None) == (self.subscription.state is ChannelState.LIVE)

    @invariant()
    def recovered_topics_are_subscribed(self) -> None:
        assert set(self.subscription.recovered_topics) <= set(self.subscription.patterns)

    @invariant()
    def a_live_client_has_every_event_it_asked_for(self) -> None:
        if self.subscription.state is ChannelState.LIVE:
            asked = {
                one.offset
                for one in self.log
                for topic in self.expected
                if one.topic == topic and one.offset > self.expected[topic]
            }
            assert asked <= set(self.delivered)


Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestMachine = Machine.TestCase
