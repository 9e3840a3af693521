"""A Redis Cluster of two shards: no event is dropped, and the messages say that it is a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventbus import Bus, BusSettings, Event, Unavailable
from eventbus.backends.redis.probe import RedisProbe
from eventbus.backends.redis.reader import RedisReader
from eventbus.testing.redis_server import RedisServer, free_port
from tests.conftest import wait_until

USERS = ("ann", "bob", "cyd", "dan", "eve", "fay")


class Ping(Event, name="cluster.ping"):
    n: int = 0


class Node(RedisServer):
    """A master of a cluster. Its bus has a free port too: the default, port + 10,000, may be in use."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.bus_port = free_port()

    def command(self) -> list[str]:
        bus_port = str(self.bus_port)
        options = ["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no", "--cluster-port", bus_port]
        return [*super().command(), *options]


def is_up(node: Node) -> bool:
    """Whether a node knows both masters and serves its slots."""
    info = node.client.execute_command("CLUSTER", "INFO")
    return b"cluster_size:2" in info and b"cluster_state:ok" in info


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Node]:
    """The first of two masters, which share the slots."""
    nodes = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        node = Node(folder)
        node.start()
        nodes.append(node)
    for node, slots in zip(nodes, ((0, 8191), (8192, 16383)), strict=True):
        node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)
    nodes[0].client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[1].port, nodes[1].bus_port)
    wait_until(lambda: all(is_up(node) for node in nodes), "the cluster")
    yield nodes[0]
    for node in nodes:
        node.kill()


def test_no_event_is_dropped_and_the_log_names_the_cluster(cluster: Node, caplog: pytest.LogCaptureFixture) -> None:
    bus = Bus(BusSettings(redis_url=cluster.url, spool=False))
    receipts = [bus.emit(user, "op", Ping()) for user in USERS]
    assert not bus.flush(2), "some events are kept"
    # An event behind one that the shard rejects waits too, so it depends on the batches how many are published.
    assert "waiting" in {receipt.status for receipt in receipts} <= {"published", "waiting"}
    assert "it is a cluster of 2 shards; set EVENTBUS_REDIS_URL" in caplog.text
    bus.close()


async def test_a_reader_and_the_probe_name_the_cluster(cluster: Node) -> None:
    settings = BusSettings(redis_url=cluster.url)
    reader, probe = RedisReader(settings), RedisProbe(settings)
    read = await asyncio.gather(*(reader.read(f"user:{user}", 0) for user in USERS), return_exceptions=True)
    refused = [error for error in read if isinstance(error, BaseException)]
    assert 0 < len(refused) < len(USERS), "the first shard has some of the channels"
    assert all(isinstance(error, Unavailable) and "Redis is a cluster" in str(error) for error in refused)
    for _ in range(2):
        reason = await probe.publish_canary("one", "one")
        assert reason is not None
        assert reason.startswith("it is a cluster of 2 shards")
    await reader.aclose()
    await probe.aclose()


def test_a_single_server_is_no_cluster(bus_settings: BusSettings, caplog: pytest.LogCaptureFixture) -> None:
    bus = Bus(bus_settings)
    bus.emit("ann", "op", Ping())
    assert bus.flush(5)
    assert "cluster" not in caplog.text
    bus.close()
