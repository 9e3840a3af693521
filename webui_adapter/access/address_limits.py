"""Bounds per address: its open connections, and those that it opens per second. Time is an argument.

The numbers of other addresses do not matter to an address, so one client cannot lock out the others.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from eventbus.flow.token_bucket import TokenBucket
from webui_adapter.access.client_address import TrustedProxies, address_group
from webui_adapter.settings import GatewaySettings

__all__ = ["AddressExcess", "AddressLimits"]


@dataclass(frozen=True, slots=True)
class AddressExcess:
    """A bound that an address has reached.

    Attributes:
        reason: the bound: open connections, or the rate of new ones.
        limit: its value.
        wait: seconds until the next connection may be accepted.
    """

    reason: Literal["address_connections", "address_rate"]
    limit: float
    wait: float

    def __str__(self) -> str:
        if self.reason == "address_rate":
            return f"this address opens more than {self.limit:g} connections a second"
        return f"this address has {self.limit:g} connections, the limit"


class AddressLimits:
    """Counts the connections of each address.

    Args:
        settings: the bounds.

    Attributes:
        proxies: the proxies whose header names their client.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self.proxies = TrustedProxies(settings.trusted_proxies)
        self._sessions: dict[str, int] = {}
        self._sockets: dict[str, int] = {}
        # The address that opened a connection last is the last one.
        self._rates: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions.keys() | self._sockets.keys() | self._rates.keys())

    def client_of(self, peer: str, forwarded: str | None) -> str:
        """Return the name under which the client of a request is counted.

        Args:
            peer: the address of the other end of the connection; empty: a Unix socket.
            forwarded: the values of ``X-Forwarded-For``, separated by commas.

        Returns:
            The name for the other methods; empty: unknown, and without bounds.
        """
        return address_group(self.proxies.client_of(peer, forwarded), self._settings.address_ipv6_prefix)

    def admit(self, client: str, now: float) -> AddressExcess | None:
        """Count a new session of an address, unless a bound is reached.

        Args:
            client: the name from ``client_of``.
            now: the clock's time in seconds.

        Returns:
            None: the session counts until ``release``; or the bound, and nothing is counted but the attempt.
        """
        if not client:
            return None
        wait = self._rate_of(client, now).take(now)
        if wait:
            return AddressExcess("address_rate", self._settings.address_open_rate, wait)
        limit = self._settings.max_connections_per_address
        if not _add(self._sessions, client, limit):
            return AddressExcess("address_connections", limit, 1.0)
        return None

    def release(self, client: str) -> None:
        """Forget a session that ``admit`` has counted.

        Args:
            client: the name from ``client_of``.
        """
        _remove(self._sessions, client)

    def connected(self, peer: str) -> str | None:
        """Count a connection that is no session yet. Those of trusted proxies are not counted.

        Args:
            peer: the address of the other end of the connection.

        Returns:
            The name for ``disconnected``; None: the address has too many.
        """
        if self.proxies.trusts(peer):
            return ""
        client = address_group(peer, self._settings.address_ipv6_prefix)
        return client if _add(self._sockets, client, self._settings.max_connections_per_address) else None

    def disconnected(self, client: str) -> None:
        """Forget a connection that ``connected`` has counted.

        Args:
            client: the name that ``connected`` has returned.
        """
        _remove(self._sockets, client)

    def _rate_of(self, client: str, now: float) -> TokenBucket:
        rate = self._rates.pop(client, None)
        if rate is None:
            if len(self._rates) >= self._settings.tracked_addresses:
                self._rates.popitem(last=False)
            rate = TokenBucket(self._settings.address_open_rate, now, self._settings.address_open_burst)
        self._rates[client] = rate
        return rate


def _add(counts: dict[str, int], client: str, limit: int) -> bool:
    count = counts.get(client, 0)
    if count >= limit:
        return False
    counts[client] = count + 1
    return True


def _remove(counts: dict[str, int], client: str) -> None:
    count = counts.get(client, 0)
    if count > 1:
        counts[client] = count - 1
    else:
        counts.pop(client, None)
