"""Publisher and reader at a real cluster: slots that move, nodes that die, scripts that are missing."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator

import pytest

from eventbus import Bus, BusSettings, Event, Unavailable
from eventbus.backends.redis.cluster.topology import slot_of
from eventbus.backends.redis.probe import RedisProbe
from eventbus.backends.redis.reader import RedisReader
from tests.conftest import wait_until
from tests.servers.cluster import ClusterNode, RedisCluster

USERS = ("ann", "bob", "cyd", "dan", "eve", "fay")


class Ping(Event, name="cluster.ping"):
    n: int = 0


class Confirmed(Event, name="cluster.confirmed", deliver="ack"):
    n: int = 0


@pytest.fixture
def settings(redis_cluster: RedisCluster) -> BusSettings:
    prefix = f"t{uuid.uuid4().hex[:10]}"
    return BusSettings(redis_url=redis_cluster.url, key_prefix=prefix, spool=False, retry_max=0.2)


@pytest.fixture
def bus(settings: BusSettings) -> Iterator[Bus]:
    made = Bus(settings)
    yield made
    made.close()


def slot(user: str) -> int:
    return slot_of(f"{{user:{user}}}")


def other(cluster: RedisCluster, node: ClusterNode) -> ClusterNode:
    return next(one for one in cluster.masters if one is not node)


async def numbers(reader: RedisReader, user: str) -> list[int]:
    history = await reader.read(f"user:{user}", 0)
    return [entry.record.offset for entry in history.log]


async def test_events_of_all_shards_arrive_in_order(settings: BusSettings, bus: Bus) -> None:
    receipts = [bus.emit(user, "op", (Confirmed if n % 2 else Ping)(n=n)) for n in range(20) for user in USERS]
    assert bus.flush(5)
    assert {receipt.status for receipt in receipts} == {"published"}
    reader = RedisReader(settings)
    for user in USERS:
        assert await numbers(reader, user) == list(range(1, 21))
    assert [position.offset for position in await reader.positions([f"user:{user}" for user in USERS])] == [20] * 6
    await reader.aclose()


async def test_events_of_a_slot_that_is_being_moved_wait_for_its_end(
    settings: BusSettings, bus: Bus, redis_cluster: RedisCluster
) -> None:
    user, reader = "gil", RedisReader(settings)
    bus.emit(user, "op", Ping(n=1))
    assert bus.flush(5)
    source = redis_cluster.owner(slot(user))
    target = other(redis_cluster, source)
    target.run("SCRIPT", "FLUSH")
    redis_cluster.begin_move(slot(user), target)
    redis_cluster.move_keys(slot(user), target)
    assert [position.offset for position in await reader.positions([f"user:{user}"])] == [1], "the new owner answers"
    bus.emit(user, "op", Ping(n=2))
    bus.emit(user, "op", Confirmed(n=3))
    bus.emit("ann", "op", Ping(n=1))
    assert not bus.flush(0.5), "a call needs all its keys at one node, and some of them do not exist yet"
    redis_cluster.end_move(slot(user), target)
    wait_until(lambda: bus.flush(1), "the events behind the move")
    assert await numbers(reader, user) == [1, 2, 3]
    redis_cluster.move_slot(slot(user), source)
    assert await numbers(reader, user) == [1, 2, 3]
    await reader.aclose()


async def test_a_node_without_scripts_gets_them(settings: BusSettings, bus: Bus, redis_cluster: RedisCluster) -> None:
    reader = RedisReader(settings)
    bus.emit("ann", "op", Ping(n=1))
    assert bus.flush(5)
    redis_cluster.execute("SCRIPT", "FLUSH")
    bus.emit("ann", "op", Ping(n=2))
    bus.emit("ann", "op", Confirmed(n=3))
    assert bus.flush(5)
    assert await numbers(reader, "ann") == [1, 2, 3]
    await reader.aclose()


# --- the address of one node only --------------------------------------------------------------------------


def test_the_address_of_one_node_drops_no_event_and_the_log_says_what_to_set(
    redis_cluster: RedisCluster, caplog: pytest.LogCaptureFixture
) -> None:
    bus = Bus(BusSettings(redis_url=redis_cluster.nodes[0].url, key_prefix=f"t{uuid.uuid4().hex[:10]}", spool=False))
    receipts = [bus.emit(user, "op", Ping()) for user in USERS]
    assert not bus.flush(2), "some events are kept"
    assert "waiting" in {receipt.status for receipt in receipts} <= {"published", "waiting"}
    assert "it is a cluster of 3 shards; set EVENTBUS_REDIS_URL to redis+cluster://" in caplog.text
    bus.close()


async def test_the_address_of_one_node_makes_reader_and_probe_name_the_cluster(redis_cluster: RedisCluster) -> None:
    settings = BusSettings(redis_url=redis_cluster.nodes[0].url)
    reader, probe = RedisReader(settings), RedisProbe(settings)
    read = await asyncio.gather(*(reader.read(f"user:{user}", 0) for user in USERS), return_exceptions=True)
    refused = [error for error in read if isinstance(error, BaseException)]
    assert 0 < len(refused) < len(USERS), "this shard has some of the channels"
    assert all(isinstance(error, Unavailable) and "Redis is a cluster" in str(error) for error in refused)
    reason = await probe.publish_canary("one", "one")
    assert reason is not None
    assert reason.startswith("it is a cluster of 3 shards")
    await reader.aclose()
    await probe.aclose()


def test_a_single_server_is_no_cluster(bus_settings: BusSettings, caplog: pytest.LogCaptureFixture) -> None:
    bus = Bus(bus_settings)
    bus.emit("ann", "op", Ping())
    assert bus.flush(5)
    assert "cluster" not in caplog.text
    bus.close()
