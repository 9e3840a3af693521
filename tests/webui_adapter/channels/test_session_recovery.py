"""Races between reading, live events, and what a page does meanwhile; in one process, with readings held at will."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any

import pytest

from eventbus.backends.memory.adapters import MemoryBroker, MemoryPendingStore, MemoryReader, MemorySubscriber
from eventbus.backends.pending import PendingBatch
from eventbus.backends.ports import Write
from eventbus.errors import InvalidRecord, Unavailable
from eventbus.events.encoder import EmissionBuilder
from eventbus.events.event import Event
from eventbus.protocol.cursor import Position, parse_cursor
from eventbus.protocol.history import History
from eventbus.protocol.history import Page as Slice
from eventbus.settings import BusSettings
from tests.webui_adapter.events import Note, Progress, Promise
from tests.webui_adapter.gateways import SECRET, eventually, token
from tests.webui_adapter.page import Page
from tests.webui_adapter.parts import new_context, payloads_of, settings
from webui_adapter.access.authoriser import Authoriser, by_claim
from webui_adapter.channels.redelivery import RedeliveryScheduler
from webui_adapter.context import BackendPorts
from webui_adapter.gateway.build import build_gateway
from webui_adapter.gateway.gateway import Gateway
from webui_adapter.protocol.commands import Ping, Subscribe, Unsubscribe
from webui_adapter.session.session import Session
from webui_adapter.session.states import State
from webui_adapter.transports.encoders import FRAME_ENCODER
from webui_adapter.transports.pull_transport import PullTransport

USER = "user:ann"
ONE, TWO = f"{USER}:operation:1", f"{USER}:operation:2"


class HeldReader:
    """A real reader whose answers can be held back, and that can fail."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._reader = MemoryReader(broker)
        self.read_and_held: list[tuple[str, int | None]] = []
        self.reads = 0
        self.error: Exception | None = None
        self._open = asyncio.Event()
        self._open.set()

    def hold(self) -> None:
        self._open.clear()

    def let_go(self) -> None:
        self._open.set()

    async def read(self, channel: str, after: int | None, page: Slice | None = None) -> History:
        self.reads += 1
        if self.error is not None:
            raise self.error
        history = await self._reader.read(channel, after, page)
        if not self._open.is_set():
            self.read_and_held.append((channel, after))
            await self._open.wait()
        return history

    async def positions(self, channels: Sequence[str]) -> list[Position]:
        if self.error is not None:
            raise self.error
        return await self._reader.positions(channels)

    async def aclose(self) -> None:
        pass


