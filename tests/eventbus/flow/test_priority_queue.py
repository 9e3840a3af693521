"""Properties of the outbox: order per topic, urgency across topics, merge, bounds, nothing of the log lost."""

from __future__ import annotations

import weakref
from collections import Counter, defaultdict
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from eventbus.flow.priority_queue import ConflatingPriorityQueue
from eventbus.protocol.policy import Keep


@dataclass(frozen=True)
class Item:
    number: int
    topic: str
    lane: int = 1
    keep: Keep = "log"
    key: str | None = None
    expires: int = 0
    size: int = 10


def item(
    number: int, topic: str = "t", *, lane: int = 1, keep: Keep = "log", key: str = "", expires: int = 0, size: int = 10
):
    full_key = f"{topic}/{key}" if keep == "latest" else None
    return Item(number, topic, lane, keep, full_key, expires, size)


def filled(*items: Item, limit: int = 1000) -> ConflatingPriorityQueue[Item]:
    outbox: ConflatingPriorityQueue[Item] = ConflatingPriorityQueue(limit, 1_000_000)
    for each in items:
        assert not outbox.push(each, 0)
    return outbox


def numbers(outbox: ConflatingPriorityQueue[Item], count: int = 1000) -> list[int]:
    served, _ = outbox.pop(count, 1_000_000, 0)
    return [each.number for each in served]


def test_one_topic_is_a_queue():
    assert numbers(filled(item(1), item(2, lane=0), item(3, lane=2))) == [1, 2, 3]


def test_an_urgent_item_goes_before_other_topics_and_takes_its_own_along():
    outbox = filled(
        item(1, "flood", lane=2), item(2, "mine", lane=2), item(3, "flood", lane=2), item(4, "mine", lane=0)
    )
    assert numbers(outbox) == [2, 4, 1, 3]


def test_a_batch_ends_with_the_item_that_reaches_its_size():
    for limit, count in ((1, 1), (10, 1), (11, 2), (20, 2), (21, 3)):
        outbox = filled(*(item(n, size=10) for n in range(4)))
        served, expired = outbox.pop(100, limit, 0)
        assert ([each.number for each in served], expired) == ([*range(count)], [])


def test_low_does_not_starve():
    urgent = [item(n, f"high{n}", lane=0) for n in range(100)]
    order = numbers(filled(item(1000, "low", lane=2), *urgent))
    assert order.index(1000) <= 20


def test_topics_of_a_lane_take_turns():
    a, b = [item(n, "a") for n in range(3)], [item(n, "b") for n in range(10, 13)]
    assert numbers(filled(*a, *b)) == [0, 10, 1, 11, 2, 12]


def test_topics_of_a_lane_take_turns_of_some_items():
    outbox: ConflatingPriorityQueue[Item] = ConflatingPriorityQueue(1000, 1_000_000, in_a_row=2)
    for each in (*(item(n, "a") for n in range(5)), *(item(n, "b") for n in range(10, 13)), item(20, "c")):
        outbox.push(each, 0)
    assert numbers(outbox, 3) == [0, 1, 10]
    assert numbers(outbox) == [11, 20, 2, 3, 12, 4]


def test_urgent_topics_take_turns_of_one_item():
    outbox: ConflatingPriorityQueue[Item] = ConflatingPriorityQueue(1000, 1_000_000, in_a_row=8)
    for n in range(3):
        outbox.push(item(n, "a", lane=0), 0)
        outbox.push(item(n + 10, "b", lane=0), 0)
    assert numbers(outbox) == [0, 10, 1, 11, 2, 12]


def test_a_long_turn_of_one_lane_does_not_hold_up_the_others():
    outbox: ConflatingPriorityQueue[Item] = ConflatingPriorityQueue(1000, 1_000_000, in_a_row=100)
    for n in range(50):
        outbox.push(item(n, "low", lane=2), 0)
        outbox.push(item(n + 100, "normal"), 0)
    assert numbers(outbox, 10) == [100, 101, 102, 103, 0, 104, 105, 106, 107, 1]


def test_what_is_merged_again_and_again_leaves_no_places_behind():
    outbox = filled(item(0))
    states = [item(n, keep="latest") for n in range(1, 1000)]
    held = weakref.WeakSet(states)
    while states:
        outbox.push(states.pop(0), 0)
    assert (len(outbox), outbox.bytes) == (2, 20)
    assert len(held) < 100
    assert len(outbox.remove(lambda each: each.number == 0)) == 1
    assert numbers(outbox) == [999]


def test_a_newer_state_replaces_the_older_and_does_not_overtake():
    outbox = filled(item(1, keep="latest"), item(2))
    (merged,) = outbox.push(item(3, keep="latest"), 0)
    assert (merged.item.number, merged.reason) == (1, "merged")
    assert numbers(outbox) == [2, 3]


