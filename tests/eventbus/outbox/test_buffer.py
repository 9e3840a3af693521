"""All that waits in a process: what memory has no room for goes to the disk in parts; nothing is lost or overtaken."""

from __future__ import annotations

import tempfile
import time
from collections import Counter, defaultdict
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventbus import BusSettings, Event
from eventbus.backends.ports import Published
from eventbus.events.encoder import Emission, EmissionBuilder
from eventbus.operations.changes import EventStamp
from eventbus.operations.state import TaskTransition
from eventbus.outbox.buffer import SendBuffer
from eventbus.outbox.entries import TransitionEntry
from eventbus.outbox.tracker import DeliveryTracker
from eventbus.protocol.cursor import Position


class Step(Event, name="buffer.step"):
    pad: str = ""


class Alarm(Event, name="buffer.alarm", lane="high"):
    pad: str = ""


class State(Event, name="buffer.state", keep="latest", key=("n",)):
    n: int


class Brief(Event, name="buffer.brief", ttl=timedelta(minutes=1)):
    pad: str = ""


STAMP = EventStamp("id", 1, "")
BUILDER = EmissionBuilder(BusSettings())


class Process:
    """A send buffer, and a caller that takes its batches as ``Sender`` does."""

    def __init__(self, folder: Path, limit: int = 5, size: int = 1_000_000) -> None:
        self.dropped: Counter[str] = Counter()
        self.buffer = SendBuffer(BusSettings(spool_dir=folder, outbox_events=limit, outbox_bytes=size), self.dropped)
        self.sent: list[Emission] = []
        self.load: tuple[list[Emission], int] | None = None

    def put(self, topic: str, event: Event) -> Emission:
        entry = BUILDER.build(f"user:ann:{topic}", event)
        self.buffer.put(entry)
        return entry

    def send(self, limit: int, works: bool) -> None:
        if self.load is None:
            self.load = self.buffer.take(limit)
        batch, spooled = self.load
        if works:
            self.sent += batch
            answer = Published(Position("e", 1), [1] * len(batch), 0, 0)
            self.buffer.settle([batch], [answer])
        elif not self.buffer.in_flight.spooled:
            return  # the same is tried again
        self.buffer.settle_spool(spooled, whole=works)
        self.buffer.in_flight.clear()
        self.load = None

    def drain(self) -> None:
        self.buffer.scan()
        while self.buffer.ready or self.load is not None:
            self.send(5, works=True)


steps = st.one_of(
    st.tuples(st.sampled_from("abc"), st.sampled_from([Step, Alarm]), st.integers(1, 6)),
    st.tuples(st.just("send"), st.booleans(), st.integers(1, 6)),
)


@settings(max_examples=300)
@given(st.lists(steps, max_size=40), st.booleans())
def test_nothing_is_lost_and_nothing_overtakes_its_topic(happens, killed):
    with tempfile.TemporaryDirectory() as folder:
        process = Process(Path(folder))
        put = defaultdict(list)
        for what, how, many in happens:
            if what == "send":
                process.send(many, how)
            else:
                put[what] += [process.put(what, how()).receipt.id for _ in range(many)]
        sent = process.sent
        if killed:
            process.buffer.end()
            process = Process(Path(folder))
        process.drain()
        sent = [*sent, *process.sent] if killed else process.sent
        process.buffer.end()
        for topic, ids in put.items():
            arrived = list(dict.fromkeys(e.receipt.id for e in sent if e.topic == f"user:ann:{topic}"))
            assert arrived == ids
        assert not process.dropped.total()


@pytest.fixture
def process(tmp_path):
    process = Process(tmp_path, limit=80)
    yield process
    process.drain()
    process.buffer.end()


def test_a_part_at_a_time_and_the_oldest(process):
    ids = [process.put("a", Step()).receipt.id for _ in range(81)]
    spool = process.buffer.spool
    assert spool.counts["spooled"] == 10
    assert [entry.receipt.id for entry in process.buffer.take(80)[0]] == ids[:10]
    process.buffer.settle_spool(10, whole=False)


def test_what_is_urgent_stays_in_memory_also_if_it_is_on_its_way(process):
    process.put("urgent", Alarm())
    process.buffer.take(1)
    for _ in range(81):
        process.put("a", Step())
    (urgent,) = process.buffer.in_flight.entries
    assert urgent.topic == "user:ann:urgent"
    assert not process.buffer.spool.holds("user:ann:urgent")
    process.buffer.settle([[urgent]], [Published(Position("e", 1), [1], 0, 0)])


def test_what_has_no_room_at_all_is_dropped_and_nothing_else(tmp_path):
    process = Process(tmp_path, size=2000)
    small = process.put("a", Step())
    large = process.put("a", Step(pad="x" * 3000))
    assert (large.receipt.status, large.receipt.reason) == ("dropped", "full")
    assert small.receipt.status == "spooled"
    assert process.dropped == {"full": 1}
    process.drain()
    process.buffer.end()


