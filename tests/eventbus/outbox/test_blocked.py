"""Batches of a shard that does not answer: the others go on, each topic keeps its order, and every bound holds."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from eventbus import BusSettings, Event
from eventbus.backends.ports import Published
from eventbus.events.encoder import Emission, EmissionBuilder
from eventbus.outbox.blocked import BlockedBatches
from eventbus.outbox.buffer import SendBuffer
from eventbus.outbox.entries import Entry
from eventbus.outbox.in_flight import InFlightBatch
from eventbus.protocol.cursor import Position


class Item(Event, name="blocked.item"):
    n: int = 0


class Alarm(Event, name="blocked.alarm", lane="high"):
    n: int = 0


class State(Event, name="blocked.state", keep="latest"):
    n: int = 0


BUILDER = EmissionBuilder(BusSettings())
USERS = ("a1", "a2", "b1", "b2", "c1")
SHARDS = ("a", "b", "c")


def shard(channel: str) -> str:
    """Return the shard of a channel: the first character of its user."""
    return channel.removeprefix("user:")[0]


def entry(user: str, event: Event, operation: str = "1") -> Emission:
    return BUILDER.build(f"user:{user}:operation:{operation}", event)


# --- the pure part -----------------------------------------------------------------------------------------------


class Blocking:
    """Records the calls of ``block``."""

    def __init__(self) -> None:
        self.calls: list[Callable[[str], bool] | None] = []

    def __call__(self, blocks: Callable[[str], bool] | None) -> None:
        self.calls.append(blocks)


def batch_of(*entries: Entry, from_spool: int = 0) -> InFlightBatch:
    return InFlightBatch.of(entries, from_spool)


def test_a_batch_waits_and_blocks_its_channels_until_it_is_settled() -> None:
    block, on_disk = Blocking(), set[str]()
    blocked = BlockedBatches(10, on_disk.__contains__, block)
    assert (blocked.due_in(0.0), blocked.due(0.0), blocked.from_spool) == (None, None, False)
    batch = batch_of(entry("a1", Item()), entry("b1", Item()))
    assert blocked.add(batch, 10.0, lambda channel: channel != "user:c1", 1)
    assert (len(blocked), batch in blocked) == (2, True)
    assert blocked.due(10.1) is None
    assert blocked.due_in(10.1) == pytest.approx(0.1)
    assert blocked.due(10.3) is batch
    blocks = block.calls[-1]
    assert blocks is not None
    found = {user: blocks(f"user:{user}:operation:7") for user in USERS}
    assert found == {"a1": True, "a2": False, "b1": True, "b2": False, "c1": True}, "c1's shard does not answer either"
    batch.requests, batch.members = batch.requests[1:], batch.members[1:]
    assert blocked.add(batch, 11.0, lambda _: True, 2)
    assert not blocks("user:a1:operation:7"), "its part is settled"
    assert blocks("user:b1:operation:7")
    on_disk.add("user:a2:operation:7")
    assert not blocks("user:a2:operation:7"), "nothing of the disk is here"
    blocked.remove(batch)
    assert (len(blocked), block.calls[-1]) == (0, None)


def test_nothing_is_blocked_anew_while_nothing_changes() -> None:
    block = Blocking()
    blocked = BlockedBatches(10, lambda _: False, block)
    batch = batch_of(entry("a1", Item()))
    for attempt in range(5):
        blocked.add(batch, float(attempt), lambda _: True, 1)
    assert len(block.calls) == 1
    blocked.add(batch, 9.0, lambda _: True, 2)
    assert len(block.calls) == 2, "other nodes answer now"


def test_a_batch_without_room_stays_outside() -> None:
    blocked = BlockedBatches(2, lambda _: False, Blocking())
    first, second = batch_of(entry("a1", Item())), batch_of(entry("b1", Item()), entry("b1", Item()))
    assert blocked.add(first, 0.0, lambda _: True, 1)
    assert not blocked.add(second, 0.0, lambda _: True, 1)
    assert second not in blocked
    assert blocked.add(first, 1.0, lambda _: True, 1), "it is here already"
    third = batch_of(entry("b1", Item()))
    assert blocked.add(third, 1.0, lambda _: True, 1)
    assert (blocked.due(5.0), [batch.from_spool for batch in (first, third)]) == (first, [0, 0])


def test_only_what_exists_in_memory_alone_moves_to_the_disk() -> None:
    block = Blocking()
    blocked = BlockedBatches(10, lambda topic: "a2" in topic, block)
    memory, disk = batch_of(entry("a1", Item())), batch_of(entry("b1", Item()), from_spool=1)
    for batch in (memory, disk):
        blocked.add(batch, 0.0, lambda _: True, 1)
    assert blocked.move_to_disk() == memory.entries
    blocked.apply()
    assert (memory.spooled, disk.spooled, list(blocked.entries)) == (True, False, disk.entries)
    blocks = block.calls[-1]
    assert blocks is not None
    assert [blocks(f"user:{user}:operation:1") for user in USERS] == [False, True, True, False, False]
    blocked.clear()
    assert block.calls[-1] is None


# --- a model of the buffer ----------------------------------------------------------------------------------------


class ShardsMachine(RuleBasedStateMachine):
    """Shards fail and answer again while events are put and sent. The steps are those of sender and thread."""

    LIMIT, BATCH = 12, 4

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.dropped: Counter[str] = Counter()
        self.buffer = SendBuffer(
            BusSettings(spool_dir=Path(self.folder.name), outbox_events=self.LIMIT, batch_events=self.BATCH),
            self.dropped,
        )
        self.down: set[str] = set()
        self.now = 0.0
        self.version = 0
        self.put: dict[str, list[str]] = defaultdict(list)
        self.sent: list[Emission] = []
        self.stuck: InFlightBatch | None = None  # a batch that found no room: it is tried again, before all others

    def teardown(self) -> None:
        self.down.clear()
        while self.buffer.ready or self.buffer.blocked or self.stuck:
            self.send(self.BATCH)
            if self.buffer.blocked:
                self.again()
        for topic, ids in self.put.items():
            arrived = list(dict.fromkeys(one.receipt.id for one in self.sent if one.topic == topic))
            assert arrived == ids, "each topic arrived in order and complete"
        assert self.buffer.is_empty()
        assert not self.dropped.total()
        self.buffer.end()
        self.folder.cleanup()

    def attempt(self, batch: InFlightBatch) -> None:
        """Do with a batch what ``Sender.send`` and ``SenderThread`` do."""
        buffer = self.buffer
        fine = [i for i, request in enumerate(batch.requests) if shard(request.channel) not in self.down]
        again = [i for i in range(len(batch.requests)) if i not in fine]
        for i in fine:
            self.sent += [one for one in batch.members[i] if isinstance(one, Emission)]
        answers = [Published(Position("e", 1), [1] * len(batch.members[i]), 0, 0) for i in fine]
        buffer.settle([batch.members[i] for i in fine], answers)
        batch.requests, batch.members = [batch.requests[i] for i in again], [batch.members[i] for i in again]
        self.stuck = None
        if batch.requests and not batch.spooled and not buffer.in_flight.spooled:
            reaches = lambda channel: shard(channel) not in self.down  # noqa: E731
            if not buffer.blocked.add(batch, self.now, reaches, self.version):
                self.stuck = batch
                return
        if not batch.requests:
            buffer.blocked.remove(batch)
        if batch not in buffer.blocked:
            buffer.settle_spool(batch.from_spool, whole=not batch.requests)
        buffer.in_flight.clear()

    @rule(user=st.sampled_from(USERS), kind=st.sampled_from([Item, Item, Alarm]), number=st.integers(1, 5))
    def emit(self, user: str, kind: type[Event], number: int) -> None:
        for _ in range(number):
            one = entry(user, kind(), kind.__name__)
            self.buffer.put(one)
            self.put[one.topic].append(one.receipt.id)

    @rule(limit=st.integers(1, BATCH))
    def send(self, limit: int) -> None:
        if self.stuck is not None:
            self.attempt(self.stuck)
            return
        entries, from_spool = self.buffer.take(limit)
        if entries or from_spool:
            self.attempt(InFlightBatch.of(entries, from_spool))

    @precondition(lambda self: self.buffer.blocked and self.stuck is None)
    @rule()
    def again(self) -> None:
        self.now += 1
        batch = self.buffer.blocked.due(self.now)
        if batch is not None:
            self.attempt(batch)

    @rule(name=st.sampled_from(SHARDS))
    def fails(self, name: str) -> None:
        self.down.add(name)
        self.version += 1

    @rule(name=st.sampled_from(SHARDS))
    def answers(self, name: str) -> None:
        self.down.discard(name)
        self.version += 1

    @precondition(lambda self: self.stuck is None)
    @rule()
    def wait(self) -> None:
        """A waiter is called once all is settled, or waits for a shard that does not answer."""
        called: list[bool] = []
        if not self.buffer.settles_now(called.append):
            for _ in range(200):
                if called or self.stuck is not None:
                    break
                self.send(self.BATCH)
            if self.stuck is not None:
                return
            blocked = bool(self.buffer.blocked)
            assert called == [not blocked or (not self.buffer.tracker.blocked and not self.buffer.has_spooled())]

    @precondition(lambda self: self.stuck is None)
    @rule()
    def others_go_on(self) -> None:
        """Entries in memory whose shard answers can be sent, unless older ones of their topic are on disk."""
        for _ in range(len(SHARDS)):
            if self.buffer.blocked:
                self.again()
        for _ in range(200):
            if not self.buffer.ready or self.stuck is not None:
                break
            self.send(self.BATCH)
        if self.stuck is not None:
            return
        spool = self.buffer.spool
        assert spool is not None
        for one in self.buffer.tracker.open_entries():
            assert shard(one.channel) in self.down or spool.holds(one.topic)

    @invariant()
    def bounded(self) -> None:
        assert len(self.buffer.blocked) <= self.LIMIT
        assert self.buffer.tracker.depth <= 2 * self.LIMIT + 2 * self.BATCH


TestShards = ShardsMachine.TestCase
TestShards.settings = settings(derandomize=True, max_examples=100, stateful_step_count=40)
