"""Finds keys by pattern: at one server, or at each master of a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import redis

from eventbus.backends.redis.cluster.topology import Topology
from eventbus.backends.redis.connections.blocking import BlockingConnection
from eventbus.backends.redis.connections.errors import classify
from eventbus.backends.redis.connections.locator import FixedLocator, Locator
from eventbus.backends.redis.connections.resp import Command
from eventbus.errors import EventBusError, Unavailable
from eventbus.redis_url import Endpoint
from eventbus.settings import BusSettings

__all__ = ["scan_keys"]

_KEYS_PER_CALL: Final = 1_000


def scan_keys(settings: BusSettings, pattern: str) -> Iterator[list[str]]:
    """Find keys. A key may come twice while the server grows its table or a slot moves.

    Args:
        settings: address and time limits.
        pattern: a pattern of Redis' ``SCAN``.

    Yields:
        Keys, as many as one call of ``SCAN`` finds.

    Raises:
        Unavailable, Refused: a server did not answer, or rejected the command.
    """
    for locator in _locators(settings):
        with contextlib.closing(BlockingConnection(settings, locator=locator)) as connection:
            cursor = 0
            while True:
                position, keys = _ask(connection, ("SCAN", cursor, "MATCH", pattern, "COUNT", _KEYS_PER_CALL))
                yield [key.decode() for key in keys]
                cursor = int(position)
                if not cursor:
                    break


def _locators(settings: BusSettings) -> list[Locator | None]:
    if settings.redis.kind != "cluster":
        return [None]
    return [FixedLocator(master) for master in _masters(settings)]


def _masters(settings: BusSettings) -> list[Endpoint]:
    """Ask one node after the other for the masters."""
    problem: EventBusError = Unavailable("no node of the cluster answers")
    for node in settings.redis.nodes:
        with contextlib.closing(BlockingConnection(settings, locator=FixedLocator(node))) as connection:
            try:
                topology = Topology.read(_ask(connection, ("CLUSTER", "SLOTS")), node)
            except EventBusError as error:
                problem = error
                continue
        if topology.is_complete:
            return topology.masters
        slots = topology.slots_of(None)
        problem = Unavailable(f"the cluster does not serve slots {slots}", slots=slots, code="CLUSTERDOWN")
    raise problem


def _ask(connection: BlockingConnection, command: Command) -> list[Any]:
    try:
        (reply,) = connection.round_trip([command])
    except (redis.RedisError, OSError) as error:
        raise classify(error) from error
    if isinstance(reply, redis.RedisError):
        raise classify(reply)
    return list(reply)
