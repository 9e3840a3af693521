"""A Redis that answers but does not work: it delivers nothing, is out of memory, or is silent."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from eventbus import Bus, BusSettings
from tests.conftest import RedisServer, wait_until
from tests.webui_adapter.events import Blip, Note
from tests.webui_adapter.gateways import SECRET, GatewayProcess, page, running
from tests.webui_adapter.redis_proxy import Proxy, proxied
from webui_adapter.settings import GatewaySettings

NOT_RECEIVING = "events are published but do not arrive"
LOST = "the gateway has lost Redis"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    own = RedisServer(tmp_path_factory.mktemp("redis"))
    own.start()
    yield own
    own.kill()


@pytest.fixture(scope="module")
def line(server: RedisServer) -> Iterator[Proxy]:
    with proxied(server) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def watchful(tmp_path_factory: pytest.TempPathFactory, server: RedisServer, line: Proxy) -> Iterator[GatewayProcess]:
    """Reached through the proxy; it looks more often than by default."""
    with running(
        tmp_path_factory.mktemp("watchful"),
        line.url,
        probe_interval=0.2,
        probe_timeout=0.4,
        check_interval=0.3,
        check_batch=2,
    ) as process:
        yield process


@pytest.fixture
def worker(server: RedisServer) -> Iterator[Bus]:
    bus = Bus(BusSettings(redis_url=server.url, socket_timeout=0.7, retry_max=0.3))
    yield bus
    bus.close()


@pytest.fixture(autouse=True)
def _whole_again(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "watchful" in request.fixturenames:
        request.getfixturevalue("line").swallow = None
        gateway = request.getfixturevalue("watchful")
        wait_until(lambda: gateway.get("/readyz").status_code == 200, "the gateway to be whole again")


def reason(gateway: GatewayProcess) -> str | None:
    said: str | None = gateway.get("/readyz").json()["reason"]
    return said


def degraded(gateway: GatewayProcess) -> set[str]:
    """Return the reasons that the metrics show."""
    names = ("deaf", "lost", "unreachable", "read_only")
    metrics = gateway.metrics()
    return {name for name in names if metrics[f'eventbus_degraded{{reason="{name}"}}']}


def _undelivered(gateway: GatewayProcess) -> float:
    return gateway.metrics().get('eventbus_probe_failures_total{how="undelivered"}', 0)


async def test_publications_that_do_not_arrive_are_not_healthy(
    watchful: GatewayProcess, line: Proxy, worker: Bus, user: str
) -> None:
    lost, before = watchful.metrics()["eventbus_redis_lost_total"], _undelivered(watchful)
    async with page(watchful, user) as client:
        line.swallow = b""
        await client.until(lambda p: {"reason": NOT_RECEIVING} in p.data_of("bus.degraded"), "the control event")
        response = watchful.get("/readyz")
        assert (response.status_code, response.json()["reason"]) == (503, NOT_RECEIVING)
        assert "deaf" in degraded(watchful)
        wait_until(lambda: watchful.metrics()["eventbus_redis_lost_total"] > lost, "a new connection to be tried")
        assert reason(watchful) == NOT_RECEIVING, "whatever was tried: nothing arrives"
        assert client.page.data_of("bus.restored") == []
        wait_until(lambda: _undelivered(watchful) >= before + 5, "nothing to be tried for a while")
        worker.emit(user, "op", Note(n=1))
        assert worker.flush(10)
        line.swallow = None
        await client.until(lambda p: p.data_of("bus.restored"), "the control event")
        assert client.page.got("gw.note") == [1], "what was missed has been read by then"
        assert len(client.page.data_of("bus.restored")) == 1
        assert client.page.data_of("bus.gap") == []
        assert {data["reason"] for data in client.page.data_of("bus.degraded")} == {NOT_RECEIVING}
    assert degraded(watchful) == set()
    wait_until(lambda: watchful.get("/readyz").status_code == 200, "readiness")


async def test_an_idle_channel_that_missed_something_recovers_without_another_event(
    watchful: GatewayProcess, line: Proxy, worker: Bus, user: str
) -> None:
    missed = watchful.metrics()["eventbus_quiet_missed_total"]
    async with page(watchful, user) as client, page(watchful, f"{user}-b") as other, page(watchful, f"{user}-c"):
        worker.emit(user, "op", Note(n=1))
        await client.until(lambda p: p.got("gw.note") == [1])
        before = line.swallowed
        line.swallow = b":live"
        worker.emit(user, "op", Note(n=2))
        worker.emit(f"{user}-b", "op", Note(n=3))
        assert worker.flush(10)
        wait_until(lambda: line.swallowed == before + 2, "the publications to be lost")
        await client.until(lambda p: p.got("gw.note") == [1, 2], "what was missed")
        await other.until(lambda p: p.got("gw.note") == [3], "what was missed at a channel that was empty")
        line.swallow = None
        assert client.page.data_of("bus.gap") == other.page.data_of("bus.gap") == []
        assert client.page.data_of("bus.degraded") == []
        assert watchful.metrics()["eventbus_quiet_missed_total"] == missed + 2
        worker.emit(user, "op", Note(n=4))
        await client.until(lambda p: p.got("gw.note") == [1, 2, 4], "live as before")


async def test_an_idle_channel_that_begins_an_epoch_unnoticed_is_a_gap(
    watchful: GatewayProcess, server: RedisServer, line: Proxy, worker: Bus, user: str
) -> None:
    async with page(watchful, user) as client:
        worker.emit(user, "op", Note(n=1))
        await client.until(lambda p: p.got("gw.note") == [1])
        line.swallow = b":live"
        server.client.delete(*server.client.keys(f"eb:{{user:{user}}}:*"))
        worker.emit(user, "op", Note(n=2))
        assert worker.flush(10)
        await client.until(lambda p: [gap["reason"] for gap in p.data_of("bus.gap")] == ["epoch"], "the control event")
        line.swallow = None
        worker.emit(user, "op", Note(n=3))
        await client.until(lambda p: p.got("gw.note") == [1, 3], "live again")


async def test_a_server_that_forgot_what_it_had_acknowledged_is_noticed(
    watchful: GatewayProcess, server: RedisServer, worker: Bus, user: str
) -> None:
    """As after a failover to a replica that was behind. The epoch ends, so that other pages get a gap too."""
    async with page(watchful, user) as client:
        for n in (1, 2, 3):
            worker.emit(user, "op", Note(n=n))
        await client.until(lambda p: p.got("gw.note") == [1, 2, 3])
        server.client.hset(f"eb:{{user:{user}}}:state", mapping={"offset": 1, "logged": 1})
        server.client.delete(f"eb:{{user:{user}}}:log")
        await client.until(lambda p: [gap["reason"] for gap in p.data_of("bus.gap")] == ["epoch"], "the control event")
        worker.emit(user, "op", Note(n=4))
        await client.until(lambda p: p.got("gw.note") == [1, 2, 3, 4], "new events are not treated as known ones")


async def test_a_subscription_that_the_server_has_dropped_is_renewed(
    watchful: GatewayProcess, server: RedisServer, line: Proxy, worker: Bus, user: str
) -> None:
    """The connection lives, its probe comes, and one channel of it is no longer subscribed."""
    live = f"eb:{{user:{user}}}:live"
    async with page(watchful, user) as client:
        line.command_of_the_subscriber("UNSUBSCRIBE", live)
        wait_until(lambda: server.client.pubsub_numsub(live)[0][1] == 0, "the subscription to be gone")
        lost = watchful.metrics()["eventbus_redis_lost_total"]
        worker.emit(user, "op", Blip(n=0))
        worker.emit(user, "op", Note(n=1))
        await client.until(lambda p: p.got("gw.note") == [1], "the event")
        assert server.client.pubsub_numsub(live)[0][1] == 1
        assert watchful.metrics()["eventbus_redis_lost_total"] == lost


async def test_out_of_memory_is_reported_and_live_delivery_goes_on(
    watchful: GatewayProcess, server: RedisServer, user: str
) -> None:
    async with page(watchful, user) as client:
        server.client.config_set("maxmemory-policy", "noeviction")
        server.client.config_set("maxmemory", "1")
        try:
            await client.until(lambda p: p.data_of("bus.degraded"), "the control event")
            assert client.page.data_of("bus.degraded") == [{"reason": "Redis refuses writes: it is out of memory"}]
            assert reason(watchful) == "Redis refuses writes: it is out of memory"
            assert degraded(watchful) == {"read_only"}
            with pytest.raises(redis.exceptions.OutOfMemoryError):
                server.client.set("eb:x", "y", ex=1)
            published = watchful.metrics()["eventbus_events_total"]
            record = b'%s 0\n1 n nothing 0 0 gw.blip user:%s:op -\n{"offset":1,"id":"x","type":"gw.blip","topic":"user:%s:op","data":{"n":1}}'  # noqa: E501
            server.client.publish(f"eb:{{user:{user}}}:live", record % (b"abc", user.encode(), user.encode()))
            await client.until(lambda p: p.got("gw.blip") == [1], "an event, live")
            assert watchful.metrics()["eventbus_events_total"] == published + 1
            assert client.page.data_of("bus.restored") == []
        finally:
            server.client.config_set("maxmemory", "0")
        await client.until(lambda p: p.data_of("bus.restored"), "the control event")
    assert degraded(watchful) == set()


async def test_a_replica_takes_no_writes(watchful: GatewayProcess, server: RedisServer, user: str) -> None:
    async with page(watchful, user) as client:
        server.client.execute_command("CONFIG", "SET", "min-replicas-to-write", "1")
        try:
            await client.until(lambda p: p.data_of("bus.degraded"), "the control event")
            assert client.page.data_of("bus.degraded") == [{"reason": "Redis refuses writes: it has too few replicas"}]
        finally:
            server.client.execute_command("CONFIG", "SET", "min-replicas-to-write", "0")
        await client.until(lambda p: p.data_of("bus.restored"), "the control event")


async def test_restored_is_sent_when_the_last_reason_is_gone(
    watchful: GatewayProcess, server: RedisServer, line: Proxy, user: str
) -> None:
    async with page(watchful, user) as client:
        line.swallow = b""
        server.client.config_set("maxmemory", "1")
        try:
            wait_until(lambda: {"deaf", "read_only"} <= degraded(watchful), "both to be noticed")
            assert reason(watchful) == NOT_RECEIVING, "the graver one"
            line.swallow = None
            await client.until(
                lambda p: any(said["reason"].startswith("Redis refuses") for said in p.data_of("bus.degraded")),
                "the other",
            )
            assert client.page.data_of("bus.restored") == []
        finally:
            server.client.config_set("maxmemory", "0")
        await client.until(lambda p: p.data_of("bus.restored"), "the control event")
    assert reason(watchful) is None


async def test_a_server_that_is_silent_is_noticed_in_less_than_three_seconds(tmp_path: Path, user: str) -> None:
    """With the times that are the default, which are three seconds together."""
    settings = GatewaySettings(jwt_secret=SECRET)
    assert settings.probe_interval + settings.probe_timeout == 3
    server = RedisServer(tmp_path)
    server.start()
    try:
        with running(tmp_path, server.url, EVENTBUS_SOCKET_TIMEOUT="2") as gateway:
            async with page(gateway, user) as client:
                assert server.process is not None
                server.process.send_signal(signal.SIGSTOP)
                await client.until(lambda p: {"reason": LOST} in p.data_of("bus.degraded"), "the control event", 30)
                server.process.send_signal(signal.SIGCONT)
                await client.until(lambda p: p.data_of("bus.restored"), "the control event")
    finally:
        server.kill()


async def test_a_server_that_restarts_and_delivers_nothing_is_not_healthy(
    tmp_path: Path, server: RedisServer, user: str
) -> None:
    """Not for a moment: to be subscribed is not enough."""
    with proxied(server) as line:
        line.swallow = b""
        gateway = GatewayProcess(tmp_path, line.url, probe_interval=0.2, probe_timeout=2.0)
        gateway.start()
        try:
            wait_until(lambda: _said(gateway) == NOT_RECEIVING, "the gateway to know", 30)
            line.swallow = None
            gateway.wait_ready()
        finally:
            gateway.stop()


def _said(gateway: GatewayProcess) -> str | None:
    import httpx  # noqa: PLC0415 - only here

    try:
        said = reason(gateway)
    except httpx.TransportError:
        return None
    assert said is not None, "ready, and nothing arrives"
    return said
