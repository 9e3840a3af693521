"""Redis killed, silent, empty, cut: sockets stay, pages are notified, and nothing that was logged and kept is lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventbus import Bus, BusSettings
from tests.conftest import RedisServer, free_port, wait_until
from tests.webui_adapter.events import Note, Progress
from tests.webui_adapter.gateways import GatewayProcess, eventually, page, running
from tests.webui_adapter.transports.curl import curl, settled


class KeepingRedis(RedisServer):
    """A server that keeps its data when it is killed: every write is on disk before it is answered."""

    def command(self) -> list[str]:
        return [*super().command(), "--appendonly", "yes", "--appendfsync", "always"]


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = KeepingRedis(tmp_path_factory.mktemp("redis-of-this-module"), free_port())
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory, keeping: RedisServer) -> Iterator[GatewayProcess]:
    """A gateway whose Redis these tests hurt."""
    with running(tmp_path_factory.mktemp("fragile"), keeping.url, "eb") as process:
        yield process


@pytest.fixture
def worker(keeping: RedisServer) -> Iterator[Bus]:
    bus = Bus(BusSettings(redis_url=keeping.url, socket_timeout=0.7, retry_max=0.3))
    yield bus
    bus.close()


def ready(gateway: GatewayProcess) -> bool:
    return gateway.get("/readyz").status_code == 200


async def test_redis_is_killed_and_restarts_with_its_data(
    fragile: GatewayProcess, keeping: RedisServer, worker: Bus, user: str
) -> None:
    with curl(fragile, user) as stream:
        async with page(fragile, user) as client:
            stream.until(settled(user), "the histories")
            worker.emit(user, "op", Note(n=0))
            await client.until(lambda p: p.got("gw.note") == [0])
            keeping.kill()
            await client.until(lambda p: p.data_of("bus.degraded"), "the control event")
            assert client.page.data_of("bus.degraded") == [{"reason": "the gateway has lost Redis"}]
            response = fragile.get("/readyz")
            assert (response.status_code, response.json()["ready"]) == (503, False)
            assert response.json()["reason"] == "the gateway has lost Redis"
            assert fragile.get("/healthz").status_code == 200
            assert fragile.metrics()["eventbus_ready"] == 0
            assert (await client.request(do="ping"))["type"] == "bus.ok", "the socket stays"
            for n in range(1, 50):
                worker.emit(user, "op", Note(n=n))
            async with page(fragile, f"{user}-late", wait=False) as late:
                await late.until(lambda p: p.data_of("bus.degraded"), "bus.degraded for a new session")
                keeping.start()
                await client.until(lambda p: p.data_of("bus.restored"), "the control event")
                await eventually(lambda: worker.flush(1), "the outbox, which tries again by itself")
                await client.until(lambda p: p.got("gw.note") == list(range(50)), "everything, once, in order")
                await late.until_settled(f"user:{user}-late", "system")
            assert client.page.data_of("bus.gap") == []
            wait_until(lambda: ready(fragile), "the gateway to be ready")
            stream.until(lambda c: [e["data"]["n"] for e in c.got("gw.note")] == list(range(50)), "the same over SSE")
            assert stream.got("bus.degraded")
            assert stream.got("bus.restored")


async def test_pub_sub_alone_is_cut(fragile: GatewayProcess, keeping: RedisServer, worker: Bus, user: str) -> None:
    """Events go on being published while the gateway hears nothing: what it missed is read back."""
    lost = fragile.metrics()["eventbus_redis_lost_total"]
    async with page(fragile, user) as client:
        for n in range(300):
            worker.emit(user, "op", Note(n=n))
            if n % 100 == 50:
                assert worker.flush(10)
                assert keeping.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub") == 1
                wait_until(lambda: len(keeping.client.client_list(_type="pubsub")) == 1, "the subscriber to be back")
        await client.until(lambda p: len(p.events) == 300, "all of them", 20)
        assert client.page.got("gw.note") == list(range(300))
        assert client.page.data_of("bus.gap") == []
    assert fragile.metrics()["eventbus_redis_lost_total"] == lost + 3


async def test_redis_is_silent(fragile: GatewayProcess, keeping: RedisServer, worker: Bus, user: str) -> None:
    """No connection ends, no error occurs: only a ping without an answer shows it."""
    async with page(fragile, user) as client:
        assert keeping.process is not None
        keeping.process.send_signal(signal.SIGSTOP)
        try:
            await client.until(lambda p: p.data_of("bus.degraded"), "the control event", 6)
            worker.emit(user, "op", Note(n=1))
            assert fragile.get("/readyz").status_code == 503
        finally:
            keeping.process.send_signal(signal.SIGCONT)
        await client.until(lambda p: p.data_of("bus.restored"), "the control event")
        await client.until(lambda p: p.got("gw.note") == [1], "the event")
        assert client.page.data_of("bus.gap") == []


async def test_redis_has_lost_its_data(fragile: GatewayProcess, keeping: RedisServer, worker: Bus, user: str) -> None:
    async with page(fragile, user) as client:
        worker.emit(user, "op", Note(n=1))
        await client.until(lambda p: p.got("gw.note") == [1])
        model = client.page
    keeping.client.flushdb()
    worker.emit(user, "op", Note(n=2))
    worker.emit(user, "op", Progress(done=1))
    assert worker.flush(10)
    old = model.positions[f"user:{user}"].epoch
    async with page(fragile, user, model) as client:
        (gap,) = (event for event in client.page.data_of("bus.gap") if event["channel"] == f"user:{user}")
        assert gap["reason"] == "epoch"
        assert client.page.positions[f"user:{user}"].epoch not in ("", old)
        assert client.page.got("gw.note") == [1], "a log of another epoch is not a part of this one"
        assert client.page.got("gw.progress", "done") == [1]


async def test_redis_is_killed_and_restarts_empty(
    fragile: GatewayProcess, keeping: RedisServer, worker: Bus, user: str
) -> None:
    async with page(fragile, user) as client:
        worker.emit(user, "op", Note(n=1))
        await client.until(lambda p: p.got("gw.note") == [1])
        keeping.client.flushall()
        keeping.kill()
        await client.until(lambda p: p.data_of("bus.degraded"), "the control event")
        keeping.start()
        await client.until(lambda p: p.data_of("bus.restored"), "the control event")
        worker.emit(user, "op", Note(n=2))
        await client.until(lambda p: p.got("gw.note") == [1, 2], "the event of the new epoch")
        gaps = [gap for gap in client.page.data_of("bus.gap") if gap["channel"] == f"user:{user}"]
        assert [gap["reason"] for gap in gaps] == ["epoch"]


async def test_expired_keys_close_no_session(
    fragile: GatewayProcess, keeping: RedisServer, worker: Bus, user: str
) -> None:
    """As after their ttl: the gateway still knows the channel's end, Redis knows nothing."""
    async with page(fragile, user) as client:
        worker.emit(user, "op", Note(n=1))
        await client.until(lambda p: p.got("gw.note") == [1])
        keeping.client.delete(*keeping.client.keys(f"eb:{{user:{user}}}:*"))
        async with page(fragile, user) as late:
            worker.emit(user, "op", Note(n=2))
            await late.until(lambda p: p.got("gw.note") == [2])
            await client.until(lambda p: p.got("gw.note") == [1, 2])
            assert client.page.data_of("bus.gap") == []


def test_it_starts_without_redis_and_is_ready_when_redis_starts(tmp_path: Path, user: str) -> None:
    server = RedisServer(tmp_path, free_port())
    gateway = GatewayProcess(tmp_path, server.url)
    gateway.start()
    try:
        wait_until(lambda: _status(gateway) == 503, "the gateway to answer", 30)
        assert gateway.get("/readyz").json()["reason"] == "not connected to Redis yet"
        with curl(gateway, user) as stream:
            stream.until(lambda c: c.got("bus.degraded"), "the control event")
            server.start()
            stream.until(lambda c: c.got("bus.restored"), "the control event")
            stream.until(settled(user), "the histories")
        assert gateway.get("/readyz").status_code == 200
    finally:
        gateway.stop()
        server.kill()


def _status(gateway: GatewayProcess) -> int:
    import httpx  # noqa: PLC0415 - only here

    try:
        return gateway.get("/readyz").status_code
    except httpx.TransportError:
        return 0
