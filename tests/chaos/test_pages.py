"""Pages that disconnect, read slowly, or reconnect all at the same time: rows 1, 2, 13, 17, 18, 19, 28."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
import socket
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path

from eventbus import Bus, BusSettings
from eventbus.backends.redis.dead_letter_client import DeadLetterFilter, DeadLetters
from tests.chaos.watcher import Emitter, Watcher
from tests.conftest import RedisServer
from tests.webui_adapter.events import Alarm, Blip, Crumb, Note, Promise
from tests.webui_adapter.gateways import GatewayProcess, RawWebSocket, eventually, page, running, token

Settled = Callable[..., Awaitable[None]]
Report = Callable[..., None]


async def test_01_drops_and_resumes(gateway: GatewayProcess, bus: Bus, settled: Settled, scale: float) -> None:
    users = [f"u{n}" for n in range(10)]
    async with contextlib.AsyncExitStack() as stack:
        watchers = [await stack.enter_async_context(Watcher(user, gateway)) for user in users]
        with Emitter(bus, users, pause=0.002) as emitter:
            for _ in range(round(8 * scale)):
                for watcher in watchers:
                    watcher.cut()
                start = emitter.emitted
                await eventually(lambda start=start: emitter.emitted >= start + 400, "more events", 30)
        await settled(emitter, *watchers)
        assert all(watcher.page.gaps == 0 for watcher in watchers)


async def test_02_gap_beyond_the_log(
    gateway: GatewayProcess, redis: RedisServer, settled: Settled, report: Report
) -> None:
    short = Bus(BusSettings(redis_url=redis.url, log_limit=50))
    async with page(gateway, "ann") as client:
        short.emit("ann", "op", Note(n=0))
        await client.until(lambda page: page.got("gw.note") == [0])
        model = client.page
    for n in range(1, 1001):
        short.emit("ann", "op", Note(n=n))
    assert short.flush(10)
    async with page(gateway, "ann", model):
        assert model.gaps == 1
        assert model.positions["user:ann"].offset == 1001
    report(missed=1000, gaps=model.gaps)
    short.close()


async def test_13_the_servers_buffer_for_the_gateway_overflows(
    gateway: GatewayProcess, redis: RedisServer, bus: Bus, settled: Settled
) -> None:
    redis.client.config_set("client-output-buffer-limit", "pubsub 65536 32768 1")
    async with Watcher("ann", gateway) as ann:
        gateway.signal(signal.SIGSTOP)
        with Emitter(bus, ["ann"], pause=0.002) as emitter:
            pad = "x" * 4000
            for n in range(4000):
                bus.emit("bob", "op", Note(n=n, pad=pad))
                bus.emit("ann", "filler", Blip(n=n, pad=pad))
            assert await asyncio.to_thread(bus.flush, 30)
        gateway.signal(signal.SIGCONT)
        await settled(emitter, ann, lost_connections=gateway.metrics()["eventbus_redis_lost_total"])
        assert ann.page.gaps == 0


async def test_17_a_poison_event(redis: RedisServer, report: Report, tmp_path: Path) -> None:
    hurry = {"EVENTBUS_ACK_TIMEOUT": 0.1, "EVENTBUS_ACK_ATTEMPTS": 3}
    settings = BusSettings(redis_url=redis.url, ack_timeout=0.1, ack_attempts=3)
    with running(tmp_path, redis.url, **hurry) as one, running(tmp_path, redis.url, **hurry) as other:
        bus = Bus(settings)
        dead = DeadLetters(settings)
        # The page has two tabs at two gateways. Both raise each time, so neither acknowledges.
        async with page(one, "ann") as first, page(other, "ann") as second:
            receipt = bus.emit("ann", "op", Promise(n=1))
            for tab in (first, second):
                await tab.until(lambda page: len(page.unacked) == 4, "the event and three more times")
            await eventually(dead.find, "the dead letter")
            assert [found.id for found in dead.find()] == [receipt.id]
            chosen = DeadLetterFilter(ids=frozenset({receipt.id}))
            assert [dead.requeue(chosen, by="test").requeued for _ in range(3)] == [1, 0, 0]
            await first.until(lambda page: len(page.unacked) == 5, "the requeued event, once")
            assert (await first.request(do="ack", ids=[receipt.id]))["data"]["acked"] == 1
        assert dead.find() == []
        report(dead_letters=1, requeued_of_three_tries=1)
        bus.close()


def _flood(settings: BusSettings, flood: int, urgent: int) -> None:
    """Emit as fast as possible, with an urgent event at regular distances."""
    bus = Bus(settings)
    for n in range(flood):
        bus.emit("ann", f"flood{n % 7}", Crumb(n=n))
        if n % (flood // urgent) == 0:
            bus.emit("ann", f"urgent{n}", Alarm(n=n))
    bus.flush(60)
    bus.close()


async def test_18_priority_under_flood(
    gateway: GatewayProcess, redis: RedisServer, report: Report, scale: float, tmp_path: Path
) -> None:
    """The order of arrival, not the time, shows that urgent events went first."""
    flood, urgent = round(10_000 * scale), 100
    # A page that falls behind reads from the log. A shorter log than the flood would cause a gap.
    settings = BusSettings(redis_url=redis.url, log_limit=2 * flood, spool_dir=tmp_path / "spool")
    # In a separate process, so that it does not share the interpreter with the page that reads.
    worker = multiprocessing.get_context("spawn").Process(target=_flood, args=(settings, flood, urgent))
    emitted = range(0, flood, flood // urgent)
    async with Watcher("ann", gateway) as ann:
        worker.start()
        await eventually(lambda: len(ann.page.got("gw.crumb")) == flood, "the flood", 120)
        await asyncio.to_thread(worker.join, 60)
    order = [(event["type"], event["data"]["n"]) for event in ann.page.events]
    behind = []
    for n in emitted:
        place = order.index(("gw.alarm", n))
        behind.append(sum(kind == "gw.crumb" and other > n for kind, other in order[:place]))
    crumbs = [n for kind, n in order if kind == "gw.crumb"]
    for lane in range(7):
        of_topic = [n for n in crumbs if n % 7 == lane]
        assert of_topic == sorted(of_topic), "order within each topic"
    report(
        flood=flood,
        urgent=len(behind),
        times_behind=gateway.metrics()["eventbus_behind_total"],
        urgent_p99=f"{ann.p99('gw.alarm'):.0f} ms",
        flood_p99=f"{ann.p99('gw.crumb'):.0f} ms",
        overtaken_by_median=statistics.median(behind),
        at_most=max(behind),
    )
    assert len(behind) == len(emitted)
    assert max(behind) <= 600, "at most one batch goes before an urgent event"


async def test_19_a_slow_reader(
    gateway: GatewayProcess, bus: Bus, settled: Settled, report: Report, scale: float
) -> None:
    """The same flood for a user without a page, with a fast page, and with a stuck page; bob must not notice."""
    users = count()

    async def flooded(ann: str, what: str) -> None:
        bob = f"bob{next(users)}"
        async with Watcher(bob, gateway) as watcher:
            before = gateway.memory()
            with Emitter(bus, [ann, bob]) as emitter:
                pad = "x" * 1000
                for n in range(round(8000 * scale)):
                    bus.emit(ann, "flood", Note(n=n, pad=pad))
                start = emitter.emitted
                await eventually(lambda: emitter.emitted >= start + 500, "events to both", 30)
            grown = gateway.memory() - before
            p99 = f"{watcher.p99('gw.note'):.0f} ms"
            await settled(emitter, watcher, reader=what, grown=f"{grown / 1e6:.1f} MB", p99_of_the_other=p99)
        # More than the send queue of 1 MiB: the process needs memory for the flood itself.
        assert grown < 12_000_000

    await flooded("absent", "absent")
    with reading(gateway, "ann"):
        await flooded("ann", "reads")
    stuck = RawWebSocket(gateway, f"Authorization: Bearer {token('stuck')}\r\n", receive_buffer=4096)
    stuck.head()
    await flooded("stuck", "stuck")
    report(times_behind=gateway.metrics()["eventbus_behind_total"])
    assert gateway.metrics()["eventbus_behind_total"] >= 1, "no page fell behind"
    stuck.close()


@contextlib.contextmanager
def reading(gateway: GatewayProcess, user: str) -> Iterator[None]:
    """A page that reads as fast as possible, in a thread next to this process' event loop."""
    there = RawWebSocket(gateway, f"Authorization: Bearer {token(user)}\r\n")
    there.head()

    def read() -> None:
        with contextlib.suppress(OSError):
            while there.socket.recv(262_144):
                pass

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    yield
    there.socket.shutdown(socket.SHUT_RDWR)
    thread.join()
    there.close()


async def test_28_a_storm_of_reconnects(gateway: GatewayProcess, bus: Bus, settled: Settled, scale: float) -> None:
    users = [f"s{n}" for n in range(round(60 * min(scale, 5)))]
    async with contextlib.AsyncExitStack() as stack:
        watchers = [Watcher(user, gateway, jitter=1.0) for user in users]
        await asyncio.gather(*(stack.enter_async_context(watcher) for watcher in watchers))
        with Emitter(bus, users, pause=0.05) as emitter:
            cut = time.monotonic()
            for watcher in watchers:
                watcher.cut()
            await eventually(
                lambda: all(watcher.back_at is not None and watcher.back_at > cut for watcher in watchers), "all", 30
            )
        back = [watcher.back_at - cut for watcher in watchers if watcher.back_at is not None]
        await settled(emitter, *watchers, last_back_after=f"{max(back):.1f} s", jitter="1.0 s")
        assert all(watcher.page.gaps == 0 for watcher in watchers)
