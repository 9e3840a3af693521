"""Which shards of a Redis Cluster answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from eventbus.backends.redis.cluster.node import Node
from eventbus.backends.redis.cluster.topology import Topology, slot_of
from eventbus.redis_url import Endpoint

__all__ = ["ClusterShards"]


class ClusterShards:
    """``Shards`` of a connection.

    Args:
        topology: returns the owners of the slots, as far as the connection knows them.
        nodes: the nodes that the connection has asked.
    """

    def __init__(self, topology: Callable[[], Topology | None], nodes: Mapping[Endpoint, Node]) -> None:
        self._topology = topology
        self._nodes = nodes
        self._routing: tuple[object, ...] = ()
        self._routing_version = 0

    @property
    def reaches_some(self) -> bool:
        """See ``Shards``."""
        topology = self._topology()
        return topology is not None and not all(map(self.is_failing, topology.masters))

    @property
    def routing_version(self) -> int:
        """See ``Shards``."""
        topology = self._topology()
        failing = frozenset(filter(self.is_failing, self._nodes))
        routing = (failing, None if topology is None else topology.owners)
        if routing != self._routing:
            self._routing, self._routing_version = routing, self._routing_version + 1
        return self._routing_version

    def reaches(self, channel: str) -> bool:
        """See ``Shards``."""
        topology = self._topology()
        owner = None if topology is None else topology.owner(slot_of(f"{{{channel}}}"))
        return topology is None or (owner is not None and not self.is_failing(owner))

    def is_failing(self, endpoint: Endpoint) -> bool:
        """Return whether a node did not answer last time, or has no verdict on its data yet.

        Args:
            endpoint: the node.
        """
        node = self._nodes.get(endpoint)
        return node is not None and (node.failing or node.waiting)
