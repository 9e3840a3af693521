"""Measures what a publication costs the nodes of a cluster: ``python -m bench.cluster_pubsub``.

Six nodes, three masters with a replica each. ``PUBLISH`` reaches the subscribers of every node, ``SPUBLISH`` those of
one shard. The figures are microseconds of CPU per message: of the master that publishes, and of one other master.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import hiredis
from redis.crc import key_slot

from bench.payload import padding
from eventbus.backends.redis.connections.resp import pack
from tests.servers.cluster import ClusterNode, RedisCluster, running_cluster

__all__ = ["main"]

_MESSAGES: Final = 20_000
_ROUNDS: Final = 3
_IN_FLIGHT: Final = 100
_CHANNEL: Final = "eb:{user:u00000}:live"


def _cpu(node: ClusterNode) -> float:
    with node.client as client:
        used = client.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def _publish(node: ClusterNode, command: str, text: str) -> None:
    reader, packed = hiredis.Reader(), pack((command, _CHANNEL, text))
    with socket.create_connection(("127.0.0.1", node.port)) as connection:
        for _ in range(_MESSAGES // _IN_FLIGHT):
            connection.sendall(packed * _IN_FLIGHT)
            for _ in range(_IN_FLIGHT):
                while (reply := reader.gets()) is False:
                    reader.feed(connection.recv(1 << 16))
                if isinstance(reply, Exception):
                    raise reply


def _cost(cluster: RedisCluster, command: str, text: str) -> list[float]:
    """Return the cost at the owner, at its replica and at the other masters."""
    owner = cluster.owner(key_slot(_CHANNEL.encode()))
    nodes = [owner, cluster.replica_of(owner), *(node for node in cluster.masters if node is not owner)]
    idle = [_cpu(node) for node in nodes]
    began = time.monotonic()
    time.sleep(1)  # the nodes talk to each other all the time
    rates = [(_cpu(node) - before) / (time.monotonic() - began) for node, before in zip(nodes, idle, strict=True)]
    before, began = [_cpu(node) for node in nodes], time.monotonic()
    _publish(owner, command, text)
    time.sleep(1)  # the last messages are on their way
    lasted = time.monotonic() - began
    used = [_cpu(node) - start - rate * lasted for node, start, rate in zip(nodes, before, rates, strict=True)]
    return [seconds * 1e6 / _MESSAGES for seconds in used]


def main() -> None:
    """Measure and print medians."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster_pubsub", description=__doc__)
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    options = parser.parse_args()
    text = padding("u00000")
    print(f"us of CPU per message of {len(text)} bytes   owner   its replica   another master")
    with TemporaryDirectory(prefix="bench-cluster-") as folder, running_cluster(Path(folder)) as cluster:
        for command in ("PUBLISH", "SPUBLISH"):
            rounds = [_cost(cluster, command, text) for _ in range(options.rounds)]
            owner, replica, *others = (statistics.median(column) for column in zip(*rounds, strict=True))
            print(f"{command:36}{owner:8.1f}{replica:14.1f}{statistics.mean(others):17.1f}")


if __name__ == "__main__":
    main()
