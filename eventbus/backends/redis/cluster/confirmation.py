"""Durable mode at one node of a cluster: the replicas of this node must have what its calls wrote."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from eventbus.backends.redis.cluster.topology import Topology, tag_at
from eventbus.backends.redis.connections.blocking import BlockingConnection
from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.durability import Durability
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.clock import now_ms
from eventbus.errors import Unavailable
from eventbus.redis_url import Endpoint
from eventbus.settings import BusSettings

__all__ = ["NodeConfirmation"]


class NodeConfirmation:
    """Commands behind the calls of a round trip, and the conclusion from their replies.

    Args:
        settings: whether the replicas must confirm, and time limits.
        node: the node.

    Attributes:
        sent: number of commands behind the last calls.
    """

    def __init__(self, settings: BusSettings, node: Endpoint) -> None:
        self._durability = Durability(settings, "") if settings.durable == "replicas" else None
        self._keys = Keys.of(settings)
        self._limit = settings.durable_timeout
        self._node = node
        self._greeting: list[Any] | None = None
        self.sent = 0

    def patience(self, limit: float | None) -> float:
        """Return how many seconds the node may wait for its replicas, beyond the time limit for a reply.

        Args:
            limit: the caller's time limit.
        """
        return self._limit if self._durability is not None and limit is None else 0.0

    def commands(self, connection: BlockingConnection, topology: Topology, limit: float | None) -> list[Command]:
        """Return the commands that follow the calls; none without durable mode.

        Args:
            connection: the connection to the node. On a new one, this asks how many replicas count.
            topology: who has which slot.
            limit: the caller's time limit in seconds.

        Raises:
            redis.RedisError, OSError, EventBusError: the node did not answer.
        """
        durability = self._durability
        if durability is None:
            return []
        durability.key = self._keys.durable_at(tag_at(topology, self._node))
        greeting = connection.connect()
        if greeting is not self._greeting:
            replies = connection.round_trip(durability.questions, greeting=greeting)
            durability.connected(self._node, replies, time.monotonic(), now_ms())
            self._greeting = greeting
        commands = durability.commands(limit, time.monotonic(), now_ms())
        self.sent = len(commands)
        return commands

    def check(self, replies: Sequence[Any]) -> Unavailable | None:
        """Draw the conclusion from the replies to ``commands``.

        Args:
            replies: the replies.

        Returns:
            Why it is unknown whether the events survive a failover; None if they do.
        """
        if self._durability is None:
            return None
        try:
            # A master that is cut off from the others loses its replicas first.
            self._durability.check(replies, named=True, now=time.monotonic())
        except Unavailable as error:
            return error
        return None
