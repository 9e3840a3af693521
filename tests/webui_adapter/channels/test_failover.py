"""Failovers that lose events, as a page sees them: hub, session and page against a model of two masters. No I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from eventbus.protocol.cursor import Position
from eventbus.protocol.history import History, LogEntry
from eventbus.protocol.records import Publication, Record
from tests.webui_adapter.page import Page
from tests.webui_adapter.parts import USER, heard, join, new_session, settle
from webui_adapter.channels.hub import Hub
from webui_adapter.session.session import Session

TOPIC = f"{USER}:operation:1"


@dataclass
class Master:
    """The data of one server: what a promoted replica has of them, and what came after."""

    epoch: str
    numbers: list[int] = field(default_factory=list)
    kept: Position | None = None
    lossy: bool = False

    def record(self, offset: int) -> Record:
        number = self.numbers[offset - 1]
        members = {"offset": offset, "id": f"id-{number}", "type": "a.b", "topic": TOPIC, "data": {"n": number}}
        event = json.dumps(members)
        return Record(offset, 1, "log", 0, 0, "a.b", TOPIC, None, event.encode())

    def publish(self, batch: Sequence[int]) -> Publication | None:
        """``publish.lua``: a known id is not published again."""
        before = len(self.numbers)
        self.numbers += [number for number in batch if number not in self.numbers]
        records = [self.record(offset) for offset in range(before + 1, len(self.numbers) + 1)]
        return Publication(self.epoch, before, records) if records else None

    def history(self) -> History:
        end = len(self.numbers)
        log = [LogEntry(offset - 1, self.record(offset)) for offset in range(1, end + 1)]
        return History(Position(self.epoch, end), end, log, (), kept=self.kept, lossy=self.lossy)


class Gateway:
    """One gateway: the hub, and the master that its subscription leads to."""

    def __init__(self, master: Master) -> None:
        self.hub, self.master = Hub(), master
        self.reading: History | None = None
        self.session: Session | None = None
        self.connect(Page())

    def connect(self, page: Page) -> None:
        session, position = new_session(self.hub), page.positions.get(USER)
        channel = join(self.hub, session, since=position and Position(position.epoch, position.offset))
        settle(self.hub, session, channel, self.master.history())
        heard(session, page)
        self.session, self.page = session, page

    def disconnect(self) -> None:
        assert self.session is not None
        self.session.subscriptions.drop(USER)
        self.hub.leave(USER, self.session)
        self.session = None

    def attach(self, master: Master) -> None:
        """Subscribe at another master, and read the channel there."""
        self.hub.suspend(self.hub.channels[USER])
        self.master, self.reading = master, master.history()

    def recover(self) -> None:
        while self.reading is not None:
            resumption = self.hub.recover(self.hub.channels[USER], self.reading, 0)
            self.reading = self.master.history() if resumption is None else None
            if resumption is not None and resumption.gap is not None and self.session is not None:
                self.session.subscriptions.restart_after_gap(USER, resumption)

    def receive(self, publication: Publication) -> None:
        assert self.hub.receive(USER, publication)


class Run:
    """A worker, two gateways and a page while masters fail over."""

    def __init__(self, durable: bool) -> None:
        self.durable = durable
        self.master, self.emitted, self.epochs = Master("e0"), 0, 0
        self.used = self.master  # by the worker
        self.batch: list[int] = []
        self.acknowledged: set[int] = set()
        self.declared: set[int] = set()
        self.used.publish([0])
        self.gateways = [Gateway(self.master), Gateway(self.master)]
        self.gateways[1].disconnect()
        self.page, self.place = self.gateways[0].page, 0

    def send(self, size: int, known: bool) -> None:
        """The worker sends a batch, or the last one again if it does not know its outcome."""
        if not self.batch:
            self.batch = [self.emitted + 1 + i for i in range(size)]
            self.emitted += size
        publication = self.used.publish(self.batch)
        for gateway in self.gateways:
            if publication is not None and gateway.master is self.used:
                gateway.receive(publication)
        if known and not (self.durable and self.used is not self.master):
            # In durable mode the replicas of a former master confirm nothing.
            self.acknowledged |= set(self.batch)
            self.batch = []

    def fail_over(self, lost: int) -> None:
        self.epochs += 1
        former = self.master
        safe = sum(number in self.acknowledged for number in former.numbers) if self.durable else 0
        numbers = former.numbers[: max(1 + safe, len(former.numbers) - lost)]
        fork = Position(former.epoch, len(numbers)) if self.durable else None
        self.master = Master(f"e{self.epochs}", numbers, fork, not self.durable)

    def move_worker(self) -> None:
        """If its last write is gone, the worker states it, and the channel forks again."""
        if not self.acknowledged & set(self.used.numbers) <= set(self.master.numbers):
            self.fail_over(0)
        self.used = self.master

    def attach(self, number: int) -> None:
        gateway = self.gateways[number]
        if gateway.master is not self.master:
            gateway.attach(self.master)

    def recover(self, number: int) -> None:
        self.gateways[number].recover()

    def reconnect(self, number: int) -> None:
        self.gateways[self.place].disconnect()
        self.place = number
        self.gateways[number].recover()
        self.gateways[number].connect(self.page)

    def step(self, name: str, *given: object) -> None:
        gaps = self.page.gaps
        getattr(self, name)(*given)
        gateway = self.gateways[self.place]
        if gateway.session is not None:
            heard(gateway.session, self.page)
        if self.page.gaps > gaps:
            # Also what the new master has already, and what its worker will know as published later.
            self.declared |= self.acknowledged | set(gateway.master.numbers)

    def end(self) -> None:
        self.step("move_worker")
        for number in range(2):
            self.step("attach", number)
            self.step("recover", number)
        self.step("send", 1, True)
        self.step("send", 1, True)


STEPS = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 3), st.booleans()),
    st.tuples(st.just("send"), st.integers(1, 3), st.booleans()),
    st.tuples(st.just("fail_over"), st.integers(0, 6)),
    st.tuples(st.just("move_worker")),
    st.tuples(st.just("attach"), st.integers(0, 1)),
    st.tuples(st.just("recover"), st.integers(0, 1)),
    st.tuples(st.just("reconnect"), st.integers(0, 1)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=40), st.booleans())
def test_each_event_arrives_once_and_in_order_or_is_declared(steps: list[tuple[object, ...]], durable: bool) -> None:
    run = Run(durable)
    for name, *given_ in steps:
        run.step(str(name), *given_)
    run.end()
    numbers = [event["data"]["n"] for event in run.page.events]
    assert numbers == sorted(set(numbers))
    assert run.acknowledged <= {*numbers} | run.declared


@settings(max_examples=100, deadline=None)
@given(st.lists(STEPS.filter(lambda step: step[0] != "reconnect"), max_size=30))
def test_in_durable_mode_a_page_that_saw_nothing_unconfirmed_has_no_gap(steps: list[tuple[object, ...]]) -> None:
    """Each batch is confirmed before the failover, and the worker moves with it. No position is beyond the fork."""
    run = Run(durable=True)
    for name, *given_ in steps:
        if name == "fail_over":
            run.step("send", 1, True)
            for number in range(2):
                run.step("attach", number)
                run.step("recover", number)
        run.step(str(name), *given_)
        run.step("move_worker")
    run.end()
    assert run.page.gaps == 0
    assert [event["data"]["n"] for event in run.page.events] == [*range(1, run.emitted + 1)]
