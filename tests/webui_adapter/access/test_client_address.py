"""Whose address counts: a header is believed only as far as trusted proxies have written it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui_adapter.access.client_address import TrustedProxies, address_group

PROXIES = TrustedProxies(["10.0.0.0/8", "2001:db8:1::1"])
outside = st.ip_addresses(v=4).map(str).filter(lambda address: not PROXIES.trusts(address))
inside = st.integers(0, 2**24 - 1).map(lambda n: str(IPv4Address((10 << 24) + n)))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", None, "192.0.2.1"),
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),
        ("10.0.0.5", None, "10.0.0.5"),
        ("10.0.0.5", "198.51.100.7", "198.51.100.7"),
        ("10.0.0.5", "203.0.113.9, 198.51.100.7", "198.51.100.7"),
        ("10.0.0.5", "198.51.100.7, 10.0.0.6", "198.51.100.7"),
        ("10.0.0.5", "198.51.100.7:4711", "198.51.100.7"),
        ("10.0.0.5", "[2001:db8::7]:4711", "2001:db8::7"),
        ("10.0.0.5", "2001:db8::7", "2001:db8::7"),
        ("10.0.0.5", "198.51.100.7, unknown", "10.0.0.5"),
        ("10.0.0.5", "", "10.0.0.5"),
        ("::ffff:10.0.0.5", "198.51.100.7", "198.51.100.7"),
        ("2001:db8:1::1", "198.51.100.7", "198.51.100.7"),
        ("", "198.51.100.7", "198.51.100.7"),
        ("", None, ""),
    ],
    ids=str,
)
def test_the_last_hop_that_is_not_trusted_is_the_client(peer: str, forwarded: str | None, client: str) -> None:
    assert PROXIES.client_of(peer, forwarded) == client


@given(peer=outside, forwarded=st.text())
def test_the_header_of_an_untrusted_peer_never_counts(peer: str, forwarded: str) -> None:
    assert PROXIES.client_of(peer, forwarded) == peer


@given(invented=st.text(), client=outside, chain=st.lists(inside, max_size=3), peer=inside)
def test_what_the_client_itself_has_written_never_counts(
    invented: str, client: str, chain: list[str], peer: str
) -> None:
    forwarded = ",".join([invented, client, *chain])
    assert PROXIES.client_of(peer, forwarded) == client


@given(st.text(), st.text())
def test_any_header_is_read_without_an_error(peer: str, forwarded: str) -> None:
    PROXIES.client_of(peer, forwarded)


@given(network=st.integers(0, 2**64 - 1), hosts=st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=2))
def test_a_network_of_ipv6_counts_as_one_address(network: int, hosts: list[int]) -> None:
    one, other = (str(IPv6Address((network << 64) + host)) for host in hosts)
    if IPv6Address(one).ipv4_mapped is None and IPv6Address(other).ipv4_mapped is None:
        assert address_group(one, 64) == address_group(other, 64)
    assert address_group("2001:db8:0:1::1", 64) != address_group("2001:db8:0:2::1", 64)


def test_addresses_of_ipv4_count_one_by_one() -> None:
    assert address_group("192.0.2.1", 64) == "192.0.2.1"
    assert address_group("::ffff:192.0.2.1", 64) == "192.0.2.1"
    assert address_group("fe80::1%eth0", 64) == address_group("fe80::2", 64)
    assert address_group("", 64) == ""
