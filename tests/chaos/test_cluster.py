"""A Redis Cluster whose slots move and whose masters change or die: rows C1 to C5 of the table in README.md."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

import pytest
from redis.crc import key_slot

from eventbus import Bus
from tests.chaos.watcher import Emitter, Watcher
from tests.servers.cluster import ClusterNode, RedisCluster
from tests.webui_adapter.gateways import GatewayProcess, eventually

Settled = Callable[..., Awaitable[None]]
USERS = ("ann", "bob", "cyd", "eve")


@pytest.fixture
def redis(empty_cluster: RedisCluster) -> RedisCluster:
    """The cluster of the gateway and the bus."""
    return empty_cluster


def slot(user: str) -> int:
    return int(key_slot(f"{{user:{user}}}".encode()))


def other(cluster: RedisCluster, node: ClusterNode) -> ClusterNode:
    return next(one for one in cluster.masters if one is not node)


async def emitted(emitter: Emitter, number: float) -> None:
    start = emitter.emitted
    await eventually(lambda: emitter.emitted >= start + number, f"{number:g} more events", 120)


async def during(
    gateway: GatewayProcess, bus: Bus, settled: Settled, scale: float, change: Callable[[], object], **facts: object
) -> list[Watcher]:
    """Make a change while all users receive events. Return their pages, judged."""
    async with (
        Watcher(USERS[0], gateway) as one,
        Watcher(USERS[1], gateway) as two,
        Watcher(USERS[2], gateway) as three,
        Watcher(USERS[3], gateway) as four,
    ):
        watchers = [one, two, three, four]
        with Emitter(bus, list(USERS)) as emitter:
            await emitted(emitter, 300 * scale)
            await asyncio.to_thread(change)
            await emitted(emitter, 300 * scale)
        await settled(emitter, *watchers, **facts)
    return watchers


def assert_clean(watchers: list[Watcher]) -> None:
    assert [watcher.page.gaps for watcher in watchers] == [0] * len(watchers), (
        "nothing was lost, so no page receives a gap"
    )
    assert [watcher.connects for watcher in watchers] == [1] * len(watchers), "the pages stay connected"


async def test_c1_a_slot_moves_key_by_key(
    redis: RedisCluster, gateway: GatewayProcess, bus: Bus, settled: Settled, scale: float
) -> None:
    def move() -> None:
        for user in USERS[:2]:
            redis.move_slot(slot(user), other(redis, redis.owner(slot(user))))

    assert_clean(await during(gateway, bus, settled, scale, move))


async def test_c2_a_slot_moves_atomically(
    redis: RedisCluster, gateway: GatewayProcess, bus: Bus, settled: Settled, scale: float
) -> None:
    def move() -> None:
        for user in USERS[:2]:
            redis.move_slot_atomically(slot(user), other(redis, redis.owner(slot(user))))

    assert_clean(await during(gateway, bus, settled, scale, move))


async def test_c3_a_planned_failover(
    redis: RedisCluster, gateway: GatewayProcess, bus: Bus, settled: Settled, scale: float
) -> None:
    assert_clean(await during(gateway, bus, settled, scale, lambda: redis.fail_over(redis.owner(slot(USERS[0])))))


async def test_c4_an_owner_is_killed(
    redis: RedisCluster, gateway: GatewayProcess, bus: Bus, settled: Settled, scale: float
) -> None:
    loop = asyncio.get_running_loop()
    owner = redis.owner(slot(USERS[0]))
    replica = redis.replica_of(owner)
    async with Watcher(USERS[0], gateway) as hit, Watcher(unhit(redis, owner), gateway) as spared:
        with Emitter(bus, [hit.user, spared.user]) as emitter:
            await emitted(emitter, 300 * scale)
            replica.signal(
                signal.SIGSTOP
            )  # so that no node takes over before the other shard has shown that it goes on
            owner.kill()
            going_on = len(spared.page.events) + 300
            await eventually(lambda: len(spared.page.events) >= going_on, "events of the other shard", 30)
            replica.signal(signal.SIGCONT)
            await eventually(lambda: replica.is_master, "the replica to take over", 20)
            began, known = loop.time(), len(hit.page.events)
            await eventually(lambda: len(hit.page.events) > known, "events of the new owner", 20)
            back_after = loop.time() - began
            await emitted(emitter, 300 * scale)
        await settled(emitter, hit, spared, delivery_again_after=f"{back_after:.1f} s")
        assert spared.page.gaps == 0


def unhit(cluster: RedisCluster, owner: ClusterNode) -> str:
    """Return a user whose channel is at another master."""
    return next(user for user in map(str, range(100)) if cluster.owner(slot(user)) is not owner)


async def test_c5_a_shard_is_added(
    redis: RedisCluster, gateway: GatewayProcess, bus: Bus, settled: Settled, scale: float
) -> None:
    def grow() -> None:
        shard = redis.add_shard()
        for user in USERS[:2]:
            redis.move_slot(slot(user), shard)

    assert_clean(await during(gateway, bus, settled, scale, grow))
