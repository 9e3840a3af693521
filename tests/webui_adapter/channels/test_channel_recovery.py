"""Channels that have missed something: Redis is lost and returns, in one process."""

from __future__ import annotations

import pytest

from eventbus.errors import InvalidRecord, Unavailable
from tests.webui_adapter.events import Note, Progress
from tests.webui_adapter.gateways import eventually
from tests.webui_adapter.page import Page
from tests.webui_adapter.world import USER, turns, world
from webui_adapter.transports.pull_transport import PullTransport


async def test_events_missed_while_nothing_arrives_follow_with_the_recovery() -> None:
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
        await eventually(lambda: line.page.data_of("bus.restored"), "the control event")
        assert line.page.got("gw.note") == [1, 2]
        assert own.gateway.not_ready is None
        assert line.page.control_events[-1]["type"] == "bus.restored", "only when what was missed has been read"


async def test_the_next_event_reveals_a_hole_and_the_channel_recovers() -> None:
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


@pytest.mark.parametrize("seen", ["next event", "idle check"])
async def test_data_that_go_back_are_a_gap_also_for_a_disconnected_page(seen: str) -> None:
    async with world() as own:
        line, away = own.connect(), Page()
        away_line = own.connect(away)
        await own.settled(line)
        await own.settled(away_line)
        own.publish(Note(n=1))
        older = own.broker.copy_data()
        own.publish(Note(n=2))
        await eventually(lambda: line.page.got("gw.note") == away.got("gw.note") == [1, 2], "the events")
        own.gateway.disconnect(away_line.session, 1006)
        own.broker.go_back(older)
        if seen == "next event":
            own.publish(Note(n=3))
        else:
            await own.gateway._idle_check.check()
            await own.gateway._idle_check.check()
        await eventually(lambda: line.page.gaps == 1, "the gap")
        own.publish(Note(n=4))
        await eventually(lambda: line.page.got("gw.note")[-1] == 4, "the next event")
        away_line = own.connect(away)
        await own.settled(away_line)
        assert [data["reason"] for data in away.data_of("bus.gap")] == ["epoch"]
        assert own.gateway.counters["rollback.channel"] == 1


async def test_a_publication_that_cannot_be_parsed_is_dropped_and_counted() -> None:
    async with world() as own:
        line = own.connect()
        await own.settled(line)
        for payload in (b"", b"nonsense", b"5f x", b"5f 0\n1 n log", b"5f 0\n2 n log 0 0 a.b user:ann:x -\n{}"):
            own.gateway.listener.received(USER, payload)
        assert own.gateway.counters["drop.undecodable"] == 5
        own.publish(Note(n=1))
        await eventually(lambda: line.page.got("gw.note") == [1], "the event")


async def test_a_pull_transport_serves_a_slow_page_in_parts() -> None:
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


async def test_a_reading_from_before_a_loss_recovers_no_channel() -> None:
    async with world() as own:
        line = own.connect()
        await own.settled(line)
        own.publish(Note(n=1))
        await eventually(lambda: line.page.got("gw.note") == [1], "the event")
        own.reader.hold()
        own.gateway.listener.lost("first")
        own.gateway.listener.restored()
        await eventually(lambda: own.reader.read_and_held, "the reading of the recovery")
        own.subscriber.deaf = True
        own.gateway.listener.lost("second")
        own.publish(Note(n=2))
        own.subscriber.deaf = False
        own.gateway.listener.restored()
        own.reader.let_go()
        await eventually(lambda: line.page.got("gw.note") == [1, 2], "what was published between the two")


async def test_restored_is_not_sent_when_redis_is_lost_again() -> None:
    async with world() as own:
        line = own.connect()
        await own.settled(line)
        own.reader.hold()
        own.gateway.listener.lost("first")
        own.gateway.listener.restored()
        await eventually(lambda: own.reader.read_and_held, "the reading of the recovery")
        own.gateway.listener.lost("second")
        own.reader.let_go()
        await turns(50)
        assert line.page.data_of("bus.restored") == []
        assert own.gateway.not_ready
        own.gateway.listener.restored()
        await eventually(lambda: len(line.page.data_of("bus.restored")) == 1, "the control event")


async def test_no_session_is_closed_for_recovering_when_redis_is_lost() -> None:
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
        assert [event["type"] for event in line.page.control_events[:2]] == ["bus.hello", "bus.degraded"]
        assert "Errno" not in str(line.page.control_events)
        own.gateway.listener.restored()
        await own.settled(line)
        await eventually(lambda: line.page.data_of("bus.restored") == [{}], "the control event")


async def test_a_session_waits_for_redis_however_long() -> None:
    async with world() as own:
        own.publish(Note(n=1))
        own.reader.error = Unavailable("away")
        line = own.connect(f"{USER}=0")
        await eventually(lambda: own.reader.reads > 3, "some tries")
        assert line.closed is None
        own.reader.error = None
        await eventually(lambda: line.page.got("gw.note") == [1], "the history")


async def test_a_channel_that_cannot_be_read_does_not_delay_the_others(
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


async def test_a_channel_that_redis_has_forgotten_accepts_new_sessions() -> None:
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


async def test_a_new_session_reveals_an_epoch_that_began_unnoticed() -> None:
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


async def test_an_unexpected_error_at_a_publication_loses_neither_the_event_nor_the_subscription(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world() as own:
        line = own.connect()
        await own.settled(line)

        def fail(*_: object) -> bool:
            raise RuntimeError("a fault of this library")

        with monkeypatch.context() as faulty:
            faulty.setattr(own.gateway.listener._hub, "receive", fail)
            own.publish(Note(n=1))
            await eventually(lambda: own.gateway.counters["drop.unexpected"] == 1, "the error")
        await eventually(lambda: line.page.got("gw.note") == [1], "the event, read from the log")
        own.publish(Note(n=2))
        await eventually(lambda: line.page.got("gw.note") == [1, 2], "the next event")
        assert line.page.gaps == 0
