"""The calendar of a machine that is set by hours, next to a Redis whose clock goes on.

Nothing is dropped or doubled, no task counts as lost, and no cancellation is missed.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventbus import Bus, BusSettings, Event
from eventbus.backends.redis.operation_client import Operations
from eventbus.backends.redis.operation_store import RedisOperations
from eventbus.backends.redis.pending_store import RedisPendingStore
from eventbus.backends.redis.probe import RedisProbe
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.clock import ServerClock, SystemClock, steady_ms
from eventbus.operations.events import OperationRef
from eventbus.operations.state import TaskTransition
from eventbus.protocol.cursor import BEGINNING
from eventbus.protocol.recovery import resume
from worker_adapter.lifecycle.process_state import CancelledOperations

HOUR: Final = 3600
LEASE: Final = 60  # seconds; the first one is half as long
TTL: Final = timedelta(minutes=10)
USER: Final = "ann"
CHANNEL: Final = f"user:{USER}"
RUNNING: Final = OperationRef(USER, "running")


class Brief(Event, name="clocks.brief", ttl=TTL):
    n: int


class Urgent(Event, name="clocks.urgent", deliver="ack", ttl=TTL):
    n: int


class Calendar:
    """The calendar of this machine."""

    def __init__(self) -> None:
        self.ahead = 0  # seconds


@contextmanager
def set_calendar() -> Iterator[Calendar]:
    calendar, real, real_ns = Calendar(), time.time, time.time_ns
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: real() + calendar.ahead)
        patch.setattr(time, "time_ns", lambda: real_ns() + calendar.ahead * 10**9)
        yield calendar


class Site:
    """An application, a worker and a gateway on a machine whose calendar jumps, and a worker that runs a task."""

    def __init__(self, bus_settings: BusSettings) -> None:
        self.bus, self.keys = Bus(bus_settings), Keys.of(bus_settings)
        self.worker = Operations(bus_settings)
        self.cancelled = CancelledOperations(1_000)
        self.reader, self.probe = RedisReader(bus_settings), RedisProbe(bus_settings)
        self.clock = SystemClock(self.probe.clock)
        self.operations = RedisOperations(bus_settings, self.reader)
        self.pending = RedisPendingStore(bus_settings, self.reader)
        self.emitted: list[int] = []
        self.cancellations: list[OperationRef] = []

    def start(self) -> None:
        self.bus.record_transition(RUNNING, TaskTransition("plan", planned=1))
        self.bus.record_transition(RUNNING, TaskTransition("started", "task", 1, lease=30_000))

    def emit(self, kind: type[Brief | Urgent]) -> None:
        self.emitted.append(len(self.emitted))
        self.bus.emit(USER, "running", kind(n=self.emitted[-1]))

    async def renew(self) -> None:
        """Renew the lease of the running task: its end moves by minutes."""
        assert self.worker.renew({RUNNING: ["task"]}, LEASE) == {}
        ends = await self.reader.execute("ZSCORE", self.keys.operation(CHANNEL, "running")[2], "task")
        assert ends is None or float(ends) > await self.reader.server_ms() + LEASE * 900

    async def sweep(self) -> None:
        """One round of the gateway's sweeper."""
        token = await self.pending.lease("gateway", 60)
        assert token is not None
        for channel in await self.pending.due(100):
            swept = await self.pending.sweep(channel, token)
            assert (swept.dead_lettered, swept.fenced) == (0, False)
        for member in await self.operations.due(100):
            assert (await self.operations.expire_leases(member)).expired == 0

    async def cancel(self) -> None:
        ref = OperationRef(USER, f"cancelled{len(self.cancellations)}")
        self.bus.record_transition(ref, TaskTransition("published", "task"))
        assert self.bus.flush(20)
        await self.operations.cancel(*ref)
        self.cancelled.add(self.worker.cancelled(self.cancelled.since))
        self.cancellations.append(ref)
        assert ref in self.cancelled

    async def check(self) -> None:
        """Nothing is dropped or doubled, and a page gets all of it."""
        assert self.bus.flush(20)
        assert not self.bus.outbox.dropped
        await self.probe.publish_canary("any text", "gateway")
        history = await self.reader.read(CHANNEL, 0)
        found = resume(BEGINNING, history, (), self.clock.server_ms())
        mine = [record for record in found.records if record.type.startswith("clocks.")]
        assert [int(record.event.rpartition(b'"n":')[2].rstrip(b"}")) for record in mine] == self.emitted
        now = await self.reader.server_ms()
        assert all(now < record.expires <= now + (TTL.total_seconds() + 2) * 1000 for record in mine)
        waiting = await self.pending.fetch(CHANNEL)
        assert len(waiting.records) == sum(record.ack for record in mine)
        running = self.worker.get(*RUNNING)
        assert running is not None
        assert running.state == "running"
        due = await self.reader.execute("ZSCORE", self.keys.leases, f"{CHANNEL} running")
        assert now < float(due) < now + (LEASE + 2) * 1000, (
            "the next check comes in time, and not before the lease ends"
        )

    async def close(self) -> None:
        self.bus.close()
        self.worker.close()
        await self.probe.aclose()
        await self.reader.aclose()