class LossySubscriber(MemorySubscriber):
    """A real subscriber that can be deaf, and be slow to acknowledge; it remembers what it was asked."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.deaf = False
        self.asked: list[tuple[str, str]] = []

    async def subscribe(self, channel: str) -> None:
        self.asked.append(("subscribe", channel))
        await super().subscribe(channel)

    def unsubscribe(self, channel: str) -> None:
        self.asked.append(("unsubscribe", channel))
        super().unsubscribe(channel)

    def deliver(self, channel: str, payload: bytes) -> None:
        if not self.deaf:
            super().deliver(channel, payload)


class PageLine:
    """The edge of a page in this process: takes what it is given, unless told to take nothing."""

    def __init__(self, gateway: Gateway, session: Session, page: Page) -> None:
        self._gateway = gateway
        self.session = session
        self.page = page
        self.cuts = 0
        self.pings = 0
        self.closed: int | None = None

    def flush(self) -> None:
        for payload in payloads_of(b"".join(self.session.output.out)):
            self.page.receive(payload)
        self.session.output.out.clear()
        if self.session.output.close_code is not None and self.closed is None:
            self.closed = self.session.output.close_code
            asyncio.get_running_loop().call_soon(self._gateway.disconnect, self.session, self.closed)

    def ping(self) -> None:
        self.pings += 1
        self.session.pong()

    def cut(self) -> None:
        self.cuts += 1

    def send(self, do: str, topic: str | None = None, **members: object) -> None:
        command = self.session.receive(json.dumps({"do": do, **({"topic": topic} if topic else {}), **members}))
        assert command is not None
        self._gateway.handle(self.session, command)

    def resume(self) -> None:
        """As a socket that takes again."""
        self.session.output.resume_writing(1_000_000)
        self.flush()
        while self.session.output.idle_callbacks:
            self.session.output.resume_writing(1_000_000)
            self.flush()


class World:
    """A gateway over a broker in this process."""

    def __init__(
        self,
        authoriser: Authoriser = by_claim,
        log_limit: int = 10_000,
        ack_timeout: float | None = None,
        **given: Any,
    ) -> None:
        """``ack_timeout``: with letters, which are sent again so soon."""
        bus = BusSettings(redis_url="memory://", log_limit=log_limit, ack_timeout=ack_timeout or 10)
        self.broker = MemoryBroker(bus)
        self.reader = HeldReader(self.broker)
        self.subscriber = LossySubscriber(self.broker)
        own = settings(**given).model_copy(update={"jwt_secret": None})
        own = type(own)(**{**own.model_dump(), "jwt_secret": SECRET})
        self.letters = HeldLetters(self.broker)
        given_letters = self.letters if ack_timeout else None
        ports = BackendPorts(self.subscriber, self.reader, pending_store=given_letters)
        self.gateway = build_gateway(own, ports, authoriser, ack_timeout=bus.ack_timeout)
        self._builder = EmissionBuilder(bus)

    def publish(self, *events: Event, topic: str = ONE) -> None:
        channel = ":".join(topic.split(":")[:2])
        self.broker.carry_out(Write(channel, [self._builder.build(topic, event) for event in events]))

    def connect(self, cursor: str | Page = "", topics: tuple[str, ...] = (), **claims: Any) -> PageLine:
        page = cursor if isinstance(cursor, Page) else Page(cursor)
        session = self.gateway.connect(FRAME_ENCODER)
        line = PageLine(self.gateway, session, page)
        self.gateway.attach_transport(session, line)
        self.gateway.authenticate(session, token("ann", **claims), parse_cursor(page.cursor), topics)
        self.gateway.flush()
        return line

    async def settled(self, line: PageLine, *channels: str) -> None:
        for channel in channels or (USER, "system"):
            await eventually(lambda name=channel: name in line.page.positions, f"position of {channel}")
        await eventually(
            lambda: not any(v.recovery for v in line.session.subscriptions.channels.values()),
            "the end of all replays",
        )


@contextlib.asynccontextmanager
async def world(*args: Any, **given: Any) -> AsyncIterator[World]:
    own = World(*args, **given)
    await own.gateway.start()
    await eventually(lambda: own.gateway.degraded is None, "the gateway to be ready")
    try:
        yield own
    finally:
        await own.gateway.aclose()


async def turns(count: int = 20) -> None:
    """Let everything happen that is ready to happen."""
    for _ in range(count):
        await asyncio.sleep(0)


Held = Callable[[], Awaitable[None]]


async def test_a_first_event_that_comes_while_an_empty_channel_is_read_is_not_lost() -> None:
    async with world() as own:
        own.reader.hold()
        line = own.connect()
        await eventually(lambda: (USER, None) in own.reader.read_and_held, "the reading")
        own.publish(Note(n=1))
        await turns()
        own.reader.let_go()
        await own.settled(line)
        assert line.page.got("gw.note") == []
        own.publish(Note(n=2))
        await eventually(lambda: line.page.got("gw.note") == [2], "the second event")
        track = line.page.positions[USER]
        assert (track.offset, bool(track.epoch)) == (2, True)


async def test_the_same_for_a_page_that_comes_from_the_beginning() -> None:
    async with world() as own:
        own.reader.hold()
        line = own.connect(f"{USER}=0")
        await eventually(lambda: len(own.reader.read_and_held) >= 2, "the readings")
        own.publish(Note(n=1))
        await turns()
        own.reader.let_go()
        await eventually(lambda: line.page.got("gw.note") == [1], "the event")


async def test_events_while_a_history_is_read_come_once_and_in_order() -> None:
    async with world() as own:
        own.publish(Note(n=1))
        first = own.connect()
        await own.settled(first)
        own.reader.hold()
        line = own.connect(f"{USER}=0")
        await eventually(lambda: own.reader.read_and_held, "the reading")
        own.publish(Note(n=2), Note(n=3))
        await eventually(lambda: first.page.got("gw.note") == [2, 3], "the live events")
        own.reader.let_go()
        await eventually(lambda: line.page.got("gw.note") == [1, 2, 3], "all of them")


async def test_many_who_come_at_once_share_a_reading() -> None:
    async with world() as own:
        own.publish(Note(n=1))
        first = own.connect()
        await own.settled(first)
        own.publish(Note(n=2))
        await turns()
        before = own.reader.reads
        lines = [own.connect(f"{USER}=0") for _ in range(7)]
        for line in lines:
            await eventually(lambda: line.page.got("gw.note") == [1, 2], "the history")  # noqa: B023 - waited for here
        assert own.reader.reads - before == 1
        own.publish(Note(n=3))
        late = own.connect(f"{USER}=0")
        await eventually(lambda: late.page.got("gw.note") == [1, 2, 3], "another reading for who comes later")


async def gone(own: World, line: PageLine) -> None:
    """The page is away, and with it everything that was known of its channels."""
    own.gateway.disconnect(line.session, 1006)
    assert USER not in own.gateway.hub.channels


@pytest.mark.parametrize("pages", [500, 2])
async def test_who_comes_back_is_served_by_the_reading_that_opens_the_channel(pages: int) -> None:
    async with world(replay_events=pages) as own:
        line = own.connect()
        await own.settled(line)
        own.publish(Note(n=1), Progress(done=1))
        await eventually(lambda: line.page.got("gw.note") == [1], "the first event")
        await gone(own, line)
        own.publish(*(Note(n=n) for n in range(2, 8)), Progress(done=2))
        await turns()
        before = own.reader.reads
        back = own.connect(line.page)
        await own.settled(back)
        assert back.page.got("gw.note") == [1, 2, 3, 4, 5, 6, 7], "each once, in order"
        assert own.reader.reads - before == 2 + (pages == 2) * 2, "one of system, one of the user's, and further pages"
        own.publish(Note(n=8))
        await eventually(lambda: back.page.got("gw.note")[-1] == 8, "what comes next")
        new = own.connect()
        await own.settled(new)
        assert new.page.got("gw.note") == [], "a past that was read for another is not theirs"


async def test_who_come_back_at_once_from_different_places_each_get_what_they_missed() -> None:
    async with world() as own:
        early, late = own.connect(), own.connect()
        await own.settled(early)
        await own.settled(late)
        own.publish(Note(n=1))
        await eventually(lambda: early.page.got("gw.note") == late.page.got("gw.note") == [1], "the first event")
        own.gateway.disconnect(early.session, 1006)
        own.publish(Note(n=2), Note(n=3))
        await eventually(lambda: late.page.got("gw.note") == [1, 2, 3], "what one of them misses")
        await gone(own, late)
        own.publish(Note(n=4))
        await turns()
        for order in ((late, early), (early, late)):
            first, second = (own.connect(Page(line.page.cursor)) for line in order)
            for line in (first, second):
                await own.settled(line)
            got = [line.page.got("gw.note") for line in (first, second)]
            assert got == [[4], [2, 3, 4]] if order[0] is late else [[2, 3, 4], [4]]
            own.gateway.disconnect(first.session, 1006)
            await gone(own, second)


async def test_who_comes_back_to_another_life_of_the_channel_is_told() -> None:
    async with world() as own:
        line = own.connect(f"{USER}=0123abcd.5")
        own.publish(Note(n=1))
        await own.settled(line)
        assert [word["reason"] for word in line.page.data_of("bus.gap")] == ["epoch"]


async def test_a_state_that_comes_while_a_page_of_another_epoch_is_read_is_not_lost() -> None:
    """The session's buffer overflows during the reading, so the state is neither in the reading nor in the buffer."""
    async with world(backlog_events=2) as own:
        own.publish(Note(n=1))
        first = own.connect()
        await own.settled(first)
        own.reader.hold()
        line = own.connect(f"{USER}=0123abcd.5")
        await eventually(lambda: own.reader.read_and_held, "the reading")
        own.publish(Progress(done=7))
        own.publish(Note(n=2))
        own.publish(Note(n=3))
        await eventually(lambda: first.page.got("gw.note") == [2, 3], "the live events")
        own.reader.let_go()
        await own.settled(line)
        assert [event["reason"] for event in line.page.data_of("bus.gap")] == ["epoch"]
        assert line.page.got("gw.progress", "done") == [7]


