"""One shard of a Redis Cluster loses data: rows C6 to C9 of the table in README.md.

Each event is received or declared, and pages of the other shards receive no gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from eventbus import Bus, BusSettings
from eventbus.backends.redis.scripts.keys import Keys
from tests.chaos.notes import Notes, Report, has_all, returning, settled
from tests.chaos.watcher import Emitter, Watcher
from tests.conftest import wait_until
from tests.servers.cluster import ClusterNode, RedisCluster
from tests.webui_adapter.gateways import GatewayProcess, eventually

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def redis(empty_cluster: RedisCluster) -> Iterator[RedisCluster]:
    """The cluster of the gateway and the bus."""
    yield empty_cluster
    for node in empty_cluster.nodes:
        node.file.unlink(missing_ok=True)


@pytest.fixture(params=["with_the_registry", "without"])
def shard(request: pytest.FixtureRequest, redis: RedisCluster) -> ClusterNode:
    """The master that loses data: the one with the registry of timelines, or another one."""
    home = redis.owner(Keys("eb", cluster=True).timeline[0])
    return home if request.param == "with_the_registry" else next(one for one in redis.masters if one is not home)


async def lose(
    redis: RedisCluster,
    gateway: GatewayProcess,
    bus: Bus,
    report: Report,
    shard: ClusterNode,
    before: Callable[[], object],
    lost: Callable[[], object],
    gaps: int | None = 1,
) -> None:
    """Write, lose a part of it at one shard, and write again. Judge a page that stays and one that returns."""
    other = next(one for one in redis.masters if one is not shard)
    hit, later = Notes(bus, redis.user_at(shard)), Notes(bus, redis.user_at(shard, 1))
    spared = Notes(bus, redis.user_at(other))
    async with Watcher(spared.user, gateway) as spared_page, Watcher(hit.user, gateway) as hit_page:
        async with Watcher(later.user, gateway) as later_page:
            for notes in (hit, later, spared):
                await notes.confirmed(100)
            await has_all(later_page, later)
        await asyncio.to_thread(before)
        for notes in (hit, later, spared):
            await notes.confirmed(150)
        await has_all(hit_page, hit)
        await asyncio.to_thread(lost)
        for notes in (spared, hit, later):
            await notes.confirmed(200)
        async with returning(later_page, gateway) as later_page:
            await settled(later_page, later, report, gaps=1)
        await settled(hit_page, hit, report, gaps=gaps)
        await settled(spared_page, spared, report, gaps=0)


async def test_c6_a_lagging_replica_is_promoted(
    redis: RedisCluster, gateway: GatewayProcess, bus: Bus, report: Report, shard: ClusterNode
) -> None:
    replica = redis.replica_of(shard)

    def promote() -> None:
        shard.kill()
        replica.start()
        wait_until(lambda: replica.is_master, "the replica to take over", 30)

    await lose(redis, gateway, bus, report, shard, replica.end, promote)


async def test_c7_a_master_starts_from_an_older_file(
    redis: RedisCluster, gateway: GatewayProcess, bus: Bus, report: Report, shard: ClusterNode
) -> None:
    replica = redis.replica_of(shard)

    def save() -> None:
        replica.run("CONFIG", "SET", "cluster-replica-no-failover", "yes")
        shard.keep_copy()

    def restart() -> None:
        shard.kill()
        shard.start()
        wait_until(lambda: shard.info()["cluster_state"] == "ok", "the master to serve")

    try:
        await lose(redis, gateway, bus, report, shard, save, restart)
    finally:
        replica.run("CONFIG", "SET", "cluster-replica-no-failover", "no")


async def test_c8_a_master_is_flushed(
    redis: RedisCluster, gateway: GatewayProcess, bus: Bus, report: Report, shard: ClusterNode
) -> None:
    # A connected page has received all events, so a new epoch without a gap is right as well.
    await lose(redis, gateway, bus, report, shard, lambda: None, shard.client.flushall, gaps=None)


@pytest.mark.parametrize("shard", ["without"], indirect=True)
async def test_c9_a_lagging_replica_is_promoted_in_durable_mode(
    redis: RedisCluster,
    gateway: GatewayProcess,
    shard: ClusterNode,
    tmp_path: Path,
    settle: Callable[..., Awaitable[None]],
) -> None:
    replica = redis.replica_of(shard)
    user = redis.user_at(shard)
    bus = Bus(
        BusSettings(
            redis_url=redis.url,
            socket_timeout=0.7,
            retry_max=0.3,
            spool_dir=tmp_path / "spool",
            durable="replicas",
            durable_timeout=0.3,
        )
    )
    async with Watcher(user, gateway) as page:
        with Emitter(bus, [user], pause=0.002) as emitter:
            await eventually(lambda: len(emitter.acknowledged(user)) >= 300, "the replica to confirm events", 30)
            await asyncio.to_thread(replica.end)
            known = emitter.emitted
            await eventually(lambda: emitter.emitted > known + 300, "events that no replica has", 30)
            assert emitter.receipts[user][-1].status == "waiting"
            shard.kill()
            replica.start()
            await eventually(lambda: replica.is_master, "the replica to take over", 30)
            shard.start()  # it follows now, so a replica can confirm again
            await asyncio.to_thread(redis.wait_ready)
            await eventually(lambda: emitter.receipts[user][known].status == "published", "confirmed events", 30)
        await settle(bus, emitter, page)
    entries = replica.client.xrange(Keys("eb").channel(f"user:{user}")[1])
    log = b"".join(b"".join(fields.values()) for _, fields in entries)
    assert not [id_ for id_ in emitter.acknowledged(user) if id_.encode() not in log]
    bus.close()