steps = st.one_of(
    st.tuples(st.just("jump"), st.sampled_from([-24 * HOUR, -HOUR, -90, 90, HOUR, 24 * HOUR])),
    st.tuples(st.just("emit"), st.sampled_from([Brief, Urgent])),
    st.tuples(st.sampled_from(["renew", "sweep", "cancel", "check"]), st.none()),
)


async def play(site: Site, calendar: Calendar, script: list[tuple[str, object]]) -> None:
    site.start()
    assert site.bus.flush(20)
    for step, what in script:
        if step == "jump":
            calendar.ahead += what  # type: ignore[operator] # seconds
        elif step == "emit":
            site.emit(what)  # type: ignore[arg-type] # a class
        else:
            await getattr(site, step)()
    await site.sweep()
    await site.check()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(steps, min_size=1, max_size=12))
def test_a_calendar_that_jumps_changes_nothing(script: list[tuple[str, object]], bus_settings: BusSettings) -> None:
    own = bus_settings.model_copy(update={"key_prefix": f"t{secrets.token_hex(5)}"})

    async def run() -> None:
        site = Site(own)
        try:
            await play(site, calendar, script)
        finally:
            await site.close()

    with set_calendar() as calendar:
        asyncio.run(run())


@pytest.mark.parametrize("ahead", [-HOUR, HOUR], ids=["back", "forward"])
async def test_a_process_that_starts_with_a_wrong_calendar(ahead: int, bus_settings: BusSettings, monkeypatch) -> None:
    """Its steady time is wrong as well; only Redis knows better."""
    monkeypatch.setattr("eventbus.clock._STEADY_EPOCH", time.time_ns() - time.monotonic_ns() + ahead * 10**9)
    with set_calendar() as calendar:
        calendar.ahead = ahead
        site = Site(bus_settings)
        await play(site, calendar, [("emit", Brief), ("emit", Urgent), ("cancel", None), ("renew", None)])
        await site.close()


def test_the_clock_of_redis_advances_with_the_monotonic_clock() -> None:
    steady = [1_000]
    clock = ServerClock(lambda: steady[0])
    assert clock.now_ms() == 1_000, "before the first answer"
    assert clock.observe((b"7", b"250999")) == 7_250
    steady[0] += 40
    assert (clock.now_ms(), clock.ahead_ms) == (7_290, 6_250)


def test_steady_time_does_not_follow_the_calendar() -> None:
    before = steady_ms()
    with set_calendar() as calendar:
        calendar.ahead = -HOUR
        assert 0 <= steady_ms() - before < HOUR * 1000 / 2