async def test_a_shared_reading_that_is_too_old_for_who_comes_last_is_not_enough() -> None:
    async with world() as own:
        own.publish(Note(n=1))
        first = own.connect()
        await own.settled(first)
        own.publish(Note(n=2))
        await eventually(lambda: first.page.got("gw.note") == [2], "the live event")
        own.reader.hold()
        early = own.connect(f"{USER}=0")
        await eventually(lambda: own.reader.read_and_held, "the reading")
        own.publish(Note(n=3))
        await eventually(lambda: first.page.got("gw.note") == [2, 3], "the live event")
        late = own.connect(f"{USER}=0")
        await turns()
        own.reader.let_go()
        for line in (early, late):
            await own.settled(line)
            assert line.page.got("gw.note") == [1, 2, 3]


async def test_a_deserted_channel_is_not_subscribed_to_again() -> None:
    async with world() as own:
        own.reader.error = Unavailable("away")
        line = own.connect()
        await eventually(lambda: own.reader.reads, "the first try")
        recover = own.gateway._session_recovery.channel_recovery._under_way[USER]
        own.gateway.disconnect(line.session, 1006)
        await turns()
        assert recover.cancelled()
        assert own.subscriber.asked[-2:] == [("unsubscribe", USER), ("unsubscribe", "system")]


async def test_two_subscriptions_of_a_channel_that_cross_each_get_their_own_past_and_answer() -> None:
    """The default pattern starts now; the page asks for one operation from the beginning before that has come."""
    async with world() as own:
        own.publish(Note(n=1))
        own.publish(Note(n=7), topic=TWO)
        own.reader.hold()
        line = own.connect()
        line.send("subscribe", ONE, **{"from": "0"}, ref="a")
        line.send("subscribe", TWO, ref="b")
        await turns()
        own.reader.let_go()
        await own.settled(line)
        assert line.page.got("gw.note") == [1]
        answers = {word["ref"]: word["how"] for word in line.page.data_of("bus.subscribed") if "ref" in word}
        assert answers == {"a": "resumed", "b": "snapshot"}