def test_the_disk_is_looked_through_immediately_and_then_at_intervals(tmp_path: Path) -> None:
    buffer = SendBuffer(BusSettings(spool_dir=tmp_path, spool_scan=3600), Counter())
    assert buffer.scan_due
    buffer.scan()
    assert not buffer.scan_due
    buffer.end()
    assert buffer.scan_due, "a thread that starts again does it first"
    assert not SendBuffer(BusSettings(spool=False, spool_scan=3600), Counter()).scan_due


def test_what_a_rate_holds_back_is_bounded_as_all_else(tmp_path: Path) -> None:
    dropped: Counter[str] = Counter()
    buffer = SendBuffer(BusSettings(spool_dir=tmp_path, outbox_events=100, channel_rate=5), dropped)
    last = [BUILDER.build("user:ann:1", State(n=n)) for n in range(1000)][-1]
    for n in range(999):
        buffer.put(BUILDER.build("user:ann:1", State(n=n)))
    buffer.put(last)
    assert buffer.tracker.depth <= 101
    assert dropped["shed"] == 1000 - buffer.tracker.depth, "counted"
    assert buffer.tracker.is_open(last), "the newest is kept"


def test_a_state_that_the_rate_holds_goes_before_the_log_event_that_follows_in_its_topic(tmp_path: Path) -> None:
    buffer = SendBuffer(BusSettings(spool_dir=tmp_path, channel_rate=1), Counter())
    states = [BUILDER.build("user:ann:1", State(n=n)) for n in range(3)]
    other, last = BUILDER.build("user:ann:2", State(n=9)), BUILDER.build("user:ann:1", Step())
    for entry in (*states, other, last):
        buffer.put(entry)
    sent, _ = buffer.take(100)
    assert sent == [*states, last], "another topic's state is still held"
    assert buffer.rate_limiter.holding


def test_an_event_that_is_dropped_while_others_move_to_the_disk_is_settled(tmp_path: Path) -> None:
    dropped: Counter[str] = Counter()
    buffer = SendBuffer(BusSettings(spool_dir=tmp_path, outbox_events=8, channel_rate=0), dropped)
    for n in range(7):
        buffer.put(BUILDER.build(f"user:ann:{n}", Step()))
    state = BUILDER.build("user:ann:state", State(n=1))
    buffer.put(state)
    buffer.put(BUILDER.build("user:ann:1", Step()))
    buffer.put(BUILDER.build("user:ann:2", Step()))
    assert (state.receipt.status, state.receipt.reason) == ("dropped", "shed")
    assert not buffer.tracker.is_open(state)
    assert dropped == {"shed": 1}
    assert buffer.spool is not None
    assert buffer.spool.counts["spooled"] == 1
    buffer.end()


@pytest.mark.parametrize("spool", [True, False])
def test_losses_at_the_end_of_a_process_are_reported_and_counted(tmp_path: Path, spool: bool) -> None:
    dropped: Counter[str] = Counter()
    buffer = SendBuffer(BusSettings(spool_dir=tmp_path, spool=spool, channel_rate=1), dropped)
    step = BUILDER.build("user:ann:1", Step())
    states = [BUILDER.build("user:ann:2", State(n=n)) for n in range(3)]
    transition = TransitionEntry("user:ann", "user:ann:1", "1", TaskTransition("started", "a", 1), lambda: STAMP)
    for entry in (step, *states, transition):
        buffer.put(entry)
    results: list[bool] = []
    assert not buffer.settles_now(results.append)
    buffer.end()
    assert step.receipt.status == ("spooled" if spool else "dropped")
    assert {state.receipt.status for state in states} == {"dropped"}
    assert dropped == ({"shed": 3} if spool else {"ended": 5})
    assert buffer.tracker.depth == 0
    assert results == ([] if spool else [True]), "with a spool the events still wait"


def test_an_event_that_expires_on_disk_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(tmp_path, limit=1)
    process.put("a", Brief())
    process.put("a", Step())
    assert process.buffer.spool is not None
    assert process.buffer.spool.counts["spooled"] == 1
    later = time.monotonic_ns() + 3_600_000_000_000
    monkeypatch.setattr("eventbus.clock.time.monotonic_ns", lambda: later)
    process.drain()
    assert process.dropped == {"expired": 1}
    assert len(process.sent) == 1
    process.buffer.end()


def test_a_loss_is_logged_once_in_ten_seconds(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("eventbus.outbox.tracker.time.monotonic", lambda: now[0])
    tracker = DeliveryTracker(Counter(), lambda: False)
    lines = []
    for seconds in (0.0, 1.0, 8.9, 0.2, 1.0):
        now[0] += seconds
        tracker.drop_one(BUILDER.build("user:ann:1", Step()), "full")
        lines.append(len(caplog.records))
    assert lines == [1, 1, 1, 2, 2]


def test_who_waits_hears_nothing_while_an_event_is_on_disk_only(tmp_path: Path) -> None:
    process = Process(tmp_path, size=2000)
    small = process.put("a", Step())
    process.put("a", Step(pad="x" * 3000))
    assert (small.receipt.status, process.buffer.tracker.depth) == ("spooled", 0)
    results: list[bool] = []
    assert not process.buffer.settles_now(results.append)
    assert results == []
    process.drain()
    assert results == [True]
    assert process.buffer.settles_now(results.append), "nothing waits any more"
    assert results == [True]
    process.buffer.end()
