"""A shard that is silent or dead holds up no event of the other shards."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventbus import Bus, BusSettings, Event, Unavailable
from eventbus.backends.redis.cluster.topology import slot_of
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts.keys import Keys
from tests.conftest import wait_until
from tests.servers.cluster import ClusterNode, RedisCluster, running_cluster
from tests.servers.processes import stopped


class Ping(Event, name="dead_shard.ping"):
    n: int = 0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture
def bus(cluster: RedisCluster, tmp_path: Path) -> Iterator[Bus]:
    for node in cluster.nodes:
        if node.process is None:
            node.start()
    cluster.wait_ready()
    prefix = f"t{uuid.uuid4().hex[:10]}"
    quick = {"socket_timeout": 0.5, "format_interval": 0.01}
    made = Bus(BusSettings(redis_url=cluster.url, key_prefix=prefix, spool_dir=tmp_path, **quick))
    yield made
    made.close()


def users_at(cluster: RedisCluster, owner: ClusterNode, *, here: bool, number: int = 2) -> list[str]:
    """Return users whose channels are at a master, or are not."""
    found = (user for user in map(str, range(1000)) if (cluster.owner(slot_of(f"{{user:{user}}}")) is owner) is here)
    return [next(found) for _ in range(number)]


async def numbers(settings: BusSettings, user: str) -> list[int]:
    reader = RedisReader(settings)
    try:
        return [int(entry.record.offset) for entry in (await reader.read(f"user:{user}", 0)).log]
    finally:
        await reader.aclose()


async def test_a_silent_shard_holds_up_no_other(cluster: RedisCluster, bus: Bus) -> None:
    owner = cluster.owner(Keys.of(bus.settings).gateways)  # the outbox asks it for the formats of gateways
    silent, lively = users_at(cluster, owner, here=True), users_at(cluster, owner, here=False)
    for user in (*silent, *lively):
        bus.emit(user, "op", Ping(n=0))
    assert bus.flush(5)
    with stopped(owner, cluster.replica_of(owner)):
        waiting = [bus.emit(user, "op", Ping(n=n)) for n in (1, 2) for user in silent]
        wait_until(lambda: bus.outbox.blocked, "the outbox to set them aside")
        waiting += [bus.emit(user, "op", Ping(n=n)) for n in range(3, 50) for user in silent]
        for n in range(1, 50):
            receipts = [bus.emit(user, "op", Ping(n=n)) for user in lively]
            if n % 2:  # sent by the thread
                wait_until(lambda sent=receipts: {receipt.status for receipt in sent} == {"published"}, "the others", 5)
            else:
                assert not bus.flush(10), "the silent shard's events wait"
                assert {receipt.status for receipt in receipts} == {"published"}
        bus.emit(lively[0], "op", Ping(n=50), strict=True)
        with pytest.raises(Unavailable):
            bus.emit(silent[0], "op", Ping(n=50), strict=True)
        assert not bus.outbox.redis_down, "Redis answers: callers may go on to send"
        assert {receipt.status for receipt in waiting} == {"waiting"}
        assert bus.outbox.blocked == len(waiting)
    wait_until(lambda: bus.flush(1), "the events of the shard", 20)
    assert [receipt.offset for receipt in waiting[::2]] == list(range(2, 51)), "in order"
    assert [receipt.offset for receipt in waiting[1::2]] == list(range(2, 51)), "in order"
    assert (bus.outbox.blocked, dict(bus.outbox.dropped)) == (0, {})


async def test_the_events_of_a_killed_master_go_to_its_replica_and_others_do_not_wait(
    cluster: RedisCluster, bus: Bus
) -> None:
    owner = cluster.masters[1]
    replica = cluster.replica_of(owner)
    (dead,), (alive,) = users_at(cluster, owner, here=True, number=1), users_at(cluster, owner, here=False, number=1)
    for user in (dead, alive):
        bus.emit(user, "op", Ping())
    assert bus.flush(5)
    owner.run("WAIT", 1, 5000)
    owner.kill()
    first = bus.emit(dead, "op", Ping())
    wait_until(lambda: bus.outbox.blocked, "the outbox to set it aside")
    while not replica.is_master:
        before = bus.emit(alive, "op", Ping())
        bus.emit(dead, "op", Ping())
        wait_until(lambda before=before: before.status == "published", "the other shard's event", 2)
    wait_until(lambda: bus.flush(1), "the new master to have all", 20)
    assert first.offset == 2
    log = await numbers(bus.settings, dead)
    assert log == list(range(1, len(log) + 1))
    assert not bus.outbox.dropped
