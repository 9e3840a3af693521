"""Who is the server now? A connection asks its locator before it opens, and whether the answer still holds.

This is separate from the connections: one name, sentinels and a cluster's slots answer differently, and each
connection works with all of them.
"""

from __future__ import annotations

import weakref
from typing import Protocol

from eventbus.backends.redis.connections.async_sentinels import AsyncSentinels
from eventbus.backends.redis.connections.sentinels import Sentinels
from eventbus.errors import InvalidAddress
from eventbus.redis_url import Endpoint, RedisAddress
from eventbus.settings import BusSettings

__all__ = ["AsyncFixedLocator", "AsyncLocator", "FixedLocator", "Locator", "async_locator", "blocking_locator"]


class Locator(Protocol):
    """Names the server for a blocking connection."""

    def locate(self) -> Endpoint:
        """Return where to connect now. It takes at most the time limits of the settings.

        Raises:
            Unavailable: no server is known.
        """

    def holds(self, endpoint: Endpoint) -> bool:
        """Return whether a connection to this server may stay. It does not wait.

        Args:
            endpoint: an earlier answer of ``locate``.
        """


class AsyncLocator(Protocol):
    """Names the server for a connection of an event loop."""

    async def locate(self) -> Endpoint:
        """Return where to connect now. It takes at most the time limits of the settings.

        Raises:
            Unavailable: no server is known.
        """

    def holds(self, endpoint: Endpoint) -> bool:
        """Return whether a connection to this server may stay. It does not wait.

        Args:
            endpoint: an earlier answer of ``locate``.
        """

    async def aclose(self) -> None:
        """End what it needed to know the server."""


class FixedLocator:
    """One server under one name. The name may lead to another address at each connection.

    Args:
        endpoint: the server.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def locate(self) -> Endpoint:
        """See ``Locator``."""
        return self._endpoint

    def holds(self, endpoint: Endpoint) -> bool:
        """See ``Locator``."""
        del endpoint  # it is the only one that this locator names
        return True


class AsyncFixedLocator:
    """One server under one name, for an event loop.

    Args:
        endpoint: the server.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._fixed = FixedLocator(endpoint)
        self.holds = self._fixed.holds

    async def locate(self) -> Endpoint:
        """See ``AsyncLocator``."""
        return self._fixed.locate()

    async def aclose(self) -> None:
        """See ``AsyncLocator``. Nothing is open."""


_shared: weakref.WeakValueDictionary[RedisAddress, Sentinels] = weakref.WeakValueDictionary()


def blocking_locator(address: RedisAddress, settings: BusSettings) -> Locator:
    """Make the locator of an address.

    Args:
        address: the address.
        settings: time limits.

    Returns:
        The locator; the same one for all connections that use it now, if it follows sentinels.

    Raises:
        InvalidAddress: no connection can be made to such an address.
    """
    if address.kind != "sentinel":
        return FixedLocator(_only(address))
    found = _shared.get(address)
    if found is None:
        found = _shared[address] = Sentinels(address, settings)
    return found


def async_locator(address: RedisAddress, settings: BusSettings) -> AsyncLocator:
    """Make the locator of an address, for an event loop.

    Args:
        address: the address.
        settings: time limits.

    Returns:
        The locator.

    Raises:
        InvalidAddress: no connection can be made to such an address.
    """
    if address.kind == "sentinel":
        return AsyncSentinels(address, settings)
    return AsyncFixedLocator(_only(address))


def _only(address: RedisAddress) -> Endpoint:
    if address.kind != "single":
        raise InvalidAddress(f"EVENTBUS_REDIS_URL is of kind {address.kind}, which names no server", part="scheme")
    return address.nodes[0]
