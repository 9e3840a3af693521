"""Timelines: the truth table of the verdict, and a model of a Redis whose data go back at random points."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eventbus.protocol.cursor import BEGINNING, Position
from eventbus.protocol.timeline import UNKNOWN, Evidence, Timeline, Voters, judge, succeed

T, F = True, False


@pytest.mark.parametrize(
    ("gone", "unconfirmed", "intact", "missing", "registered", "append_only", "waited", "verdict"),
    [
        (T, F, T, 0, 2, T, F, "forked"),
        (T, T, T, 0, 2, T, F, "forked"),
        (F, T, T, 0, 2, T, F, "kept"),
        (F, T, F, 1, 2, F, T, "kept"),
        (F, F, T, 0, 1, F, F, "clean"),
        (F, F, T, 1, 2, F, F, "pending"),
        (F, F, T, 1, 2, F, T, "forked"),
        (F, F, F, 0, 2, F, F, "pending"),
        (F, F, F, 0, 2, T, T, "forked"),
        (F, F, F, 0, 0, T, F, "clean"),
        (F, F, F, 0, 0, F, F, "pending"),
        (F, F, F, 0, 0, F, T, "forked"),
    ],
)
def test_verdict(
    gone: bool,
    unconfirmed: bool,
    intact: bool,
    missing: int,
    registered: int,
    append_only: bool,
    waited: bool,
    verdict: str,
) -> None:
    known = Voters(gone, unconfirmed, intact, missing, registered, append_only, waited)
    assert judge(known) == verdict


SUCCESSIONS = [
    ("a.0", Timeline("a.0", ""), "same"),
    ("a.0", UNKNOWN, "same"),
    (None, UNKNOWN, "same"),
    ("a.0", Timeline("b.0", "a.0 -"), "continue"),
    ("a.1", Timeline("b.0", "a.0 -"), "fork"),
    (None, Timeline("b.0", "a.0 -"), "continue"),
    (None, Timeline("b.0", "a.0"), "fork"),
    ("a.0", Timeline("a.1", "a.0"), "fork"),
    ("a.1", Timeline("a.0", "-"), "outdated"),
    ("a.0", Timeline("b.0", "~a.0 ~-"), "keep"),
    (None, Timeline("b.0", "~a.0 ~-"), "keep"),
    ("a.1", Timeline("b.0", "~a.0 -"), "fork"),
    ("a.0", Timeline("a.1", "~a.0"), "keep"),
]


@pytest.mark.parametrize(("channel", "timeline", "succession"), SUCCESSIONS)
def test_succession(channel: str | None, timeline: Timeline, succession: str) -> None:
    assert succeed(channel, timeline) == succession


@pytest.mark.parametrize(
    ("evidence", "entry", "here", "parent", "fork", "statement"),
    [
        (Evidence(entry=5), 5, None, "", 0, "intact"),
        (Evidence(entry=5), 4, None, "", 0, "gone"),
        (Evidence(entry=5), None, None, "", 0, "gone"),
        (Evidence(entry=5, fresh=False), None, None, "", 0, "unsure"),
        (Evidence(position=Position("e", 7)), None, Position("e", 7), "", 0, "intact"),
        (Evidence(position=Position("e", 7)), None, Position("e", 6), "", 0, "gone"),
        (Evidence(position=Position("e", 7), fresh=False), None, Position("e", 6), "", 0, "gone"),
        (Evidence(position=Position("e", 7)), None, None, "", 0, "gone"),
        (Evidence(position=Position("e", 7), fresh=False), None, None, "", 0, "unsure"),
        (Evidence(position=Position("e", 7)), None, Position("f", 9), "e", 7, "intact"),
        (Evidence(position=Position("e", 7)), None, Position("f", 9), "e", 6, "gone"),
        (Evidence(position=Position("e", 7)), None, Position("f", 9), "d", 8, "gone"),
    ],
)
def test_statement(
    evidence: Evidence, entry: int | None, here: Position | None, parent: str, fork: int, statement: str
) -> None:
    assert evidence.state(entry, here, parent, fork) == statement


# --- the model -----------------------------------------------------------------------------------------------------

RENEWAL, PATIENCE = 3, 6


@dataclass
class Channel:
    epoch: str
    timeline: str
    offset: int = 0
    parent: str = ""
    fork: int = 0
    kept: bool = False
    log: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class Data:
    channels: dict[str, Channel] = field(default_factory=dict)
    entries: dict[str, tuple[int, str, bool]] = field(default_factory=dict)
    server: str = ""
    generation: int = 0
    verdict: str = "clean"
    parent: str = ""
    since: int = 0
    newest: int = 0
    registered: int = 0
    intact: bool = False
    ancestors: str = ""


def copied(data: Data) -> Data:
    channels = {name: replace(one, log=[*one.log]) for name, one in data.channels.items()}
    return replace(data, channels=channels, entries=dict(data.entries))


def kept(timelines: list[str]) -> str:
    """Timelines of which only unconfirmed writes are lost."""
    return " ".join(f"~{name.removeprefix('~')}" for name in timelines)


class Server:
    """Redis: each write makes a state, and a restart goes back to any of them."""

    def __init__(self) -> None:
        self.data, self.states, self.now, self.life, self.names = Data(), [Data()], 0, 0, 0

    def written(self) -> None:
        self.now += 1
        self.states.append(copied(self.data))

    def restart(self, lost: int) -> None:
        del self.states[max(1, len(self.states) - lost) :]
        self.data, self.life = copied(self.states[-1]), self.life + 1

    def fresh(self) -> str:
        self.names += 1
        return f"e{self.names}"

    def join(  # noqa: C901 - one step, like the script
        self, process: str, statement: str, about: str, idle: bool
    ) -> Timeline | None:
        """``join.lua``, with the verdict of ``judge``."""
        data, server = self.data, f"{self.life}"
        others = [entry for entry in data.entries.values() if entry[1] != server]
        if not data.server:
            lost = statement in ("gone", "unconfirmed")
            data.server, data.verdict, data.ancestors = server, "forked" if lost else "clean", "" if lost else "-"
        elif data.server != server:
            data.parent, data.server, data.generation = f"{data.server}.{data.generation}", server, 0
            data.verdict, data.since, data.intact = "pending", self.now, False
            data.newest, data.registered = max((at for at, _, _ in others), default=0), len(others)
        known = data.ancestors.split()
        gone = unconfirmed = False
        if about.partition(".")[0] == server:
            data.generation = max(data.generation, int(about.partition(".")[2]))
        elif statement == "gone" and data.verdict == "pending":
            gone = True
        elif statement == "gone" and {about, f"~{about}", "-"} & {*known}:
            data.generation, data.verdict, data.ancestors = data.generation + 1, "forked", ""
        elif statement == "unconfirmed" and data.verdict == "pending":
            unconfirmed = True
        elif statement == "unconfirmed" and {about, "-"} & {*known}:
            data.verdict, data.ancestors = "kept", kept([f"{server}.{data.generation}", *known])
            data.generation += 1
        elif statement == "intact" and about == data.parent:
            data.intact = True
        if data.verdict == "pending":
            if statement == "intact" and about == data.parent and process:
                data.entries[process] = (self.now, server, idle)
            others = [entry for entry in data.entries.values() if entry[1] != server]
            missing = sum(not resting and at + RENEWAL >= data.newest for at, _, resting in others)
            waited = self.now - data.since >= PATIENCE
            verdict = judge(Voters(gone, unconfirmed, data.intact, missing, data.registered, False, waited))
            data.verdict = verdict
            if verdict != "pending":
                before = [data.parent, *known]
                data.ancestors = {"clean": " ".join(before), "kept": kept(before)}.get(verdict, "")
        if data.verdict != "pending":
            data.entries[process] = (self.now, server, idle)
        self.written()
        return None if data.verdict == "pending" else Timeline(f"{data.server}.{data.generation}", data.ancestors)

    def use(self, name: str, timeline: Timeline, create: bool) -> Channel | None:
        """``_timeline.lua``; None for a channel without data."""
        channel = self.data.channels.get(name)
        if channel is None:
            if create:
                channel = self.data.channels[name] = Channel(self.fresh(), timeline.name)
            return channel
        match succeed(channel.timeline, timeline):
            case "outdated":
                raise ConnectionError
            case "continue":
                channel.timeline = timeline.name
                self.written()
            case "fork" | "keep" as succession:
                channel.kept = succession == "keep"
                channel.parent, channel.fork = channel.epoch, channel.offset
                channel.epoch, channel.timeline = self.fresh(), timeline.name
                self.written()
        return channel


class Process:
    """A worker or a gateway: what ``Voter`` remembers."""

    def __init__(self, server: Server, name: str) -> None:
        self.server, self.name = server, name
        self.life, self.timeline = -1, UNKNOWN
        self.entry, self.idle = 0, True
        self.last: tuple[str, Position] | None = None

    def statement(self) -> str:
        data, found = self.server.data, []
        if not self.timeline.name:
            return "unsure"
        entry = data.entries.get(self.name)
        found.append(Evidence(entry=self.entry).state(None if entry is None else entry[0], None))
        if self.last is not None:
            channel = data.channels.get(self.last[0])
            here = None if channel is None else Position(channel.epoch, channel.offset)
            parent, fork = ("", 0) if channel is None else (channel.parent, channel.fork)
            found.append(Evidence(position=self.last[1]).state(None, here, parent, fork))
        return next(one for one in ("gone", "unsure", "intact") if one in found)

    def join(self, idle: bool = False) -> bool:
        statement = "unsure" if self.life == self.server.life else self.statement()
        at = self.server.now
        timeline = self.server.join(self.name, statement, self.timeline.name, idle)
        if timeline is None:
            return False
        self.life, self.timeline, self.entry, self.idle, self.last = self.server.life, timeline, at, idle, None
        return True

    def ready(self) -> bool:
        due = self.idle or self.server.now - self.entry > RENEWAL
        return (self.life == self.server.life and not due) or self.join()


@dataclass
class PageOf:
    """A page that reads one channel."""

    channel: str
    connected: bool = True
    cursor: Position = BEGINNING
    received: set[int] = field(default_factory=set)
    declared: set[int] = field(default_factory=set)


class Run:
    """Workers, one gateway and its pages over a server that goes back."""

    def __init__(self) -> None:
        self.server = Server()
        self.workers = [Process(self.server, f"w{n}") for n in range(2)]
        self.gateway = Process(self.server, "gateway")
        self.pages = [PageOf("a"), PageOf("a", connected=False), PageOf("b")]
        self.acknowledged: dict[str, set[int]] = {"a": set(), "b": set()}
        self.live, self.events, self.names = "", 0, 2
        self.sync()

    def emit(self, worker: int, name: str) -> None:
        process = self.workers[worker % len(self.workers)]
        for _ in range(PATIENCE + 3):  # the outbox tries again
            if not process.ready():
                continue
            try:
                channel = self.server.use(name, process.timeline, create=True)
            except ConnectionError:
                process.life = -1
                process.timeline = Timeline(self.server.data.channels[name].timeline, "")
                continue
            break
        assert channel is not None
        self.events += 1
        channel.offset += 1
        channel.log.append((channel.offset, self.events))
        self.server.written()
        process.last = (name, Position(channel.epoch, channel.offset))
        self.acknowledged[name].add(self.events)
        self.publish(name, channel)

    def publish(self, name: str, channel: Channel) -> None:
        """The gateway's connection breaks with each restart: it hears nothing before it has recovered."""
        if self.gateway.life != self.server.life or self.live != self.gateway.timeline.name:
            return
        for page in self.pages:
            if page.connected and page.channel == name:
                self.gateway.last = (name, Position(channel.epoch, channel.offset))
                follows = page.cursor == (channel.epoch, channel.offset - 1)
                if follows or channel.offset == 1:
                    page.received.add(channel.log[-1][1])
                    page.cursor = Position(channel.epoch, channel.offset)
                else:
                    self.read(page)

    def sync(self) -> None:
        """The gateway joins, renews and recovers its pages if the timeline is another one."""
        for _ in range(PATIENCE + 3):
            if self.gateway.join():
                break
        if self.live != self.gateway.timeline.name:
            self.live = self.gateway.timeline.name
            for page in self.pages:
                if page.connected:
                    self.read(page)

    def read(self, page: PageOf) -> None:
        for _ in range(PATIENCE + 3):
            try:
                channel = self.server.use(page.channel, self.gateway.timeline, create=False)
                break
            except ConnectionError:
                self.gateway.life = -1
                self.gateway.timeline = Timeline(self.server.data.channels[page.channel].timeline, "")
                self.gateway.join()
        here = Position("", 0) if channel is None else Position(channel.epoch, channel.offset)
        log = [] if channel is None else channel.log
        if page.cursor.offset and (page.cursor.epoch != here.epoch or page.cursor.offset > here.offset):
            page.declared |= self.acknowledged[page.channel]
        elif page.cursor.offset == 0:
            # A limit: a page without a position has nothing to compare.
            page.declared |= self.acknowledged[page.channel]
        page.received |= {event for offset, event in log if offset > page.cursor.offset or page.cursor.epoch == ""}
        page.cursor = here

    def toggle(self, number: int) -> None:
        page = self.pages[number % len(self.pages)]
        if not page.connected:
            self.sync()
            self.read(page)
        page.connected = not page.connected

    def die(self, worker: int) -> None:
        """A worker is killed. The gateway has renewed its entry since the worker's first event: see the guarantees."""
        process = self.workers[worker % len(self.workers)]
        entry = self.server.data.entries.get(process.name)
        if self.gateway.life == self.server.life:
            self.sync()
        elif process.last is not None and (entry is None or entry[0] != process.entry):
            # The entry of its last events is lost with them. No other process knows of them: it lives until it has
            # stated that.
            for _ in range(PATIENCE + 3):
                if process.join():
                    break
        self.names += 1
        self.workers[worker % len(self.workers)] = Process(self.server, f"w{self.names}")

    def clean_restart(self) -> None:
        """Nothing is lost. Each process that may have written last, and the gateway, connects again by itself."""
        self.server.restart(0)
        for process in (*self.workers, self.gateway):
            if not process.idle:
                process.join(idle=process is not self.gateway)

    def rest(self, worker: int) -> None:
        process = self.workers[worker % len(self.workers)]
        for _ in range(PATIENCE + 3):
            if process.idle or process.join(idle=True):
                return

    def end(self) -> None:
        for worker in range(len(self.workers)):
            self.rest(worker)
        self.sync()
        self.sync()
        for number, page in enumerate(self.pages):
            if not page.connected:
                self.toggle(number)
            else:
                self.read(page)


