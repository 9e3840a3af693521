"""All that waits in a process: what memory has no room for goes to the disk in parts; nothing is lost or overtaken."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventbus import BusSettings, Event
from eventbus.backends.ports import Published
from eventbus.events.encoder import Emission, EmissionBuilder
from eventbus.outbox.buffer import SendBuffer
from eventbus.protocol.cursor import Position


class Step(Event, name="stock.step"):
    pad: str = ""


class Alarm(Event, name="stock.alarm", lane="high"):
    pad: str = ""


class State(Event, name="stock.state", keep="latest", key=("n",)):
    n: int


BUILDER = EmissionBuilder(BusSettings())


class Process:
    """A stock, and somebody who carries what it gives out as ``Sender`` does."""

    def __init__(self, folder: Path, limit: int = 5, size: int = 1_000_000) -> None:
        self.dropped: Counter[str] = Counter()
        self.stock = SendBuffer(BusSettings(spool_dir=folder, outbox_events=limit, outbox_bytes=size), self.dropped)
        self.sent: list[Emission] = []
        self.load: tuple[list[Emission], int] | None = None

    def put(self, topic: str, event: Event) -> Emission:
        entry = BUILDER.build(f"user:ann:{topic}", event)
        self.stock.put(entry)
        return entry

    def send(self, limit: int, works: bool) -> None:
        if self.load is None:
            self.load = self.stock.take(limit)
        batch, spooled = self.load
        if works:
            self.sent += batch
            answer = Published(Position("e", 1), [1] * len(batch), 0, 0)
            self.stock.settle([batch], [answer])
        elif self.stock.flying is not None:
            return  # the same is tried again
        self.stock.settle_spool(spooled, whole=works)
        self.stock.flying = []
        self.load = None

    def drain(self) -> None:
        self.stock.scan()
        while self.stock.ready or self.load is not None:
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
            process.stock.end()
            process = Process(Path(folder))
        process.drain()
        sent = [*sent, *process.sent] if killed else process.sent
        process.stock.end()
        for topic, ids in put.items():
            arrived = list(dict.fromkeys(e.receipt.id for e in sent if e.topic == f"user:ann:{topic}"))
            assert arrived == ids
        assert not process.dropped.total()


@pytest.fixture
def process(tmp_path):
    process = Process(tmp_path, limit=80)
    yield process
    process.drain()
    process.stock.end()


def test_a_part_at_a_time_and_the_oldest(process):
    ids = [process.put("a", Step()).receipt.id for _ in range(81)]
    spool = process.stock.spool
    assert spool.counts["spooled"] == 10
    assert [entry.receipt.id for entry in process.stock.take(80)[0]] == ids[:10]
    process.stock.settle_spool(10, whole=False)


def test_what_is_urgent_stays_in_memory_also_if_it_is_on_its_way(process):
    process.put("urgent", Alarm())
    process.stock.take(1)
    for _ in range(81):
        process.put("a", Step())
    (flying,) = process.stock.flying
    assert flying.topic == "user:ann:urgent"
    assert not process.stock.spool.holds("user:ann:urgent")
    process.stock.settle([[flying]], [Published(Position("e", 1), [1], 0, 0)])


def test_what_has_no_room_at_all_is_dropped_and_nothing_else(tmp_path):
    process = Process(tmp_path, size=2000)
    small = process.put("a", Step())
    large = process.put("a", Step(pad="x" * 3000))
    assert (large.receipt.status, large.receipt.reason) == ("dropped", "full")
    assert small.receipt.status == "spooled"
    assert process.dropped == {"full": 1}
    process.drain()
    process.stock.end()


def test_what_a_rate_holds_back_is_bounded_as_all_else(tmp_path: Path) -> None:
    dropped: Counter[str] = Counter()
    stock = SendBuffer(BusSettings(spool_dir=tmp_path, outbox_events=100, channel_rate=5), dropped)
    last = [BUILDER.build("user:ann:1", State(n=n)) for n in range(1000)][-1]
    for n in range(999):
        stock.put(BUILDER.build("user:ann:1", State(n=n)))
    stock.put(last)
    assert stock.settlement.depth <= 101
    assert dropped["shed"] == 1000 - stock.settlement.depth, "counted"
    assert stock.settlement.waits(last), "the newest is kept"
