"""The address of a client, also behind proxies. No I/O.

A proxy appends the address of its client to ``X-Forwarded-For``. Only the part that trusted proxies have written
counts: everything to the left of it may be the client's invention.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

__all__ = ["TrustedProxies", "address_group"]

_Address = IPv4Address | IPv6Address


class TrustedProxies:
    """The proxies whose ``X-Forwarded-For`` counts.

    Args:
        networks: their addresses or networks, such as ``10.0.0.5`` or ``10.0.0.0/8``.

    Raises:
        ValueError: a text is neither.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(ip_network(network, strict=False) for network in networks)

    def trusts(self, peer: str) -> bool:
        """Return whether a peer is a trusted proxy. The peer of a Unix socket, which has no address, is one.

        Args:
            peer: the address of the other end of the connection; empty: a Unix socket.
        """
        address = _parse(peer)
        return not peer if address is None else self._trusts(address)

    def client_of(self, peer: str, forwarded: str | None) -> str:
        """Return the address of the client that made a request.

        Args:
            peer: the address of the other end of the connection; empty: a Unix socket.
            forwarded: the values of ``X-Forwarded-For``, separated by commas.

        Returns:
            The address of the last hop that is not trusted. Empty: a Unix socket without such a header.
        """
        if not self.trusts(peer):
            return peer
        client = peer
        for hop in reversed(forwarded.split(",") if forwarded else ()):
            address = _parse(_without_port(hop.strip()))
            if address is None:
                break
            client = str(address)
            if not self._trusts(address):
                break
        return client

    def _trusts(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


def address_group(address: str, ipv6_prefix: int) -> str:
    """Return the name under which an address is counted: itself, or the network of an IPv6 address.

    Args:
        address: the address.
        ipv6_prefix: the length of the networks: one customer has a whole one.
    """
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((int(parsed), ipv6_prefix), strict=False))
    return address if parsed is None else str(parsed)


def _parse(text: str) -> _Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _without_port(hop: str) -> str:
    """Return ``192.0.2.1`` of ``192.0.2.1:80``, and ``2001:db8::1`` of ``[2001:db8::1]:80``."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
