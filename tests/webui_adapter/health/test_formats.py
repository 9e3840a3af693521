"""Workers and gateways of different versions: every event arrives, or the page receives a gap."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from eventbus import Bus, BusSettings, Event
from eventbus.backends.ports import Write
from eventbus.backends.redis.dead_letter_client import DeadLetterFilter, DeadLetters
from eventbus.backends.redis.format_check import FormatCheck
from eventbus.backends.redis.operation_store import RedisOperations
from eventbus.backends.redis.pending_store import RedisPendingStore
from eventbus.backends.redis.probe import RedisProbe
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.events.encoder import EmissionBuilder
from eventbus.protocol.formats import FORMAT
from eventbus.protocol.topics import operation_topic
from tests.conftest import RedisServer, wait_until
from tests.webui_adapter.events import Note
from tests.webui_adapter.gateway.test_operations import started
from tests.webui_adapter.gateways import GatewayProcess, page, running


class Post(Event, name="formats.post", deliver="ack"):
    n: int = 0


class Worker:
    """A worker whose newest format is ``own``. It asks before each batch who runs, or never."""

    def __init__(self, url: str, own: int, *, asks: bool = True, prefix: str = "eb") -> None:
        self.settings = BusSettings(redis_url=url, key_prefix=prefix, format_interval=1e-6 if asks else 1e6)
        self.publisher = RedisPublisher(self.settings)
        self.publisher.formats = FormatCheck(self.settings, own)
        if not asks:
            self.publisher.formats._next = float("inf")
        self._builder = EmissionBuilder(self.settings)

    def emit(self, user: str, *payloads: Event) -> None:
        emissions = [self._builder.build(operation_topic(user, "op"), payload) for payload in payloads]
        (answer,) = self.publisher.publish([Write(f"user:{user}", emissions)])
        assert not isinstance(answer, Exception), answer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    own = RedisServer(tmp_path_factory.mktemp("redis"))
    own.start()
    yield own
    own.kill()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, server: RedisServer) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    with running(
        folder, server.url, instance="gw-1", newer_format_interval=0.05, newer_format_window=4, probe_interval=0.1
    ) as process:
        yield process


def state_of(server: RedisServer, user: str, prefix: str = "eb") -> dict[bytes, bytes]:
    return server.client.hgetall(Keys(prefix).channel(f"user:{user}")[0])


@contextmanager
def unannounced_gateway(server: RedisServer, prefix: str) -> Iterator[None]:
    """A gateway of format 1, as far as a worker can notice it: it listens for its canary as every gateway does."""
    canary = Keys(prefix).canary
    with server.client.pubsub() as listening:
        listening.subscribe(canary)
        wait_until(lambda: server.client.pubsub_numsub(canary)[0][1] == 1, "the old gateway")
        yield
    wait_until(lambda: server.client.pubsub_numsub(canary)[0][1] == 0, "its end")


async def test_a_newer_worker_writes_what_the_gateway_understands(
    gateway: GatewayProcess, server: RedisServer, user: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(server.url, FORMAT + 1)
    with caplog.at_level(logging.WARNING, "eventbus"):
        async with page(gateway, user) as client:
            worker.emit(user, Note(n=1), Note(n=2))
            await client.until(lambda p: p.got("gw.note") == [1, 2])
    assert state_of(server, user)[b"format"] == b"%d" % FORMAT
    (said,) = [record.getMessage() for record in caplog.records if "newest format" in record.getMessage()]
    assert f"gw-1 (format {FORMAT})" in said
    assert "upgrade gateways first" in said
    async with page(gateway, user, f"user:{user}=0") as client:
        assert client.page.got("gw.note") == [1, 2]
        assert client.page.data_of("bus.gap") == []
    assert gateway.get("/readyz").status_code == 200


async def test_a_gateway_that_meets_a_newer_format_says_so(
    gateway: GatewayProcess, server: RedisServer, user: str
) -> None:
    """The worker was not aware of the gateway, for example because the gateway came later."""
    old, new = Worker(server.url, FORMAT), Worker(server.url, FORMAT + 1, asks=False)
    async with page(gateway, user) as client:
        old.emit(user, Note(n=1))
        await client.until(lambda p: p.got("gw.note") == [1])
        new.emit(user, Note(n=2), Note(n=3))
        await client.until(lambda p: [gap["reason"] for gap in p.data_of("bus.gap")] == ["format"], "the gap")
        gap = client.page.data_of("bus.gap")[0]
        assert gap["offset"] == 3
        await client.until(lambda p: p.data_of("bus.degraded"), "the reason")
        ready = gateway.get("/readyz")
        assert ready.status_code == 503
        assert f"format {FORMAT + 1}" in ready.text
        new.emit(user, Note(n=4))
        await client.until(lambda p: len(p.data_of("bus.gap")) == 2, "a gap for the next loss, too")
    async with page(gateway, user, f"user:{user}=0") as client:
        assert client.page.data_of("bus.gap")[0]["reason"] == "format"
        assert client.page.got("gw.note") == []
    async with page(gateway, user) as client:
        assert client.page.data_of("bus.gap")[0]["reason"] == "format", "a new page may miss its state"
    said = [json.loads(line)["event"] for line in gateway.log.read_text().splitlines()]
    (problem,) = [event for event in said if event.startswith("cannot read channel")]
    assert f"format {FORMAT + 1}" in problem
    assert f"up to format {FORMAT}" in problem
    assert "upgrade" in problem
    assert gateway.metrics()["eventbus_newer_format_total"] >= 2
    wait_until(lambda: gateway.get("/readyz").status_code == 200, "the end of the newer format")


async def test_an_older_worker_loses_nothing_at_a_newer_gateway(
    gateway: GatewayProcess, server: RedisServer, user: str
) -> None:
    old, present = Worker(server.url, FORMAT - 1, asks=False), Worker(server.url, FORMAT)
    async with page(gateway, user) as client:
        old.emit(user, Note(n=1), Post(n=2))
        present.emit(user, Note(n=3), Post(n=4))
        old.emit(user, Note(n=5), Post(n=6))
        await client.until(lambda p: p.got("gw.note") == [1, 3, 5])
        await client.until(lambda p: p.got("formats.post") == [2, 4, 6])
    lane = f"eb:{{user:{user}}}:pending:normal"
    assert server.client.type(lane) == b"zset"
    async with page(gateway, user) as client:
        await client.until(lambda p: p.got("formats.post") == [2, 4, 6], "sorted set and list to be one queue")
    assert server.client.exists(lane) == 0
    async with page(gateway, user, f"user:{user}=0") as client:
        assert client.page.got("gw.note") == [1, 3, 5]
        assert client.page.data_of("bus.gap") == []


async def test_a_gateway_announces_its_format_until_it_ends(server: RedisServer) -> None:
    name = Keys("announced").gateways
    server.client.zadd(name, {f"{FORMAT - 1} gw-2": 4e12, "7 ended": 1})
    probe = RedisProbe(BusSettings(redis_url=server.url, key_prefix="announced"))
    assert await probe.publish_canary("any text", "gw-2") is None
    assert server.client.zrange(name, 0, -1) == [b"%d gw-2" % FORMAT], "one version at a time"
    assert 0 < server.client.ttl(name) <= BusSettings().format_ttl
    await probe.aclose()
    assert server.client.zrange(name, 0, -1) == []


def test_gateways_without_an_announcement_are_of_format_1(
    server: RedisServer, user: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(server.url, FORMAT, prefix="silent")
    with caplog.at_level(logging.INFO, "eventbus"):
        with unannounced_gateway(server, "silent"):
            worker.emit(user, Post(n=1))
            assert worker.publisher.formats.choice.format == 1
            assert server.client.zcard(f"silent:{{user:{user}}}:pending:normal") == 1, "where it looks for the event"
        worker.emit(user, Post(n=2))
    assert worker.publisher.formats.choice.format == FORMAT
    said = [record.getMessage() for record in caplog.records]
    assert any("1 of an earlier version (format 1)" in text for text in said)
    assert any(f"writing format {FORMAT}" in text for text in said)
    assert state_of(server, user, "silent")[b"format"] == b"%d" % FORMAT, "it grows with the newest writer"


def test_a_gateway_that_only_starts_does_not_count_as_an_old_one(server: RedisServer, user: str) -> None:
    worker = Worker(server.url, FORMAT, prefix="starting")
    worker.emit(user, Note(n=1))
    with unannounced_gateway(server, "starting"):
        worker.emit(user, Note(n=2))
        assert worker.publisher.formats.choice.format == FORMAT
        worker.emit(user, Note(n=3))
        assert worker.publisher.formats.choice.format == 1, "it has announced nothing since"


async def test_a_gateway_writes_no_newer_format_than_the_others_understand(
    server: RedisServer, user: str, caplog: pytest.LogCaptureFixture
) -> None:
    """During an upgrade gateways of both versions run. Cancels and requeues write into channels as workers do."""
    settings = BusSettings(redis_url=server.url, key_prefix="upgrade", format_interval=1e-6)
    keys = Keys("upgrade")
    server.client.zadd(keys.gateways, {"1 gw-old": 4e12})
    bus, reader = Bus(settings), RedisReader(settings)
    started(bus, user, "op")
    post = bus.emit(user, "op", Post(n=1), strict=True)
    (*_, (_, fields)) = server.client.xrange(keys.channel(f"user:{user}")[1])
    store = RedisPendingStore(settings, reader)
    assert await store.ack(f"user:{user}", [post.id]) == 1
    assert await store.dead_letter(f"user:{user}", post.id, "attempts", fields[b"r"])
    dead = DeadLetters(settings)
    with caplog.at_level(logging.WARNING, "eventbus"):
        info = await RedisOperations(settings, reader).cancel(user, "op")
    assert info is not None
    assert info.state in {"cancelling", "cancelled"}
    assert state_of(server, user, "upgrade")[b"format"] == b"1"
    assert "gw-old (format 1)" in caplog.text
    assert dead.requeue(DeadLetterFilter(channel=f"user:{user}"), by="ann").requeued == 1
    assert server.client.zcard(f"upgrade:{{user:{user}}}:pending:normal") == 1, "where the older gateway looks for it"
    assert state_of(server, user, "upgrade")[b"format"] == b"1"
    dead.close()
    bus.close()
    await reader.aclose()