async def test_unsubscribe_and_subscribe_again_while_the_first_is_still_being_read() -> None:
    async with world() as own:
        own.publish(Note(n=1), topic="collection:7:events")
        own.publish(Progress(done=1), topic="collection:7:events")
        line = own.connect(collections=["7"])
        await own.settled(line)
        own.reader.hold()
        line.send("subscribe", "collection:7:*", ref="a")
        await eventually(lambda: ("collection:7", None) in own.reader.read_and_held, "the first reading")
        line.send("unsubscribe", "collection:7:*", ref="b")
        line.send("subscribe", "collection:7:*", **{"from": "0"}, ref="c")
        await turns()
        own.reader.let_go()
        await own.settled(line, "collection:7")
        assert line.page.got("gw.note") == [1], "the second one asked for the past, and gets it"
        assert [word["ref"] for word in line.page.data_of("bus.subscribed") if "ref" in word] == ["c"]
        assert [ask for ask in own.subscriber.asked if ask[1] == "collection:7"][-2:] == [
            ("unsubscribe", "collection:7"),
            ("subscribe", "collection:7"),
        ]
        own.publish(Note(n=2), topic="collection:7:events")
        await eventually(lambda: line.page.got("gw.note") == [1, 2], "live events")


async def test_a_pattern_that_waits_has_its_turn_when_the_one_before_is_given_up() -> None:
    async with world() as own:
        line = own.connect(collections=["7"])
        await own.settled(line)
        own.reader.hold()
        line.send("subscribe", "collection:7:a", ref=1)
        await eventually(lambda: "collection:7" in line.session.subscriptions.channels, "the first one to begin")
        line.send("subscribe", "collection:7:b", ref=2)
        line.send("subscribe", "collection:7:c", ref=3)
        await eventually(
            lambda: len(line.session.subscriptions.channels["collection:7"].queued_commands) == 2, "the others to wait"
        )
        line.send("unsubscribe", "collection:7:c")
        line.send("unsubscribe", "collection:7:a")
        own.reader.let_go()
        await own.settled(line, "collection:7")
        assert list(line.session.subscriptions.channels["collection:7"].patterns) == ["collection:7:b"]
        own.publish(Note(n=1), topic="collection:7:b")
        own.publish(Note(n=2), topic="collection:7:c")
        own.publish(Note(n=3), topic="collection:7:b")
        await eventually(lambda: line.page.got("gw.note") == [1, 3], "what was asked for")


async def test_a_channel_that_is_deserted_during_its_repair_and_joined_again() -> None:
    async with world() as own:
        own.publish(Note(n=1))
        own.reader.hold()
        line = own.connect()
        await eventually(lambda: own.reader.read_and_held, "the first reading")
        own.gateway.disconnect(line.session, 1006)
        again = own.connect(f"{USER}=0")
        own.publish(Note(n=2))
        await turns()
        own.reader.let_go()
        await eventually(lambda: again.page.got("gw.note") == [1, 2], "everything")
        asked = [ask for ask, channel in own.subscriber.asked if channel == USER]
        assert asked[-2:] == ["unsubscribe", "subscribe"]
        assert line.page.events == []
        assert set(own.gateway.hub.channels) == {USER, "system"}


async def test_a_session_that_ends_while_it_is_brought_up_to_date_leaves_nothing() -> None:
    async with world() as own:
        own.reader.hold()
        lines = [own.connect() for _ in range(5)]
        lines[0].session.output.pause_writing()
        await turns()
        for line in lines:
            own.gateway.disconnect(line.session, 1006)
        own.reader.let_go()
        await turns(50)
        gateway = own.gateway
        assert not gateway.sessions
        assert not gateway.hub.channels
        assert all(line.session.output.transport is None for line in lines)
        assert not gateway._session_recovery._waiting_sessions
        assert not gateway._deadlines._wheel._where
        assert not gateway._history_reader._under_way
        assert not gateway._session_recovery.channel_recovery._under_way
        assert gateway.connection_limits.connections == 0
        assert not gateway.connection_limits._of_user
        assert not own.broker._listeners[USER]
        await eventually(lambda: len(gateway._tasks) == 2, "all tasks but the timer and the check to end")
        assert all(line.session.state is State.CLOSED for line in lines)


async def test_who_does_not_read_gets_no_history_and_holds_no_memory() -> None:
    async with world() as own:
        own.publish(*(Note(n=i, pad="x" * 500) for i in range(200)))
        line = own.connect()
        await own.settled(line)
        line.session.output.pause_writing()
        before = own.reader.reads
        for i in range(30):
            line.send("subscribe", ONE, **{"from": "0"}, ref=i)
            line.send("unsubscribe", ONE)
        line.send("subscribe", ONE, **{"from": "0"}, ref="last")
        await turns(50)
        assert own.reader.reads == before
        assert sum(map(len, line.session.output.out)) < 10_000
        line.resume()
        await own.settled(line)
        assert line.page.got("gw.note") == list(range(200)), "what the last one asked for, and nobody else"