def test_a_full_outbox_sheds_what_matters_least_and_gives_a_log_item_back():
    outbox = filled(item(1), item(2, keep="latest"), item(3, keep="nothing", lane=2), limit=3)
    assert [(d.item.number, d.reason) for d in outbox.push(item(4), 0)] == [(3, "shed")]
    assert [(d.item.number, d.reason) for d in outbox.push(item(5), 0)] == [(2, "shed")]
    assert [(d.item.number, d.reason) for d in outbox.push(item(6), 0)] == [(6, "full")]
    assert numbers(outbox) == [1, 4, 5]


def test_what_has_expired_is_dropped_when_room_is_needed_and_when_served():
    outbox = filled(item(1, expires=100), item(2), limit=2)
    assert [(d.item.number, d.reason) for d in outbox.push(item(3), 100)] == [(1, "expired")]
    late = filled(item(1, expires=100), item(2))
    served, dropped = late.pop(10, 1000, 100)
    assert [each.number for each in served] == [2]
    assert [d.reason for d in dropped] == ["expired"]


items = st.builds(
    lambda topic, lane, keep, key, size: (topic, lane, keep, key, size),
    st.sampled_from("abc"),
    st.integers(0, 2),
    st.sampled_from(["log", "latest", "nothing"]),
    st.sampled_from("xy"),
    st.integers(1, 40),
)


class OutboxMachine(RuleBasedStateMachine):
    """Any sequence of pushes and pops, against a ledger of what went in and what became of it."""

    LIMIT_ITEMS, LIMIT_BYTES, IN_A_ROW = 12, 200, 1

    def __init__(self) -> None:
        super().__init__()
        self.outbox: ConflatingPriorityQueue[Item] = ConflatingPriorityQueue(
            self.LIMIT_ITEMS, self.LIMIT_BYTES, self.IN_A_ROW
        )
        self.number = 0
        self.waiting: dict[int, Item] = {}
        self.served: dict[str, list[int]] = defaultdict(list)
        self.blocked: frozenset[str] = frozenset()

    @rule(shape=items)
    def push(self, shape) -> None:
        topic, lane, keep, key, size = shape
        self.number += 1
        new = item(self.number, topic, lane=lane, keep=keep, key=key, size=size)
        self.waiting[new.number] = new
        reasons = Counter()
        for drop in self.outbox.push(new, 0):
            gone = self.waiting.pop(drop.item.number)
            reasons[drop.reason] += 1
            if gone.keep == "log":
                assert drop.reason == "full"
                assert gone is new
            if drop.reason == "merged":
                assert gone.key == new.key
        assert reasons["merged"] <= 1

    @rule(count=st.integers(1, 5))
    def pop(self, count) -> None:
        had = [each for each in self.waiting.values() if each.topic not in self.blocked]
        served, dropped = self.outbox.pop(count, 10_000, 0)
        assert not dropped
        assert len(served) == min(count, len(had))
        for each in served:
            del self.waiting[each.number]
            assert each.topic not in self.blocked
            assert self.served[each.topic] == sorted(self.served[each.topic])
            assert not self.served[each.topic] or self.served[each.topic][-1] < each.number
            self.served[each.topic].append(each.number)

    @rule(topics=st.frozensets(st.sampled_from("abc")))
    def block(self, topics) -> None:
        self.blocked = topics
        self.outbox.block(topics.__contains__ if topics else None)

    @rule(lane=st.integers(0, 2))
    def remove(self, lane) -> None:
        removed = {each.number for each in self.outbox.remove(lambda each: each.lane == lane)}
        assert removed == {number for number, each in self.waiting.items() if each.lane == lane}
        for number in removed:
            del self.waiting[number]

    @invariant()
    def bounded_and_complete(self) -> None:
        assert len(self.outbox) == len(self.waiting) <= self.LIMIT_ITEMS
        assert self.outbox.bytes == sum(each.size for each in self.waiting.values()) <= self.LIMIT_BYTES

    @invariant()
    def one_state_per_key(self) -> None:
        keys = [each.key for each in self.waiting.values() if each.key is not None]
        assert len(keys) == len(set(keys))

    @invariant()
    def urgent_when_something_high_waits(self) -> None:
        ready = [each for each in self.waiting.values() if each.topic not in self.blocked]
        assert self.outbox.urgent == any(each.lane == 0 for each in ready)
        assert self.outbox.ready == len(ready)


TestOutbox = OutboxMachine.TestCase
TestOutbox.settings = settings(max_examples=150, stateful_step_count=40)


class LongTurnsMachine(OutboxMachine):
    """The same with turns of several items."""

    IN_A_ROW = 3


TestLongTurns = LongTurnsMachine.TestCase
TestLongTurns.settings = TestOutbox.settings
