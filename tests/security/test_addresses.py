"""No address can take the connections of the others: bounds per address, also behind a proxy."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import wait_until
from tests.security.ways import WAYS, serving
from tests.webui_adapter.gateways import GatewayProcess, RawWebSocket, running, token

# Any address of 127.0.0.0/8 is this machine. The limits take them for different ones.
GREEDY, OTHER, PROXY = "127.0.0.2", "127.0.0.3", "127.0.0.9"


@pytest.fixture(scope="module", params=WAYS)
def limited(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, redis_url: str
) -> Iterator[GatewayProcess]:
    folder, prefix = tmp_path_factory.mktemp("limited"), f"sec{uuid.uuid4().hex[:8]}"
    bounds = {"max_connections_per_address": 3, "trusted_proxies": f"{PROXY},10.0.0.0/8", "auth_deadline": 60}
    with serving(request.param, folder, redis_url, prefix, **bounds) as process:
        yield process


def refused(gateway: GatewayProcess, reason: str) -> float:
    return gateway.metrics().get(f'eventbus_refused_total{{reason="{reason}"}}', 0)


def opened(gateway: GatewayProcess, source: str, headers: str = "") -> tuple[RawWebSocket, str]:
    """A connection, and the status of the answer to its handshake."""
    raw = RawWebSocket(gateway, headers, source=source)
    return raw, raw.head().split()[1]


def gone(gateway: GatewayProcess, *connections: RawWebSocket) -> None:
    for raw in connections:
        raw.close()
    wait_until(lambda: gateway.metrics()["eventbus_connections"] == 0, "them to be gone")


def test_an_address_has_its_number_and_no_other_address_suffers(limited: GatewayProcess) -> None:
    before = refused(limited, "address_connections")
    held = [opened(limited, GREEDY) for _ in range(3)]
    assert [status for _, status in held] == ["101"] * 3
    raw = RawWebSocket(limited, source=GREEDY)
    head = raw.head()
    raw.close()
    assert head.startswith("HTTP/1.1 429")
    assert "\r\nretry-after: 1" in head.lower()
    assert refused(limited, "address_connections") == before + 1
    other, status = opened(limited, OTHER)
    assert status == "101"
    held[0][0].close()
    wait_until(lambda: limited.metrics()["eventbus_connections"] == 3, "the first to be gone")
    again, status = opened(limited, GREEDY)
    assert status == "101"
    gone(limited, other, again, *(raw for raw, _ in held[1:]))


def test_a_stream_counts_like_a_websocket(limited: GatewayProcess, user: str) -> None:
    held = [opened(limited, GREEDY)[0] for _ in range(3)]
    headers = {"Authorization": f"Bearer {token(user)}"}
    with httpx.Client(transport=httpx.HTTPTransport(local_address=GREEDY), headers=headers, timeout=10) as client:
        answer = client.get(limited.sse)
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
        assert answer.json()["message"] == "this address has 3 connections, the limit"
        assert answer.headers["retry-after"] == "1"
        gone(limited, *held)
        with client.stream("GET", limited.sse) as stream:
            assert stream.status_code == 200
            pair = [opened(limited, GREEDY) for _ in range(3)]
            assert [status for _, status in pair] == ["101", "101", "429"]
    gone(limited, *(raw for raw, _ in pair))


def test_a_proxy_names_its_clients_and_no_one_else_does(limited: GatewayProcess) -> None:
    forwarded = "X-Forwarded-For: {}\r\n".format
    held = [opened(limited, PROXY, forwarded("203.0.113.9, 198.51.100.7, 10.1.2.3")) for _ in range(4)]
    assert [status for _, status in held] == ["101", "101", "101", "429"], "the client of the nearest proxy that counts"
    other, status = opened(limited, PROXY, forwarded("198.51.100.8"))
    assert status == "101"
    spoofed = [opened(limited, GREEDY, forwarded(f"198.51.100.{n}")) for n in range(20, 24)]
    assert [status for _, status in spoofed] == ["101", "101", "101", "429"], "who is no proxy is itself"
    twice, status = opened(limited, PROXY, forwarded("198.51.100.99") + forwarded("198.51.100.7"))
    assert status == "429", "a proxy that adds a line instead of a value"
    gone(limited, other, twice, *(raw for raw, _ in held + spoofed))


def test_a_network_of_ipv6_counts_as_one(limited: GatewayProcess) -> None:
    held = [opened(limited, PROXY, f"X-Forwarded-For: 2001:db8::{n}\r\n") for n in range(1, 5)]
    assert [status for _, status in held] == ["101", "101", "101", "429"]
    other, status = opened(limited, PROXY, "X-Forwarded-For: 2001:db8:0:1::1\r\n")
    assert status == "101"
    gone(limited, other, *(raw for raw, _ in held))


@pytest.mark.parametrize("way", WAYS)
def test_an_address_that_opens_too_fast_waits(
    way: str, tmp_path_factory: pytest.TempPathFactory, redis_url: str
) -> None:
    folder, prefix = tmp_path_factory.mktemp("fast"), f"sec{uuid.uuid4().hex[:8]}"
    bounds = {"address_open_rate": 0.01, "address_open_burst": 5, "trusted_proxies": ""}
    with serving(way, folder, redis_url, prefix, **bounds) as gateway:
        for n in range(7):
            raw, status = opened(gateway, GREEDY, "X-Forwarded-For: 198.51.100.7\r\n")
            assert status == ("101" if n < 5 else "429")
            raw.close()
        assert opened(gateway, OTHER)[1] == "101"
        assert refused(gateway, "address_rate") == 2
        log = gateway.log.read_text()
    assert log.count("if it is your proxy, add it to WEBUI_TRUSTED_PROXIES") == 1


def test_connections_without_a_request_are_bounded_too(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str, user: str
) -> None:
    """Only the stand-alone gateway: in an application they are the application's."""
    folder = tmp_path_factory.mktemp("silent")
    with running(folder, redis_url, f"sec{uuid.uuid4().hex[:8]}", max_connections_per_address=3) as gateway:
        peers = [socket.create_connection(("127.0.0.1", gateway.port), 10, (GREEDY, 0)) for _ in range(3)]
        with socket.create_connection(("127.0.0.1", gateway.port), 10, (GREEDY, 0)) as peer:
            assert peer.recv(65_536).startswith(b"HTTP/1.1 429")
        peers[0].close()
        wait_until(lambda: _answers(gateway), "a place for another")
        raw, status = opened(gateway, GREEDY, f"Authorization: Bearer {token(user)}\r\n")
        assert status == "101", "a session leaves its place to the next connection"
        assert _answers(gateway)
        raw.close()
        for silent in peers[1:]:
            silent.close()
        assert opened(gateway, OTHER)[1] == "101"


def test_a_stream_of_no_proxy_is_not_believed_either(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str, user: str
) -> None:
    """uvicorn would believe this machine."""
    folder, bounds = tmp_path_factory.mktemp("forged"), {"address_open_rate": 0.01, "address_open_burst": 1}
    prefix = f"sec{uuid.uuid4().hex[:8]}"
    with running(folder, redis_url, prefix, trusted_proxies="", **bounds) as gateway:
        headers = {"Authorization": f"Bearer {token(user)}", "X-Forwarded-For": "198.51.100.1"}
        with httpx.stream("GET", gateway.sse, headers=headers, timeout=10) as stream:
            assert stream.status_code == 200
            headers["X-Forwarded-For"] = "198.51.100.2"
            assert httpx.get(gateway.sse, headers=headers, timeout=10).status_code == 429


def _answers(gateway: GatewayProcess) -> bool:
    with httpx.Client(transport=httpx.HTTPTransport(local_address=GREEDY), timeout=10) as client:
        try:
            return client.get(f"{gateway.http}/healthz").status_code == 200
        except httpx.TransportError:
            return False