async def test_a_replay_waits_for_what_waits() -> None:
    """A slow page, events in its backlog: a further subscription must not set its place back before they came."""
    async with world() as own:
        own.publish(Progress(done=1, part="two"), topic=TWO)
        line = own.connect()
        await own.settled(line)
        line.send("unsubscribe", "user:ann:*")
        line.send("subscribe", ONE)
        await own.settled(line)
        line.session.output.pause_writing()
        own.publish(*(Note(n=i) for i in range(3)))
        await turns()
        line.send("subscribe", TWO)
        own.publish(Note(n=3))
        await turns()
        line.resume()
        await eventually(lambda: line.page.got("gw.note") == [0, 1, 2, 3], "every event once")
        await eventually(lambda: line.page.got("gw.progress", "done") == [1, 1], "the state of the other topic")
        assert line.page.positions[USER].offset == 5


async def test_all_events_of_a_turn_go_out_in_one_write() -> None:
    async with world() as own:
        line = own.connect()
        await own.settled(line)
        flushes: list[int] = []
        flush = line.flush

        def counted() -> None:
            flushes.append(len(line.session.output.out))
            flush()

        line.flush = counted
        for n in range(10):
            own.gateway.listener.received(USER, f"5f {n}\n{n + 1} n log 0 0 gw.note {ONE} -\n".encode() + _event(n + 1))
        assert flushes == []
        own.gateway.listener.turn_ended()
        assert flushes == [11], "the word of the channel's beginning and ten events"
        assert line.page.got("gw.note") == list(range(1, 11))


def _event(offset: int) -> bytes:
    members = {"offset": offset, "id": str(offset), "type": "gw.note", "topic": ONE, "time": 1, "data": {"n": offset}}
    return json.dumps(members).encode()


# --- Redis comes and goes -------------------------------------------------------------------------------------------


async def test_what_was_missed_while_deaf_comes_with_the_repair() -> None:
    async with world() as own:
        line = own.connect()
        await own.settled(line)
        own.publish(Note(n=1))
        await eventually(lambda: line.page.got("gw.note") == [1], "the event")
        own.subscriber.deaf = True
        own.gateway.listener.lost("a test")
        assert line.page.control_events[-1]["type"] == "bus.degraded"
        assert own.gateway.not_ready == "the gateway has lost Redis"
        own.publish(Note(n=2))
        own.subscriber.deaf = False
        own.gateway.listener.restored()
        await eventually(lambda: line.page.data_of("bus.restored"), "the word")
        assert line.page.got("gw.note") == [1, 2]
        assert own.gateway.not_ready is None
        assert line.page.control_events[-1]["type"] == "bus.restored", "only when what was missed has been read"


async def test_a_hole_is_noticed_by_what_comes_next_and_mended() -> None:
    async with world() as own:
        line = own.connect()
        await own.settled(line)
        own.publish(Note(n=1))
        await eventually(lambda: line.page.got("gw.note") == [1], "the event")
        own.subscriber.deaf = True
        own.publish(Note(n=2))
        own.subscriber.deaf = False
        own.publish(Note(n=3))
        await eventually(lambda: line.page.got("gw.note") == [1, 2, 3], "what was lost on the way, too")
        assert own.gateway.counters["hole"] == 1
        assert line.page.data_of("bus.gap") == []


async def test_what_cannot_be_read_on_the_way_is_dropped_and_counted() -> None:
    async with world() as own:
        line = own.connect()
        await own.settled(line)
        for payload in (b"", b"nonsense", b"5f x", b"5f 0\n1 n log", b"5f 0\n2 n log 0 0 a.b user:ann:x -\n{}"):
            own.gateway.listener.received(USER, payload)
        assert own.gateway.counters["drop.undecodable"] == 5
        own.publish(Note(n=1))
        await eventually(lambda: line.page.got("gw.note") == [1], "the event")


async def test_a_line_that_is_pulled_from_gives_a_slow_page_piece_by_piece() -> None:
    async with world() as own:
        line = own.connect()
        await own.settled(line)
        pull = PullTransport(line.session, 5000)
        line.session.output.pause_writing()
        own.publish(*(Note(n=n, pad="x" * 900) for n in range(20)))
        await turns()
        sizes = []
        while line.session.output.send_queue is not None:
            sizes.append(sum(map(len, await pull.next())))
            assert line.session.output.paused, "until it is asked again"
        assert len(sizes) >= 4
        assert max(sizes) < 7000


