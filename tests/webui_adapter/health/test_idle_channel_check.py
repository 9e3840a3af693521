"""Canaries, the check of idle channels, several reasons at the same time; without sockets, with held readings."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest

from eventbus.clock import ServerClock
from eventbus.errors import Unavailable
from tests.webui_adapter.events import Note
from tests.webui_adapter.gateways import eventually
from tests.webui_adapter.world import USER, World, turns, world
from webui_adapter.health.status import Degradation, HealthStatus


async def looked(own: World) -> None:
    """The first look notes where the channels are, the second one compares."""
    await own.gateway._idle_check.check()
    await own.gateway._idle_check.check()


async def test_only_channels_that_were_idle_since_the_last_check_are_compared() -> None:
    async with world() as own:
        line = own.connect()
        await own.settled(line)
        counters = own.gateway.counters
        await own.gateway._idle_check.check()
        assert counters["check.channels"] == 0
        await own.gateway._idle_check.check()
        assert counters["check.channels"] == 2
        own.publish(Note(n=1))
        await eventually(lambda: line.page.got("gw.note") == [1], "the event")
        await own.gateway._idle_check.check()
        assert counters["check.channels"] == 3, "the user's has had something"
        own.gateway.listener.lost("a test")
        await own.gateway._idle_check.check()
        assert counters["check.channels"] == 3, "nothing is live"


async def following(own: World, collections: str) -> None:
    """A page that follows these as well."""
    line = own.connect()
    for name in collections:
        line.send("subscribe", f"collection:{name}:*")
    await own.settled(line, USER, "system", *(f"collection:{name}" for name in collections))


async def test_batches_are_bounded() -> None:
    async with world(authoriser=lambda *_: True, check_batch=2) as own:
        await following(own, "abcde")
        sizes = []
        positions = own.reader.positions

        async def counted(channels):
            sizes.append(len(channels))
            return await positions(channels)

        own.reader.positions = counted
        await looked(own)
        assert sizes == [2, 2, 2, 1]


async def test_many_batches_leave_time_for_other_tasks() -> None:
    async with world(authoriser=lambda *_: True, check_batch=2) as own:
        await following(own, "abcd")
        times, now, positions = [], asyncio.get_running_loop().time, own.reader.positions

        async def timed(channels):
            times.append(now())
            return await positions(channels)

        own.reader.positions = timed
        await own.gateway._idle_check.check()
        await own.gateway._idle_check.check(within=0.06)
        assert [later - earlier >= 0.019 for earlier, later in itertools.pairwise(times)] == [True, True]


async def test_an_event_in_flight_is_not_treated_as_lost() -> None:
    """The reading already has what the event loop has not yet handed over."""
    async with world() as own:
        line = own.connect()
        await own.settled(line)
        await own.gateway._idle_check.check()
        own.publish(Note(n=1))
        await own.gateway._idle_check.check()
        assert own.gateway.counters["check.channels"] == 2
        await eventually(lambda: line.page.got("gw.note") == [1], "the event")
        assert own.gateway.counters["check.missed"] == 0
        assert own.reader.reads == 2, "the two of the beginning"


async def test_a_channel_that_changes_while_it_is_compared_is_skipped() -> None:
    async with world() as own:
        line = own.connect()
        await own.settled(line)
        own.subscriber.deaf = True
        own.publish(Note(n=1))
        own.subscriber.deaf = False
        await own.gateway._idle_check.check()
        positions = own.reader.positions

        async def slow(channels):
            found = await positions(channels)
            own.publish(Note(n=2))
            await turns()
            return found

        own.reader.positions = slow
        await own.gateway._idle_check.check()
        await eventually(lambda: line.page.got("gw.note") == [1, 2], "both")
        assert (own.gateway.counters["hole"], own.gateway.counters["check.missed"]) == (1, 0)


async def test_a_lost_event_is_read_and_the_channel_subscribed_again() -> None:
    async with world() as own:
        line = own.connect()
        await own.settled(line)
        own.subscriber.deaf = True
        own.publish(Note(n=1))
        own.subscriber.deaf = False
        del own.subscriber.asked[:]
        await looked(own)
        await eventually(lambda: line.page.got("gw.note") == [1], "what was lost")
        assert own.subscriber.asked == [("subscribe", USER)]
        assert line.page.data_of("bus.gap") == []
        await looked(own)
        assert own.gateway.counters["check.missed"] == 1, "once"


async def test_a_channel_that_redis_has_forgotten_is_forgotten_here() -> None:
    async with world() as own:
        line = own.connect()
        await own.settled(line)
        own.publish(Note(n=1))
        await eventually(lambda: line.page.got("gw.note") == [1], "the event")
        own.broker.forget()
        await looked(own)
        assert own.gateway.hub.channels[USER].position == ("", 0)
        own.publish(Note(n=2))
        await eventually(lambda: line.page.got("gw.note") == [1, 2], "the first event of the new epoch")
        assert line.page.data_of("bus.gap") == []
        assert own.gateway.counters["hole"] == 0


async def test_a_channel_that_is_left_while_it_is_compared() -> None:
    async with world() as own:
        line = own.connect()
        await own.settled(line)
        own.subscriber.deaf = True
        own.publish(Note(n=1))
        await own.gateway._idle_check.check()
        positions = own.reader.positions

        async def slow(channels):
            found = await positions(channels)
            own.gateway.disconnect(line.session, 1000)
            return found

        own.reader.positions = slow
        await own.gateway._idle_check.check()
        assert own.gateway.hub.channels == {}
        assert not own.broker._listeners[USER]


async def test_the_check_goes_on_after_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    async with world(check_interval=0.01) as own:
        line = own.connect()
        await own.settled(line)
        own.reader.error = Unavailable("away")
        await asyncio.sleep(0.1)
        own.reader.error = None
        own.subscriber.deaf = True
        own.publish(Note(n=1))
        await eventually(lambda: line.page.got("gw.note") == [1], "what was lost")
    assert "cannot check idle channels" not in caplog.text


# --- the probe ---------------------------------------------------------------------------------------------------


class Echo:
    """A probe whose canary arrives unless the subscriber receives nothing, and that can fail."""

    def __init__(self, own: World) -> None:
        self._own = own
        self.clock = ServerClock()
        self.error: Exception | None = None
        self.beats = 0

    async def publish_canary(self, text: str, instance: str) -> str | None:
        self.beats += 1
        assert text.startswith(f"{instance} ")
        if self.error is not None:
            raise self.error
        if not self._own.subscriber.deaf:
            asyncio.get_running_loop().call_soon(self._own.gateway.listener.canary_received, text)
        return None

    async def aclose(self) -> None:
        pass


@contextlib.asynccontextmanager
async def probed_world(*, deaf: bool = False, probe_timeout: float = 0.05) -> AsyncIterator[tuple[World, Echo]]:
    own = World(probe_interval=0.02, probe_timeout=probe_timeout)
    echo = Echo(own)
    own.gateway.redis_monitor._probe = echo
    own.subscriber.deaf = deaf
    await own.gateway.start()
    try:
        yield own, echo
    finally:
        await own.gateway.aclose()


async def test_missed_events_are_read_before_the_gateway_reports_a_healthy_redis() -> None:
    async with probed_world() as (own, _):
        await eventually(lambda: own.gateway.not_ready is None, "the gateway to be ready")
        line = own.connect()
        await own.settled(line)
        own.subscriber.deaf = True
        own.publish(Note(n=1))
        await eventually(lambda: own.gateway.degraded == "events are published but do not arrive", "the reason")
        assert own.gateway.read_only is None
        own.subscriber.deaf = False
        await eventually(lambda: line.page.data_of("bus.restored"), "the control event")
        assert line.page.got("gw.note") == [1]
        assert line.page.control_events[-1]["type"] == "bus.restored"


async def test_an_instance_without_a_canary_is_not_ready() -> None:
    async with probed_world(deaf=True) as (own, echo):
        await eventually(lambda: echo.beats > 5, "some probes")
        assert own.gateway.not_ready == "events are published but do not arrive"
        own.subscriber.deaf = False
        await eventually(lambda: own.gateway.not_ready is None, "the gateway to be ready")


async def test_a_canary_that_cannot_be_published_again_and_again() -> None:
    async with probed_world() as (own, echo):
        await eventually(lambda: own.gateway.not_ready is None, "the gateway to be ready")
        line = own.connect()
        await own.settled(line)
        echo.error = Unavailable("away")
        failed = "probe.unreachable"
        await eventually(lambda: own.gateway.counters[failed] == 1, "the first failure")
        assert own.gateway.degraded is None, "once is no reason"
        await eventually(lambda: own.gateway.degraded == "Redis does not answer", "the reason")
        assert own.gateway.read_only == "Redis does not answer"
        echo.error = None
        await eventually(lambda: line.page.data_of("bus.restored") == [{}], "the control event")


async def test_a_canary_in_flight_when_redis_was_lost_proves_nothing() -> None:
    async with probed_world(probe_timeout=0.5) as (own, echo):
        await eventually(lambda: own.gateway.not_ready is None, "the gateway to be ready")
        own.subscriber.deaf = True
        beats = echo.beats
        await eventually(lambda: echo.beats > beats, "a canary that does not arrive")
        own.gateway.listener.lost("a test")
        own.subscriber.deaf = False
        await asyncio.sleep(0.6)
        assert own.gateway.degraded == "the gateway has lost Redis"
        assert own.gateway.counters["probe.undelivered"] == 0
        own.gateway.listener.restored()
        await eventually(lambda: own.gateway.not_ready is None, "the gateway to be ready")


# --- several reasons -------------------------------------------------------------------------------------


def test_pages_receive_the_most_severe_reason_and_the_end_of_the_last() -> None:
    reported: list[str | None] = []
    condition = HealthStatus(reported.append)
    condition.begin(Degradation.READ_ONLY, "full")
    condition.begin(Degradation.LOST, "lost")
    condition.begin(Degradation.LOST, "lost")
    condition.begin(Degradation.UNREACHABLE, "silent")
    assert reported == ["full", "lost"]
    condition.end(Degradation.READ_ONLY)
    condition.end(Degradation.LOST)
    condition.end(Degradation.NOT_RECEIVING, Degradation.UNREACHABLE)
    assert reported == ["full", "lost", "silent", None]


def test_an_instance_that_receives_nothing_can_still_write() -> None:
    condition = HealthStatus(lambda _: None)
    condition.begin(Degradation.NOT_RECEIVING, "deaf")
    assert (condition.most_severe, condition.read_only) == ("deaf", None)
    condition.begin(Degradation.READ_ONLY, "full")
    assert (condition.most_severe, condition.read_only) == ("deaf", "full")
    condition.begin(Degradation.LOST, "lost")
    assert condition.read_only == "lost"
    condition.end(*Degradation)
    assert condition.read_only is None
