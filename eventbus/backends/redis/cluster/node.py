"""One node of a cluster, as the outbox's thread uses it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from typing import Any

import redis

from eventbus.backends.redis.cluster.commands import RoundTrip, SlotGroup
from eventbus.backends.redis.cluster.confirmation import NodeConfirmation
from eventbus.backends.redis.cluster.topology import Topology
from eventbus.backends.redis.connections.blocking import BlockingConnection
from eventbus.backends.redis.connections.errors import classify
from eventbus.backends.redis.connections.locator import FixedLocator
from eventbus.backends.redis.connections.resp import Command
from eventbus.errors import EventBusError, Unavailable
from eventbus.redis_url import Endpoint
from eventbus.settings import BusSettings

__all__ = ["Node"]


class Node:
    """A connection to one node, and the scripts that the node has.

    Args:
        settings: address and time limits.
        endpoint: the node.

    Attributes:
        endpoint: the node.
        connection: the connection.
        confirmation: whether its replicas have what was written.
        loaded: the scripts that it has, as far as known.
        waiting: whether its channels wait, since it is not known whether it lost data.
        failing: whether it did not answer last time. Calls for it then fail immediately, until it has answered a ping.
    """

    def __init__(self, settings: BusSettings, endpoint: Endpoint) -> None:
        self._settings = settings
        self.endpoint = endpoint
        self.connection = BlockingConnection(settings, locator=FixedLocator(endpoint))
        self.confirmation = NodeConfirmation(settings, endpoint)
        self.loaded: set[str] = set()
        self.failing = self.waiting = False
        self._pinging: threading.Thread | None = None

    def send(
        self,
        groups: Sequence[SlotGroup],
        trip: RoundTrip,
        topology: Topology,
        greeting: list[Any] | None,
        limit: float | None,
    ) -> int:
        """Send commands, after the scripts that they need.

        Args:
            groups: the commands.
            trip: the round trip that they belong to.
            topology: who has which slot.
            greeting: of the connection that they were made for; None: any connection.
            limit: the caller's time limit in seconds.

        Returns:
            The number of replies to await.

        Raises:
            redis.RedisError, OSError, EventBusError: the outcome of all commands is unknown.
        """
        scripts = trip.scripts_of(groups)
        missing = scripts.keys() - self.loaded
        wire: list[Command] = [("SCRIPT", "LOAD", scripts[sha].source) for sha in sorted(missing)]
        for group in groups:
            wire += group.wire
        self.connection.limit = limit
        if trip.confirmed:
            wire += self.confirmation.commands(self.connection, topology, limit)
        self.connection.send(wire, greeting)
        self.loaded |= missing
        return len(wire)

    def receive(self, number: int, trip: RoundTrip, limit: float | None) -> list[Any]:
        """Receive the replies to ``send``.

        Args:
            number: what ``send`` returned.
            trip: the round trip.
            limit: the caller's time limit in seconds.

        Returns:
            The replies in order.

        Raises:
            redis.RedisError, OSError, EventBusError: as ``send``.
        """
        return self.connection.receive(number, self.confirmation.patience(limit) if trip.confirmed else 0.0)

    def ping(self) -> None:
        """Ask in another thread whether a failing node answers again: one that is silent must not delay the others."""
        if self._pinging is None or not self._pinging.is_alive():
            self._pinging = threading.Thread(target=self._ping, name="eventbus-cluster-ping", daemon=True)
            self._pinging.start()

    def _ping(self) -> None:
        connection = BlockingConnection(self._settings, locator=FixedLocator(self.endpoint))
        with contextlib.closing(connection), contextlib.suppress(redis.RedisError, OSError, EventBusError):
            (reply,) = connection.round_trip([("PING",)])
            self.failing = isinstance(reply, redis.RedisError) and isinstance(classify(reply), Unavailable)