async def test_a_reading_from_before_a_loss_makes_no_channel_whole() -> None:
    async with world() as own:
        line = own.connect()
        await own.settled(line)
        own.publish(Note(n=1))
        await eventually(lambda: line.page.got("gw.note") == [1], "the event")
        own.reader.hold()
        own.gateway.listener.lost("first")
        own.gateway.listener.restored()
        await eventually(lambda: own.reader.read_and_held, "the reading of the repair")
        own.subscriber.deaf = True
        own.gateway.listener.lost("second")
        own.publish(Note(n=2))
        own.subscriber.deaf = False
        own.gateway.listener.restored()
        own.reader.let_go()
        await eventually(lambda: line.page.got("gw.note") == [1, 2], "what was published between the two")


async def test_restored_is_not_said_when_redis_is_lost_again() -> None:
    async with world() as own:
        line = own.connect()
        await own.settled(line)
        own.reader.hold()
        own.gateway.listener.lost("first")
        own.gateway.listener.restored()
        await eventually(lambda: own.reader.read_and_held, "the reading of the repair")
        own.gateway.listener.lost("second")
        own.reader.let_go()
        await turns(50)
        assert line.page.data_of("bus.restored") == []
        assert own.gateway.not_ready
        own.gateway.listener.restored()
        await eventually(lambda: len(line.page.data_of("bus.restored")) == 1, "the word")


async def test_nobody_is_closed_for_being_brought_up_to_date_when_redis_is_lost() -> None:
    async with world() as own:
        first = own.connect()
        await own.settled(first)
        own.publish(Note(n=1))
        await turns()
        own.reader.hold()
        line = own.connect(f"{USER}=0")
        await eventually(lambda: own.reader.read_and_held, "the reading")
        own.gateway.listener.lost("a test")
        own.reader.let_go()
        await turns(100)
        assert line.closed is None
        own.gateway.listener.restored()
        await eventually(lambda: line.page.got("gw.note") == [1], "the history")


async def test_degraded_at_connect() -> None:
    async with world() as own:
        own.gateway.listener.lost("a test with [Errno 104] inside")
        line = own.connect()
        await turns()
        assert [word["type"] for word in line.page.control_events[:2]] == ["bus.hello", "bus.degraded"]
        assert "Errno" not in str(line.page.control_events)
        own.gateway.listener.restored()
        await own.settled(line)
        await eventually(lambda: line.page.data_of("bus.restored") == [{}], "the word")


async def test_a_session_waits_for_redis_however_long() -> None:
    async with world() as own:
        own.publish(Note(n=1))
        own.reader.error = Unavailable("away")
        line = own.connect(f"{USER}=0")
        await eventually(lambda: own.reader.reads > 3, "some tries")
        assert line.closed is None
        own.reader.error = None
        await eventually(lambda: line.page.got("gw.note") == [1], "the history")


async def test_a_channel_that_cannot_be_read_does_not_hold_up_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("webui_adapter.channels.channel_recovery._RECOVERY_TIMEOUT", 0.3)
    async with world() as own:
        own.publish(Note(n=1))
        own.reader.error = InvalidRecord("not of this library")
        line = own.connect()
        own.gateway.listener.lost("a test")
        own.gateway.listener.restored()
        await eventually(lambda: own.gateway.not_ready is None, "the gateway to be ready")
        assert line.closed is None
        own.reader.error = None
        await own.settled(line)
    assert "cannot recover channel" not in caplog.text, "tried again, not given up"


async def test_channels_that_redis_has_forgotten_take_newcomers() -> None:
    """Keys expire. A gateway that still knows a channel's end must not take the empty reading for an old one."""
    async with world() as own:
        line = own.connect()
        await own.settled(line)
        own.publish(Note(n=1))
        await eventually(lambda: line.page.got("gw.note") == [1], "the event")
        own.broker.forget()
        late = own.connect()
        await own.settled(late)
        assert late.closed is None
        own.publish(Note(n=2))
        await eventually(lambda: late.page.got("gw.note") == [2], "the next event")
        assert line.page.got("gw.note") == [1, 2]
        assert line.page.data_of("bus.gap") == []
        assert line.page.positions[USER] == late.page.positions[USER]


async def test_a_channel_born_anew_without_our_knowledge_is_found_out_by_a_newcomer() -> None:
    async with world() as own:
        line = own.connect()
        await own.settled(line)
        own.publish(Note(n=1))
        await eventually(lambda: line.page.got("gw.note") == [1], "the event")
        own.subscriber.deaf = True
        own.broker.forget()
        own.publish(Progress(done=5))
        own.subscriber.deaf = False
        late = own.connect()
        await own.settled(late)
        assert late.page.got("gw.progress", "done") == [5]
        assert [gap["reason"] for gap in line.page.data_of("bus.gap")] == ["epoch"]
        assert line.page.got("gw.progress", "done") == [5]


