"""A Redis Cluster of real processes: three masters with a replica each, up in a few seconds.

Tests may kill nodes, move slots, fail over and add a shard. The data is only in memory: a master that was killed
returns as a replica of the node that took over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any, Final

import redis
from redis.crc import key_slot

from eventbus.testing.redis_server import RedisServer, free_port
from tests.conftest import wait_until
from tests.servers.tls import ServerTls

__all__ = ["ClusterNode", "RedisCluster", "running_cluster"]

SLOTS: Final = 16_384
NODE_TIMEOUT_MS: Final = 2_000


class ClusterNode(RedisServer):
    """One node. Its bus has a free port too: the default, port + 10,000, may be in use.

    Attributes:
        id: the node's name in the cluster; empty until it has answered.
        bus_port: where it talks to other nodes.
        tls_port: where it listens for TLS; 0: nowhere.
    """

    def __init__(self, folder: Path, *options: str, tls: ServerTls | None = None) -> None:
        super().__init__(folder)
        self._tls = tls
        self.tls_port = 0 if tls is None else free_port()
        self.id = ""
        self.bus_port = free_port()
        self._options = options

    def command(self) -> list[str]:
        """Return the command line."""
        if not self.id:
            self.bus_port = free_port()  # at another attempt, since the last one may be in use
            self.tls_port = self.tls_port and free_port()
        cluster = ("--cluster-enabled", "yes", "--cluster-port", str(self.bus_port))
        limits = ("--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--cluster-require-full-coverage", "no")
        replication = ("--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0")
        command = [*super().command(), *cluster, *limits, *replication, *self._options]
        if self._tls is None:
            return command
        return [self._tls.program, *command[1:], *self._tls.options(self.tls_port, tls_cluster="yes")]

    def start(self, seconds: float = 15.0) -> None:
        """Start the node, or start it again with the name and the slots that it had."""
        super().start(seconds)
        self._fixed = True  # the others know its port
        self.id = self.cluster("MYID").decode()

    @property
    def file(self) -> Path:
        """Its RDB file. It writes none by itself."""
        return self.folder / "dump.rdb"

    def keep_copy(self) -> None:
        """Write the RDB file. The next start after a kill begins with it."""
        self.run("SAVE")

    def signal(self, number: int) -> None:
        """Send a signal, such as ``SIGSTOP`` for a silent node."""
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> None:
        """Write the RDB file and end, without a write between. The next start begins with this file."""
        assert self.process is not None
        with contextlib.suppress(redis.ConnectionError):
            self.run("SHUTDOWN", "SAVE")
        self.process.wait(20)
        self.process = None

    def cluster(self, *command: str | int) -> Any:
        """Run ``CLUSTER …`` at this node."""
        return self.run("CLUSTER", *command)

    def info(self) -> dict[str, str]:
        """Return ``CLUSTER INFO`` as a dict."""
        lines = self.cluster("INFO").decode().split()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def run(self, *command: str | bytes | int) -> Any:
        """Run any command at this node."""
        with self.client as client:
            return client.execute_command(*command)

    @property
    def is_master(self) -> bool:
        """Whether the node takes itself for a master."""
        return bool(self.run("ROLE")[0] == b"master")


class RedisCluster:
    """Six nodes, or as many as its shards need.

    Args:
        folder: working folder of all nodes.
        shards: number of masters; each has one replica.
        options: more options of each server.
        tls: TLS for all connections.

    Attributes:
        nodes: all nodes, also those that were killed; first the masters.
    """

    def __init__(self, folder: Path, *options: str, shards: int = 3, tls: ServerTls | None = None) -> None:
        self.tls = tls
        self._folder = folder
        self._options = options
        self._shards = shards
        self.nodes: list[ClusterNode] = []

    def start(self) -> None:
        """Start all nodes, and wait until each knows all and serves."""
        for _ in range(2 * self._shards):
            self._new_node()
        masters, replicas = self.nodes[: self._shards], self.nodes[self._shards :]
        for n, master in enumerate(masters):
            first, last = SLOTS * n // self._shards, SLOTS * (n + 1) // self._shards - 1
            master.cluster("ADDSLOTSRANGE", first, last)
            master.cluster("SET-CONFIG-EPOCH", n + 1)
        for node in self.nodes[1:]:
            self._meet(node)
        number = str(len(self.nodes))
        wait_until(
            lambda: all(node.info()["cluster_known_nodes"] == number for node in self.nodes), "the nodes to meet"
        )
        for master, replica in zip(masters, replicas, strict=True):
            replica.cluster("REPLICATE", master.id)
        self.wait_ready()

    def wait_ready(self, seconds: float = 20.0) -> None:
        """Wait until all living nodes serve, agree on the owners, and each replica follows its master."""
        wait_until(self._ready, "the cluster", seconds)

    @property
    def running(self) -> list[ClusterNode]:
        """Nodes whose process runs."""
        return [node for node in self.nodes if node.process is not None]

    @property
    def masters(self) -> list[ClusterNode]:
        """Running nodes that own slots."""
        owners = {owner for _, _, owner in self._owners(self.running[0])}
        return [node for node in self.running if node.port in owners]

    @property
    def url(self) -> str:
        """Its address: the first three nodes that were started."""
        if self.tls is None:
            return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:3])
        nodes = ",".join(f"127.0.0.1:{node.tls_port}" for node in self.nodes[:3])
        return f"rediss+cluster://{nodes}?{self.tls.query}"

    def owner(self, key: str | int) -> ClusterNode:
        """Return the master of a key or of a slot.

        Args:
            key: the key, or the slot's number.
        """
        slot = key if isinstance(key, int) else key_slot(key.encode())
        ports = {port for node in self.masters for first, last, port in self._owners(node) if first <= slot <= last}
        living = [node for node in self.masters if node.port in ports and node.is_master]
        assert living, f"no node owns slot {slot}"
        return living[0]

    def slots_of(self, master: ClusterNode) -> tuple[int, int]:
        """Return the first and the last slot of a master that has one range."""
        ((first, last),) = [(first, last) for first, last, port in self._owners(master) if port == master.port]
        return first, last

    def replica_of(self, master: ClusterNode) -> ClusterNode:
        """Return a running replica of a master."""
        for node in self.running:
            role = node.run("ROLE")
            if role[0] != b"master" and int(role[2]) in {master.port, master.tls_port}:
                return node
        raise AssertionError(f"node {master.port} has no replica")

    def user_at(self, master: ClusterNode, number: int = 0) -> str:
        """Return a user whose channel a master has.

        Args:
            master: the master.
            number: which of these users, from 0.
        """
        users = (user for user in map(str, count()) if self.owner(f"{{user:{user}}}") is master)
        return next(islice(users, number, None))

    def execute(self, *command: str | bytes | int) -> list[Any]:
        """Run a command at every running node.

        Args:
            command: the command, such as ``("ACL", "SETUSER", …)``.
        """
        return [node.run(*command) for node in self.running]

    def keys(self) -> Iterator[tuple[bytes, int]]:
        """Yield all keys of all masters with their lives in seconds; -1: forever."""
        for node in self.masters:
            with node.client as client:
                for key in client.scan_iter(count=1000):
                    yield key, client.ttl(key)

    def flush(self) -> None:
        """Remove all keys."""
        for node in self.masters:
            node.client.flushall()

    # --- changes -----------------------------------------------------------------------------------------------

    def fail_over(self, master: ClusterNode) -> ClusterNode:
        """Let a replica take over, without losses. Return it when all nodes know."""
        replica = self.replica_of(master)
        replica.cluster("FAILOVER")
        wait_until(lambda: replica.is_master and not master.is_master, "the failover")
        self.wait_ready()
        return replica

    def add_shard(self) -> ClusterNode:
        """Add a master without slots and without a replica. Return it when all nodes know it."""
        node = self._new_node()
        self._meet(node)
        number = len(self.running)
        wait_until(lambda: all(int(one.info()["cluster_known_nodes"]) >= number for one in self.running), "the node")
        self.wait_ready()
        return node

    def begin_move(self, slot: int, target: ClusterNode) -> None:
        """Begin to move a slot key by key: its owner answers ASK for keys that it does not have."""
        source = self.owner(slot)
        target.cluster("SETSLOT", slot, "IMPORTING", source.id)
        source.cluster("SETSLOT", slot, "MIGRATING", target.id)

    def move_keys(self, slot: int, target: ClusterNode, most: int = 1_000_000) -> int:
        """Move keys of a slot. Return how many are left."""
        source = self.owner(slot)
        with source.client as client:
            for key in client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, min(most, 10_000)):
                client.execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 5_000)
            return int(client.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot))

    def end_move(self, slot: int, target: ClusterNode) -> None:
        """Give the slot to its new owner: first at the new one, so that no two nodes have it."""
        source = self.owner(slot)
        for node in (target, source, *self.masters):
            node.cluster("SETSLOT", slot, "NODE", target.id)
        self.wait_ready()

    def move_slot(self, slot: int, target: ClusterNode) -> None:
        """Move a slot key by key, as ``redis-cli --cluster reshard`` does."""
        self.begin_move(slot, target)
        while self.move_keys(slot, target, 100):
            pass
        self.end_move(slot, target)

    def move_slot_atomically(self, slot: int, target: ClusterNode) -> None:
        """Move a slot atomically, by ``CLUSTER MIGRATESLOTS``. Valkey 9 has it, Redis does not."""
        source = self.owner(slot)
        source.cluster("MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)
        wait_until(lambda: self._owns(target, slot), "the slot to move")
        self.wait_ready()

    def stop(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.kill()

    # --- inside ------------------------------------------------------------------------------------------------

    def _new_node(self) -> ClusterNode:
        folder = self._folder / f"node{len(self.nodes)}"
        folder.mkdir()
        node = ClusterNode(folder, *self._options, tls=self.tls)
        node.start()
        self.nodes.append(node)
        return node

    def _meet(self, node: ClusterNode) -> None:
        self.nodes[0].cluster("MEET", "127.0.0.1", node.tls_port or node.port, node.bus_port)

    @staticmethod
    def _owners(node: ClusterNode) -> list[tuple[int, int, int]]:
        """Return first slot, last slot and port of the owner, as a node sees it."""
        return [(first, last, master[1]) for first, last, master, *_ in node.cluster("SLOTS")]

    def _owns(self, node: ClusterNode, slot: int) -> bool:
        return any(first <= slot <= last and port == node.port for first, last, port in self._owners(node))

    def _ready(self) -> bool:
        try:
            views = {tuple(sorted(self._owners(node))) for node in self.running}
            states = {node.info()["cluster_state"] for node in self.running}
            roles = [node.run("ROLE") for node in self.running]
        except redis.RedisError:
            return False
        alive = {node.port for node in self.running}
        covered = len(views) == 1 and all(port in alive for _, _, port in next(iter(views)))
        return covered and states == {"ok"} and all(role[0] == b"master" or role[3] == b"connected" for role in roles)


@contextmanager
def running_cluster(
    folder: Path, *options: str, shards: int = 3, tls: ServerTls | None = None
) -> Iterator[RedisCluster]:
    """Run a cluster.

    Args:
        folder: working folder of all nodes.
        options: more options of each server.
        shards: number of masters; each has one replica.
        tls: TLS for all connections.
    """
    cluster = RedisCluster(folder, *options, shards=shards, tls=tls)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
