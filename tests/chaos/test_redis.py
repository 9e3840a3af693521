"""Redis killed, silent, emptied, cut off, stalled, full: rows 3, 4, 5, 6, 11, 12 of the table in README.md."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

from eventbus import Bus
from eventbus.backends.redis.scripts.keys import Keys
from tests.chaos.watcher import Emitter, Watcher
from tests.conftest import RedisServer
from tests.webui_adapter.gateways import GatewayProcess, eventually

Settled = Callable[..., Awaitable[None]]
USERS = ("ann", "bob", "eve")


def received(watcher: Watcher, type_: str, times: int = 1) -> bool:
    return len(watcher.page.data_of(type_)) >= times


async def emitted(emitter: Emitter, number: float) -> None:
    start = emitter.emitted
    await eventually(lambda: emitter.emitted >= start + number, f"{number:g} more events", 120)


async def test_03_lost_its_data(
    redis: RedisServer, gateway: GatewayProcess, bus: Bus, settled: Settled, scale: float
) -> None:
    async with Watcher("ann", gateway) as ann:
        with Emitter(bus, ["ann"]) as emitter:
            await emitted(emitter, 300 * scale)
            # The gateway misses the first events of the new epoch. A page that received all of them would have no gap.
            gateway.signal(signal.SIGSTOP)
            redis.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            redis.client.flushall()
            await eventually(lambda: redis.client.exists(Keys("eb").channel("user:ann")[1]), "the new epoch to begin")
            await emitted(emitter, 100)
            gateway.signal(signal.SIGCONT)
            await eventually(lambda: ann.page.gaps, "the page to receive the event")
            await emitted(emitter, 300 * scale)
        last = emitter.receipts["ann"][-1].id
        await eventually(lambda: ann.page.events[-1]["id"] == last, "the events after the gap")
        await settled(emitter, ann, gaps=ann.page.gaps)
        assert [data["reason"] for data in ann.page.data_of("bus.gap")] == ["epoch"]


async def test_04_killed_and_restarted(
    redis: RedisServer, gateway: GatewayProcess, bus: Bus, settled: Settled, scale: float
) -> None:
    loop, outages = asyncio.get_running_loop(), []
    async with Watcher("ann", gateway) as ann, Watcher("bob", gateway) as bob:
        with Emitter(bus, ["ann", "bob"]) as emitter:
            for n in range(round(max(1, scale))):
                await emitted(emitter, 400)
                redis.kill()
                await eventually(lambda n=n: received(ann, "bus.degraded", n + 1), "the page to receive the event")
                await emitted(emitter, 400)
                redis.start()
                began = loop.time()
                await eventually(lambda n=n: received(ann, "bus.restored", n + 1), "the page to receive the event", 20)
                outages.append(loop.time() - began)
        assert (ann.connects, bob.connects) == (1, 1), "the pages stay connected"
        await settled(emitter, ann, bob, delivery_again_after=f"{max(outages):.1f} s")
        assert ann.page.gaps == bob.page.gaps == 0, "nothing acknowledged was lost"


async def test_05_silent(redis: RedisServer, gateway: GatewayProcess, bus: Bus, settled: Settled, scale: float) -> None:
    loop = asyncio.get_running_loop()
    async with Watcher("ann", gateway) as ann:
        with Emitter(bus, ["ann"]) as emitter:
            await emitted(emitter, 300)
            assert redis.process is not None
            redis.process.send_signal(signal.SIGSTOP)
            began = loop.time()
            await eventually(lambda: received(ann, "bus.degraded"), "the page to receive the event")
            noticed = loop.time() - began
            await asyncio.sleep(max(0.0, 10 * min(scale, 2) - 10))
            redis.process.send_signal(signal.SIGCONT)
            await eventually(lambda: received(ann, "bus.restored"), "the page to receive the event", 20)
            await emitted(emitter, 300)
        assert ann.connects == 1
        await settled(emitter, ann, noticed_after=f"{noticed:.1f} s", slowest_emit=f"{emitter.slowest * 1000:.0f} ms")
        assert ann.page.gaps == 0


async def test_06_pubsub_cut(
    redis: RedisServer, gateway: GatewayProcess, bus: Bus, settled: Settled, scale: float
) -> None:
    async with Watcher("ann", gateway) as ann:
        with Emitter(bus, ["ann"]) as emitter:
            for n in range(round(5 * scale)):
                await emitted(emitter, 300)
                redis.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                await eventually(lambda n=n: received(ann, "bus.restored", n + 1), "the page to receive the event")
        await settled(emitter, ann, cuts=round(5 * scale))
        assert ann.page.gaps == 0


async def test_11_stalled(redis: RedisServer, gateway: GatewayProcess, bus: Bus, settled: Settled) -> None:
    async with Watcher("ann", gateway) as ann:
        with Emitter(bus, ["ann"]) as emitter:
            await emitted(emitter, 200)
            redis.client.execute_command("CLIENT", "PAUSE", "1500", "ALL")
            answer = await asyncio.to_thread(gateway.get, "/healthz")
            assert answer.status_code == 200
            await emitted(emitter, 500)
        await settled(emitter, ann, slowest_emit=f"{emitter.slowest * 1000:.0f} ms")
        assert ann.page.gaps == 0
        # Not a measure of speed: with a client library's defaults one emit would take a minute.
        assert emitter.slowest < 1.0


async def test_12_out_of_memory(redis: RedisServer, gateway: GatewayProcess, bus: Bus, settled: Settled) -> None:
    async with Watcher("ann", gateway) as ann:
        with Emitter(bus, ["ann"]) as emitter:
            await emitted(emitter, 200)
            redis.client.config_set("maxmemory-policy", "noeviction")
            redis.client.config_set("maxmemory", "1mb")
            await eventually(lambda: received(ann, "bus.degraded"), "the page to receive the event")
            await emitted(emitter, 300)
            redis.client.config_set("maxmemory", "0")
            await eventually(lambda: received(ann, "bus.restored"), "the page to receive the event", 20)
        reasons = {data["reason"] for data in ann.page.data_of("bus.degraded")}
        await settled(emitter, ann, reasons=sorted(reasons))
        assert ann.page.gaps == 0