async def test_a_gap_on_a_short_log() -> None:
    async with world(log_limit=3) as own:
        line = own.connect()
        await own.settled(line)
        own.publish(Note(n=0))
        await eventually(lambda: line.page.got("gw.note") == [0], "the event")
        own.gateway.disconnect(line.session, 1006)
        own.publish(*(Note(n=i) for i in range(1, 9)))
        own.publish(Progress(done=3))
        back = own.connect(line.page)
        await own.settled(back)
        assert [gap["reason"] for gap in back.page.data_of("bus.gap")] == ["trimmed"]
        assert back.page.got("gw.note") == [0], "never a part of the past that looks whole"
        assert back.page.got("gw.progress", "done") == [3]


# --- rights, limits, leaving ----------------------------------------------------------------------------------------


async def test_a_subscription_that_is_taken_back_before_the_authoriser_answers_does_not_begin() -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slowly(*_: object) -> bool:
        asked.set()
        await answer.wait()
        return True

    async with world(slowly) as own:
        line = own.connect()
        await own.settled(line)
        line.send("subscribe", "collection:7:*", ref=1)
        await asked.wait()
        line.send("unsubscribe", "collection:7:*", ref=2)
        answer.set()
        await turns()
        assert "collection:7" not in own.gateway.hub.channels
        assert line.page.data_of("bus.ok") == [{"ref": 2}]


async def test_the_limit_of_topics_counts_those_that_wait() -> None:
    answer = asyncio.Event()

    async def slowly(*_: object) -> bool:
        await answer.wait()
        return True

    async with world(slowly, max_topics=5) as own:
        line = own.connect()
        await own.settled(line)
        for i in range(9):
            line.send("subscribe", f"collection:{i}:*", ref=i)
        refused = {error["ref"]: error for error in line.page.data_of("bus.error")}
        assert set(refused) == {3, 4, 5, 6, 7, 8}
        assert refused[3]["code"] == "too_many_topics"
        assert refused[3]["limit"] == 5
        assert refused[3]["topic"] == "collection:3:*"
        line.send("subscribe", "user:ann:*", ref="again")
        answer.set()
        await own.settled(line, "collection:0", "collection:1", "collection:2")
        assert [word["ref"] for word in line.page.data_of("bus.subscribed") if word.get("ref") == "again"] == ["again"]


@pytest.mark.parametrize("answer", [None, 0, "", LookupError("no"), TimeoutError()])
async def test_an_authoriser_that_errs_means_no(answer: object) -> None:
    def odd(*_: object) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with world(odd) as own:
        line = own.connect(topics=("collection:7:*",))
        await eventually(lambda: line.page.data_of("bus.error"), "the refusal")
        assert line.page.data_of("bus.error")[0]["code"] == "forbidden"
        assert line.page.data_of("bus.error")[0]["topic"] == "collection:7:*"


async def test_drain_while_being_brought_up_to_date() -> None:
    async with world(drain_spread=0.5, shutdown_grace=0.2) as own:
        own.publish(Note(n=1))
        own.reader.hold()
        line = own.connect(f"{USER}=0")
        await eventually(lambda: own.reader.read_and_held, "the reading")
        leaving = asyncio.create_task(own.gateway.drain.run())
        await turns()
        assert 0 <= line.page.data_of("bus.drain")[0]["after_ms"] <= 500
        own.reader.let_go()
        await eventually(lambda: line.page.got("gw.note") == [1], "a session that leaves is served to the end")
        await leaving
        assert line.closed == 4000
        assert own.gateway.not_ready == "leaving"
        late = own.connect()
        assert late.session.output.close_code == 4000


async def test_leaving_takes_no_longer_than_the_sessions_need() -> None:
    async with world(drain_spread=20, shutdown_grace=20) as own:
        lines = [own.connect() for _ in range(5)]
        leaving = asyncio.create_task(own.gateway.drain.run())
        await turns()
        delays = [line.page.data_of("bus.drain")[0]["after_ms"] for line in lines]
        assert len(set(delays)) > 1, "each at its own moment"
        for line in lines:
            own.gateway.disconnect(line.session, 1000)
        async with asyncio.timeout(2):
            await leaving


async def test_a_peer_that_does_not_even_take_its_end_is_cut() -> None:
    async with world(close_timeout=0.3) as own:
        line = own.connect()
        await own.settled(line)
        line.closed = 0  # this line does not close by itself
        line.session.close(4001, "slow")
        own.gateway.flush()
        await eventually(lambda: line.cuts == 1, "the cut")
        assert line.session.state is State.CLOSED
        assert not own.gateway.sessions


async def test_a_session_whose_timer_fails_does_not_stop_the_time_of_others(caplog: pytest.LogCaptureFixture) -> None:
    async with world(heartbeat_interval=0.3) as own:
        one, other = own.connect(), own.connect()
        await own.settled(one)

        def broken() -> None:
            raise RuntimeError("a line that breaks its word")

        one.ping = broken
        await eventually(lambda: "a session's timer failed" in caplog.text, "the failure")
        pings = other.pings
        await eventually(lambda: other.pings > pings + 1, "the other one's pings")


