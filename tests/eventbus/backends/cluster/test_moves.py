"""Readers and workers while a slot is moved key by key, and questions that one node cannot answer."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Iterator

import pytest
from redis.exceptions import ResponseError

from eventbus import Bus, BusSettings, Event
from eventbus.backends.redis.cluster.topology import slot_of
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts.keys import Keys
from tests.conftest import wait_until
from tests.servers.cluster import RedisCluster


class Ping(Event, name="moves.ping"):
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


async def test_a_reader_waits_while_the_keys_of_a_channel_are_at_two_nodes(
    settings: BusSettings, bus: Bus, redis_cluster: RedisCluster
) -> None:
    user, reader = "hal", RedisReader(settings)
    for n in range(3):
        bus.emit(user, "op", Ping(n=n))
    assert bus.flush(5)
    slot = slot_of(f"{{user:{user}}}")
    source = redis_cluster.owner(slot)
    target = next(node for node in redis_cluster.masters if node is not source)
    assert (await reader.read(f"user:{user}", 0)).position.offset == 3
    redis_cluster.begin_move(slot, target)
    redis_cluster.move_keys(slot, target, 1)
    state, log, _, ids = Keys.of(settings).channel(f"user:{user}")
    with pytest.raises(ResponseError, match="rehashing of slot"):  # TRYAGAIN
        source.run("EVAL", "return 1", 3, state, log, ids)
    reading = asyncio.create_task(reader.read(f"user:{user}", 0))
    await asyncio.sleep(0)
    redis_cluster.move_keys(slot, target)
    redis_cluster.end_move(slot, target)
    history = await reading
    assert [entry.record.offset for entry in history.log] == [1, 2, 3]
    assert (await reader.read(f"user:{user}", 0)).position.offset == 3, "MOVED leads to the new owner"
    bus.emit(user, "op", Ping(n=3))
    await asyncio.to_thread(wait_until, lambda: bus.flush(1), "the event at the new owner")
    assert (await reader.read(f"user:{user}", 0)).position.offset == 4
    redis_cluster.move_slot(slot, source)
    await reader.aclose()


def test_gateways_at_each_node_count_for_the_format(settings: BusSettings, redis_cluster: RedisCluster) -> None:
    """A gateway that announces no format is known by its subscription only, which one node has."""
    publisher = RedisPublisher(settings.model_copy(update={"format_interval": 1e-6}))
    cluster, canary = publisher._cluster, Keys.of(settings).canary
    assert cluster is not None
    question = ("PUBSUB", "NUMSUB", canary)
    with contextlib.ExitStack() as stack:
        for number, node in enumerate(redis_cluster.masters, 1):
            pubsub = stack.enter_context(contextlib.closing(stack.enter_context(node.client).pubsub()))
            pubsub.subscribe(canary)
            pubsub.get_message(timeout=5)
            ((_, listening),) = cluster.ask([question])
            assert listening == number
    publisher.close()