ACTIONS = st.one_of(
    st.tuples(st.just("emit"), st.integers(0, 1), st.sampled_from("ab")),
    st.tuples(st.just("emit"), st.integers(0, 1), st.sampled_from("ab")),
    st.tuples(st.just("restart"), st.integers(0, 12)),
    st.tuples(st.just("sync")),
    st.tuples(st.just("toggle"), st.integers(0, 2)),
    st.tuples(st.just("die"), st.integers(0, 1)),
    st.tuples(st.just("rest"), st.integers(0, 1)),
)


def play(actions: list[tuple[object, ...]]) -> Run:
    run = Run()
    # Each page has received an event: a page without a position has nothing to compare.
    for name in "ab":
        run.emit(0, name)
    run.toggle(1)
    run.toggle(1)
    for page in run.pages:
        page.declared.clear()
    for name, *given_ in actions:
        target = run.server.restart if name == "restart" else getattr(run, str(name))
        target(*given_)
    run.end()
    return run


@settings(max_examples=150, deadline=None)
@given(st.lists(ACTIONS, max_size=30))
@example([("sync",), ("toggle", 2), ("emit", 0, "b"), ("restart", 2), ("die", 0)])
def test_each_acknowledged_event_is_received_or_declared(actions: list[tuple[object, ...]]) -> None:
    run = play(actions)
    for page in run.pages:
        assert run.acknowledged[page.channel] <= page.received | page.declared


@settings(max_examples=100, deadline=None)
@given(st.lists(ACTIONS.filter(lambda one: one[0] not in ("restart", "die")), max_size=20), st.data())
def test_restarts_that_lose_nothing_declare_nothing(actions: list[tuple[object, ...]], data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        actions.insert(data.draw(st.integers(0, len(actions))), ("clean_restart",))
    run = play(actions)
    for page in run.pages:
        assert not page.declared
        assert run.acknowledged[page.channel] <= page.received