async def test_a_token_that_ends_sooner_than_the_old_one_counts_at_once() -> None:
    async with world() as own:
        line = own.connect()
        await own.settled(line)
        line.send("auth", token=token("ann", seconds=1), ref=1)
        assert line.page.data_of("bus.ok")[0]["ref"] == 1
        await eventually(lambda: line.closed == 4100, "the end of the token", 3)


async def test_commands_after_the_end_was_asked_for_are_nothing() -> None:
    async with world() as own:
        line = own.connect()
        await own.settled(line)
        line.session.close(4001, "slow")
        for command in (Ping(1), Subscribe("system:a", None, 2), Unsubscribe("system:*", 3)):
            own.gateway.handle(line.session, command)
        assert line.page.data_of("bus.ok") == []


async def test_close_codes_of_a_peers_own_invention_are_counted_as_one() -> None:
    async with world() as own:
        for code in (1000, 3001, 3002, 4444, 4000):
            own.gateway.disconnect(own.connect().session, code)
        counts = {name: n for name, n in own.gateway.counters.items() if name.startswith("disconnect.")}
        assert counts == {"disconnect.1000": 1, "disconnect.other": 3, "disconnect.4000": 1}


# --- what is owed ---------------------------------------------------------------------------------------------


async def test_who_is_owed_nothing_is_not_asked_about() -> None:
    async with world(ack_timeout=5) as own:
        asked: list[str] = []
        own.broker.fetch = asked.append  # type: ignore[assignment]
        own.publish(Note(n=1))
        line = own.connect(f"{USER}=0")
        await own.settled(line)
        assert line.page.got("gw.note") == [1]
        assert asked == []


async def test_what_came_to_be_owed_in_a_gap_is_sent_all_the_same() -> None:
    async with world(ack_timeout=0.05, log_limit=1) as own:
        line = own.connect()
        await own.settled(line)
        own.subscriber.deaf = True
        own.publish(Promise(n=1))
        own.publish(Note(n=2), Note(n=3))
        own.subscriber.deaf = False
        own.publish(Note(n=4))
        await eventually(lambda: line.page.gaps, "the gap")
        await eventually(lambda: line.page.got("gw.promise") == [1], "what is owed")


async def test_what_is_owed_and_comes_while_a_newcomer_reads_is_not_left_for_later() -> None:
    async with world(ack_timeout=60) as own:
        own.publish(Note(n=0))
        first = own.connect()
        await own.settled(first)
        own.publish(Note(n=1))
        await eventually(lambda: first.page.got("gw.note") == [1], "the channel to move on")
        own.reader.hold()
        second = own.connect()
        await eventually(lambda: own.reader.read_and_held, "the reading")
        own.publish(Promise(n=2))
        own.reader.let_go()
        await eventually(lambda: second.page.got("gw.promise") == [2], "what is owed")


async def test_an_owed_event_that_begins_its_channel_while_a_newcomer_reads_is_not_left_for_later() -> None:
    async with world(ack_timeout=60) as own:
        own.reader.hold()
        first = own.connect()
        await eventually(lambda: (USER, None) in own.reader.read_and_held, "the reading")
        own.publish(Promise(n=1))
        own.reader.let_go()
        await eventually(lambda: first.page.got("gw.promise") == [1], "what is owed")


class HeldLetters(MemoryPendingStore):
    """Real letters whose answer to what is owed can be held back."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()

    async def fetch(self, channel: str) -> PendingBatch:
        self.asked += 1
        owed = await super().fetch(channel)
        await self.open.wait()
        return owed


async def test_what_comes_between_the_question_what_is_owed_and_the_reading_is_not_left_for_later() -> None:
    async with world(ack_timeout=60) as own:
        own.publish(Promise(n=1))
        first = own.connect()
        await eventually(lambda: first.page.got("gw.promise") == [1], "what is owed")
        own.letters.open.clear()
        asked = own.letters.asked
        second = own.connect()
        await eventually(lambda: own.letters.asked > asked, "the question")
        own.publish(Promise(n=2))
        await eventually(lambda: first.page.got("gw.promise") == [1, 2], "the live event")
        own.letters.open.set()
        await eventually(lambda: sorted(second.page.got("gw.promise")) == [1, 2], "what is owed")


async def test_what_comes_while_it_is_asked_what_is_owed_is_known_to_be_owed() -> None:
    async with world(ack_timeout=60) as own:
        redelivery = RedeliveryScheduler(new_context(spawn=_no_tasks, clock=own.gateway.clock), own.letters, 60)
        own.letters.open.clear()
        asking = asyncio.create_task(redelivery.fetch(USER))
        await eventually(lambda: own.letters.asked, "the question")
        own.publish(Promise(n=1))
        [entry] = (await own.reader.read(USER, 0)).log
        redelivery.track(USER, entry.record)
        own.letters.open.set()
        assert not (await asking).records
        assert not redelivery.has_none(USER)


def _no_tasks(_: Coroutine[object, object, None]) -> None:
    raise AssertionError("nothing is to be begun")
